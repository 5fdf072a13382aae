//! Properties of the planner over random inputs.

use proptest::prelude::*;
use serin_schemas::{
    ids::{EventTime, RolloutId, Span, Version},
    records::{
        Action, Arm, ArmSummary, Command, Control, Decision, EventKind, Phase, Reason, Route, RouterStatus, Segment,
        TableApplied, Verdict,
    },
};

use super::*;
use crate::testing::spec;
use serin_spec::{Approval, Approver, Concurrency, Mode, OnInconclusive, Otherwise, RolloutSpec, units::Duration};

/// The next input. Verdicts are about the active rollout (give or take a generation), commands about any rollout.
#[derive(Clone, Debug)]
enum Happening {
    Verdict { after_secs: i64, decision: Decision, frozen: bool, generation_back: i64, answers: i64, with_reason: bool },
    Command { action: Action, rollout: Option<u8>, spec: u8 },
    Status { generation: i64, leaving: bool },
    Tick { after_ms: i64 },
}

fn happening() -> impl Strategy<Value = Happening> {
    let decision = prop_oneof![
        3 => Just(Decision::Promote),
        1 => Just(Decision::Rollback),
        3 => Just(Decision::Continue),
        1 => Just(Decision::Hold),
    ];
    let action = prop_oneof![
        4 => Just(Action::Apply),
        2 => Just(Action::Promote),
        1 => Just(Action::PromoteFull),
        1 => Just(Action::Pause),
        2 => Just(Action::Resume),
        1 => Just(Action::Abort),
        1 => Just(Action::StopAll),
        2 => Just(Action::SetWeight),
        2 => Just(Action::Approve),
        1 => Just(Action::Reject),
        2 => Just(Action::Freeze),
        1 => Just(Action::Unfreeze),
        2 => Just(Action::Undo),
        2 => Just(Action::Retry),
        1 => Just(Action::Mark),
    ];
    prop_oneof![
        6 => (-600..200_000_i64, decision, any::<bool>(), 0..2_i64, 0..500_i64, any::<bool>()).prop_map(
            |(after_secs, decision, frozen, generation_back, answers, with_reason)| Happening::Verdict {
                after_secs, decision, frozen, generation_back, answers, with_reason
            }
        ),
        2 => (action, proptest::option::of(0..6_u8), 0..14_u8)
            .prop_map(|(action, rollout, spec)| Happening::Command { action, rollout, spec }),
        1 => (0..40_i64, any::<bool>()).prop_map(|(generation, leaving)| Happening::Status { generation, leaving }),
        2 => (0..60_000_i64).prop_map(|after_ms| Happening::Tick { after_ms }),
    ]
}

fn variant(number: u8) -> RolloutSpec {
    let mut spec = spec();
    match number {
        0 => spec.concurrency = Concurrency::Queue,
        1 => spec.concurrency = Concurrency::Supersede,
        2 => spec.promotion.monitor = Duration::from_secs(50_000),
        3 => spec.decision.on_inconclusive = OnInconclusive::Promote,
        4 => spec.mode = Mode::Observe,
        // A rollout in the opposite direction.
        5 | 6 => {
            std::mem::swap(&mut spec.stable, &mut spec.canary);
            spec.concurrency = if number == 5 { Concurrency::Queue } else { Concurrency::Supersede };
        }
        // A file with other servers for the version that serves, or without servers.
        8 | 9 => {
            spec.stable.url = Some("http://localhost:9009".to_owned());
            spec.concurrency = if number == 8 { Concurrency::Queue } else { Concurrency::Supersede };
        }
        10 => (spec.stable.url, spec.concurrency) = (None, Concurrency::Queue),
        11 => spec.canary.path_version = Some("2".to_owned()),
        12 | 13 => {
            let (by, within, otherwise) = (Approver::Operator, Duration::from_secs(100_000), Otherwise::Rollback);
            let approve = Some(Approval { by, within, otherwise, marginal: number == 13 });
            spec.steps.iter_mut().for_each(|step| step.approve = approve);
        }
        _ => spec.steps.reverse(),
    }
    spec
}

/// Turns happenings into inputs, and keeps the clocks.
#[derive(Clone)]
struct Driver {
    event_secs: i64,
    wall_ms: i64,
    commands: u32,
}

