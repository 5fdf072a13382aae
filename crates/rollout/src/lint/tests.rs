//! Errors and warnings of lint.

mod addresses;
mod doors;

use serin_schemas::records::Role;

use super::*;
use crate::testing::spec;
use serin_spec::{
    Margin, MetricKind, MetricSource, RolloutSpec, SegmentSource, Share, Step, StickyKey, units::Duration,
};

pub(super) fn problems(change: impl FnOnce(&mut RolloutSpec)) -> Vec<String> {
    let mut spec = spec();
    change(&mut spec);
    lint(&spec, None).iter().map(ToString::to_string).collect()
}

/// Asserts that the only problem is an error at `path` with `words`.
#[track_caller]
pub(super) fn refused(path: &str, words: &str, change: impl FnOnce(&mut RolloutSpec)) {
    only("error", path, words, &problems(change));
}

/// Asserts that the only problem is a warning at `path` with `words`.
#[track_caller]
pub(super) fn warned(path: &str, words: &str, change: impl FnOnce(&mut RolloutSpec)) {
    only("warning", path, words, &problems(change));
}

#[track_caller]
pub(super) fn only(severity: &str, path: &str, words: &str, problems: &[String]) {
    let fits = |line: &String| line.starts_with(&format!("{severity}: {path}: ")) && line.contains(words);
    assert!(problems.len() == 1 && fits(&problems[0]), "{problems:#?}");
}

/// A gate on the share of failed calls.
pub(super) fn failed() -> serin_spec::MetricSpec {
    rate("errors", MetricSource::Failed)
}

/// A rate with a label that arrives within a minute.
pub(super) fn click() -> serin_spec::MetricSpec {
    serin_spec::MetricSpec {
        maturity: Duration::from_secs(60),
        ..rate("click", MetricSource::Feedback("click".into()))
    }
}

fn shadow(version: &str, share: &str) -> serin_spec::ShadowSpec {
    serde_json::from_str(&serde_json::json!({"version": version, "share": share}).to_string()).unwrap()
}

fn rate(name: &str, source: MetricSource) -> serin_spec::MetricSpec {
    let mut metric = spec().normalized().metrics.remove(2);
    name.clone_into(&mut metric.name);
    metric.source = source;
    metric
}

#[test]
fn a_check_that_can_never_fail_is_refused() {
    refused("metrics[0].margin", "can never fail", |spec| {
        spec.metrics[0].margin.as_mut().unwrap().absolute = Some(1.0);
    });
    refused("metrics[1].margin", "can never fail", |spec| {
        spec.metrics[1].kind = MetricKind::Mean { min: 0.0, max: 100.0 };
        spec.metrics[1].margin.as_mut().unwrap().absolute = Some(100.0);
    });
    refused("metrics[0].margin", "cannot fall by 150 %", |spec| {
        spec.metrics[0].direction = serin_spec::Direction::HigherIsBetter;
        spec.metrics[0].margin = Some(Margin { absolute: None, relative: Some(1.5) });
    });
    refused("metrics", "can never fail", |spec| {
        spec.metrics = spec.normalized().metrics;
        for metric in &mut spec.metrics {
            metric.role = Role::Watch;
        }
    });
    refused("steps[0].weight", "no check can fail", |spec| spec.steps[0].weight = Share(0));
    refused("steps[1].weight", "no check can fail", |spec| spec.steps[1].weight = Share::ALL);
}

#[test]
fn a_check_that_can_never_pass_is_refused() {
    refused("metrics[0].margin", "can never pass", |spec| {
        spec.metrics[0].margin.as_mut().unwrap().absolute = Some(0.0);
    });
    refused("metrics[0].margin", "how much harm is acceptable", |spec| spec.metrics[0].margin = None);
    refused("metrics[0].margin", "finite number", |spec| {
        spec.metrics[0].margin.as_mut().unwrap().absolute = Some(f64::NAN);
    });
    refused("metrics[0].margin", "finite number", |spec| {
        spec.metrics[0].margin.as_mut().unwrap().absolute = Some(-0.1);
    });
}

