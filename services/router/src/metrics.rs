//! Metrics of the router. Labels are bounded: models and versions come from tables and configuration, never from callers.
//!
//! The label `arm` identifies a version by way of `serin_routing_weight_ratio{model, version, arm}`: versions come and go, and a counter
//! keeps every label value it ever had. The label `version` exists only where an arm has more than one version: for shadows
//! (`arm="shadow"`), and for configured versions that callers ask for in addition to those of the table.
//!
//! The counters of a route exist at 0 before the first event: for versions on trial from their table on, for other versions from their
//! first call on.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, UpDownCounter},
};
use serin_schemas::records::{Arm, Assignment, Outcome};
use serin_stream::{
    declare_metrics,
    metric::{ARM, Label, MODEL, VERSION, bounded, meter, words},
};

use crate::{
    content::llm::Reply,
    protocol::{Unread, refusal::Refusal},
    tables::{
        measured::{CODE_CLASSES, Measured, code_class},
        route::Route,
        table::Table,
        undecided::{ABSENT, Needed},
    },
};

/// The version, if an arm has more than one.
const PINNED: Label = bounded("version", "only on series of shadows and of configured versions that callers request");
/// Doors for feedback and events over HTTP and gRPC.
const DOORS: [&str; 6] = ["feedback", "events", "kserve", "seldon", "otlp", "envoy"];
/// Values of the label for [`Outcome`].
const OUTCOMES: [&str; 7] = ["ok", "refused", "redirected", "failed", "unusable", "unread", "cancelled"];

declare_metrics! {
    pub METRICS {
        /// Calls of versions.
        REQUESTS = Counter "serin_router_requests_total" in "{call}"
            [MODEL, ARM, PINNED, words("code_class", &CODE_CLASSES), words("outcome", &OUTCOMES)];
        /// Time from the last byte of a request to the last byte of its answer.
        DURATION = Histogram "serin_router_request_duration_seconds" in "s" [MODEL, ARM, PINNED];
        /// Answers that are excluded from the comparison.
        UNCOMPARED = Counter "serin_router_uncompared_total" in "{call}" [MODEL, words("assignment", &[
            "pinned", "targeted", "fallback", "lease_expired", "switched_off", "unreadable",
        ])];
        /// Calls that went to stable because a deciding value could not be read. `absent`: calls without the sticky key, which
        /// are split at random.
        UNDECIDED = Counter "serin_router_undecided_total" in "{call}" [
            MODEL, words("needed", &["sticky", "target", "segment"]),
            words("reason", &[
                "too_large", "encoding", "not_json", "too_deep", "too_long", "not_a_scalar", "unknown_response", "absent",
            ]),
        ];
        /// Calls whose outcome has a cause. The series of a cause starts at 1 with its first call, so alerts should use
        /// `serin_router_requests_total`.
        FAILURES = Counter "serin_router_failures_total" in "{call}" [
            MODEL, ARM, PINNED, words("outcome", &["failed", "unusable", "unread", "cancelled"]),
            bounded("cause", "causes of docs/outcomes.md"),
        ];
        /// Requests that the router refused.
        REFUSED = Counter "serin_router_refused_total" in "{request}" [words("reason", &Refusal::REASONS)];
        /// Inference calls in flight.
        IN_FLIGHT = Gauge "serin_router_in_flight" in "{call}" [];
        /// Events that were dropped because the queue to the log was full.
        EVENTS_DROPPED = Counter "serin_router_events_dropped_total" in "{event}" [MODEL, ARM];
        /// Memory filled by callers. `events`: records waiting to be written. `held`: request bodies held for a decision.
        /// `responses`: which version keeps which response of `/v1/responses`.
        MEMORY = Gauge "serin_router_memory_bytes" in "By" [words("map", &["events", "held", "responses"])];
        /// Time from a routing record's append to the log until it is applied.
        APPLY = Histogram "serin_router_apply_seconds" in "s" [];
        /// Copies of calls for shadows. `capped`: not sent, too many are in flight. `too_large`: not sent, the body was not kept.
        MIRRORED = Counter "serin_router_mirrored_total" in "{copy}"
            [MODEL, ARM, VERSION, words("outcome", &["sent", "capped", "too_large"])];
        /// Pairs of answers selected as examples. `over_budget` and `lost`: not kept.
        EXAMPLES = Counter "serin_router_examples_total" in "{pair}"
            [MODEL, words("reason", &["disagreement", "sample", "over_budget", "lost"])];
        /// Calls that were cut because their version was rolled back.
        CUT = Counter "serin_router_cut_total" in "{call}" [MODEL, ARM, PINNED];
        /// 1 while the router does not call a version on trial because its servers failed, otherwise 0.
        SHED = Gauge "serin_router_shed" in "1" [MODEL, VERSION];
        /// Duration of each part of a rollback. `decided` (controller): from the end of the deciding window, or from the command, to
        /// the decision. `applied` (router): from the routing record's append to the log until it is applied. `confirmed` (controller):
        /// the same of the slowest router, once every router has reported it. `drained` (router): from when it is applied until no call
        /// is in flight on the version.
        ROLLBACK = Histogram "serin_rollback_seconds" in "s" [words("phase", &["applied", "drained"])];
        /// Routing records.
        TABLES = Counter "serin_router_tables_total" in "{record}"
            [words("outcome", &["applied", "renewed", "removed", "older", "garbage", "unusable"])];
        /// Entries of feedback and events received over HTTP.
        INTAKE = Counter "serin_router_intake_total" in "{entry}" [
            words("door", &DOORS), words("outcome", &["accepted", "refused", "unauthorized", "failed"]),
        ];
        /// Time from the end of a request to the first chunk of a language model's stream.
        FIRST_CHUNK = Histogram "serin_router_time_to_first_chunk_seconds" in "s" [MODEL, ARM, PINNED];
        /// Mean time between two chunks of a language model's stream.
        PER_CHUNK = Histogram "serin_router_time_per_output_chunk_seconds" in "s" [MODEL, ARM, PINNED];
        /// Output tokens of a language model's answer.
        OUTPUT_TOKENS = Histogram "serin_router_output_tokens" in "{token}" [MODEL, ARM, PINNED];
        /// Attempts to load a changed certificate of the TLS port.
        CERTIFICATES = Counter "serin_router_certificates_total" in "{attempt}" [words("outcome", &["loaded", "unusable"])];
        /// Offset of this machine's clock from the log's clock while it exceeds the tolerance, otherwise 0.
        CLOCK_OFFSET = Gauge "serin_router_clock_offset_seconds" in "s" [];
        /// Number of times this process lost its name to a newer process with the same `router.name`.
        NAME_LOST = Counter "serin_router_name_lost_total" in "{loss}" [];
    }
}

