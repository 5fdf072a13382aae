//! The report of a rollout: who started it and when, what it was judged by, each verdict over time, who stepped in, and how it ended.
//!
//! A report is built from the log on request and decides nothing. [`chain`] makes it possible to show later that the events are still the
//! same. The forms for people are Markdown and HTML; the JSON is the structure itself.

pub mod chain;
mod html;
mod markdown;
mod plot;
mod read;
mod words;

use serde::Serialize;
use serin_rollout::{Outcome, RolloutState, planner::without_order};
use serin_schemas::{
    ids::{EventTime, Generation, ModelName, RolloutId, Version},
    records::{
        Action, Arm, ArmSummary, Command, Decision, EventKind, MetricResult, MetricVerdict, Phase, Reason,
        RolloutEvent, Segment, Verdict,
    },
};
use serin_spec::{MetricKind, Mode, RolloutSpec};

use crate::series::{Point, Series};
pub(crate) use html::{POLICY, html};
pub(crate) use markdown::markdown;
pub(crate) use read::read;
pub use read::{Linked, audit};
pub use words::effect_within;

/// Name and version of the structure.
pub const FORMAT: &str = "serin.report/v1";
/// The actors that are services.
pub(crate) const SERVICES: [&str; 2] = ["analyzer", "controller"];

/// The report of one rollout.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    format: &'static str,
    /// Version of the program that wrote the report.
    build: &'static str,
    /// When the report was made, by the wall clock.
    made_at: EventTime,
    rollout: RolloutId,
    model: ModelName,
    stable: Version,
    canary: Version,
    mode: Mode,
    /// Number of the attempt: 1 unless it was a retry.
    attempt: u32,
    phase: Phase,
    outcome: Option<Outcome>,
    /// How it ended, or its present state.
    sentence: String,
    started: Option<Moment>,
    ended: Option<Moment>,
    /// SHA-256 of the rollout file, normalized, as JSON.
    revision: String,
    /// The rollout file, normalized.
    spec: RolloutSpec,
    steps: Vec<StepTaken>,
    people: Vec<Act>,
    evidence: Option<Evidence>,
    series: Verdicts,
    calls: Option<Calls>,
    /// Commands that judge the recorded log again.
    replay: Vec<String>,
    events: Vec<Linked>,
    chain: Fingerprint,
    /// What the report lacks, and why.
    notes: Vec<String>,
}

/// An event in short form: when, and by whom.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Moment {
    /// Event time.
    at: EventTime,
    /// Wall clock.
    recorded_at: EventTime,
    by: String,
}

/// A change of the canary's share.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct StepTaken {
    /// Number of the event.
    event: usize,
    #[serde(flatten)]
    when: Moment,
    phase: Phase,
    /// Number of the step, from 1; 0 before the first one.
    step: i32,
    /// Share of the canary in 1/10000.
    canary_share: i32,
    sentence: String,
}

/// What a person did.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Act {
    /// Number of the event.
    event: usize,
    #[serde(flatten)]
    when: Moment,
    kind: ActKind,
    /// The action; `None` if its command is no longer on the log.
    action: Option<Action>,
    /// Whether it was refused.
    refused: bool,
    /// Whether a weight was forced beyond the ramp.
    force: bool,
    /// The reason that the person gave. If the command is no longer on the log, the sentence has it.
    reason: Option<String>,
    sentence: String,
}

/// What a person's action was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ActKind {
    /// A decision that the rollout file asks for.
    Approval,
    /// Anything else that changed what the rollout would have done.
    Override,
}

/// The verdict that decided, or the newest one.
#[derive(Clone, Debug, Serialize)]
struct Evidence {
    /// Whether the rollout ended on this verdict.
    decided: bool,
    id: String,
    as_of: EventTime,
    decision: Decision,
    sentence: String,
    /// The findings that ended the rollout, worst first.
    reasons: Vec<Reason>,
    metrics: Vec<MetricVerdict>,
}

/// The verdicts over time.
#[derive(Clone, Debug, Serialize)]
struct Verdicts {
    /// Number of verdicts on the log.
    seen: u64,
    /// One of this many has a point.
    every: u64,
    points: Vec<Judged>,
}

