//! Sticky users through every door: unequal users, some of whom fail on both versions, and handfuls of users that try to
//! force a rollback.
//!
//! Requests come as Poisson streams. So the answers and failures of a bucket of users are also Poisson, with the sums of its
//! users' rates: each bucket is drawn once per window, and thousands of users take no longer than hundreds.

use serin_sketches::hash::{self, Salt, bucket};
use serin_sketches::{Buckets, ByUnit, LogHist, Rate, Summary, UNIT_BUCKETS};
use serin_statistics::cluster::{ClusterRatio, tempering, tempering_of_next_window};
use serin_statistics::{Hypothesis, Stratum, UnitEvidence, rejects};

use super::draws::Dice;
use super::lab::Lab;
use super::report::{Row, Unit, share};
use super::scenarios::{errors, latency, observe};

/// Windows of 10 s in an hour.
const WINDOWS: u32 = 360;
/// Requests of all users in a window: 3,000 a minute.
const REQUESTS: f64 = 500.0;
const CANARY: u16 = 1000;
const ALPHA: f64 = 0.01;

/// Which component splits the traffic, and by which hash a user is identified.
#[derive(Clone, Copy, PartialEq)]
enum Door {
    /// Serin's router: the hash of the key decides the arm and identifies the unit.
    Router,
    /// Another splitter, which names the unit of each event.
    Events,
}

/// A population of users.
#[derive(Clone, Copy)]
struct World {
    door: Door,
    users: u32,
    /// Sigma of the logarithm of the users' request rates.
    spread: f64,
    /// Share of failures, and correlation between the answers of one user.
    rate: f64,
    icc: f64,
    /// Share of users for which both versions always fail.
    broken: f64,
    /// Whether one user sends a tenth of the traffic.
    whale: bool,
    /// Factor on the canary's failures for all users that are not broken, and the window in which it starts.
    regression: f64,
    onset: u32,
    /// Number of the canary's users that fail on purpose, with many calls in the first window of the second minute.
    attackers: u32,
}

const PLAIN: World = World {
    door: Door::Router,
    users: 5000,
    spread: 1.0,
    rate: 0.01,
    icc: 0.01,
    broken: 0.0,
    whale: false,
    regression: 1.0,
    onset: 1,
    attackers: 0,
};

/// Calls of all attackers together.
const ATTACK: f64 = 60.0;

/// Mean failures and successes of a bucket of users in a window.
#[derive(Clone, Copy, Default)]
struct Load {
    failures: f64,
    successes: f64,
}

type Arms = [Vec<Load>; 2];

impl World {
    /// The buckets of both arms.
    fn arms(&self, dice: &mut Dice) -> (Arms, Vec<Load>) {
        let mut users: Vec<(u64, bool, f64, f64)> = Vec::new();
        let salt = Salt::new(format!("rollout-{}", dice.bits()).as_bytes());
        for number in 0..self.users {
            let name = format!("user-{number}");
            let (unit, chosen) = match self.door {
                Door::Router => (salt.hash(name.as_bytes()) as i64, salt.hash(name.as_bytes())),
                Door::Events => (hash::unit("flights", &name), dice.bits()),
            };
            let asks = libm::exp(self.spread * dice.normal());
            let own = if self.icc > 0.0 { dice.beta(self.rate, 1.0 / self.icc - 1.0) } else { self.rate };
            let fails = if dice.unit() < self.broken { 1.0 } else { own };
            let place = hash::hash64(b"serin.unit", &unit.to_le_bytes());
            users.push((place, bucket(chosen) < CANARY, asks, fails));
        }
        if self.whale {
            let others: f64 = users[1..].iter().map(|user| user.2).sum();
            users[0].2 = others / 9.0;
        }
        let all: f64 = users.iter().map(|user| user.2).sum();
        let mut arms = [vec![Load::default(); UNIT_BUCKETS], vec![Load::default(); UNIT_BUCKETS]];
        let mut before = vec![Load::default(); UNIT_BUCKETS];
        for (place, canary, asks, fails) in users {
            let (asks, bucket) = (asks / all * REQUESTS, (place >> 56) as usize);
            let add = |load: &mut Load, fails: f64| {
                load.failures += asks * fails;
                load.successes += asks * (1.0 - fails);
            };
            if canary {
                add(&mut before[bucket], fails);
            }
            let fails = if canary { (fails * self.regression).min(1.0) } else { fails };
            add(&mut arms[usize::from(!canary)][bucket], fails);
        }
        (arms, before)
    }
}

