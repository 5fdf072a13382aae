//! Every kind of metric, from summaries to verdicts: an equal canary passes, a worse one fails, and the sentence describes
//! what was seen.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod lab;
mod returning;
#[path = "../support/mod.rs"]
mod support;

use serin_schemas::{
    ids::Span,
    records::{Arm, Cell, Correction, Decision, MetricResult, MetricVerdict, NoDataReason, Segment, WindowClosed},
};
use serin_sketches::{CappedHist, Rate, Summary};

use lab::{Draw, Lab, capped, classes, events, lin, log, pairs, rate};
use support::WINDOW;

/// Runs one metric healthy to its pass and harmed to its failure; returns both sentences.
fn both(metric: &str, draw: Draw) -> (String, String) {
    let name = "m";
    let run = |seed, harm, result| {
        let mut lab = Lab::new(seed, metric, "", draw);
        lab.bake();
        lab.harm = harm;
        let found = lab.until(name, result, 90).clone();
        let decision = lab.world.last().decision;
        if result == MetricResult::Pass {
            assert_eq!((decision, found.failed_at), (Decision::Promote, None));
        } else {
            assert_eq!((decision, found.failed_at), (Decision::Rollback, Some(lab.world.now)));
            assert_eq!(lab.world.last().reasons[0].sentence, found.sentence);
            assert!(found.p_anytime <= found.p_fail && found.p_fail <= 0.01, "{found:#?}");
        }
        assert_eq!(found.correction, Correction::WeightedHolm);
        assert!(found.evidence_through.is_some());
        found.sentence
    };
    (run(1, 0.0, MetricResult::Pass), run(2, 1.0, MetricResult::Fail))
}

#[test]
fn a_rate_against_limits() {
    let metric = r#"{"name": "m", "kind": "rate", "source": "error", "limit": {"pass": 0.03, "fail": 0.05}}"#;
    let (pass, fail) = both(metric, |dice, _, n, harm| rate(dice, n, 0.01 + 0.09 * harm));
    insta::assert_snapshot!(pass, @"the canary's error rate is 0.6 % (control's 1.0 %), below the limit of 3.0 % with 95 % confidence");
    insta::assert_snapshot!(fail, @"the canary's error rate is 9.6 % (control's 1.0 %), above the limit of 5.0 % with 99 % confidence at every look");
}

#[test]
fn a_mean_and_a_mean_against_a_limit() {
    let metric = r#"{"name": "m", "kind": {"mean": {"min": 0, "max": 1}}, "source": {"output": "p"},
        "direction": "higher_is_better", "margin": {"relative": 0.05}}"#;
    let (pass, fail) = both(metric, |dice, _, n, harm| lin(dice, n, 0.6 - 0.1 * harm));
    insta::assert_snapshot!(pass, @"the canary's mean p is 0.604 against 0.602, at most 0.03 worse with 95 % confidence");
    insta::assert_snapshot!(fail, @"the canary's mean p is 0.495 against 0.601, at least 0.03 worse with 99 % confidence at every look");
    let metric = metric.replace(r#""margin": {"relative": 0.05}"#, r#""limit": {"fail": 0.55}"#);
    let (pass, fail) = both(&metric, |dice, _, n, harm| lin(dice, n, 0.6 - 0.1 * harm));
    insta::assert_snapshot!(pass, @"the canary's mean p is 0.604 (control's 0.602), above the limit of 0.55 with 95 % confidence");
    insta::assert_snapshot!(fail, @"the canary's mean p is 0.495 (control's 0.601), below the limit of 0.55 with 99 % confidence at every look");
}

