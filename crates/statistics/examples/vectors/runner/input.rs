//! Typed access to a case, with errors that name the key.

use serde_json::Value;
use serin_sketches::Rate;
use serin_statistics::fixed::Alternative::{self, Greater, Less, TwoSided};
use serin_statistics::{Direction, Line};

/// Why a case cannot be computed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaseError {
    /// The kind is not implemented.
    #[error("unknown kind `{0}`")]
    Kind(String),
    /// A key is missing or has the wrong type.
    #[error("`{key}` must be {must}")]
    Key {
        /// The key.
        key: String,
        /// What the value must be.
        must: &'static str,
    },
    /// An unknown option.
    #[error("`{key}`: unknown value `{value}`")]
    Option {
        /// The key.
        key: String,
        /// The value of the option.
        value: String,
    },
    /// The library has no result, because the input is invalid.
    #[error("the input has no result")]
    NoResult,
}

/// A JSON object of a case.
#[derive(Clone, Copy)]
pub(super) struct Input<'a>(&'a Value);

fn key_error(key: &str, must: &'static str) -> CaseError {
    CaseError::Key { key: key.to_owned(), must }
}

impl<'a> Input<'a> {
    pub(super) fn new(value: &'a Value) -> Self {
        Self(value)
    }

    pub(super) fn value(self, key: &str) -> Result<&'a Value, CaseError> {
        self.0.get(key).ok_or_else(|| key_error(key, "given"))
    }

    pub(super) fn object(self, key: &str) -> Result<Self, CaseError> {
        self.value(key)?.as_object().map(|_| Self(&self.0[key])).ok_or_else(|| key_error(key, "an object"))
    }

    pub(super) fn objects(self, key: &str) -> Result<Vec<Self>, CaseError> {
        Ok(self.list(key)?.iter().map(Self).collect())
    }

    pub(super) fn num(self, key: &str) -> Result<f64, CaseError> {
        self.value(key)?.as_f64().ok_or_else(|| key_error(key, "a number"))
    }

    /// A number; `None` if the key is missing or null.
    pub(super) fn num_if_given(self, key: &str) -> Result<Option<f64>, CaseError> {
        if self.is_given(key) { self.num(key).map(Some) } else { Ok(None) }
    }

    /// A count; `800.0` is accepted as 800.
    pub(super) fn int(self, key: &str) -> Result<u64, CaseError> {
        whole(self.value(key)?).ok_or_else(|| key_error(key, "a whole number of at least 0"))
    }

    pub(super) fn signed(self, key: &str) -> Result<i32, CaseError> {
        let value = self.value(key)?.as_i64().and_then(|value| i32::try_from(value).ok());
        value.ok_or_else(|| key_error(key, "a whole number"))
    }

    pub(crate) fn flag(self, key: &str) -> Result<bool, CaseError> {
        self.value(key)?.as_bool().ok_or_else(|| key_error(key, "true or false"))
    }

    /// A flag; the default if the key is missing or null.
    pub(super) fn flag_or(self, key: &str, default: bool) -> Result<bool, CaseError> {
        if self.is_given(key) { self.flag(key) } else { Ok(default) }
    }

    pub(crate) fn text(self, key: &str) -> Result<&'a str, CaseError> {
        self.value(key)?.as_str().ok_or_else(|| key_error(key, "a string"))
    }

    pub(super) fn nums(self, key: &str) -> Result<Vec<f64>, CaseError> {
        let values = self.list(key)?.iter().map(Value::as_f64).collect::<Option<_>>();
        values.ok_or_else(|| key_error(key, "a list of numbers"))
    }

    pub(super) fn ints(self, key: &str) -> Result<Vec<u64>, CaseError> {
        counts(self.value(key)?).ok_or_else(|| key_error(key, "a list of whole numbers of at least 0"))
    }

    pub(super) fn table(self, key: &str) -> Result<Vec<Vec<u64>>, CaseError> {
        let rows = self.list(key)?.iter().map(counts).collect::<Option<_>>();
        rows.ok_or_else(|| key_error(key, "a table of whole numbers of at least 0"))
    }

    pub(super) fn rate(self, k: &str, n: &str) -> Result<Rate, CaseError> {
        Rate::new(self.int(n)?, self.int(k)?).ok_or_else(|| key_error(k, "at most n"))
    }

    pub(super) fn line(self) -> Result<Line, CaseError> {
        Ok(Line { v: self.num("v")?, c: self.num("c")?, sign: self.num("sign")? })
    }

    pub(super) fn direction(self) -> Result<Direction, CaseError> {
        self.choice(
            "direction",
            &[("lower_is_better", Direction::LowerIsBetter), ("higher_is_better", Direction::HigherIsBetter)],
        )
    }

    /// The `alternative`; two-sided if it is missing.
    pub(super) fn alternative(self) -> Result<Alternative, CaseError> {
        if !self.is_given("alternative") {
            return Ok(Alternative::TwoSided);
        }
        let names = [
            ("two-sided", TwoSided),
            ("two_sided", TwoSided),
            ("less", Less),
            ("smaller", Less),
            ("greater", Greater),
            ("larger", Greater),
        ];
        self.choice("alternative", &names)
    }

    /// Selects one of several options by name.
    pub(super) fn choice<T: Copy>(self, key: &str, options: &[(&str, T)]) -> Result<T, CaseError> {
        let value = self.text(key)?;
        let found = options.iter().find(|(name, _)| *name == value).map(|&(_, option)| option);
        found.ok_or_else(|| CaseError::Option { key: key.to_owned(), value: value.to_owned() })
    }

    pub(super) fn is_given(self, key: &str) -> bool {
        self.0.get(key).is_some_and(|value| !value.is_null())
    }

    fn list(self, key: &str) -> Result<&'a Vec<Value>, CaseError> {
        self.value(key)?.as_array().ok_or_else(|| key_error(key, "a list"))
    }
}

fn whole(value: &Value) -> Option<u64> {
    let of_float = |value: f64| (value >= 0.0 && value.fract() == 0.0 && value <= 9e15).then_some(value as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(of_float))
}

fn counts(value: &Value) -> Option<Vec<u64>> {
    value.as_array()?.iter().map(whole).collect()
}
