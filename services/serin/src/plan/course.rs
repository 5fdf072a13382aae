//! A forecast: each metric in each step, the course of a rollout, and its cost.

use serde::Serialize;
use serin_schemas::records::Role;

/// The whole forecast.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Forecast {
    pub(crate) requests_per_second: f64,
    pub(crate) hypotheses: usize,
    pub(crate) steps: Vec<StepForecast>,
    /// The course of a canary equal to stable.
    pub(crate) healthy: Course,
    /// The course for each regression, if it is there from the canary's first request on.
    pub(crate) regressions: Vec<Regressed>,
    pub(crate) cost: Cost,
    pub(crate) advice: Vec<String>,
}

/// One step of the ramp.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct StepForecast {
    /// Index of the step, from 0.
    pub(super) step: usize,
    pub(super) weight: f64,
    pub(super) canary_per_second: f64,
    /// Control answers per canary answer.
    pub(super) control_ratio: f64,
    pub(super) metrics: Vec<MetricStep>,
}

/// One metric in one step, over all traffic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct MetricStep {
    pub(super) metric: String,
    pub(super) role: Role,
    /// Stable's expected value.
    pub(super) stable: f64,
    /// The value beyond which it can fail.
    pub(super) border: Option<f64>,
    /// The value nearest to the border that is expected to fail within `bake.min`.
    pub(super) seen_by_min: Option<f64>,
    /// The value nearest to the border that is expected to fail within `bake.max`.
    pub(super) seen_by_max: Option<f64>,
    /// The regressed value that the following fields refer to.
    pub(super) regressed: f64,
    /// Time until it fails, if the regression is there from the start of the step.
    pub(super) fail: Option<Reach>,
    /// Time until nine of ten such canaries have failed.
    pub(super) fail_most: Option<Reach>,
    /// Time until it passes, if the canary is equal to stable.
    pub(crate) pass: Option<Reach>,
    /// Time until nine of ten such canaries have passed; `None` if it passes at planned looks.
    pub(super) pass_most: Option<Reach>,
    /// Share of canaries equal to stable for which it has passed by `bake.max`.
    pub(super) passed_by_max: f64,
    /// Requests that the canary answers until it is rolled back.
    pub(super) requests_at_risk: Option<f64>,
    /// For rates and counts: events on these requests beyond those that stable would have had.
    pub(super) extra_events: Option<f64>,
}

/// When a result is expected.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Reach {
    /// Number of canary answers.
    pub(super) answers: f64,
    /// Seconds from the start of the step, in whole windows. Includes the wait for labels and the windows that are left out at the start.
    pub(super) seconds: f64,
}

/// The course of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Course {
    /// `promoted`, `rolled_back` or `held`.
    pub(super) end: &'static str,
    /// The step it ends in, from 0.
    pub(super) step: usize,
    /// Seconds from the canary's first request.
    pub(super) seconds: f64,
    /// Seconds spent in each step.
    pub(super) steps: Vec<f64>,
    /// Requests that the canary answers.
    pub(super) canary_requests: f64,
    /// For each step, what it waits for beyond `bake.min`, such as a metric.
    pub(super) waits: Vec<Option<String>>,
    /// For a canary equal to stable: the share that is promoted without an operator. For a regression: the share that is rolled
    /// back before the rollout ends. Metrics are taken as independent.
    pub(super) share: f64,
}

/// The course of a rollout with a regression.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Regressed {
    pub(super) metric: String,
    pub(super) stable: f64,
    pub(super) canary: f64,
    pub(super) course: Course,
    /// For rates and counts: events beyond what stable would have had.
    pub(super) extra_events: Option<f64>,
    /// Cost of the extra events, with `plan.costPerBadOutcome`.
    pub(super) harm_cost: Option<f64>,
}

/// The cost of a rollout whose canary is equal to stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the terms of the report")]
pub(crate) struct Cost {
    pub(super) currency: Option<String>,
    /// Cost of the second version per step; `None`: the file does not describe its replicas.
    pub(super) steps: Option<Vec<StepCost>>,
    /// Cost of the replicas in all steps.
    pub(super) replicas_cost: Option<f64>,
    /// Number of mirrored calls.
    pub(super) mirrored_calls: f64,
}

/// The resources of the second version in a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct StepCost {
    pub(super) replicas: u64,
    pub(super) gpus: u64,
    pub(crate) hours: f64,
    pub(super) cost: f64,
}