#[test]
fn a_number_of_answers_can_arrive() {
    for events in [1_000_000_000_001, i64::MAX as u64, u64::MAX] {
        refused("warmup.minEvents", "never arrive", |spec| spec.warmup.min_events = events);
        refused("steps[0].bake.minEvents", "never arrive", |spec| spec.steps[0].bake.min_events = events);
    }
    assert_eq!(problems(|spec| spec.warmup.min_events = 1_000_000), [""; 0]);
}

#[test]
fn the_ramp_goes_up_and_ends() {
    refused("steps[1].weight", "goes down, from 5% to 1%", |spec| spec.steps[1].weight = Share(100));
    refused("steps[0].bake", "longer than bake.max", |spec| spec.steps[0].bake.min = Duration::from_secs(90_000));
    refused("steps[0].bake", "shorter than a window", |spec| {
        spec.steps[0].bake.max = Duration::from_secs(5);
        spec.steps[0].bake.min = Duration::from_secs(1);
    });
    refused("window", "too long", |spec| {
        spec.window = Duration::from_secs(7 * 86_400 + 1);
        for step in &mut spec.steps {
            step.bake.max = Duration::from_secs(30 * 86_400);
        }
    });
    refused("grace", "too long", |spec| spec.grace = Duration::from_secs(86_401));
    warned("grace", "longer than a window", |spec| spec.grace = Duration::from_secs(11));
    assert_eq!(problems(|spec| spec.grace = Duration::from_secs(10)), [""; 0]);
    assert!(problems(|spec| spec.steps.clear())[0].contains("the ramp has no step"));
    warned("steps[1].weight", "leaves only 5%", |spec| spec.steps[1].weight = Share(9_500));
    warned("steps[1].require", "no step requires a pass", |spec| {
        spec.steps[1].require = Some(serin_spec::Require::NoFail);
    });
    // Two steps may have the same weight.
    assert_eq!(
        problems(|spec| spec
            .steps
            .insert(0, Step { require: Some(serin_spec::Require::NoFail), ..spec.steps[0].clone() })),
        [""; 0]
    );
}

#[test]
fn the_windows_left_out_do_not_cover_a_step_or_the_monitor() {
    assert_eq!(problems(|spec| spec.settle = 59), [""; 0]);
    warned("steps[0].bake", "bake.min (10m) ends before the 60 windows", |spec| spec.settle = 60);
    // The last whole window of the step is compared, after bake.min of both steps.
    let both = |settle| problems(|spec| (spec.settle, spec.steps[1].bake.max) = (settle, spec.steps[0].bake.max));
    assert!(both(1439).iter().all(|line| line.starts_with("warning: ")), "{:?}", both(1439));
    assert_eq!(both(1440).iter().filter(|line| line.contains("the canary is never compared")).count(), 2);
    refused("promotion.monitor", "nothing in 1m is compared", |spec| {
        (spec.settle, spec.promotion.monitor) = (6, Duration::from_secs(60));
        spec.promotion.holdback = Some(Share(500));
    });
}

#[test]
fn an_approval_needs_time_and_a_rollout_that_takes_steps() {
    let (by, otherwise) = (serin_spec::Approver::Operator, serin_spec::Otherwise::Hold);
    let approve = |secs| {
        let within = Duration::from_secs(secs);
        move |spec: &mut RolloutSpec| {
            spec.steps[0].approve = Some(serin_spec::Approval { by, within, otherwise, marginal: false });
        }
    };
    assert_eq!(problems(approve(3600)), [""; 0]);
    refused("steps[0].approve.within", "ends with the next verdict", approve(0));
    warned("steps[0].approve", "never asked for", |spec| {
        approve(3600)(spec);
        spec.mode = serin_spec::Mode::Observe;
    });
}

