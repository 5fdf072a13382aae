//! A fast computation of the bin of a positive value, `ceil(ln x / ln GAMMA)`.
//!
//! A table of 128 logarithms per octave and a short series give `ln x` to 1e-12. That decides the bin of all values except
//! those within 1e-7 bins of an edge, for which the full logarithm decides. So the result always follows the definition.

/// Ratio of neighboring edges, (1 + 0.01) / (1 - 0.01).
pub const GAMMA: f64 = 1.01 / 0.99;
/// `ln(1.01 / 0.99)`, correctly rounded.
pub const LN_GAMMA: f64 = 0.020_000_666_706_669_525;

const SLOTS: usize = 128;
const MANTISSA: u64 = (1 << 52) - 1;

/// For each value of the mantissa's upper seven bits: the inverse of the middle of the slot, and the logarithm of the middle.
const TABLE: [(f64, f64); SLOTS] = table();

const fn table() -> [(f64, f64); SLOTS] {
    let mut table = [(0.0, 0.0); SLOTS];
    let mut slot = 0;
    while slot < SLOTS {
        let middle = 1.0 + (slot as f64 + 0.5) / SLOTS as f64;
        table[slot] = (1.0 / middle, ln_of_mantissa(middle));
        slot += 1;
    }
    table
}

/// `ln m = 2 atanh((m-1)/(m+1))` by its series; for `m` in [1, 2) the argument is below 1/3.
const fn ln_of_mantissa(m: f64) -> f64 {
    let z = (m - 1.0) / (m + 1.0);
    let (mut term, mut sum, mut odd) = (z, 0.0, 1.0);
    while odd < 40.0 {
        sum += term / odd;
        term *= z * z;
        odd += 2.0;
    }
    2.0 * sum
}

/// `ceil(ln x / ln GAMMA)` by the definition; `x` is positive and finite.
#[cold]
fn exact(x: f64) -> i32 {
    (libm::log(x) / LN_GAMMA).ceil() as i32
}

/// Adding this to a number below 2^51 leaves the number, rounded to an integer, in the lowest bits. This conversion avoids
/// the checks of `as`.
const ROUND: f64 = 1.5 * (1_u64 << 52) as f64;

/// The bin of a positive finite value.
#[inline]
pub(crate) fn key_of_positive(x: f64) -> i32 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    if exponent == -1023 {
        return exact(x);
    }
    let mantissa = f64::from_bits((bits & MANTISSA) | 1.0_f64.to_bits());
    let (inverse, ln_middle) = TABLE[(bits >> 45) as usize % SLOTS];
    // |r| <= 2^-8: the series is cut at r^5/5 < 2e-13.
    let r = mantissa * inverse - 1.0;
    let ln_1p = r - r * r * ((0.5 - r * (1.0 / 3.0)) + r * r * 0.25);
    let scaled = (f64::from(exponent) * std::f64::consts::LN_2 + ln_middle + ln_1p) * (1.0 / LN_GAMMA);
    let shifted = scaled + ROUND;
    let rest = scaled - (shifted - ROUND);
    if rest.abs() < 1e-7 {
        return exact(x);
    }
    shifted.to_bits() as i32 + i32::from(rest > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges_and_ends_follow_the_definition() {
        for key in -2000..2000 {
            let edge = libm::exp(f64::from(key) * LN_GAMMA);
            for x in [edge, edge.next_down(), edge.next_up(), edge * (1.0 + 1e-9), edge * (1.0 - 1e-9)] {
                assert_eq!(key_of_positive(x), exact(x), "{x}");
            }
        }
        for x in [f64::MIN_POSITIVE, 5e-324, f64::MAX, 1.0, 2.0, 0.5, 1.0_f64.next_down()] {
            assert_eq!(key_of_positive(x), exact(x), "{x}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

        #[test]
        fn every_value_follows_the_definition(bits in 1..f64::INFINITY.to_bits()) {
            let x = f64::from_bits(bits);
            prop_assert_eq!(key_of_positive(x), exact(x));
        }
    }
}
