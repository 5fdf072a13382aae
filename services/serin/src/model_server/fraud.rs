//! The model of `serin model-server`: the probability that a payment is fraud, from its amount.
//!
//! Pure. Payments above a limit are fraud, with a few exceptions that no version of the model predicts, so that a good version is
//! wrong in a few percent of its answers. `--wrong` and `--fail` pick calls by a hash of their inputs, the version and the seed.

use std::{fmt::Write as _, time::Duration};

use axum::http::StatusCode;
use serde_json::{Value, json};
use serin_sketches::hash::{bucket, hash64};
use serin_spec::units::Share;

use super::model::{Answer, Model};
use crate::cli;

/// Name of the output.
const SCORE: &str = "score";
/// Largest payment; amounts are random from 0 to this.
pub(super) const LARGEST: f64 = 1000.0;
/// Larger payments are fraud: one in five.
const LIMIT: f64 = 800.0;
/// Distance from the limit within which the model is unsure.
const UNSURE: f64 = 25.0;
/// One payment in this many is an exception to the rule of the limit.
const EXCEPTION_ONE_IN: u64 = 25;
/// Largest number of payments in one request.
const MOST: usize = 1000;

/// Whether a payment turns out to be fraud.
pub(super) fn is_fraud(amount: f64) -> bool {
    let exception = hash64(b"exception", &amount.to_bits().to_be_bytes()).is_multiple_of(EXCEPTION_ONE_IN);
    (amount > LIMIT) != exception
}

/// The `inputs` of a request about one payment.
pub(super) fn inputs(amount: f64) -> Value {
    json!([{"name": "amount", "shape": [1], "datatype": "FP64", "data": [amount]}])
}

/// One version of the model.
#[derive(Clone, Debug)]
pub(crate) struct Fraud {
    version: String,
    wrong: Share,
    fail: Share,
    latency: Duration,
    seed: u64,
}

impl Fraud {
    /// The version that the command line asks for.
    pub(crate) fn new(args: &cli::ModelServer) -> Self {
        let cli::ModelServer { version, wrong, fail, latency, seed, .. } = args;
        let latency = Duration::from_micros(latency.0.0.unsigned_abs());
        Self { version: version.clone(), wrong: *wrong, fail: *fail, latency, seed: *seed }
    }

    /// A description on one line.
    pub(crate) fn about(&self) -> String {
        let Self { wrong, fail, latency, .. } = self;
        let mut about = "the score of a payment from its `amount`".to_owned();
        for (share, what) in [(wrong, "wrong answers"), (fail, "failures")] {
            if !share.is_none() {
                let _ = write!(about, ", {share} {what}");
            }
        }
        if !latency.is_zero() {
            let _ = write!(about, ", {} ms each", latency.as_secs_f64() * 1e3);
        }
        about
    }

    /// Whether a call with these inputs belongs to a share of all calls.
    fn picks(&self, share: Share, what: &str, inputs: &Value) -> bool {
        let salt = format!("{what} {} {}", self.seed, self.version);
        i32::from(bucket(hash64(salt.as_bytes(), inputs.to_string().as_bytes()))) < share.0
    }
}

impl Model for Fraud {
    fn version(&self) -> &str {
        &self.version
    }

    fn answer(&self, _id: &str, inputs: &Value) -> Answer {
        let result = match amounts(inputs) {
            Err(error) => Err((StatusCode::BAD_REQUEST, error)),
            Ok(_) if self.picks(self.fail, "fail", inputs) => {
                Err((StatusCode::INTERNAL_SERVER_ERROR, format!("{} of the calls fail (--fail)", self.fail)))
            }
            Ok(amounts) => {
                let is_wrong = self.picks(self.wrong, "wrong", inputs);
                let scores: Vec<f64> = amounts.iter().map(|amount| score(*amount, is_wrong)).collect();
                Ok(json!([{"name": SCORE, "shape": [scores.len()], "datatype": "FP64", "data": scores}]))
            }
        };
        Answer { takes: self.latency, result }
    }
}

