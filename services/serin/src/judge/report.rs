//! A list of metrics with margins, judged by a shifted Mann-Whitney test at one look ([`serin_statistics::fixed_sample`]).

use serde_json::{Value, json};
use serin_statistics::{
    Direction, Margin,
    fixed_sample::{Decision, Metric, MetricReport, PROMOTE_AT, ROLLBACK_AT, Report, report},
};

use super::{Judgement, Meaning, series};

/// The error rate of each test, unless the file has another `alpha`.
const ALPHA: f64 = 0.05;

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
    let mut problems = Vec::new();
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

fn read(place: usize, metric: &Value, problems: &mut Vec<String>) -> Input {
    let name = metric["name"].as_str().map_or_else(|| (place + 1).to_string(), str::to_owned);
    let mut side = |key: &str| {
        series(&metric[key]).unwrap_or_else(|| {
            problems.push(format!("metric {name}: `{key}` must be a list of numbers"));
            Vec::new()
        })
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

    fn file(shift: f64, margin: Value) -> Value {
        let values = |by: f64| (0..80).map(|point| by + f64::from(point * 37 % 80) / 10.0).collect::<Vec<f64>>();
        json!({"metrics": [{"name": "latency", "relative": margin, "control": values(10.0), "canary": values(10.0 + shift)}]})
    }

    #[test]
    fn the_decision_follows_from_the_margin() {
        let of = |shift, margin| judge(&file(shift, json!(margin))).unwrap();
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
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert!(judge(&json!({})).map(|_| ()).unwrap_err()[0].contains("metricSetPairList"));
    }

    #[test]
    fn rates_are_refused() {
        let file =
            json!({"metrics": [{"name": "errors", "absolute": 0.01, "control": [0, 1, 0], "canary": [0, 1, 1]}]});
        assert!(judge(&file).map(|_| ()).unwrap_err()[0].contains("test of proportions"));
    }
}
