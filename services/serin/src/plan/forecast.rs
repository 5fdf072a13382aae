//! Computes a forecast: every metric in every step, then the ramp as a whole.

use serin_kinds::{Kind as _, Metric as _, budget};
use serin_schemas::records::Role;
use serin_spec::{MetricKind, MetricSource, Require, RolloutSpec, Step};
use serin_statistics::{
    LooksPlan,
    planning::{Canary, Planned},
};

use super::{
    advice,
    course::{Cost, Course, Forecast, MetricStep, Reach, Regressed, StepCost, StepForecast},
    metric::Metric,
    request::Request,
};

/// The share of rollouts that "most" means.
pub(super) const MOST: f64 = 0.9;

/// Forecasts a rollout.
pub(crate) fn forecast(request: &Request) -> anyhow::Result<Forecast> {
    let spec = &request.spec;
    let names: Vec<&str> = spec.metrics.iter().map(|metric| metric.name.as_str()).collect();
    let named = request
        .base
        .keys()
        .chain(request.counted.keys())
        .chain(request.regressions.iter().map(|regression| &regression.metric));
    for name in named {
        anyhow::ensure!(
            names.contains(&name.as_str()),
            "the rollout has no metric {name:?}; it has {}",
            names.join(", ")
        );
    }
    anyhow::ensure!(!spec.steps.is_empty(), "the rollout has no steps");
    let bad = bad_answers(request);
    anyhow::ensure!(
        bad < 0.5,
        "{:.0} % of stable's answers would be bad (failed, refused or unusable): warm-up is held at half or more, so the canary would get no \
         calls and there is nothing to plan; see docs/verdicts.md",
        100.0 * bad.min(1.0)
    );
    let hypotheses = budget(spec).1;
    let ramp = Ramp::new(request)?;
    let steps = (0..spec.steps.len()).map(|step| ramp.step(step)).collect::<anyhow::Result<Vec<_>>>()?;
    let healthy = ramp.course(&steps, None);
    let is_given =
        |metric: &&Metric<'_>| request.regressions.iter().any(|regression| regression.metric == metric.spec.name);
    let chosen: Vec<&Metric<'_>> = if request.regressions.is_empty() {
        // Where no canary can fail, there is no regression to assume.
        let can_fail = |metric: &&Metric<'_>| metric.spec.cannot_fail_at(metric.stable).is_none();
        ramp.metrics.iter().filter(|metric| metric.spec.role != Role::Watch).filter(can_fail).collect()
    } else {
        ramp.metrics.iter().filter(is_given).collect()
    };
    let regressions: Vec<Regressed> = chosen.into_iter().map(|metric| ramp.regressed(&steps, metric)).collect();
    let cost = cost(request, &healthy);
    let mut forecast = Forecast {
        requests_per_second: request.per_second,
        hypotheses,
        steps,
        healthy,
        regressions,
        cost,
        advice: vec![],
    };
    forecast.advice = advice::advice(request, &forecast);
    Ok(forecast)
}

/// The share of stable's answers that warm-up does not learn from, as far as it is given.
fn bad_answers(request: &Request) -> f64 {
    let is_bad =
        |source: &MetricSource| matches!(source, MetricSource::Failed | MetricSource::Refused | MetricSource::Unusable);
    let metrics = request.spec.metrics.iter();
    let outcomes =
        metrics.filter(|metric| metric.kind == MetricKind::Rate && metric.filters.is_empty() && is_bad(&metric.source));
    outcomes.filter_map(|metric| request.base.get(&metric.name)).sum()
}

/// The time that a step takes with a canary equal to stable, regardless of `bake.max`, and what it waits for beyond `bake.min`.
pub(super) struct Needs {
    pub(super) seconds: f64,
    pub(super) waits_for: Option<String>,
}

/// The time that one step needs.
pub(super) fn needs(request: &Request, step: usize) -> anyhow::Result<Needs> {
    let ramp = Ramp::new(request)?;
    let forecast = ramp.step(step)?;
    Ok(ramp.needs(&forecast, &request.spec.steps[step], None))
}

/// How long the rollout stays in a step.
struct Stay {
    /// Start of the step, in seconds from the canary's first request.
    start: f64,
    seconds: f64,
    /// Whether the rollout is held at `bake.max`, because a requirement is not met.
    is_held: bool,
    /// What the step waits for beyond `bake.min`.
    waits_for: Option<String>,
}

struct Ramp<'a> {
    request: &'a Request,
    metrics: Vec<Metric<'a>>,
}

