//! Rollouts whose labels arrive later for one version than for the other.

use serin_schemas::{
    ids::Generation,
    records::{Arm, Cell, Decision, Phase, Segment},
};
use serin_sketches::{LogHist, Rate, Summary};

use super::{HEALTHY, MATURITY, SPEC, Version, World};

/// Metrics on clicks: `clicked` counts 0 without a click within the maturity, and `click_delay` is the delay of the clicks that came.
pub(crate) fn spec(kind: &str, margin: &str) -> String {
    let wrong = SPEC.find("{\"name\": \"wrong\"").unwrap_or_default();
    let end = SPEC[wrong..].find("{\"name\": \"slow_watch\"").unwrap_or_default();
    let labels = format!(
        r#"{{"name": "clicked", "kind": "rate", "source": {{"feedback": "click"}}, "direction": "higher_is_better",
            "margin": {{"relative": 0.5}}, "maturity": "60s", "whenMissing": "zero"}},
        {{"name": "click_delay", "kind": {kind}, "source": {{"label_delay": "click"}}, "margin": {margin}, "maturity": "60s"}},
        "#
    );
    [&SPEC[..wrong], &labels, &SPEC[wrong + end..]].concat()
}

/// Plays windows in which the canary's clicks take `times` as long as control's (about 20 s), and are `often` as frequent.
pub(crate) fn play(seed: u64, spec: &str, times: f64, often: f64) -> World {
    play_with(seed, spec, times, often, HEALTHY)
}

/// The same with this behavior of the canary.
pub(crate) fn play_with(seed: u64, spec: &str, times: f64, often: f64, canary: Version) -> World {
    play_until(&[Decision::Rollback, Decision::Hold], seed, spec, times, often, canary)
}

/// The same until the first of these decisions.
pub(crate) fn play_until(ends: &[Decision], seed: u64, spec: &str, times: f64, often: f64, canary: Version) -> World {
    let mut world = World::with_spec(seed, spec);
    world.canary = canary;
    world.turn(Phase::Warming, -1, 0, 0);
    let mut started = false;
    for _ in 0..80 {
        for mut part in world.draw() {
            part.cells.retain(|cell| cell.metric != "wrong");
            if part.maturity == MATURITY {
                for arm in &mut part.arms {
                    let canary = arm.arm == Arm::Canary;
                    let own = (part.generation == Generation(1)) == (arm.arm == Arm::Stable);
                    let chance = if canary { 0.2 * often } else { 0.2 };
                    let (mut rate, mut delays) = (Rate::default(), LogHist::new());
                    for _ in 0..arm.predictions {
                        let clicked = world.dice.chance(chance);
                        let delay = 20.0 * (0.3 * world.dice.normal()).exp() * if canary { times } else { 1.0 };
                        let in_time = clicked && delay <= 60.0;
                        assert!(rate.insert(in_time).is_ok());
                        assert!(!in_time || delays.insert(delay).is_ok());
                    }
                    arm.labelled = rate.k() as i64;
                    let cell = |metric: &str, summary: &Summary| Cell {
                        arm: arm.arm,
                        segment: Segment::all(),
                        metric: metric.to_owned(),
                        summary: summary.encode(),
                    };
                    let cells = [cell("clicked", &Summary::Rate(rate)), cell("click_delay", &Summary::Log(delays))];
                    part.cells.extend(cells.into_iter().filter(|_| own));
                }
            }
            assert_eq!(world.send(&part).poison, None);
        }
        world.close(world.now);
        if let (false, Some(frozen)) = (started, world.last().frozen.clone()) {
            started = true;
            world.control.frozen = Some(frozen);
            world.turn(Phase::Baking, 0, 500, 5000);
        }
        if ends.contains(&world.last().decision) {
            break;
        }
    }
    world
}
