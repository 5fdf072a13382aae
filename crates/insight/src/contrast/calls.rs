//! Pairs of dimensions, and dimensions that a metric does not declare, from the predictions of `events`.

use std::collections::{BTreeMap, BTreeSet};

use serin_schemas::{
    ids::RolloutId,
    records::{Arm, Outcome, Prediction},
};
use serin_sketches::log_position;
use serin_spec::{Direction, MetricSource, MetricSpec, OutputKind, RolloutSpec};

use super::{
    Arms, Candidate, ReadFrom, Scale, add,
    places::{Dictionary, MOST_PLACES, Place, places},
    windows::above,
};
use crate::fields::range;

/// Sums per metric and place.
#[derive(Debug)]
pub struct Calls<'a> {
    spec: &'a RolloutSpec,
    rollout: &'a RolloutId,
    metrics: Vec<Measured<'a>>,
    not_searched: Vec<String>,
    dictionary: Dictionary,
    whole: Vec<Arms>,
    found: BTreeMap<(usize, Place), Arms>,
    left_out: bool,
}

#[derive(Clone, Copy, Debug)]
struct Measured<'a> {
    metric: &'a MetricSpec,
    scale: Scale,
    threshold: Option<f64>,
}

impl<'a> Calls<'a> {
    /// Starts the search of a rollout. `thresholds`: see [`super::Windows::thresholds`].
    pub fn new(spec: &'a RolloutSpec, rollout: &'a RolloutId, thresholds: &BTreeMap<String, f64>) -> Self {
        let mut metrics = Vec::new();
        let mut not_searched = Vec::new();
        for metric in &spec.metrics {
            let threshold = thresholds.get(&metric.name).copied();
            match scale(metric, threshold) {
                Some(scale) => metrics.push(Measured { metric, scale, threshold }),
                None => not_searched.push(metric.name.clone()),
            }
        }
        let whole = vec![Arms::default(); metrics.len()];
        let (dictionary, found) = (Dictionary::default(), BTreeMap::new());
        Self { spec, rollout, metrics, not_searched, dictionary, whole, found, left_out: false }
    }

    /// The metrics whose values single predictions do not contain, or not alone: they need labels, pairs, classes or filters.
    pub fn not_searched(&self) -> &[String] {
        &self.not_searched
    }

    /// Whether values or pairs beyond the limits were not counted.
    pub fn left_out(&self) -> bool {
        self.left_out
    }

