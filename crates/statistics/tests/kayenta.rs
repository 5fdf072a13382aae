//! Our Kayenta judge against the assertions of Kayenta's own tests and the output of its judge, with the same code as
//! `cargo run --release -p serin-statistics --example kayenta -- FILE.json`.

#[path = "../examples/kayenta/cases.rs"]
mod cases;
#[path = "../examples/kayenta/compare.rs"]
mod compare;

const CASES: &str = include_str!("data/kayenta_judge_cases.json");

#[test]
fn all_cases_agree() {
    let report = cases::check(CASES).unwrap();
    assert!(report.misses.is_empty(), "{}", report.misses.join("\n"));
    assert_eq!((report.passed, report.failed, report.skipped), (98, 0, 18));
}

#[test]
fn a_wrong_expectation_is_a_failure() {
    let cases = [
        r#"{"kind": "normal_quantile", "parameters": {"p": 0.01}, "expected": {"quantile": -2.32634788}}"#,
        r#"{"kind": "normal_quantile", "parameters": {"p": 0.01}, "expected": {}}"#,
        r#"{"kind": "normal_quantile", "parameters": {"p": 0.01}, "expected": {"other": 1}}"#,
        r#"{"kind": "effect_size", "control": [1], "experiment": [0], "parameters": {}, "expected": {"value": 0}}"#,
        r#"{"kind": "classify", "control": [1, 2], "experiment": [1, 3], "parameters": {}, "expected": {"classification": "High"}}"#,
        r#"{"kind": "mw_confidence_interval", "control": [1], "experiment": [1], "parameters": {}, "expected": {"ci_low": 0}}"#,
        r#"{"kind": "summary_stats", "values": ["one"], "parameters": {}, "expected": {"count": 1}}"#,
        r#"{"kind": "of another kind", "expected": {"value": 0}}"#,
    ];
    let report = cases::check(&format!(r#"{{"cases": [{}]}}"#, cases.join(","))).unwrap();
    assert_eq!((report.passed, report.failed, report.skipped), (0, cases.len(), 0), "{:?}", report.misses);
    assert!(cases::check("{}").is_err() && cases::check("nonsense").is_err());
}

#[test]
fn errors_and_broken_settings_are_cases_too() {
    let judge = |settings: &str, expected: &str| {
        format!(
            r#"{{"kind": "judge", "parameters": {{"pass": 75, "marginal": 50}}, "expected": {expected},
                "metrics": [{{"name": "m", "groups": ["g"], "canary": {settings}, "control": [1, 2, 3], "experiment": [3, 4, 5]}}]}}"#
        )
    };
    let cases = [
        r#"{"kind": "mw_confidence_interval", "control": [1], "experiment": [1], "parameters": {}, "expected": {"error": true}}"#.to_owned(),
        // Text instead of a boolean makes the whole judgement fail, and so does an invalid factor.
        judge(r#"{"critical": "true"}"#, r#"{"throws": true}"#),
        judge(r#"{"outliers": {"strategy": "remove", "outlierFactor": 0}}"#, r#"{"throws": true}"#),
        judge(r#"{"outliers": {"strategy": "keep", "outlierFactor": 0}}"#, r#"{"classification": "Pass", "score": 100}"#),
        judge(r#"{"muted": true}"#, r#"{"classification": "Fail", "score": 0, "group_scores": {}, "reason_present": false}"#),
    ];
    let report = cases::check(&format!(r#"{{"cases": [{}]}}"#, cases.join(","))).unwrap();
    assert_eq!((report.passed, report.failed), (cases.len(), 0), "{:?}", report.misses);
}
