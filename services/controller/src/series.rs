//! The verdicts on a rollout over time, thinned: what a chart of its metrics shows.
//!
//! Invariants: a series has at most [`MOST`] points however long the rollout runs, evenly spaced over its verdicts, and the newest
//! verdict is always among them. Points contain metrics over all traffic only; the newest verdict has the segments.

use std::sync::Arc;

use serde::Serialize;
use serin_schemas::{
    ids::{EventTime, Generation},
    records::{Arm, Decision, Estimate, MetricResult, MetricVerdict, NoDataReason, Role, Segment, Verdict},
};

/// Most points of a series.
const MOST: usize = 160;
/// Most metrics of a point.
const MOST_METRICS: usize = 64;

/// One verdict, without its segments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Point {
    /// Id of the verdict.
    pub(crate) id: String,
    /// End of the evidence, in event time.
    pub(crate) as_of: EventTime,
    /// When the verdict was written, by the wall clock of the log.
    pub(crate) recorded_at: EventTime,
    pub(crate) step: i32,
    pub(crate) generation: Generation,
    pub(crate) decision: Decision,
    pub(crate) sentence: String,
    pub(crate) score_low: f64,
    pub(crate) score_high: f64,
    pub(crate) arms: Vec<ArmPoint>,
    pub(crate) metrics: Vec<MetricPoint>,
}

/// Answers of one arm so far.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ArmPoint {
    pub(crate) arm: Arm,
    pub(crate) predictions: i64,
}

/// One metric over all traffic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct MetricPoint {
    pub(crate) metric: String,
    pub(crate) segment: Segment,
    pub(crate) role: Role,
    pub(crate) result: MetricResult,
    pub(crate) no_data: Option<NoDataReason>,
    pub(crate) canary: Estimate,
    pub(crate) control: Estimate,
    pub(crate) effect: Option<f64>,
    pub(crate) effect_low: Option<f64>,
    pub(crate) effect_high: Option<f64>,
    pub(crate) margin: Option<f64>,
    pub(crate) limit_pass: Option<f64>,
    pub(crate) limit_fail: Option<f64>,
    pub(crate) p_fail: f64,
    pub(crate) failed_at: Option<EventTime>,
}

impl MetricPoint {
    fn of(metric: &MetricVerdict) -> Self {
        Self {
            metric: metric.metric.clone(),
            segment: metric.segment.clone(),
            role: metric.role,
            result: metric.result,
            no_data: metric.no_data,
            canary: metric.canary.clone(),
            control: metric.control.clone(),
            effect: metric.effect,
            effect_low: metric.effect_low,
            effect_high: metric.effect_high,
            margin: metric.margin,
            limit_pass: metric.limit_pass,
            limit_fail: metric.limit_fail,
            p_fail: metric.p_fail,
            failed_at: metric.failed_at,
        }
    }
}

impl Point {
    /// The point of a verdict that was written at `logged_ms`.
    pub(crate) fn of(verdict: &Verdict, logged_ms: i64) -> Self {
        Self::with(verdict, logged_ms, |metric| metric.segment.is_all())
    }

    /// The point of a verdict, with those of its metrics that are `wanted`.
    pub(crate) fn with(verdict: &Verdict, logged_ms: i64, wanted: impl Fn(&MetricVerdict) -> bool) -> Self {
        let metrics = verdict.metrics.iter().filter(|metric| wanted(metric));
        Self {
            id: verdict.id.clone(),
            as_of: verdict.as_of,
            recorded_at: EventTime(logged_ms.saturating_mul(1000)),
            step: verdict.step,
            generation: verdict.generation,
            decision: verdict.decision,
            sentence: verdict.sentence.clone(),
            score_low: verdict.score_low,
            score_high: verdict.score_high,
            arms: verdict.arms.iter().map(|arm| ArmPoint { arm: arm.arm, predictions: arm.predictions }).collect(),
            metrics: metrics.take(MOST_METRICS).map(MetricPoint::of).collect(),
        }
    }

    /// When the verdict was written, by the wall clock of the log.
    pub(crate) fn recorded_at(&self) -> EventTime {
        self.recorded_at
    }

