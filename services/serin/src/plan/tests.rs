//! Forecasts as text, and refused requests.

use std::collections::BTreeMap;

use super::{Request, course::Forecast, forecast, proof, text::lines, under_limits};
use crate::terminal::of_width;

const ROLLOUT: &str = "
apiVersion: serin.dev/v1
kind: Rollout
model: fraud
stable: {version: '1'}
canary: {version: '2', replica: {requestsPerSecond: 20, costPerHour: 1.2, gpus: 1}}
steps:
  - {weight: 1%, bake: {min: 10m, max: 1h}}
  - {weight: 10%, bake: {min: 2h, max: 4h}}
  - {weight: 50%, bake: {min: 10m, max: 20m}, require: pass}
segments:
  - {name: country, source: {header: x-country}, top: 5}
metrics:
  - {name: error_rate, kind: rate, source: error, margin: {absolute: 0.002}, segments: [country]}
  - {name: latency_p99, kind: {quantile: {level: 0.99}}, source: latency, margin: {relative: 0.2}}
  - name: score
    kind: {mean: {min: 0, max: 1}}
    source: {output: score}
    direction: higher_is_better
    margin: {relative: 0.001}
  - {name: slow, kind: {quantile: {level: 0.5}}, source: latency, margin: {relative: 0.1}, role: watch}
plan: {costPerBadOutcome: 3, currency: EUR}
";

fn planned(text: &str, regressions: &[&str]) -> anyhow::Result<(Request, Forecast)> {
    let request = Request {
        spec: serin_rollout::parse_yaml(text).unwrap().normalized(),
        per_second: 10_000.0 / 60.0,
        base: BTreeMap::from([("latency_p99".to_owned(), 250.0)]),
        counted: BTreeMap::new(),
        regressions: regressions.iter().map(|text| text.parse().unwrap()).collect(),
        react_seconds: 2.0,
    };
    let forecast = forecast(&request)?;
    Ok((request, forecast))
}

#[test]
fn a_forecast_reads_well() {
    let (request, all) = planned(ROLLOUT, &[]).unwrap();
    insta::assert_snapshot!(lines(&request.spec, &all, of_width(None)).join("\n"));
}

#[test]
fn numbers_follow_from_each_other() {
    let (request, all) = planned(ROLLOUT, &["error_rate 1%->2%"]).unwrap();
    assert_eq!(all.regressions.len(), 1);
    let regressed = &all.regressions[0];
    assert!((regressed.harm_cost.unwrap() - 3.0 * regressed.extra_events.unwrap()).abs() < 1e-9);
    // More canary answers: smaller effects, shorter times, about the same number of answers.
    let error = |step: usize| all.steps[step].metrics.iter().find(|metric| metric.metric == "error_rate").unwrap();
    for step in 1..3 {
        let (before, after) = (error(step - 1), error(step));
        assert!(after.fail.unwrap().seconds < before.fail.unwrap().seconds);
        assert!(after.pass.unwrap().seconds < before.pass.unwrap().seconds);
    }
    assert!(error(1).seen_by_max < error(0).seen_by_max);
    for metric in all.steps.iter().flat_map(|step| &step.metrics) {
        let lower = metric.metric != "score";
        let (Some(border), Some(seen)) = (metric.border, metric.seen_by_max) else { continue };
        assert!(if lower { seen >= border } else { seen <= border }, "{metric:?}");
    }
    // 1 % of 167 requests/s is one replica of 20, 50 % are five.
    let replicas: Vec<u64> = all.cost.steps.unwrap().iter().map(|step| step.replicas).collect();
    assert_eq!(replicas, [1, 1, 5]);
    assert_eq!(request.spec.metrics.len(), all.steps[0].metrics.len());
}

