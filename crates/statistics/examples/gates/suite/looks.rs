//! The group-sequential test for PASS compared with the e-process: how often a canary exactly at the margin passes, and how
//! many answers a healthy one needs.

use serin_sketches::Summary;
use serin_statistics::{
    Direction, Hypothesis, HypothesisSpec, LooksPlan, Margin, Measure, PlannedLooks, Stratum, rejects,
};

use super::draws::{Dice, Signal};
use super::lab::Lab;
use super::report::{Row, Unit, quantile, share};
use super::scenarios::{ALPHA_PROMOTION, Control, Traffic, against_control, clicks, confidence, confidences, errors};

const CANARY: f64 = 0.1;
const H: u32 = 360;
/// The cap of revenue: p99.9 of its amounts.
const CAP: f64 = 21.78;

struct Case {
    name: &'static str,
    spec: HypothesisSpec,
    /// Planned answers of the canary, with which nine of ten healthy canaries are shown to be within the margin.
    answers: u64,
    control: Signal,
    /// The signal of a canary exactly at the margin.
    at_margin: Signal,
}

fn cases() -> Vec<Case> {
    let revenue = |buyers| Signal::Revenue { buyers, sigma: 1.5, cap: CAP };
    let by_buyers =
        against_control(Measure::CappedMean { cap: CAP }, Direction::HigherIsBetter, Margin::relative(0.2), H);
    let rate = Signal::Rate;
    let case = |name, spec, answers, control, at_margin| Case { name, spec, answers, control, at_margin };
    vec![
        case("error 1 %, margin +0.2 pp", errors(0.002, H), 26_000, rate(0.01), rate(0.012)),
        case("CTR 5 %, margin 10 %", clicks(0.1, H), 18_000, rate(0.05), rate(0.045)),
        case("confidence, margin 0.5 %", confidence(0.005, H), 7_000, confidences(0.8), confidences(0.796)),
        case("revenue, margin 20 %", by_buyers, 18_000, revenue(0.05), revenue(0.04)),
    ]
}

/// Answers of the canary until PASS, by looks and by the e-process; infinite if not within four times the planned answers.
struct Run {
    looks: f64,
    process: f64,
}

fn run(case: &Case, canary: &Signal, looks: u32, seed: u64) -> Run {
    let dice = &mut Dice::new(&format!("looks: {}, {looks}", case.name), seed);
    let traffic = Traffic::fast(CANARY, Control::TenTimes);
    let plan = LooksPlan { looks, answers: case.answers, alpha: ALPHA_PROMOTION };
    let mut planned = PlannedLooks::new(&case.spec, plan).expect("the plan is sound");
    let mut hypothesis = Hypothesis::new(case.spec).expect("the hypothesis is sound");
    for _ in 0..6 {
        let n = traffic.warmup(dice);
        hypothesis.observe_warmup(&case.control.draw(dice, n)).expect("the kind is right");
    }
    let mut run = Run { looks: f64::INFINITY, process: f64::INFINITY };
    let (mut answers, mut window) = (0, 0);
    while answers < 4 * case.answers && !(planned.is_over() && run.process.is_finite()) {
        window += 1;
        let (n_c, n_s) = traffic.arms(dice, window);
        answers += n_c;
        let (canary, control) = (canary.draw(dice, n_c), case.control.draw(dice, n_s));
        let stratum = [Stratum { canary: &canary, control: &control }];
        planned.observe(&stratum);
        hypothesis.observe(i64::try_from(window).expect("windows are few"), &stratum).expect("in order");
        if planned.passed() {
            run.looks = run.looks.min(answers as f64);
        }
        if rejects(hypothesis.ln_e_pass(), ALPHA_PROMOTION) {
            run.process = run.process.min(answers as f64);
        }
    }
    run
}

/// Whether a canary exactly at the margin passes while the base rate of both arms rises sixfold before the last look. Each
/// answer then carries less and less information, which the variances measured at the looks must reflect.
fn passes_in_a_drift(seed: u64) -> bool {
    let dice = &mut Dice::new("looks in a drift", seed);
    let traffic = Traffic::fast(CANARY, Control::TenTimes);
    let plan = LooksPlan { looks: 5, answers: 26_000, alpha: ALPHA_PROMOTION };
    let mut planned = PlannedLooks::new(&errors(0.002, H), plan).expect("the plan is sound");
    let (mut answers, mut window) = (0, 0);
    while !planned.is_over() {
        window += 1;
        let (n_c, n_s) = traffic.arms(dice, window);
        let base = 0.005 + 0.025 * answers as f64 / plan.answers as f64;
        answers += n_c;
        let (canary, control) = (Summary::Rate(dice.rate(n_c, base + 0.002)), Summary::Rate(dice.rate(n_s, base)));
        planned.observe(&[Stratum { canary: &canary, control: &control }]);
    }
    planned.passed()
}

/// Exactly at the margin all of alpha is spent, so the simulated share varies around alpha.
fn false_passes(name: String, runs: u64, passed: Vec<bool>) -> Row {
    let slack = 3.0 * libm::sqrt(ALPHA_PROMOTION * (1.0 - ALPHA_PROMOTION) / runs as f64);
    let row = Row::new("looks", name, Unit::Share, share(passed)).at_most(ALPHA_PROMOTION + slack);
    row.note("alpha 5 %, and three times the Monte-Carlo error")
}

/// The rows of this part; see the module documentation.
pub(super) fn rows(lab: Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    let (name, runs) =
        ("false PASS by 5 looks, errors drift 0.5 -> 3 %, margin +0.2 pp".to_owned(), lab.runs(4000, 300));
    let passed = lab.each(&name, runs, passes_in_a_drift);
    rows.push(false_passes(name, runs, passed));
    for case in cases() {
        for &looks in if lab.short { &[5][..] } else { &[1, 5, 10] } {
            let runs = lab.runs(4000, 300);
            let name = format!("false PASS by {looks} looks, {}", case.name);
            let bad = lab.each(&name, runs, |seed| run(&case, &case.at_margin, looks, seed).looks.is_finite());
            rows.push(false_passes(name, runs, bad));
        }
        let name = format!("PASS of a healthy canary, {}", case.name);
        let healthy = lab.each(&name, lab.runs(2000, 200), |seed| run(&case, &case.control, 5, seed));
        let of = |what: fn(&Run) -> f64| {
            let mut answers: Vec<f64> = healthy.iter().map(what).collect();
            answers.sort_by(f64::total_cmp);
            (quantile(&answers, 0.5).0, quantile(&answers, 0.8).0)
        };
        let ((median, most), (process, process_most)) = (of(|run| run.looks), of(|run| run.process));
        let power = share(healthy.iter().map(|run| run.looks.is_finite()));
        let note = format!(
            "{} planned; answers until PASS, median (80 %): {median:.0} ({most:.0}) by 5 looks, {process:.0} ({process_most:.0}) by the \
             e-process",
            case.answers
        );
        rows.push(Row::new("looks", name, Unit::Share, power).at_least(0.8).note(note));
        let sooner = format!("answers until 80 % pass, by looks against the e-process, {}", case.name);
        rows.push(Row::new("looks", sooner, Unit::Share, (most / process_most, 0.0)).at_most(0.95));
    }
    rows
}
