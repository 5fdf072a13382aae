//! The table and the file of results.

use std::{collections::BTreeMap, fs, io::Write as _, path::Path};

use anyhow::Context as _;

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Told beside the others.
    None,
}

/// All figures, printed as they come.
#[derive(Debug, Default)]
pub(crate) struct Report(BTreeMap<String, f64>);

impl Report {
    /// A heading.
    #[expect(clippy::unused_self, reason = "all that is printed goes through the report")]
    pub(crate) fn section(&self, title: &str) -> anyhow::Result<()> {
        print(&format!("\n{title}"))
    }

    /// A line of text.
    #[expect(clippy::unused_self, reason = "all that is printed goes through the report")]
    pub(crate) fn note(&self, text: &str) -> anyhow::Result<()> {
        print(&format!("  {text}"))
    }

    /// A figure: its name in the file, what it is, its value and its target.
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
        self.0.insert(key.to_owned(), (value * 1000.0).round() / 1000.0);
        print(format!("  {what:<58} {shown:>12} {unit:<14} {verdict}").trim_end())
    }

    /// Figures that were measured.
    pub(crate) fn get(&self, key: &str) -> Option<f64> {
        self.0.get(key).copied()
    }

    /// Writes one flat object.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let json = serde_json::to_string_pretty(&self.0)? + "\n";
        fs::write(path, json).with_context(|| format!("writing {}", path.display()))?;
        print(&format!("\nwritten to {}", path.display()))
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

fn print(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The value that a share (0 to 1) of the sorted values does not exceed.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = ((share * sorted.len() as f64).ceil() as usize).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_sample() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(
            (percentile(&values, 0.5), percentile(&values, 0.99), percentile(&values, 1.0)),
            (50.0, 99.0, 100.0)
        );
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            (thousands(1_234_567.4), thousands(999.0), thousands(-1000.0)),
            ("1 234 567".into(), "999".into(), "-1 000".into())
        );
    }
}
