//! Problems of files with mistakes.

use std::fmt::Write as _;

use super::*;
use crate::testing::{SPEC, spec};
use serin_spec::Schedule;

fn problems(text: &str) -> String {
    check(text, None).problems.iter().fold(String::new(), |mut all, problem| {
        let _ = writeln!(all, "{problem}");
        all
    })
}

#[test]
fn a_valid_spec_has_no_problems() {
    assert_eq!(problems(SPEC), "");
    let spec = check(SPEC, None).spec.unwrap();
    assert_eq!((spec.steps.len(), spec.metrics.len()), (2, 2));
}

#[test]
fn json_is_accepted_and_a_serialized_spec_can_be_parsed() {
    let spec = spec().normalized();
    let text = serde_json::to_string_pretty(&spec).unwrap();
    assert_eq!(parse_yaml(&text).unwrap(), spec);
}

fn scheduled(schedule: &str) -> String {
    let (before, rest) = SPEC.split_once("steps:").unwrap();
    let after = rest.split_once("\nsegments:").map_or("", |(_, after)| after);
    format!("{before}{schedule}\nsegments:{after}")
}

#[test]
fn a_file_without_steps_gets_those_of_its_schedule() {
    let of = |schedule| check(&scheduled(schedule), None).spec.unwrap();
    assert_eq!(of("").steps, Schedule::Standard.steps());
    assert_eq!(of("schedule: conservative").steps, Schedule::Conservative.steps());
    let linear = of("schedule: {linear: {from: 2%, to: 8%, by: 3%, every: 20m}}");
    assert_eq!(linear.steps.iter().map(|step| step.weight.0).collect::<Vec<_>>(), [200, 500, 800]);
    // Controls contain the steps only, so an older version can read them.
    let normalized = of("schedule: aggressive").normalized();
    assert_eq!((normalized.schedule, normalized.steps.len()), (None, 2));
}

#[test]
fn problems_of_a_schedule_are_at_its_position() {
    let all = [
        "schedule: fast",
        "schedule: standard\nsteps:\n  - weight: 5%",
        "schedule: {linear: {from: 5%, to: 50%, by: 0%, every: 10m}}",
        "schedule: {linear: {from: 50%, to: 5%, by: 5%, every: 10m}}",
        "schedule: {linear: {from: 1%, to: 90%, by: 0.5%, every: 10m}}",
        "schedule: {linear: {from: 0%, to: 100%, by: 50%, every: 10m}}",
        "schedule: {linear: {from: 20%, to: 40%, by: 10%, every: 0s}}",
        "steps: []",
    ];
    let found = all.map(|schedule| format!("{schedule:?}\n{}", problems(&scheduled(schedule))));
    insta::assert_snapshot!(found.join("\n"));
}

#[test]
fn the_example_has_no_problems() {
    let text = include_str!("../../../../examples/rollout.yaml");
    assert_eq!(problems(text), "");
}

