//! The root search of R's `zeroin`, with the constants that Kayenta uses.
//!
//! The function is a step function, so *where* the search stops affects the fifth decimal. Each step therefore follows Brent
//! (1973) as implemented in R, with an absolute tolerance of 1e-4 and at most 1001 steps.

const MAX_STEPS: usize = 1001;
const TOLERANCE: f64 = 1e-4;

/// Whether `value` is within one unit in the last place of zero.
fn is_zero(value: f64) -> bool {
    value.abs() <= f64::from_bits(1)
}

/// A point of the bracket and the value of the function there.
#[derive(Clone, Copy)]
struct Point {
    at: f64,
    value: f64,
}

/// A step towards the root: inverse quadratic through three points, or the secant through two. `None` if the step would
/// leave the bracket or shrink too slowly, in which case the bracket must be halved.
#[expect(clippy::float_cmp, reason = "the same point twice, not nearly the same")]
fn interpolate(oldest: Point, best: Point, other: Point, previous_step: f64, tolerance: f64) -> Option<f64> {
    let width = other.at - best.at;
    let (p, q) = if oldest.at == other.at {
        let t = best.value / oldest.value;
        (width * t, 1.0 - t)
    } else {
        let q = oldest.value / other.value;
        let (t1, t2) = (best.value / other.value, best.value / oldest.value);
        (t2 * (width * q * (q - t1) - (best.at - oldest.at) * (t1 - 1.0)), (q - 1.0) * (t1 - 1.0) * (t2 - 1.0))
    };
    let (p, q) = if p > 0.0 { (p, -q) } else { (-p, q) };
    let useful = p < 0.75 * width * q - (tolerance * q).abs() / 2.0 && p < (previous_step * q / 2.0).abs();
    useful.then(|| p / q)
}

/// A root of `f` in the bracket `low .. high`. The values of `f` at the ends are given.
pub(super) fn root(low: (f64, f64), high: (f64, f64), f: impl Fn(f64) -> f64) -> f64 {
    let mut oldest = Point { at: low.0, value: low.1 };
    let mut best = Point { at: high.0, value: high.1 };
    let mut other = oldest;
    if is_zero(oldest.value) {
        return oldest.at;
    }
    if is_zero(best.value) {
        return best.at;
    }
    for _ in 0..MAX_STEPS {
        let previous_step = best.at - oldest.at;
        if other.value.abs() < best.value.abs() {
            (oldest, best, other) = (best, other, best);
        }
        let tolerance = 2.0 * f64::EPSILON * best.at.abs() + TOLERANCE / 2.0;
        let half = (other.at - best.at) / 2.0;
        if half.abs() <= tolerance || is_zero(best.value) {
            return best.at;
        }
        let mut step = half;
        if previous_step.abs() >= tolerance && oldest.value.abs() > best.value.abs() {
            step = interpolate(oldest, best, other, previous_step, tolerance).unwrap_or(half);
        }
        if step.abs() < tolerance {
            step = if step > 0.0 { tolerance } else { -tolerance };
        }
        oldest = best;
        best.at += step;
        best.value = f(best.at);
        if (best.value > 0.0 && other.value > 0.0) || (best.value < 0.0 && other.value < 0.0) {
            other = oldest;
        }
    }
    best.at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_roots_to_its_tolerance() {
        let search = |f: fn(f64) -> f64, low: f64, high: f64| root((low, f(low)), (high, f(high)), f);
        assert!((search(|x| x * x * x - 2.0, 0.0, 2.0) - 1.259_921_049_894_873).abs() < 1e-4);
        assert!((search(|x| libm::cos(x) - x, 0.0, 1.0) - 0.739_085_133_215_160_6).abs() < 1e-4);
        assert!((search(|x| if x < 0.3 { -1.0 } else { 1.0 }, 0.0, 1.0) - 0.3).abs() < 1e-4);
        assert!((search(|x| x, 0.0, 1.0)).abs() < 1e-15 && (search(|x| x - 1.0, 0.0, 1.0) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn invalid_input_terminates() {
        assert!(root((0.0, f64::NAN), (1.0, f64::NAN), |_| f64::NAN).is_finite());
        let _ = root((0.0, 1.0), (1.0, 1.0), |_| 1.0);
    }
}
