//! The lifecycle of a rollout, input by input.

mod commands;
mod freezes;
mod held;
mod mirror;
mod missing_data;
mod phases;
mod routers;
mod rules;
mod stable;
mod steps;
mod ways_back;

use serin_schemas::{
    ids::{EventTime, RolloutId, Version},
    records::{
        Action, Arm, ArmSummary, Command, Decision, EventKind, Phase, Reason, RouterStatus, RoutingTable, Segment,
        TableApplied, Verdict,
    },
};

use super::*;
use crate::testing::spec;
use serin_spec::{Concurrency, RolloutSpec};

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;

/// A planner with a wall clock and helpers to send it inputs. Event time is given in seconds.
#[derive(Clone)]
struct World {
    planner: Planner,
    wall_ms: i64,
    commands: u32,
    /// When the next command is asked for.
    asked_at: EventTime,
}

impl World {
    fn new() -> Self {
        let planner = Planner::new(Settings::default());
        Self { planner, wall_ms: 1_000_000, commands: 0, asked_at: EventTime::from_secs(0) }
    }

    fn apply_spec(&mut self, id: &str, spec: &RolloutSpec) -> Effects {
        let spec = Some(serde_json::to_string(spec).unwrap());
        self.command_with(Action::Apply, Some(id), spec)
    }

    fn command(&mut self, action: Action) -> Effects {
        self.command_with(action, None, None)
    }

    fn command_with(&mut self, action: Action, rollout: Option<&str>, spec: Option<String>) -> Effects {
        self.command_by(action, |command| (command.rollout, command.spec) = (rollout.map(RolloutId::from), spec))
    }

    /// A command of ada, with a reason, which `change` completes.
    fn command_by(&mut self, action: Action, change: impl FnOnce(&mut Command)) -> Effects {
        self.commands += 1;
        let id = format!("command-{}", self.commands);
        let mut command = Command {
            reason: "because".to_owned(),
            ..Command::new(id, action, "flights".into(), "ada".to_owned(), self.asked_at)
        };
        change(&mut command);
        self.planner.apply(Input::Command(Box::new(command)), WallMs(self.wall_ms))
    }

    fn verdict(&self, secs: i64, decision: Decision) -> Verdict {
        let active = self.state().active.clone().unwrap();
        Verdict {
            id: format!("verdict-{secs}"),
            model: "flights".into(),
            rollout: active.id,
            generation: active.generation,
            step: StepIndex::number(active.step),
            as_of: EventTime::from_secs(secs),
            decision,
            reasons: Vec::new(),
            score_low: 0.0,
            score_high: 100.0,
            ln_e_rollback: 0.0,
            metrics: Vec::new(),
            groups: Vec::new(),
            stable_is_out_of_date: false,
            arms: Vec::new(),
            health: Vec::new(),
            warmup_events: None,
            frozen: None,
            sentence: format!("the analyzer says {decision:?}"),
            build: String::new(),
            seen: Vec::new(),
            rules: serin_schemas::records::RULES,
        }
    }

    fn send(&mut self, verdict: Verdict) -> Effects {
        self.planner.apply(Input::Verdict(Box::new(verdict)), WallMs(self.wall_ms))
    }

    fn say(&mut self, secs: i64, decision: Decision) -> Effects {
        let verdict = self.verdict(secs, decision);
        self.send(verdict)
    }

