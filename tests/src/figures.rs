//! Helpers of the benchmarks: percentiles, immediate output of lines, and the results file, one flat object.

use std::{collections::BTreeMap, fs, io::Write as _, path::Path};

use anyhow::Context as _;

/// Figures by name.
pub type Figures = BTreeMap<String, f64>;

/// The smallest value that at least `share` (0 to 1) of the values do not exceed; NaN if there are no values.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = ((share * sorted.len() as f64).ceil() as usize).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// Prints a line on standard output and flushes it.
///
/// # Errors
/// Standard output is closed.
pub fn print(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Writes the figures that are finite numbers, rounded to three digits, and prints the path.
///
/// # Errors
/// The file cannot be written.
pub fn write(figures: &Figures, path: &Path) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let finite = figures.iter().filter(|(_, value)| value.is_finite());
    let rounded: Figures = finite.map(|(name, value)| (name.clone(), (value * 1000.0).round() / 1000.0)).collect();
    let json = serde_json::to_string_pretty(&rounded)? + "\n";
    fs::write(path, json).with_context(|| format!("writing {}", path.display()))?;
    print(&format!("\nwritten to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_sample() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let at = |share| percentile(&values, share);
        assert_eq!((at(0.5), at(0.99), at(1.0)), (50.0, 99.0, 100.0));
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn the_file_is_one_flat_object_of_numbers() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("new/figures.json");
        let figures = [("a".to_owned(), 1.23456), ("b".to_owned(), f64::NAN)].into();
        write(&figures, &path)?;
        assert_eq!(fs::read_to_string(path)?, "{\n  \"a\": 1.235\n}\n");
        Ok(())
    }
}
