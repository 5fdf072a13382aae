//! Figures with their Monte Carlo errors and bounds, as text and as JSON.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// A share, 0 to 1.
    Share,
    /// Seconds of event time.
    Seconds,
}

impl Unit {
    /// A figure with its unit; an infinite figure is "never".
    pub(crate) fn text(self, value: f64) -> String {
        match self {
            _ if value.is_infinite() => "never".to_owned(),
            Self::Share => format!("{:.2} %", 100.0 * value),
            Self::Seconds => format!("{value:.0} s"),
        }
    }
}

/// The bound on a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    /// The figure must not be above this value.
    AtMost(f64),
    /// The figure must not be below this value.
    AtLeast(f64),
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    /// The gate to which the row belongs, such as `G1`.
    pub(super) gate: String,
    /// What was simulated.
    pub(crate) name: String,
    /// Unit of the figures.
    pub(crate) unit: Unit,
    /// The simulated figure.
    pub(super) figure: f64,
    /// The Monte Carlo standard error of the figure.
    pub(crate) error: f64,
    /// The bound on the figure. A row without a bound is for comparison.
    pub(super) bound: Option<Bound>,
    /// Related figures: from the table, or of another tool.
    pub(crate) note: String,
}

impl Row {
    /// Creates a row for comparison. Add a bound with [`Self::at_most`] or [`Self::at_least`].
    pub(crate) fn new(gate: &str, name: impl Into<String>, unit: Unit, (figure, error): (f64, f64)) -> Self {
        Self { gate: gate.to_owned(), name: name.into(), unit, figure, error, bound: None, note: String::new() }
    }

    /// Sets an upper bound.
    #[must_use]
    pub(crate) fn at_most(self, bound: f64) -> Self {
        Self { bound: Some(Bound::AtMost(bound)), ..self }
    }

    /// Sets a lower bound.
    #[must_use]
    pub(crate) fn at_least(self, bound: f64) -> Self {
        Self { bound: Some(Bound::AtLeast(bound)), ..self }
    }

    /// Adds a note.
    #[must_use]
    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// Whether the figure is within the bound; `None` without a bound.
    pub(crate) fn passes(&self) -> Option<bool> {
        self.bound.map(|bound| match bound {
            Bound::AtMost(most) => self.figure <= most,
            Bound::AtLeast(least) => self.figure >= least,
        })
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let result = match self.passes() {
            Some(true) => "pass",
            Some(false) => "MISS",
            None => "-",
        };
        let bound = match self.bound {
            Some(Bound::AtMost(most)) => format!("<= {}", self.unit.text(most)),
            Some(Bound::AtLeast(least)) => format!(">= {}", self.unit.text(least)),
            None => String::new(),
        };
        let figure = format!("{} ± {}", self.unit.text(self.figure), self.unit.text(self.error));
        let line = format!("{:<5} {result:<5} {figure:<20} {bound:<12} {}", self.gate, self.name);
        write!(f, "{line}{}{}", if self.note.is_empty() { "" } else { "; " }, self.note)
    }
}

/// Share of `true`, with its standard error. The error is computed with one more hit and one more miss, so that it is never zero.
pub(crate) fn share(hits: impl IntoIterator<Item = bool>) -> (f64, f64) {
    let (mut n, mut k) = (0.0, 0.0);
    for hit in hits {
        n += 1.0;
        k += f64::from(u8::from(hit));
    }
    let p = (k + 1.0) / (n + 2.0);
    (k / n, (p * (1.0 - p) / n).sqrt())
}

/// The `level`-quantile of times (infinite means never), with a standard error from the order statistics around it.
pub(crate) fn quantile(times: &[f64], level: f64) -> (f64, f64) {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let at = |rank: f64| sorted[(rank.max(0.0) as usize).min(sorted.len() - 1)];
    let spread = (n * level * (1.0 - level)).sqrt();
    let half = 0.5 * (at(n * level + spread) - at(n * level - spread));
    (at(n * level), if half.is_finite() { half } else { f64::INFINITY })
}