#[test]
fn planned_looks_need_a_horizon_and_normal_sums() {
    let plan = |answers, looks| Some(serin_spec::GroupSequential { answers, looks });
    let path = "steps[1].groupSequential";
    // Adds a rate of every answer to the metrics of labels and quantiles.
    let with = |change: fn(&mut RolloutSpec)| {
        move |spec: &mut RolloutSpec| {
            spec.metrics.push(rate("errors", MetricSource::Failed));
            spec.steps[1].group_sequential = Some(serin_spec::GroupSequential { answers: 60_000, looks: 5 });
            change(spec);
        }
    };
    assert_eq!(problems(with(|_| ())), [""; 0]);
    refused(
        path,
        "only works with `require: pass`",
        with(|spec| spec.steps[1].require = Some(serin_spec::Require::PassInSegments)),
    );
    refused(
        "steps[0].groupSequential",
        "only works with `require: pass`",
        with(|spec| {
            spec.steps[0].group_sequential = spec.steps[1].group_sequential.take();
        }),
    );
    refused(
        "steps[0].groupSequential",
        "a later step also requires a pass",
        with(|spec| {
            spec.steps[0].require = Some(serin_spec::Require::Pass);
            spec.steps[0].group_sequential = spec.steps[1].group_sequential.take();
        }),
    );
    refused(
        "steps[1].groupSequential.looks",
        "use 1 to 10",
        with(|spec| {
            spec.steps[1].group_sequential = Some(serin_spec::GroupSequential { answers: 60_000, looks: 11 });
        }),
    );
    // Few answers are enough for rates with wide margins. The built-in gate `refused`, which is not in the file, needs no more.
    let wide = |name: &str, source| {
        let margin = Some(Margin { absolute: Some(0.1), relative: None });
        serin_spec::MetricSpec { margin, ..rate(name, source) }
    };
    let few = problems(|spec| {
        spec.metrics.extend([wide("failed", MetricSource::Failed), wide("unusable", MetricSource::Unusable)]);
        spec.steps[1].group_sequential = plan(900, 3);
    });
    assert_eq!(few, [""; 0]);
    // The built-in gate on unusable answers has a margin of half a point.
    refused(
        "steps[1].groupSequential.answers",
        "unusable is not close to normal before 5000",
        with(|spec| {
            spec.steps[1].group_sequential = Some(serin_spec::GroupSequential { answers: 4_999, looks: 5 });
        }),
    );
    // This is refused even if no margin determines the number, because the analyzer could not start.
    refused(
        "steps[1].groupSequential.answers",
        "4 planned answers are too few for 5 looks",
        with(|spec| {
            spec.steps[1].group_sequential = Some(serin_spec::GroupSequential { answers: 4, looks: 5 });
        }),
    );
    let sticky = problems(with(|spec| spec.assignment.sticky = Some(StickyKey::Session)));
    assert!(
        sticky.iter().any(|line| line.starts_with(&format!("error: {path}: with sticky assignment"))),
        "{sticky:#?}"
    );
    refused(path, "no metric of the spec can pass at planned looks", |spec| {
        spec.steps[1].group_sequential = plan(60_000, 5);
    });
}

#[test]
fn stratify_by_names_a_segment_of_the_metric() {
    let by = |dimension: &str| Some(dimension.to_owned());
    assert_eq!(problems(|spec| spec.metrics[0].stratify_by = by("origin")), [""; 0]);
    refused("metrics[0].stratifyBy", "did you mean \"origin\"?", |spec| spec.metrics[0].stratify_by = by("orign"));
    refused("metrics[1].stratifyBy", "only rates, means", |spec| {
        spec.metrics[1].segments = vec!["origin".to_owned()];
        spec.metrics[1].stratify_by = by("origin");
    });
    refused("metrics[0].stratifyBy", "against control", |spec| {
        spec.metrics[0].margin = None;
        spec.metrics[0].limit = Some(serin_spec::Limit { pass: None, fail: Some(0.1) });
        spec.metrics[0].stratify_by = by("origin");
    });
}

