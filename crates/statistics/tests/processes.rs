//! Law P1 for whole hypotheses: enumerates every outcome of several windows through everything that a hypothesis does (memories, bets,
//! restarts, newcomers, tempering). At the boundary of the null, `E` of FAIL and of PASS have expectation at most 1 after every window.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use serin_sketches::{CappedHist, ClassCounts, Events, GAMMA, LinHist, LogHist, Pair, Pairs, Rate, Summary};
use serin_statistics::{Against, Direction, Hypothesis, HypothesisSpec, Margin, Measure, Stratum};

const SLACK: f64 = 1.0 + 1e-9;

fn spec(measure: Measure, against: Against) -> HypothesisSpec {
    HypothesisSpec { measure, direction: Direction::LowerIsBetter, against, horizon: 4, interval_alpha: 0.05 }
}

/// All ways to put `n` observations on the points of `shares`, with their probabilities.
fn multinomial(n: u64, shares: &[f64]) -> Vec<(Vec<u64>, f64)> {
    let Some((&share, rest)) = shares.split_first() else {
        return if n == 0 { vec![(Vec::new(), 1.0)] } else { Vec::new() };
    };
    let mut all = Vec::new();
    let mut weight = 1.0;
    for count in 0..=n {
        for (mut tail, mass) in multinomial(n - count, rest) {
            tail.insert(0, count);
            all.push((tail, mass * weight));
        }
        weight *= share * (n - count) as f64 / (count + 1) as f64;
    }
    all
}

/// The summaries of one arm with their probabilities.
type Arm = Vec<(Summary, f64)>;

fn arm(n: u64, shares: &[f64], summary: impl Fn(&[u64]) -> Summary) -> Arm {
    multinomial(n, shares).into_iter().map(|(counts, mass)| (summary(&counts), mass)).collect()
}

/// Expectations of `E` of FAIL and of PASS, and the mean distances of both from 1, after every window.
fn expectations(start: &Hypothesis, canary: &Arm, control: &Arm, windows: i64) -> Vec<[f64; 4]> {
    let mut sums = vec![[0.0; 4]; usize::try_from(windows).unwrap()];
    let mut paths = vec![(start.clone(), 1.0)];
    for (end, sum) in (0..).zip(&mut sums) {
        let mut next = Vec::new();
        for (hypothesis, mass) in &paths {
            for (canary, p_c) in canary {
                for (control, p_s) in control {
                    let mut hypothesis = hypothesis.clone();
                    hypothesis.observe(end, &[Stratum { canary, control }]).unwrap();
                    let mass = mass * p_c * p_s;
                    let (fail, pass) = (hypothesis.ln_e_fail().exp(), hypothesis.ln_e_pass().exp());
                    for (sum, value) in sum.iter_mut().zip([fail, pass, (fail - 1.0).abs(), (pass - 1.0).abs()]) {
                        *sum += mass * value;
                    }
                    next.push((hypothesis, mass));
                }
            }
        }
        paths = next;
    }
    sums
}

/// Checks FAIL and PASS at the boundary, with and without tempering.
fn check(spec: HypothesisSpec, warm_up: &Summary, canary: &Arm, control: &Arm, windows: i64) {
    for phi in [1.0, 1.7] {
        let mut hypothesis = Hypothesis::new(spec).unwrap();
        hypothesis.observe_warmup(warm_up).unwrap();
        hypothesis.temper(phi);
        let sums = expectations(&hypothesis, canary, control, windows);
        assert!(sums.iter().all(|&[fail, pass, ..]| fail <= SLACK && pass <= SLACK), "{spec:?}: {sums:?}");
        // A process that never moves is trivially valid, so both must have gained and lost evidence.
        assert!(sums.last().unwrap()[2..].iter().all(|&moved| moved > 0.01), "{spec:?}: {sums:?}");
    }
}

fn rate(counts: &[u64]) -> Summary {
    Summary::Rate(Rate::new(counts[0] + counts[1], counts[0]).unwrap())
}

#[test]
fn rates() {
    let warm_up = rate(&[10, 30]);
    let (a, b) = (0.35, 0.25);
    let against = Against::Control(Margin::absolute(0.1));
    let arms = (arm(3, &[a, 1.0 - a], rate), arm(4, &[b, 1.0 - b], rate));
    check(spec(Measure::Rate, against), &warm_up, &arms.0, &arms.1, 3);
    let nothing = arm(0, &[1.0, 0.0], rate);
    check(spec(Measure::Rate, Against::limit(a)), &warm_up, &arms.0, &nothing, 4);
}

