//! Serin's figures next to Kayenta's where Kayenta's judge was measured to be weak (numbers of the bars as in `docs/statistics.md`).
//!
//! Kayenta's figures were measured on its own judge: one look and direction increase unless stated otherwise, series of 60
//! points, 500 to 4000 runs per figure.

use serin_sketches::{CappedHist, LinHist, LogHist, Rate, Summary};
use serin_statistics::kayenta::{self, Label, MetricConfig, MetricPair, Thresholds};
use serin_statistics::{
    Direction, Finding, Hypothesis, HypothesisSpec, Margin, Measure, ln_weighted_average, p_anytime, rejects, score,
    weighted_holm,
};

use super::draws::{Dice, Shape, Signal};
use super::lab::Lab;
use super::report::{Row, Unit, quantile, share};
use super::scenarios::{
    ALPHA_PROMOTION, ALPHA_ROLLBACK, OVERALL, against_control, confidence, confidences, errors, latencies, latency,
    observe,
};

/// Answers of canary and control in a window.
const ARMS: (u64, u64) = (100, 1000);

/// All bars that concern only the statistics.
pub(super) fn bars(lab: Lab) -> Vec<Row> {
    let parts = [
        unlimited_looks,
        autocorrelated,
        units,
        new_errors,
        broken_tail,
        broken_segment,
        at_window_close,
        cost,
        not_judged,
    ];
    parts.into_iter().flat_map(|part| part(lab)).collect()
}

fn row(bar: u32, name: &str, figure: (f64, f64), kayenta: &str) -> Row {
    Row::new(&format!("bar {bar}"), name, Unit::Share, figure).note(format!("Kayenta: {kayenta}"))
}

/// A hypothesis that has seen six windows of control.
fn warmed(spec: HypothesisSpec, dice: &mut Dice, healthy: &Signal) -> Hypothesis {
    let mut hypothesis = Hypothesis::new(spec).expect("the spec is sound");
    for _ in 0..6 {
        hypothesis.observe_warmup(&healthy.draw(dice, ARMS.1)).expect("the kind is right");
    }
    hypothesis
}

/// Whether the evidence exhausts the share `weight` of the rollback budget.
fn fails(hypothesis: &Hypothesis, weight: f64) -> bool {
    rejects(ln_weighted_average(&[(weight, hypothesis.ln_e_fail())]), ALPHA_ROLLBACK)
}

/// Bar 2: a healthy canary, evaluated after every window, far beyond the planned end.
fn unlimited_looks(lab: Lab) -> Vec<Row> {
    let runs = lab.runs(2000, 300);
    let looks = if lab.short { 300 } else { 1000 };
    let kinds = [
        ("errors at 1 %", errors(0.0, 60), Signal::Rate(0.01)),
        ("latency p95", latency(0.95, 0.0, 60), latencies(1.0)),
    ];
    let one = |(name, spec, signal): &(&str, HypothesisSpec, Signal)| {
        let failed = lab.each(&format!("bar 2, {name}"), runs, |run| {
            let dice = &mut Dice::new(&format!("unlimited looks at {name}"), run);
            let mut hypothesis = warmed(*spec, dice, signal);
            (1..=looks).any(|window| {
                observe(&mut hypothesis, window, &signal.draw(dice, ARMS.0), &signal.draw(dice, ARMS.1));
                fails(&hypothesis, 1.0)
            })
        });
        let name = format!("A/A, {name}, {looks} looks: any look fails");
        row(2, &name, share(failed), "0.7 % at 12 growing looks, 2.7 % at 24 sliding ones").at_most(ALPHA_ROLLBACK)
    };
    kinds.iter().map(one).collect()
}

/// Bar 3: the base rate moves with autocorrelation 0.6 from window to window, equally in both arms.
fn autocorrelated(lab: Lab) -> Vec<Row> {
    let runs = lab.runs(4000, 500);
    let one = |(name, trend): (&str, f64)| {
        let failed = lab.each(&format!("bar 3, {name}"), runs, |run| {
            let dice = &mut Dice::new(&format!("autocorrelated {name}"), run);
            let mut hypothesis = warmed(errors(0.0, 60), dice, &Signal::Rate(0.02));
            let mut shock = dice.normal();
            (1..=60_u32).any(|window| {
                shock = 0.6 * shock + 0.8 * dice.normal();
                let log_odds = libm::log(0.02 / 0.98) + 0.5 * shock + trend * f64::from(window) / 60.0;
                let signal = Signal::Rate(1.0 / (1.0 + libm::exp(-log_odds)));
                observe(&mut hypothesis, window.into(), &signal.draw(dice, ARMS.0), &signal.draw(dice, ARMS.1));
                fails(&hypothesis, 1.0)
            })
        });
        let name = format!("A/A, base rate with autocorrelation 0.6{name}, 60 looks: any look fails");
        let kayenta = "6.0 % at one look, 11.8 % in both directions, 18.5 % at 12 looks";
        row(3, &name, share(failed), kayenta).at_most(ALPHA_ROLLBACK)
    };
    [("", 0.0), (" and a trend to four times", 1.39)].into_iter().map(one).collect()
}

