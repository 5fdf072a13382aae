//! Warm-up: what stable traffic shows before the first canary request.
//!
//! Summaries are kept per metric and segment value until the segments are frozen. Then each hypothesis learns from its own
//! summary, and `other` from the rest. Summaries merge exactly, so the order of windows does not matter.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serin_schemas::records::Segment;
use serin_sketches::{Rate, Summary};
use serin_spec::Frozen;

use crate::plan::{OTHER, Plan};

/// Most segment values that are kept per metric. Further values count as `other`. Each partition of `events` keeps at most 200.
const MAX_CELLS: usize = 2000;

/// What a warm-up summary is about.
type WarmKey = (usize, Segment);

/// A warm-up summary as a row.
#[derive(Serialize, Deserialize)]
pub(crate) struct WarmRow {
    pub(crate) metric: usize,
    pub(crate) segment: Segment,
    pub(crate) summary: Vec<u8>,
}

/// The summaries of warm-up.
#[derive(Debug, Default)]
pub(crate) struct WarmUp {
    cells: BTreeMap<WarmKey, Summary>,
    /// Keys whose row is out of date.
    pub(crate) dirty: BTreeSet<WarmKey>,
}

impl WarmUp {
    /// Takes back the contents of a row.
    pub(crate) fn restore(&mut self, key: WarmKey, summary: Summary) {
        self.cells.insert(key, summary);
    }

    /// The summary of a key.
    pub(crate) fn get(&self, key: &WarmKey) -> Option<&Summary> {
        self.cells.get(key)
    }

    /// Adds stable's summary of one window.
    pub(crate) fn add(&mut self, metric: usize, segment: Segment, summary: &Summary) {
        let mut key = (metric, segment);
        if !self.cells.contains_key(&key) && self.size(metric) >= MAX_CELLS {
            OTHER.clone_into(&mut key.1.value);
        }
        match self.cells.get_mut(&key) {
            // A sum beyond 2^53 is left out: warm-up has seen enough by then.
            Some(sum) => drop(sum.merge(summary)),
            None => drop(self.cells.insert(key.clone(), summary.clone())),
        }
        self.dirty.insert(key);
    }

    /// Adds the number of stable's answers with a segment value in one window. A metric that has no value yet, such as one of pairs or of
    /// labels, says nothing about the values of its dimensions.
    pub(crate) fn add_population(&mut self, plan: &Plan, segment: &Segment, answers: u64) {
        if let Some(count) = Rate::new(answers, 0) {
            self.add(population(plan), segment.clone(), &Summary::Rate(count));
        }
    }

    fn size(&self, metric: usize) -> usize {
        self.cells.range((metric, Segment::all())..(metric + 1, Segment::all())).count()
    }

    /// The most frequent values of each dimension that a metric names, by count and then by name. A dimension is counted by the
    /// metric that saw most of it, or by all answers if they are more. A value with control characters counts as `other`: as JSON it would be six times as long.
    pub(crate) fn freeze(&self, plan: &Plan, warmup_events: u64) -> Frozen {
        let mut segments = BTreeMap::new();
        for dimension in &plan.spec.segments {
            let name = &dimension.name;
            let users = plan.spec.metrics.iter().enumerate().filter(|(_, metric)| metric.segments.contains(name));
            let counts = users.map(|(metric, _)| self.counts(metric, name));
            // The first of the largest: `max_by_key` would give the last.
            let total = |counts: &Vec<(u64, &str)>| counts.iter().map(|(n, _)| n).sum::<u64>();
            let Some(mut counts) = counts.reduce(|one, two| if total(&two) > total(&one) { two } else { one }) else {
                continue;
            };
            let answers = self.counts(population(plan), name);
            if total(&answers) > total(&counts) {
                counts = answers;
            }
            counts.sort_by(|one, two| two.0.cmp(&one.0).then(one.1.cmp(two.1)));
            let top = counts.into_iter().take(dimension.top).map(|(_, value)| value.to_owned()).collect();
            segments.insert(name.clone(), top);
        }
        Frozen { segments, warmup_events }
    }

    fn counts(&self, metric: usize, dimension: &str) -> Vec<(u64, &str)> {
        let cells = self.cells.range((metric, Segment::all())..(metric + 1, Segment::all()));
        let alone = |value: &str| value != OTHER && !value.contains(char::is_control);
        let own = cells.filter(|((_, segment), _)| segment.dimension == dimension && alone(&segment.value));
        own.map(|((_, segment), summary)| (summary.n(), segment.value.as_str())).filter(|(n, _)| *n > 0).collect()
    }

