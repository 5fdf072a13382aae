//! Chi-square tests of class counts and of a traffic split.

use crate::laws::chi_square_sf;
use crate::numeric::{ln, sqrt};

/// A chi-square statistic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChiSquare {
    /// The chi-square statistic.
    pub chi2: f64,
    /// Degrees of freedom.
    pub df: u64,
    /// The p-value.
    pub p: f64,
}

/// Pearson's test of whether counts follow the given weights (any positive scale), for example of a traffic split. `None`
/// for fewer than two cells, different lengths, no counts, or a weight that is not positive.
pub fn goodness_of_fit(counts: &[u64], weights: &[f64]) -> Option<ChiSquare> {
    let (n, scale) = (total(counts), weights.iter().sum::<f64>());
    let sensible = weights.iter().all(|&weight| weight > 0.0) && scale.is_finite();
    if counts.len() != weights.len() || counts.len() < 2 || n <= 0.0 || !sensible {
        return None;
    }
    let part = |(&count, &weight): (&u64, &f64)| {
        let expected = n * weight / scale;
        (count as f64 - expected) * (count as f64 - expected) / expected
    };
    let chi2: f64 = counts.iter().zip(weights).map(part).sum();
    let df = counts.len() as u64 - 1;
    Some(ChiSquare { chi2, df, p: chi_square_sf(chi2, df as f64) })
}

/// Whether the rows of a table have the same distribution of classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Homogeneity {
    /// Pearson's statistic.
    pub pearson: ChiSquare,
    /// The likelihood-ratio statistic `G` (in the field `chi2`), with the same degrees of freedom.
    pub likelihood_ratio: ChiSquare,
    /// Cramér's V: 0 for equal distributions, 1 for disjoint ones. It does not grow with the number of answers.
    pub cramers_v: f64,
}

/// Tests the homogeneity of the rows (arms) of a table of class counts: Pearson without continuity correction, and `G`. Classes that are
/// in no row are left out. `None` for rows of different lengths, an empty row, or fewer than two rows or classes.
pub fn homogeneity(table: &[Vec<u64>]) -> Option<Homogeneity> {
    let width = table.first()?.len();
    let rows: Vec<f64> = table.iter().map(|row| total(row)).collect();
    if table.len() < 2 || table.iter().any(|row| row.len() != width) || rows.iter().any(|&row| row <= 0.0) {
        return None;
    }
    let columns: Vec<f64> = (0..width).map(|class| table.iter().map(|row| row[class] as f64).sum()).collect();
    let classes = columns.iter().filter(|&&column| column > 0.0).count();
    if classes < 2 {
        return None;
    }
    let n: f64 = rows.iter().sum();
    let (mut chi2, mut g) = (0.0, 0.0);
    for (row, size) in table.iter().zip(&rows) {
        for (&count, column) in row.iter().zip(&columns).filter(|(_, column)| **column > 0.0) {
            let (count, expected) = (count as f64, size * column / n);
            chi2 += (count - expected) * (count - expected) / expected;
            if count > 0.0 {
                g += 2.0 * count * ln(count / expected);
            }
        }
    }
    let df = (table.len() as u64 - 1) * (classes as u64 - 1);
    let of = |chi2: f64| ChiSquare { chi2, df, p: chi_square_sf(chi2, df as f64) };
    let smaller = (table.len() - 1).min(classes - 1) as f64;
    Some(Homogeneity { pearson: of(chi2), likelihood_ratio: of(g), cramers_v: sqrt(chi2 / (n * smaller)) })
}

fn total(counts: &[u64]) -> f64 {
    counts.iter().map(|&count| count as f64).sum()
}
