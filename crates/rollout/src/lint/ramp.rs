//! Rules on time, assignment and the ramp.

use std::iter;

use serin_kinds::Metric as _;
use serin_schemas::{ids::Span, records::Role};

use super::Found;
use serin_spec::{
    MAX_LINEAR_STEPS, Mode, Require, RolloutSpec, Schedule, Severity, Share, Step, StickyKey, TrafficSource,
    units::Duration,
};

/// Weights above this leave a control arm too small to compare with.
const CONTROL_NEEDED: Share = Share(9_000);

/// A first weight from which lint warns.
const LARGE_START: Share = Share(1_000);
/// The longest window. There is one verdict per window.
const WINDOW_MAX: Duration = Duration(Span(7 * 86_400_000_000));
/// The longest grace. Open windows stay in the aggregator's memory for that long.
const GRACE_MAX: Duration = Duration(Span(86_400_000_000));

/// The largest number of answers that a step or warm-up may need. A million answers a second take 11 days.
const EVENTS_MAX: u64 = 1_000_000_000_000;

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    if spec.window < Duration::from_secs(1) {
        found.error(
            "window",
            format!("a window of {} is too short", spec.window),
            "use at least 1s; 10s is the default",
        );
    }
    if spec.window > WINDOW_MAX {
        let message = format!("a window of {} is too long: there is only one verdict per window", spec.window);
        found.error("window", message, format!("use at most {WINDOW_MAX}; 10s is the default"));
    }
    if spec.grace > GRACE_MAX {
        let message = format!("a grace of {} is too long: it delays every verdict", spec.grace);
        found.error("grace", message, format!("use at most {GRACE_MAX}; 0s is the default"));
    } else if spec.grace > spec.window {
        let message = format!("a grace of {} is longer than a window of {}", spec.grace, spec.window);
        let fix = "make it shorter: it delays every verdict, also one to roll back";
        found.add(Severity::Warning, "grace", message, fix, &["window"]);
    }
    if !(spec.control_ratio.is_finite() && spec.control_ratio > 0.0) {
        let message =
            format!("a control arm of {} times the canary's share has no traffic to compare with", spec.control_ratio);
        found.error("controlRatio", message, "use a number above 0; 10 is the default");
    }
    if spec.warmup.min_events == 0 && !spec.segments.is_empty() {
        found.add(
            Severity::Warning,
            "warmup.minEvents",
            "without warm-up no segment values are known, so all traffic is in `other`",
            "use at least a few hundred answers",
            &["segments"],
        );
    }
    let bakes = spec.steps.iter().enumerate();
    let bakes = bakes.map(|(index, step)| (format!("steps[{index}].bake.minEvents"), step.bake.min_events));
    for (path, events) in iter::once(("warmup.minEvents".to_owned(), spec.warmup.min_events)).chain(bakes) {
        if events > EVENTS_MAX {
            found.error(path, format!("{events} answers never arrive"), format!("use at most {EVENTS_MAX}"));
        }
    }
    monitor(spec, found);
    sticky(spec, found);
    linear(spec, found);
    steps(spec, found);
    late_labels(spec, found);
}

/// Reports a monitor in which all windows are left out.
fn monitor(spec: &RolloutSpec, found: &mut Found) {
    let (settles, monitor) = (spec.settles_for(), spec.promotion.monitor);
    if spec.settle > 0 && !monitor.is_zero() && monitor <= settles {
        let message =
            format!("{} windows of {} are left out, so nothing in {monitor} is compared", spec.settle, spec.window);
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
            "the events of the external router must have the unit (user, session) of each answer: without it nothing is judged",
            "send `unit` with every event of this model",
            &["traffic"],
        );
    }
    found.warn(
        path,
        "requests with the same key are not independent: with sticky assignment the false rollback rate is approximate",
        "leave it out if callers may get another version with the next request",
    );
}