/// One verdict, with the share that the canary had.
#[derive(Clone, Debug, Serialize)]
struct Judged {
    #[serde(flatten)]
    point: Point,
    /// Share of the canary in 1/10000.
    canary_share: i32,
}

/// The calls that the canary answered, and how many of them were worse.
#[derive(Clone, Debug, Serialize)]
struct Calls {
    canary: ArmSummary,
    control: Option<ArmSummary>,
    /// Estimates of the callers that were harmed, by failed check of a rate.
    harmed: Vec<Harmed>,
}

/// Calls of the canary that were bad, beyond those that would have been bad with the stable version.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Harmed {
    metric: String,
    segment: Segment,
    /// The canary's answers in the check.
    answers: i64,
    /// The estimate: answers times the difference of the rates.
    calls: f64,
}

/// The chain over the events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Fingerprint {
    format: &'static str,
    events: usize,
    head: String,
}

/// What was read from the log about a rollout.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) state: RolloutState,
    pub(crate) events: Vec<Linked>,
    pub(crate) head: String,
    pub(crate) commands: Vec<Command>,
    pub(crate) series: Series,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) notes: Vec<String>,
}

impl Report {
    /// The report from what was found, at `made_at` by the wall clock.
    pub(crate) fn of(found: Found, made_at: EventTime) -> Self {
        let Found { state, events, head, commands, series, verdict, mut notes } = found;
        let spec = state.file();
        let revision = chain::hex(&chain::digest(&serde_json::to_vec(&spec).unwrap_or_default()));
        let ended = state.ending.as_ref().and_then(|_| events.iter().rev().find(|linked| is_end(&linked.event)));
        let people = people(&events, &commands);
        if people.iter().any(|act| act.action.is_none()) {
            notes.push(
                "some commands are no longer on the log (the topic `commands` keeps them for a week): the sentences of their \
                 events have the reasons"
                    .to_owned(),
            );
        }
        let reasons = state.ending.as_ref().map(|ending| ending.reasons.clone()).unwrap_or_default();
        let evidence = verdict.as_ref().map(|verdict| Evidence {
            decided: ended.is_some_and(|end| end.event.cause.as_deref() == Some(&verdict.id)),
            id: verdict.id.clone(),
            as_of: verdict.as_of,
            decision: verdict.decision,
            sentence: without_order(&verdict.sentence).to_owned(),
            reasons,
            metrics: verdict.metrics.clone(),
        });
        let calls = verdict.as_ref().and_then(|verdict| Calls::of(verdict, &spec));
        let judged = |point: &std::sync::Arc<Point>| Judged {
            canary_share: share_at(&events, point.generation),
            point: Point::clone(point),
        };
        Self {
            format: FORMAT,
            build: env!("CARGO_PKG_VERSION"),
            made_at,
            rollout: state.id.clone(),
            model: spec.model.clone(),
            stable: spec.stable.version.clone(),
            canary: spec.canary.version.clone(),
            mode: spec.mode,
            attempt: state.attempt(),
            phase: state.phase,
            outcome: state.ending.as_ref().map(|ending| ending.outcome),
            sentence: without_order(state.ending.as_ref().map_or(&state.sentence, |ending| &ending.sentence))
                .to_owned(),
            started: events.first().filter(|first| first.event.kind == EventKind::Started).map(Moment::of),
            ended: ended.map(Moment::of),
            revision,
            steps: steps(&events),
            people,
            evidence,
            series: Verdicts {
                seen: series.seen(),
                every: series.every(),
                points: series.points().map(judged).collect(),
            },
            calls,
            replay: replay(&state.id),
            chain: Fingerprint { format: chain::FORMAT, events: events.len(), head },
            spec,
            events,
            notes,
        }
    }
}

impl Evidence {
    /// The reasons, unless the sentence has the only one.
    fn further_reasons(&self) -> &[Reason] {
        if self.reasons.len() == 1 && self.reasons[0].sentence == self.sentence { &[] } else { &self.reasons }
    }
}

