//! Lint of kinds, values and names: checks that can never fail.

use super::tests::{only, problems, refused, warned};
use super::*;
use crate::testing::spec;
use serin_spec::{
    Direction, Limit, Margin, MetricKind, MetricSource, RolloutSpec, SegmentSource, StickyKey, units::Duration,
};

/// Changes `metrics[1]`, which needs no label, into a metric of this kind and source.
fn metric(
    kind: MetricKind,
    source: MetricSource,
    change: impl FnOnce(&mut serin_spec::MetricSpec),
) -> impl FnOnce(&mut RolloutSpec) {
    move |spec| {
        (spec.metrics[1].kind, spec.metrics[1].source) = (kind, source);
        spec.metrics[1].margin = Some(absolute(0.1));
        change(&mut spec.metrics[1]);
    }
}

fn absolute(absolute: f64) -> Margin {
    Margin { absolute: Some(absolute), relative: None }
}

fn relative(relative: f64) -> Margin {
    Margin { absolute: None, relative: Some(relative) }
}

/// The output of the spec, which is from 0 to 1.
fn late() -> MetricSource {
    MetricSource::Output("late".into())
}

#[test]
fn a_kind_must_accept_the_values_of_its_source() {
    let scores = |min, max| MetricKind::Mean { min, max };
    for (kind, source, words) in [
        (scores(5.0, 10.0), late(), "the source gives 0 to 1, but the kind takes 5 to 10"),
        (scores(1.0, 2.0), late(), "the kind takes 1 to 2"),
        (scores(-3.0, 0.0), late(), "the kind takes -3 to 0"),
        (scores(5.0, 10.0), MetricSource::Failed, "the source gives 0 to 1"),
        (scores(-9.0, -1.0), MetricSource::Latency, "the source gives 0 to 86400000"),
        (scores(-9.0, 0.0), MetricSource::Output("response.bytes".into()), "the source gives 0 or more"),
    ] {
        refused("metrics[1].kind", words, metric(kind, source, |_| ()));
    }
    warned("metrics[1].kind", "count as the nearest end", metric(scores(0.0, 0.5), late(), |_| ()));
    // A range may be wider than necessary, and that of the source may be unknown.
    for (kind, source) in [
        (scores(0.0, 1.0), late()),
        (scores(-1.0, 3.0), late()),
        (scores(0.0, 5000.0), MetricSource::Latency),
        (scores(5.0, 10.0), MetricSource::Output("response.bytes".into())),
    ] {
        assert_eq!(problems(metric(kind, source, |_| ())), [""; 0]);
    }
    let negative = |spec: &mut RolloutSpec| (spec.outputs[0].min, spec.outputs[0].max) = (Some(-2.0), Some(0.0));
    for kind in [MetricKind::CappedMean { cap: 9.0 }, MetricKind::Quantile { level: 0.5 }] {
        let lines = problems(|spec| {
            negative(spec);
            metric(kind, late(), |metric| metric.margin = Some(relative(0.1)))(spec);
        });
        assert!(lines.iter().any(|line| line.contains("this check can never fail")), "{lines:?}");
    }
}

#[test]
fn a_margin_must_be_one_that_a_value_can_exceed() {
    let mean = || MetricKind::Mean { min: 0.0, max: 100.0 };
    let p99 = || MetricKind::Quantile { level: 0.99 };
    let latency = || MetricSource::Latency;
    let with = |margin: Margin| move |metric: &mut serin_spec::MetricSpec| metric.margin = Some(margin);
    let higher = |margin: Margin| {
        move |metric: &mut serin_spec::MetricSpec| {
            (metric.margin, metric.direction) = (Some(margin), Direction::HigherIsBetter);
        }
    };
    let never = |change: Box<dyn FnOnce(&mut RolloutSpec)>| refused("metrics[1].margin", "can never fail", change);
    never(Box::new(metric(mean(), late(), with(absolute(2.0)))));
    never(Box::new(metric(p99(), latency(), with(absolute(1e12)))));
    never(Box::new(metric(p99(), latency(), higher(absolute(1e12)))));
    never(Box::new(metric(p99(), latency(), with(relative(20.0)))));
    never(Box::new(metric(MetricKind::Rate, MetricSource::Cancelled, with(relative(20.0)))));
    never(Box::new(metric(MetricKind::Count, MetricSource::Output("llm.tool_calls".into()), with(relative(20.0)))));
    never(Box::new(metric(MetricKind::CappedMean { cap: 40.0 }, latency(), with(absolute(40.0)))));
    never(Box::new(metric(MetricKind::Distribution, latency(), with(absolute(0.98)))));
    never(Box::new(metric(MetricKind::Classes, MetricSource::Status, with(absolute(1.0)))));
    // No value from 5 to 10 is more than twice another.
    let scores = |spec: &mut RolloutSpec| (spec.outputs[0].min, spec.outputs[0].max) = (Some(5.0), Some(10.0));
    for change in [with(relative(1.0)), with(relative(3.0))] {
        never(Box::new(move |spec| {
            scores(spec);
            metric(MetricKind::Mean { min: 0.0, max: 100.0 }, late(), change)(spec);
            spec.metrics.remove(0);
            spec.metrics.insert(0, super::tests::click());
        }));
    }
    assert_eq!(problems(metric(p99(), latency(), with(relative(1.0)))), [""; 0]);
    assert_eq!(problems(metric(mean(), late(), with(absolute(0.9)))), [""; 0]);
    refused("metrics[1].margin", "finer than", metric(p99(), latency(), with(relative(0.005))));
    // A share of a negative number is not a valid margin.
    let signed = || MetricKind::Mean { min: -1.0, max: 1.0 };
    let free = || MetricSource::Feedback("gain".into());
    let of_gain = |margin: Margin| {
        metric(signed(), free(), move |metric| {
            (metric.margin, metric.maturity) = (Some(margin), Duration::from_secs(60));
        })
    };
    refused("metrics[1].margin", "a relative margin on a negative value is negative", of_gain(relative(0.1)));
    assert_eq!(problems(of_gain(absolute(0.1))), [""; 0]);
    assert_eq!(problems(of_gain(Margin { absolute: Some(0.1), relative: Some(0.1) })), [""; 0]);
}