impl<'a> Ramp<'a> {
    fn new(request: &'a Request) -> anyhow::Result<Self> {
        let spec = &request.spec;
        let metrics = spec.metrics.iter().zip(budget(spec).0);
        let metrics = metrics.map(|(metric, weight)| Metric::new(request, metric, weight));
        Ok(Self { request, metrics: metrics.collect::<anyhow::Result<_>>()? })
    }

    fn canary(&self, weight: f64) -> Canary {
        let Request { spec, per_second, react_seconds, .. } = self.request;
        Canary {
            per_second: *per_second,
            weight,
            window_seconds: spec.window.0.as_secs_f64(),
            react_seconds: spec.grace.0.as_secs_f64() + react_seconds,
        }
    }

    fn step(&self, index: usize) -> anyhow::Result<StepForecast> {
        let spec = &self.request.spec;
        let step = &spec.steps[index];
        let weight = step.share().fraction();
        // The control arm is a multiple of the canary, or all other traffic. While calls are mirrored, every live answer is control.
        let control = if step.mirror.is_some() { 1.0 } else { (spec.control_ratio * weight).min(1.0 - weight) };
        let control_ratio = control / weight;
        let canary = self.canary(weight);
        let metrics = self.metrics.iter().map(|metric| {
            let name = &metric.spec.name;
            let planned = metric.planned(control_ratio).map_err(|error| anyhow::anyhow!("{name}: {error}"));
            planned.map(|planned| self.metric_step(metric, &planned, canary, step))
        });
        Ok(StepForecast {
            step: index,
            weight,
            canary_per_second: self.request.per_second * weight,
            control_ratio,
            metrics: metrics.collect::<anyhow::Result<_>>()?,
        })
    }

    fn metric_step(&self, metric: &Metric<'_>, planned: &Planned, canary: Canary, step: &Step) -> MetricStep {
        let all = canary.per_second;
        let canary = Canary { per_second: all * metric.counted, ..canary };
        let alpha_pass = self.request.spec.decision.false_promotion;
        let seen_by = |bake: f64| {
            let answers = canary.answers_in((bake - metric.wait()).max(0.0))?;
            planned.detectable(answers, metric.alpha).map(|value| metric.shown(value))
        };
        let reach = |answers: f64| {
            let seconds = canary.seconds_for(answers)? + metric.wait();
            Some(Reach { answers, seconds })
        };
        let regressed = metric.seen_as(metric.regressed);
        let fail = planned.n_to_fail(regressed, metric.alpha).and_then(reach);
        let looks = step.group_sequential.filter(|_| metric.spec.passes_by_looks());
        let looks = looks.map(|own| LooksPlan { looks: own.looks, answers: own.answers, alpha: alpha_pass });
        let healthy = planned.control();
        let judged = canary.answers_in((step.bake.max.0.as_secs_f64() - metric.wait()).max(0.0)).unwrap_or(0.0);
        let (pass, pass_most, passed_by_max) = match looks {
            Some(looks) => {
                let all_looked = judged >= looks.answers as f64;
                let share = if all_looked { planned.share_passed_by_looks(healthy, looks) } else { 0.0 };
                (planned.n_to_pass_by_looks(healthy, looks), None, share)
            }
            None => (
                planned.n_to_pass(healthy, alpha_pass),
                planned.n_to_pass_in(MOST, healthy, alpha_pass),
                planned.share_passed(healthy, alpha_pass, judged),
            ),
        };
        let pass = pass.and_then(reach);
        let at_risk = fail.and_then(|fail| {
            let late = metric.wait() * canary.per_second * canary.weight;
            canary.at_risk(fail.answers + late, planned.harm(regressed))
        });
        MetricStep {
            metric: metric.spec.name.clone(),
            role: metric.spec.role,
            stable: metric.stable,
            border: planned.fail_border().map(|border| metric.shown(border)),
            seen_by_min: seen_by(step.bake.min.0.as_secs_f64()),
            seen_by_max: seen_by(step.bake.max.0.as_secs_f64()),
            regressed: metric.regressed,
            fail,
            fail_most: planned.n_to_fail_in(MOST, regressed, metric.alpha).and_then(reach),
            pass,
            pass_most: pass_most.and_then(reach),
            passed_by_max,
            requests_at_risk: at_risk.map(|risk| risk.requests / metric.counted),
            extra_events: at_risk.filter(|_| metric.counts_events()).map(|risk| risk.harm),
        }
    }

