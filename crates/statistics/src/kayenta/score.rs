//! Combines the verdicts of all metrics into a score and its label.

use super::classify::Label;

/// A metric as input to the score. Muted metrics must be left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The judge's verdict on the metric.
    pub label: Label,
    /// Whether anything but a pass makes the score 0.
    pub critical: bool,
    /// The groups in which the metric counts.
    pub groups: Vec<String>,
}

/// A group's score.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupScore {
    /// The name of the group.
    pub name: String,
    /// `100 x Pass / (Pass + High + Low + NodataFailMetric)`. `None` if there are none of these; it is then reported as 0
    /// and counted as 100.
    pub score: Option<f64>,
}

impl GroupScore {
    /// The score that Kayenta reports.
    pub fn reported(&self) -> f64 {
        self.score.unwrap_or(0.0)
    }
}

/// The scores of a judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreReport {
    /// The scores per group, in order of appearance.
    pub groups: Vec<GroupScore>,
    /// The summary score. It is usually from 0 to 100, but the weights are not checked.
    pub summary: f64,
    /// Why the summary is 0 regardless of the groups, if it is.
    pub reason: Option<String>,
}

fn group_scores(metrics: &[Outcome]) -> Vec<GroupScore> {
    let mut names: Vec<&String> = Vec::new();
    for name in metrics.iter().flat_map(|metric| &metric.groups) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let score = |name: &String| {
        // A metric that names a group twice counts twice.
        let labels: Vec<Label> = metrics
            .iter()
            .flat_map(|metric| metric.groups.iter().filter(|group| *group == name).map(|_| metric.label))
            .collect();
        let count = |wanted: &[Label]| labels.iter().filter(|label| wanted.contains(label)).count() as f64;
        let judged = count(&[Label::Pass, Label::High, Label::Low, Label::NodataFailMetric]);
        GroupScore { name: name.clone(), score: (judged > 0.0).then(|| count(&[Label::Pass]) / judged * 100.0) }
    };
    names.into_iter().map(score).collect()
}

/// Rounds half-up (away from zero) to two decimals, based on the decimal representation of the number.
fn round_to_cents(value: f64) -> f64 {
    if !value.is_finite() {
        return value;
    }
    let printed = format!("{}", value.abs());
    let Some((whole, decimals)) = printed.split_once('.').filter(|(_, decimals)| decimals.len() > 2) else {
        return value;
    };
    let (kept, rest) = decimals.split_at(2);
    let up = rest.starts_with(['5', '6', '7', '8', '9']);
    // 17 significant digits and a third decimal fit easily into a u128.
    let Ok(cents) = format!("{whole}{kept}").parse::<u128>() else { return value };
    let cents = cents + u128::from(up);
    let rounded = format!("{}.{:02}", cents / 100, cents % 100).parse().unwrap_or(value.abs());
    if value < 0.0 { -rounded } else { rounded }
}

fn weighted(groups: &[GroupScore], weights: &[(String, f64)]) -> f64 {
    let weight_of = |name: &str| weights.iter().find(|(group, _)| group == name).map(|(_, weight)| *weight);
    let given: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let without = groups.iter().filter(|group| weight_of(&group.name).is_none()).count();
    let shared = if without == 0 { 0.0 } else { (100.0 - given) / without as f64 };
    let parts =
        groups.iter().map(|group| group.score.unwrap_or(100.0) * (weight_of(&group.name).unwrap_or(shared) / 100.0));
    round_to_cents(parts.sum())
}

/// The scores of metrics that are not muted, with the configured weights per group.
///
/// The summary is 0 if a critical metric did not pass, or if 50 % or more of the metrics have no data. Otherwise it is the
/// weighted sum of the group scores. Groups without a weight share what is left of 100.
pub fn score(metrics: &[Outcome], weights: &[(String, f64)]) -> ScoreReport {
    let groups = group_scores(metrics);
    let failed = metrics.iter().find(|metric| metric.critical && metric.label != Label::Pass);
    let without_data = metrics.iter().filter(|metric| metric.label == Label::Nodata).count();
    if let Some(failed) = failed {
        let reason = Some(format!("a critical metric ended as {}", failed.label.name()));
        return ScoreReport { groups, summary: 0.0, reason };
    }
    if !metrics.is_empty() && 2 * without_data >= metrics.len() {
        let reason = Some("50 % or more of the metrics have no data".to_owned());
        return ScoreReport { groups, summary: 0.0, reason };
    }
    let summary = weighted(&groups, weights);
    ScoreReport { groups, summary, reason: None }
}

/// The scores at which a judgement passes or is marginal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// The judgement passes at this score or above.
    pub pass: f64,
    /// The judgement is marginal at this score or above.
    pub marginal: f64,
}

/// The label of a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreLabel {
    /// At or above the pass threshold.
    Pass,
    /// At or above the marginal threshold.
    Marginal,
    /// Below both thresholds.
    Fail,
}

impl ScoreLabel {
    /// Kayenta's name for the label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "Pass",
            Self::Marginal => "Marginal",
            Self::Fail => "Fail",
        }
    }
}

impl Thresholds {
    /// The label for a score.
    pub fn label(self, score: f64) -> ScoreLabel {
        if score >= self.pass {
            ScoreLabel::Pass
        } else if score >= self.marginal {
            ScoreLabel::Marginal
        } else {
            ScoreLabel::Fail
        }
    }
}

/// Whether the run as a whole passes, based on the score of its last look: above `marginal` and at least `pass`. Without
/// thresholds it passes. A score that *equals* the marginal threshold is "Marginal" for the judge and a failure here.
pub fn passes_overall(last_score: f64, pass: Option<f64>, marginal: Option<f64>) -> bool {
    marginal.is_none_or(|marginal| last_score > marginal) && pass.is_none_or(|pass| last_score >= pass)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "rounded decimals are exact")]
mod tests {
    use super::*;

    #[test]
    fn rounds_the_decimal_print_half_up() {
        for (value, expected) in [
            (33.333_333_333, 33.33),
            (0.125, 0.13),
            (2.675, 2.68), // its binary value is below 2.675
            (99.995, 100.0),
            (-0.125, -0.13),
            (150.0, 150.0),
            (0.1 + 0.2, 0.3),
            (1e300, 1e300),
            (1e-9, 0.0),
        ] {
            assert_eq!(round_to_cents(value), expected, "{value}");
        }
        assert!(round_to_cents(f64::NAN).is_nan());
    }

    #[test]
    fn quirks_of_the_score_are_kept() {
        let metric = |label, critical, group: &str| Outcome { label, critical, groups: vec![group.to_owned()] };
        let weights = |a: f64, b: f64| [("a".to_owned(), a), ("b".to_owned(), b)];
        let both = [metric(Label::Pass, false, "a"), metric(Label::Pass, false, "b")];
        assert_eq!(score(&both, &weights(50.0, 30.0)).summary, 80.0);
        assert_eq!(score(&both, &weights(75.0, 75.0)).summary, 150.0);
        assert_eq!(score(&[], &[]), ScoreReport { groups: vec![], summary: 0.0, reason: None });
        let error = [metric(Label::Error, false, "a"), metric(Label::Pass, false, "b")];
        assert_eq!(score(&error, &[]).summary, 100.0);
        let missing = [metric(Label::NodataFailMetric, false, "a"), metric(Label::Pass, false, "a")];
        assert_eq!(score(&missing, &[]).summary, 50.0);
    }
}