/// Reports a linear schedule that has no end.
fn linear(spec: &RolloutSpec, found: &mut Found) {
    let Some(Schedule::Linear(linear)) = spec.schedule else { return };
    let path = "schedule.linear";
    match linear.count() {
        None if linear.by == Share(0) => {
            found.error(format!("{path}.by"), "with 0% the weight never grows", "use 1% or more");
        }
        None => {
            let message = format!("the ramp goes down, from {} to {}", linear.from, linear.to);
            found.error(format!("{path}.to"), message, "use a last weight above the first");
        }
        Some(count) if count > MAX_LINEAR_STEPS => {
            let message = format!("the ramp has {count} steps, more than {MAX_LINEAR_STEPS}");
            found.error(format!("{path}.by"), message, "use larger differences");
        }
        Some(_) => {}
    }
}

/// Warns about a ramp that starts with a large share of the callers.
fn first_weight(spec: &RolloutSpec, found: &mut Found) {
    let acts = spec.traffic == TrafficSource::Router && spec.mode == Mode::Act;
    let is_large = |step: &&Step| step.mirror.is_none() && step.weight >= LARGE_START && step.weight < Share::ALL;
    let Some(first) = spec.steps.first().filter(|step| acts && is_large(step)) else { return };
    let message =
        format!("the first step exposes {} of the callers to a version that has not been seen before", first.weight);
    let fix = "start with 1% to 5%, or with a step that mirrors calls, such as `- mirror: 10%`";
    found.warn("steps[0].weight", message, fix);
}

fn steps(spec: &RolloutSpec, found: &mut Found) {
    if spec.steps.is_empty() {
        found.error("steps", "the ramp has no step", "add one, such as `- weight: 5%`");
        return;
    }
    first_weight(spec, found);
    let mut before: Option<Share> = None;
    for (index, step) in spec.steps.iter().enumerate() {
        if let Some(share) = step.mirror {
            mirror_step(spec, index, share, before.is_some(), found);
            bake(spec, index, found);
            approve(spec, index, found);
            continue;
        }
        let path = format!("steps[{index}].weight");
        let weight = step.weight;
        if weight == Share(0) {
            found.error(&path, "with 0% the canary gets no calls, so no check can fail", "start at 1% or more");
        } else if weight == Share::ALL {
            found.error(
                &path,
                "with 100% there is no control to compare with, so no check can fail",
                "leave this step out: promotion follows the last step, and `promotion.monitor` then compares with a holdback",
            );
        } else if weight > CONTROL_NEEDED {
            let message = format!("{weight} leaves only {} to compare with", Share(Share::ALL.0 - weight.0));
            found.warn(&path, message, "end the ramp at about 50%");
        }
        if let Some(previous) = before.filter(|previous| weight < *previous) {
            let message = format!("the ramp goes down, from {previous} to {weight}");
            found.error(&path, message, "order the steps by weight");
        }
        before = Some(weight);
        bake(spec, index, found);
        approve(spec, index, found);
    }
    if (0..spec.steps.len()).all(|step| spec.require(step) == Require::NoFail) {
        found.warn(
            format!("steps[{}].require", spec.steps.len() - 1),
            "no step requires a pass, so the canary can be promoted without evidence",
            "leave `require` out on the last step, which then requires a pass",
        );
    }
}

/// Warns about a gate whose first labels arrive long after the ramp has reached its last weight.
fn late_labels(spec: &RolloutSpec, found: &mut Found) {
    let Some((last, light)) = spec.steps.split_last().filter(|(_, light)| !light.is_empty()) else { return };
    if (0..light.len()).any(|step| spec.require(step) != Require::NoFail) {
        return;
    }
    let full = Duration(Span(light.iter().fold(0, |sum: i64, step| sum.saturating_add(step.bake.min.0.0))));
    let longest = spec.steps.iter().map(|step| step.bake.max).max().unwrap_or_default();
    for (index, metric) in spec.metrics.iter().enumerate() {
        let labels = metric.settles_after(spec.window);
        // A delay within a factor of two may be intended. Steps that are too short for the labels have their own warning.
        let is_late = !metric.source.is_delay()
            && labels.0.0 > full.0.0.saturating_mul(2)
            && labels <= longest
            && full >= spec.window;
        if metric.role != Role::Watch && is_late {
            let message = format!(
                "the labels of the metric take {labels}, but the ramp may be at {} after {full}: a regression is only found there, at the largest \
                 weight",
                last.weight
            );
            let fix = format!("let a step with a small weight bake for {labels} or more, or require a pass in it");
            found.add(Severity::Warning, format!("metrics[{index}].maturity"), message, fix, &["steps"]);
        }
    }
}