    fn warm(&mut self, secs: i64) -> Effects {
        let mut verdict = self.verdict(secs, Decision::Promote);
        verdict.frozen = Some(r#"{"segments":{"origin":["LGA"]},"warmupEvents":1200}"#.to_owned());
        self.send(verdict)
    }

    /// A router reports.
    fn report(&mut self, change: impl FnOnce(&mut RouterStatus)) -> Effects {
        let mut status = RouterStatus {
            router: "router-0".into(),
            incarnation: 1,
            at: EventTime::from_secs(0),
            applied: Vec::new(),
            shed: Vec::new(),
            undecided: Vec::new(),
            refused: Vec::new(),
            configured: None,
            leaving: false,
            seen_outputs: Vec::new(),
            seen_labels: Vec::new(),
        };
        change(&mut status);
        self.planner.apply(Input::RouterStatus(Box::new(status)), WallMs(self.wall_ms))
    }

    fn tick(&mut self, after_ms: i64) -> Effects {
        self.wall_ms += after_ms;
        self.planner.apply(Input::Tick, WallMs(self.wall_ms))
    }

    fn state(&self) -> &ModelState {
        self.planner.model(&"flights".into()).unwrap()
    }

    fn phase(&self) -> Phase {
        self.state().active.as_ref().unwrap().phase
    }

    /// A rollout in its first step, from event time 0 on.
    fn baking() -> Self {
        let mut world = Self::new();
        world.apply_spec("r1", &spec());
        world.warm(0);
        assert_eq!(world.phase(), Phase::Baking);
        world
    }
}

fn shares(table: &RoutingTable) -> Vec<(Arm, &str, i32)> {
    table.routes.iter().map(|route| (route.arm, route.version.as_str(), route.share)).collect()
}

fn canary_arm(predictions: i64) -> ArmSummary {
    ArmSummary {
        arm: Arm::Canary,
        version: Version::from("v2"),
        predictions,
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
    }
}

#[test]
fn a_good_version_goes_up_the_ramp_and_becomes_stable() {
    let mut world = World::new();
    let effects = world.apply_spec("r1", &spec());
    assert_eq!(shares(&effects.tables[0]), [(Arm::Stable, "v1", 10_000)]);
    assert_eq!((effects.tables[0].lease_ms, effects.tables[0].generation), (0, Generation(1)));
    assert_eq!((effects.controls[0].phase, effects.controls[0].step), (Phase::Warming, -1));
    assert_eq!(effects.controls[0].frozen, None);
    assert_eq!(effects.events[0].kind, EventKind::Started);

    // Not warm yet.
    assert!(world.say(10, Decision::Continue).is_silent());
    let effects = world.warm(20);
    assert_eq!(
        shares(&effects.tables[0]),
        [(Arm::Stable, "v1", 4_500), (Arm::Control, "v1", 5_000), (Arm::Canary, "v2", 500)]
    );
    assert_eq!(effects.tables[0].lease_ms, 60_000);
    assert!(effects.controls[0].frozen.as_ref().unwrap().contains("LGA"));
    assert_eq!(effects.controls[0].decided_at, EventTime::from_secs(20));
    assert_eq!(effects.events[0].sentence, "step 1 of 2: 5% to v2 after 1200 answers of v1");

    // There is enough evidence, but the step has not baked long enough.
    assert!(world.say(20 + 9 * MINUTE, Decision::Promote).is_silent());
    let effects = world.say(20 + 10 * MINUTE, Decision::Promote);
    assert_eq!(
        shares(&effects.tables[0]),
        [(Arm::Stable, "v1", 0), (Arm::Control, "v1", 7_500), (Arm::Canary, "v2", 2_500)]
    );
    assert_eq!(effects.tables[0].generation, Generation(3));

    // The second step needs 100 answers since its start.
    assert!(world.say(2 * HOUR, Decision::Promote).is_silent());
    let mut verdict = world.verdict(2 * HOUR + 10, Decision::Promote);
    verdict.arms = vec![canary_arm(100)];
    let effects = world.send(verdict);
    assert_eq!(effects.events[0].kind, EventKind::Completed);
    assert_eq!(shares(&effects.tables[0]), [(Arm::Stable, "v2", 10_000)]);
    assert_eq!((effects.tables[0].lease_ms, effects.tables[0].rollout.clone()), (0, None));
    assert_eq!(effects.controls[0].phase, Phase::Completed);
    assert_eq!(world.state().active, None);
    assert_eq!(world.state().serving.as_ref().unwrap().version, Version::from("v2"));
    assert_eq!(world.state().ended[0].ending.outcome, Outcome::Promoted);
}

#[test]
fn evidence_rolls_back_at_once_and_names_its_reason() {
    let mut world = World::baking();
    let mut verdict = world.verdict(30, Decision::Rollback);
    verdict.reasons = vec![Reason {
        metric: "wrong".into(),
        segment: Segment::of("origin", "LGA"),
        sentence: "twice as many".into(),
    }];
    let effects = world.send(verdict);
    assert_eq!(shares(&effects.tables[0]), [(Arm::Stable, "v1", 10_000)]);
    assert_eq!(effects.events[0].kind, EventKind::RolledBack);
    assert_eq!(effects.events[0].cause.as_deref(), Some("verdict-30"));
    let ending = &world.state().ended[0].ending;
    assert_eq!((ending.outcome, ending.reasons[0].segment.to_string().as_str()), (Outcome::Evidence, "origin=LGA"));
    // A later verdict on it is ignored.
    let late = Verdict { as_of: EventTime::from_secs(40), ..World::baking().verdict(40, Decision::Promote) };
    assert_eq!(world.send(late), Effects::default());
}

#[test]
fn a_verdict_counts_once_and_an_old_generation_can_only_roll_back() {
    let mut world = World::baking();
    let first = world.verdict(HOUR, Decision::Promote);
    assert_eq!(world.send(first.clone()).tables.len(), 1);
    assert_eq!(world.send(first.clone()), Effects::default());
    // The second step has baked for its hour, but this was found under the first one's generation.
    let old = Verdict { as_of: EventTime::from_secs(3 * HOUR), arms: vec![canary_arm(1000)], ..first };
    assert!(world.send(old.clone()).is_silent());
    let effects = world.send(Verdict { as_of: EventTime::from_secs(4 * HOUR), decision: Decision::Rollback, ..old });
    assert_eq!(effects.events[0].kind, EventKind::RolledBack);
}

#[test]
fn a_marginal_step_is_held_and_ends_inconclusive_without_a_finding() {
    let mut world = World::baking();
    let effects = world.say(4 * HOUR, Decision::Continue);
    assert_eq!(effects.events[0].kind, EventKind::Held);
    assert_eq!(effects.events[0].sentence, "marginal after 4h: the analyzer says Continue");
    assert_eq!(shares(&effects.tables[0])[2], (Arm::Canary, "v2", 500));
    assert!(world.say(27 * HOUR, Decision::Continue).is_silent());
    let effects = world.say(28 * HOUR, Decision::Continue);
    assert_eq!(effects.events[0].kind, EventKind::RolledBack);
    assert_eq!(effects.events[0].sentence, "inconclusive after a hold of 1d: back to v1. No finding against v2");
    assert_eq!(world.state().ended[0].ending.outcome, Outcome::Inconclusive);
}

#[test]
fn a_hold_for_a_marginal_step_ends_by_evidence_by_a_person_or_by_on_inconclusive() {
    let mut world = World::baking();
    world.say(4 * HOUR, Decision::Continue);
    assert_eq!(world.say(5 * HOUR, Decision::Promote).events[0].step, 1);

    let mut world = World::baking();
    world.say(4 * HOUR, Decision::Continue);
    assert_eq!(world.command(Action::Resume).events[0].kind, EventKind::Resumed);
    // The step bakes again from its start.
    assert!(world.say(7 * HOUR, Decision::Continue).is_silent());
    assert_eq!(world.say(8 * HOUR, Decision::Continue).events[0].kind, EventKind::Held);

    let mut spec = spec();
    spec.decision.on_inconclusive = serin_spec::OnInconclusive::Promote;
    let mut world = World::new();
    world.apply_spec("r1", &spec);
    world.warm(0);
    world.say(4 * HOUR, Decision::Continue);
    let effects = world.say(28 * HOUR, Decision::Continue);
    assert_eq!((effects.events[0].kind, effects.events[0].step), (EventKind::Advanced, 1));
    assert!(effects.events[0].sentence.contains("without a finding"));
}

#[test]
fn unsound_evidence_holds_until_it_is_sound_and_is_never_promoted() {
    let mut spec = spec();
    spec.decision.on_inconclusive = serin_spec::OnInconclusive::Promote;
    let mut world = World::new();
    world.apply_spec("r1", &spec);
    world.warm(0);
    assert_eq!(world.say(5 * MINUTE, Decision::Hold).events[0].kind, EventKind::Held);
    assert_eq!(world.say(10 * MINUTE, Decision::Continue).events[0].kind, EventKind::Resumed);
    // Five minutes of hold do not count as baked.
    assert!(world.say(14 * MINUTE, Decision::Promote).is_silent());
    assert_eq!(world.say(15 * MINUTE, Decision::Promote).events[0].step, 1);

    world.say(16 * MINUTE, Decision::Hold);
    let warned = world.say(48 * HOUR, Decision::Hold);
    assert_eq!((warned.events[0].kind, warned.tables.len()), (EventKind::Warned, 0));
    assert!(world.say(49 * HOUR, Decision::Hold).is_silent());
    assert_eq!(world.phase(), Phase::Held);
}

#[test]
fn a_marginal_step_is_not_promoted_on_unsound_evidence() {
    let mut spec = spec();
    spec.decision.on_inconclusive = serin_spec::OnInconclusive::Promote;
    let mut world = World::new();
    world.apply_spec("r1", &spec);
    world.warm(0);
    world.say(4 * HOUR, Decision::Continue);
    let warned = world.say(28 * HOUR, Decision::Hold);
    assert_eq!((warned.events[0].kind, warned.tables.len()), (EventKind::Warned, 0));
    assert_eq!(world.phase(), Phase::Held);
    // Once the evidence is sound again, `on_inconclusive` applies.
    assert_eq!(world.say(29 * HOUR, Decision::Continue).events[0].step, 1);
}

#[test]
fn a_bad_spec_is_refused_with_all_its_problems() {
    let mut world = World::new();
    let mut bad = spec();
    bad.steps.reverse();
    bad.metrics[0].margin.as_mut().unwrap().absolute = Some(1.0);
    let effects = world.apply_spec("r1", &bad);
    assert_eq!(effects.events[0].kind, EventKind::Refused);
    let sentence = &effects.events[0].sentence;
    assert!(sentence.contains("the ramp goes down") && sentence.contains("can never fail"), "{sentence}");
}

#[test]
fn an_observed_rollout_moves_nothing_and_reports() {
    let mut observed = spec();
    observed.mode = serin_spec::Mode::Observe;
    let mut world = World::new();
    assert!(world.apply_spec("r1", &observed).tables.is_empty());
    let effects = world.warm(0);
    assert_eq!((effects.tables.len(), effects.controls[0].canary_share), (0, 500));
    let warned = world.say(HOUR, Decision::Rollback);
    assert_eq!((warned.events[0].kind, warned.controls.len()), (EventKind::Warned, 0));
    assert!(warned.events[0].sentence.starts_with("observed only, would roll back: "));
    assert!(world.say(2 * HOUR, Decision::Rollback).is_silent());
    assert_eq!(world.phase(), Phase::Baking);
    assert_eq!(world.tick(5_000).tables.len(), 0);
    // None of its events may look like a promotion.
    assert_eq!(effects.events[0].canary_share, 0);
    assert!(effects.events[0].sentence.starts_with("observed only, Serin moves no weights: v2 is compared with v1"));
    for action in [Action::Promote, Action::PromoteFull] {
        let refused = world.command(action);
        assert_eq!((refused.events[0].kind, refused.controls.len()), (EventKind::Refused, 0));
        assert!(refused.events[0].sentence.contains("only observed"), "{}", refused.events[0].sentence);
    }
    assert_eq!(world.state().serving, None);
    assert_eq!(world.command(Action::Abort).events[0].kind, EventKind::Aborted);
}

#[test]
fn a_promoted_version_is_monitored_against_the_holdback() {
    let mut monitored = spec();
    monitored.promotion.monitor = serin_spec::units::Duration::from_secs(24 * HOUR);
    let mut world = World::new();
    world.apply_spec("r1", &monitored);
    world.warm(0);
    let effects = world.command(Action::PromoteFull);
    assert_eq!(
        shares(&effects.tables[0]),
        [(Arm::Stable, "v1", 0), (Arm::Control, "v1", 500), (Arm::Canary, "v2", 9_500)]
    );
    assert_eq!(effects.events[0].kind, EventKind::Promoted);
    assert!(world.say(23 * HOUR, Decision::Continue).is_silent());
    let mut other = World { planner: world.planner.clone(), ..world };
    assert_eq!(other.say(24 * HOUR, Decision::Rollback).events[0].kind, EventKind::RolledBack);
    let effects = World { planner: world.planner, ..other }.say(24 * HOUR, Decision::Continue);
    assert_eq!(effects.events[0].sentence, "v2 is the new stable after 1d of monitoring");
}

#[test]
fn the_lease_is_renewed_while_verdicts_arrive_and_the_rollout_is_held_when_they_stop() {
    let mut world = World::baking();
    assert!(world.tick(9_000).is_silent());
    let effects = world.tick(1_000);
    assert_eq!((effects.tables.len(), effects.controls.len(), effects.events.len()), (1, 0, 0));
    assert_eq!((effects.tables[0].generation, effects.tables[0].lease_seq), (Generation(2), 1));
    assert_eq!(world.tick(10_000).tables[0].lease_seq, 2);
    assert_eq!(world.tick(10_000).tables[0].lease_seq, 3);
    // 31 s without a verdict.
    let effects = world.tick(1_000);
    assert_eq!(effects.events[0].kind, EventKind::Held);
    // The hold does not extend the lease of 60 s, of which one second has passed.
    assert_eq!((effects.tables[0].lease_ms, effects.tables[0].generation), (59_000, Generation(3)));
    assert!(world.tick(20_000).is_silent());
    assert!(world.command(Action::Resume).events[0].sentence.contains("no verdicts arrive"));
    // A verdict arrives: the rollout resumes, with a new lease.
    let effects = world.say(MINUTE, Decision::Continue);
    assert_eq!((effects.events[0].kind, effects.tables[0].lease_ms), (EventKind::Resumed, 60_000));
}

#[test]
fn longer_windows_make_the_planner_wait_longer_for_verdicts() {
    let mut slow = spec();
    slow.window = serin_spec::units::Duration::from_secs(6 * HOUR);
    slow.steps[0].bake.max = serin_spec::units::Duration::from_secs(24 * HOUR);
    let mut world = World::new();
    world.apply_spec("r1", &slow);
    world.warm(0);
    assert_eq!(world.tick(17 * HOUR * 1000).events.len(), 0);
    assert_eq!(world.tick(2 * HOUR * 1000).events[0].kind, EventKind::Held);
}

#[test]
fn a_router_that_lags_holds_up_a_step_until_its_status_expires() {
    let mut world = World::baking();
    let applied = |generation| {
        vec![TableApplied { model: "flights".into(), generation: Generation(generation), lease_seq: 0, apply_us: 1 }]
    };
    world.report(|status| status.applied = applied(1));
    assert!(world.say(HOUR, Decision::Promote).is_silent());
    world.report(|status| status.applied = applied(2));
    assert_eq!(world.say(HOUR + 10, Decision::Promote).events[0].step, 1);
    world.tick(30_001);
    let mut verdict = world.verdict(4 * HOUR, Decision::Promote);
    verdict.arms = vec![canary_arm(1000)];
    world.say(3 * HOUR, Decision::Continue);
    let generation = world.state().generation;
    let effects = world.send(Verdict { generation, ..verdict });
    assert_eq!(effects.events[0].kind, EventKind::Completed);
}

#[test]
fn a_controller_that_lost_its_state_goes_back_to_stable_with_a_higher_generation() {
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    let table = world.warm(0).tables.remove(0);
    let mut fresh = World::new();
    fresh.planner.adopt(RoutingTable { generation: Generation(41), ..table });
    let effects = fresh.tick(1_000);
    assert_eq!(effects.tables[0].generation, Generation(42));
    assert_eq!(shares(&effects.tables[0]), [(Arm::Stable, "v1", 10_000)]);
    assert!(fresh.tick(1_000).is_silent());
    assert_eq!(fresh.apply_spec("r2", &spec()).tables[0].generation, Generation(43));
}

#[test]
fn the_states_json_is_pinned() {
    let mut world = World::baking();
    world.say(5 * MINUTE, Decision::Continue);
    let mut state = serde_json::to_value(world.state()).unwrap();
    state["active"]["spec"] = "(pinned by its own tests)".into();
    insta::assert_snapshot!(serde_json::to_string(&state).unwrap(), @r#"{"active":{"answers":0,"answersBefore":0,"canaryShare":500,"clock":{"since":0,"spent":0},"controlMs":1000000,"controlShare":5000,"ending":null,"frozen":{"segments":{"origin":["LGA"]},"warmupEvents":1200},"generation":2,"hold":null,"id":"r1","mirrorShare":0,"pause":null,"phase":"baking","promoted":false,"rules":2,"sentence":"step 1 of 2: 5% to v2 after 1200 answers of v1","spec":"(pinned by its own tests)","staleTold":false,"startedAt":0,"step":0,"told":null,"verdict":{"asOf":300000000,"decision":"continue","id":"verdict-300"},"verdictMs":1000000,"version":1},"asOf":300000000,"commands":["command-1"],"ended":[],"events":2,"generation":2,"lease":{"lengthMs":60000,"renewedMs":1000000,"seq":0},"model":"flights","queue":[],"serving":null,"toldAt":0,"unknownTable":null,"version":1}"#);
    let newer = serde_json::to_vec(&serde_json::json!({"version": 2})).unwrap();
    assert!(ModelState::from_json(&newer).is_err());
    assert_eq!(ModelState::from_json(&world.state().to_json()).unwrap(), *world.state());
}

#[test]
fn a_version_that_a_router_stops_calling_is_reported_at_once() {
    let mut world = World::baking();
    let mut sentences = |since: &[i64]| -> Vec<String> {
        let shed = since.iter().map(|&since| serin_schemas::records::Shed {
            model: "flights".into(),
            version: Version::from("v2"),
            since: EventTime(since),
            cause: "5 calls in a row failed, the last one: connect".to_owned(),
        });
        let effects = world.report(|status| status.shed = shed.collect());
        assert!(effects.tables.is_empty() && effects.controls.is_empty());
        effects.events.into_iter().map(|event| event.sentence).collect()
    };
    let away = "router router-0 has stopped calling v2 for a while: 5 calls in a row failed, the last one: connect";
    assert_eq!(sentences(&[7]), [away]);
    assert_eq!(sentences(&[7]), Vec::<String>::new(), "it is reported once");
    assert_eq!(sentences(&[]), ["router router-0 calls v2 again"]);
    assert_eq!(sentences(&[9]), [away]);
}