#[test]
fn windows_that_are_left_out_make_a_step_longer() {
    let text = ROLLOUT.replacen(
        "name: latency_p99,",
        "name: ceiling, kind: rate, source: error, limit: {fail: 0.1}}\n  - {name: latency_p99,",
        1,
    );
    let (_, before) = planned(&text, &["error_rate 1%->2%"]).unwrap();
    let (request, after) = planned(&format!("{text}settle: 6"), &["error_rate 1%->2%"]).unwrap();
    for (before, after) in before.steps.iter().zip(&after.steps) {
        for (before, after) in before.metrics.iter().zip(&after.metrics) {
            // A limit holds from the first window on.
            let more = if before.metric == "ceiling" { 0.0 } else { 60.0 };
            for (before, after) in [(before.fail, after.fail), (before.pass, after.pass)] {
                let seconds = before.map(|reach| reach.seconds + more);
                assert_eq!(after.map(|reach| reach.seconds), seconds, "{before:?}");
            }
        }
    }
    assert!(after.healthy.seconds >= before.healthy.seconds);
    let rolled_back = |forecast: &Forecast| forecast.regressions[0].course.seconds;
    // Once in each step until then.
    let steps = (after.regressions[0].course.step + 1) as f64;
    assert!((rolled_back(&after) - rolled_back(&before) - 60.0 * steps).abs() < 60.0, "{}", rolled_back(&after));
    assert!(
        lines(&request.spec, &after, of_width(None)).iter().any(|line| line.ends_with("; the first 1m is left out"))
    );
}

#[test]
fn planned_looks_have_their_own_time_to_pass() {
    let with = |answers: u64| {
        let looks = format!("require: pass, groupSequential: {{answers: {answers}}}");
        planned(&ROLLOUT.replacen("require: pass", &looks, 1), &[]).unwrap()
    };
    let pass = |forecast: &Forecast, name: &str| {
        let metric = forecast.steps[2].metrics.iter().find(|metric| metric.metric == name).unwrap();
        metric.pass.map(|pass| pass.answers)
    };
    let (_, plain) = planned(ROLLOUT, &[]).unwrap();
    let (request, enough) = with(40_000);
    // Even odds at the bound of the fourth look, 1.96, take 19,000 answers; at that of the third, 2.30, 26,000.
    assert_eq!(pass(&enough, "error_rate"), Some(32_000.0));
    assert_eq!(pass(&enough, "latency_p99"), pass(&plain, "latency_p99"));
    assert_eq!(pass(&with(6_000).1, "error_rate"), None);
    let line = "rates and means pass at 5 planned looks, the last one at 40,000 answers";
    assert!(lines(&request.spec, &enough, of_width(None)).iter().any(|text| text == line));
}

#[test]
fn labels_without_a_metric_on_their_delay_are_reported() {
    let clicked = "  - {name: clicked, kind: rate, source: {feedback: click}, direction: higher_is_better, margin: {absolute: 0.02}, \
                   maturity: 1h, whenMissing: zero}\n";
    let delay = "  - {name: delay, kind: distribution, source: {label_delay: click}, maturity: 1h, role: watch}\n";
    let with = |metrics: &str| planned(&ROLLOUT.replacen("plan:", &format!("{metrics}plan:"), 1), &[]).unwrap().1;
    let reported = |metrics: &str| with(metrics).advice.iter().any(|line| line.starts_with("label click: "));
    assert_eq!([reported(""), reported(clicked), reported(&[clicked, delay].concat())], [false, true, false]);
    // The default is a tenth of the maturity.
    let all = with(&[clicked, delay].concat());
    let metric = all.steps[0].metrics.iter().find(|metric| metric.metric == "delay").unwrap();
    assert!((metric.stable - 360.0).abs() < 1e-9, "{metric:?}");
    let text = ROLLOUT.replacen("plan:", &format!("{clicked}{delay}plan:"), 1);
    let error = planned(&text, &["delay 600s->900s"]).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("delay: 600000 is longer than the maturity (1h)"), "{error}");
}

#[test]
fn requests_that_cannot_be_planned_are_refused() {
    let error = |regression: &str| planned(ROLLOUT, &[regression]).map(|_| ()).unwrap_err().to_string();
    insta::assert_snapshot!(["mood 1%->2%", "error_rate 1%->300%", "score 0.8->2"].map(error).join("\n"));
}

/// The sentences about the proof of a rollout with one more metric than the built-in gates.
fn sentences(metric: &str, per_second: f64, measured: &[(&str, f64)]) -> (String, Option<String>) {
    let text = format!(
        "{{apiVersion: serin.dev/v1, kind: Rollout, model: m, stable: {{version: '1'}}, canary: {{version: '2'}}, \
         outputs: [{{name: score, source: {{tensor: score}}, min: 0, max: 1}}], \
         steps: [{{weight: 50%, bake: {{min: 10m, max: 2h}}, require: pass}}], metrics: [{metric}]}}"
    );
    let spec = serin_rollout::parse_yaml(&text).unwrap().normalized();
    let measured = measured.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    (proof(&spec, per_second, &measured).unwrap(), under_limits(&spec, &measured))
}

