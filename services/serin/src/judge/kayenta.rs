//! A request of Kayenta's remote judge (`RemoteJudgeRequest`), answered as its own judge would (`CanaryJudgeResult`).
//!
//! Source of both forms: Kayenta's classes `RemoteJudgeRequest`, `CanaryConfig`, `MetricSetPair`, `CanaryJudgeResult`
//! (spinnaker/spinnaker at `8f1801da9ec2`).

use serde_json::{Map, Value, json};
use serin_statistics::kayenta::{
    Direction, JudgedMetric, Measure, MetricConfig, MetricPair, NanStrategy, OUTLIER_FACTOR, ScoreLabel, Summary,
    Thresholds, judge as judge_pairs,
};

use super::judgement::{Judgement, Meaning, series};

/// Name of the judge in the result.
const JUDGE: &str = "NetflixACAJudge-v1.0";

/// Judges a request. Returns all problems of the request if it cannot be judged.
pub(super) fn judge(request: &Value) -> Result<Judgement, Vec<String>> {
    let mut problems = Vec::new();
    let config = &request["canaryConfig"];
    let thresholds = thresholds(request, config, &mut problems);
    let weights = weights(config, &mut problems);
    let pairs = pairs(request, config, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let judged = judge_pairs(&pairs, &weights, thresholds).map_err(|error| vec![error.to_string()])?;
    let sources = request["metricSetPairList"].as_array().map_or(&[][..], Vec::as_slice);
    let results: Vec<Value> = judged
        .metrics
        .iter()
        .zip(&pairs)
        .zip(sources)
        .map(|((metric, pair), source)| result(metric, pair, source))
        .collect();
    let label = judged.label.name();
    let reason = judged.reason.clone();
    let groups: Vec<Value> = judged
        .groups
        .iter()
        .map(|group| json!({"name": group.name, "score": group.reported(), "classification": "", "classificationReason": ""}))
        .collect();
    let mut lines: Vec<String> = judged.metrics.iter().map(line).collect();
    lines.extend(judged.groups.iter().map(|group| format!("group {}: {:.2}", group.name, group.reported())));
    let why = reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    lines.push(format!("score {:.2}: {label}{why}, as Kayenta's judge reports it for one look", judged.score));
    Ok(Judgement {
        json: json!({
            "judgeName": JUDGE,
            "results": results,
            "groupScores": groups,
            "score": {"score": judged.score, "classification": label, "classificationReason": reason},
        }),
        lines,
        meaning: match judged.label {
            ScoreLabel::Pass => Meaning::Good,
            ScoreLabel::Marginal => Meaning::Open,
            ScoreLabel::Fail => Meaning::Bad,
        },
    })
}

/// The thresholds of the request or, if it has none, of the configuration.
fn thresholds(request: &Value, config: &Value, problems: &mut Vec<String>) -> Thresholds {
    let own = &request["scoreThresholds"];
    let found = if own.is_object() { own } else { &config["classifier"]["scoreThresholds"] };
    let mut number = |name: &str| {
        found[name].as_f64().unwrap_or_else(|| {
            problems.push(format!("scoreThresholds.{name}: a number is needed, such as 75"));
            0.0
        })
    };
    Thresholds { pass: number("pass"), marginal: number("marginal") }
}

fn weights(config: &Value, problems: &mut Vec<String>) -> Vec<(String, f64)> {
    let empty = Map::new();
    let all = config["classifier"]["groupWeights"].as_object().unwrap_or(&empty);
    let mut read = |(group, weight): (&String, &Value)| {
        let weight = weight.as_f64().unwrap_or_else(|| {
            problems.push(format!("canaryConfig.classifier.groupWeights.{group}: a number is needed"));
            0.0
        });
        (group.clone(), weight)
    };
    all.iter().map(&mut read).collect()
}

fn pairs(request: &Value, config: &Value, problems: &mut Vec<String>) -> Vec<MetricPair> {
    let Some(metrics) = config["metrics"].as_array() else {
        problems.push("canaryConfig.metrics: a list is needed".to_owned());
        return Vec::new();
    };
    let Some(list) = request["metricSetPairList"].as_array() else {
        problems.push("metricSetPairList: a list is needed".to_owned());
        return Vec::new();
    };
    let mut pairs = Vec::new();
    for (place, pair) in list.iter().enumerate() {
        let path = format!("metricSetPairList[{place}]");
        let Some(name) = pair["name"].as_str() else {
            problems.push(format!("{path}.name: a string is needed"));
            continue;
        };
        let Some(metric) = metrics.iter().find(|metric| metric["name"] == name) else {
            problems.push(format!("{path}: canaryConfig has no metric {name:?}"));
            continue;
        };
        let mut side = |side: &str| {
            series(&pair["values"][side]).unwrap_or_else(|| {
                problems.push(format!("{path}.values.{side}: a list of numbers is needed"));
                Vec::new()
            })
        };
        let (control, experiment) = (side("control"), side("experiment"));
        let groups = metric["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        let groups = groups.collect();
        let config = metric_config(&metric["analysisConfigurations"]["canary"], name, problems);
        pairs.push(MetricPair { name: name.to_owned(), groups, config, control, experiment });
    }
    pairs
}

/// The settings of a metric. Missing ones have Kayenta's defaults.
fn metric_config(canary: &Value, name: &str, problems: &mut Vec<String>) -> MetricConfig {
    let word = |key: &str| canary[key].as_str().unwrap_or_default();
    let mut flag = |key: &str| match &canary[key] {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        // Kayenta throws on a string here, and gives no verdict at all.
        other => {
            problems.push(format!("metric {name}: {key} must be true or false, this is {other}"));
            false
        }
    };
    let (critical, must_have_data, muted) = (flag("critical"), flag("mustHaveData"), flag("muted"));
    let effect = &canary["effectSize"];
    let outliers = &canary["outliers"];
    MetricConfig {
        direction: Direction::parse(word("direction")),
        nan: NanStrategy::parse(word("nanStrategy")),
        critical,
        must_have_data,
        muted,
        remove_outliers: (outliers["strategy"] == "remove")
            .then(|| outliers["outlierFactor"].as_f64().unwrap_or(OUTLIER_FACTOR)),
        measure: Measure::parse(effect["measure"].as_str().unwrap_or_default()),
        allowed_increase: effect["allowedIncrease"].as_f64(),
        allowed_decrease: effect["allowedDecrease"].as_f64(),
        critical_increase: effect["criticalIncrease"].as_f64(),
        critical_decrease: effect["criticalDecrease"].as_f64(),
    }
}

fn result(metric: &JudgedMetric, pair: &MetricPair, source: &Value) -> Value {
    let stats = |summary: &Summary| {
        let Summary { min, max, mean, std, count } = *summary;
        json!({"stats": {"min": min, "max": max, "mean": mean, "std": std, "count": count}})
    };
    let deviation = metric.judged.deviation;
    json!({
        "name": metric.name,
        "id": source["id"],
        "tags": source["tags"],
        "classification": metric.judged.label.name(),
        "classificationReason": metric.judged.reason,
        "groups": pair.groups,
        "critical": metric.judged.critical,
        "muted": metric.muted,
        "controlMetadata": stats(&metric.control),
        "experimentMetadata": stats(&metric.experiment),
        // Kayenta writes a ratio that is not a number as text.
        "resultMetadata": {"ratio": if deviation.is_finite() { json!(deviation) } else { json!("NaN") }},
    })
}

fn line(metric: &JudgedMetric) -> String {
    let (label, muted) = (metric.judged.label.name(), if metric.muted { ", muted" } else { "" });
    let critical = if metric.judged.critical { ", critical" } else { "" };
    let reason = metric.judged.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    format!(
        "{}: {label}{critical}{muted}{reason}; control {:.4} ({} points), canary {:.4} ({} points)",
        metric.name, metric.control.mean, metric.control.count, metric.experiment.mean, metric.experiment.count
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(canary: &[f64], analysis: &Value) -> Value {
        let control: Vec<f64> = (0..60).map(|point| f64::from(100 + point % 7)).collect();
        json!({
            "canaryConfig": {
                "metrics": [{"name": "latency", "groups": ["speed"], "analysisConfigurations": {"canary": analysis}}],
                "classifier": {"groupWeights": {"speed": 100}, "scoreThresholds": {"pass": 95, "marginal": 75}},
            },
            "metricSetPairList": [{"name": "latency", "id": "1", "tags": {"zone": "a"}, "values": {"control": control, "experiment": canary}}],
        })
    }

    fn points(from: i32) -> Vec<f64> {
        (0..60).map(|point| f64::from(from + point % 7)).collect()
    }

    #[test]
    fn a_request_gets_the_result_in_kayentas_form() {
        let judged = judge(&request(&points(150), &json!({"direction": "increase"}))).unwrap();
        assert_eq!(judged.meaning, Meaning::Bad);
        let result = &judged.json["results"][0];
        assert_eq!((&result["classification"], &result["tags"]["zone"]), (&json!("High"), &json!("a")));
        assert_eq!(judged.json["score"]["classification"], "Fail");
        assert_eq!(judged.json["groupScores"][0]["score"], 0.0);

        let equal = judge(&request(&points(100), &json!({"direction": "increase"}))).unwrap();
        assert_eq!((equal.meaning, &equal.json["score"]["score"]), (Meaning::Good, &json!(100.0)));
    }

    #[test]
    fn thresholds_of_the_request_take_precedence() {
        let mut request = request(&points(150), &json!({"direction": "decrease"}));
        request["scoreThresholds"] = json!({"pass": 101, "marginal": 100});
        assert_eq!(judge(&request).unwrap().meaning, Meaning::Open);
    }

    #[test]
    fn missing_values_are_null_or_nan() {
        let mut request = request(&points(100), &json!({}));
        request["metricSetPairList"][0]["values"]["experiment"] = json!([null, "NaN", null]);
        let judged = judge(&request).unwrap();
        assert_eq!(judged.json["results"][0]["classification"], "Nodata");
    }

    #[test]
    fn all_problems_are_reported_together() {
        let request = json!({
            "canaryConfig": {"metrics": [{"name": "a", "analysisConfigurations": {"canary": {"critical": "true"}}}]},
            "metricSetPairList": [{"name": "a", "values": {"control": "x"}}, {"name": "b"}, {}],
        });
        let problems = judge(&request).map(|_| ()).unwrap_err();
        assert_eq!(
            problems,
            [
                "scoreThresholds.pass: a number is needed, such as 75",
                "scoreThresholds.marginal: a number is needed, such as 75",
                "metricSetPairList[0].values.control: a list of numbers is needed",
                "metricSetPairList[0].values.experiment: a list of numbers is needed",
                "metric a: critical must be true or false, this is \"true\"",
                "metricSetPairList[1]: canaryConfig has no metric \"b\"",
                "metricSetPairList[2].name: a string is needed",
            ]
        );
    }
}
