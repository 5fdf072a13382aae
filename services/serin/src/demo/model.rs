//! The demo's models: logistic regressions that give the probability that a flight arrives more than 15 minutes late.
//!
//! Pure. `models/fit.py` describes each version, fits the models and writes `models/flights.json`, which is compiled into the
//! binary. Invariant: the probabilities are those of scikit-learn, to 1e-9 (golden predictions in that file).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

static MODELS: &str = include_str!("../../models/flights.json");

/// The features of a flight at its departure.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Flight {
    /// Airport it leaves from.
    pub(super) origin: String,
    /// Airline, as its two-character code.
    pub(super) carrier: String,
    /// Airport it flies to.
    pub(super) dest: String,
    /// Distance in miles.
    pub(super) distance_mi: f64,
    /// Scheduled hour of departure, local time, 0 to 23.
    pub(super) sched_dep_hour: i64,
    /// Departure delay in minutes, negative if it leaves early.
    pub(super) dep_delay_min: f64,
}

/// The tensors of a request do not describe one flight.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a flight: {}", problems.join("; "))]
pub(super) struct NotAFlight {
    /// All problems, each with its input.
    pub(super) problems: Vec<String>,
}

impl Flight {
    /// The `inputs` array of an Open Inference Protocol V2 request for this flight. The tensors are in the order of the fields
    /// above, so that the origin is the first one.
    pub(super) fn to_oip(&self) -> Value {
        let tensor = |name: &str, datatype: &str, value: Value| json!({"name": name, "datatype": datatype, "shape": [1], "data": [value]});
        json!([
            tensor("origin", "BYTES", json!(self.origin)),
            tensor("carrier", "BYTES", json!(self.carrier)),
            tensor("dest", "BYTES", json!(self.dest)),
            tensor("distance_mi", "FP64", json!(self.distance_mi)),
            tensor("sched_dep_hour", "INT64", json!(self.sched_dep_hour)),
            tensor("dep_delay_min", "FP64", json!(self.dep_delay_min)),
        ])
    }

    /// Reads the `inputs` array of an Open Inference Protocol V2 request: one flight, tensors found by name.
    pub(super) fn from_oip(inputs: &Value) -> Result<Flight, NotAFlight> {
        let mut reader = Inputs { inputs, problems: Vec::new() };
        let flight = Flight {
            origin: reader.text("origin"),
            carrier: reader.text("carrier"),
            dest: reader.text("dest"),
            distance_mi: reader.number("distance_mi"),
            sched_dep_hour: reader.integer("sched_dep_hour"),
            dep_delay_min: reader.number("dep_delay_min"),
        };
        if reader.problems.is_empty() { Ok(flight) } else { Err(NotAFlight { problems: reader.problems }) }
    }
}

/// Reads values from the tensors and collects their problems.
struct Inputs<'a> {
    inputs: &'a Value,
    problems: Vec<String>,
}

impl<'a> Inputs<'a> {
    fn text(&mut self, name: &str) -> String {
        self.take(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    fn number(&mut self, name: &str) -> f64 {
        self.take(name, "a number", Value::as_f64)
    }

    fn integer(&mut self, name: &str) -> i64 {
        self.take(name, "an integer", Value::as_i64)
    }

    fn take<T: Default>(&mut self, name: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> T {
        let tensor = self.inputs.as_array().and_then(|all| all.iter().find(|tensor| tensor["name"] == name));
        let problem = match tensor.map(|tensor| tensor["data"].as_array().map(Vec::as_slice)) {
            None => format!("input `{name}` is missing"),
            Some(Some([value])) => match read(value) {
                Some(value) => return value,
                None => format!("input `{name}` must be {expected}, not {value}"),
            },
            Some(_) => format!("input `{name}` must have an array `data` with one element"),
        };
        self.problems.push(problem);
        T::default()
    }
}

/// All versions of the demo's model.
#[derive(Debug, Clone)]
pub(super) struct Models {
    by_version: BTreeMap<String, Model>,
}

/// One version of the demo's model.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    fit: Fit,
    fault: Option<Fault>,
}

/// A fitted logistic regression on the columns that `terms` describe.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fit {
    intercept: f64,
    terms: Vec<Term>,
}

/// One column of the regression, with its coefficient.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Term {
    /// The input itself.
    Linear { input: NumericInput, coefficient: f64 },
    /// How far the input is above the knot, 0 below: a piece of a linear spline.
    Above { input: NumericInput, knot: f64, coefficient: f64 },
    /// 1 if the input is greater than the threshold, else 0.
    Exceeds { input: NumericInput, threshold: f64, coefficient: f64 },
    /// 1 if the input is this value, else 0.
    Is { input: CategoryInput, value: String, coefficient: f64 },
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NumericInput {
    DepDelayMin,
    DistanceMi,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CategoryInput {
    Origin,
    Carrier,
    Dest,
    SchedDepHour,
}

/// A realistic bug: for one origin, the departure delay is in another unit.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    origin: String,
    dep_delay_divided_by: f64,
}

/// The file that `fit.py` writes.
#[derive(Debug, Deserialize)]
struct Document {
    format: u32,
    fits: BTreeMap<String, Fit>,
    models: BTreeMap<String, Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    fit: String,
    fault: Option<Fault>,
}

impl Models {
    /// The models that are compiled into the binary.
    pub(crate) fn embedded() -> Models {
        let document: Document = serde_json::from_str(MODELS).expect("the embedded models parse; a test checks it");
        assert_eq!(document.format, 1, "the embedded models have the format that this code reads");
        let model = |entry: Entry| Model { fit: document.fits[&entry.fit].clone(), fault: entry.fault };
        Models { by_version: document.models.into_iter().map(|(version, entry)| (version, model(entry))).collect() }
    }