/// The error rate of one rollout: in which window it fails, without and with the guard against handfuls of users.
fn rollout(name: &str, world: World, margin: f64, alpha: f64, run: u64) -> [Option<u32>; 2] {
    let dice = &mut Dice::new(name, run);
    let (arms, before) = world.arms(dice);
    let attacked: Vec<usize> = (0..world.attackers).map(|_| (dice.bits() >> 56) as usize).collect();
    let mut hypothesis = Hypothesis::new(errors(margin, WINDOWS)).expect("the hypothesis is sound");
    let warm: u64 = 20_000;
    let share = |arm: &[Load]| {
        let sum = arm.iter().fold((0.0, 0.0), |sum, load| (sum.0 + load.failures, sum.1 + load.successes));
        sum.0 / (sum.0 + sum.1)
    };
    let base = share(&arms[1]);
    hypothesis.observe_warmup(&Summary::Rate(dice.rate(warm, base))).expect("the kind is right");
    let (mut units, mut sums, mut found) = (UnitEvidence::default(), [Buckets::new(), Buckets::new()], [None; 2]);
    for window in 1..=WINDOWS {
        let canary = if window < world.onset { &before } else { &arms[0] };
        let mut drawn = [canary, &arms[1]].map(|arm| draw(dice, arm));
        if window == 7 && world.attackers > 0 {
            for &place in &attacked {
                let calls = (ATTACK / f64::from(world.attackers)) as u64;
                drawn[0].insert((place as u64) << 56, calls as f64, calls).expect("calls are few");
            }
        }
        let phi = tempering(design_effect(&sums[0]), design_effect(&sums[1]));
        hypothesis.temper(tempering_of_next_window(phi));
        let [canary, control] = drawn.each_ref().map(|buckets| Summary::Rate(rate(buckets)));
        observe(&mut hypothesis, u64::from(window), &canary, &control);
        for (sum, more) in sums.iter_mut().zip(&drawn) {
            sum.merge(more).expect("sums are small");
        }
        let [canary, control] = drawn.map(Summary::Buckets);
        hypothesis.observe_units(&[Stratum { canary: &canary, control: &control }], false, &mut units);
        if rejects(hypothesis.max_ln_e_fail(), alpha) {
            found[0].get_or_insert(window);
            if hypothesis.fail_robustness(&units).rests_on.is_none() {
                found[1] = Some(window);
                break;
            }
        }
    }
    found
}

fn draw(dice: &mut Dice, arm: &[Load]) -> Buckets {
    let mut buckets = Buckets::new();
    for (place, load) in arm.iter().enumerate() {
        let (failures, successes) = (dice.poisson(load.failures), dice.poisson(load.successes));
        if failures + successes > 0 {
            buckets.insert((place as u64) << 56, failures as f64, failures + successes).expect("counts are small");
        }
    }
    buckets
}

fn rate(buckets: &Buckets) -> Rate {
    let failures: f64 = buckets.iter().map(|(x, _)| x).sum();
    Rate::new(buckets.n(), failures as u64).expect("failures are answers")
}

fn design_effect(buckets: &Buckets) -> Option<f64> {
    let used: Vec<(f64, f64)> = buckets.iter().map(|(x, n)| (x, n as f64)).filter(|&(_, n)| n > 0.0).collect();
    ClusterRatio::new(used)?.design_effect_of_rate()
}

/// Latency of users of which some are always slow, from the summaries per group of units.
fn slow_users(name: &str, users: u32, attackers: usize, run: u64) -> [bool; 2] {
    let dice = &mut Dice::new(name, run);
    let world = World { users, spread: 1.5, ..PLAIN };
    let (arms, _) = world.arms(dice);
    let factors: Vec<f64> = (0..2 * UNIT_BUCKETS).map(|_| libm::exp(0.3 * dice.normal())).collect();
    let mut hypothesis = Hypothesis::new(latency(0.9, 0.1, WINDOWS)).expect("the hypothesis is sound");
    let mut units = UnitEvidence::default();
    let mut found = [false; 2];
    for window in 0..=60_u32 {
        let drawn = [0, 1].map(|arm| {
            let (mut all, mut by_unit) = (LogHist::new(), ByUnit::new());
            for (place, load) in arms[arm].iter().enumerate() {
                let attacks = arm == 0 && place < attackers && window == 7;
                let calls = if attacks { 60 } else { dice.poisson(load.failures + load.successes) };
                for _ in 0..calls {
                    let slow = if attacks { 50.0 } else { 1.0 };
                    let took = 20.0 * slow * factors[arm * UNIT_BUCKETS + place] * libm::exp(0.4 * dice.normal());
                    all.insert(took).expect("a time is positive");
                    let empty = || Summary::Log(LogHist::new());
                    by_unit.add((place as u64) << 56, empty, |summary| {
                        if let Summary::Log(hist) = summary {
                            hist.insert(took).expect("a time is positive");
                        }
                    });
                }
            }
            (Summary::Log(all), Summary::ByUnit(by_unit))
        });
        let [(canary, of_canary), (control, of_control)] = &drawn;
        if window == 0 {
            hypothesis.observe_warmup(control).expect("the kind is right");
            continue;
        }
        observe(&mut hypothesis, u64::from(window), canary, control);
        hypothesis.observe_units(&[Stratum { canary: of_canary, control: of_control }], true, &mut units);
        if rejects(hypothesis.max_ln_e_fail(), ALPHA) {
            found[0] = true;
            found[1] |= hypothesis.fail_robustness(&units).rests_on.is_none();
        }
    }
    found
}

