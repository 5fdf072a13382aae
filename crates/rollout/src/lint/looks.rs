//! Rules on planned looks: they need a fixed horizon, normally distributed sums, and independent answers.

use serin_kinds::Metric as _;
use serin_schemas::records::Role;
use serin_spec::{Direction, GroupSequential, MetricKind, MetricSpec, Require, RolloutSpec, Severity};
use serin_statistics::{MOST_LOOKS, PlannedLooks};

use super::Found;

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    let last = (0..spec.steps.len()).rfind(|&step| spec.require(step) != Require::NoFail);
    for (index, step) in spec.steps.iter().enumerate() {
        let Some(planned) = step.group_sequential else { continue };
        let path = format!("steps[{index}].groupSequential");
        if spec.require(index) != Require::Pass {
            let message =
                "it only works with `require: pass`, over all traffic: segments have no planned number of answers";
            found.add(Severity::Error, path, message, "leave it out, or set `require: pass`", &["steps"]);
        } else if last != Some(index) {
            let message = "a later step also requires a pass: planned looks are only for the last such step";
            found.add(Severity::Error, path, message, "move it to the last step that requires a pass", &["steps"]);
        } else {
            planned_looks(spec, planned, &path, found);
        }
    }
}

fn planned_looks(spec: &RolloutSpec, planned: GroupSequential, path: &str, found: &mut Found) {
    if !(1..=MOST_LOOKS).contains(&planned.looks) {
        let message = format!("{} looks cannot be planned", planned.looks);
        found.error(format!("{path}.looks"), message, format!("use 1 to {MOST_LOOKS}; 5 is the default"));
        return;
    }
    if planned.answers < u64::from(planned.looks) {
        let message = format!("{} planned answers are too few for {} looks", planned.answers, planned.looks);
        found.error(format!("{path}.answers"), message, "plan as many answers as `weight` and `bake.max` bring");
        return;
    }
    if spec.assignment.sticky.is_some() {
        let message =
            "with sticky assignment, answers of one user are not independent, so their number cannot be planned";
        found.add(
            Severity::Error,
            path,
            message,
            "leave it out: e-processes take sticky assignment into account",
            &["assignment"],
        );
        return;
    }
    let all = spec.normalized();
    let judged = all.metrics.iter().filter(|metric| metric.role != Role::Watch && metric.passes_by_looks());
    let judged: Vec<&MetricSpec> = judged.collect();
    if !judged.iter().any(|metric| spec.metrics.iter().any(|own| own.name == metric.name)) {
        let message = "no metric of the spec can pass at planned looks: only rates, means and capped means against control can, with an \
                       absolute or a relative margin, and without labels that may be missing";
        found.add(Severity::Error, path, message, "leave it out", &["metrics"]);
        return;
    }
    let needs = |metric: &&MetricSpec| Some((metric.name.clone(), needed(metric)?));
    let Some((name, needed)) = judged.iter().filter_map(needs).max_by_key(|(_, needed)| *needed) else { return };
    if planned.answers < needed {
        let message = format!(
            "with its margin, {name} is not close to normal before {needed} answers of the canary, so it may never pass"
        );
        found.add(
            Severity::Error,
            format!("{path}.answers"),
            message,
            format!("plan {needed} or more, and let `weight` and `bake.max` bring them"),
            &["metrics"],
        );
    }
}

/// Number of the canary's answers before the first look at a rate that may be 0 in control. Only its margin is known.
fn needed(metric: &MetricSpec) -> Option<u64> {
    let margin = metric.margin?.absolute.filter(|margin| *margin > 0.0)?;
    let known = metric.kind == MetricKind::Rate && metric.direction == Direction::LowerIsBetter;
    known.then(|| PlannedLooks::least_answers_of_rate(margin))
}