#[test]
fn names_must_be_defined() {
    refused("metrics[0].segments[0]", "did you mean \"origin\"?", |spec| spec.metrics[0].segments[0] = "orign".into());
    refused("metrics[0].source", "never has data", |spec| spec.outputs.clear());
    refused("metrics[0].source", "is a class", |spec| {
        spec.outputs[0].kind = serin_spec::OutputKind::Class;
        spec.outputs[0].min = None;
        spec.outputs[0].max = None;
    });
    refused("metrics[1].name", "another entry is also named", |spec| spec.metrics[1].name = "wrong".into());
    refused("segments[0].source", "has no source", |spec| {
        spec.segments[0].source = SegmentSource::Event("origin".into());
    });
    refused("segments[0].source", "is not a JSON pointer", |spec| {
        spec.segments[0].source = SegmentSource::Json("origin".into());
    });
    refused("segments[0].top", "every value is in `other`", |spec| spec.segments[0].top = 0);
    refused("outputs[0]", "no number is in the range", |spec| spec.outputs[0].min = Some(2.0));
}

#[test]
fn a_delay_complements_a_metric_that_waits_for_the_label() {
    let delay = |change: fn(&mut serin_spec::MetricSpec)| {
        move |spec: &mut RolloutSpec| {
            let mut metric = spec.metrics[0].clone();
            metric.name = "delay".into();
            (metric.kind, metric.source) = (MetricKind::Distribution, MetricSource::LabelDelay("late".into()));
            (metric.margin, metric.role) = (None, Role::Score);
            change(&mut metric);
            spec.metrics.push(metric);
        }
    };
    assert_eq!(problems(delay(|_| {})), [""; 0]);
    assert_eq!(
        problems(delay(|metric| metric.kind = MetricKind::Quantile { level: 0.99 })).len(),
        1,
        "it needs a margin"
    );
    let rate = |metric: &mut serin_spec::MetricSpec| {
        (metric.kind, metric.margin) = (MetricKind::Rate, Some(Margin { absolute: Some(0.1), relative: None }));
    };
    refused("metrics[2].kind", "not a yes/no value", delay(rate));
    refused("metrics[2].maturity", "needs labels", delay(|metric| metric.maturity = Duration::default()));
    refused(
        "metrics[2].whenMissing",
        "has no delay",
        delay(|metric| metric.when_missing = serin_spec::WhenMissing::Zero),
    );
    warned(
        "metrics[2].maturity",
        "no other metric waits for label \"late\" for 6h",
        delay(|metric| metric.maturity = Duration::from_secs(21_600)),
    );
    warned(
        "metrics[2].source",
        "did you mean \"late\"?",
        delay(|metric| metric.source = MetricSource::LabelDelay("lat".into())),
    );
    // A delay does not measure a model's answers.
    let only = problems(|spec| {
        delay(|metric| metric.role = Role::Gate)(spec);
        spec.metrics.remove(0);
    });
    assert!(only.iter().any(|line| line.contains("no metric looks at outputs or feedback")), "{only:#?}");
}

#[test]
fn kinds_fit_their_sources() {
    refused("metrics[1].kind", "not a yes/no value", |spec| {
        spec.metrics[1].kind = MetricKind::Rate;
        spec.metrics[1].margin.as_mut().unwrap().absolute = Some(0.1);
    });
    refused("metrics[0].kind", "has no quantile", |spec| spec.metrics[0].kind = MetricKind::Quantile { level: 0.5 });
    for level in [0.0, 1.0, 99.0, f64::NAN] {
        refused("metrics[1].kind", "not a quantile level", |spec| {
            spec.metrics[1].kind = MetricKind::Quantile { level }
        });
    }
    refused("metrics[1].kind", "no value is in the range", |spec| {
        spec.metrics[1].kind = MetricKind::Mean { min: f64::NAN, max: 1.0 };
    });
}

