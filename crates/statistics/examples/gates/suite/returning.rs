//! G6 for every kind: users that return in every window and always answer alike. All answers of one user are worth one
//! answer, so evidence that is tempered too little, or not at all, fails equal versions.

use serin_sketches::{ClassCounts, Summary};
use serin_statistics::cluster::tempering_of_next_window;
use serin_statistics::{Direction, Hypothesis, HypothesisSpec, Margin, Measure, rejects};

use super::corrections::{Evidence, rows};
use super::draws::{Dice, MOST_EVENTS, Shape, Signal};
use super::lab::Lab;
use super::report::{Row, Unit, share};
use super::scenarios::{against_control, distribution, errors, latencies, latency, observe};

/// Users of canary and control.
const USERS: [u64; 2] = [100, 1000];
/// Answers of each user in a window.
const ANSWERS: u64 = 10;
const WINDOWS: u32 = 60;
/// Number of windows after which it shows that design effects must be squared.
const LONG: u32 = 360;
const CAP: f64 = 20.0;

/// Draws one answer of each user; the argument is the number of users.
type Draw = fn(&mut Dice, u64) -> Summary;

fn kinds() -> Vec<(&'static str, HypothesisSpec, Draw)> {
    let spec = |measure, margin| against_control(measure, Direction::LowerIsBetter, margin, WINDOWS);
    let zero = || Margin::absolute(0.0);
    let counts = spec(Measure::Counts { most: MOST_EVENTS }, Margin::relative(0.0));
    vec![
        ("errors", errors(0.0, WINDOWS), |dice, users| Signal::Rate(0.2).draw(dice, users)),
        ("scores", spec(Measure::Mean { min: 0.0, max: 1.0 }, zero()), |dice, users| {
            Signal::Lin(Shape::beta(0.5, 2.0)).draw(dice, users)
        }),
        ("amounts", spec(Measure::CappedMean { cap: CAP }, zero()), |dice, users| {
            Signal::Revenue { buyers: 0.5, sigma: 1.0, cap: CAP }.draw(dice, users)
        }),
        ("events per answer", counts, |dice, users| {
            Signal::Counts(Shape::negative_binomial(2.0, 18.0)).draw(dice, users)
        }),
        ("p90 latency", latency(0.9, 0.0, WINDOWS), |dice, users| latencies(1.0).draw(dice, users)),
        ("latencies", distribution(0.0, WINDOWS), |dice, users| latencies(1.0).draw(dice, users)),
        ("classes", spec(Measure::Classes, zero()), |dice, users| classes(dice, users, 0.0)),
        ("classes of their own", spec(Measure::Classes, Margin::absolute(0.5)), |dice, users| {
            classes(dice, users, 0.1)
        }),
    ]
}

/// Each user always shows one of three classes, or a class that no other user has.
fn classes(dice: &mut Dice, users: u64, own: f64) -> Summary {
    let mut counts = ClassCounts::default();
    for _ in 0..users {
        let class = match dice.unit() {
            place if place < own => format!("user {}", dice.bits()),
            place => ["book", "film", "song"][(3.0 * (place - own) / (1.0 - own)) as usize].to_owned(),
        };
        counts.insert(&class).expect("users are few");
    }
    Summary::Classes(counts)
}

/// The answers of all users in a window.
fn window(dice: &mut Dice, users: u64, draw: Draw) -> Summary {
    let once = draw(dice, users);
    let mut all = once.clone();
    (1..ANSWERS).for_each(|_| all.merge(&once).expect("the summaries are alike"));
    all
}

/// The largest `ln E` of a rollout of equal versions under each way of tempering. Each way receives the design effect of the
/// earlier windows.
fn rollout<const N: usize>(
    name: &str,
    spec: HypothesisSpec,
    draw: Draw,
    windows: u32,
    ways: [fn(f64) -> f64; N],
    run: u64,
) -> [f64; N] {
    let dice = &mut Dice::new(name, run);
    let warm_up = window(dice, USERS[1], draw);
    let [canary, control] = USERS.map(|users| window(dice, users, draw));
    ways.map(|way| {
        let mut hypothesis = Hypothesis::new(spec).expect("the hypothesis is sound");
        hypothesis.observe_warmup(&warm_up).expect("the kind is right");
        for window in 1..=u64::from(windows) {
            // Before the first window only warm-up is known.
            hypothesis.temper(way((ANSWERS * (window - 1).max(1)) as f64));
            observe(&mut hypothesis, window, &canary, &control);
        }
        hypothesis.max_ln_e_fail()
    })
}

/// False alarms at 5 % and 1 %, with and without tempering, and with a design effect that is not squared.
pub(super) fn gates(lab: Lab) -> Vec<Row> {
    let mut all = Vec::new();
    for (kind, spec, draw) in kinds() {
        let name = format!("{kind} of users who always answer alike");
        let runs = lab.each(&name, lab.runs(1000, 100), |run| {
            let [on, off] = rollout(&name, spec, draw, WINDOWS, [tempering_of_next_window, |_| 1.0], run);
            Evidence { on, off }
        });
        all.extend(rows("G6", &name, [("", ""); 2], &runs));
    }
    let name = "errors of users who always answer alike, all day";
    let (_, spec, draw) = kinds().swap_remove(0);
    let runs = lab.each(name, lab.runs(2000, 400), |run| {
        rollout(name, spec, draw, LONG, [tempering_of_next_window, |phi| phi], run)
    });
    let failed = |way: usize| share(runs.iter().map(|run| rejects(run[way], 0.01)));
    let row = |words: &str, way| Row::new("G6", format!("{name}, {words}, alpha 1 %"), Unit::Share, failed(way));
    all.push(row("corrected", 0).at_most(0.01));
    all.push(row("by the design effect, not its square", 1).at_least(0.01));
    all
}