/// Converts the values of a window to a summary.
type Fold = Box<dyn Fn(&[f64]) -> Summary>;

/// A metric in some unit: its hypothesis, and how a window's values enter its histogram.
struct InUnit {
    spec: HypothesisSpec,
    insert: Fold,
}

/// The same metric of values in [0, 8], multiplied by `scale`. For a negative scale, values and direction are inverted.
fn in_units(scale: f64, relative: f64) -> Vec<InUnit> {
    let unit = scale.abs();
    let flipped = scale < 0.0;
    let direction = if flipped { Direction::HigherIsBetter } else { Direction::LowerIsBetter };
    let (min, max) = if flipped { (-8.0 * unit, 0.0) } else { (0.0, 8.0 * unit) };
    let mean = InUnit {
        // A margin relative to a negative mean is meaningless, so the margin is the same one in the metric's unit.
        spec: against_control(Measure::Mean { min, max }, direction, Margin::absolute(relative * unit), 20),
        insert: Box::new(move |values| {
            let mut hist = LinHist::new();
            for &value in values {
                let scaled = (value * scale - min) / (max - min);
                hist.insert(scaled.clamp(0.0, 1.0), value.to_bits()).expect("it is in range");
            }
            Summary::Lin(hist)
        }),
    };
    if flipped {
        return vec![mean];
    }
    let quantile = InUnit {
        spec: against_control(Measure::Quantile { level: 0.9 }, direction, Margin::relative(relative), 20),
        insert: Box::new(move |values| {
            let mut hist = LogHist::new();
            for value in values {
                hist.insert(value * scale).expect("it is positive");
            }
            Summary::Log(hist)
        }),
    };
    let capped = InUnit {
        spec: against_control(Measure::CappedMean { cap: 8.0 * unit }, direction, Margin::relative(relative), 20),
        insert: Box::new(move |values| {
            let mut hist = CappedHist::new(8.0 * unit).expect("the cap is positive");
            for value in values {
                hist.insert(value * scale, value.to_bits()).expect("it is not negative");
            }
            Summary::Capped(hist)
        }),
    };
    vec![mean, quantile, capped]
}

/// Bar 4: the verdict depends neither on the unit nor on the sign.
fn units(lab: Lab) -> Vec<Row> {
    let scales = [1e-9, 1e-6, 1e-4, 1.0, 1e4, 1e9, -1e-9, -1.0, -1e9];
    let runs = lab.runs(40, 8);
    let changed = lab.each("bar 4", runs, |run| {
        let dice = &mut Dice::new("units", run);
        // Even runs are healthy, odd runs are worse by half.
        let factor = if run % 2 == 0 { 1.0 } else { 1.5 };
        let mut values = |n: u64, factor: f64| -> Vec<f64> {
            (0..n).map(|_| (factor * libm::exp(0.4 * dice.normal())).min(7.9)).collect()
        };
        let warmup = values(3000, 1.0);
        let windows: Vec<_> = (0..20).map(|_| (values(150, factor), values(1500, 1.0))).collect();
        let verdicts = |scale: f64| -> Vec<(bool, bool)> {
            let judge = |metric: InUnit| {
                let mut hypothesis = Hypothesis::new(metric.spec).expect("the spec is sound");
                hypothesis.observe_warmup(&(metric.insert)(&warmup)).expect("the kind is right");
                for (window, (canary, control)) in (1..).zip(&windows) {
                    observe(&mut hypothesis, window, &(metric.insert)(canary), &(metric.insert)(control));
                }
                (fails(&hypothesis, OVERALL), rejects(hypothesis.ln_e_pass(), ALPHA_PROMOTION))
            };
            in_units(scale, 0.2).into_iter().map(judge).collect()
        };
        let known = [(factor > 1.0, factor <= 1.0); 3];
        scales.into_iter().any(|scale| {
            let found = verdicts(scale);
            found != known[..found.len()]
        })
    });
    let kayenta = "+50 % is found in 100 % of runs at 3e-4, 4 % at 1e-5; a negative mean never fails";
    vec![
        row(4, "verdicts that change with a unit of 1e-9 to 1e9 or the opposite sign", share(changed), kayenta)
            .at_most(0.0),
    ]
}