#[test]
fn a_capped_mean_reports_how_much_it_does_not_see() {
    let metric = r#"{"name": "m", "kind": {"capped_mean": {"cap": 400}}, "source": {"output": "tokens"},
        "margin": {"relative": 0.1}}"#;
    let (pass, fail) = both(metric, |dice, _, n, harm| capped(dice, n, 1.0 + 0.5 * harm));
    insta::assert_snapshot!(pass, @"the canary's capped mean tokens is 136 against 133, at most 13 worse with 95 % confidence");
    insta::assert_snapshot!(fail, @"the canary's capped mean tokens is 175 against 131, at least 13 worse with 99 % confidence at every look");
    let mut lab = Lab::new(3, metric, "", |dice, _, n, harm| capped(dice, n, 1.0 + harm));
    lab.bake();
    lab.window();
    let found = lab.of("m");
    assert!(found.at_cap.is_some_and(|share| (0.01..0.1).contains(&share)), "{found:#?}");
    // A summary with another cap is not a summary of this metric.
    let mut other = CappedHist::new(500.0).unwrap();
    other.insert(1.0, 1).unwrap();
    let cell = Cell {
        arm: Arm::Canary,
        segment: Segment::all(),
        metric: "m".into(),
        summary: Summary::Capped(other).encode(),
    };
    let window = WindowClosed {
        model: "flights".into(),
        rollout: lab.world.control.rollout.clone(),
        generation: lab.world.control.generation,
        partition: 1,
        end: lab.world.now.plus(WINDOW),
        length: WINDOW,
        maturity: Span(0),
        cells: vec![cell],
        arms: Vec::new(),
        population: Vec::new(),
        rules: serin_schemas::records::RULES,
        units: Vec::new(),
    };
    assert_eq!(lab.world.send(&window).poison.unwrap().code.as_str(), "bad_summary");
}

