//! Scenarios: files that describe what to simulate, with the expected medians if a reference contains them.
//!
//! The scenarios of the specification's section 8 ship with the binary and are named after it.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serin_spec::{Bake, Margin, Require, RolloutSpec, Share, Step, units::Duration};

use super::{
    regression::number,
    report::{Report, Timed},
    run::End,
    world::Setup,
};
use crate::verbs::rate;

macro_rules! bundled {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../scenarios/", $name, ".yaml")))),+]
    };
}

/// The scenarios in the binary.
const SCENARIOS: &[(&str, &str)] = bundled![
    "8.1-healthy-88-hypotheses",
    "8.2-error-1-to-20",
    "8.2-error-1-to-2",
    "8.2-error-1-to-2-margin-0",
    "8.2-p99-times-1.5",
    "8.2-p99-times-1.5-tail",
    "8.2-confidence-minus-5",
    "8.2-confidence-minus-2",
    "8.2-ctr-minus-20",
    "8.2-ctr-minus-10",
    "8.2-ctr-minus-2",
    "8.2-segment-error-1-to-3",
    "8.2-error-1-to-2-at-30m",
    "8.2-pass-error-0.5",
    "8.2-pass-error-0.2",
    "8.2-pass-p99",
    "8.2-pass-confidence",
    "8.2-pass-ctr",
    "8.3-ramp-with-drift",
    "8.5-false-pass-at-the-margin",
    "fraud-recall",
    "ranking-ndcg",
    "shared-outage",
];

/// The rollout files that scenarios share.
const ROLLOUTS: &[(&str, &str)] = &[
    ("rollout-88-hypotheses", include_str!("../../scenarios/rollout-88-hypotheses.yaml")),
    ("rollout-ramp", include_str!("../../scenarios/rollout-ramp.yaml")),
    ("rollout-fraud", include_str!("../../../../examples/fraud.yaml")),
    ("rollout-ranking", include_str!("../../../../examples/ranking.yaml")),
];

/// One scenario, as in its file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Scenario {
    /// Name of the scenario, which is that of the file.
    #[serde(skip)]
    pub(crate) name: String,
    /// A sentence about what the scenario shows.
    pub(crate) about: String,
    /// The rollout file: in the scenario's directory, or in the binary.
    rollout: String,
    /// Request rate, such as `10000/min`.
    traffic: String,
    /// Number of runs of each case. The command line overrides it.
    #[serde(default)]
    pub(crate) runs: Option<u32>,
    /// Stable's values by metric.
    #[serde(default)]
    base: BTreeMap<String, String>,
    /// Share of the answers that a metric with conditions counts.
    #[serde(default)]
    counted: BTreeMap<String, String>,
    /// Shares of segment values, by dimension and value.
    #[serde(default)]
    shares: BTreeMap<String, BTreeMap<String, String>>,
    /// Regressions of the canary.
    #[serde(default)]
    regressions: Vec<String>,
    /// Rates that drift in both arms, or jump at a given time (`at`).
    #[serde(default)]
    drifts: Vec<String>,
    /// Margins by metric, instead of those in the rollout file.
    #[serde(default)]
    margins: BTreeMap<String, Margin>,
    /// One simulation for each case. Without cases, the rollout is simulated once, as in its file.
    #[serde(default)]
    pub(crate) cases: Vec<Case>,
}

/// One simulation of a scenario.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Case {
    /// The canary's share for one hour, instead of the ramp in the rollout file.
    #[serde(default)]
    weight: Option<Share>,
    /// The expected result.
    #[serde(default)]
    pub(crate) expect: Option<Expectation>,
}

/// The expected result of a case, from a reference.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Expectation {
    /// The event: `rolled_back` or another end, or `passes METRIC`.
    of: String,
    /// Expected median, in seconds.
    #[serde(default)]
    median: Option<f64>,
    /// Expected share of the runs with this event, such as `84%`.
    #[serde(default)]
    share: Option<String>,
    /// Largest allowed share of the runs with this event.
    #[serde(default)]
    at_most: Option<String>,
    /// How far the median may be above the expected one. Default: 20 % (the specification's goal G2).
    #[serde(default)]
    within: Option<String>,
    /// Whether a miss is a failure. `false`: the numbers are only shown for reference. Default: true.
    #[serde(default = "yes")]
    judged: bool,
}