/// Bar 5: errors that control never has.
fn new_errors(lab: Lab) -> Vec<Row> {
    let runs = lab.runs(500, 60);
    let one = |(name, rate): (&str, f64)| {
        let seen = lab.each(&format!("bar 5, {name}"), runs, |run| {
            let dice = &mut Dice::new(&format!("new errors {name}"), run);
            let mut hypothesis = warmed(errors(0.0, 60), dice, &Signal::Rate(0.0));
            let control = Summary::Rate(Rate::new(ARMS.1, 0).expect("none of many"));
            let (mut errors, mut window) = (0, 0);
            while errors < 20 {
                window += 1;
                let k = dice.binomial(ARMS.0, rate).min(20 - errors);
                errors += k;
                let canary = Summary::Rate(Rate::new(ARMS.0, k).expect("some of many"));
                observe(&mut hypothesis, window, &canary, &control);
                if fails(&hypothesis, OVERALL) {
                    return Some(errors);
                }
            }
            None
        });
        let most = seen.iter().flatten().max().copied().unwrap_or(0);
        let name = format!("new errors on a clean baseline, {name}: found by the 20th (at most {most} needed)");
        let kayenta = "errors in 30 / 50 / 60 % of the points, of any height: found in 1 / 31 / 48 %";
        row(5, &name, share(seen.iter().map(Option::is_some)), kayenta).at_least(1.0)
    };
    [("one in ten windows", 0.001), ("one a window", 0.01), ("all at once", 0.3)].into_iter().map(one).collect()
}

/// Bar 6: 5 % of the requests take 50 times as long.
fn broken_tail(lab: Lab) -> Vec<Row> {
    let healthy = latencies(1.0);
    let broken = Signal::Log(Shape::log_normals(&[(0.95, 50.0, 0.5), (0.05, 2500.0, 0.5)]));
    let found = lab.each("bar 6", lab.runs(500, 60), |run| {
        let dice = &mut Dice::new("broken tail", run);
        let mut hypothesis = warmed(latency(0.99, 0.2, 60), dice, &healthy);
        let windows = 2000 / ARMS.0;
        (1..=windows).find(|&window| {
            observe(&mut hypothesis, window, &broken.draw(dice, ARMS.0), &healthy.draw(dice, ARMS.1));
            fails(&hypothesis, OVERALL)
        })
    });
    let most = found.iter().flatten().max().copied().unwrap_or(0) * ARMS.0;
    let name = format!("5 % of requests x50: found in the first 2000 canary requests (at most {most} needed)");
    let kayenta = "5 % of the points x50: found in 0.3 %";
    vec![row(6, &name, share(found.iter().map(Option::is_some)), kayenta).at_least(1.0)]
}

/// Bar 7: one of twenty segments is broken, and that segment is named.
fn broken_segment(lab: Lab) -> Vec<Row> {
    const SEGMENTS: usize = 20;
    const BROKEN: usize = 7;
    let named = lab.each("bar 7", lab.runs(1000, 100), |run| {
        let dice = &mut Dice::new("broken segment", run);
        let mut segments: Vec<Hypothesis> =
            (0..SEGMENTS).map(|_| warmed(errors(0.0, 60), dice, &Signal::Rate(0.01))).collect();
        for window in 1..=60 {
            for (index, hypothesis) in segments.iter_mut().enumerate() {
                let rate = if index == BROKEN { 0.05 } else { 0.01 };
                let (canary, control) = (dice.rate(ARMS.0 / 2, rate), dice.rate(ARMS.1 / 2, 0.01));
                observe(hypothesis, window, &Summary::Rate(canary), &Summary::Rate(control));
            }
        }
        // The other half of the budget is for the overall metrics.
        let weight = 0.5 / SEGMENTS as f64;
        let p: Vec<_> = segments.iter().map(|segment| (weight, p_anytime(segment.max_ln_e_fail()))).collect();
        weighted_holm(&p, 2.0 * weight * SEGMENTS as f64 * ALPHA_ROLLBACK)
    });
    let wrong = |named: &Vec<bool>| named.iter().enumerate().any(|(index, named)| *named && index != BROKEN);
    let kayenta = "the analysis passes at 75 in 99 / 100 / 100 % with one of 5 / 10 / 20 broken";
    vec![
        row(7, "one broken segment in 20 (1 % -> 5 %): named", share(named.iter().map(|named| named[BROKEN])), kayenta)
            .at_least(0.99),
        row(7, "a healthy segment next to it: named", share(named.iter().map(wrong)), "does not correct for segments")
            .at_most(ALPHA_ROLLBACK),
    ]
}

