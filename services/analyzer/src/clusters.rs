//! Design effects: where a key assigns the arm, one user brings many answers, which are worth less than as many independent ones.
//!
//! Sums per bucket of units come with the windows. The sums of the windows so far temper the next one. Each step starts from
//! scratch, because its users may differ; its first window is tempered by what stable's users showed in warm-up.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serin_kinds::Tested as _;
use serin_schemas::records::Arm;
use serin_sketches::{Buckets, Scatter, Summary};
use serin_spec::MetricKind;
use serin_statistics::cluster::{ClusterRatio, tempering};

/// Bucket sums of one arm in the step, and the variance of its single answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sums {
    buckets: Buckets,
    scatter: Scatter,
}

impl Sums {
    /// How many answers are worth one independent answer; `None` while that is unknown.
    fn design_effect(&self, kind: &MetricKind) -> Option<f64> {
        let filled: Vec<(f64, f64)> = self.buckets.iter().filter(|(_, n)| *n > 0).map(|(x, n)| (x, n as f64)).collect();
        let ratio = ClusterRatio::new(filled)?;
        kind.design_effect(&ratio, self.scatter.variance())
    }
}

/// The sums of both arms for one metric. Each metric has its own row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    warm_up: Sums,
    canary: Sums,
    control: Sums,
}

impl Cluster {
    /// Adds one stratum of a window: an arm's bucket sums and its summary of all traffic.
    pub(crate) fn add(&mut self, arm: Arm, buckets: &Buckets, summary: Option<&Summary>) {
        let sums = match arm {
            Arm::Stable => &mut self.warm_up,
            Arm::Control => &mut self.control,
            Arm::Canary => &mut self.canary,
            Arm::Shadow => return,
        };
        // Sums that would overflow are left out: they are precise enough by then.
        let _ = sums.buckets.merge(buckets);
        if let Some(summary) = summary {
            sums.scatter.merge(Scatter::of(summary));
        }
    }

    /// Bucket sums of canary and control in the step.
    pub(crate) fn arms(&self) -> (&Buckets, &Buckets) {
        (&self.canary.buckets, &self.control.buckets)
    }

    /// Whether more than one unit has been seen, in an arm or in warm-up.
    pub(crate) fn has_units(&self) -> bool {
        let several = |sums: &Sums| sums.buckets.iter().filter(|(_, n)| *n > 0).nth(1).is_some();
        [&self.canary, &self.control, &self.warm_up].into_iter().any(several)
    }

    /// The larger design effect of both arms, at least 1; that of warm-up while neither has one.
    pub(crate) fn design_effect(&self, kind: &MetricKind) -> f64 {
        let (canary, control) = (self.canary.design_effect(kind), self.control.design_effect(kind));
        let before = if canary.or(control).is_none() { self.warm_up.design_effect(kind) } else { None };
        tempering(canary, control.or(before))
    }
}

/// The clusters of a rollout, by metric.
#[derive(Debug, Default)]
pub(crate) struct Clusters {
    metrics: BTreeMap<usize, Cluster>,
    /// Metrics whose row is out of date.
    pub(crate) dirty: BTreeSet<usize>,
}

impl Clusters {
    /// Takes back the contents of a row.
    pub(crate) fn restore(&mut self, metric: usize, cluster: Cluster) {
        self.metrics.insert(metric, cluster);
    }

    /// A metric's cluster.
    pub(crate) fn get(&self, metric: usize) -> Option<&Cluster> {
        self.metrics.get(&metric)
    }

    /// A metric's cluster, to be changed.
    pub(crate) fn get_mut(&mut self, metric: usize) -> &mut Cluster {
        self.dirty.insert(metric);
        self.metrics.entry(metric).or_default()
    }

    /// Forgets the units, because a new step starts.
    pub(crate) fn forget(&mut self, metric: usize) {
        if let Some(cluster) = self.metrics.get_mut(&metric) {
            (cluster.canary, cluster.control) = (Sums::default(), Sums::default());
            self.dirty.insert(metric);
        }
    }
}

