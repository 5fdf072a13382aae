//! Lists of suspects with a bound on the share of wrong entries: closed e-BH.

use crate::numeric::{exp, ln};

/// Relative slack for rounding when an e-value is exactly on a threshold.
const SLACK: f64 = 1e-12;

/// Closed e-BH on current e-values: the largest list `R` such that for every set `S` of hypotheses
/// `mean of E over S >= |S and R| / (alpha |R|)`. The false discovery rate is at most `alpha` at any stopping time, under any dependence:
/// use the true nulls as `S`, whose mean is an e-value. The list contains everything that [`crate::e_bh`] rejects, and often more. It is
/// empty without hypotheses or for an `alpha` that is not a valid error rate. NaN e-values count as 0.
///
/// For a list of size `r` only the `r` largest e-values are considered. Among the sets with `m` of them only the worst
/// matters: the `m` smallest, with all others that are below `m / (alpha r)`. So it takes `K^2` steps. Source: Xu, Fischer,
/// Ramdas 2025 (arXiv 2504.11759).
pub fn closed_e_bh(ln_e: &[f64], alpha: f64) -> Vec<bool> {
    let mut named = vec![false; ln_e.len()];
    if !(alpha > 0.0 && alpha < 1.0) {
        return named;
    }
    // E-values above K / alpha do not help any list. The cap keeps sums finite.
    let most = ln(ln_e.len() as f64 / alpha) + 1.0;
    let e = |i: usize| if ln_e[i].is_nan() { 0.0 } else { exp(ln_e[i].min(most)) };
    let mut order: Vec<usize> = (0..ln_e.len()).collect();
    order.sort_by(|&i, &j| e(i).total_cmp(&e(j)));
    let rising: Vec<f64> = order.iter().map(|&i| e(i)).collect();
    let size = (1..=rising.len()).rev().find(|&size| holds(&rising, size, alpha)).unwrap_or(0);
    for &i in &order[rising.len() - size..] {
        named[i] = true;
    }
    named
}

/// Whether the list of the `size` largest satisfies the bound for every set.
fn holds(rising: &[f64], size: usize, alpha: f64) -> bool {
    let (others, listed) = rising.split_at(rising.len() - size);
    let (mut inside, mut outside, mut below) = (0.0, 0.0, 0);
    listed.iter().zip(1..).all(|(e, members)| {
        let members = f64::from(members);
        let threshold = members / (alpha * size as f64);
        inside += e;
        while let Some(other) = others.get(below).filter(|other| **other < threshold) {
            outside += other;
            below += 1;
        }
        let needed = (members + below as f64) * threshold;
        inside + outside >= needed * (1.0 - SLACK)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e_bh;

    /// Computes the list from the definition, over all lists and all sets.
    fn largest_list(e: &[f64], alpha: f64) -> u32 {
        let sets = 1..1_u32 << e.len();
        let sum = |set: u32| e.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, e)| e).sum::<f64>();
        let keeps = |list: u32| {
            sets.clone().all(|set| {
                let hit = f64::from((set & list).count_ones()) / f64::from(list.count_ones());
                sum(set) / f64::from(set.count_ones()) >= hit / alpha * (1.0 - 1e-9)
            })
        };
        sets.clone().filter(|&list| keeps(list)).map(u32::count_ones).max().unwrap_or(0)
    }

    fn count(named: &[bool]) -> u32 {
        named.iter().map(|named| u32::from(*named)).sum()
    }

    proptest::proptest! {
        #[test]
        fn the_list_is_the_largest_that_keeps_the_bound(
            ln_e in proptest::collection::vec(-3.0..7.0_f64, 0..9), alpha in 0.01..0.5_f64,
        ) {
            let e: Vec<f64> = ln_e.iter().map(|ln_e| exp(*ln_e)).collect();
            let closed = closed_e_bh(&ln_e, alpha);
            proptest::prop_assert_eq!(count(&closed), largest_list(&e, alpha));
            // The list contains everything that e-BH rejects.
            for (closed, plain) in closed.iter().zip(e_bh(&ln_e, alpha)) {
                proptest::prop_assert!(*closed || !plain);
            }
        }
    }

    #[test]
    fn it_names_more_than_e_bh() {
        // 25 misses the threshold of e-BH, 30 = 3 / (2 x 0.05). Of the sets that share only 25 with the list, {25, 1} is the
        // worst: 13 >= 10. Of the sets that share both, all three is the worst: 42 >= 20.
        let ln_e = [ln(100.0), ln(21.0)];
        assert_eq!(e_bh(&ln_e, 0.05), [true, true]);
        let three = [ln(100.0), ln(25.0), ln(1.0)];
        assert_eq!(e_bh(&three, 0.05), [true, false, false]);
        assert_eq!(closed_e_bh(&three, 0.05), [true, true, false]);
    }

    #[test]
    fn invalid_input_and_extremes() {
        assert!(closed_e_bh(&[], 0.05).is_empty());
        assert_eq!(closed_e_bh(&[1e4, f64::NAN, -1e30, f64::INFINITY], 0.05), [true, false, false, true]);
        assert_eq!(closed_e_bh(&[9.0], 0.0), [false]);
        assert_eq!(closed_e_bh(&[9.0], f64::NAN), [false]);
        // Exactly on the threshold.
        assert_eq!(closed_e_bh(&[ln(20.0)], 0.05), [true]);
    }

    #[test]
    fn at_most_alpha_of_the_names_are_wrong() {
        // Nulls that mostly lose everything and rarely win much, with and without true suspects. Fixed seed.
        let mut state = 7_u64;
        let mut unit = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        };
        let (alpha, runs) = (0.1, 20_000);
        for suspects in [0, 3] {
            let mut wrong = 0.0;
            for _ in 0..runs {
                // A two-point e-value with mean 1: 50 with probability 1/50.
                let nulls = (0..5).map(|_| if unit() < 1.0 / 50.0 { ln(50.0) } else { -1e30 });
                let ln_e: Vec<f64> = nulls.chain(std::iter::repeat_n(ln(80.0), suspects)).collect();
                let named = closed_e_bh(&ln_e, alpha);
                wrong += f64::from(count(&named[..5])) / f64::from(count(&named).max(1));
            }
            let rate = wrong / f64::from(runs);
            assert!(rate <= alpha && rate > 0.02, "{suspects}: {rate}");
        }
    }
}