    /// The model of a version, `v1` to `v4`.
    pub(crate) fn get(&self, version: &str) -> Option<&Model> {
        self.by_version.get(version)
    }
}

impl Model {
    /// The probability that the flight arrives more than [`LATE_MIN`](super::data::LATE_MIN) minutes late.
    pub(super) fn predict(&self, flight: &Flight) -> f64 {
        let seen = self.fault.as_ref().map(|fault| fault.distort(flight));
        let flight = seen.as_ref().unwrap_or(flight);
        let logit = self.fit.intercept + self.fit.terms.iter().map(|term| term.contribution(flight)).sum::<f64>();
        1.0 / (1.0 + (-logit).exp())
    }
}

impl Fault {
    fn distort(&self, flight: &Flight) -> Flight {
        let mut flight = flight.clone();
        if flight.origin == self.origin {
            flight.dep_delay_min /= self.dep_delay_divided_by;
        }
        flight
    }
}

impl Term {
    fn contribution(&self, flight: &Flight) -> f64 {
        match self {
            Term::Linear { input, coefficient } => coefficient * input.of(flight),
            Term::Above { input, knot, coefficient } => coefficient * (input.of(flight) - knot).max(0.0),
            Term::Exceeds { input, threshold, coefficient } if input.of(flight) > *threshold => *coefficient,
            Term::Is { input, value, coefficient } if input.is(flight, value) => *coefficient,
            Term::Exceeds { .. } | Term::Is { .. } => 0.0,
        }
    }
}

impl NumericInput {
    fn of(self, flight: &Flight) -> f64 {
        match self {
            NumericInput::DepDelayMin => flight.dep_delay_min,
            NumericInput::DistanceMi => flight.distance_mi,
        }
    }
}

impl CategoryInput {
    fn is(self, flight: &Flight, value: &str) -> bool {
        match self {
            CategoryInput::Origin => flight.origin == value,
            CategoryInput::Carrier => flight.carrier == value,
            CategoryInput::Dest => flight.dest == value,
            CategoryInput::SchedDepHour => value.parse() == Ok(flight.sched_dep_hour),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::{self, LATE_MIN};
    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        late_min: i32,
        golden: Vec<GoldenFlight>,
    }

    #[derive(Deserialize)]
    struct GoldenFlight {
        flight: Flight,
        probabilities: BTreeMap<String, f64>,
    }

    #[test]
    fn predictions_are_those_of_scikit_learn() {
        let file: Golden = serde_json::from_str(MODELS).unwrap();
        let models = Models::embedded();
        assert_eq!((file.golden.len(), file.late_min), (10, LATE_MIN));
        for golden in file.golden {
            assert!(golden.probabilities.keys().eq(models.by_version.keys()));
            for (version, expected) in golden.probabilities {
                let got = models.get(&version).unwrap().predict(&golden.flight);
                assert!((got - expected).abs() < 1e-9, "{version} of {:?}: {got}, not {expected}", golden.flight);
            }
        }
    }

    #[test]
    fn versions_are_what_the_demo_needs() {
        let models = Models::embedded();
        let flights: Vec<_> = data::flights().step_by(7).collect();
        let error = |version: &str, origin: &str| {
            let model = models.get(version).unwrap();
            let of_origin = flights.iter().filter(|flight| origin == "all" || flight.origin == origin);
            let (mut count, mut wrong) = (0, 0);
            for flight in of_origin {
                count += 1;
                wrong += i32::from((model.predict(&flight.features()) >= 0.5) != flight.arrived_late());
            }
            f64::from(wrong) / f64::from(count)
        };
        assert!(error("v2", "all") < error("v1", "all") * 0.95);
        assert!(error("v3", "LGA") > error("v2", "LGA") * 2.0);
        assert!(error("v3", "all") < error("v2", "all") * 1.5);
        for same in ["EWR", "JFK"] {
            assert!((error("v3", same) - error("v2", same)).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn a_flight_survives_the_protocol_in_any_order_of_inputs() {
        let flight = data::flights().next().unwrap().features();
        let mut inputs = flight.to_oip();
        let names: Vec<_> = inputs.as_array().unwrap().iter().map(|tensor| tensor["name"].clone()).collect();
        assert_eq!(names, ["origin", "carrier", "dest", "distance_mi", "sched_dep_hour", "dep_delay_min"]);
        inputs.as_array_mut().unwrap().reverse();
        assert_eq!(Flight::from_oip(&inputs), Ok(flight));
    }

    #[test]
    fn all_problems_of_a_bad_request_are_named_at_once() {
        let inputs = json!([
            {"name": "origin", "datatype": "BYTES", "shape": [1], "data": [7]},
            {"name": "carrier", "datatype": "BYTES", "shape": [2], "data": ["UA", "DL"]},
            {"name": "dest", "datatype": "BYTES", "shape": [1], "data": ["IAH"]},
            {"name": "distance_mi", "datatype": "FP64", "shape": [1], "data": "far"},
            {"name": "sched_dep_hour", "datatype": "INT64", "shape": [1], "data": [5.5]},
        ]);
        let error = Flight::from_oip(&inputs).unwrap_err();
        let expected = [
            "input `origin` must be a string, not 7",
            "input `carrier` must have an array `data` with one element",
            "input `distance_mi` must have an array `data` with one element",
            "input `sched_dep_hour` must be an integer, not 5.5",
            "input `dep_delay_min` is missing",
        ];
        assert_eq!(error.problems, expected);
        assert_eq!(Flight::from_oip(&Value::Null).unwrap_err().problems.len(), 6);
    }
}