impl Driver {
    fn input(&mut self, happening: &Happening, planner: &Planner) -> Input {
        let active = planner.model(&"flights".into()).and_then(|state| state.active.as_ref());
        match happening.clone() {
            Happening::Verdict { after_secs, decision, frozen, generation_back, answers, with_reason } => {
                self.event_secs += after_secs;
                let reason = || Reason { metric: "wrong".into(), segment: Segment::all(), sentence: "worse".into() };
                Input::Verdict(Box::new(Verdict {
                    id: format!("v{}", self.event_secs),
                    model: "flights".into(),
                    rollout: active.map_or_else(|| "none".into(), |active| active.id.clone()),
                    generation: Generation(active.map_or(0, |active| active.generation.0 - generation_back)),
                    step: StepIndex::number(active.and_then(|active| active.step)),
                    as_of: EventTime::from_secs(self.event_secs),
                    decision,
                    reasons: with_reason.then(reason).into_iter().collect(),
                    score_low: 0.0,
                    score_high: 100.0,
                    ln_e_rollback: 0.0,
                    metrics: Vec::new(),
                    groups: Vec::new(),
                    stable_is_out_of_date: false,
                    arms: vec![ArmSummary {
                        arm: Arm::Canary,
                        version: Version::from("v2"),
                        predictions: answers,
                        excluded: 0,
                        errors: 0,
                        invalid: 0,
                        late: 0,
                        lost: 0,
                        refused: 0,
                        redirected: 0,
                        unread: 0,
                        cancelled: 0,
                        left: 0,
                    }],
                    health: Vec::new(),
                    warmup_events: None,
                    frozen: frozen.then(|| r#"{"segments":{},"warmupEvents":1}"#.to_owned()),
                    sentence: "a sentence".into(),
                    build: String::new(),
                    seen: Vec::new(),
                    rules: serin_schemas::records::RULES,
                }))
            }
            Happening::Command { action, rollout, spec } => {
                self.commands += 1;
                let (id, at) = (format!("c{}", self.commands), EventTime::from_secs(self.event_secs));
                let id_of = |number: u8| RolloutId(format!("r{number}"));
                Input::Command(Box::new(Command {
                    rollout: rollout.map(id_of),
                    spec: Some(serde_json::to_string(&variant(spec)).unwrap()),
                    weight: Some(i32::from(spec) * 900),
                    force: spec % 2 == 0,
                    until: (spec > 5).then(|| at.plus(Span::from_secs(40))),
                    retries: Some(id_of(spec % 6)),
                    from_step: (spec % 3 > 0).then_some(i32::from(spec % 3)),
                    reason: if spec % 4 == 0 { String::new() } else { "because".to_owned() },
                    ..Command::new(id, action, "flights".into(), "ada".into(), at)
                }))
            }
            Happening::Status { generation, leaving } => {
                let generation = Generation(generation);
                Input::RouterStatus(Box::new(RouterStatus {
                    router: "router-0".into(),
                    incarnation: 1,
                    at: EventTime::from_secs(self.event_secs),
                    applied: vec![TableApplied { model: "flights".into(), generation, lease_seq: 0, apply_us: 0 }],
                    shed: Vec::new(),
                    undecided: Vec::new(),
                    refused: Vec::new(),
                    configured: None,
                    leaving,
                    seen_outputs: Vec::new(),
                    seen_labels: Vec::new(),
                }))
            }
            Happening::Tick { after_ms } => {
                self.wall_ms += after_ms;
                Input::Tick
            }
        }
    }
}

fn restarted(planner: &Planner) -> Planner {
    let mut copy = Planner::new(Settings::default());
    for state in planner.models() {
        copy.restore(ModelState::from_json(&state.to_json()).unwrap());
    }
    let routers = serde_json::to_vec(planner.routers()).unwrap();
    copy.restore_routers(serde_json::from_slice(&routers).unwrap());
    copy.restore_freezes(planner.freezes().clone());
    for (name, router) in planner.routers() {
        router.configured.iter().for_each(|configured| copy.restore_configured(name, configured.clone()));
    }
    copy
}

/// Where a table sends the calls of stable: its version, its address and its server settings.
fn base(table: &serin_schemas::records::RoutingTable) -> (Version, Option<String>, Option<serin_spec::ServerPolicy>) {
    let policy: serin_spec::TrafficPolicy = serde_json::from_str(&table.policy).unwrap();
    let Route { version, url, .. } = table.routes[0].clone();
    let servers = policy.servers.into_iter().find(|servers| servers.version == version);
    (version, url, servers)
}

fn canary_share(table: &serin_schemas::records::RoutingTable) -> i32 {
    table.routes.iter().filter(|route| route.arm == Arm::Canary).map(|route| route.share).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn laws_hold_for_any_inputs(happenings in proptest::collection::vec(happening(), 1..80)) {
        let mut planner = Planner::new(Settings::default());
        let mut driver = Driver { event_secs: 0, wall_ms: 0, commands: 0 };
        let mut generation = Generation(0);
        let mut newest_control = None;
        let mut newest = (Generation(0), -1);
        let mut shown: Option<(RolloutId, i32)> = None;
        let (mut serving, mut before_promotion) = (None, None);
        for happening in &happenings {
            let input = driver.input(happening, &planner);
            let asked = if let Input::Command(command) = &input { Some(command.action) } else { None };
            let of = |planner: &Planner| planner.model(&"flights".into()).and_then(|state| state.active.clone());
            let was_frozen = of(&planner).is_some_and(|rollout| rollout.freeze.is_some()) && asked.is_none();
            // A restart has no effect.
            let mut restored = restarted(&planner);
            let effects = planner.apply(input.clone(), WallMs(driver.wall_ms));
            prop_assert_eq!(&restored.apply(input, WallMs(driver.wall_ms)), &effects);
            prop_assert_eq!(&restored, &planner);

            for control in &effects.controls {
                // While no verdict arrives, the newest record is repeated unchanged.
                let again = newest_control.as_ref().is_some_and(|old: &Control| {
                    *control == Control { decided_at: control.decided_at, ..old.clone() }
                });
                prop_assert!(control.generation > generation || again, "generations grow");
                generation = control.generation;
                newest_control = Some(control.clone());
            }
            for table in &effects.tables {
                prop_assert!((table.generation, table.lease_seq) > newest, "a router never sees an older table");
                newest = (table.generation, table.lease_seq);
                let split: i32 = table.routes.iter().map(|route| route.share).sum();
                prop_assert_eq!(split, 10_000);
                prop_assert!(table.routes.iter().all(|route| route.share >= 0));
                prop_assert_eq!(table.routes[0].arm, Arm::Stable);
                // Only a promotion or its undo changes the serving version: every start and every way back has the table from before.
                let completed = |event: &RolloutEvent| {
                    event.kind == EventKind::Completed && event.generation == table.generation
                };
                let serves = base(table);
                let same = serving.as_ref().is_none_or(|before| *before == serves);
                if effects.events.iter().any(completed) {
                    before_promotion = serving.take();
                } else if !same && asked == Some(Action::Undo) {
                    let before = before_promotion.take();
                    prop_assert_eq!(Some(&serves), before.as_ref(), "an undo goes back by one promotion");
                } else {
                    prop_assert!(same, "{:?} after {:?}", serves, serving);
                }
                serving = Some(serves);
                prop_assert_eq!(table.lease_ms > 0, canary_share(table) > 0, "exactly a canary needs a lease");
                // The weight goes up the ramp, or to zero, unless a person sets it. It does not grow during a freeze.
                let canary = canary_share(table);
                if let (Some((rollout, before)), Some(now)) = (&shown, &table.rollout) && rollout == now {
                    prop_assert!(canary >= *before || asked == Some(Action::SetWeight), "{} after {}", canary, before);
                    prop_assert!(canary <= *before || !was_frozen, "{} after {} in a freeze", canary, before);
                }
                shown = table.rollout.clone().map(|rollout| (rollout, canary));
            }
            for event in &effects.events {
                prop_assert!(!event.sentence.is_empty());
            }
        }
    }

    #[test]
    fn a_rollback_works_from_every_phase(happenings in proptest::collection::vec(happening(), 1..60)) {
        let mut planner = Planner::new(Settings::default());
        let mut driver = Driver { event_secs: 0, wall_ms: 0, commands: 0 };
        for happening in &happenings {
            let input = driver.input(happening, &planner);
            planner.apply(input, WallMs(driver.wall_ms));
            let Some(active) = planner.model(&"flights".into()).and_then(|state| state.active.clone()) else { continue };
            let mut copy = planner.clone();
            let mut driver = driver.clone();
            let last = active.verdict.as_ref().map_or(driver.event_secs, |last| last.as_of.0 / 1_000_000);
            driver.event_secs = last;
            let rollback = Happening::Verdict {
                after_secs: 1, decision: Decision::Rollback, frozen: false, generation_back: 0, answers: active.answers, with_reason: true,
            };
            let input = driver.input(&rollback, &copy);
            let effects = copy.apply(input, WallMs(driver.wall_ms));
            let state = copy.model(&"flights".into()).unwrap();
            if active.acts() {
                prop_assert_eq!(canary_share(&effects.tables[0]), 0);
                prop_assert_eq!(effects.tables[0].lease_ms, 0);
                let ended = state.ended.iter().find(|ended| ended.id == active.id).unwrap();
                prop_assert_eq!(ended.ending.outcome, Outcome::Evidence);
            } else {
                prop_assert!(effects.tables.is_empty());
            }
            prop_assert!(effects.controls.iter().all(|control| control.phase != Phase::Baking));
        }
    }
}