/// Upper bounds of latency buckets, in seconds.
const LATENCY: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds of the buckets of [`APPLY`], in seconds; the target is 10 ms.
const APPLYING: [f64; 10] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0, 10.0];

/// Upper bounds of the buckets of [`PER_CHUNK`], in seconds.
const CHUNKS: [f64; 10] = [0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 2.0];
/// Upper bounds of the buckets of [`OUTPUT_TOKENS`].
const TOKENS: [f64; 10] = [1.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0, 100_000.0];
/// Upper bounds of the buckets of [`ROLLBACK`], in seconds.
const ROLLING_BACK: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];

/// The instruments.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Counter<u64>,
    duration: Histogram<f64>,
    uncompared: Counter<u64>,
    undecided: Counter<u64>,
    failures: Counter<u64>,
    refused: Counter<u64>,
    pub(crate) in_flight: UpDownCounter<i64>,
    dropped: Counter<u64>,
    apply: Histogram<f64>,
    tables: Counter<u64>,
    intake: Counter<u64>,
    first_chunk: Histogram<f64>,
    per_chunk: Histogram<f64>,
    output_tokens: Histogram<f64>,
    certificates: Counter<u64>,
    mirrored: Counter<u64>,
    examples: Counter<u64>,
    cut: Counter<u64>,
    rollback: Histogram<f64>,
    name_lost: Counter<u64>,
    clock_offset: Gauge<f64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            requests: REQUESTS.counter(),
            duration: DURATION.histogram(&LATENCY),
            undecided: UNDECIDED.counter(),
            uncompared: UNCOMPARED.counter(),
            failures: FAILURES.counter(),
            refused: REFUSED.counter(),
            in_flight: meter()
                .i64_up_down_counter(IN_FLIGHT.name)
                .with_description(IN_FLIGHT.help())
                .with_unit(IN_FLIGHT.unit)
                .build(),
            dropped: EVENTS_DROPPED.counter(),
            apply: APPLY.histogram(&APPLYING),
            tables: TABLES.counter(),
            intake: INTAKE.counter(),
            first_chunk: FIRST_CHUNK.histogram(&LATENCY),
            per_chunk: PER_CHUNK.histogram(&CHUNKS),
            output_tokens: OUTPUT_TOKENS.histogram(&TOKENS),
            certificates: CERTIFICATES.counter(),
            mirrored: MIRRORED.counter(),
            examples: EXAMPLES.counter(),
            cut: CUT.counter(),
            rollback: ROLLBACK.histogram(&ROLLING_BACK),
            clock_offset: meter()
                .f64_gauge(CLOCK_OFFSET.name)
                .with_description(CLOCK_OFFSET.help())
                .with_unit(CLOCK_OFFSET.unit)
                .build(),
            name_lost: NAME_LOST.counter(),
        };
        metrics.begin_process();
        metrics
    }

    /// Creates all process-wide counters at 0.
    fn begin_process(&self) {
        let zero = |counter: &Counter<u64>, label: &'static str, values: &[&'static str]| {
            for value in values {
                counter.add(0, &[KeyValue::new(label, *value)]);
            }
        };
        zero(&self.refused, "reason", &Refusal::REASONS);
        zero(&self.tables, "outcome", &["applied", "renewed", "removed", "older", "garbage", "unusable"]);
        zero(&self.certificates, "outcome", &["loaded", "unusable"]);
        for door in DOORS {
            for outcome in ["accepted", "refused", "unauthorized", "failed"] {
                self.intake(door, outcome, 0);
            }
        }
        self.name_lost.add(0, &[]);
        self.in_flight.add(0, &[]);
    }

    /// Creates all counters of a table with a version on trial at 0.
    pub(crate) fn begin(&self, table: &Table) {
        if table.canary.is_none() && table.shadows.is_empty() {
            return;
        }
        let model = model_label(table.record.model.as_str());
        for route in table.split() {
            self.of(route);
        }
        for shadow in &table.shadows {
            for outcome in ["sent", "capped", "too_large"] {
                self.copies(&shadow.route, outcome, 0);
            }
        }
        if table.policy.capture.is_some() {
            for reason in ["disagreement", "sample", "over_budget", "lost"] {
                self.examples.add(0, &[model.clone(), KeyValue::new("reason", reason)]);
            }
        }
        let asks = [
            (Needed::Sticky, table.sticky.is_some()),
            (Needed::Target, !table.policy.targets.is_empty()),
            (Needed::Segment, !table.segments.is_empty()),
        ];
        for (needed, _) in asks.into_iter().filter(|(_, asks)| *asks) {
            let absent = (needed == Needed::Sticky).then_some(ABSENT);
            for reason in Unread::ALL.map(Unread::as_str).into_iter().chain(absent) {
                let labels = [model.clone(), KeyValue::new("needed", needed.as_str()), KeyValue::new("reason", reason)];
                self.undecided.add(0, &labels);
            }
        }
    }

    /// The metrics of a route. The first call creates all of its counters at 0.
    fn of<'r>(&self, route: &'r Route) -> &'r Measured {
        route.measured.get_or_init(|| {
            let labels = route.labels.as_slice();
            let (model, arm) = (&labels[..1], &labels[..2]);
            self.dropped.add(0, arm);
            for (class, outcome) in USUAL {
                let answer = [KeyValue::new("code_class", class), KeyValue::new("outcome", outcome.as_str())];
                self.requests.add(0, &[labels, &answer].concat());
            }
            for assignment in UNCOMPARABLE {
                self.uncompared.add(0, &[model, &[KeyValue::new("assignment", assignment_name(assignment))]].concat());
            }
            if route.drains() {
                self.cut(route, 0);
            }
            Measured { duration: self.duration.bind(labels), answers: Default::default() }
        })
    }

    /// A call of a version has ended.
    pub(crate) fn answered(
        &self,
        route: &Route,
        assignment: Assignment,
        outcome: Outcome,
        status: Option<i32>,
        took: Duration,
    ) {
        let bound = self.of(route);
        if !assignment.is_compared() {
            let assignment = KeyValue::new("assignment", assignment_name(assignment));
            self.uncompared.add(1, &[&route.labels[..1], &[assignment]].concat());
        }
        bound.duration.record(took.as_secs_f64());
        let class = code_class(status);
        let answers = bound.answers[class][outcome as usize].get_or_init(|| {
            let class = KeyValue::new("code_class", CODE_CLASSES[class]);
            let outcome = KeyValue::new("outcome", outcome.as_str());
            self.requests.bind(&[route.labels.as_slice(), &[class, outcome]].concat())
        });
        answers.add(1);
    }

    /// A call could not be split as the rollout requires.
    pub(crate) fn undecided(&self, model: &str, needed: &'static str, reason: &'static str) {
        let labels = [model_label(model), KeyValue::new("needed", needed), KeyValue::new("reason", reason)];
        self.undecided.add(1, &labels);
    }

    /// A call failed for this cause, or its outcome is unknown.
    pub(crate) fn not_ok(&self, route: &Route, outcome: Outcome, cause: &str) {
        let why = [KeyValue::new("outcome", outcome.as_str()), KeyValue::new("cause", cause.to_owned())];
        self.failures.add(1, &[route.labels.as_slice(), &why].concat());
    }

    /// An answer of a language model.
    pub(crate) fn language_model_answer(&self, route: &Route, reply: &Reply) {
        if let Some(first) = reply.time_to_first_chunk() {
            self.first_chunk.record(first.as_secs_f64(), &route.labels);
        }
        if let Some(gap) = reply.time_per_chunk() {
            self.per_chunk.record(gap.as_secs_f64(), &route.labels);
        }
        if let Some(tokens) = reply.output_tokens() {
            self.output_tokens.record(tokens as f64, &route.labels);
        }
    }

    /// A changed certificate was loaded or found unusable.
    pub(crate) fn certificate(&self, outcome: &'static str) {
        self.certificates.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// The router refused a request.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// An event of an arm was dropped.
    pub(crate) fn dropped(&self, model: &str, arm: Arm) {
        self.dropped.add(1, &[KeyValue::new("model", model.to_owned()), KeyValue::new("arm", arm.as_str())]);
    }

    /// A routing record was read.
    pub(crate) fn table(&self, outcome: &'static str) {
        self.tables.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// A routing record was applied `micros` after it was appended to the log.
    pub(crate) fn applied(&self, micros: i64) {
        self.apply.record(micros as f64 / 1e6, &[]);
    }

    /// A copy of a call for a shadow was sent or not.
    pub(crate) fn mirrored(&self, shadow: &Route, outcome: &'static str) {
        self.copies(shadow, outcome, 1);
    }

    fn copies(&self, shadow: &Route, outcome: &'static str, count: u64) {
        self.mirrored.add(count, &[shadow.labels.as_slice(), &[KeyValue::new("outcome", outcome)]].concat());
    }

    /// A pair of answers was kept as an example or not.
    pub(crate) fn example(&self, model: &str, reason: &'static str) {
        self.examples.add(1, &[model_label(model), KeyValue::new("reason", reason)]);
    }

    /// A part of a rollback took this long.
    pub(crate) fn rolled_back(&self, phase: &'static str, took: Duration) {
        self.rollback.record(took.as_secs_f64(), &[KeyValue::new("phase", phase)]);
    }

    /// The offset of this machine's clock from the log's clock.
    pub(crate) fn clock_off(&self, off_ms: i64) {
        self.clock_offset.record(off_ms as f64 / 1e3, &[]);
    }

    /// A newer process writes under this router's name.
    pub(crate) fn name_lost(&self) {
        self.name_lost.add(1, &[]);
    }

    /// Calls on a version were cut.
    pub(crate) fn cut(&self, route: &Route, calls: usize) {
        self.cut.add(calls as u64, &route.labels);
    }

    /// Entries received over HTTP.
    pub(crate) fn intake(&self, door: &'static str, outcome: &'static str, entries: usize) {
        self.intake.add(entries as u64, &[KeyValue::new("door", door), KeyValue::new("outcome", outcome)]);
    }
}

pub(crate) fn model_label(model: &str) -> KeyValue {
    KeyValue::new("model", model.to_owned())
}

fn assignment_name(assignment: Assignment) -> &'static str {
    use Assignment as A;
    match assignment {
        A::Random => "random",
        A::Sticky => "sticky",
        A::Pinned => "pinned",
        A::Targeted => "targeted",
        A::Fallback => "fallback",
        A::LeaseExpired => "lease_expired",
        A::SwitchedOff => "switched_off",
        A::External => "external",
        A::Unreadable => "unreadable",
    }
}

/// Assignments that exclude an answer from the comparison.
const UNCOMPARABLE: [Assignment; 6] = [
    Assignment::Pinned,
    Assignment::Targeted,
    Assignment::Fallback,
    Assignment::LeaseExpired,
    Assignment::SwitchedOff,
    Assignment::Unreadable,
];

/// Common kinds of answers. Their counters exist before the first answer of each kind.
const USUAL: [(&str, Outcome); 9] = [
    ("2xx", Outcome::Ok),
    ("2xx", Outcome::Failed),
    ("2xx", Outcome::Unusable),
    ("2xx", Outcome::Unread),
    ("3xx", Outcome::Redirected),
    ("4xx", Outcome::Refused),
    ("5xx", Outcome::Failed),
    ("none", Outcome::Failed),
    ("none", Outcome::Cancelled),
];
