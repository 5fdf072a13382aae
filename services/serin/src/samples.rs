//! Sample rollouts in every state that the CLI shows, made by the real planner.

use serde_json::Value;
use serin_rollout::{
    Input, Planner, RolloutState,
    planner::{Settings, StepIndex, WallMs},
};
use serin_schemas::{
    ids::EventTime,
    records::{
        Action, Arm, Command, Decision, Estimate, HealthIssue, MetricResult, MetricVerdict, NoDataReason, Reason,
        RolloutEvent, Segment, Verdict,
    },
};

const GOLDEN: &str = include_str!("../../../schemas/tests/golden/verdict.v4.json");
/// When the sample's rollout was started: 2026-11-21 11:50:00 UTC.
const START: i64 = 1_795_261_800;
const SPEC: &str = r"apiVersion: serin.dev/v1
kind: Rollout
model: flights
stable: {version: '1', url: 'http://localhost:9001'}
canary: {version: '2', url: 'http://localhost:9002'}
warmup: {minEvents: 1000}
steps:
  - {weight: 5%, bake: {min: 10m, max: 2h}}
  - {weight: 25%, bake: {min: 10m, max: 2h, minEvents: 500}}
  - {weight: 50%, bake: {min: 10m, max: 4h}, require: pass}
segments:
  - {name: origin, source: {input: origin}}
outputs:
  - {name: score, source: {tensor: score}, min: 0, max: 1}
metrics:
  - name: wrong
    kind: rate
    source: {wrong: {output: score, label: late}}
    maturity: 1h
    margin: {absolute: 0.02}
    segments: [origin]
  - name: latency_p99
    kind: {quantile: {level: 0.99}}
    source: latency
    margin: {relative: 0.2}
";

/// A rollout with its verdict and events.
pub(crate) struct Sample {
    planner: Planner,
    pub(crate) verdict: Option<Verdict>,
    events: Vec<RolloutEvent>,
    secs: i64,
    commands: u32,
}

impl Sample {
    /// A rollout that has just been applied.
    pub(crate) fn started() -> Self {
        Self::of(SPEC)
    }

    /// A rollout whose file has these replacements.
    pub(crate) fn with(changes: &[(&str, &str)]) -> Self {
        Self::of(&changes.iter().fold(SPEC.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        }))
    }

    fn of(spec: &str) -> Self {
        let spec = serin_rollout::parse_yaml(spec).unwrap();
        let planner = Planner::new(Settings::default());
        let mut sample = Self { planner, verdict: None, events: Vec::new(), secs: 0, commands: 0 };
        let text = serde_json::to_string(&spec).unwrap();
        sample.act(Action::Apply, "", |command| command.spec = Some(text));
        sample
    }

    fn act(&mut self, action: Action, reason: &str, change: impl FnOnce(&mut Command)) {
        self.commands += 1;
        let (id, at) = (format!("command-{}", self.commands), EventTime::from_secs(START + self.secs));
        let mut command = Command {
            rollout: Some("01a1fdf2-b94c-723a-becb-c53d9fa5f068".into()),
            reason: reason.to_owned(),
            ..Command::new(id, action, "flights".into(), "ann".to_owned(), at)
        };
        change(&mut command);
        self.take(Input::Command(Box::new(command)));
    }

    /// Applies a command.
    pub(crate) fn command(self, action: Action, reason: &str) -> Self {
        self.command_with(action, reason, |_| ())
    }

    /// Applies a command that `change` completes.
    pub(crate) fn command_with(mut self, action: Action, reason: &str, change: impl FnOnce(&mut Command)) -> Self {
        self.act(action, reason, change);
        self
    }

    fn take(&mut self, input: Input) {
        let effects = self.planner.apply(input, WallMs((START + self.secs) * 1000));
        self.events.extend(effects.events);
    }

    /// Applies a verdict `secs` seconds after the start, modified by `change`.
    pub(crate) fn verdict(mut self, secs: i64, change: impl FnOnce(&mut Verdict)) -> Self {
        let state = self.state();
        let mut verdict: Verdict = serde_json::from_str(GOLDEN).unwrap();
        (verdict.rollout, verdict.generation, verdict.step) =
            (state.id, state.generation, StepIndex::number(state.step));
        verdict.as_of = EventTime::from_secs(START + secs);
        (verdict.decision, verdict.reasons, verdict.health) = (Decision::Continue, Vec::new(), Vec::new());
        (verdict.groups, verdict.seen, verdict.warmup_events) = (Vec::new(), Vec::new(), None);
        (verdict.score_low, verdict.score_high) = (0.0, 100.0);
        verdict.sentence = "nothing has failed in 5 checks; this step requires no more".to_owned();
        verdict.metrics = healthy();
        verdict.arms[0].predictions = 100 * secs;
        verdict.arms[1].predictions = 1000 * secs;
        change(&mut verdict);
        self.secs = secs;
        self.verdict = Some(verdict.clone());
        self.take(Input::Verdict(Box::new(verdict)));
        self
    }

    /// Ends warm-up and starts the first step.
    pub(crate) fn warm(self) -> Self {
        self.verdict(60, |verdict| {
            warming(verdict, 1204);
            verdict.decision = Decision::Promote;
            verdict.frozen = Some(r#"{"segments":{"origin":["EWR","JFK","LGA"]},"warmupEvents":1204}"#.to_owned());
        })
    }

    /// Advances to the step with this index.
    pub(crate) fn at_step(self, step: usize) -> Self {
        (0..step).fold(self.warm(), |sample, _| {
            let secs = sample.secs + 600;
            sample.verdict(secs, |verdict| verdict.decision = Decision::Promote)
        })
    }

    /// The state from the planner, or from the newest event once the rollout has ended.
    pub(crate) fn state(&self) -> RolloutState {
        let active = self.planner.model(&"flights".into()).and_then(|model| model.active.clone());
        let last_state = || self.events.iter().rev().find_map(|event| event.state.clone());
        active.unwrap_or_else(|| serde_json::from_str(&last_state().unwrap()).unwrap())
    }

    /// The events as the API returns them.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.events.iter().map(|event| serde_json::to_value(event).unwrap()).collect()
    }
}