#[test]
fn a_limit_must_be_one_that_a_value_can_break() {
    let limited = |kind, source, limit: f64| {
        metric(kind, source, move |metric| {
            (metric.margin, metric.limit) = (None, Some(Limit { pass: None, fail: Some(limit) }));
        })
    };
    let mean = || MetricKind::Mean { min: 0.0, max: 100.0 };
    let p99 = || MetricKind::Quantile { level: 0.99 };
    for (kind, source, limit) in [
        (mean(), late(), 5.0),
        (mean(), late(), 1.0),
        (p99(), MetricSource::Latency, 1e12),
        (p99(), MetricSource::Latency, -1.0),
        (MetricKind::Rate, MetricSource::Failed, 1.5),
        (MetricKind::CappedMean { cap: 500.0 }, MetricSource::Latency, 501.0),
        (MetricKind::Count, MetricSource::Output("llm.tool_calls".into()), 1e9),
    ] {
        refused("metrics[1].limit", "is within a limit", limited(kind, source, limit));
    }
    assert_eq!(problems(limited(mean(), late(), 0.5)), [""; 0]);
    assert_eq!(problems(limited(p99(), MetricSource::Latency, 800.0)), [""; 0]);
}

#[test]
fn a_threshold_must_separate_the_answers() {
    let cut = |threshold: f64| {
        move |spec: &mut RolloutSpec| {
            spec.metrics[0].source = MetricSource::Wrong { output: "late".into(), label: "late".into(), threshold };
        }
    };
    refused("metrics[0].source", "every answer means no", cut(5.0));
    refused("metrics[0].source", "every answer means yes", cut(0.0));
    refused("metrics[0].source", "every answer means yes", cut(-1.0));
    refused("metrics[0].source", "is not a valid threshold", cut(f64::NAN));
    refused("metrics[0].source", "is not a valid threshold", cut(f64::INFINITY));
    for threshold in [1e-9, 0.5, 1.0] {
        assert_eq!(problems(cut(threshold)), [""; 0]);
    }
    let tolerance = |tolerance: f64| {
        move |spec: &mut RolloutSpec| {
            metric(MetricKind::Disagreement, late(), |metric| {
                (metric.margin, metric.tolerance) = (None, Some(tolerance));
                metric.limit = Some(Limit { pass: None, fail: Some(0.1) });
            })(spec);
            spec.steps.insert(0, serde_json::from_str(r#"{"mirror": "10%"}"#).unwrap());
        }
    };
    refused("metrics[1].tolerance", "can never fail", tolerance(1.0));
    assert_eq!(problems(tolerance(0.5)), [""; 0]);
}

#[test]
fn a_header_has_a_name_that_can_be_sent() {
    for name in ["x user", "x-user:", ":path", "x\u{fc}ser", "x\tuser", "\"x\"", "a,b", "x-user ", "(x)"] {
        let words = "cannot be the name of a";
        let sticky = |key: StickyKey| {
            let lines = problems(|spec| spec.assignment.sticky = Some(key));
            let errors: Vec<String> = lines.into_iter().filter(|line| line.starts_with("error")).collect();
            only("error", "assignment.sticky", words, &errors);
        };
        sticky(StickyKey::Header(name.into()));
        sticky(StickyKey::Cookie(name.into()));
        refused("segments[0].source", words, |spec| spec.segments[0].source = SegmentSource::Header(name.into()));
        refused("outputs[0].source", words, |spec| {
            spec.outputs[0].source = serin_spec::OutputSource::Header(name.into());
        });
        let when = serde_json::json!({"name": "staff", "when": {"header": name}, "is": ["ml"]});
        refused("assignment.targets[0].when", words, |spec| {
            spec.assignment.targets.push(serde_json::from_value(when.clone()).unwrap());
        });
        let feature = serde_json::json!({"name": "age", "source": {"json": "/a"}, "computedAt": {"header": name}});
        refused("features[0].computedAt", words, |spec| {
            spec.features.push(serde_json::from_value(feature.clone()).unwrap());
        });
    }
    refused("segments[0].source", "the name is empty", |spec| {
        spec.segments[0].source = SegmentSource::Header(" ".into());
    });
    for name in ["x-user", "X-User_2", "x.user", "!#$%&'*+-.^_`|~"] {
        assert_eq!(problems(|spec| spec.segments[0].source = SegmentSource::Header(name.into())), [""; 0]);
    }
    // Names of parameters may have spaces.
    assert_eq!(problems(|spec| spec.segments[0].source = SegmentSource::Parameter("x user".into())), [""; 0]);
}

#[test]
fn versions_with_the_same_servers_are_refused() {
    let at = |stable: &'static str, canary: &'static str| {
        move |spec: &mut RolloutSpec| {
            (spec.stable.url, spec.canary.url) = (Some(stable.into()), Some(canary.into()));
        }
    };
    let place = "http://localhost:9001";
    refused("canary.url", "serves both versions", at(place, place));
    refused("canary.url", "serves both versions", at(place, "http://LOCALHOST:9001/"));
    refused("canary.url", "serves both versions", |spec| {
        at(place, place)(spec);
        (spec.stable.path_version, spec.canary.path_version) = (Some("2".into()), Some("2".into()));
    });
    refused("canary.grpcUrl", "serves both versions", |spec| {
        (spec.stable.grpc_url, spec.canary.grpc_url) = (Some("h2c://g:1".into()), Some("h2c://g:1".into()));
    });
    assert_eq!(
        problems(|spec| {
            at(place, place)(spec);
            (spec.stable.path_version, spec.canary.path_version) = (Some("1".into()), Some("2".into()));
        }),
        [""; 0]
    );
    // It is intended in an A/A test, and allowed with external traffic.
    warned("canary.version", "an A/A test", |spec| {
        at(place, place)(spec);
        spec.canary.version = spec.stable.version.clone();
    });
    assert_eq!(
        problems(|spec| {
            at(place, place)(spec);
            (spec.traffic, spec.mode) = (TrafficSource::External, Mode::Observe);
        }),
        [""; 0]
    );
}

#[test]
fn traffic_is_compared_with_what_plan_and_simulate_expect() {
    let traffic = |per_second: f64| Traffic { per_second, rates: std::collections::BTreeMap::new() };
    let lines = |per_second: f64, change: &dyn Fn(&mut RolloutSpec)| -> Vec<String> {
        let mut spec = spec();
        change(&mut spec);
        lint(&spec, Some(&traffic(per_second))).iter().map(ToString::to_string).collect()
    };
    // 1 % errors, a margin of 0.2 points, 10,000 requests a minute. It passes in a quarter of an hour in plan and simulate.
    let errors = |spec: &mut RolloutSpec| {
        spec.metrics.push(serin_spec::MetricSpec {
            name: "errors".into(),
            margin: Some(absolute(0.002)),
            ..super::tests::failed()
        });
        for step in &mut spec.steps {
            (step.bake.min, step.bake.max) = (Duration::from_secs(600), Duration::from_secs(3600));
        }
        spec.metrics.remove(0);
        spec.metrics.push(super::tests::click());
    };
    assert_eq!(lines(10_000.0 / 60.0, &errors), [""; 0]);
    let wide = |spec: &mut RolloutSpec| {
        spec.metrics[0].direction = Direction::HigherIsBetter;
        spec.metrics[0].margin = Some(absolute(0.06));
    };
    let problems = lines(1000.0, &wide);
    only("warning", "metrics[0].margin", "while stable is at 5 %, no canary can fail it", &problems);
}

#[test]
fn a_ranking_needs_an_output_of_its_kind_and_some_items() {
    let with = |kind: MetricKind, at, output| {
        move |spec: &mut RolloutSpec| {
            let source = serin_spec::OutputSource::Tensor("items".into());
            let items =
                serin_spec::OutputRule { name: "items".into(), kind: output, source, ..spec.outputs[0].clone() };
            spec.outputs.push(serin_spec::OutputRule { min: None, max: None, ..items });
            let (output, label, measure) = ("items".into(), "booked".into(), serin_spec::RankingMeasure::Ndcg);
            let maturity = spec.metrics[0].maturity;
            metric(kind, MetricSource::Ranking { output, label, measure, at }, |metric| metric.maturity = maturity)(
                spec,
            );
        }
    };
    let (mean, ranking) = (|| MetricKind::Mean { min: 0.0, max: 1.0 }, serin_spec::OutputKind::Ranking);
    refused("metrics[1].source", "output \"items\" is a number", with(mean(), 10, serin_spec::OutputKind::Number));
    for at in [0, 101] {
        refused("metrics[1].source.ranking.at", "cannot be ranked", with(mean(), at, ranking));
    }
    refused("metrics[1].kind", "the source gives 0 to 1", with(MetricKind::Mean { min: 2.0, max: 3.0 }, 10, ranking));
    refused("metrics[1].kind", "quantity", with(MetricKind::Rate, 10, ranking));
    assert_eq!(problems(with(mean(), 10, ranking)), [""; 0]);
}
