//! The evidence on one metric in one segment: the hypothesis of the statistics and what the analyzer keeps with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_kinds::Metric as _;
use serin_schemas::ids::EventTime;
use serin_sketches::{Buckets, Summary};
use serin_spec::{MetricSpec, Rules};
use serin_statistics::{
    Against, Hypothesis, LooksError, LooksPlan, ObserveError, PlannedLooks, SpecError, Stratum, StratumPasts,
    cluster::tempering_of_next_window,
};

use crate::{arms::BothArms, head::Era, latest::Latest, plan::Plan, units::Units};

/// Evidence on one hypothesis. Each hypothesis has its own row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Evidence {
    /// The e-processes and estimates.
    pub(crate) test: Hypothesis,
    /// Observations of the canary in compared windows, whether or not the test could use them.
    pub(crate) canary_seen: u64,
    /// Observations of control in compared windows.
    pub(crate) control_seen: u64,
    /// End of the window in which it failed.
    pub(crate) failed_at: Option<EventTime>,
    /// End of the last window with observations of both arms.
    pub(crate) through: Option<EventTime>,
    /// How many answers counted as one in the last window, where units are assigned.
    pub(crate) design_effect: Option<f64>,
    /// The planned looks that decide a pass in a step that asks for them. In a separate row, so that rows without looks do not change.
    #[serde(skip)]
    pub(crate) looks: Option<Looks>,
    /// Control's past per value, if the metric is stratified. In a separate row.
    #[serde(skip)]
    pub(crate) pasts: StratumPasts,
    /// What units have added, where a key assigns the arm. In a separate row.
    #[serde(skip)]
    pub(crate) units: Units,
    /// The latest windows. In separate rows.
    #[serde(skip)]
    pub(crate) latest: Latest,
}

/// Planned looks and their step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Looks {
    pub(crate) step: i32,
    pub(crate) test: PlannedLooks,
}

impl Evidence {
    /// No evidence yet on a metric.
    pub(crate) fn new(metric: &MetricSpec, rules: Rules, horizon: u32, interval_alpha: f64) -> Result<Self, SpecError> {
        let evidence = Self {
            test: Hypothesis::new(metric.hypothesis(rules.count_by_value(), horizon, interval_alpha))?,
            canary_seen: 0,
            control_seen: 0,
            failed_at: None,
            through: None,
            design_effect: None,
            looks: None,
            pasts: StratumPasts::default(),
            units: Units::default(),
            latest: Latest::default(),
        };
        Ok(evidence.under(rules))
    }

    /// The same evidence, judged under these rules. Rows do not contain this part of the rules.
    pub(crate) fn under(mut self, rules: Rules) -> Self {
        if !rules.pass_at_ends() {
            self.test.without_ends();
        }
        self
    }

    /// Starts the planned looks of a step.
    pub(crate) fn plan_looks(&mut self, step: i32, plan: LooksPlan) -> Result<(), LooksError> {
        let test = PlannedLooks::new(self.test.spec(), plan)?;
        self.restore_looks(Looks { step, test });
        Ok(())
    }

    /// Takes planned looks that have already started.
    pub(crate) fn restore_looks(&mut self, mut looks: Looks) {
        if !self.test.has_ends() {
            looks.test.without_ends();
        }
        self.looks = Some(looks);
    }

    /// Whether control is ignored, because the metric has a limit.
    pub(crate) fn is_one_arm(&self) -> bool {
        matches!(self.test.spec().against, Against::Limit { .. })
    }

    /// Lets the next windows count for less: this many answers are worth one. `None` while nothing is known of units.
    pub(crate) fn temper(&mut self, design_effect: Option<f64>) {
        self.design_effect = design_effect;
        self.test.temper(tempering_of_next_window(design_effect.unwrap_or(1.0)));
    }

    /// Takes what units add to a window that was observed.
    pub(crate) fn observe_units(&mut self, pairs: &[[Summary; 2]], by_group: bool) {
        let strata: Vec<Stratum<'_>> = pairs.iter().map(|[canary, control]| Stratum { canary, control }).collect();
        self.test.observe_units(&strata, by_group, &mut self.units.sums);
    }

    /// Takes one window: canary and control per generation.
    pub(crate) fn observe(&mut self, end: EventTime, pairs: &[BothArms]) -> Result<(), ObserveError> {
        let before = self.test.windows();
        let strata: Vec<Stratum<'_>> = pairs.iter().map(BothArms::stratum).collect();
        match pairs.iter().map(|pair| pair.place).collect::<Option<Vec<usize>>>() {
            Some(places) => self.test.observe_by(end.0, &strata, &places, &mut self.pasts)?,
            None => self.test.observe(end.0, &strata)?,
        }
        if let Some(looks) = &mut self.looks {
            let of_step = pairs.iter().filter(|pair| pair.step == looks.step);
            looks.test.observe(&of_step.map(BothArms::stratum).collect::<Vec<_>>());
        }
        for BothArms { canary, control, .. } in pairs {
            self.canary_seen = self.canary_seen.saturating_add(canary.n());
            self.control_seen = self.control_seen.saturating_add(control.n());
        }
        if self.test.windows() > before {
            self.through = Some(end);
        }
        Ok(())
    }
}

