//! The table and the results file.

use std::path::Path;

use serin_tests::figures::{Figures, print};

/// The target of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// The figure has no target.
    None,
}

/// All figures, printed as they are added.
#[derive(Debug, Default)]
pub(crate) struct Report(Figures);

impl Report {
    /// Prints a heading.
    #[expect(clippy::unused_self, reason = "all that is printed goes through the report")]
    pub(crate) fn section(&self, title: &str) -> anyhow::Result<()> {
        print(&format!("\n{title}"))
    }

    /// Prints a line of text.
    #[expect(clippy::unused_self, reason = "all that is printed goes through the report")]
    pub(crate) fn note(&self, text: &str) -> anyhow::Result<()> {
        print(&format!("  {text}"))
    }

    /// Adds a figure: its name in the file, its description, its value and its target.
    pub(crate) fn add(&mut self, key: &str, what: &str, value: f64, unit: &str, target: Target) -> anyhow::Result<()> {
        let shown = match value.abs() {
            0.0..10.0 => format!("{value:.2}"),
            10.0..1000.0 => format!("{value:.1}"),
            _ => thousands(value),
        };
        let verdict = match target {
            Target::AtLeast(target) => format!(">= {:<9} {}", thousands(target), met(value >= target)),
            Target::AtMost(target) => format!("<= {target:<9} {}", met(value <= target)),
            Target::None => String::new(),
        };
        self.0.insert(key.to_owned(), value);
        print(format!("  {what:<58} {shown:>12} {unit:<14} {verdict}").trim_end())
    }

    /// Adds measured figures.
    pub(crate) fn get(&self, key: &str) -> Option<f64> {
        self.0.get(key).copied()
    }

    /// Writes the results file, one flat object.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        serin_tests::figures::write(&self.0, path)
    }
}

fn met(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    if value < 0.0 { format!("-{out}") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            (thousands(1_234_567.4), thousands(999.0), thousands(-1000.0)),
            ("1 234 567".into(), "999".into(), "-1 000".into())
        );
    }
}
