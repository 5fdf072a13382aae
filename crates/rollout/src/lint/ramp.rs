//! Rules on time, assignment and the ramp.

use serin_kinds::Metric as _;
use serin_schemas::{ids::Span, records::Role};

use super::Found;
use serin_spec::{Require, RolloutSpec, Severity, Share, StickyKey, TrafficSource, units::Duration};

/// Weights above this leave a control arm too small to compare with.
const CONTROL_NEEDED: Share = Share(9_000);

/// The longest window: a rollout is watched by the hour, not by the month.
const WINDOW_MAX: Duration = Duration(Span(7 * 86_400_000_000));
/// The longest grace; open windows stay in the aggregator's memory for so long.
const GRACE_MAX: Duration = Duration(Span(86_400_000_000));

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    if spec.window < Duration::from_secs(1) {
        found.error(
            "window",
            format!("a window of {} is too short", spec.window),
            "use at least 1s; 10s is the default",
        );
    }
    if spec.window > WINDOW_MAX {
        let message = format!("a window of {} is too long: there is one verdict per window", spec.window);
        found.error("window", message, format!("use at most {WINDOW_MAX}; 10s is the default"));
    }
    if spec.grace > GRACE_MAX {
        let message = format!("a grace of {} is too long: every verdict comes that much later", spec.grace);
        found.error("grace", message, format!("use at most {GRACE_MAX}; 0s is the default"));
    } else if spec.grace > spec.window {
        let message = format!("a grace of {} is longer than a window of {}", spec.grace, spec.window);
        let way_out = "make it shorter: every verdict, also one to roll back, comes that much later";
        found.add(Severity::Warning, "grace", message, way_out, &["window"]);
    }
    if !(spec.control_ratio.is_finite() && spec.control_ratio > 0.0) {
        let message = format!("a control arm of {} times the canary's share compares with nothing", spec.control_ratio);
        found.error("controlRatio", message, "use a number above 0; 10 is the default");
    }
    if spec.warmup.min_events == 0 && !spec.segments.is_empty() {
        found.add(
            Severity::Warning,
            "warmup.minEvents",
            "without warm-up no segment value is known, and all traffic is in `other`",
            "let it see at least a few hundred answers",
            &["segments"],
        );
    }
    monitor(spec, found);
    sticky(spec, found);
    steps(spec, found);
    late_labels(spec, found);
}

/// What is left out after the change to the promoted version's share must leave something of the monitor.
fn monitor(spec: &RolloutSpec, found: &mut Found) {
    let (settles, monitor) = (spec.settles_for(), spec.promotion.monitor);
    if spec.settle > 0 && !monitor.is_zero() && monitor <= settles {
        let message =
            format!("{} windows of {} are left out: nothing of {monitor} is compared", spec.settle, spec.window);
        found.add(Severity::Error, "promotion.monitor", message, "monitor for longer", &["settle", "window"]);
    }
}

fn sticky(spec: &RolloutSpec, found: &mut Found) {
    let Some(key) = &spec.assignment.sticky else { return };
    let path = "assignment.sticky";
    match key {
        StickyKey::Json(pointer) => found.pointer(path, pointer),
        StickyKey::Header(name) => found.header(path, name),
        StickyKey::Cookie(name) => found.cookie(path, name),
        StickyKey::Parameter(name) => found.not_empty(path, name),
        StickyKey::Session | StickyKey::Sequence => {}
    }
    if spec.traffic == TrafficSource::External {
        found.add(
            Severity::Warning,
            path,
            "whoever splits the traffic must name the unit (user, session) of each answer: without it nothing is judged",
            "send `unit` with every event of this model",
            &["traffic"],
        );
    }
    found.warn(
        path,
        "requests of one key are not independent: the false rollback rate is approximate with sticky assignment",
        "leave it out when callers can live with a change of version between requests",
    );
}