#[test]
fn a_quantile_against_control_and_against_limits() {
    let metric =
        r#"{"name": "m", "kind": {"quantile": {"level": 0.95}}, "source": "latency", "margin": {"relative": 0.2}}"#;
    let (pass, fail) = both(metric, |dice, _, n, harm| log(dice, n, 50.0 * (1.0 + 0.8 * harm)));
    insta::assert_snapshot!(pass, @"the canary's p95 latency is 83.9 ms against 82.3 ms, at most 16 ms worse with 95 % confidence");
    insta::assert_snapshot!(fail, @"the canary's p95 latency is 144 ms against 82.3 ms, at least 16 ms worse with 99 % confidence at every look");
    let metric = metric.replace(r#""margin": {"relative": 0.2}"#, r#""limit": {"pass": 120, "fail": 150}"#);
    let (pass, fail) = both(&metric, |dice, _, n, harm| log(dice, n, 50.0 * (1.0 + 3.0 * harm)));
    insta::assert_snapshot!(pass, @"the canary's p95 latency is 83.9 ms (control's 82.3 ms), below the limit of 120 ms with 95 % confidence");
    insta::assert_snapshot!(fail, @"the canary's p95 latency is 321 ms (control's 82.3 ms), above the limit of 150 ms with 99 % confidence at every look");
}

#[test]
fn a_distribution_reports_where_it_differs() {
    let metric = r#"{"name": "m", "kind": "distribution", "source": {"output": "p"}}"#;
    let (pass, fail) = both(metric, |dice, _, n, harm| log(dice, n, 1.0 + 0.5 * harm));
    insta::assert_snapshot!(pass, @"the canary's distribution of p is up to 2.5 points away from control's, at most 10 points away with 95 % confidence");
    insta::assert_snapshot!(fail, @"the canary's distribution of p is up to 50 points away from control's, most so near p80, at least 10 points away with 99 % confidence at every look");
}

#[test]
fn a_class_that_grows_is_named_and_a_new_one_is_tested_separately() {
    let metric = r#"{"name": "m", "kind": "classes", "source": "error"}"#;
    let (pass, fail) = both(metric, |dice, _, n, harm| classes(dice, n, 0.02 + 0.08 * harm, 0.0));
    insta::assert_snapshot!(pass, @"the canary's mix of errors is up to 0.03 points away from control's, at most 2 points away with 95 % confidence");
    insta::assert_snapshot!(fail, @"the canary's mix of errors: timeout is 9.0 % against 2.1 %, at least 2 points away with 99 % confidence at every look");
    // One in a hundred answers is well within the margin of two points, but control never had that class.
    let mut lab = Lab::new(4, metric, "", |dice, _, n, harm| classes(dice, n, 0.02, 0.01 * harm));
    lab.bake();
    lab.harm = 1.0;
    let found = lab.until("m", MetricResult::Fail, 60).clone();
    assert_eq!((found.culprit.as_deref(), found.culprit_is_new), (Some("gpu_lost"), true));
    insta::assert_snapshot!(found.sentence, @"the canary's mix of errors: gpu_lost (never seen in control) is 1.0 % against 0.0 %, more than zero with 99 % confidence at every look");
}

#[test]
fn events_that_come_in_bursts_are_not_evidence() {
    let metric = r#"{"name": "m", "kind": "count", "source": {"output": "tokens"}, "margin": {"relative": 0.05}}"#;
    for (seed, direction) in [(20, "lower_is_better"), (21, "higher_is_better"), (22, "lower_is_better")] {
        // Mean 2, variance 36: judged by sums, as if events came one by one, the counts of windows would differ too much.
        let metric = metric.replace(r#""source""#, &format!(r#""direction": "{direction}", "source""#));
        let mut lab = Lab::new(seed, &metric, "", |dice, _, n, _| events(dice, n, 2.0, 20));
        lab.bake();
        for _ in 0..60 {
            lab.window();
            assert_eq!(lab.of("m").failed_at, None, "{}", lab.of("m").sentence);
            assert!(lab.of("m").ln_e_fail < 3.0, "{}", lab.of("m").ln_e_fail);
        }
    }
}

#[test]
fn a_margin_wider_than_the_rest_of_the_range_passes() {
    let rate_of = |margin: &str| {
        format!(r#"{{"name": "m", "kind": "rate", "source": {{"class": {{"output": "label", "is": "x"}}}}, {margin}}}"#)
    };
    let mean = |margin: &str| {
        format!(r#"{{"name": "m", "kind": {{"mean": {{"min": 0, "max": 1}}}}, "source": {{"output": "p"}}, {margin}}}"#)
    };
    let higher = r#""direction": "higher_is_better", "margin": {"absolute": 0.02}"#;
    let lower = r#""margin": {"absolute": 0.1}"#;
    let low: Draw = |dice, metric, n, _| if metric == "m" { rate(dice, n, 0.01) } else { rate(dice, n, 0.0) };
    let high: Draw = |dice, _, n, _| rate(dice, n, 0.97);
    let low_mean: Draw = |dice, _, n, _| lin(dice, n, -0.1);
    let high_mean: Draw = |dice, _, n, _| lin(dice, n, 1.02);
    for (seed, metric, draw) in [
        (30, rate_of(higher), low),
        (31, rate_of(lower), high),
        (32, mean(higher), low_mean),
        (33, mean(lower), high_mean),
    ] {
        let mut lab = Lab::new(seed, &metric, "", draw);
        lab.bake();
        lab.until("m", MetricResult::Pass, 20);
        assert_eq!(lab.world.last().decision, Decision::Promote, "{}", lab.world.last().sentence);
    }
}

#[test]
fn events_per_answer_by_their_ratio() {
    let metric = r#"{"name": "m", "kind": "count", "source": {"output": "tool_calls"}, "margin": {"relative": 0.1}}"#;
    let (pass, fail) = both(metric, |dice, _, n, harm| events(dice, n, 2.0 + 0.6 * harm, 1));
    insta::assert_snapshot!(pass, @"the canary's number of tool_calls is 1.97 against 2.01, at most 0.2 worse with 95 % confidence");
    insta::assert_snapshot!(fail, @"the canary's number of tool_calls is 2.6 against 1.97, at least 0.2 worse with 99 % confidence at every look");
    let metric = metric.replace(r#""margin": {"relative": 0.1}"#, r#""limit": {"pass": 2.2, "fail": 2.4}"#);
    let (pass, fail) = both(&metric, |dice, _, n, harm| events(dice, n, 2.0 + 0.6 * harm, 1));
    insta::assert_snapshot!(pass, @"the canary's number of tool_calls is 1.97 (control's 2.01), below the limit of 2.2 with 95 % confidence");
    insta::assert_snapshot!(fail, @"the canary's number of tool_calls is 2.6 (control's 1.97), above the limit of 2.4 with 99 % confidence at every look");
}

#[test]
fn mirrored_calls_are_judged_before_the_canary_serves_calls() {
    let metrics = r#"{"name": "m", "kind": "disagreement", "source": {"class": {"output": "label"}}, "limit": {"pass": 0.05, "fail": 0.08}},
        {"name": "errors", "kind": "rate", "source": "error", "margin": {"absolute": 0.012}}"#;
    let draw: Draw = |dice, metric, n, harm| match metric {
        "m" => pairs(dice, n, 0.02 + 0.1 * harm),
        _ => rate(dice, n, 0.01 + 0.09 * harm),
    };
    let start = |seed| {
        let mut lab = Lab::new(seed, metrics, "", draw);
        lab.mirror = true;
        lab.bake();
        lab
    };
    let mut bad = start(5);
    bad.harm = 1.0;
    assert_eq!(bad.until("errors", MetricResult::Fail, 20).result, MetricResult::Fail, "mirrors fail too");
    insta::assert_snapshot!(bad.until("m", MetricResult::Fail, 20).sentence, @"disagreement on label is 12.0 % of mirrored calls, above the limit of 8.0 % with 99 % confidence at every look");
    assert_eq!(bad.world.last().decision, Decision::Rollback);

    let mut good = start(6);
    good.window();
    assert_eq!(good.of("m").no_data, Some(NoDataReason::NoShadowTraffic), "pairs come one window later");
    assert_eq!(
        good.of("m").sentence,
        "the canary's disagreement on label is not judged: no mirrored call has both answers"
    );
    good.until("m", MetricResult::Pass, 40);
    insta::assert_snapshot!(good.of("m").sentence, @"disagreement on label is 1.8 % of mirrored calls, below the limit of 5.0 % with 95 % confidence");
    good.until("errors", MetricResult::Pass, 40);
    assert_eq!(good.world.last().decision, Decision::Promote);
    let canary = &good.world.last().arms[0];
    assert!(
        canary.arm == Arm::Canary && canary.predictions >= 500,
        "mirrored answers count as the canary's: {canary:?}"
    );
    // What mirrored calls have shown holds in the next step, which has none. The other metrics must pass again.
    good.mirror = false;
    good.step(1);
    good.window();
    assert_eq!((good.of("m").result, good.of("errors").result), (MetricResult::Pass, MetricResult::Undecided));
    good.until("errors", MetricResult::Pass, 40);
    assert_eq!(good.world.last().decision, Decision::Promote);
}

#[test]
fn a_better_canary_is_called_better_and_stable_out_of_date() {
    let metrics = r#"{"name": "errors", "kind": "rate", "source": "error", "margin": {"absolute": 0.01}},
        {"name": "slow", "kind": {"quantile": {"level": 0.9}}, "source": "latency", "margin": {"relative": 0.2}},
        {"name": "score", "kind": {"mean": {"min": 0, "max": 1}}, "source": {"output": "p"},
         "direction": "higher_is_better", "margin": {"relative": 0.05}, "role": "score"}"#;
    let mut lab = Lab::new(7, metrics, "", |dice, metric, n, harm| match metric {
        "errors" => rate(dice, n, 0.05 - 0.04 * harm),
        "slow" => log(dice, n, 50.0 * (1.0 - 0.4 * harm)),
        _ => lin(dice, n, 0.6),
    });
    lab.bake();
    lab.harm = 1.0;
    for name in ["errors", "slow", "score"] {
        lab.until(name, MetricResult::Pass, 40);
    }
    let better = ["errors", "slow", "score"].map(|name| lab.of(name).better);
    assert_eq!(better, [true, true, false]);
    assert!(lab.world.last().stable_is_out_of_date);
    insta::assert_snapshot!(lab.of("errors").sentence, @"the canary's error rate is 1.3 % against 5.1 %, at most 1 point worse with 95 % confidence: it is better");
    insta::assert_snapshot!(lab.world.last().sentence, @"the step's evidence is complete: all 2 gates pass, score 100 to 100; stable is out of date: the canary is better in errors, slow");
}

#[test]
fn a_group_counts_once_and_fails_by_its_joint_evidence() {
    let metric = |name: &str, weight: f64| {
        format!(
            r#"{{"name": "{name}", "kind": "rate", "source": {{"class": {{"output": "{name}", "is": "x"}}}},
               "margin": {{"absolute": 0.01}}, "group": "quality", "scoreWeight": {weight}}}"#
        )
    };
    let metrics = format!(
        r#"{}, {}, {}, {{"name": "errors", "kind": "rate", "source": "error", "margin": {{"absolute": 0.01}}}}"#,
        metric("a", 2.0),
        metric("b", 1.0),
        metric("c", 1.0)
    );
    let more = r#""groups": [{"name": "quality", "weight": 3}],"#;
    let draw: Draw = |dice, metric, n, harm| rate(dice, n, if metric == "errors" { 0.01 } else { 0.02 + 0.03 * harm });
    let mut lab = Lab::new(8, &metrics, more, draw);
    lab.bake();
    lab.window();
    let weights = ["a", "b", "c", "errors"].map(|name| lab.of(name).weight);
    #[expect(clippy::float_cmp, reason = "binary fractions are exact")]
    {
        assert_eq!(weights, [0.25, 0.125, 0.125, 0.5], "the group has one gate's share");
    }
    let group = lab.world.last().groups[0].clone();
    assert_eq!((group.group.as_str(), group.score_weight, group.weight), ("quality", 3.0, 0.5));
    assert_eq!(group.result, MetricResult::Undecided);
    let average = [(0.5, "a"), (0.25, "b"), (0.25, "c")];
    let e: f64 = average.iter().map(|(weight, name)| weight * lab.of(name).ln_e_fail.exp()).sum();
    assert!((group.ln_e_fail - e.ln()).abs() < 1e-9);
    while lab.world.last().groups[0].result != MetricResult::Pass {
        lab.window();
    }
    let passed = ["a", "b", "c"].map(|name| lab.of(name).result);
    assert_eq!(passed, [MetricResult::Pass; 3]);
    assert!(lab.world.last().score_low >= 75.0);

    let mut bad = Lab::new(9, &metrics, more, draw);
    bad.bake();
    bad.harm = 1.0;
    while bad.world.last().groups.first().is_none_or(|group| group.result != MetricResult::Fail) {
        bad.window();
    }
    let group = &bad.world.last().groups[0];
    assert_eq!(group.failed_at, Some(bad.world.now));
    assert!((bad.world.last().score_high - 25.0).abs() < 1e-9, "the group is three quarters of the score");
    assert_eq!(bad.world.last().decision, Decision::Rollback);
}

#[test]
fn users_who_return_count_for_less() {
    let metrics = r#"{"name": "m", "kind": "rate", "source": "error", "margin": {"absolute": 0.01}}"#;
    let draw: Draw = |dice, _, n, harm| {
        // The ten answers of one user are either all bad or all good.
        let bad = (0..n / 10).filter(|_| dice.chance(0.05 + 0.1 * harm)).count() as u64;
        Summary::Rate(Rate::new(n, 10 * bad).unwrap())
    };
    let run = |more: &str| {
        let mut lab = Lab::new(10, metrics, more, draw);
        lab.bake();
        lab.harm = 1.0;
        (0..6).for_each(|_| lab.window());
        lab.of("m").clone()
    };
    let plain = run("");
    let sticky = run(r#""assignment": {"sticky": {"header": "x-user"}},"#);
    assert_eq!(plain.design_effect, None);
    let effect = sticky.design_effect.unwrap();
    assert!((6.0..15.0).contains(&effect), "{effect}");
    assert!(sticky.ln_e_fail < 0.2 * plain.ln_e_fail, "{} {}", sticky.ln_e_fail, plain.ln_e_fail);
    let width = |metric: &MetricVerdict| metric.effect_high.unwrap_or(1.0) - metric.effect_low.unwrap_or(-1.0);
    assert!(width(&sticky) > 2.0 * width(&plain));
}

const SITES: &str = r#""segments": [{"name": "site", "source": {"header": "x-site"}, "top": 2}],"#;
const BY_SITE: &str =
    r#"{"name": "m", "kind": "rate", "source": "error", "margin": {"absolute": 0.01}, "segments": ["site"]}"#;

#[test]
fn one_segment_with_a_wrong_split_holds() {
    let mut lab = Lab::new(11, BY_SITE, SITES, |dice, _, n, _| rate(dice, n, 0.01));
    lab.bake();
    lab.population = vec![("a", 250, 2500), ("b", 250, 2500)];
    lab.window();
    assert_eq!(lab.world.last().decision, Decision::Continue);
    // The split is right overall, but site a gets more of the canary and site b less.
    lab.population = vec![("a", 300, 2500), ("b", 200, 2500)];
    while lab.world.last().decision != Decision::Hold {
        lab.window();
    }
    // Both checks report it sooner or later.
    (0..20).for_each(|_| lab.window());
    let health = &lab.world.last().health;
    let split = health.iter().find(|issue| issue.reason == NoDataReason::SampleRatio).unwrap();
    assert!(split.sentence.contains("of the compared answers for site="), "{}", split.sentence);
    let mix = lab.world.last().health.iter().find(|issue| issue.reason == NoDataReason::SegmentMix).unwrap();
    insta::assert_snapshot!(mix.sentence.split(" of the canary").next().unwrap(), @"site=a is 60.0 %");
    // A new step is judged from scratch.
    lab.population = vec![("a", 250, 2500), ("b", 250, 2500)];
    lab.step(1);
    lab.window();
    assert_eq!(lab.world.last().decision, Decision::Continue);
}

#[test]
fn an_equal_mix_is_never_held() {
    let more = format!(r#""traffic": "external", "noData": {{"segmentMix": "rollback"}}, {SITES}"#);
    let mut lab = Lab::new(12, BY_SITE, &more, |dice, _, n, _| rate(dice, n, 0.01));
    lab.bake();
    for window in 0..40 {
        lab.population = vec![("a", 250 + window % 7, 2500), ("b", 250, 2500 + window % 11)];
        lab.window();
        assert!(lab.world.last().health.is_empty(), "{:?}", lab.world.last().health);
    }
    // An external split gives the canary another population, and the spec asks for a rollback.
    lab.population = vec![("a", 350, 2500), ("b", 150, 2500)];
    while lab.world.last().decision != Decision::Rollback {
        lab.window();
    }
    assert!(lab.world.last().reasons.is_empty());
    assert!(lab.world.last().sentence.contains("the arms see different populations"), "{}", lab.world.last().sentence);
}

#[test]
fn a_restart_changes_no_verdict() {
    let metrics = r#"{"name": "m", "kind": "classes", "source": "error"},
        {"name": "n", "kind": {"capped_mean": {"cap": 400}}, "source": {"output": "p"}, "margin": {"relative": 0.1}, "group": "g"},
        {"name": "r", "kind": "rate", "source": "error", "limit": {"pass": 0.03, "fail": 0.05}, "segments": ["site"]}"#;
    let more = format!(r#""assignment": {{"sticky": {{"header": "x-user"}}}}, "groups": [{{"name": "g"}}], {SITES}"#);
    let draw: Draw = |dice, metric, n, harm| match metric {
        "m" => classes(dice, n, 0.02, 0.004 * harm),
        "n" => capped(dice, n, 1.0),
        _ => rate(dice, n, 0.02),
    };
    let run = |crash: bool| {
        let mut lab = Lab::new(13, metrics, &more, draw);
        lab.population = vec![("a", 250, 2500), ("b", 250, 2500)];
        lab.bake();
        lab.harm = 1.0;
        for _ in 0..12 {
            lab.window();
            if crash {
                lab.world.harness.crash().unwrap();
            }
        }
        lab.world.verdicts
    };
    assert_eq!(run(false), run(true));
}