fn mirror_step(spec: &RolloutSpec, index: usize, share: Share, after_weight: bool, found: &mut Found) {
    let path = format!("steps[{index}].mirror");
    if share == Share(0) {
        found.error(&path, "with 0% nothing is mirrored to the canary, so no check can fail", "mirror 1% or more");
    } else if spec.steps[index].weight != Share(0) {
        found.error(&path, "a step cannot have both a weight and a mirror share", "split it into two steps");
    } else if after_weight {
        found.error(
            &path,
            "the canary already answers callers before this step, so mirroring shows nothing new",
            "move it to the start of the ramp",
        );
    } else if spec.traffic == TrafficSource::External {
        let message = "only Serin's routers can mirror calls";
        found.add(Severity::Error, &path, message, "leave the step out, or leave `traffic` out", &["traffic"]);
    }
    if index + 1 == spec.steps.len() {
        found.warn(
            &path,
            "promotion follows this step: the canary would get all traffic in one step",
            "add a step with a weight after it",
        );
    }
}

/// Reports an approval that cannot be given in time, or that is never asked for.
fn approve(spec: &RolloutSpec, index: usize, found: &mut Found) {
    let Some(approval) = spec.steps[index].approve else { return };
    if approval.within < spec.window {
        let message = format!(
            "an approval within {} ends with the next verdict, before it can be given: there is one verdict per window of {}",
            approval.within, spec.window
        );
        found.error(format!("steps[{index}].approve.within"), message, "give people more time, such as 4h");
    }
    if spec.mode == Mode::Observe {
        let message = "a rollout that is only observed takes no steps, so the approval is never asked for";
        found.add(
            Severity::Warning,
            format!("steps[{index}].approve"),
            message,
            "leave it out, or leave `mode` out",
            &["mode"],
        );
    }
}

fn bake(spec: &RolloutSpec, index: usize, found: &mut Found) {
    let bake = &spec.steps[index].bake;
    let path = format!("steps[{index}].bake");
    if bake.min > bake.max {
        let message =
            format!("bake.min ({}) is longer than bake.max ({}), so the step can never succeed", bake.min, bake.max);
        found.error(path, message, "set bake.max to at least bake.min");
    } else if bake.max < spec.window {
        let message =
            format!("bake.max ({}) is shorter than a window ({}), so no verdict comes in time", bake.max, spec.window);
        found.add(Severity::Error, path, message, "let the step bake for several windows", &["window"]);
    } else if spec.settle > 0 && bake.max.0.0.saturating_sub(spec.settles_for().0.0) < spec.window.0.0 {
        let message = format!(
            "{} windows of {} are left out after the change of weight, but bake.max is {}: the canary is never compared",
            spec.settle, spec.window, bake.max
        );
        found.add(Severity::Error, path, message, "bake for longer, or leave fewer windows out", &["settle", "window"]);
    } else if spec.settle > 0 && bake.min <= spec.settles_for() {
        let message = format!(
            "bake.min ({}) ends before the {} windows that are left out after the change of weight: the first compared window \
             may end the step",
            bake.min, spec.settle
        );
        let fix = format!("set bake.min above {}", spec.settles_for());
        found.add(Severity::Warning, path, message, fix, &["settle", "window"]);
    }
}