fn steps(spec: &RolloutSpec, found: &mut Found) {
    if spec.steps.is_empty() {
        found.error("steps", "the ramp has no step", "add one, such as `- weight: 5%`");
        return;
    }
    let mut before: Option<Share> = None;
    for (index, step) in spec.steps.iter().enumerate() {
        if let Some(share) = step.mirror {
            mirror_step(spec, index, share, before.is_some(), found);
            bake(spec, index, found);
            continue;
        }
        let path = format!("steps[{index}].weight");
        let weight = step.weight;
        if weight == Share(0) {
            found.error(&path, "with 0% the canary answers nothing, so no check can fail", "start at 1% or more");
        } else if weight == Share::ALL {
            found.error(
                &path,
                "with 100% nothing is left to compare with, so no check can fail",
                "leave this step out: promotion follows the last step; `promotion.monitor` goes on comparing with a holdback",
            );
        } else if weight > CONTROL_NEEDED {
            let message = format!("{weight} leaves only {} to compare with", Share(Share::ALL.0 - weight.0));
            found.warn(&path, message, "end the ramp at 50% or so");
        }
        if let Some(previous) = before.filter(|previous| weight < *previous) {
            let message = format!("the ramp goes down, from {previous} to {weight}");
            found.error(&path, message, "order the steps by weight");
        }
        before = Some(weight);
        bake(spec, index, found);
    }
    if (0..spec.steps.len()).all(|step| spec.require(step) == Require::NoFail) {
        found.warn(
            format!("steps[{}].require", spec.steps.len() - 1),
            "no step requires a pass: the canary can be promoted although nothing was shown",
            "leave `require` out on the last step, which then requires a pass",
        );
    }
}

/// A gate whose first label comes when the ramp has long been at its last weight finds a regression there, not at a small one.
fn late_labels(spec: &RolloutSpec, found: &mut Found) {
    let Some((last, light)) = spec.steps.split_last().filter(|(_, light)| !light.is_empty()) else { return };
    if (0..light.len()).any(|step| spec.require(step) != Require::NoFail) {
        return;
    }
    let full = Duration(Span(light.iter().fold(0, |sum: i64, step| sum.saturating_add(step.bake.min.0.0))));
    let longest = spec.steps.iter().map(|step| step.bake.max).max().unwrap_or_default();
    for (index, metric) in spec.metrics.iter().enumerate() {
        let labels = metric.settles_after(spec.window);
        // Everything within a factor of two may be meant so. Steps that are too short for the labels have a warning of their own.
        let is_late = !metric.source.is_delay()
            && labels.0.0 > full.0.0.saturating_mul(2)
            && labels <= longest
            && full >= spec.window;
        if metric.role != Role::Watch && is_late {
            let message = format!(
                "its labels take {labels}, and the ramp may be at {} after {full}: a regression is found there, at the largest \
                 weight",
                last.weight
            );
            let way_out = format!("let a light step bake for {labels} or more, or require a pass in it");
            found.add(Severity::Warning, format!("metrics[{index}].maturity"), message, way_out, &["steps"]);
        }
    }
}

fn mirror_step(spec: &RolloutSpec, index: usize, share: Share, after_weight: bool, found: &mut Found) {
    let path = format!("steps[{index}].mirror");
    if share == Share(0) {
        found.error(&path, "with 0% the canary sees nothing, so no check can fail", "mirror 1% or more");
    } else if spec.steps[index].weight != Share(0) {
        found.error(&path, "a step has a weight or a mirror share, not both", "make two steps of it");
    } else if after_weight {
        found.error(&path, "the canary answers callers before this step: a mirror teaches nothing new", "mirror first");
    } else if spec.traffic == TrafficSource::External {
        let message = "only Serin's routers can mirror";
        found.add(Severity::Error, &path, message, "leave it out, or leave `traffic` out", &["traffic"]);
    }
    if index + 1 == spec.steps.len() {
        found.warn(&path, "promotion follows: the canary takes everything at once", "let a step with a weight follow");
    }
}

fn bake(spec: &RolloutSpec, index: usize, found: &mut Found) {
    let bake = &spec.steps[index].bake;
    let path = format!("steps[{index}].bake");
    if bake.min > bake.max {
        let message =
            format!("bake.min ({}) is longer than bake.max ({}): the step never ends well", bake.min, bake.max);
        found.error(path, message, "set max to at least min");
    } else if bake.max < spec.window {
        let message =
            format!("bake.max ({}) is shorter than a window ({}): no verdict comes in time", bake.max, spec.window);
        found.add(Severity::Error, path, message, "let the step bake for several windows", &["window"]);
    } else if spec.settle > 0 && bake.max.0.0.saturating_sub(spec.settles_for().0.0) < spec.window.0.0 {
        let message = format!(
            "{} windows of {} are left out after the change of weight, and bake.max is {}: the canary is never compared",
            spec.settle, spec.window, bake.max
        );
        found.add(Severity::Error, path, message, "bake for longer, or leave fewer windows out", &["settle", "window"]);
    } else if spec.settle > 0 && bake.min <= spec.settles_for() {
        let message = format!(
            "bake.min ({}) is over before the {} windows that are left out after the change of weight: the first one compared \
             may end the step",
            bake.min, spec.settle
        );
        let way_out = format!("set bake.min above {}", spec.settles_for());
        found.add(Severity::Warning, path, message, way_out, &["settle", "window"]);
    }
}