#[test]
fn labels_that_arrive_after_the_ramp_are_warned_about() {
    let labels = |spec: &mut RolloutSpec| spec.metrics[0].maturity = Duration::from_secs(12 * 3600);
    warned("metrics[0].maturity", "the ramp may be at 25% after 10m", labels);
    // There is no warning if the step with the small weight is long enough or requires a pass.
    let light = |spec: &mut RolloutSpec| {
        let bake = &mut spec.steps[0].bake;
        (bake.min, bake.max) = (Duration::from_secs(12 * 3600), Duration::from_secs(20 * 3600));
    };
    let passes = |spec: &mut RolloutSpec| spec.steps[0].require = Some(serin_spec::Require::Pass);
    let watched = |spec: &mut RolloutSpec| spec.metrics[0].role = Role::Watch;
    for change in [light as fn(&mut RolloutSpec), passes, watched] {
        let found = problems(|spec| {
            labels(spec);
            change(spec);
        });
        assert!(found.iter().all(|line| !line.contains("the ramp may be at")), "{found:#?}");
    }
}

#[test]
fn labels_need_time() {
    refused("metrics[0].maturity", "arrive later than answers", |spec| spec.metrics[0].maturity = Duration::default());
    warned("metrics[0].maturity", "no step bakes longer than 1d", |spec| {
        spec.metrics[0].maturity = Duration::from_secs(200_000);
    });
    warned("metrics[1].maturity", "ignored", |spec| spec.metrics[1].maturity = Duration::from_secs(60));
}

#[test]
fn probable_mistakes_are_warned_about() {
    warned("metrics", "no metric looks at outputs or feedback", |spec| drop(spec.metrics.remove(0)));
    warned("metrics", "6 gates", |spec| {
        let extra = ["a", "b", "c", "d"]
            .map(|label| rate(label, MetricSource::Class { output: "late".into(), is: Some(label.into()) }));
        spec.outputs.push(serin_spec::OutputRule {
            name: "class".into(),
            kind: serin_spec::OutputKind::Class,
            min: None,
            max: None,
            ..spec.outputs[0].clone()
        });
        spec.metrics.extend(extra.map(|mut metric| {
            metric.source = MetricSource::Class { output: "class".into(), is: Some(metric.name.clone()) };
            metric
        }));
    });
    warned("metrics", "only the built-in gates", |spec| {
        for metric in &mut spec.metrics {
            metric.role = Role::Watch;
        }
    });
    warned("assignment.sticky", "approximate", |spec| {
        spec.assignment.sticky = Some(StickyKey::Header("x-user".into()));
    });
    warned("canary.version", "A/A test", |spec| spec.canary.version = "v1".into());
    warned("promotion.holdback", "without a monitor", |spec| spec.promotion.holdback = Some(Share(500)));
    warned("mode", "foreign router", |spec| spec.traffic = TrafficSource::External);
}

#[test]
fn numbers_are_in_their_range() {
    refused("decision.falseRollback", "not a valid error rate", |spec| spec.decision.false_rollback = 0.0);
    refused("decision.rollbackScore", "not below", |spec| spec.decision.rollback_score = 96.0);
    refused("decision.promoteScore", "not a valid score", |spec| spec.decision.promote_score = 101.0);
    refused("controlRatio", "has no traffic to compare with", |spec| spec.control_ratio = 0.0);
    refused("window", "too short", |spec| spec.window = Duration::default());
    refused("metrics[0].scoreWeight", "not a valid weight", |spec| spec.metrics[0].score_weight = -1.0);
    refused("canary.pathVersion", "cannot be part of a path", |spec| spec.canary.path_version = Some("a/b".into()));
}

#[test]
fn traffic_that_cannot_resolve_a_margin_is_warned_about() {
    let problems = |per_second: f64| -> Vec<String> {
        let traffic = Traffic { per_second, rates: std::collections::BTreeMap::new() };
        lint(&spec(), Some(&traffic)).iter().map(ToString::to_string).collect()
    };
    assert_eq!(problems(1_000.0), [""; 0]);
    // 25 % of 0.1/s for a day are 2 160 answers: enough for `wrong` (1 683) and the built-in gates (1 403 at most), not for p99 (2 294).
    let some = problems(0.1);
    assert!(some.len() == 1 && some[0].contains("latency_p99 needs about"), "{some:#?}");
    let none = problems(0.001);
    assert!(none.len() == 1 && none[0].contains("use shadow or blue-green"), "{none:#?}");
}