/// Makes a verdict one of warm-up.
pub(crate) fn warming(verdict: &mut Verdict, seen: i64) {
    verdict.step = -1;
    verdict.warmup_events = Some(seen);
    verdict.metrics.clear();
    verdict.sentence = format!("warming up: {seen} of 1000 good answers of stable");
}

/// A check: its result, the estimates of both arms, the interval of their difference.
pub(crate) fn check(
    (name, segment): (&str, Segment),
    result: MetricResult,
    [canary, control]: [(i64, f64); 2],
    (low, high): (Option<f64>, Option<f64>),
) -> MetricVerdict {
    let golden: Verdict = serde_json::from_str(GOLDEN).unwrap();
    let estimate = |(n, value): (i64, f64)| Estimate { n, value: (n > 0).then_some(value) };
    let place = if segment.is_all() { String::new() } else { format!("for {segment}, ") };
    MetricVerdict {
        metric: name.to_owned(),
        result,
        canary: estimate(canary),
        control: estimate(control),
        effect: (canary.0 > 0 && control.0 > 0).then_some(canary.1 - control.1),
        effect_low: low,
        effect_high: high,
        margin: Some(if name == "latency_p99" { 8.2 } else { 0.02 }),
        ln_e_fail: if result == MetricResult::Fail { 9.2 } else { 0.0 },
        failed_at: None,
        harm: None,
        at_cap: None,
        design_effect: None,
        units: None,
        no_data: (result == MetricResult::NoData).then_some(NoDataReason::LabelsPending),
        sentence: format!("{place}the canary's {name} is what it is, not yet known to be within or beyond the margin"),
        segment,
        ..golden.metrics[0].clone()
    }
}

fn healthy() -> Vec<MetricVerdict> {
    let all = |name| (name, Segment::all());
    let ends = (Some(-0.0052), Some(0.0471));
    vec![
        check(all("failed"), MetricResult::Pass, [(640, 0.0), (6402, 0.0)], (Some(-0.004), Some(0.0101))),
        check(all("wrong"), MetricResult::NoData, [(0, 0.0), (0, 0.0)], (None, None)),
        check(all("latency_p99"), MetricResult::Undecided, [(640, 41.7), (6402, 41.2)], (Some(-2.1), None)),
        check(("wrong", Segment::of("origin", "LGA")), MetricResult::Undecided, [(80, 0.0826), (811, 0.062)], ends),
        check(("wrong", Segment::of("origin", "JFK")), MetricResult::Undecided, [(82, 0.06), (790, 0.061)], ends),
    ]
}

/// Makes a verdict one of a canary that is worse at one airport.
pub(crate) fn failing(verdict: &mut Verdict) {
    let place = ("wrong", Segment::of("origin", "LGA"));
    let mut failed = check(place, MetricResult::Fail, [(812, 0.3125), (8095, 0.156)], (Some(0.0625), Some(0.25)));
    failed.sentence =
        "for origin=LGA, the canary's rate of wrong answers is 31.2 % against 15.6 %, at least 2 points worse with 99 % \
                       confidence at every look"
            .to_owned();
    verdict.metrics.truncate(4);
    verdict.metrics[3] = failed.clone();
    verdict.decision = Decision::Rollback;
    verdict.sentence = format!("roll back: {}", failed.sentence);
    verdict.reasons = vec![Reason { metric: failed.metric, segment: failed.segment, sentence: failed.sentence }];
}

/// A problem with the evidence.
pub(crate) fn issue(reason: NoDataReason, policy: &str, sentence: &str) -> HealthIssue {
    HealthIssue { reason, policy: policy.to_owned(), sentence: sentence.to_owned() }
}

/// Makes these checks the ones that a step still waits for.
pub(crate) fn waiting(verdict: &mut Verdict, checks: &[usize]) {
    verdict.reasons = checks
        .iter()
        .map(|check| &verdict.metrics[*check])
        .map(|metric| Reason {
            metric: metric.metric.clone(),
            segment: metric.segment.clone(),
            sentence: metric.sentence.clone(),
        })
        .collect();
    verdict.sentence = format!("keep baking: {}", verdict.reasons[0].sentence);
}

/// The canary arm of a verdict.
pub(crate) fn canary(verdict: &mut Verdict) -> &mut serin_schemas::records::ArmSummary {
    verdict.arms.iter_mut().find(|arm| arm.arm == Arm::Canary).unwrap()
}