#[test]
fn means() {
    // A grid of five points. Values on the grid are not dithered.
    let points = [0.0, 0.25, 0.5, 0.75, 1.0];
    let hist = |counts: &[u64]| {
        let mut hist = LinHist::new();
        for (&count, point) in counts.iter().zip(points) {
            for _ in 0..count {
                hist.insert(point, 0).unwrap();
            }
        }
        Summary::Lin(hist)
    };
    let shares_c = [0.1, 0.2, 0.3, 0.2, 0.2];
    let shares_s = [0.2, 0.2, 0.3, 0.2, 0.1];
    let mean = |shares: [f64; 5]| -> f64 { shares.iter().zip(points).map(|(share, x)| share * x).sum() };
    let measure = Measure::Mean { min: 0.0, max: 1.0 };
    let warm_up = hist(&[8, 8, 12, 8, 4]);
    let arms = (arm(2, &shares_c, hist), arm(2, &shares_s, hist));
    let margin = Margin::absolute(mean(shares_c) - mean(shares_s));
    check(spec(measure, Against::Control(margin)), &warm_up, &arms.0, &arms.1, 2);
    let nothing = arm(0, &[1.0], hist);
    check(spec(measure, Against::limit(mean(shares_c))), &warm_up, &arms.0, &nothing, 4);
}

/// A log histogram with `counts[i]` values in the middle of bin `keys[i]`.
fn log_hist(counts: &[u64], keys: &[i32]) -> Summary {
    let mut hist = LogHist::new();
    for (&count, &key) in counts.iter().zip(keys) {
        for _ in 0..count {
            hist.insert(GAMMA.powf(f64::from(key) - 0.5)).unwrap();
        }
    }
    Summary::Log(hist)
}

#[test]
fn quantiles_and_distributions() {
    // All of the canary's values are nine bins higher, which is exactly the margin.
    let (keys, shifted, shares) = ([10, 15, 40], [19, 24, 49], [0.5, 0.2, 0.3]);
    let control = |counts: &[u64]| log_hist(counts, &keys);
    let arms = (arm(2, &shares, |counts| log_hist(counts, &shifted)), arm(3, &shares, control));
    let against = Against::Control(Margin::relative(GAMMA.powi(9) - 1.0));
    check(spec(Measure::Quantile { level: 0.5 }, against), &control(&[21, 8, 11]), &arms.0, &arms.1, 2);
    // Distribution functions that differ by 0.1 at the first key.
    let moved = arm(2, &[0.4, 0.3, 0.3], control);
    let against = Against::Control(Margin::absolute(0.1));
    check(spec(Measure::Distribution, against), &control(&[21, 8, 11]), &moved, &arms.1, 2);
}

#[test]
fn classes_and_newcomers() {
    let names = ["a", "b", "new"];
    let classes = |counts: &[u64]| {
        let mut classes = ClassCounts::default();
        for (&count, name) in counts.iter().zip(names) {
            for _ in 0..count {
                classes.insert(name).unwrap();
            }
        }
        Summary::Classes(classes)
    };
    // "new" is equally frequent in both arms but was never seen before. If only the canary shows it first, it is tested separately.
    let arms = (arm(2, &[0.5, 0.3, 0.2], classes), arm(1, &[0.4, 0.4, 0.2], classes));
    let against = Against::Control(Margin::absolute(0.1));
    check(spec(Measure::Classes, against), &classes(&[20, 20]), &arms.0, &arms.1, 3);
}

#[test]
fn pairs() {
    let binary = |counts: &[u64]| {
        let mut pairs = Pairs::new();
        for (&count, (canary, control)) in counts.iter().zip([(true, false), (false, true), (true, true)]) {
            for _ in 0..count {
                pairs.insert(Pair::Binary { canary, control }).unwrap();
            }
        }
        Summary::Pairs(pairs)
    };
    let shares = [0.3, 0.2, 0.5];
    let (canary, nothing) = (arm(3, &shares, binary), arm(0, &[1.0], binary));
    check(spec(Measure::Disagreement, Against::limit(0.5)), &binary(&[5, 5, 30]), &canary, &nothing, 3);
    let difference = Measure::PairedDifference { width: 1.0 };
    let against = Against::Control(Margin::absolute(0.1));
    check(spec(difference, against), &binary(&[5, 5, 30]), &canary, &nothing, 3);
}

#[test]
fn events_per_exposure() {
    // Poisson counts, cut off far out in the tail. The missing outcomes could only add evidence, which is bounded by their probability.
    let poisson = |mean: f64, exposure: u64| -> Arm {
        let mut mass = (-mean).exp();
        let mut all = Vec::new();
        for k in 0..14_u32 {
            all.push((Summary::Events(Events::new(u64::from(k), exposure).unwrap()), mass));
            mass *= mean / f64::from(k + 1);
        }
        all
    };
    let warm_up = Summary::Events(Events::new(20, 40).unwrap());
    let against = Against::Control(Margin::relative(0.2));
    check(spec(Measure::Count, against), &warm_up, &poisson(0.6, 1), &poisson(0.5, 1), 2);
    check(spec(Measure::Count, Against::limit(0.6)), &warm_up, &poisson(0.6, 1), &poisson(0.0, 1)[..1].to_vec(), 2);
}

