//! The same calls through a router and through each door: the verdicts are the same, window by window.

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use serin_doors::{DoorRules, Mapping, cloud::Event, envoy, half, half::Half, otlp};
use serin_intake::{IntakeClock, IntakeConfig, IntakeFold};
use serin_schemas::{
    codec,
    envelope::{self, Envelope},
    event::EventRecord,
    foreign::Bounds,
    ids::{EventTime, Generation, Span},
    records::{Arm, Assignment, Decision, Heartbeat, MetricResult, Origin, Outcome, Prediction, Verdict, Writer},
};
use serin_spec::TrafficDoor;
use serin_stream::{driver::FoldDriver, record::Headers};

use crate::in_process::InProcess;

const STATUSES: &str = "
apiVersion: serin.dev/v1
kind: Rollout
model: fraud
mode: observe
traffic: external
stable: {version: v1}
canary: {version: v2}
window: 1s
warmup: {minEvents: 500}
steps: [{weight: 30%, bake: {min: 5s, max: 10m}}]
metrics:
  - {name: latency_p90, kind: {quantile: {level: 0.9}}, source: latency, margin: {relative: 0.5}}
";
const OUTPUTS: &str = "
apiVersion: serin.dev/v1
kind: Rollout
model: fraud
mode: observe
traffic: external
stable: {version: v1}
canary: {version: v2}
window: 1s
warmup: {minEvents: 500}
steps: [{weight: 30%, bake: {min: 5s, max: 10m}}]
outputs: [{name: score, source: {tensor: score}, min: 0, max: 1}]
metrics:
  - {name: score, kind: {mean: {min: 0, max: 1}}, source: {output: score}, margin: {absolute: 0.05}}
";

/// Calls per second.
const RATE: i64 = 500;
/// Seconds of a scenario.
const SECONDS: i64 = 40;

/// One call to a model behind another router.
struct Call {
    id: String,
    version: &'static str,
    completed: EventTime,
    latency_us: i64,
    status: i32,
    score: f64,
}

impl Call {
    fn arrived(&self) -> EventTime {
        EventTime(self.completed.0 - self.latency_us)
    }

    fn answer(&self) -> String {
        json!({"model_version": self.version, "outputs": [{"name": "score", "shape": [1], "datatype": "FP64", "data": [self.score]}]})
            .to_string()
    }

    /// The call as a router reports it.
    fn reported(&self) -> Prediction {
        let failed = self.status >= 500;
        Prediction {
            request_id: self.id.clone().into(),
            model: "fraud".into(),
            version: self.version.into(),
            arm: if self.version == "v2" { Arm::Canary } else { Arm::Control },
            assignment: Assignment::Random,
            origin: Origin::Router,
            rollout: None,
            generation: Generation(0),
            completed_at: self.completed,
            latency_us: Some(self.latency_us),
            status: Some(self.status),
            error: failed.then(|| format!("status_{}", self.status)),
            invalid_output: None,
            unit: None,
            outputs: if failed { [].into() } else { [("score".to_owned(), self.score)].into() },
            classes: [].into(),
            segments: [].into(),
            writer: Writer::default(),
            outcome: Some(if failed { Outcome::Failed } else { Outcome::Ok }),
            unread: None,
            batch: None,
        }
    }
}

/// What a door puts on the topic of the intake.
type Records = Vec<(Headers, Bytes)>;
type Through = fn(&Call, &Bounds) -> Records;

fn prediction(read: &Prediction) -> (Headers, Bytes) {
    let envelope = Envelope { id: "1", source: "/test", subject: "fraud", time: read.completed_at };
    (envelope::headers::<Prediction>(&envelope), codec::encode(read).unwrap().into())
}