#[test]
fn groups_are_defined_and_used() {
    let grouped = |name: &str| serin_spec::GroupSpec { name: name.to_owned(), weight: 1.0 };
    refused("metrics[0].group", "did you mean \"quality\"", |spec| {
        spec.groups = vec![grouped("quality")];
        spec.metrics[0].group = Some("qualty".to_owned());
        spec.metrics[1].group = Some("quality".to_owned());
    });
    refused("metrics[0].scoreWeight", "can never fail", |spec| {
        spec.groups = vec![grouped("quality")];
        for metric in &mut spec.metrics {
            metric.group = Some("quality".to_owned());
        }
        spec.metrics[0].score_weight = 0.0;
    });
    warned("groups[0]", "never judged", |spec| spec.groups = vec![grouped("quality")]);
    refused("groups[0].weight", "finite number", |spec| {
        spec.groups = vec![serin_spec::GroupSpec { weight: -1.0, ..grouped("quality") }];
        spec.metrics[0].group = Some("quality".to_owned());
    });
}

#[test]
fn a_disagreement_metric_needs_mirrored_calls() {
    let pairs = |spec: &mut RolloutSpec, role: Role| {
        spec.metrics.push(serin_spec::MetricSpec {
            kind: MetricKind::Disagreement,
            margin: None,
            limit: Some(serin_spec::Limit { pass: Some(0.05), fail: None }),
            role,
            ..rate("disagreement", MetricSource::Status)
        });
    };
    warned("metrics[2].kind", "the rollout is held", |spec| pairs(spec, Role::Gate));
    for (policy, words) in [
        (serin_spec::Policy::Rollback, "the rollout is rolled back"),
        (serin_spec::Policy::Warn, "a step waits for it to pass"),
        (serin_spec::Policy::Proceed, "decides nothing"),
    ] {
        warned("metrics[2].kind", words, |spec| {
            spec.no_data.value_missing = policy;
            pairs(spec, Role::Gate);
        });
    }
    warned("metrics[2].kind", "never has data", |spec| pairs(spec, Role::Watch));
    let mirrored = problems(|spec| {
        pairs(spec, Role::Gate);
        let step = Step { weight: Share(0), mirror: Some(Share(1_000)), ..spec.steps[0].clone() };
        spec.steps.insert(0, step);
    });
    assert_eq!(mirrored, Vec::<String>::new());
}

