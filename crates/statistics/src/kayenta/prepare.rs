//! Prepares the values of one side before they are judged: missing values, outliers, descriptive statistics.

use crate::numeric::sqrt;

/// How to treat missing (NaN) values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NanStrategy {
    /// Missing values are dropped.
    #[default]
    Remove,
    /// Missing values are replaced by 0.
    Replace,
}

impl NanStrategy {
    /// Parses Kayenta's word. Unknown words mean [`Self::Remove`].
    pub fn parse(word: &str) -> Self {
        if word == "replace" { Self::Replace } else { Self::Remove }
    }

    /// Applies the strategy. The result contains no NaN.
    pub fn apply(self, values: &[f64]) -> Vec<f64> {
        match self {
            Self::Remove => remove_nan(values),
            Self::Replace => replace_nan(values, 0.0),
        }
    }
}

/// The values that are not NaN, in order.
pub fn remove_nan(values: &[f64]) -> Vec<f64> {
    values.iter().copied().filter(|value| !value.is_nan()).collect()
}

/// The values with each NaN replaced by `with`.
pub fn replace_nan(values: &[f64], with: f64) -> Vec<f64> {
    values.iter().map(|&value| if value.is_nan() { with } else { value }).collect()
}

/// A rule that decides which values are outliers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Detector {
    /// Values further from the mean than `factor` population standard deviations.
    KSigma {
        /// The factor, above 0.
        factor: f64,
    },
    /// Values outside the fences `P25 - factor IQR` and `P75 + factor IQR`.
    Iqr {
        /// The factor, above 0.
        factor: f64,
        /// Widens the fences to the 1st and 99th percentile if these are further out.
        reduce_sensitivity: bool,
    },
}

/// Whether each value is an outlier among `values`.
pub fn is_outlier(values: &[f64], detector: Detector) -> Vec<bool> {
    match detector {
        Detector::KSigma { factor } => {
            let center = mean(values);
            let limit = sqrt(population_variance(values)) * factor;
            values.iter().map(|value| (value - center).abs() > limit).collect()
        }
        Detector::Iqr { factor, reduce_sensitivity } => {
            let (p25, p75) = (percentile(values, 25.0), percentile(values, 75.0));
            let reach = factor * (p75 - p25);
            let (mut lower, mut upper) = (p25 - reach, p75 + reach);
            if reduce_sensitivity {
                lower = lower.min(percentile(values, 1.0));
                upper = upper.max(percentile(values, 99.0));
            }
            values.iter().map(|&value| value > upper || value < lower).collect()
        }
    }
}

/// The values that are not outliers, in order.
pub fn remove_outliers(values: &[f64], detector: Detector) -> Vec<f64> {
    let mask = is_outlier(values, detector);
    values.iter().zip(mask).filter(|(_, outlier)| !outlier).map(|(&value, _)| value).collect()
}

/// The percentile `p` (above 0, at most 100) with linear interpolation between order statistics, ignoring NaN. NaN
/// without values or for an invalid `p`.
pub fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = remove_nan(values);
    if sorted.is_empty() || !(p > 0.0 && p <= 100.0) {
        return f64::NAN;
    }
    sorted.sort_by(f64::total_cmp);
    let position = (sorted.len() - 1) as f64 * (p / 100.0) + 1.0;
    let below = libm::floor(position);
    let (low, high) = (sorted[below as usize - 1], sorted[(below as usize).min(sorted.len() - 1)]);
    low + (position - below) * (high - low)
}

/// The statistics that Kayenta reports for a side; all 0 without values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation; 0 for one value.
    pub std: f64,
    /// Number of values.
    pub count: usize,
}

/// The descriptive statistics of `values`.
pub fn summary(values: &[f64]) -> Summary {
    if values.is_empty() {
        return Summary::default();
    }
    Summary {
        min: smallest(values),
        max: largest(values),
        mean: mean(values),
        std: sqrt(sample_variance(values)),
        count: values.len(),
    }
}

pub(super) fn smallest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::min)
}

pub(super) fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}

/// Mean in two passes: the second pass adds what rounding lost in the first. NaN without values.
pub(super) fn mean(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let first = values.iter().sum::<f64>() / n;
    first + values.iter().map(|value| value - first).sum::<f64>() / n
}

/// Sum of squared deviations from the mean, corrected for rounding.
fn squares(values: &[f64]) -> f64 {
    let center = mean(values);
    let deviations = values.iter().map(|value| value - center);
    let sum: f64 = deviations.clone().sum();
    deviations.map(|deviation| deviation * deviation).sum::<f64>() - sum * sum / values.len() as f64
}

fn sample_variance(values: &[f64]) -> f64 {
    if values.len() == 1 { 0.0 } else { squares(values) / (values.len() as f64 - 1.0) }
}

fn population_variance(values: &[f64]) -> f64 {
    squares(values) / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_and_single_values_are_defined() {
        assert_eq!(summary(&[]), Summary::default());
        assert_eq!(summary(&[4.0]), Summary { min: 4.0, max: 4.0, mean: 4.0, std: 0.0, count: 1 });
        assert!(
            percentile(&[], 50.0).is_nan() && percentile(&[1.0], 0.0).is_nan() && percentile(&[1.0], 101.0).is_nan()
        );
        for factor in [1.0, 3.0] {
            assert!(is_outlier(&[], Detector::KSigma { factor }).is_empty());
            assert!(is_outlier(&[], Detector::Iqr { factor, reduce_sensitivity: true }).is_empty());
        }
    }

    #[test]
    fn the_wide_fences_keep_what_the_plain_ones_drop() {
        let mut values = vec![1.0; 98];
        values.extend([50.0, 60.0]);
        let drops = |reduce_sensitivity| {
            100 - remove_outliers(&values, Detector::Iqr { factor: 3.0, reduce_sensitivity }).len()
        };
        assert_eq!((drops(false), drops(true)), (2, 1));
    }
}
