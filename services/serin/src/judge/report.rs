//! A list of metrics with margins, judged by a shifted Mann-Whitney test at one look ([`serin_statistics::fixed_sample`]).

use serde_json::{Value, json};
use serin_spec::suggest;
use serin_statistics::{
    Direction, Margin,
    fixed_sample::{Decision, Metric, MetricReport, PROMOTE_AT, ROLLBACK_AT, Report, report},
};

use super::judgement::{Judgement, Meaning, series};

/// The error rate of each test, unless the file has another `alpha`.
const ALPHA: f64 = 0.05;
/// The members of a metric.
const MEMBERS: [&str; 7] = ["name", "weight", "direction", "absolute", "relative", "control", "canary"];

/// One metric of the file with its values.
struct Input {
    name: String,
    weight: f64,
    direction: Direction,
    margin: Margin,
    control: Vec<f64>,
    canary: Vec<f64>,
}

impl Input {
    fn metric(&self) -> Metric<'_> {
        let Self { name, weight, direction, margin, control, canary } = self;
        Metric { name, weight: *weight, direction: *direction, margin: *margin, control, canary }
    }
}

/// Judges a file. Returns all problems of the file if it cannot be judged.
pub(super) fn judge(file: &Value) -> Result<Judgement, Vec<String>> {
    let Some(metrics) = file["metrics"].as_array() else {
        let forms =
            "`metrics` must be a list, or the file a request of Kayenta's remote judge with a `metricSetPairList`";
        return Err(vec![forms.to_owned()]);
    };
    let mut problems = unknown("", file, &["metrics", "alpha"]);
    let inputs: Vec<Input> =
        metrics.iter().enumerate().map(|(place, metric)| read(place, metric, &mut problems)).collect();
    let alpha = match &file["alpha"] {
        Value::Null => ALPHA,
        other => other.as_f64().unwrap_or_else(|| {
            problems.push(format!("alpha: a number is needed, this is {other}"));
            ALPHA
        }),
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    let metrics: Vec<Metric<'_>> = inputs.iter().map(Input::metric).collect();
    let report = report(&metrics, alpha).map_err(|refusal| vec![refusal.to_string()])?;
    Ok(Judgement { json: to_json(&report), lines: lines(&report), meaning: meaning(report.decision) })
}

fn meaning(decision: Decision) -> Meaning {
    match decision {
        Decision::Promote => Meaning::Good,
        Decision::Hold => Meaning::Open,
        Decision::Rollback => Meaning::Bad,
    }
}

/// A problem for each member of an object that has no meaning. With a margin that is misspelled, every canary would be judged without it.
fn unknown(place: &str, object: &Value, known: &[&str]) -> Vec<String> {
    let members = object.as_object().into_iter().flatten().map(|(member, _)| member.as_str());
    members
        .filter(|member| !known.contains(member))
        .map(|member| {
            let fix = suggest::fix(member, known.iter().copied(), &format!("known are {}", known.join(", ")));
            format!("{place}the member {member:?} is unknown; {fix}")
        })
        .collect()
}

fn read(place: usize, metric: &Value, problems: &mut Vec<String>) -> Input {
    let name = metric["name"].as_str().map_or_else(|| (place + 1).to_string(), str::to_owned);
    problems.extend(unknown(&format!("metric {name}: "), metric, &MEMBERS));
    if metric["absolute"].is_null() && metric["relative"].is_null() {
        problems.push(format!(
            "metric {name}: a margin is needed: `absolute` in the metric's unit, `relative` to control's mean, or both"
        ));
    }
    let mut side = |key: &str| {
        let values = series(&metric[key]).unwrap_or_else(|| {
            problems.push(format!("metric {name}: `{key}` must be a list of numbers"));
            Vec::new()
        });
        if let Some(at) = values.iter().position(|value| value.is_nan()) {
            let what = format!("value {} of `{key}` is missing (null or \"NaN\")", at + 1);
            problems.push(format!("metric {name}: {what}; leave such values out"));
        }
        values
    };
    let (control, canary) = (side("control"), side("canary"));
    let direction = match &metric["direction"] {
        Value::Null => Direction::LowerIsBetter,
        word if *word == "lower_is_better" => Direction::LowerIsBetter,
        word if *word == "higher_is_better" => Direction::HigherIsBetter,
        other => {
            problems.push(format!(
                "metric {name}: the direction {other} is unknown; use lower_is_better or higher_is_better"
            ));
            Direction::LowerIsBetter
        }
    };
    let mut number = |key: &str| match &metric[key] {
        Value::Null => None,
        other => {
            if !other.is_number() {
                problems.push(format!("metric {name}: `{key}` must be a number, this is {other}"));
            }
            other.as_f64()
        }
    };
    let margin = Margin { absolute: number("absolute"), relative: number("relative") };
    Input { weight: number("weight").unwrap_or(1.0), direction, margin, control, canary, name }
}

/// The name of a finding or decision.
fn word(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn to_json(report: &Report) -> Value {
    let metric = |metric: &MetricReport| {
        json!({
            "name": metric.name,
            "control": metric.control_mean,
            "canary": metric.canary_mean,
            "margin": metric.margin,
            "pWithin": metric.p_within,
            "pBeyond": metric.p_beyond,
            "cohenD": metric.cohen_d,
            "finding": word(metric.finding),
        })
    };
    let metrics: Vec<Value> = report.metrics.iter().map(metric).collect();
    json!({"score": report.score, "decision": word(report.decision), "metrics": metrics})
}

fn lines(report: &Report) -> Vec<String> {
    let line = |metric: &MetricReport| {
        format!(
            "{}: {}; control {:.4}, canary {:.4}, margin {:.4}; p within {:.4}, p beyond {:.4}, Cohen's d {:+.3}",
            metric.name,
            word(metric.finding),
            metric.control_mean,
            metric.canary_mean,
            metric.margin,
            metric.p_within,
            metric.p_beyond,
            metric.cohen_d,
        )
    };
    let mut lines: Vec<String> = report.metrics.iter().map(line).collect();
    let decision = word(report.decision);
    lines.push(format!(
        "score {:.1}: {decision} ({PROMOTE_AT} or more promotes, {ROLLBACK_AT} or less rolls back)",
        report.score
    ));
    lines.push(
        "valid for one look at the end: with a look every minute for an hour, it fails a third of all healthy canaries"
            .to_owned(),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(shift: f64, margin: &Value) -> Value {
        let values = |by: f64| (0..80).map(|point| by + f64::from(point * 37 % 80) / 10.0).collect::<Vec<f64>>();
        json!({"metrics": [{"name": "latency", "relative": margin, "control": values(10.0), "canary": values(10.0 + shift)}]})
    }

    #[test]
    fn the_decision_follows_from_the_margin() {
        let of = |shift, margin| judge(&file(shift, &json!(margin))).unwrap();
        let within = of(0.0, 0.5);
        assert_eq!((within.meaning, &within.json["decision"]), (Meaning::Good, &json!("promote")));
        let beyond = of(9.0, 0.1);
        assert_eq!((beyond.meaning, &beyond.json["metrics"][0]["finding"]), (Meaning::Bad, &json!("fail")));
        // A metric that is undecided counts half.
        assert_eq!(of(1.4, 0.1).json["score"], 50.0);
    }

    #[test]
    fn all_problems_are_reported_together() {
        let file = json!({"alpha": "small", "metrics": [
            {"control": [1, "x"], "direction": "up"},
            {"name": "b", "control": [], "canary": [], "relative": "10%"},
        ]});
        let problems = judge(&file).map(|_| ()).unwrap_err();
        assert_eq!(problems.len(), 6, "{problems:?}");
        assert!(judge(&json!({})).map(|_| ()).unwrap_err()[0].contains("metricSetPairList"));
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let file = json!({"alfa": 0.1, "metrics": [
            {"name": "a", "absolut": 0.01, "control": [10, 12, 14], "canary": [10, 12, 11]},
            {"name": "b", "absolute": 0, "control": [10, null, 14], "canary": ["NaN", null, 11], "unit": "ms"},
        ]});
        let expected = [
            "the member \"alfa\" is unknown; did you mean \"alpha\"?",
            "metric a: the member \"absolut\" is unknown; did you mean \"absolute\"?",
            "metric a: a margin is needed: `absolute` in the metric's unit, `relative` to control's mean, or both",
            "metric b: the member \"unit\" is unknown; known are name, weight, direction, absolute, relative, control, canary",
            "metric b: value 2 of `control` is missing (null or \"NaN\"); leave such values out",
            "metric b: value 1 of `canary` is missing (null or \"NaN\"); leave such values out",
        ];
        assert_eq!(judge(&file).map(|_| ()).unwrap_err(), expected);
    }

    #[test]
    fn rates_are_refused() {
        let file =
            json!({"metrics": [{"name": "errors", "absolute": 0.01, "control": [0, 1, 0], "canary": [0, 1, 1]}]});
        assert!(judge(&file).map(|_| ()).unwrap_err()[0].contains("test of proportions"));
    }
}