#[test]
fn event_counts_of_any_distribution() {
    // Bursts of three. The smallest cap is two; control's past makes it three.
    let numbers = |counts: &[u64]| {
        let mut hist = CappedHist::new(1e6).unwrap();
        for (&count, number) in counts.iter().zip([0.0, 1.0, 3.0]) {
            (0..count).for_each(|_| hist.insert(number, 0).unwrap());
        }
        Summary::Capped(hist)
    };
    let shares = [0.6, 0.1, 0.3];
    let warm_up = numbers(&[24, 4, 12]);
    for direction in [Direction::LowerIsBetter, Direction::HigherIsBetter] {
        let spec = |against| HypothesisSpec { direction, ..spec(Measure::Counts { most: 1e6 }, against) };
        let (canary, control) = (arm(3, &shares, numbers), arm(4, &shares, numbers));
        check(spec(Against::Control(Margin::default())), &warm_up, &canary, &control, 2);
        // The mean is the limit, and a cap of three does not change it. Counts are accurate to the width of a bin here,
        // because nothing is dithered.
        let Summary::Capped(three) = numbers(&[0, 0, 1]) else { panic!("numbers are capped") };
        let three = three.iter().map(|(x, _)| x * three.cap()).sum::<f64>();
        let nothing = arm(0, &shares, numbers);
        check(spec(Against::limit(0.1 + 0.3 * three)), &warm_up, &canary, &nothing, 3);
    }
}

#[test]
fn margins_that_reach_beyond_the_range() {
    // The past shows control closer to the end than the margin is wide. In truth the margin ends at the end and the canary
    // is there, which is the null's only point with this control.
    let check = |spec: HypothesisSpec, warm_up: &Summary, canary: &Arm, control: &Arm| {
        let mut hypothesis = Hypothesis::new(spec).unwrap();
        hypothesis.observe_warmup(warm_up).unwrap();
        let sums = expectations(&hypothesis, canary, control, 3);
        assert!(sums.iter().all(|&[fail, pass, ..]| fail <= SLACK && pass <= SLACK), "{spec:?}: {sums:?}");
        assert!(sums.last().unwrap()[3] > 0.01, "{spec:?}: {sums:?}");
    };
    let hist = |counts: &[u64]| {
        let mut hist = LinHist::new();
        for (&count, point) in counts.iter().zip([1.0, 0.5, 0.0]) {
            (0..count).for_each(|_| hist.insert(point, 0).unwrap());
        }
        Summary::Lin(hist)
    };
    let log = |counts: &[u64]| {
        let mut hist = LogHist::new();
        for (&count, value) in counts.iter().zip([5.0, 1.0]) {
            (0..count).for_each(|_| hist.insert(value).unwrap());
        }
        Summary::Log(hist)
    };
    let higher = |measure, d| HypothesisSpec {
        direction: Direction::HigherIsBetter,
        ..spec(measure, Against::Control(Margin::absolute(d)))
    };
    let mean = Measure::Mean { min: 0.0, max: 1.0 };
    let (all, none) = ([1.0, 0.0], [0.0, 1.0]);
    check(higher(Measure::Rate, 0.3), &rate(&[4, 36]), &arm(3, &none, rate), &arm(4, &[0.3, 0.7], rate));
    check(
        spec(Measure::Rate, Against::Control(Margin::absolute(0.3))),
        &rate(&[36, 4]),
        &arm(3, &all, rate),
        &arm(4, &[0.7, 0.3], rate),
    );
    check(
        spec(Measure::Rate, Against::Control(Margin::relative(1.0))),
        &rate(&[36, 4]),
        &arm(3, &all, rate),
        &arm(4, &[0.5, 0.5], rate),
    );
    check(higher(mean, 0.3), &hist(&[2, 4, 34]), &arm(3, &[0.0, 0.0, 1.0], hist), &arm(4, &[0.2, 0.2, 0.6], hist));
    check(
        spec(mean, Against::Control(Margin::absolute(0.3))),
        &hist(&[34, 4, 2]),
        &arm(3, &[1.0, 0.0, 0.0], hist),
        &arm(4, &[0.6, 0.2, 0.2], hist),
    );
    // No quantile is below 0, so PASS is always true. Only a FAIL would be wrong.
    let quantile = higher(Measure::Quantile { level: 0.5 }, 9.0);
    let mut hypothesis = Hypothesis::new(quantile).unwrap();
    hypothesis.observe_warmup(&log(&[20, 20])).unwrap();
    let sums = expectations(&hypothesis, &arm(3, &[0.5, 0.5], log), &arm(4, &[0.5, 0.5], log), 2);
    assert!(sums.iter().all(|&[fail, pass, ..]| fail <= SLACK && pass > 1.0), "{sums:?}");
}
