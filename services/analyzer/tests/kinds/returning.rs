//! Users who return in every window and always answer alike: all answers of a user count as one. Equal versions are not found to
//! differ, for any kind of metric; they would be if the answers were treated as independent.

use serin_schemas::records::{Arm, MetricVerdict, Segment};
use serin_sketches::{
    Buckets, ByUnit, CappedHist, ClassCounts, LinHist, LogHist, Rate, Summary, class_position, hash::hash64,
    log_position,
};

use crate::{
    lab::{Lab, People},
    support::Dice,
};

/// Answers of each user in a window.
const ANSWERS: u64 = 20;
/// Evidence that is enough to fail a single metric.
const ENOUGH: f64 = 4.7;

const METRICS: &str = r#"
    {"name": "rate", "kind": "rate", "source": "error", "margin": {"absolute": 0}},
    {"name": "mean", "kind": {"mean": {"min": 0, "max": 1}}, "source": {"output": "a"}, "margin": {"absolute": 0}},
    {"name": "capped", "kind": {"capped_mean": {"cap": 400}}, "source": {"output": "b"}, "margin": {"relative": 0}},
    {"name": "count", "kind": "count", "source": {"output": "c"}, "margin": {"relative": 0}},
    {"name": "quantile", "kind": {"quantile": {"level": 0.8}}, "source": "latency", "margin": {"relative": 0}},
    {"name": "distribution", "kind": "distribution", "source": {"output": "d"}, "margin": {"absolute": 0}},
    {"name": "classes", "kind": "classes", "source": "status", "margin": {"absolute": 0}},
    {"name": "own", "kind": "classes", "source": {"class": {"output": "e"}}, "margin": {"absolute": 0.5}}"#;
const STICKY: &str = r#""assignment": {"sticky": {"header": "x-user"}},"#;

/// The users of an arm. Warm-up has not seen the users of the canary.
fn users(arm: Arm) -> std::ops::Range<u64> {
    if arm == Arm::Canary { 0..50 } else { 50..550 }
}

fn people(metric: &str, arm: Arm, seed: u64) -> (Summary, Vec<Summary>) {
    let mut answers = match metric {
        "rate" => Summary::Rate(Rate::default()),
        "mean" => Summary::Lin(LinHist::new()),
        "capped" => Summary::Capped(CappedHist::new(400.0).unwrap()),
        "count" => Summary::Capped(CappedHist::new(serin_kinds::MOST_EVENTS).unwrap()),
        "quantile" | "distribution" => Summary::Log(LogHist::new()),
        _ => Summary::Classes(ClassCounts::default()),
    };
    let empty = answers.clone();
    let (mut sums, mut by_unit) = (Buckets::new(), ByUnit::new());
    for user in users(arm) {
        let seed = seed ^ hash64(metric.as_bytes(), &user.to_le_bytes());
        let mut dice = Dice(seed);
        let unit = hash64(b"user", &user.to_le_bytes());
        let class = match dice.unit() {
            own if own < 0.1 => format!("only {user}"),
            one if one < 0.4 => "book".to_owned(),
            two if two < 0.7 => "film".to_owned(),
            _ => "song".to_owned(),
        };
        let (value, normal) = (dice.unit(), dice.normal());
        let mut own = empty.clone();
        let mut place = 0.0;
        for _ in 0..ANSWERS {
            place = match &mut own {
                Summary::Rate(rate) => {
                    rate.insert(value < 0.3).unwrap();
                    f64::from(u8::from(value < 0.3))
                }
                Summary::Lin(hist) => {
                    hist.insert(value, dice.bits()).unwrap();
                    value
                }
                Summary::Capped(hist) if metric == "capped" => {
                    let amount = 60.0 * normal.exp();
                    hist.insert(amount, dice.bits()).unwrap();
                    amount.min(400.0) / 400.0
                }
                Summary::Capped(hist) => {
                    let events = (3.0 * normal.exp()).floor();
                    hist.insert(events, dice.bits()).unwrap();
                    events
                }
                Summary::Log(hist) => {
                    hist.insert(50.0 * normal.exp()).unwrap();
                    log_position(50.0 * normal.exp())
                }
                Summary::Classes(counts) => {
                    counts.insert(&class).unwrap();
                    class_position(&class)
                }
                _ => unreachable!("no other kind is asked for"),
            };
        }
        sums.insert(unit, ANSWERS as f64 * place, ANSWERS).unwrap();
        answers.merge(&own).unwrap();
        by_unit.add(unit, || empty.clone(), |summary| summary.merge(&own).unwrap());
    }
    let by_unit = matches!(empty, Summary::Log(_) | Summary::Classes(_)).then_some(Summary::ByUnit(by_unit));
    (answers, [Summary::Buckets(sums)].into_iter().chain(by_unit).collect())
}

fn rollout(seed: u64, assignment: &str) -> Lab {
    let mut lab = Lab::new(seed, METRICS, assignment, |_, _, _, _| unreachable!("there are people"));
    // As many answers as the users give.
    (lab.n, lab.people) = (50 * ANSWERS, Some((people as People, hash64(b"rollout", &seed.to_le_bytes()))));
    lab.bake();
    lab
}

fn metrics(lab: &Lab) -> impl Iterator<Item = &MetricVerdict> {
    lab.world.last().metrics.iter().filter(|metric| metric.segment == Segment::all())
}

#[test]
fn no_kind_fails_because_users_always_answer_alike() {
    let mut independent = std::collections::BTreeMap::<String, u32>::new();
    for seed in 0..12 {
        let (mut sticky, mut plain) = (rollout(seed, STICKY), rollout(seed, ""));
        for window in 1..=12 {
            sticky.window();
            plain.window();
            for found in metrics(&sticky) {
                assert!(found.ln_e_fail < ENOUGH, "{seed}, window {window}: {found:#?}");
                // Earlier windows, or warm-up for the first one, have shown how much an answer is worth.
                let least = 0.4 * (ANSWERS * (window - 1).max(1)) as f64;
                assert!(
                    found.design_effect.is_some_and(|effect| effect > least),
                    "{seed}, window {window}: {found:#?}"
                );
            }
        }
        for found in metrics(&plain).filter(|found| found.p_anytime < 0.01) {
            *independent.entry(found.metric.clone()).or_default() += 1;
        }
    }
    assert_eq!(independent.len(), 8, "each kind would be found to differ: {independent:?}");
}

#[test]
fn a_step_starts_with_what_warm_up_showed_of_its_users() {
    let mut lab = rollout(20, STICKY);
    (0..12).for_each(|_| lab.window());
    let before: Vec<f64> = metrics(&lab).filter_map(|found| found.design_effect).collect();
    lab.step(1);
    lab.window();
    let after: Vec<f64> = metrics(&lab).filter_map(|found| found.design_effect).collect();
    assert_eq!((before.len(), after.len()), (8, 8));
    for (before, after) in before.into_iter().zip(after) {
        assert!(after > 0.4 * ANSWERS as f64 && after < 0.7 * before, "{before} {after}");
    }
}
