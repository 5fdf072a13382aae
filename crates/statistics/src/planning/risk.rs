//! Converts numbers of answers to time, requests at risk and bad outcomes ("blast radius").

/// The canary's share of the traffic in one step of the ramp, and how fast the rollout reacts to a proven regression.
///
/// Assumptions: traffic is steady over the step, and every request gives one answer that enters the metric. Otherwise scale
/// `per_second` by the share that does, such as the share with a label or in the segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Canary {
    /// Requests per second, all arms together.
    pub per_second: f64,
    /// The canary's share of the requests, in (0, 1].
    pub weight: f64,
    /// Length of a window in seconds. Evidence is only evaluated when a window closes.
    pub window_seconds: f64,
    /// Seconds from the close of a window to the last request that the canary answers: grace, decision, drain.
    pub react_seconds: f64,
}

/// What a regression costs until it is rolled back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AtRisk {
    /// Seconds from the onset of the regression to the last request that the canary answers.
    pub seconds: f64,
    /// Requests that the canary answers in that time.
    pub requests: f64,
    /// Additional bad outcomes compared with control on those requests, in the unit of the metric per request.
    pub harm: f64,
}

impl Canary {
    /// Canary answers per second. `None` unless every figure is valid.
    pub fn answers_per_second(&self) -> Option<f64> {
        let sensible = self.per_second > 0.0
            && self.per_second.is_finite()
            && self.weight > 0.0
            && self.weight <= 1.0
            && self.window_seconds > 0.0
            && self.window_seconds.is_finite()
            && self.react_seconds >= 0.0
            && self.react_seconds.is_finite();
        sensible.then_some(self.per_second * self.weight)
    }

    /// Seconds until `n_c` canary answers are in closed windows: whole windows, at least one. `None` for invalid input.
    pub fn seconds_for(&self, n_c: f64) -> Option<f64> {
        let per_window = self.answers_per_second()? * self.window_seconds;
        let seconds = (n_c / per_window).ceil().max(1.0) * self.window_seconds;
        (n_c >= 0.0 && seconds.is_finite()).then_some(seconds)
    }

    /// Canary answers in the whole windows of a step of `seconds`. `None` for invalid input.
    pub fn answers_in(&self, seconds: f64) -> Option<f64> {
        let windows = (seconds / self.window_seconds).floor();
        let n_c = self.answers_per_second()? * self.window_seconds * windows;
        (seconds >= 0.0 && n_c.is_finite()).then_some(n_c)
    }

    /// The blast radius of a regression that takes `n_c` canary answers to prove and does `harm` more per request (for a
    /// rate: `p_c - p_s`, the extra bad answers per request):
    /// `requests = n_c (in whole windows) + per_second * weight * react_seconds`, `harm = requests * harm`.
    ///
    /// `n_c` hardly depends on the weight, so the harm hardly does either, until the requests of the reaction time dominate.
    /// Source: own derivation, section 7 of the statistical specification.
    pub fn at_risk(&self, n_c: f64, harm: f64) -> Option<AtRisk> {
        let seconds = self.seconds_for(n_c)? + self.react_seconds;
        let requests = self.answers_per_second()? * seconds;
        (harm.is_finite() && requests.is_finite()).then_some(AtRisk { seconds, requests, harm: requests * harm })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: Canary =
        Canary { per_second: 10_000.0 / 60.0, weight: 0.1, window_seconds: 10.0, react_seconds: 5.0 };

    #[test]
    fn the_harm_of_a_regression_hardly_depends_on_the_weight() {
        // 1 % -> 2 %: 3 900 to 4 700 canary requests, 39 to 47 extra errors at any weight.
        for weight in [0.01, 0.05, 0.1] {
            let risk = Canary { weight, ..CANARY }.at_risk(4_300.0, 0.01).unwrap();
            assert!((42.0..48.0).contains(&risk.harm), "{weight}: {risk:?}");
        }
        let all_at_once = Canary { weight: 1.0, ..CANARY }.at_risk(4_300.0, 0.01).unwrap();
        assert!(all_at_once.harm > 55.0, "the reaction time counts: {all_at_once:?}");
    }

    #[test]
    fn time_comes_in_whole_windows() {
        assert_eq!(CANARY.seconds_for(1.0), Some(10.0));
        assert_eq!(CANARY.seconds_for(167.0), Some(20.0));
        assert!((CANARY.answers_in(25.0).unwrap() - 1_000.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn invalid_input_has_no_time() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let wrong = [
                Canary { per_second: bad, ..CANARY },
                Canary { weight: bad, ..CANARY },
                Canary { window_seconds: bad, ..CANARY },
            ];
            for canary in wrong {
                assert_eq!(canary.seconds_for(10.0), None);
                assert_eq!(canary.at_risk(10.0, 0.1), None);
            }
        }
        assert_eq!(CANARY.seconds_for(f64::NAN), None);
        assert_eq!(CANARY.seconds_for(f64::INFINITY), None);
        assert_eq!(CANARY.at_risk(10.0, f64::NAN), None);
        assert_eq!(CANARY.answers_in(f64::NAN), None);
    }
}