/// The probability of fraud, with four digits.
fn score(amount: f64, is_wrong: bool) -> f64 {
    let probability = 1.0 / (1.0 + ((LIMIT - amount) / UNSURE).exp());
    let answer = if is_wrong { 1.0 - probability } else { probability };
    (answer * 1e4).round() / 1e4
}

/// The numbers of the tensor `amount`, or of the only tensor.
fn amounts(inputs: &Value) -> Result<Vec<f64>, String> {
    let wrong = || {
        let example = json!({ "inputs": self::inputs(120.5) });
        format!("the request has no tensor `amount` with 1 to {MOST} numbers; send for example {example}")
    };
    let tensors = inputs.as_array().ok_or_else(wrong)?;
    let named = tensors.iter().find(|tensor| tensor["name"] == "amount");
    let tensor = named.or_else(|| tensors.first().filter(|_| tensors.len() == 1)).ok_or_else(wrong)?;
    let data = tensor["data"].as_array().filter(|data| (1..=MOST).contains(&data.len())).ok_or_else(wrong)?;
    data.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>().ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Verb};

    fn version(arguments: &[&str]) -> Fraud {
        let Verb::ModelServer(args) = Cli::parse_from([&["serin", "model-server"], arguments].concat()).verb else {
            panic!("another verb")
        };
        Fraud::new(&args)
    }

    fn amounts_to_ask() -> impl Iterator<Item = f64> {
        (0..20_000).map(|n| f64::from(n) * LARGEST / 20_000.0)
    }

    /// Shares of wrong answers and of failures.
    fn shares(model: &Fraud) -> (f64, f64) {
        let (mut wrong, mut failed) = (0, 0);
        for amount in amounts_to_ask() {
            match model.answer("", &inputs(amount)).result {
                Ok(outputs) => {
                    let score = outputs[0]["data"][0].as_f64().unwrap();
                    wrong += u32::from((score > 0.5) != is_fraud(amount));
                }
                Err((StatusCode::INTERNAL_SERVER_ERROR, _)) => failed += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        (f64::from(wrong) / 2e4, f64::from(failed) / 2e4)
    }

    #[test]
    fn a_good_version_is_wrong_in_a_few_percent_and_a_bad_one_more_often_as_configured() {
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 0.01, "{found}, not {expected}");
        let (wrong, failed) = shares(&version(&[]));
        close(wrong, 0.04);
        assert!(failed.abs() < f64::EPSILON);
        let (wrong, failed) = shares(&version(&["--wrong", "30%", "--fail", "10%"]));
        close(failed, 0.1);
        close(wrong, 0.9 * (0.3 * 0.96 + 0.7 * 0.04));
    }

    #[test]
    fn a_seed_gives_the_same_answers_and_another_seed_different_ones() {
        let result = |seed: &str| {
            let model = version(&["--wrong", "50%", "--seed", seed]);
            amounts_to_ask().take(100).map(|amount| model.answer("", &inputs(amount))).collect::<Vec<_>>()
        };
        assert_eq!(result("1"), result("1"));
        assert_ne!(result("1"), result("2"));
        assert_eq!(version(&["--latency", "20ms"]).answer("", &inputs(1.0)).takes, Duration::from_millis(20));
    }

    #[test]
    fn one_tensor_of_numbers_is_read_and_other_requests_get_an_error_with_an_example() {
        let model = version(&[]);
        let several = json!([{"name": "x", "data": [1, 999.5]}]);
        let outputs = model.answer("", &several).result.unwrap();
        assert_eq!((&outputs[0]["shape"], &outputs[0]["data"]), (&json!([2]), &json!([0.0, 0.9997])));
        for bad in [
            json!(null),
            json!([]),
            json!([{"name": "amount"}]),
            json!([{"name": "amount", "data": []}]),
            json!([{"name": "amount", "data": ["1"]}]),
            json!([{"name": "a", "data": [1]}, {"name": "b", "data": [1]}]),
        ] {
            let (status, error) = model.answer("", &bad).result.unwrap_err();
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert!(error.contains(r#"send for example {"inputs":[{"data":[120.5]"#), "{error}");
        }
    }
}
