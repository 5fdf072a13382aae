//! Named ramps: a schedule becomes the steps of a rollout.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bake, Require, Share, Step, units::Duration};

/// The most steps that a `linear` schedule may have.
pub const MAX_LINEAR_STEPS: i32 = 50;

/// A named ramp. It is used instead of `steps`. The last step of every schedule requires a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// 1, 5, 10, 25 and 50 % for at least 10, 15, 30, 30 and 60 minutes.
    #[default]
    Standard,
    /// The weights of `standard` for at least 20, 40, 60, 60 and 60 minutes. The last step requires a pass in every segment.
    Conservative,
    /// 1 and 25 % for at least 10 and 20 minutes.
    Aggressive,
    /// Weights with equal distances.
    Linear(Linear),
}

/// A ramp whose weights have equal distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Linear {
    /// Weight of the first step.
    pub from: Share,
    /// Weight of the last step.
    pub to: Share,
    /// Difference between the weights of two steps. The last difference may be smaller.
    pub by: Share,
    /// Minimum length of each step, in event time.
    pub every: Duration,
}

impl Schedule {
    /// The schedules that need no parameters.
    pub const NAMED: [Self; 3] = [Self::Standard, Self::Conservative, Self::Aggressive];

    /// The steps of the ramp. A `linear` schedule that is not valid has at most [`MAX_LINEAR_STEPS`] steps.
    pub fn steps(self) -> Vec<Step> {
        let ramp = |weights: &[(i32, i64)]| -> Vec<Step> {
            weights
                .iter()
                .map(|&(percent, minutes)| step(Share(100 * percent), Duration::from_secs(60 * minutes)))
                .collect()
        };
        let mut steps = match self {
            Self::Standard => ramp(&[(1, 10), (5, 15), (10, 30), (25, 30), (50, 60)]),
            Self::Conservative => ramp(&[(1, 20), (5, 40), (10, 60), (25, 60), (50, 60)]),
            Self::Aggressive => ramp(&[(1, 10), (25, 20)]),
            Self::Linear(linear) => linear.weights().map(|weight| step(weight, linear.every)).collect(),
        };
        if let Some(last) = steps.last_mut() {
            last.require = Some(if self == Self::Conservative { Require::PassInSegments } else { Require::Pass });
        }
        steps
    }
}

impl Linear {
    /// Number of steps, or `None` if the weights do not grow from `from` to `to`.
    pub fn count(&self) -> Option<i32> {
        let (way, by) = (self.to.0 - self.from.0, self.by.0);
        (way >= 0 && by > 0).then(|| 1 + way / by + i32::from(way % by > 0))
    }

    fn weights(self) -> impl Iterator<Item = Share> {
        let count = self.count().unwrap_or(1).min(MAX_LINEAR_STEPS);
        (0..count).map(move |place| Share((self.from.0 + place * self.by.0).min(self.to.0)))
    }
}

/// A step with a minimum length. `bake.max` has its default, or twice the minimum if that is longer.
fn step(weight: Share, min: Duration) -> Step {
    let mut bake = Bake { min, ..Bake::default() };
    bake.max.0.0 = bake.max.0.0.max(min.0.0.saturating_mul(2));
    Step { weight, mirror: None, bake, require: None, group_sequential: None, approve: None }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard => f.write_str("standard"),
            Self::Conservative => f.write_str("conservative"),
            Self::Aggressive => f.write_str("aggressive"),
            Self::Linear(Linear { from, to, by, every }) => {
                write!(f, "linear from {from} to {to} by {by} every {every}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(schedule: Schedule) -> String {
        let of = |step: Step| {
            let require = serde_json::to_value(step.require).unwrap();
            format!("{} {} {}", step.weight, step.bake.min, require.as_str().unwrap_or("-"))
        };
        schedule.steps().into_iter().map(of).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_schedule_becomes_the_steps_of_its_description() {
        assert_eq!(words(Schedule::Standard), "1% 10m -, 5% 15m -, 10% 30m -, 25% 30m -, 50% 1h pass");
        assert_eq!(words(Schedule::Conservative), "1% 20m -, 5% 40m -, 10% 1h -, 25% 1h -, 50% 1h pass_in_segments");
        assert_eq!(words(Schedule::Aggressive), "1% 10m -, 25% 20m pass");
    }

    #[test]
    fn a_linear_schedule_ends_at_its_last_weight() {
        let linear = |from, to, by| {
            words(Schedule::Linear(Linear {
                from: Share(from),
                to: Share(to),
                by: Share(by),
                every: Duration::from_secs(300),
            }))
        };
        assert_eq!(linear(1000, 3000, 1000), "10% 5m -, 20% 5m -, 30% 5m pass");
        assert_eq!(linear(500, 1200, 500), "5% 5m -, 10% 5m -, 12% 5m pass");
        assert_eq!(linear(500, 500, 500), "5% 5m pass");
        // Lint refuses these. They still have few steps.
        assert_eq!(linear(500, 1000, 0), "5% 5m pass");
        assert_eq!(linear(1000, 500, 100), "5% 5m pass");
        assert_eq!(linear(1, 10_000, 1).split(", ").count(), 50);
    }

    #[test]
    fn a_long_step_may_take_twice_its_minimum() {
        let daily = Linear { from: Share(100), to: Share(100), by: Share(100), every: Duration::parse("1d").unwrap() };
        let steps = Schedule::Linear(daily).steps();
        assert_eq!((steps[0].bake.min.to_string(), steps[0].bake.max.to_string()), ("1d".into(), "2d".into()));
    }

    #[test]
    fn schedules_are_read_and_printed() {
        let read = |text: &str| serde_json::from_str::<Schedule>(text).unwrap();
        assert_eq!(read("\"conservative\"").to_string(), "conservative");
        let linear = read(r#"{"linear": {"from": "5%", "to": "25%", "by": "10%", "every": "20m"}}"#);
        assert_eq!(linear.to_string(), "linear from 5% to 25% by 10% every 20m");
        assert!(serde_json::from_str::<Schedule>("\"fast\"").is_err());
    }
}