fn yes() -> bool {
    true
}

/// An expected number and the measured one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Compared {
    pub(crate) sentence: String,
    /// Whether the expectation is met; `None`: it is only shown for reference.
    pub(crate) holds: Option<bool>,
}

/// How far a measured share may miss the expected one: three standard errors of some hundred runs.
const SHARE_SLACK: f64 = 0.08;

/// Names and descriptions of the scenarios in the binary.
pub(crate) fn names() -> anyhow::Result<Vec<(&'static str, String)>> {
    SCENARIOS.iter().map(|(name, text)| Ok((*name, parse(name, text)?.about))).collect()
}

/// A scenario by name, or by the path of its file.
pub(crate) fn find(asked: &str) -> anyhow::Result<(Scenario, RolloutSpec)> {
    let bare = asked.strip_suffix(".yaml").unwrap_or(asked);
    if let Some((name, text)) = SCENARIOS.iter().find(|(name, _)| *name == bare) {
        let scenario = parse(name, text)?;
        let spec = rollout(&scenario, None)?;
        return Ok((scenario, spec));
    }
    let path = Path::new(asked);
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("there is no scenario {asked:?}, and no such file; `serin simulate --list` lists all scenarios")
    })?;
    let name = path.file_stem().map_or_else(|| asked.to_owned(), |stem| stem.to_string_lossy().into_owned());
    let scenario = parse(&name, &text).with_context(|| format!("{asked} is not a valid scenario"))?;
    let spec = rollout(&scenario, path.parent())?;
    Ok((scenario, spec))
}

fn parse(name: &str, text: &str) -> anyhow::Result<Scenario> {
    let file = config::File::from_str(text, config::FileFormat::Yaml);
    let read = config::Config::builder().add_source(file).build().and_then(config::Config::try_deserialize);
    let scenario: Scenario = read.with_context(|| format!("scenario {name}"))?;
    Ok(Scenario { name: name.to_owned(), ..scenario })
}

fn rollout(scenario: &Scenario, folder: Option<&Path>) -> anyhow::Result<RolloutSpec> {
    let name = &scenario.rollout;
    let own = folder.map(|folder| folder.join(name)).filter(|path| path.exists());
    let bundled = || {
        let bare = name.strip_suffix(".yaml").unwrap_or(name);
        ROLLOUTS.iter().find(|(known, _)| *known == bare).map(|(_, text)| (*text).to_owned())
    };
    let text = match own {
        Some(path) => std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?,
        None => bundled().with_context(|| format!("scenario {}: there is no rollout file {name:?}", scenario.name))?,
    };
    serin_rollout::parse_yaml(&text).map_err(|problems| {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{name} is not a valid rollout file:\n  {}", all.join("\n  "))
    })
}

impl Scenario {
    /// The traffic and the regressions.
    pub(crate) fn setup(&self) -> anyhow::Result<Setup> {
        let named = |error: String| anyhow::anyhow!("scenario {}: {error}", self.name);
        let share = |(value, text): (&String, &String)| Ok((value.clone(), number(text)?));
        let values = |(name, values): (&String, &BTreeMap<String, String>)| {
            Ok((name.clone(), values.iter().map(share).collect::<Result<_, String>>()?))
        };
        let regression = |text: &String| text.parse().with_context(|| format!("scenario {}", self.name));
        Ok(Setup {
            per_second: rate(&self.traffic).map_err(named)?.per_second,
            base: self.base.iter().map(share).collect::<Result<_, _>>().map_err(named)?,
            counted: self.counted.iter().map(share).collect::<Result<_, _>>().map_err(named)?,
            shares: self.shares.iter().map(values).collect::<Result<_, _>>().map_err(named)?,
            regressions: self.regressions.iter().map(regression).collect::<Result<_, _>>()?,
            drifts: self.drifts.iter().map(regression).collect::<Result<_, _>>()?,
        })
    }

    /// The rollout of one case, with the scenario's margins and, if the case has a weight, one hour at it instead of the ramp.
    pub(crate) fn spec_of(&self, case: &Case, spec: &RolloutSpec) -> RolloutSpec {
        let mut spec = spec.clone();
        for metric in &mut spec.metrics {
            if let Some(margin) = self.margins.get(&metric.name) {
                metric.margin = Some(*margin);
            }
        }
        if let Some(weight) = case.weight {
            let hour = Duration::from_secs(3600);
            let bake = Bake { min: hour, max: hour, min_events: 0 };
            spec.steps = vec![Step {
                weight,
                mirror: None,
                bake,
                require: Some(Require::NoFail),
                group_sequential: None,
                approve: None,
            }];
        }
        spec
    }
}

