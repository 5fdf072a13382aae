//! Fields of requests that the rollout file does not declare, from the records of `captures`.
//!
//! All pairs whose answers differ are kept, but only a share of the pairs that agree. So the share of differing pairs among the captured
//! ones is too high, everywhere by the same factor of the odds: comparing it between parts of the calls is still right, as in a
//! case-control study. It needs captured pairs that agree, that is, `capture.share` above 0.

use std::collections::BTreeMap;

use serin_schemas::records::Capture;
use serin_sketches::Scatter;

use super::{
    Arms, Candidate, ReadFrom, Scale, add,
    places::{Dictionary, MOST_PLACES, Place, places},
};
use crate::fields;

/// Name of what captured pairs are compared by.
const DISAGREEMENT: &str = "disagreement";

/// Captured pairs per place.
#[derive(Debug, Default)]
pub struct Captures {
    dictionary: Dictionary,
    whole: Scatter,
    found: BTreeMap<Place, Scatter>,
    not_read: u64,
    left_out: bool,
}

impl Captures {
    /// Adds a captured pair of the rollout.
    pub fn add(&mut self, capture: &Capture) {
        let Some(fields) = capture.request.as_deref().and_then(fields::of_request) else {
            self.not_read += 1;
            return;
        };
        let differs = f64::from(u8::from(!capture.differences.is_empty()));
        let numbers = self.dictionary.numbers(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        self.left_out |= numbers.len() < fields.len();
        add(&mut self.whole, differs);
        for place in places(&numbers) {
            let room = self.found.len() < MOST_PLACES;
            match self.found.get_mut(&place) {
                Some(sums) => add(sums, differs),
                None if room => add(self.found.entry(place).or_default(), differs),
                None => self.left_out = true,
            }
        }
    }

    /// Number of captured pairs whose request can be read.
    pub fn read(&self) -> u64 {
        self.whole.n as u64
    }

    /// Number of captured pairs whose request was not kept, or was cut off.
    pub fn not_read(&self) -> u64 {
        self.not_read
    }

    /// Whether values or pairs of values beyond the limits were not counted.
    pub fn left_out(&self) -> bool {
        self.left_out
    }

    /// Whether there are both pairs that differ and pairs that agree.
    pub fn can_compare(&self) -> bool {
        self.whole.sum > 0.0 && self.whole.sum < self.whole.n
    }

    /// One candidate per place.
    pub fn candidates(&self) -> Vec<Candidate> {
        let arms = |canary: Scatter| Arms { canary, control: Scatter::default() };
        let places = self.found.iter().map(|(place, inside)| Candidate {
            metric: DISAGREEMENT.to_owned(),
            measure: Some("share of captured pairs that differ".to_owned()),
            place: self.dictionary.segments(*place),
            from: ReadFrom::Captures,
            scale: Scale::Share,
            higher_is_worse: true,
            design_effect: 1.0,
            inside: arms(*inside),
            outside: arms(super::without(self.whole, *inside)),
        });
        places.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serin_schemas::records::Segment;

    use super::*;
    use crate::contrast::search;

    fn capture(plan: &str, hour: u64, differences: &[&str]) -> Capture {
        let answer = json!({"version": "v1", "arm": "control", "status": 200, "error": null, "latency_us": 1, "body": "{}", "bytes": 2});
        let request = json!({"user": {"plan": plan, "name": "[redacted]"}, "hour": hour}).to_string();
        serde_json::from_value(json!({
            "request_id": "a", "model": "m", "rollout": "r", "generation": 2, "at": 5, "reason": "sample",
            "differences": differences, "request": request, "request_bytes": 9, "live": answer, "shadow": answer,
        }))
        .unwrap()
    }

    #[test]
    fn an_undeclared_field_with_more_disagreement_is_found() {
        let mut captures = Captures::default();
        for number in 0..600_u64 {
            let plan = ["free", "pro"][(number % 2) as usize];
            let differs = number % 11 == 0 || (plan == "pro" && number % 3 == 0);
            captures.add(&capture(plan, number % 5, if differs { &["p: 1 against 2"] } else { &[] }));
        }
        captures.add(&Capture { request: Some("{\"cut…".to_owned()), ..capture("free", 1, &[]) });
        assert_eq!((captures.read(), captures.not_read(), captures.can_compare()), (600, 1, true));
        let found = search(captures.candidates());
        let first = &found.strongest[0];
        assert!(first.lead && first.place.contains(&Segment::of("user.plan", "pro")), "{first:?}");
        assert_eq!(first.here.control, None);
        assert!(
            !found.strongest.iter().flat_map(|one| &one.place).any(|one| one.dimension == "user.name"),
            "{found:?}"
        );
    }

    #[test]
    fn pairs_that_all_differ_cannot_be_compared() {
        let mut captures = Captures::default();
        (0..100).for_each(|number| captures.add(&capture("pro", number, &["p: 1 against 2"])));
        assert!(!captures.can_compare());
        assert!(search(captures.candidates()).strongest.is_empty());
    }
}