const SCORE: &str = "{name: score, kind: {mean: {min: 0, max: 1}}, source: {output: score}, direction: higher_is_better, \
                     margin: {relative: 0.1}}";

#[test]
fn a_proof_takes_at_least_bake_min_and_min_answers() {
    assert_eq!(sentences(SCORE, 1000.0, &[]).0, "step 1 passes after about 10m 0s (bake.min)");
    let wide = SCORE.replacen("relative: 0.1", "absolute: 0.9", 1);
    let (slow, _) = sentences(&wide, 0.01, &[]);
    assert!(slow.contains("(decision.minAnswers)") || slow.contains("(failed)"), "{slow}");
}

#[test]
fn a_proof_uses_measured_values() {
    // The usual value, half of the range, is known sooner than a score of 2 % to a tenth of it.
    let usual = sentences(SCORE, 10.0, &[]).0;
    let measured = sentences(SCORE, 10.0, &[("score", 0.02)]).0;
    assert!(usual != measured && measured.contains("(score)"), "{usual}; {measured}");
    // A tenth of 0 leaves no margin. A value at the end of the range can be planned.
    let count = "{name: clicks, kind: count, source: {output: score}, margin: {relative: 0.1}}";
    let never = sentences(count, 10.0, &[("clicks", 0.0)]).0;
    assert!(!never.is_empty(), "{never}");
    assert!(!sentences(SCORE, 10.0, &[("score", 0.0)]).0.is_empty());
}

#[test]
fn metrics_with_a_limit_have_their_own_sentence() {
    let limit = "{name: p99, kind: {quantile: {level: 0.99}}, source: latency, limit: {pass: 50, fail: 60}}";
    // A usual value does not show whether it passes.
    let (proof, provided) = sentences(limit, 1000.0, &[]);
    assert!(proof.starts_with("step 1 passes after about 10m"), "{proof}");
    assert_eq!(provided.as_deref(), Some("provided that the canary's p99 is below 50 ms"));
    let (proof, provided) = sentences(limit, 1000.0, &[("p99", 80.0)]);
    assert_eq!(proof, "p99 does not pass in step 1 with its present value 80 ms, because its limit is 50 ms");
    assert_eq!(provided, None);
    assert!(sentences(limit, 1000.0, &[("p99", 20.0)]).0.starts_with("step 1 passes after about 10m"));
    let least = "{name: score, kind: {mean: {min: 0, max: 1}}, source: {output: score}, direction: higher_is_better, limit: {pass: 0.4}}";
    assert_eq!(sentences(least, 1000.0, &[]).1.as_deref(), Some("provided that the canary's score is above 0.4"));
}

/// The analyzer gives the members of a group one share together, so the forecast must do the same.
#[test]
fn a_group_has_one_share_of_the_budget() {
    let alone = ROLLOUT.replace("role: watch}", "role: gate}");
    let grouped = alone
        .replace("metrics:\n", "groups: [{name: speed}]\nmetrics:\n")
        .replace("margin: {relative: 0.2}}", "margin: {relative: 0.2}, group: speed}")
        .replace("margin: {relative: 0.1}, role", "margin: {relative: 0.1}, group: speed, role");
    let fail = |text: &str, name: &str| {
        let all = planned(text, &[]).unwrap().1;
        all.steps[1].metrics.iter().find(|metric| metric.metric == name).unwrap().fail.unwrap().answers
    };
    // The two gates share one share, and the others have more.
    assert!(fail(&grouped, "latency_p99") > fail(&alone, "latency_p99"));
    assert!(fail(&grouped, "error_rate") < fail(&alone, "error_rate"));
}

#[test]
fn a_stable_version_whose_answers_are_mostly_bad_cannot_be_planned() {
    let of = |base: &[(&str, f64)]| {
        let (mut request, _) = planned(ROLLOUT, &[]).unwrap();
        request.base.extend(base.iter().map(|(name, value)| ((*name).to_owned(), *value)));
        forecast(&request).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(of(&[("error_rate", 0.4)]), Ok(()));
    for base in [&[("error_rate", 1.0)][..], &[("unusable", 0.6)], &[("error_rate", 0.3), ("refused", 0.2)]] {
        assert!(of(base).unwrap_err().contains("warm-up is held"), "{base:?}");
    }
}
