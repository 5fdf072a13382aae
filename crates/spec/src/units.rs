//! Units in specs: time spans (`6h`) and shares (`5%`).

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serin_schemas::ids::Span;

/// A time span, written `500ms`, `10s`, `5m`, `6h` or `2d`, or a sum such as `1h30m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub Span);

impl Duration {
    /// A time span of whole seconds.
    pub fn from_secs(secs: i64) -> Self {
        Self(Span::from_secs(secs))
    }

    /// Whether the time span is zero.
    pub fn is_zero(self) -> bool {
        self.0.0 == 0
    }

    /// Parses the written form.
    ///
    /// # Errors
    /// Returns a sentence that describes the expected form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a time span; write for example 500ms, 10s, 5m, 6h or 2d");
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self::default());
        }
        let mut total: i64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: i64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let unit = match &rest[..letters] {
                "ms" => 1_000,
                "s" => 1_000_000,
                "m" => 60_000_000,
                "h" => 3_600_000_000,
                "d" => 86_400_000_000,
                _ => return Err(wrong()),
            };
            rest = &rest[letters..];
            total = number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        }
        if text.trim().is_empty() { Err(wrong()) } else { Ok(Self(Span(total))) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.0;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, name) in
            [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")]
        {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A time span: 500ms, 10s, 5m, 6h, 2d, 1h30m.",
            "pattern": "^(0|([0-9]+(ms|s|m|h|d))+)$"
        })
    }
}

/// A share of the traffic in steps of 1/10000, written `5%` or `0.25%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(pub i32);

impl Share {
    /// 100 %.
    pub const ALL: Self = Self(10_000);

    /// Whether the share is 0.
    pub fn is_none(&self) -> bool {
        self.0 == 0
    }

    /// The share as a fraction of 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1e4
    }

    /// Parses the written form.
    ///
    /// # Errors
    /// Returns a sentence that describes the expected form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a share; write for example 5% or 0.25%, in steps of 0.01%, up to 100%");
        let number: f64 = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim().parse().map_err(|_| wrong())?;
        let steps = number * 100.0;
        let rounded = steps.round();
        if !(0.0..=10_000.0).contains(&rounded) || (steps - rounded).abs() > 1e-6 {
            return Err(wrong());
        }
        Ok(Self(rounded as i32))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 100.0)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A share of the traffic, in steps of 0.01%: 5%, 0.25%.",
            "pattern": "^[0-9]+(\\.[0-9]{1,2})?%$"
        })
    }
}