    /// The course of the ramp. `regressed`: index of a metric that regresses from the first canary request on.
    fn course(&self, steps: &[StepForecast], regressed: Option<usize>) -> Course {
        let mut planned = Vec::new();
        let mut start = 0.0;
        for (forecast, step) in steps.iter().zip(&self.request.spec.steps) {
            let step = Stay { start, ..self.healthy_step(forecast, step, regressed) };
            start += step.seconds;
            let is_held = step.is_held;
            planned.push(step);
            if is_held {
                break;
            }
        }
        let found = regressed.and_then(|place| self.found(steps, &planned, place));
        let share = match regressed {
            None => self.share_promoted(steps),
            Some(place) => self.share_caught(steps, &planned, place),
        };
        let mut course = Course {
            end: if planned.last().is_some_and(|step| step.is_held) { "held" } else { "promoted" },
            step: planned.len() - 1,
            seconds: 0.0,
            steps: vec![],
            canary_requests: 0.0,
            waits: vec![],
            share,
        };
        for (index, stay) in planned.into_iter().enumerate() {
            let ends = found.map(|found| found - stay.start).filter(|left| *left <= stay.seconds);
            let react = self.canary(steps[index].weight).react_seconds;
            let seconds = ends.map_or(stay.seconds, |left| left.max(0.0) + react);
            course.steps.push(seconds);
            course.seconds += seconds;
            course.canary_requests += steps[index].canary_per_second * seconds;
            course.waits.push(stay.waits_for);
            if ends.is_some() {
                (course.end, course.step) = ("rolled_back", index);
                break;
            }
        }
        course
    }

    /// Seconds from the canary's first request until there is enough evidence against a metric's regression. Evidence adds up over
    /// the steps. Answers are judged when their labels have arrived; the ramp may be at a later step by then, or over.
    fn found(&self, steps: &[StepForecast], planned: &[Stay], place: usize) -> Option<f64> {
        let metric = &self.metrics[place];
        let mut shown = 0.0;
        for (forecast, stay) in steps.iter().zip(planned) {
            let Some(fail) = forecast.metrics[place].fail else { continue };
            let growing = fail.seconds - metric.wait();
            let counted = (stay.seconds - metric.settle).max(0.0);
            let needed = (1.0 - shown) * growing;
            if needed <= counted {
                return Some(stay.start + metric.settle + needed + metric.maturity);
            }
            shown += counted / growing;
        }
        None
    }