    /// Hands over all summaries, by the hypothesis that learns from them.
    pub(crate) fn hand_over(&mut self, plan: &Plan) -> BTreeMap<usize, Summary> {
        let cells = std::mem::take(&mut self.cells);
        self.dirty.extend(cells.keys().cloned());
        by_hypothesis(plan, cells.into_iter().map(|((metric, segment), summary)| (metric, segment, summary)))
    }
}

/// The place of the answers per segment value: after all metrics. Of these summaries only the number of values is used.
fn population(plan: &Plan) -> usize {
    plan.metrics.len()
}

/// Merges summaries by their hypothesis.
pub(crate) fn by_hypothesis(
    plan: &Plan,
    cells: impl Iterator<Item = (usize, Segment, Summary)>,
) -> BTreeMap<usize, Summary> {
    let mut merged: BTreeMap<usize, Summary> = BTreeMap::new();
    for (metric, segment, summary) in cells {
        let Some(hypothesis) = plan.hypothesis_of(metric, &segment) else { continue };
        match merged.get_mut(&hypothesis) {
            Some(sum) => drop(sum.merge(&summary)),
            None => drop(merged.insert(hypothesis, summary)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use serin_spec::{RolloutSpec, Rules};

    use super::*;

    /// A plan with one dimension, which only these metrics name.
    fn plan(metrics: &str) -> Plan {
        let spec = format!(
            r#"{{"apiVersion": "serin.dev/v1", "kind": "Rollout", "model": "flights", "stable": {{"version": "v1"}},
                "canary": {{"version": "v2"}}, "steps": [{{"weight": "5%"}}],
                "segments": [{{"name": "origin", "source": {{"input": "origin"}}, "top": 2}}], "metrics": [{metrics}]}}"#
        );
        let spec: RolloutSpec = serde_json::from_str(&spec).unwrap();
        Plan::new(spec, Rules::CURRENT)
    }

    fn rate(n: u64) -> Summary {
        Summary::Rate(Rate::new(n, 0).unwrap())
    }

    fn frozen(warm: &WarmUp, plan: &Plan) -> Vec<String> {
        warm.freeze(plan, 1).segments.remove("origin").unwrap_or_default()
    }

    #[test]
    fn a_dimension_of_a_metric_without_values_is_learned_from_the_answers() {
        for metric in [
            r#"{"name": "m", "kind": "disagreement", "source": {"output": "p"}, "limit": {"fail": 0.1}, "segments": ["origin"]}"#,
            r#"{"name": "m", "kind": "rate", "source": {"feedback": "click"}, "maturity": "1d", "role": "watch", "segments": ["origin"]}"#,
            r#"{"name": "m", "kind": "rate", "source": "failed", "where": [{"label": "late", "is": true}], "maturity": "1d",
                "segments": ["origin"]}"#,
            r#"{"name": "m", "kind": "rate", "source": {"output": "p"}, "where": [{"output": "p", "above": 2}], "segments": ["origin"],
                "stratifyBy": "origin"}"#,
        ] {
            let plan = plan(metric);
            let mut warm = WarmUp::default();
            for (value, answers) in [("JFK", 5), ("other", 9), ("LGA", 3), ("EWR", 4), ("LGA", 3)] {
                warm.add_population(&plan, &Segment::of("origin", value), answers);
            }
            assert_eq!(frozen(&warm, &plan), ["LGA", "JFK"], "{metric}");
            assert!(warm.hand_over(&plan).is_empty(), "answers are not evidence");
        }
    }

    #[test]
    fn a_metric_that_saw_every_answer_counts_as_before() {
        let plan = plan(r#"{"name": "m", "kind": "rate", "source": "failed", "segments": ["origin"]}"#);
        let mut warm = WarmUp::default();
        warm.add(0, Segment::of("origin", "JFK"), &rate(3));
        assert_eq!(frozen(&warm, &plan), ["JFK"], "of a window that an older aggregator wrote");
        warm.add_population(&plan, &Segment::of("origin", "LGA"), 3);
        assert_eq!(frozen(&warm, &plan), ["JFK"]);
        warm.add_population(&plan, &Segment::of("origin", "LGA"), 1);
        assert_eq!(frozen(&warm, &plan), ["LGA"], "the metric saw only a part");
    }

    #[test]
    fn a_dimension_that_no_metric_names_is_not_frozen() {
        let plan = plan(r#"{"name": "m", "kind": "rate", "source": "failed"}"#);
        let mut warm = WarmUp::default();
        warm.add_population(&plan, &Segment::of("origin", "LGA"), 3);
        assert!(warm.freeze(&plan, 1).segments.is_empty());
    }
}
