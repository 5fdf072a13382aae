//! Every phase with every event, as docs/phases.md lists them. `SERIN_WRITE_DOCS=1` writes the page.

use std::{fmt::Write as _, fs};

use serin_schemas::records::Configured;
use serin_spec::{Approval, Approver, Otherwise, Share, Step, units::Duration};

use super::*;

/// What stands before the tables of the page.
const MARK: &str = "<!-- The rest is written by crates/rollout/src/planner/tests/phases.rs -->\n";
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/phases.md");
/// The event time of the inputs in the tables, in seconds.
const THEN: i64 = 20 * HOUR;

/// A rollout in some phase, and the event that reaches it.
type Event = (&'static str, fn(&mut World, &str) -> Effects);

/// A rollout with a mirrored step, a plain one, one with an approval, and a monitored promotion.
fn file() -> RolloutSpec {
    let mut spec = spec();
    let weighted = spec.steps[0].clone();
    let within = Duration::from_secs(HOUR);
    let approve = Some(Approval { by: Approver::Operator, within, otherwise: Otherwise::Hold, marginal: false });
    spec.steps = vec![
        Step { weight: Share(0), mirror: Some(Share(2_000)), ..weighted.clone() },
        weighted.clone(),
        Step { weight: Share(2_500), approve, ..weighted.clone() },
        Step { weight: Share(5_000), ..weighted },
    ];
    spec.promotion.monitor = Duration::from_secs(HOUR);
    spec.normalized()
}

fn warming() -> World {
    let mut world = World::new();
    let known = |version: &str| Configured {
        model: "flights".into(),
        version: version.into(),
        stable: false,
        url: format!("http://{version}"),
        grpc_url: None,
        path_version: None,
    };
    world.report(|status| status.configured = Some(vec![known("v1"), known("v2")]));
    world.apply_spec("r1", &file());
    world
}

fn baking() -> World {
    let mut world = warming();
    world.warm(0);
    world.say(HOUR, Decision::Promote);
    world
}

fn then(mut world: World, change: impl FnOnce(&mut World) -> Effects) -> World {
    change(&mut world);
    world
}

fn phases() -> Vec<(&'static str, World)> {
    let approval = then(baking(), |world| world.say(2 * HOUR, Decision::Promote));
    let ended = |decision| then(baking(), |world| world.say(2 * HOUR, decision));
    vec![
        ("Warming", warming()),
        ("Shadowing", then(warming(), |world| world.warm(0))),
        ("Baking", baking()),
        ("Held: the evidence is not sound", then(baking(), |world| world.say(2 * HOUR, Decision::Hold))),
        ("Held: marginal", then(baking(), |world| world.say(6 * HOUR, Decision::Continue))),
        ("Held: no verdicts", then(baking(), |world| world.tick(3_600_000))),
        ("Held: waits for an approval", then(approval, |world| world.say(3 * HOUR, Decision::Promote))),
        ("Paused", then(baking(), |world| world.command(Action::Pause))),
        ("Promoted and monitored", then(baking(), |world| world.command(Action::PromoteFull))),
        ("Completed", {
            let promoted = then(baking(), |world| world.command(Action::PromoteFull));
            then(promoted, |world| world.command(Action::Promote))
        }),
        ("Rolled back", ended(Decision::Rollback)),
        ("Aborted", then(baking(), |world| world.command(Action::Abort))),
    ]
}

fn verdict(world: &mut World, decision: Decision) -> Effects {
    if world.state().active.is_none() { Effects::default() } else { world.say(THEN, decision) }
}

fn command(world: &mut World, action: Action) -> Effects {
    world.asked_at = EventTime::from_secs(THEN);
    world.command(action)
}

fn start(world: &mut World, id: &str, concurrency: Concurrency) -> Effects {
    let serving = world.state().serving.clone();
    let mut spec = RolloutSpec { concurrency, ..file() };
    if let Some(serving) = serving.filter(|serving| serving.version == spec.canary.version) {
        spec.stable = serving;
        (spec.canary.version, spec.canary.url) = ("v3".into(), Some("http://localhost:9003".to_owned()));
    }
    world.apply_spec(id, &spec)
}

fn weight(world: &mut World, weight: i32) -> Effects {
    world.command_by(Action::SetWeight, |command| command.weight = Some(weight))
}

const EVENTS: [Event; 24] = [
    ("verdict: the evidence is complete", |world, _| verdict(world, Decision::Promote)),
    ("verdict: not enough evidence", |world, _| verdict(world, Decision::Continue)),
    ("verdict: the evidence is not sound", |world, _| verdict(world, Decision::Hold)),
    ("verdict: roll back", |world, _| verdict(world, Decision::Rollback)),
    (
        "warm-up has seen enough",
        |world, _| {
            if world.state().active.is_none() { Effects::default() } else { world.warm(THEN) }
        },
    ),
    ("no verdict for too long", |world, _| world.tick(7_200_000)),
    ("a router reports", |world, _| world.report(|_| ())),
    ("`promote`", |world, _| command(world, Action::Promote)),
    ("`promote --full`", |world, _| command(world, Action::PromoteFull)),
    ("`set-weight`, up", |world, _| weight(world, 1_000)),
    ("`set-weight`, down", |world, _| weight(world, 100)),
    ("`approve`", |world, _| command(world, Action::Approve)),
    ("`reject`", |world, _| command(world, Action::Reject)),
    ("`pause`", |world, _| command(world, Action::Pause)),
    ("`resume`", |world, _| command(world, Action::Resume)),
    ("`freeze`", |world, _| command(world, Action::Freeze)),
    ("`unfreeze`", |world, _| command(world, Action::Unfreeze)),
    ("`abort`", |world, _| command(world, Action::Abort)),
    ("`undo`", |world, _| command(world, Action::Undo)),
    ("`stop --all`", |world, _| command(world, Action::StopAll)),
    ("`retry`", |world, _| {
        let spec = Some(serde_json::to_string(&file()).unwrap());
        world.command_by(Action::Retry, |command| {
            (command.rollout, command.spec, command.retries) = (Some("r2".into()), spec, Some("r1".into()));
        })
    }),
    ("`mark`", |world, _| {
        world.command_by(Action::Mark, |command| {
            (command.rollout, command.was_good, command.reason) = (Some("r1".into()), Some(false), "a test".to_owned());
        })
    }),
    ("`apply`", |world, id| start(world, id, Concurrency::Reject)),
    ("`apply`, `concurrency: supersede`", |world, id| start(world, id, Concurrency::Supersede)),
];

/// The phase, with the cause of a hold, and the canary's share of the calls.
fn place(world: &World, effects: &Effects) -> String {
    let state = world.state();
    let Some(active) = &state.active else {
        let last = effects.events.iter().rev().find(|event| event.rollout.is_some());
        let serves = state.serving.as_ref().map_or("", |serving| serving.version.as_str());
        let phase = last.map_or_else(|| "no rollout".to_owned(), |event| event.phase.as_str().replace('_', " "));
        return format!("{phase}; {serves} serves");
    };
    let cause = active.hold.as_ref().map_or("", |hold| match hold.cause {
        HoldCause::Health => " (not sound)",
        HoldCause::Marginal => " (marginal)",
        HoldCause::Stale => " (no verdicts)",
        HoldCause::Approval => " (approval)",
    });
    let mirror =
        if active.mirror_share.is_none() { String::new() } else { format!(", mirrors {}", active.mirror_share) };
    let next = if active.id.as_str() == "r1" { "" } else { "a new rollout: " };
    format!("{next}{}{cause}, canary {}{mirror}", active.phase.as_str(), active.canary_share)
}

/// What an event does: the recorded events and the phase after it.
fn cell(before: &World, event: &Event) -> (String, String) {
    let mut world = before.clone();
    let effects = event.1(&mut world, "r2");
    let kinds: Vec<&str> = effects.events.iter().map(|event| event.kind.as_str()).collect();
    let mut kinds: Vec<String> = kinds.into_iter().map(|kind| kind.replace('_', " ")).collect();
    kinds.dedup();
    let same = effects.tables.iter().all(|table| table.lease_seq > 0);
    let (was, now) = (place(before, &Effects::default()), place(&world, &effects));
    let after = if same && was == now || kinds == ["refused"] { "stays".to_owned() } else { now };
    (if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") }, after)
}

#[test]
fn the_page_lists_what_every_event_does_in_every_phase() {
    let mut text = String::new();
    for (name, world) in phases() {
        let at = place(&world, &Effects::default());
        writeln!(text, "\n## {name}\n\nBefore the event: {at}.\n\n| event | recorded | then |\n|---|---|---|").unwrap();
        for event in &EVENTS {
            let (recorded, after) = cell(&world, event);
            writeln!(text, "| {} | {recorded} | {after} |", event.0).unwrap();
        }
    }
    let page = fs::read_to_string(PAGE).expect("docs/phases.md");
    let (head, known) = page.split_once(MARK).expect("the page has the mark");
    if std::env::var_os("SERIN_WRITE_DOCS").is_some() {
        fs::write(PAGE, format!("{head}{MARK}{text}")).unwrap();
    } else {
        assert_eq!(known, text, "write docs/phases.md again with SERIN_WRITE_DOCS=1");
    }
}

#[test]
fn every_phase_that_is_not_final_can_be_left_by_evidence_and_by_a_person() {
    for (name, world) in phases().into_iter().filter(|(_, world)| world.state().active.is_some()) {
        let leaves =
            |wanted: &str| EVENTS.iter().any(|event| event.0.contains(wanted) && cell(&world, event).1 != "stays");
        assert!(leaves("verdict: roll back"), "{name}");
        assert!(leaves("`abort`") && leaves("`undo`"), "{name}");
        let onward = ["complete", "`promote", "`resume`", "`approve`", "warm-up"];
        assert!(onward.into_iter().any(leaves), "{name}: nothing leads on");
    }
}

#[test]
fn nothing_delays_a_rollback_in_any_phase() {
    for (name, world) in phases().into_iter().filter(|(_, world)| world.state().active.is_some()) {
        for frozen in [false, true] {
            for event in EVENTS
                .iter()
                .filter(|event| ["verdict: roll back", "`abort`", "`undo`", "`stop --all`"].contains(&event.0))
            {
                let mut world = world.clone();
                if frozen {
                    command(&mut world, Action::Freeze);
                }
                let effects = event.1(&mut world, "r2");
                let table = effects.tables.last().unwrap_or_else(|| panic!("{name}, {}", event.0));
                assert_eq!(
                    (shares(table), table.lease_ms),
                    (vec![(Arm::Stable, "v1", 10_000)], 0),
                    "{name}, {}",
                    event.0
                );
                assert!(world.state().active.is_none(), "{name}, {}", event.0);
            }
        }
    }
}

/// A queued rollout has no evidence of its own; the events of the rollout before it do not touch it.
#[test]
fn a_queued_rollout_can_only_be_aborted() {
    let mut world = baking();
    world.apply_spec("r2", &RolloutSpec { concurrency: Concurrency::Queue, ..file() });
    for action in [
        Action::Promote,
        Action::PromoteFull,
        Action::Pause,
        Action::Resume,
        Action::SetWeight,
        Action::Approve,
        Action::Reject,
        Action::Undo,
    ] {
        let effects = world.command_with(action, Some("r2"), None);
        assert_eq!(effects.events[0].kind, EventKind::Refused, "{action:?}");
        assert_eq!(world.state().queue.len(), 1);
    }
    let effects = world.command_with(Action::Abort, Some("r2"), None);
    assert_eq!((effects.events[0].kind, world.state().queue.len()), (EventKind::Aborted, 0));
}
