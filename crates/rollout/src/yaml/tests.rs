//! Texts with mistakes, and what is said about them.

use std::fmt::Write as _;

use super::*;
use crate::testing::{SPEC, spec};

fn told(text: &str) -> String {
    check(text, None).problems.iter().fold(String::new(), |mut all, problem| {
        let _ = writeln!(all, "{problem}");
        all
    })
}

#[test]
fn a_sound_spec_is_read_without_a_word() {
    assert_eq!(told(SPEC), "");
    let spec = check(SPEC, None).spec.unwrap();
    assert_eq!((spec.steps.len(), spec.metrics.len()), (2, 2));
}

#[test]
fn json_is_read_too_and_what_is_written_is_read_back() {
    let spec = spec().normalised();
    let text = serde_json::to_string_pretty(&spec).unwrap();
    assert_eq!(parse_yaml(&text).unwrap(), spec);
}

#[test]
fn the_example_is_sound() {
    let text = include_str!("../../../../examples/rollout.yaml");
    assert_eq!(told(text), "");
}

#[test]
fn two_dozen_mistakes_are_two_dozen_problems() {
    let text = r"apiVersion: serin.dev/v2
kind: Rolout
model: my model
stable:
  version: v1
  url: localhost:9001
canary:
  verison: v2
window: 10 seconds
controlRatio: ten
assignment:
  sticky: {tenant: user}
steps:
  - weight: 5
    bake: {min: 2h, max: 1h}
  - weight: 25%
    require: passed
  - weight: 10%
segments:
  - name: origin
metrics:
  - name: wrong
    kind: rate
    source: {wrong: {output: late, label: late}}
    margin: {absolute: 1.5}
    segments: [origins]
  - name: wrong
    kind: {quantile: {level: 99}}
    source: latency
    margin: {}
decision:
  false_rollback: 0.05
  onInconclusive: roll_back
promotion: 1d
fallback: yes
";
    insta::assert_snapshot!(told(text), @r#"
    1:1: error: apiVersion: "serin.dev/v2" is not a version that this Serin reads; write serin.dev/v1
    2:1: error: kind: "Rolout" is not a kind that this Serin knows; write Rollout
    3:1: error: model: "my model" is no name; use one word without spaces
    6:3: error: stable.url: "localhost:9001" is no address that a router can use (the scheme must be http, https or h2c); write for example http://models:8080
    8:3: error: canary.verison: the key "verison" is unknown; did you mean "version"?
    9:9: error: window: a span of time is expected here, this is "10 seconds"; write for example 500ms, 10s, 5m, 6h, 2d or 1h30m
    10:15: error: controlRatio: a number is expected here, this is "ten"; write for example 0.01
    12:11: error: assignment.sticky: "tenant" is not known here; use one of: {header: ...}, {cookie: ...}, {json: ...}, {parameter: ...}, session, sequence
    14:13: error: steps[0].weight: a share of the traffic is expected here, this is "5"; write for example 5% or 0.25%, in steps of 0.01%, up to 100%
    15:5: error: steps[0].bake: bake.min (2h) is longer than bake.max (1h): the step never ends well; set max to at least min
    17:14: error: steps[1].require: "passed" is not known here; did you mean "pass"?
    18:5: error: steps[2].weight: the ramp goes down, from 25% to 10%; order the steps by weight
    20:5: error: segments[0].source: "source" is missing; add it: Where the value of a request is found.
    22:5: error: metrics[0].maturity: it needs labels, which come later than answers; set how long to wait for them, such as 24h
    24:5: error: metrics[0].source: no output rule is named "late", so the metric never has data; define it under `outputs`, so that routers find it in answers
    25:5: error: metrics[0].margin: this check can never fail: no value changes by 1.5 or more within 0 to 1; choose a margin that harm can exceed
    26:16: error: metrics[0].segments[0]: no segment is named "origins"; did you mean "origin"?
    27:5: error: metrics[1].name: "wrong" is the name of another entry too; rename one of them
    28:5: error: metrics[1].kind: 99 is not a quantile level; use a number between 0 and 1, such as 0.99
    30:5: error: metrics[1].margin: it says nothing of how much harm is acceptable; set absolute, relative or both, or a limit
    32:3: error: decision.false_rollback: the key "false_rollback" is unknown; did you mean "falseRollback"?
    33:19: error: decision.onInconclusive: "roll_back" is not known here; did you mean "rollback"?
    34:12: error: promotion: a map of keys is expected here, this is "1d"; known here: holdback, monitor
    35:11: error: fallback: true or false is expected here, this is "yes"; write true or false, without quotes
    "#);
    assert_eq!(check(text, None).problems.len(), 24);
    assert!(check(text, None).spec.is_none());
}

#[test]
fn text_that_is_no_yaml_says_where() {
    insta::assert_snapshot!(told("model: [a, b\nsteps: }"), @r#"2:6: error: this is not YAML: illegal placement of ':' indicator; check indentation, colons and quotes around here"#);
    insta::assert_snapshot!(told(""), @r#"1:1: error: the text is empty; see docs/rollout-spec.md for an example"#);
    insta::assert_snapshot!(told("a: 1\n---\nb: 2"), @r#"2:1: error: there is a second document; put each rollout into a file of its own"#);
    insta::assert_snapshot!(told("steps: &a\n  - *a"), @r#"2:5: error: aliases (*name) are not read; write the value out"#);
    insta::assert_snapshot!(told("- a list"), @r#"1:1: error: a map of keys is expected here, this is a list; known here: apiVersion, assignment, canary, capture, concurrency, controlRatio, decision, drain, fallback, features, grace, groups, kind, metrics, mirror, mode, model, noData, outputs, plan, promotion, segments, settle, shadows, stable, steps, traffic, warmup, window"#);
    insta::assert_snapshot!(told(&format!("a: {}", "[".repeat(40))), @r#"1:36: error: this is nested too deeply; a rollout spec has a few levels"#);
    assert!(told(&"x".repeat(2_000_000)).contains("longer than 1 MiB"));
}

#[test]
fn a_key_twice_is_a_problem() {
    let text = SPEC.replace("model: flights", "model: flights\nmodel: fraud");
    insta::assert_snapshot!(told(&text), @r#"4:1: error: model: the key "model" is there twice; keep one of them"#);
}

#[test]
fn a_version_is_text_however_it_looks() {
    let text = SPEC.replace("version: v1", "version: 1.10").replace("version: v2", "version: 2");
    let spec = check(&text, None).spec.unwrap();
    assert_eq!((spec.stable.version.as_str(), spec.canary.version.as_str()), ("1.10", "2"));
}

#[test]
fn a_broken_part_is_told_once() {
    // The weight is broken, so nothing is said about the ramp it belongs to.
    let text = SPEC.replace("weight: 25%", "weight: lots");
    assert_eq!(told(&text).lines().count(), 1, "{}", told(&text));
    // The list of segments is misspelt: its use is no second mistake.
    let text = SPEC.replace("segments:\n  - name", "segmens:\n  - name");
    assert_eq!(told(&text).lines().count(), 1, "{}", told(&text));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_text_makes_it_panic(at in 0..SPEC.len(), cut in 0..40_usize, put in "[ -~\n]{0,8}") {
        let mut text = SPEC.to_owned();
        text.replace_range(at..(at + cut).min(SPEC.len()), &put);
        let checked = check(&text, None);
        // Either a spec, or a reason why not.
        proptest::prop_assert_eq!(checked.spec.is_none(), checked.has_errors());
    }
}