#[test]
fn mirrors_targets_features_and_examples() {
    let json = |value: serde_json::Value| serde_json::to_string(&value).unwrap();
    let mirror = |spec: &mut RolloutSpec, at: usize, share: i32| {
        let step = Step { weight: Share(0), mirror: Some(Share(share)), ..spec.steps[0].clone() };
        spec.steps.insert(at, step);
    };
    assert_eq!(problems(|spec| mirror(spec, 0, 1_000)), Vec::<String>::new());
    refused("steps[0].mirror", "nothing is mirrored to the canary", |spec| mirror(spec, 0, 0));
    refused("steps[1].mirror", "already answers callers before this step", |spec| mirror(spec, 1, 1_000));
    refused("steps[0].mirror", "cannot have both", |spec| spec.steps[0].mirror = Some(Share(100)));
    warned("steps[0].mirror", "would get all traffic in one step", |spec| {
        mirror(spec, 0, 1_000);
        spec.steps[0].require = Some(serin_spec::Require::Pass);
        spec.steps.truncate(1);
        spec.steps[0].bake.max = Duration::from_secs(86_400);
    });
    refused("shadows[0].version", "is an arm of this rollout", |spec| spec.shadows.push(shadow("v2", "1%")));
    refused("shadows[0].share", "nothing is mirrored", |spec| spec.shadows.push(shadow("v3", "0%")));
    let target = |is: &[&str]| {
        let target = serde_json::json!({"name": "staff", "when": {"header": "x-team"}, "is": is});
        serde_json::from_str(&json(target)).unwrap()
    };
    assert_eq!(problems(|spec| spec.assignment.targets.push(target(&["ml"]))), Vec::<String>::new());
    warned("assignment.targets", "matches every request", |spec| spec.assignment.targets.push(target(&[])));
    let feature = |name: &str| {
        let feature =
            serde_json::json!({"name": name, "source": {"json": "/amount"}, "computedAt": {"header": "x-at"}});
        serde_json::from_str(&json(feature)).unwrap()
    };
    refused("features[0].name", "an output is also named", |spec| spec.features.push(feature("late")));
    assert_eq!(problems(|spec| spec.features.push(feature("amount"))), Vec::<String>::new());
    for known in ["amount", "amount.age", "response.bytes", "response.missing"] {
        let metric = serin_spec::MetricSpec {
            kind: MetricKind::Mean { min: 0.0, max: 10.0 },
            role: Role::Watch,
            ..rate("watched", MetricSource::Output(known.into()))
        };
        assert_eq!(
            problems(|spec| {
                spec.features.push(feature("amount"));
                spec.metrics.push(metric);
            }),
            Vec::<String>::new(),
            "{known}"
        );
    }
    refused("capture.maxBytes", "cannot be truncated to 0 bytes", |spec| {
        mirror(spec, 0, 1_000);
        spec.capture = Some(serde_json::from_str(r#"{"maxBytes": 0}"#).unwrap());
    });
    warned("capture", "nothing is mirrored", |spec| spec.capture = Some(serde_json::from_str("{}").unwrap()));
    refused("drain", "is too long", |spec| spec.drain = Duration::from_secs(100_000));
}

#[test]
fn a_spec_whose_records_could_be_too_large_is_refused() {
    let latency = |n: usize| serin_spec::MetricSpec { name: format!("latency_{n}"), ..spec().metrics[1].clone() };
    let many = |count: usize| move |spec: &mut RolloutSpec| spec.metrics.extend((0..count).map(latency));
    let errors = |change: &dyn Fn(&mut RolloutSpec)| -> Vec<String> {
        problems(change).into_iter().filter(|line| line.starts_with("error")).collect()
    };
    assert_eq!(errors(&many(100)), [""; 0]);
    only("error", "metrics", "there are 6802 metrics; a rollout may have at most 200", &errors(&many(6800)));
    // A few entries with long strings.
    let pointer = |spec: &mut RolloutSpec| {
        spec.segments[0].source = SegmentSource::Json(format!("/{}", "p".repeat(MAX_SPEC_BYTES)));
    };
    only("error", "segments", "bytes; the maximum is 262144", &errors(&pointer));
    let pointer = |spec: &mut RolloutSpec| spec.plan.currency = Some("u".repeat(MAX_SPEC_BYTES));
    only("error", "model", "as JSON the spec has", &errors(&pointer));
    // Ten dimensions are accepted, forty are refused.
    let dimensions = |count: usize| {
        move |spec: &mut RolloutSpec| {
            let segment = |n| serin_spec::SegmentSpec { name: format!("d{n}"), top: 100, ..spec.segments[0].clone() };
            let more: Vec<_> = (0..count).map(segment).collect();
            spec.segments.extend(more);
        }
    };
    assert_eq!(errors(&dimensions(10)), [""; 0]);
    only("error", "segments", "with the 4010 values that warm-up may freeze", &errors(&dimensions(40)));
}

#[test]
fn names_that_are_too_long_are_refused() {
    let long = || "n".repeat(257);
    let errors = |change: &dyn Fn(&mut RolloutSpec)| -> Vec<String> {
        problems(change).into_iter().filter(|line| line.starts_with("error")).collect()
    };
    only("error", "model", "the name has 257 bytes", &errors(&|spec| spec.model = long().into()));
    only("error", "canary.version", "257 bytes", &errors(&|spec| spec.canary.version = long().into()));
    only("error", "metrics[1].name", "257 bytes", &errors(&|spec| spec.metrics[1].name = long()));
    only(
        "error",
        "metrics[1].source",
        "257 bytes",
        &errors(&|spec| {
            spec.metrics[1] = rate("click", MetricSource::Feedback(long()));
            spec.metrics[1].maturity = Duration::from_secs(60);
        }),
    );
}