    /// Share of canaries equal to stable that are promoted without an operator: each gate must pass by `bake.max` of each step that
    /// requires it.
    fn share_promoted(&self, steps: &[StepForecast]) -> f64 {
        let of = |forecast: &StepForecast| {
            let passed = |(place, _): (usize, &Metric<'_>)| forecast.metrics[place].passed_by_max;
            self.required(self.request.spec.require(forecast.step)).map(passed).product::<f64>()
        };
        steps.iter().map(of).product()
    }

    /// Share of canaries with a metric's regression that are rolled back before the rollout ends. Answers of the last `maturity` are
    /// not judged by then.
    fn share_caught(&self, steps: &[StepForecast], planned: &[Stay], place: usize) -> f64 {
        let metric = &self.metrics[place];
        let judged = planned.last().map_or(0.0, |last| last.start + last.seconds - metric.maturity);
        // The evidence of each step, as a share of the needed evidence.
        let shown = |(forecast, stay): (&StepForecast, &Stay)| {
            let fail = forecast.metrics[place].fail?;
            let counted = (judged - stay.start).min(stay.seconds) - metric.settle;
            Some(counted.max(0.0) / (fail.seconds - metric.wait()))
        };
        let shown: f64 = steps.iter().zip(planned).filter_map(shown).sum();
        // The needed evidence is the same in each step.
        let control_ratio = steps.first().map_or(1.0, |step| step.control_ratio);
        metric.planned(control_ratio).map_or(0.0, |planned| planned.share_failed(shown, metric.alpha))
    }

    /// A step in which nothing fails.
    fn healthy_step(&self, forecast: &StepForecast, step: &Step, regressed: Option<usize>) -> Stay {
        let max = step.bake.max.0.as_secs_f64();
        let Needs { seconds, waits_for } = self.needs(forecast, step, regressed);
        Stay { start: 0.0, seconds: seconds.min(max), is_held: seconds > max, waits_for }
    }

    fn needs(&self, forecast: &StepForecast, step: &Step, regressed: Option<usize>) -> Needs {
        let window = self.request.spec.window.0.as_secs_f64();
        // The rate of the arm that gets fewer answers.
        let per_second = forecast.canary_per_second * forecast.control_ratio.min(1.0);
        let until = |answers: u64, per_second: f64| (answers as f64 / per_second / window).ceil() * window;
        let events = until(step.bake.min_events, forecast.canary_per_second);
        let counted = until(self.request.spec.decision.min_answers, per_second);
        let compared = self.request.spec.settles_for().0.as_secs_f64() + window;
        let (mut seconds, mut wait) = (step.bake.min.0.as_secs_f64().max(compared), None);
        if events > seconds {
            (seconds, wait) = (events, Some("bake.minEvents".to_owned()));
        }
        if counted > seconds {
            (seconds, wait) = (counted, Some("decision.minAnswers".to_owned()));
        }
        let require = self.request.spec.require(forecast.step);
        for (place, metric) in self.required(require) {
            let slower = if require == Require::PassInSegments { self.rarest(metric) } else { 1.0 };
            // A metric that cannot fail passes with any value.
            let planned = &forecast.metrics[place];
            let pass = planned.pass.filter(|_| regressed != Some(place) || planned.border.is_none());
            let passed = pass.map_or(f64::INFINITY, |pass| (pass.seconds - metric.wait()) * slower + metric.wait());
            if passed > seconds {
                (seconds, wait) = (passed, Some(metric.spec.name.clone()));
            }
        }
        Needs { seconds, waits_for: wait }
    }

    /// Metrics that must pass before a step ends: the gates, and the others if the score needs them.
    fn required(&self, require: Require) -> impl Iterator<Item = (usize, &Metric<'_>)> {
        let spec: &RolloutSpec = &self.request.spec;
        let weight = |role: Option<Role>| {
            let own = spec.metrics.iter().filter(|metric| metric.role != Role::Watch);
            own.filter(|metric| role.is_none_or(|role| metric.role == role))
                .map(|metric| metric.score_weight)
                .sum::<f64>()
        };
        let gates_suffice = 100.0 * weight(Some(Role::Gate)) >= spec.decision.promote_score * weight(None);
        let required = require != Require::NoFail;
        self.metrics.iter().enumerate().filter(move |(_, metric)| match metric.spec.role {
            Role::Gate => required,
            Role::Score => required && !gates_suffice,
            Role::Watch => false,
        })
    }

    /// How many times longer a metric's rarest segment takes, if its values have equal shares.
    fn rarest(&self, metric: &Metric<'_>) -> f64 {
        let own = self.request.spec.segments.iter().filter(|segment| metric.spec.segments.contains(&segment.name));
        own.map(|segment| segment.top as f64).fold(1.0, f64::max)
    }

    fn regressed(&self, steps: &[StepForecast], metric: &Metric<'_>) -> Regressed {
        let place = self.metrics.iter().position(|other| std::ptr::eq(other, metric)).unwrap_or_default();
        let course = self.course(steps, Some(place));
        let harm = (metric.regressed - metric.stable).abs();
        let extra_events = metric.counts_events().then_some(course.canary_requests * metric.counted * harm);
        let price = self.request.spec.plan.cost_per_bad_outcome;
        Regressed {
            metric: metric.spec.name.clone(),
            stable: metric.stable,
            canary: metric.regressed,
            harm_cost: extra_events.filter(|_| price > 0.0).map(|events| events * price),
            extra_events,
            course,
        }
    }
}

fn cost(request: &Request, healthy: &Course) -> Cost {
    let spec = &request.spec;
    let steps: Option<Vec<StepCost>> = spec.canary.replica.map(|replica| {
        let of = |(step, seconds): (&Step, &f64)| {
            let needed = request.per_second * step.share().fraction() / replica.requests_per_second.max(1e-9);
            let replicas = needed.ceil().max(1.0) as u64;
            let hours = seconds / 3600.0;
            StepCost {
                replicas,
                gpus: replicas * replica.gpus,
                hours,
                cost: replicas as f64 * replica.cost_per_hour * hours,
            }
        };
        spec.steps.iter().zip(&healthy.steps).map(of).collect()
    });
    // Paired metrics need mirrored calls.
    let mirrored = spec.metrics.iter().any(|metric| metric.kind.is_paired());
    Cost {
        currency: spec.plan.currency.clone(),
        replicas_cost: steps.as_ref().map(|steps| steps.iter().map(|step| step.cost).sum()),
        steps,
        mirrored_calls: if mirrored { healthy.canary_requests } else { 0.0 },
    }
}

/// Each metric's share of the rollback budget over all traffic, and the number of hypotheses, as in the analyzer.
fn budget(spec: &RolloutSpec) -> (Vec<f64>, usize) {
    let mut shares = budget::shares(spec, &budget::expected(spec));
    let count = shares.len();
    shares.truncate(spec.metrics.len());
    (shares, count)
}