/// What a hypothesis compares in a window: its own summaries, which no other hypothesis needs, or those of its strata. A hypothesis
/// over all traffic comes before those of single values.
pub(crate) fn pairs(
    plan: &Plan,
    index: usize,
    by_index: &mut [[BTreeMap<usize, Summary>; 2]],
    eras: &[Era],
) -> Vec<BothArms> {
    let empty = &plan.metrics[plan.hypotheses[index].metric].empty;
    let strata = plan.strata(index);
    let mut pairs = Vec::new();
    for (arms, era) in by_index.iter_mut().zip(eras) {
        let mut add = |place, arms: [Option<Summary>; 2]| {
            if arms.iter().any(Option::is_some) {
                let [canary, control] = arms.map(|arm| arm.unwrap_or_else(|| empty.clone()));
                pairs.push(BothArms { step: era.step, place, canary, control });
            }
        };
        if strata.is_empty() {
            add(None, arms.each_mut().map(|arm| arm.remove(&index)));
        }
        for (place, stratum) in strata.iter().enumerate() {
            add(Some(place), arms.each_ref().map(|arm| arm.get(stratum).cloned()));
        }
    }
    pairs
}

/// What units add to a hypothesis in a window: canary and control, per generation or per stratum.
pub(crate) fn units(plan: &Plan, index: usize, by_index: &[[BTreeMap<usize, Summary>; 2]]) -> Vec<[Summary; 2]> {
    let strata = plan.strata(index);
    let places = if strata.is_empty() { vec![index] } else { strata };
    let sums = |arm: &BTreeMap<usize, Summary>, place: &usize| {
        arm.get(place).cloned().unwrap_or_else(|| Summary::Buckets(Buckets::new()))
    };
    let of_era = |arms: &[BTreeMap<usize, Summary>; 2]| -> Vec<[Summary; 2]> {
        places.iter().map(|place| arms.each_ref().map(|arm| sums(arm, place))).collect()
    };
    by_index.iter().flat_map(of_era).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};
    use serin_rollout::lint;
    use serin_schemas::records::Role;
    use serin_spec::{Direction, Limit, Margin, MetricKind, MetricSource, RolloutSpec};

    use super::*;

    const SPEC: &str = r#"{"apiVersion": "serin.dev/v1", "kind": "Rollout", "model": "flights",
        "stable": {"version": "v1"}, "canary": {"version": "v2"},
        "steps": [{"mirror": "10%"},
            {"weight": "5%", "bake": {"min": "1m", "max": "20m"}, "require": "pass", "groupSequential": {"answers": 100000}}],
        "outputs": [{"name": "score", "source": {"tensor": "score"}, "min": 0, "max": 1},
            {"name": "tokens", "source": {"tensor": "tokens"}},
            {"name": "label", "source": {"tensor": "label"}, "kind": "class"}],
        "metrics": [{"name": "m", "kind": "rate", "source": "failed", "margin": {"absolute": 0.01}}]}"#;

    /// Numbers that users write, and some that are never sensible.
    fn number() -> impl Strategy<Value = f64> {
        let written = select(vec![
            0.0,
            1e-300,
            1e-12,
            0.004,
            0.005,
            0.011,
            0.02,
            0.1,
            0.5,
            0.97,
            0.98,
            0.999,
            1.0,
            1.5,
            5.0,
            20.0,
            499.0,
            500.0,
            1e6,
            1e12,
            1e16,
            1e300,
            f64::MAX,
            f64::INFINITY,
            f64::NAN,
            -0.1,
            -1.0,
            -1e300,
        ]);
        prop_oneof![written, 0.0..1.0_f64, 0.0..1000.0_f64]
    }

    fn kind() -> impl Strategy<Value = MetricKind> {
        prop_oneof![
            Just(MetricKind::Rate),
            (number(), number()).prop_map(|(min, max)| MetricKind::Mean { min, max }),
            Just(MetricKind::Mean { min: 0.0, max: 1.0 }),
            number().prop_map(|cap| MetricKind::CappedMean { cap }),
            Just(MetricKind::CappedMean { cap: 500.0 }),
            number().prop_map(|level| MetricKind::Quantile { level }),
            Just(MetricKind::Quantile { level: 0.99 }),
            Just(MetricKind::Distribution),
            Just(MetricKind::Classes),
            Just(MetricKind::Count),
            Just(MetricKind::Disagreement),
        ]
    }

    fn source() -> impl Strategy<Value = MetricSource> {
        let output = |name: &str| MetricSource::Output(name.to_owned());
        select(vec![
            MetricSource::Failed,
            MetricSource::Status,
            MetricSource::Latency,
            output("score"),
            output("tokens"),
            output("llm.tool_calls"),
            MetricSource::Class { output: "label".to_owned(), is: None },
            MetricSource::Feedback("gain".to_owned()),
            MetricSource::LabelDelay("gain".to_owned()),
            MetricSource::Wrong { output: "score".to_owned(), label: "gain".to_owned(), threshold: 0.5 },
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

        /// The property that keeps lint and analyzer consistent for every kind.
        #[test]
        fn the_analyzer_can_start_what_lint_accepts(
            kind in kind(), source in source(), lower: bool, watch: bool,
            margin in proptest::option::of((proptest::option::of(number()), proptest::option::of(number()))),
            limit in proptest::option::of((proptest::option::of(number()), proptest::option::of(number()))),
        ) {
            let mut spec: RolloutSpec = serde_json::from_str(SPEC).unwrap();
            let metric = &mut spec.metrics[0];
            (metric.kind, metric.source) = (kind, source);
            metric.direction = if lower { Direction::LowerIsBetter } else { Direction::HigherIsBetter };
            metric.role = if watch { Role::Watch } else { Role::Gate };
            metric.margin = margin.map(|(absolute, relative)| Margin { absolute, relative });
            metric.limit = limit.map(|(pass, fail)| Limit { pass, fail });
            if metric.source.needs_label() {
                metric.maturity = serin_spec::units::Duration::from_secs(600);
            }
            let refused = |spec: &RolloutSpec| {
                lint(spec, None).iter().any(|problem| problem.severity == serin_spec::Severity::Error)
            };
            if refused(&spec) {
                // The planned looks may be the only problem.
                spec.steps[1].group_sequential = None;
            }
            if refused(&spec) {
                return Ok(());
            }
            for rules in [Rules::OLDEST, Rules::CURRENT] {
                let plan = Plan::new(spec.normalized(), rules);
                for (index, metric) in plan.spec.metrics.iter().enumerate() {
                    let started = Evidence::new(metric, rules, plan.horizon(), plan.spec.decision.false_promotion);
                    let mut started = started.map_err(|error| TestCaseError::fail(format!("{metric:?}: {error}")))?;
                    prop_assert_eq!(started.test.spec().measure.summary(), plan.metrics[index].empty.kind());
                    let looks = plan.looks(index).map_or(Ok(()), |(step, looks)| started.plan_looks(step, looks));
                    prop_assert!(looks.is_ok(), "{metric:?}: {looks:?}");
                    prop_assert_eq!(started.test.observe_warmup(&plan.metrics[index].empty), Ok(()));
                }
            }
        }
    }

    #[test]
    fn lint_refuses_what_the_statistics_refuse() {
        let margin = |absolute, relative| (Some(Margin { absolute, relative }), None);
        let limit = |fail| (None, Some(Limit { pass: None, fail: Some(fail) }));
        let tool_calls = || MetricSource::Output("llm.tool_calls".to_owned());
        for (kind, source, (margin, limit)) in [
            (MetricKind::Quantile { level: 0.99 }, MetricSource::Latency, margin(None, Some(0.005))),
            (MetricKind::Quantile { level: 0.5 }, MetricSource::Latency, margin(Some(5.0), Some(0.005))),
            (MetricKind::Count, tool_calls(), limit(1e16)),
            (MetricKind::Count, tool_calls(), limit(1e6)),
            (MetricKind::Count, tool_calls(), margin(Some(0.1), None)),
            (MetricKind::Rate, MetricSource::Failed, limit(1.0)),
            (MetricKind::CappedMean { cap: 500.0 }, MetricSource::Latency, limit(600.0)),
        ] {
            let mut spec: RolloutSpec = serde_json::from_str(SPEC).unwrap();
            spec.steps[1].group_sequential = None;
            let metric = &mut spec.metrics[0];
            (metric.kind, metric.source, metric.margin, metric.limit) = (kind, source, margin, limit);
            let errors =
                lint(&spec, None).into_iter().filter(|problem| problem.severity == serin_spec::Severity::Error);
            assert_eq!(errors.count(), 1, "{:?}", spec.metrics[0]);
            let refused = Evidence::new(&spec.metrics[0], Rules::CURRENT, 10, 0.05);
            assert!(refused.is_err(), "{:?}", spec.metrics[0]);
        }
    }
}