impl Moment {
    fn of(linked: &Linked) -> Self {
        let RolloutEvent { at, recorded_at, actor, .. } = &linked.event;
        Self { at: *at, recorded_at: *recorded_at, by: actor.clone() }
    }
}

/// Whether an event ends a rollout. A promoted rollout may be undone later, which is another end.
fn is_end(event: &RolloutEvent) -> bool {
    matches!(event.kind, EventKind::Completed | EventKind::RolledBack | EventKind::Aborted | EventKind::Superseded)
}

/// The share of the canary while a generation was in force.
fn share_at(events: &[Linked], generation: Generation) -> i32 {
    let event = events.iter().rev().find(|linked| linked.event.generation <= generation);
    event.map_or(0, |linked| linked.event.canary_share)
}

/// The events after which the canary's share, or the phase of a rollout without a share, was another one.
fn steps(events: &[Linked]) -> Vec<StepTaken> {
    let mut before: Option<(i32, i32)> = None;
    let mut steps = Vec::new();
    for linked in events {
        let event = &linked.event;
        let now = (event.canary_share, event.step);
        if before != Some(now) || is_end(event) {
            steps.push(StepTaken {
                event: linked.number,
                when: Moment::of(linked),
                phase: event.phase,
                step: event.step + 1,
                canary_share: event.canary_share,
                sentence: event.sentence.clone(),
            });
        }
        before = Some(now);
    }
    steps
}

/// What people did after the start, by the events and the commands that caused them.
fn people(events: &[Linked], commands: &[Command]) -> Vec<Act> {
    let by_people = events.iter().filter(|linked| {
        !matches!(linked.event.kind, EventKind::Started | EventKind::Marked)
            && !SERVICES.contains(&linked.event.actor.as_str())
    });
    by_people
        .map(|linked| {
            let event = &linked.event;
            let command = commands.iter().find(|command| event.cause.as_deref() == Some(&command.id));
            let action = command.map(|command| command.action);
            let is_approval = action
                .map_or_else(|| reads_as_approval(event), |action| matches!(action, Action::Approve | Action::Reject));
            Act {
                event: linked.number,
                when: Moment::of(linked),
                kind: if is_approval { ActKind::Approval } else { ActKind::Override },
                action,
                refused: event.kind == EventKind::Refused,
                force: command.is_some_and(|command| command.force),
                reason: command.map(|command| command.reason.clone()).filter(|reason| !reason.is_empty()),
                sentence: event.sentence.clone(),
            }
        })
        .collect()
}

/// Whether an event is an approval or its refusal, by its sentence: the command may no longer be on the log.
pub(crate) fn reads_as_approval(event: &RolloutEvent) -> bool {
    ["approved by ", "rejected by "].iter().any(|words| event.sentence.contains(words))
}

impl Calls {
    fn of(verdict: &Verdict, spec: &RolloutSpec) -> Option<Self> {
        let arm = |arm: Arm| verdict.arms.iter().find(|summary| summary.arm == arm).cloned();
        let is_rate = |metric: &&MetricVerdict| {
            let known = spec.metrics.iter().find(|known| known.name == metric.metric);
            known.is_some_and(|known| known.kind == MetricKind::Rate) && metric.limit_fail.is_none()
        };
        let failed = verdict.metrics.iter().filter(|metric| metric.result == MetricResult::Fail).filter(is_rate);
        let harmed = failed.filter_map(|metric| {
            let difference = metric.canary.value? - metric.control.value?;
            let calls = metric.canary.n as f64 * difference.abs();
            let (metric_name, segment) = (metric.metric.clone(), metric.segment.clone());
            Some(Harmed { metric: metric_name, segment, answers: metric.canary.n, calls })
        });
        Some(Self { canary: arm(Arm::Canary)?, control: arm(Arm::Control), harmed: harmed.collect() })
    }
}

/// Commands that judge the rollout again.
fn replay(rollout: &RolloutId) -> Vec<String> {
    vec![
        "serin replay --config serin.yaml".to_owned(),
        format!("serin replay --config serin.yaml -f rollout.yaml --rollout {rollout}"),
    ]
}