#[test]
fn every_mistake_is_reported() {
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
    insta::assert_snapshot!(problems(text), @r#"
    1:1: error: apiVersion: this version of Serin does not support "serin.dev/v2"; write serin.dev/v1
    2:1: error: kind: this version of Serin does not know the kind "Rolout"; write Rollout
    3:1: error: model: "my model" is not a valid name; use one word without spaces
    6:3: error: stable.url: "localhost:9001" is not an address that a router can use (the scheme must be http, https or h2c); write for example http://models:8080
    8:3: error: canary.verison: the key "verison" is unknown; did you mean "version"?
    9:9: error: window: a time span is expected here, this is "10 seconds"; write for example 500ms, 10s, 5m, 6h, 2d or 1h30m
    10:15: error: controlRatio: a number is expected here, this is "ten"; write for example 0.01
    12:11: error: assignment.sticky: "tenant" is not valid here; use one of: {header: ...}, {cookie: ...}, {json: ...}, {parameter: ...}, session, sequence
    14:13: error: steps[0].weight: a share of the traffic is expected here, this is "5"; write for example 5% or 0.25%, in steps of 0.01%, up to 100%
    15:5: error: steps[0].bake: bake.min (2h) is longer than bake.max (1h), so the step can never succeed; set bake.max to at least bake.min
    17:14: error: steps[1].require: "passed" is not valid here; did you mean "pass"?
    18:5: error: steps[2].weight: the ramp goes down, from 25% to 10%; order the steps by weight
    20:5: error: segments[0].source: "source" is missing; add it: Where the dimension's value is found in a request.
    22:5: error: metrics[0].maturity: the metric needs labels, which arrive later than answers; set how long to wait for them, such as 24h
    24:5: error: metrics[0].source: no output is named "late", so the metric never has data; define it under `outputs`, so that routers find it in answers
    25:5: error: metrics[0].margin: this check can never fail: no value between 0 and 1 can change by 1.5 or more; choose a margin that harm can exceed
    26:16: error: metrics[0].segments[0]: no segment is named "origins"; did you mean "origin"?
    27:5: error: metrics[1].name: another entry is also named "wrong"; rename one of them
    28:5: error: metrics[1].kind: 99 is not a quantile level; use a number between 0 and 1, such as 0.99
    30:5: error: metrics[1].margin: the metric does not define how much harm is acceptable; set absolute, relative or both, or a limit
    32:3: error: decision.false_rollback: the key "false_rollback" is unknown; did you mean "falseRollback"?
    33:19: error: decision.onInconclusive: "roll_back" is not valid here; did you mean "rollback"?
    34:12: error: promotion: a map of keys is expected here, this is "1d"; valid keys: holdback, keepPrevious, monitor
    35:11: error: fallback: true or false is expected here, this is "yes"; write true or false, without quotes
    "#);
    assert_eq!(check(text, None).problems.len(), 24);
    assert!(check(text, None).spec.is_none());
}

#[test]
fn text_that_is_not_yaml_is_reported_with_its_position() {
    insta::assert_snapshot!(problems("model: [a, b\nsteps: }"), @r#"2:6: error: this is not YAML: illegal placement of ':' indicator; check indentation, colons and quotes around here"#);
    insta::assert_snapshot!(problems(""), @r#"1:1: error: the text is empty; see docs/rollout-spec.md for an example"#);
    insta::assert_snapshot!(problems("a: 1\n---\nb: 2"), @r#"2:1: error: there is a second document; put each rollout into its own file"#);
    insta::assert_snapshot!(problems("steps: &a\n  - *a"), @r#"2:5: error: aliases (*name) are not supported; write the value in full"#);
    insta::assert_snapshot!(problems("- a list"), @r#"1:1: error: a map of keys is expected here, this is a list; valid keys: apiVersion, assignment, canary, capture, concurrency, controlRatio, decision, door, drain, fallback, features, grace, groups, kind, metrics, mirror, mode, model, noData, outputs, plan, promotion, schedule, segments, settle, shadows, stable, steps, traffic, warmup, window"#);
    insta::assert_snapshot!(problems(&format!("a: {}", "[".repeat(40))), @r#"1:36: error: this is nested too deeply; a rollout spec has only a few levels"#);
    assert!(problems(&"x".repeat(2_000_000)).contains("longer than 1 MiB"));
}

#[test]
fn a_repeated_key_is_reported() {
    let text = SPEC.replace("model: flights", "model: flights\nmodel: fraud");
    insta::assert_snapshot!(problems(&text), @r#"4:1: error: model: the key "model" is given twice; keep one of them"#);
}

#[test]
fn a_version_that_looks_like_a_number_is_text() {
    let text = SPEC.replace("version: v1", "version: 1.10").replace("version: v2", "version: 2");
    let spec = check(&text, None).spec.unwrap();
    assert_eq!((spec.stable.version.as_str(), spec.canary.version.as_str()), ("1.10", "2"));
}

#[test]
fn a_broken_part_is_reported_once() {
    // The weight is broken, so the ramp is not linted.
    let text = SPEC.replace("weight: 25%", "weight: lots");
    assert_eq!(problems(&text).lines().count(), 1, "{}", problems(&text));
    // The list of segments is misspelt, so metrics that use a segment are not reported too.
    let text = SPEC.replace("segments:\n  - name", "segmens:\n  - name");
    assert_eq!(problems(&text).lines().count(), 1, "{}", problems(&text));
}

#[test]
fn a_condition_takes_a_truth_a_number_or_a_text() {
    use serin_spec::FilterValue::{Number, Text, Truth};
    let read = |is: &str| {
        let filter = format!("where: [{{label: late, is: {is}}}]\n    margin: {{absolute: 0.02}}");
        let text = SPEC.replace("margin: {absolute: 0.02}", &filter);
        let spec = parse_yaml(&text).unwrap_or_else(|problems| panic!("{is}: {problems:?}"));
        spec.metrics[0].filters[0].is.clone().unwrap()
    };
    for (text, value) in [
        ("true", Truth(true)),
        ("false", Truth(false)),
        ("3", Number(3.0)),
        ("-0.5", Number(-0.5)),
        ("block", Text("block".into())),
        ("\"true\"", Text("true".into())),
        ("'3'", Text("3".into())),
    ] {
        assert_eq!(read(text), value, "{text}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_text_makes_it_panic(at in 0..SPEC.len(), cut in 0..40_usize, put in "[ -~\n]{0,8}") {
        let mut text = SPEC.to_owned();
        text.replace_range(at..(at + cut).min(SPEC.len()), &put);
        let checked = check(&text, None);
        // The result is either a spec or an error.
        proptest::prop_assert_eq!(checked.spec.is_none(), checked.has_errors());
    }
}

#[test]
fn a_well_known_quantity_that_is_no_source_names_what_to_write() {
    let lint = |source: &str| {
        let text = format!(
            "apiVersion: serin.dev/v1\nkind: Rollout\nmodel: m\nstable: {{version: a}}\ncanary: {{version: b}}\nsteps: [{{weight: 5%}}]\n\
             metrics:\n  - {{name: x, kind: rate, source: {source}}}\n"
        );
        problems(&text)
    };
    for (source, words) in [
        ("f1", "gate its parts, recall and precision"),
        ("{f1: {output: p, label: y}}", "gate its parts, recall and precision"),
        ("F1_score", "gate its parts, recall and precision"),
        ("{auc: {output: p, label: y}}", "compares pairs of answers"),
        ("mrr", "{ranking: {output: ..., label: ..., measure: ...}}"),
        ("{ndcg: {output: p, label: y}}", "{ranking: {output: ..., label: ..., measure: ...}}"),
        ("recall", "a rate with `where`"),
        ("latncy", "did you mean \"latency\"?"),
    ] {
        let found = lint(source);
        assert!(found.contains(words), "{source}: {found}");
    }
}

/// JSON writes a character beyond the first plane as two escapes, which YAML does not know.
#[test]
fn json_may_escape_any_character() {
    let read = |name: &str| {
        let text = format!(
            r#"{{"apiVersion": "serin.dev/v1", "kind": "Rollout", "model": "{name}", "stable": {{"version": "1"}}, "canary": {{"version": "2"}}, "metrics": []}}"#
        );
        crate::parse_yaml(&text).map(|spec| spec.model.as_str().to_owned()).map_err(|problems| problems[0].to_string())
    };
    assert_eq!(read(r"\ud83d\udc24-a\u00e9\\n"), Ok("\u{1f424}-a\u{e9}\\n".to_owned()));
    assert_eq!(read(r"\uD83D\uDC24\ud83d\udc24"), Ok("\u{1f424}\u{1f424}".to_owned()));
    assert_eq!(read(r"\\ud83d"), Ok(r"\ud83d".to_owned()), "an escaped backslash");
    for half in [r"\ud83d", r"a\udc24", r"\ud83d\u0041", r"\ud83dé"] {
        let problem = read(half).unwrap_err();
        assert!(problem.contains(" is only half of a character; write both halves"), "{half}: {problem}");
    }
    // Other strings are left alone.
    for text in ["a: b", "# {\\ud83d\na: 1", "{\"a\": 1}", ""] {
        assert_eq!(super::with_whole_escapes(text).unwrap(), text);
    }
    assert!(read(r"\u").is_err() && read(r"\u12").is_err() && read("\\").is_err());
}