impl Case {
    /// A heading for the case.
    pub(crate) fn title(&self) -> String {
        self.weight.map_or_else(|| "the ramp".to_owned(), |weight| format!("{weight} for an hour"))
    }
}

impl Expectation {
    /// Compares the expectation with a report.
    pub(crate) fn compare(&self, report: &Report) -> anyhow::Result<Vec<Compared>> {
        let share = |text: &String| number(text).map_err(|error| anyhow::anyhow!("an expectation: {error}"));
        let within = self.within.as_ref().map(share).transpose()?.unwrap_or(0.2);
        let timed = match self.of.strip_prefix("passes ") {
            Some(metric) => report.passed_in(0, metric),
            None if self.of == End::RolledBack.name() => report.rollback,
            None => {
                let end = End::ALL.into_iter().find(|end| end.name() == self.of);
                let end = end.with_context(|| {
                    format!(
                        "the `of` of an expectation must be an end such as `rolled_back`, or `passes METRIC`, not {:?}",
                        self.of
                    )
                })?;
                Timed { share: report.end(end).map_or(0.0, |end| end.share), ..Timed::default() }
            }
        };
        let mut points: Vec<(String, bool)> = Vec::new();
        if let Some(expected) = self.median {
            let measured = timed.median_seconds;
            let found = measured.map_or_else(|| "none".to_owned(), |seconds| format!("{seconds:.0} s"));
            let holds = measured.is_some_and(|seconds| seconds <= expected * (1.0 + within));
            let sentence = format!(
                "median of {}: {found}, expected {expected:.0} s, up to {:.0} % above",
                self.of,
                within * 100.0
            );
            points.push((sentence, holds));
        }
        if let Some(expected) = self.share.as_ref().map(share).transpose()? {
            let sentence =
                format!("share of {}: {:.1} %, expected {:.1} %", self.of, 100.0 * timed.share, 100.0 * expected);
            points.push((sentence, timed.share >= expected - SHARE_SLACK));
        }
        if let Some(most) = self.at_most.as_ref().map(share).transpose()? {
            let sentence =
                format!("share of {}: {:.2} %, expected at most {:.2} %", self.of, 100.0 * timed.share, 100.0 * most);
            points.push((sentence, timed.share <= most));
        }
        let compared = |(sentence, holds)| Compared { sentence, holds: self.judged.then_some(holds) };
        Ok(points.into_iter().map(compared).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::World;

    #[test]
    fn every_scenario_in_the_binary_can_be_played() {
        let names = names().unwrap();
        assert_eq!(names.len(), SCENARIOS.len());
        for (name, about) in names {
            assert!(!about.is_empty(), "{name}");
            let (scenario, spec) = find(name).unwrap();
            let setup = scenario.setup().unwrap();
            for case in &scenario.cases {
                let spec = scenario.spec_of(case, &spec);
                let problems = serin_rollout::lint(&spec, None);
                let errors = problems.iter().filter(|problem| problem.severity == serin_spec::Severity::Error);
                assert_eq!(errors.count(), 0, "{name}: {problems:?}");
                World::new(&spec.normalized(), &setup).unwrap();
            }
        }
    }

    #[test]
    fn the_88_hypotheses_are_88() {
        let (_, spec) = find("8.2-error-1-to-2.yaml").unwrap();
        let spec = spec.normalized();
        let values = |metric: &serin_spec::MetricSpec| {
            let own = spec.segments.iter().filter(|segment| metric.segments.contains(&segment.name));
            own.map(|segment| segment.top + 1).sum::<usize>()
        };
        // And the gate `refused`, which every rollout has.
        assert_eq!(spec.metrics.iter().map(|metric| 1 + values(metric)).sum::<usize>(), 88 + 1);
    }

    #[test]
    fn an_unknown_scenario_is_an_error() {
        let error = find("8.9-nothing").unwrap_err().to_string();
        assert!(error.contains("there is no scenario \"8.9-nothing\"") && error.contains("--list"), "{error}");
    }
}
