//! Rules on planned looks: they need a fixed horizon, sums that are normal, and answers that are independent.

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
                "it is a rule for `require: pass`, over all traffic: a segment has no planned number of answers";
            found.add(Severity::Error, path, message, "leave it out, or set `require: pass`", &["steps"]);
        } else if last != Some(index) {
            let message = "a later step requires a pass too: planned looks are for the last one";
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
        found.error(format!("{path}.answers"), message, "plan what `weight` and `bake.max` bring");
        return;
    }
    if spec.assignment.sticky.is_some() {
        let message =
            "one user brings many answers, so they are not independent, and no fixed number of them can be planned";
        found.add(Severity::Error, path, message, "leave it out: e-processes are tempered", &["assignment"]);
        return;
    }
    let all = spec.normalised();
    let judged = all.metrics.iter().filter(|metric| metric.role != Role::Watch && metric.passes_by_looks());
    let judged: Vec<&MetricSpec> = judged.collect();
    if !judged.iter().any(|metric| spec.metrics.iter().any(|own| own.name == metric.name)) {
        let message = "no metric of the spec passes by looks: rates, means and capped means against control do, with an absolute or \
                       a relative margin, and without labels that may be missing";
        found.add(Severity::Error, path, message, "leave it out", &["metrics"]);
        return;
    }
    let needs = |metric: &&MetricSpec| Some((metric.name.clone(), needed(metric)?));
    let Some((name, needed)) = judged.iter().filter_map(needs).max_by_key(|(_, needed)| *needed) else { return };
    if planned.answers < needed {
        let message = format!(
            "with its margin {name} is not nearly normal before {needed} answers of the canary, so it may never pass"
        );
        found.add(
            Severity::Error,
            format!("{path}.answers"),
            message,
            format!("plan {needed} or more: what `weight` and `bake.max` bring"),
            &["metrics"],
        );
    }
}

/// Answers of the canary before a rate can be looked at even if it is 0 in control: what is known of it is its margin.
fn needed(metric: &MetricSpec) -> Option<u64> {
    let margin = metric.margin?.absolute.filter(|margin| *margin > 0.0)?;
    let known = metric.kind == MetricKind::Rate && metric.direction == Direction::LowerIsBetter;
    known.then(|| PlannedLooks::least_answers_of_rate(margin))
}