/// Bar 8: the verdict is available when the window closes, and a window may last one second.
fn at_window_close(lab: Lab) -> Vec<Row> {
    let seconds = lab.each("bar 8", lab.runs(1000, 100), |run| {
        let dice = &mut Dice::new("a second a window", run);
        let mut hypothesis = warmed(errors(0.002, 3600), dice, &Signal::Rate(0.01));
        // 10,000 requests a minute, a tenth of them for the canary.
        let found = (1..=3600_u32).find(|&second| {
            let (canary, control) = (dice.rate(17, 0.2), dice.rate(150, 0.01));
            observe(&mut hypothesis, second.into(), &Summary::Rate(canary), &Summary::Rate(control));
            fails(&hypothesis, OVERALL)
        });
        found.map_or(f64::INFINITY, f64::from)
    });
    let name = "error 1 % -> 20 %, canary 10 %, windows of 1 s: median until the verdict";
    let kayenta = "Kayenta: one look a minute at most, its own advice is 30 minutes";
    vec![Row::new("bar 8", name, Unit::Seconds, quantile(&seconds, 0.5)).at_most(10.0).note(kayenta)]
}

/// Bar 9: the size of evidence and windows does not grow with the number of answers, except for bins that fill up.
fn cost(_lab: Lab) -> Vec<Row> {
    let kinds = [
        (errors(0.002, 60), Signal::Rate(0.01)),
        (latency(0.99, 0.2, 60), latencies(1.0)),
        (confidence(0.01, 60), confidences(0.8)),
    ];
    let bytes = |answers: u64| -> f64 {
        let dice = &mut Dice::new("cost", answers);
        let of = |(spec, signal): &(HypothesisSpec, Signal)| {
            let mut hypothesis = warmed(*spec, dice, signal);
            let mut size = 0;
            for window in 1..=3 {
                let (canary, control) = (signal.draw(dice, answers), signal.draw(dice, 10 * answers));
                observe(&mut hypothesis, window, &canary, &control);
                size = canary.encode().len() + control.encode().len();
            }
            size + postcard::to_allocvec(&hypothesis).expect("the evidence is plain").len()
        };
        kinds.iter().map(of).sum::<usize>() as f64
    };
    let figure = bytes(1_000_000) / bytes(1_000);
    let kayenta = "1.7 ms a metric at 60 points a side, 21,449 ms at 100,000";
    vec![row(9, "bytes of evidence and windows at a thousand times the answers", (figure, 0.0), kayenta).at_most(2.0)]
}

/// Bar 10: no data, or data that cannot be compared, is never a pass.
fn not_judged(_lab: Lab) -> Vec<Row> {
    let empty = Signal::Rate(0.5);
    let dice = &mut Dice::new("not judged", 0);
    let windows = [(0, ARMS.1), (ARMS.0, 0), (0, 0)];
    let passed = windows.map(|(n_c, n_s)| {
        let mut hypothesis = Hypothesis::new(errors(0.1, 60)).expect("the spec is sound");
        for window in 1..=200 {
            observe(&mut hypothesis, window, &empty.draw(dice, n_c), &empty.draw(dice, n_s));
        }
        let finding = if rejects(hypothesis.ln_e_pass(), ALPHA_PROMOTION) { Finding::Pass } else { Finding::Undecided };
        // Nine metrics passed, so the tenth decides whether the score can reach 95.
        score(&[(9.0, Finding::Pass), (1.0, finding)]).low >= 95.0
    });
    let name =
        format!("a metric without data counts as passed (Kayenta, a critical one in error: score {})", kayenta_score());
    vec![row(10, &name, share(passed), "counts it as passed").at_most(0.0)]
}

/// The score of the Kayenta judge for a critical metric that cannot be compared and another metric that passes.
fn kayenta_score() -> f64 {
    let pair = |name: &str, critical, control: Vec<f64>, experiment: Vec<f64>| MetricPair {
        name: name.to_owned(),
        groups: vec![name.to_owned()],
        config: MetricConfig { critical, ..MetricConfig::default() },
        control,
        experiment,
    };
    let ramp: Vec<f64> = (0..30).map(f64::from).collect();
    // Shifting by an infinite value ties all observations.
    let broken = pair("errors", true, vec![f64::INFINITY], vec![1.0, 1.0, 2.0]);
    let fine = pair("latency", false, ramp.clone(), ramp);
    let thresholds = Thresholds { pass: 75.0, marginal: 50.0 };
    let judgement = kayenta::judge(&[broken, fine], &[], thresholds).expect("nothing is configured");
    assert_eq!(judgement.metrics[0].judged.label, Label::Error, "the comparison is meant to fail");
    judgement.score
}