    /// Approximate size in memory, in bytes.
    fn bytes(&self) -> usize {
        let metric = |metric: &MetricPoint| size_of::<MetricPoint>() + metric.metric.len();
        size_of::<Self>() + self.sentence.len() + self.metrics.iter().map(metric).sum::<usize>()
    }
}

/// The points of one rollout.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// Every `2^halved`th verdict, oldest first.
    points: Vec<Arc<Point>>,
    /// The newest verdict.
    newest: Option<Arc<Point>>,
    halved: u32,
    seen: u64,
}

impl Series {
    /// Adds a verdict. One that is not newer than the newest is ignored: a topic may be read again.
    pub(crate) fn push(&mut self, point: Point) {
        if self.newest.as_ref().is_some_and(|newest| newest.as_of >= point.as_of) {
            return;
        }
        let point = Arc::new(point);
        if self.seen.is_multiple_of(self.every()) {
            if self.points.len() + 1 >= MOST {
                let mut index = 0_usize;
                self.points.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.halved += 1;
            }
            if self.seen.is_multiple_of(self.every()) {
                self.points.push(Arc::clone(&point));
            }
        }
        self.seen += 1;
        self.newest = Some(point);
    }

    /// Adds the points of a newer series.
    pub(crate) fn extend(&mut self, newer: &Self) {
        newer.points().for_each(|point| self.push(Point::clone(point)));
    }

    /// The points, oldest first.
    pub(crate) fn points(&self) -> impl Iterator<Item = &Arc<Point>> {
        let last = self.points.last().map(|point| point.as_of);
        let newest = self.newest.iter().filter(move |newest| last.is_none_or(|last| newest.as_of > last));
        self.points.iter().chain(newest)
    }

    /// The newest point.
    pub(crate) fn newest(&self) -> Option<&Arc<Point>> {
        self.newest.as_ref()
    }

    /// Number of verdicts that were added.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// One of this many verdicts has a point.
    pub(crate) fn every(&self) -> u64 {
        1 << self.halved
    }

    /// Approximate size in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.points().map(|point| point.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(secs: i64) -> Verdict {
        let text = include_str!("../../../schemas/tests/golden/verdict.v5.json");
        Verdict { as_of: EventTime::from_secs(secs), ..serde_json::from_str(text).unwrap() }
    }

    #[test]
    fn a_series_is_bounded_even_and_ends_with_the_newest_verdict() {
        let mut series = Series::default();
        for number in 0..10_000_i64 {
            series.push(Point::of(&verdict(number), number));
            let times: Vec<i64> = series.points().map(|point| point.recorded_at.0 / 1000).collect();
            assert!(times.len() <= MOST && times.len() as i64 >= (number + 1).min(MOST as i64 / 2 - 1), "{number}");
            assert_eq!((times[0], times[times.len() - 1]), (0, number));
            let every = series.every() as i64;
            let even = times[..times.len() - 1].iter().enumerate().all(|(index, time)| *time == index as i64 * every);
            assert!(even, "{times:?}");
        }
        assert_eq!(series.seen(), 10_000);
        let size = series.bytes();
        // A verdict that is read again changes nothing.
        series.push(Point::of(&verdict(9_000), 0));
        assert_eq!((series.seen(), series.bytes()), (10_000, size));
    }

    #[test]
    fn a_series_from_the_log_is_continued_by_a_newer_one() {
        let (mut read, mut live) = (Series::default(), Series::default());
        (0..300).for_each(|number| read.push(Point::of(&verdict(number), number)));
        (290..400).for_each(|number| live.push(Point::of(&verdict(number), number)));
        read.extend(&live);
        let times: Vec<i64> = read.points().map(|point| point.as_of.0 / 1_000_000).collect();
        assert!(times.is_sorted() && times[0] == 0 && times.last() == Some(&399) && times.len() <= MOST);
    }

    #[test]
    fn a_point_has_the_metrics_over_all_traffic_as_in_the_verdict() {
        let point = serde_json::to_value(Point::of(&verdict(5), 7)).unwrap();
        insta::assert_json_snapshot!(point);
    }
}