    /// Adds a call. Calls of other rollouts, and calls that are not compared, are skipped.
    pub fn add(&mut self, prediction: &Prediction) {
        let compared = prediction.assignment.is_compared() && matches!(prediction.arm, Arm::Canary | Arm::Control);
        if !compared || prediction.rollout.as_ref() != Some(self.rollout) {
            return;
        }
        let fields = fields(self.spec, prediction);
        let numbers = self.dictionary.numbers(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        self.left_out |= numbers.len() < fields.len();
        for (index, measured) in self.metrics.iter().enumerate() {
            let Some(position) = measured.position(prediction) else { continue };
            let count = |arms: &mut Arms| {
                add(if prediction.arm == Arm::Canary { &mut arms.canary } else { &mut arms.control }, position);
            };
            count(&mut self.whole[index]);
            for place in places(&numbers) {
                let room = self.found.len() < MOST_PLACES;
                match self.found.get_mut(&(index, place)) {
                    Some(arms) => count(arms),
                    None if room => count(self.found.entry((index, place)).or_default()),
                    None => self.left_out = true,
                }
            }
        }
    }

    /// One candidate per metric and place. `covered`: single dimensions of metrics that were searched in windows.
    pub fn candidates(&self, covered: &[(String, String)], design_effect: impl Fn(&str) -> f64) -> Vec<Candidate> {
        let covered: BTreeSet<(&str, &str)> =
            covered.iter().map(|(metric, name)| (metric.as_str(), name.as_str())).collect();
        let mut candidates = Vec::new();
        for ((index, place), inside) in &self.found {
            let Measured { metric, scale, threshold } = self.metrics[*index];
            let segments = self.dictionary.segments(*place);
            if let [one] = segments.as_slice()
                && covered.contains(&(metric.name.as_str(), one.dimension.as_str()))
            {
                continue;
            }
            candidates.push(Candidate {
                metric: metric.name.clone(),
                measure: threshold.map(|threshold| above(metric, threshold)),
                place: segments,
                from: ReadFrom::Events,
                scale,
                higher_is_worse: metric.direction == Direction::LowerIsBetter,
                design_effect: design_effect(&metric.name),
                inside: *inside,
                outside: self.whole[*index].without(*inside),
            });
        }
        candidates
    }
}

/// The dimensions of a call that do not depend on the answer: declared segments, features and the zone. Not the instance, because the
/// arms share none.
fn fields(spec: &RolloutSpec, prediction: &Prediction) -> Vec<(String, String)> {
    let mut fields: BTreeMap<String, String> = prediction.segments.clone();
    for feature in &spec.features {
        let value = match feature.kind {
            OutputKind::Class | OutputKind::Ranking => prediction.classes.get(&feature.name).cloned(),
            OutputKind::Number => prediction.outputs.get(&feature.name).and_then(|number| range(*number)),
        };
        if let Some(value) = value {
            fields.entry(feature.name.clone()).or_insert(value);
        }
    }
    if let Some(zone) = prediction.classes.get("response.zone") {
        fields.insert("response.zone".to_owned(), zone.clone());
    }
    fields.into_iter().collect()
}

/// The scale of a metric's values in single predictions; `None` if they do not contain the value. Filters (`where`) are not applied
/// here, so a metric with filters is not searched.
fn scale(metric: &MetricSpec, threshold: Option<f64>) -> Option<Scale> {
    if !metric.filters.is_empty() {
        return None;
    }
    let in_prediction = matches!(
        metric.source,
        MetricSource::Failed
            | MetricSource::Refused
            | MetricSource::Unusable
            | MetricSource::Cancelled
            | MetricSource::Latency
            | MetricSource::Output(_)
            | MetricSource::Class { is: Some(_), .. }
    );
    Scale::of(metric, threshold).filter(|_| in_prediction)
}

impl Measured<'_> {
    /// The position of a call's value on the scale; `None` if the call has no value.
    fn position(&self, prediction: &Prediction) -> Option<f64> {
        let yes = |yes: bool| Some(f64::from(u8::from(yes)));
        let outcome = prediction.outcome();
        let value = match &self.metric.source {
            MetricSource::Cancelled => return yes(outcome == Outcome::Cancelled),
            _ if outcome == Outcome::Cancelled => return None,
            MetricSource::Failed => return yes(outcome == Outcome::Failed),
            MetricSource::Refused => return yes(matches!(outcome, Outcome::Refused | Outcome::Redirected)),
            MetricSource::Unusable => {
                return if outcome == Outcome::Unread { None } else { yes(outcome == Outcome::Unusable) };
            }
            MetricSource::Class { output, is: Some(class) } => return yes(prediction.classes.get(output)? == class),
            MetricSource::Latency if outcome == Outcome::Ok => prediction.latency_us? as f64 / 1e3,
            MetricSource::Output(output) => *prediction.outputs.get(output)?,
            _ => return None,
        };
        let position = match (self.scale, self.threshold) {
            (_, Some(threshold)) => f64::from(u8::from(value > threshold)),
            (Scale::Share, None) => value,
            (Scale::Range { min, max }, None) => ((value - min) / (max - min)).clamp(0.0, 1.0),
            (Scale::Log, None) => log_position(value),
        };
        position.is_finite().then_some(position)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serin_schemas::records::Segment;

    use super::*;
    use crate::contrast::search;

    fn spec() -> RolloutSpec {
        serde_json::from_value(json!({
            "apiVersion": "serin.dev/v1", "kind": "Rollout", "model": "m",
            "stable": {"version": "v1"}, "canary": {"version": "v2"},
            "steps": [{"weight": "10%", "bake": {"min": "1m", "max": "1h"}}],
            "features": [{"name": "amount", "source": {"input": "amount"}}],
            "metrics": [
                {"name": "failed", "kind": "rate", "source": "failed", "segments": ["origin"]},
                {"name": "latency_p99", "kind": {"quantile": {"level": 0.99}}, "source": "latency"},
                {"name": "wrong", "kind": "rate", "source": {"wrong": {"output": "s", "label": "l"}}, "maturity": "1h"},
            ],
        }))
        .unwrap()
    }

    fn call(number: u64, arm: &str, [origin, carrier]: [&str; 2], status: i32) -> Prediction {
        serde_json::from_value(json!({
            "request_id": number.to_string(), "model": "m", "version": "v2", "arm": arm, "assignment": "random",
            "origin": "router", "rollout": "r", "generation": 1, "completed_at": 1, "latency_us": 5000, "status": status,
            "error": null, "invalid_output": null, "unit": null, "outputs": {"amount": number % 7}, "classes": {},
            "segments": {"origin": origin, "carrier": carrier},
            "writer": {"name": "router-0", "incarnation": 1, "seq": 1},
        }))
        .unwrap()
    }

    #[test]
    fn a_pair_that_only_fails_together_is_found() {
        let (spec, rollout) = (spec(), RolloutId::from("r"));
        let mut calls = Calls::new(&spec, &rollout, &BTreeMap::from([("latency_p99".to_owned(), 4.0)]));
        for number in 0..8000_u64 {
            let place = [["LGA", "JFK"][(number % 2) as usize], ["AA", "UA", "DL"][(number / 2 % 3) as usize]];
            let arm = if number / 6 % 2 == 0 { "canary" } else { "control" };
            let bad = arm == "canary" && place == ["LGA", "UA"] && number / 12 % 3 == 0;
            calls.add(&call(number, arm, place, if bad { 500 } else { 200 }));
        }
        assert_eq!(calls.not_searched(), ["wrong"]);
        let covered = [("failed".to_owned(), "origin".to_owned())];
        let candidates = calls.candidates(&covered, |_| 1.0);
        assert!(!candidates.iter().any(|one| one.metric == "failed" && one.place == [Segment::of("origin", "LGA")]));
        let found = search(candidates);
        let first = &found.strongest[0];
        let places = [Segment::of("carrier", "UA"), Segment::of("origin", "LGA")];
        assert!(
            first.lead && first.place.len() == 2 && places.iter().all(|one| first.place.contains(one)),
            "{first:?}"
        );
        assert!(first.here.canary.value > 0.3 && first.elsewhere.canary.value == 0.0, "{first:?}");
        // All answers take 5 ms: above the threshold everywhere, so that there is nothing to compare.
        assert!(found.strongest.iter().all(|contrast| contrast.metric == "failed"), "{found:?}");
    }

    #[test]
    fn calls_that_are_not_compared_are_skipped() {
        let (spec, rollout) = (spec(), RolloutId::from("r"));
        let mut calls = Calls::new(&spec, &rollout, &BTreeMap::new());
        let one = call(1, "canary", ["LGA", "AA"], 200);
        calls.add(&Prediction { rollout: Some("another".into()), ..one.clone() });
        calls.add(&Prediction { arm: Arm::Stable, ..one.clone() });
        calls.add(&Prediction { assignment: serin_schemas::records::Assignment::Pinned, ..one });
        assert!(calls.candidates(&[], |_| 1.0).is_empty());
    }
}