/// Equal versions.
pub(super) fn equal(lab: Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    let unequal = World { spread: 1.5, broken: 0.01, ..PLAIN };
    let hostile = World { spread: 2.0, icc: 0.05, ..PLAIN };
    for users in [300, 5000] {
        for (name, world) in [
            ("router: unequal users, 1 % of them always fail", World { users, ..unequal }),
            ("events: unequal users, 1 % of them always fail", World { users, door: Door::Events, ..unequal }),
            ("router: heavy-tailed users, ICC 0.05", World { users, ..hostile }),
            ("events: heavy-tailed users, ICC 0.05", World { users, door: Door::Events, ..hostile }),
            ("router: one user has 10 % of the traffic, ICC 0.05", World { users, whale: true, ..hostile }),
            (
                "events: one user has 10 % of the traffic, ICC 0.05",
                World { users, whale: true, door: Door::Events, ..hostile },
            ),
        ] {
            let name = format!("{name}, {users} users, error 1 %, margin 0");
            let runs = lab.each(&name, lab.runs(1000, 40), |run| rollout(&name, world, 0.0, ALPHA, run));
            let without = share(runs.iter().map(|run| run[0].is_some()));
            let with = share(runs.iter().map(|run| run[1].is_some()));
            let note = format!("{} by tempering alone", Unit::Share.text(without.0));
            rows.push(Row::new("sticky", format!("false FAIL, {name}"), Unit::Share, with).at_most(ALPHA).note(note));
        }
    }
    rows
}

/// Handfuls of users of the canary that fail on purpose.
pub(super) fn handfuls(lab: Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    for (attackers, margin) in [(1, 0.0), (3, 0.0), (5, 0.0), (8, 0.0), (12, 0.0), (3, 0.01), (5, 0.01)] {
        let name = format!("{attackers} users fail on purpose, {ATTACK} calls, margin {} points", 100.0 * margin);
        let world = World { attackers, icc: 0.0, spread: 0.5, users: 600, ..PLAIN };
        let runs = lab.each(&name, lab.runs(400, 30), |run| rollout(&name, world, margin, ALPHA, run));
        let without = share(runs.iter().map(|run| run[0].is_some()));
        let row = Row::new(
            "sticky",
            format!("rolled back: {name}"),
            Unit::Share,
            share(runs.iter().map(|run| run[1].is_some())),
        )
        .note(format!("{} without the guard", Unit::Share.text(without.0)));
        // The short form has few runs, and one of them may be unlucky.
        rows.push(if attackers <= 5 { row.at_most(if lab.short { 0.1 } else { 0.05 }) } else { row });
    }
    for attackers in [0, 3, 5] {
        let name = format!("p90 latency, {attackers} users slow on purpose");
        let runs = lab.each(&name, lab.runs(200, 10), |run| slow_users(&name, 2000, attackers, run));
        let without = share(runs.iter().map(|run| run[0]));
        let row = Row::new("sticky", format!("rolled back: {name}"), Unit::Share, share(runs.iter().map(|run| run[1])));
        rows.push(row.at_most(0.05).note(format!("{} without the guard", Unit::Share.text(without.0))));
    }
    rows
}

/// How much the guard delays detection.
pub(super) fn detection(lab: Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    for (users, icc, onset) in
        [(5000, 0.0, 1), (5000, 0.01, 1), (5000, 0.05, 1), (50_000, 0.0, 1), (50_000, 0.05, 1), (5000, 0.0, 181)]
    {
        let start = if onset > 1 { ", from minute 30 on" } else { "" };
        let name = format!("error 1 % -> 2 %{start}, margin 0.1 points, {users} users, ICC {icc}");
        let world = World { users, icc, spread: 0.5, regression: 2.0, onset, ..PLAIN };
        // The share of an overall metric in the budget of 88 hypotheses.
        let runs = lab.each(&name, lab.runs(200, 20), |run| rollout(&name, world, 0.001, ALPHA / 16.0, run));
        let seconds = |guard: usize| {
            let mut times: Vec<f64> =
                runs.iter().map(|run| run[guard].map_or(f64::INFINITY, |window| 10.0 * f64::from(window))).collect();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let found = share(runs.iter().map(|run| run[1].is_some()));
        let (without, with) = (seconds(0), seconds(1));
        let note =
            format!("{} by tempering alone; found in {}", Unit::Seconds.text(without), Unit::Share.text(found.0));
        let row = Row::new("sticky", format!("{name}, median"), Unit::Seconds, (with, 0.0)).note(note);
        rows.push(if without.is_finite() { row.at_most(1.2 * without) } else { row });
    }
    rows
}