#[cfg(test)]
mod tests {
    use serin_sketches::{CappedHist, Events, LogHist, Rate, hash::hash64, log_position};

    use super::*;
    use serin_kinds::MOST_EVENTS;

    fn unit(user: u64) -> u64 {
        hash64(b"unit", &user.to_le_bytes())
    }

    #[test]
    fn users_that_always_answer_alike_count_once() {
        // 2000 users with 8 answers each; every fourth user is always wrong.
        let (mut cluster, mut buckets) = (Cluster::default(), Buckets::new());
        for user in 0..2000_u64 {
            buckets.insert(unit(user), if user % 4 == 0 { 8.0 } else { 0.0 }, 8).unwrap_or_default();
        }
        let summary = Summary::Rate(Rate::new(16_000, 4000).unwrap_or_default());
        cluster.add(Arm::Canary, &buckets, Some(&summary));
        let effect = cluster.design_effect(&MetricKind::Rate);
        assert!((6.0..10.0).contains(&effect), "{effect}");
        assert!((Cluster::default().design_effect(&MetricKind::Rate) - 1.0).abs() < 1e-12);
    }

    /// One arm has few users, the other has independent answers: the arm with less information decides.
    #[test]
    fn the_arm_with_fewer_users_decides() {
        let sums = |users: u64, each: u64| {
            let mut buckets = Buckets::new();
            for user in 0..users {
                buckets.insert(unit(user), if user % 4 == 0 { each as f64 } else { 0.0 }, each).unwrap_or_default();
            }
            (buckets, Summary::Rate(Rate::new(users * each, users / 4 * each).unwrap_or_default()))
        };
        for (few, independent) in [(Arm::Canary, Arm::Control), (Arm::Control, Arm::Canary)] {
            let mut cluster = Cluster::default();
            for (arm, (buckets, summary)) in [(few, sums(400, 10)), (independent, sums(4000, 1))] {
                cluster.add(arm, &buckets, Some(&summary));
            }
            let effect = cluster.design_effect(&MetricKind::Rate);
            assert!((7.0..13.0).contains(&effect), "{few:?}: {effect}");
        }
    }

    #[test]
    fn latencies_and_counts_have_one_too() {
        let (mut cluster, mut buckets, mut hist) = (Cluster::default(), Buckets::new(), LogHist::new());
        for user in 0..2000_u64 {
            let latency = if user % 2 == 0 { 20.0 } else { 200.0 };
            for _ in 0..5 {
                buckets.insert(unit(user), log_position(latency), 1).unwrap_or_default();
                hist.insert(latency).unwrap_or_default();
            }
        }
        cluster.add(Arm::Stable, &buckets, Some(&Summary::Log(hist)));
        let effect = cluster.design_effect(&MetricKind::Quantile { level: 0.99 });
        assert!((3.5..6.5).contains(&effect), "{effect}");

        let (mut counts, mut buckets) = (Cluster::default(), Buckets::new());
        for user in 0..2000_u64 {
            buckets.insert(unit(user), if user % 10 == 0 { 10.0 } else { 0.0 }, 1).unwrap_or_default();
        }
        let summary = Summary::Events(Events::new(2000, 2000).unwrap_or_default());
        counts.add(Arm::Control, &buckets, Some(&summary));
        let effect = counts.design_effect(&MetricKind::Count);
        assert!((6.0..12.0).contains(&effect), "events come in tens: {effect}");
        // With each answer's number, the answers of a user are compared, not the events of an answer.
        let mut hist = CappedHist::new(MOST_EVENTS).unwrap();
        for user in 0..2000_u64 {
            hist.insert(if user % 10 == 0 { 10.0 } else { 0.0 }, user).unwrap_or_default();
        }
        let mut by_value = Cluster::default();
        by_value.add(Arm::Control, &buckets, Some(&Summary::Capped(hist)));
        let effect = by_value.design_effect(&MetricKind::Count);
        assert!((0.5..2.0).contains(&effect), "one answer of each user: {effect}");
    }
}