fn halves(call: &Call, bounds: &Bounds, prefix: &str, request: &str, answer: &str) -> Records {
    let parts = [("request", call.arrived(), request), ("response", call.completed, answer)];
    let of = |(part, time, body): (&str, EventTime, &str)| {
        let (kind, time, status) = (format!("{prefix}.{part}"), time.to_rfc3339().unwrap(), call.status.to_string());
        let headers = [
            ("ce-type", kind.as_str()),
            ("ce-id", &call.id),
            ("ce-requestid", &call.id),
            ("ce-source", "http://logger/"),
            ("ce-time", &time),
            ("ce-inferenceservicename", "fraud"),
            ("ce-endpoint", call.version),
            ("ce-statuscode", if part == "response" { &status } else { "" }),
            ("content-type", "application/json"),
        ];
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let half = Half::of(&Event::binary(headers, body.as_bytes(), true), &DoorRules::default(), bounds).unwrap();
        ([("ce_type", half::TYPE)].into_iter().collect(), half.encode().into())
    };
    parts.map(of).into()
}

fn kserve(call: &Call, bounds: &Bounds) -> Records {
    halves(call, bounds, "org.kubeflow.serving.inference", r#"{"inputs":[]}"#, &call.answer())
}

fn seldon(call: &Call, bounds: &Bounds) -> Records {
    let answer = json!({"data": {"names": ["score"], "ndarray": [[call.score]]}}).to_string();
    halves(call, bounds, "io.seldon.serving.inference", r#"{"data":{}}"#, &answer)
}

fn spans(call: &Call, bounds: &Bounds) -> Records {
    let nanos = |time: EventTime| (time.0 * 1000).to_string();
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let export = json!({"resourceSpans": [{
        "resource": {"attributes": [text("service.name", "fraud"), text("service.version", call.version)]},
        "scopeSpans": [{"spans": [{
            "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "kind": 2,
            "startTimeUnixNano": nanos(call.arrived()), "endTimeUnixNano": nanos(call.completed),
            "attributes": [text("http.request.method", "POST"), text("serin.request_id", &call.id),
                {"key": "http.response.status_code", "value": {"intValue": call.status.to_string()}}]
        }]}]
    }]});
    let found = otlp::read(export.to_string().as_bytes(), true, &Mapping::default(), bounds).unwrap();
    found.calls.iter().map(prediction).collect()
}

/// A field of a Protocol Buffers message with bytes, or with a number.
fn bytes(number: u64, value: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn whole(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn access_log(call: &Call, bounds: &Bounds) -> Records {
    let time =
        |micros: i64| [whole(1, (micros / 1_000_000) as u64), whole(2, (micros % 1_000_000 * 1000) as u64)].concat();
    let common =
        [bytes(5, &time(call.arrived().0)), bytes(12, &time(call.latency_us)), bytes(15, call.version.as_bytes())]
            .concat();
    let request = [bytes(5, b"/v2/models/fraud/infer"), bytes(9, call.id.as_bytes())].concat();
    let response = bytes(1, &whole(1, call.status as u64));
    let entry = [bytes(1, &common), bytes(3, &request), bytes(4, &response)].concat();
    let found = envoy::read(&bytes(2, &bytes(1, &entry)), &Mapping::default(), bounds).unwrap();
    found.calls.iter().map(prediction).collect()
}

/// The verdicts on the calls of a scenario. Without a door, a router reports the calls.
fn play(text: &str, door: TrafficDoor, through: Option<Through>, harm: impl Fn(&mut Call)) -> Vec<Verdict> {
    let mut spec = serin_rollout::parse_yaml(text).unwrap();
    spec.door = Some(door);
    let mut folds = InProcess::new(spec.model.clone(), serin_aggregator::Config::default()).unwrap();
    folds.apply(&spec.normalized()).unwrap();
    let config = IntakeConfig { clock: IntakeClock::Replay, ..IntakeConfig::default() };
    let mut intake = FoldDriver::new(move || Box::new(IntakeFold::new(config.clone(), 0, 1))).unwrap();
    let mut dice = ChaCha8Rng::seed_from_u64(3);
    let mut writer = Writer { name: "router".to_owned(), incarnation: 1, seq: 0 };
    let mut now = EventTime::from_secs(1_764_480_000);
    let mut verdicts = Vec::new();
    for second in 0..SECONDS {
        for call in 0..RATE {
            now = now.plus(Span(1_000_000 / RATE));
            let mut call = Call {
                id: format!("call-{second}-{call}"),
                version: if dice.random::<f64>() < 0.3 { "v2" } else { "v1" },
                completed: now,
                latency_us: (5_000.0 - 4_000.0 * (1.0 - dice.random::<f64>()).ln()) as i64,
                status: 200,
                score: dice.random(),
            };
            let luck = dice.random::<f64>();
            if luck < 0.2 && call.version == "v2" {
                harm(&mut call);
            }
            let Some(through) = through else {
                writer.seq += 1;
                let reported = Prediction { writer: writer.clone(), ..call.reported() };
                folds.event(&call.id, &reported).unwrap();
                continue;
            };
            let bounds = Bounds::new(Some(now), now, Span(600_000_000));
            for (headers, body) in through(&call, &bounds) {
                let key = Bytes::copy_from_slice(call.id.as_bytes());
                let record = intake.record("predictions", 0, now.0 / 1000, key, headers, Some(body));
                assert_eq!(intake.apply(&record).unwrap().poison, None);
            }
            for event in intake.commit().unwrap() {
                let EventRecord::Prediction(read) =
                    EventRecord::decode(&event.headers, event.value.as_ref().unwrap()).unwrap()
                else {
                    panic!("{event:?}")
                };
                writer = read.writer.clone();
                folds.event(&call.id, &read).unwrap();
            }
        }
        let writer = writer.clone();
        let beat = Heartbeat { writer, low_watermark: now, drops: vec![], leaving: false, sent_at: None, relay: false };
        folds.event("", &beat).unwrap();
        folds.run_until_quiet().unwrap();
        verdicts.extend(folds.take_verdicts());
    }
    verdicts
}

/// What each verdict decides, and from how many calls.
fn essence(verdicts: &[Verdict]) -> Vec<String> {
    let of = |verdict: &Verdict| {
        let metrics = verdict.metrics.iter();
        let metrics: Vec<_> = metrics.map(|one| (&one.metric, one.result, one.canary.n, one.control.n)).collect();
        format!("{:?} {metrics:?}", verdict.decision)
    };
    verdicts.iter().map(of).collect()
}

/// Plays a scenario through a door and through a router, and returns the metrics that failed.
fn same(text: &str, door: TrafficDoor, through: Through, harm: fn(&mut Call)) -> Vec<String> {
    let (router, foreign) = (play(text, door, None, harm), play(text, door, Some(through), harm));
    assert!(!router.is_empty(), "{door:?}: there is no verdict");
    assert_eq!(essence(&foreign), essence(&router), "{door:?}");
    let fails = foreign.iter().flat_map(|verdict| &verdict.metrics).filter(|one| one.result == MetricResult::Fail);
    let mut failed: Vec<String> = fails.map(|one| one.metric.clone()).collect();
    failed.sort();
    failed.dedup();
    assert_eq!(failed.is_empty(), foreign.iter().all(|verdict| verdict.decision != Decision::Rollback), "{door:?}");
    failed
}

const WITH_STATUSES: [(TrafficDoor, Through); 3] =
    [(TrafficDoor::KserveAllResponses, kserve), (TrafficDoor::Envoy, access_log), (TrafficDoor::Otlp, spans)];
const WITH_BODIES: [(TrafficDoor, Through); 3] =
    [(TrafficDoor::KserveAllResponses, kserve), (TrafficDoor::Kserve, kserve), (TrafficDoor::Seldon, seldon)];

#[test]
fn statuses_and_latencies_lead_to_the_same_verdict_through_every_door() {
    for (door, through) in WITH_STATUSES {
        assert_eq!(same(STATUSES, door, through, |call| call.status = 503), ["failed"], "{door:?}");
        assert_eq!(same(STATUSES, door, through, |call| call.latency_us += 60_000), ["latency_p90"], "{door:?}");
        assert_eq!(same(STATUSES, door, through, |_| {}), Vec::<String>::new(), "{door:?}");
    }
}

#[test]
fn outputs_lead_to_the_same_verdict_through_every_door_with_bodies() {
    for (door, through) in WITH_BODIES {
        assert_eq!(same(OUTPUTS, door, through, |call| call.score = 1.0), ["score"], "{door:?}");
        assert_eq!(same(OUTPUTS, door, through, |_| {}), Vec::<String>::new(), "{door:?}");
    }
}
