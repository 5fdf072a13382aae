//! Runs a case of a file like `tests/data/kayenta_judge_cases.json` and compares the results of our Kayenta judge with what
//! Kayenta's own tests assert (`expected`) and what Kayenta's judge printed (`observed`).

use serde_json::{Map, Value, json};
use serin_statistics::kayenta::{
    self, AllTied, Detector, Direction, Gates, Judged, Label, Measure, MetricConfig, MetricPair, MetricRule,
    NanStrategy, Outcome, ShiftInterval, ShiftRange, Summary, Thresholds,
};

use super::compare::{Tolerance, as_number, differences, number};

/// Kinds of cases about Kayenta's orchestration instead of its judge.
const SKIPPED: [&str; 4] = ["analysis_windows", "pairing", "pairing_lists", "integration_scenario"];

/// The results of the cases of a file.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
    /// One line per difference.
    pub(crate) misses: Vec<String>,
}

/// Checks all cases of a file.
pub(crate) fn check(text: &str) -> Result<Report, String> {
    let file: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    // The values that Kayenta's tests assert, and those that its judge returned.
    let lists: Vec<&Vec<Value>> = ["cases", "measured_cases"].iter().filter_map(|key| file[*key].as_array()).collect();
    if lists.is_empty() {
        return Err("the file has no list `cases`".to_owned());
    }
    let mut report = Report::default();
    for case in lists.into_iter().flatten() {
        let (name, kind) = (case["name"].as_str().unwrap_or("?"), case["kind"].as_str().unwrap_or("?"));
        if SKIPPED.contains(&kind) {
            report.skipped += 1;
            continue;
        }
        let misses = check_case(kind, case);
        report.passed += usize::from(misses.is_empty());
        report.failed += usize::from(!misses.is_empty());
        report.misses.extend(misses.into_iter().map(|miss| format!("{name} ({kind}): {miss}")));
    }
    Ok(report)
}

fn check_case(kind: &str, case: &Value) -> Vec<String> {
    let actual = match compute(kind, case) {
        Ok(actual) => actual,
        Err(_) if expects_error(&case["expected"]) => return Vec::new(),
        Err(error) => return vec![error],
    };
    if case["expected"].as_object().is_none_or(Map::is_empty) {
        return vec!["the case has no expected values".to_owned()];
    }
    let tolerance = Tolerance(&case["abs_tolerance"]);
    let mut misses = differences("expected", "", &case["expected"], &actual, tolerance);
    if let Some(observed) = case.get("observed").filter(|observed| observed.is_object()) {
        misses.extend(differences("observed", "", observed, &actual, Tolerance(&Value::Null)));
    }
    misses
}

fn expects_error(expected: &Value) -> bool {
    let flag = |key| expected.get(key).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)));
    ["error", "throws", "exception"].into_iter().any(flag) || expected["classification"] == "Error"
}

/// The results of our Kayenta judge for a case, under the names that the file uses.
fn compute(kind: &str, case: &Value) -> Result<Value, String> {
    let parameters = &case["parameters"];
    match kind {
        "classify" => classify(case, parameters),
        "weighted_score" => weighted_score(case, parameters),
        "effect_size" => effect_size(case, parameters),
        "percentile_r7" => {
            Ok(json!({"value": number(kayenta::percentile(&series(case, "values")?, required(parameters, "p")?))}))
        }
        "outlier_mask" => {
            Ok(json!({"is_outlier": kayenta::is_outlier(&series(case, "values")?, detector(parameters)?)}))
        }
        "transform" => transform(&series(case, "values")?, parameters),
        "aggregate_judgement" => {
            let passed = kayenta::passes_overall(
                required(parameters, "final_score")?,
                as_number(&parameters["pass"]),
                as_number(&parameters["marginal"]),
            );
            Ok(json!({"did_pass": passed}))
        }
        "mw_confidence_interval" => shift(case, parameters).map(|shift| Value::Object(shift_values(shift))),
        "mw_standardised_statistic" => standardized(case),
        "mw_intermediate" => intermediate(case, parameters),
        "normal_quantile" => Ok(json!({"quantile": number(kayenta::normal_quantile(required(parameters, "p")?))})),
        "summary_stats" => Ok(summary(kayenta::summary(&series(case, "values")?))),
        "judge" => judge(case, parameters),
        unknown => Err(format!("unknown kind {unknown:?}")),
    }
}

fn required(object: &Value, key: &str) -> Result<f64, String> {
    as_number(&object[key]).ok_or_else(|| format!("the case has no number `{key}`"))
}

fn series(object: &Value, key: &str) -> Result<Vec<f64>, String> {
    let list = object[key].as_array().ok_or_else(|| format!("the case has no list `{key}`"))?;
    let point = |value: &Value| if value.is_null() { Some(f64::NAN) } else { as_number(value) };
    list.iter().map(|value| point(value).ok_or_else(|| format!("`{key}` contains {value}, not a number"))).collect()
}

fn sides(case: &Value) -> Result<(Vec<f64>, Vec<f64>), String> {
    Ok((series(case, "control")?, series(case, "experiment")?))
}

fn label(word: &Value) -> Result<Label, String> {
    use Label::{Error, High, Low, Nodata, NodataFailMetric, Pass};
    [Pass, High, Low, Nodata, NodataFailMetric, Error]
        .into_iter()
        .find(|label| word == label.name())
        .ok_or_else(|| format!("{word} is not a classification"))
}

fn detector(parameters: &Value) -> Result<Detector, String> {
    let factor = required(parameters, "factor")?;
    match parameters["detector"].as_str() {
        _ if factor.is_nan() || factor <= 0.0 => Err(format!("the factor {factor} must be above 0")),
        Some("k_sigma") => Ok(Detector::KSigma { factor }),
        Some("iqr") => {
            let reduce_sensitivity = parameters["reduce_sensitivity"].as_bool().unwrap_or(false);
            Ok(Detector::Iqr { factor, reduce_sensitivity })
        }
        _ => Err(format!("unknown detector {}", parameters["detector"])),
    }
}

fn transform(values: &[f64], parameters: &Value) -> Result<Value, String> {
    let values = match parameters["op"].as_str() {
        Some("remove_nan") => kayenta::remove_nan(values),
        Some("replace_nan") => kayenta::replace_nan(values, as_number(&parameters["value"]).unwrap_or(0.0)),
        Some("remove_outliers") => kayenta::remove_outliers(values, detector(parameters)?),
        _ => return Err(format!("unknown operation {}", parameters["op"])),
    };
    Ok(json!({"values": values.into_iter().map(number).collect::<Vec<_>>()}))
}

fn summary(summary: Summary) -> Value {
    let Summary { min, max, mean, std, count } = summary;
    json!({"min": number(min), "max": number(max), "mean": number(mean), "std": number(std), "count": count})
}

fn effect_size(case: &Value, parameters: &Value) -> Result<Value, String> {
    let (control, experiment) = sides(case)?;
    let value = match parameters["measure"].as_str() {
        Some("cohen_d" | "cohenD") => kayenta::cohen_d(&control, &experiment),
        Some("cles") => kayenta::cles(&control, &experiment),
        _ => kayenta::mean_ratio(&control, &experiment),
    };
    Ok(json!({"value": number(value)}))
}

fn confidence(parameters: &Value) -> f64 {
    as_number(&parameters["confidence_level"]).unwrap_or(kayenta::CONFIDENCE)
}

fn shift(case: &Value, parameters: &Value) -> Result<ShiftInterval, String> {
    let (control, experiment) = sides(case)?;
    kayenta::interval(&experiment, &control, confidence(parameters)).map_err(|error| error.to_string())
}

fn shift_values(shift: ShiftInterval) -> Map<String, Value> {
    [("ci_low", shift.low), ("ci_high", shift.high), ("estimate", shift.estimate)]
        .map(|(key, value)| (key.to_owned(), number(value)))
        .into_iter()
        .collect()
}

/// Keys such as `at_mu_5_z_0` contain the arguments.
fn standardized(case: &Value) -> Result<Value, String> {
    let (control, experiment) = sides(case)?;
    let expected = case["expected"].as_object().ok_or("the case has no expected values")?;
    let value = |key: &String| -> Result<Value, String> {
        let arguments = key.strip_prefix("at_mu_").and_then(|rest| rest.split_once("_z_"));
        let (mu, z) = arguments
            .and_then(|(mu, z)| Some((mu.parse().ok()?, z.parse().ok()?)))
            .ok_or_else(|| format!("`{key}` is not of the form at_mu_N_z_N"))?;
        kayenta::standardized(mu, z, &experiment, &control).map(number).map_err(|error| error.to_string())
    };
    expected.keys().map(|key| Ok((key.clone(), value(key)?))).collect::<Result<_, String>>().map(Value::Object)
}

fn intermediate(case: &Value, parameters: &Value) -> Result<Value, String> {
    let (control, experiment) = sides(case)?;
    let mut values = shift_values(shift(case, parameters)?);
    let range = ShiftRange::of(&experiment, &control);
    let z = -kayenta::normal_quantile((1.0 - confidence(parameters)) / 2.0);
    let statistic = |mu, z| kayenta::standardized(mu, z, &experiment, &control);
    let all = || -> Result<_, AllTied> {
        Ok([
            ("mu_min", range.low),
            ("mu_max", range.high),
            ("z_lower", z),
            ("z_upper", -z),
            ("w_at_mu_min_z_pos", statistic(range.low, z)?),
            ("w_at_mu_max_z_pos", statistic(range.high, z)?),
            ("w_at_mu_min_z_neg", statistic(range.low, -z)?),
            ("w_at_mu_max_z_neg", statistic(range.high, -z)?),
        ])
    };
    let all = all().map_err(|error| error.to_string())?;
    values.extend(all.map(|(key, value)| (key.to_owned(), number(value))));
    Ok(Value::Object(values))
}

fn rule(parameters: &Value) -> MetricRule {
    let word = |key: &str| parameters[key].as_str().unwrap_or_default();
    let flag = |key: &str| parameters[key].as_bool().unwrap_or(false);
    let measure = Measure::parse(word("effect_size_measure"));
    let gate = |key: &str| as_number(&parameters[key]).unwrap_or(measure.neutral());
    MetricRule {
        direction: Direction::parse(word("direction")),
        nan: NanStrategy::parse(word("nan_strategy")),
        critical: flag("critical_metric") || flag("critical"),
        must_have_data: flag("must_have_data"),
        tolerance: as_number(&parameters["tolerance"]).unwrap_or(kayenta::TOLERANCE),
        confidence: confidence(parameters),
        measure,
        allowed: Gates { increase: gate("allowed_increase"), decrease: gate("allowed_decrease") },
        critical_at: Gates { increase: gate("critical_increase"), decrease: gate("critical_decrease") },
    }
}

fn classify(case: &Value, parameters: &Value) -> Result<Value, String> {
    let rule = rule(parameters);
    let outliers = parameters["outlier_strategy"] == "remove";
    let factor = as_number(&parameters["outlier_factor"]).unwrap_or(kayenta::OUTLIER_FACTOR);
    let prepare = |values: &[f64]| {
        let values = rule.nan.apply(values);
        let detector = Detector::Iqr { factor, reduce_sensitivity: true };
        if outliers { kayenta::remove_outliers(&values, detector) } else { values }
    };
    let (control, experiment) = sides(case)?;
    let (control, experiment) = (prepare(&control), prepare(&experiment));
    let judged = match case["classifier"].as_str() {
        Some("mann_whitney") | None => kayenta::classify(&control, &experiment, &rule),
        Some("mean_inequality") => kayenta::classify_by_mean(&control, &experiment, &rule),
        Some(unknown) => return Err(format!("unknown classifier {unknown:?}")),
    };
    // The file contains effect and interval even if the verdict did not need them.
    let mut values = verdict(&judged);
    values.insert("cles".to_owned(), number(kayenta::cles(&control, &experiment)));
    let shift = judged.shift.ok_or(AllTied).or_else(|_| kayenta::interval(&experiment, &control, rule.confidence));
    values.extend(shift.map(shift_values).unwrap_or_default());
    if judged.noised {
        values.extend(["ci_low", "ci_high", "estimate"].map(|key| (key.to_owned(), Value::Null)));
    }
    Ok(Value::Object(values))
}

fn verdict(judged: &Judged) -> Map<String, Value> {
    let comparable = !judged.noised && judged.label != Label::Error;
    let values = json!({
        "classification": judged.label.name(),
        "critical": judged.critical,
        "deviation": if comparable { number(judged.deviation) } else { Value::Null },
        "reason_present": judged.reason.is_some(),
    });
    values.as_object().cloned().unwrap_or_default()
}

fn weights(parameters: &Value) -> Result<Vec<(String, f64)>, String> {
    let Some(weights) = parameters["group_weights"].as_object() else { return Ok(Vec::new()) };
    let weight = |(group, weight)| {
        as_number(weight)
            .map(|weight| (String::clone(group), weight))
            .ok_or(format!("the weight of {group} is not a number"))
    };
    weights.iter().map(weight).collect()
}

fn groups(metric: &Value) -> Vec<String> {
    let names = metric["groups"].as_array().map_or(&[][..], Vec::as_slice);
    names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn group_values(groups: &[kayenta::GroupScore]) -> [(String, Value); 2] {
    let mut sorted: Vec<f64> = groups.iter().map(kayenta::GroupScore::reported).collect();
    sorted.sort_by(f64::total_cmp);
    let by_name: Map<_, _> = groups.iter().map(|group| (group.name.clone(), number(group.reported()))).collect();
    [("group_scores_sorted".to_owned(), json!(sorted)), ("group_scores".to_owned(), Value::Object(by_name))]
}

fn thresholds(parameters: &Value) -> Result<Thresholds, String> {
    Ok(Thresholds { pass: required(parameters, "pass")?, marginal: required(parameters, "marginal")? })
}

fn weighted_score(case: &Value, parameters: &Value) -> Result<Value, String> {
    let metrics = case["metrics"].as_array().ok_or("the case has no list `metrics`")?;
    let outcomes: Result<Vec<Outcome>, String> = metrics
        .iter()
        .filter(|metric| metric["muted"] != true)
        .map(|metric| {
            let critical = metric["critical"].as_bool().unwrap_or(false);
            Ok(Outcome { label: label(&metric["classification"])?, critical, groups: groups(metric) })
        })
        .collect();
    let report = kayenta::score(&outcomes?, &weights(parameters)?);
    let mut values = Map::from_iter(group_values(&report.groups));
    values.insert("summary_score".to_owned(), number(report.summary));
    values.insert("reason_present".to_owned(), json!(report.reason.is_some()));
    if let Ok(thresholds) = thresholds(parameters) {
        values.insert("classification".to_owned(), json!(thresholds.label(report.summary).name()));
    }
    Ok(Value::Object(values))
}

/// Reads a metric's settings as Kayenta does: a missing setting has its default, and a setting of the wrong type makes the
/// whole judgement fail.
struct Settings<'a>(&'a Value);

impl<'a> Settings<'a> {
    fn read<T>(&self, path: &str, default: T, read: impl Fn(&'a Value) -> Option<T>) -> Result<T, String> {
        let value = path.split('.').try_fold(self.0, |value, key| value.get(key));
        value.map_or(Ok(default), |value| read(value).ok_or_else(|| format!("`{path}` is {value}")))
    }

    fn word(&self, path: &str) -> Result<String, String> {
        let print = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.read(path, String::new(), |value| (!value.is_null()).then(|| print(value)))
    }

    fn flag(&self, path: &str) -> Result<bool, String> {
        self.read(path, false, |value| if value.is_null() { Some(false) } else { value.as_bool() })
    }

    fn gate(&self, path: &str) -> Result<Option<f64>, String> {
        self.read(path, None, |value| if value.is_null() { Some(Some(0.0)) } else { value.as_f64().map(Some) })
    }
}

fn config(canary: &Value) -> Result<MetricConfig, String> {
    let settings = Settings(canary);
    let factor = settings.gate("outliers.outlierFactor")?.unwrap_or(kayenta::OUTLIER_FACTOR);
    Ok(MetricConfig {
        direction: Direction::parse(&settings.word("direction")?),
        nan: NanStrategy::parse(&settings.word("nanStrategy")?),
        critical: settings.flag("critical")?,
        must_have_data: settings.flag("mustHaveData")?,
        muted: settings.flag("muted")?,
        remove_outliers: (settings.word("outliers.strategy")? == "remove").then_some(factor),
        measure: Measure::parse(&settings.word("effectSize.measure")?),
        allowed_increase: settings.gate("effectSize.allowedIncrease")?,
        allowed_decrease: settings.gate("effectSize.allowedDecrease")?,
        critical_increase: settings.gate("effectSize.criticalIncrease")?,
        critical_decrease: settings.gate("effectSize.criticalDecrease")?,
    })
}

fn judge(case: &Value, parameters: &Value) -> Result<Value, String> {
    let metrics = case["metrics"].as_array().ok_or("the case has no list `metrics`")?;
    let pair = |metric: &Value| -> Result<MetricPair, String> {
        let (control, experiment) = sides(metric)?;
        let name = metric["name"].as_str().unwrap_or_default().to_owned();
        let config = config(&metric["canary"]).map_err(|error| format!("metric {name}: {error}"))?;
        Ok(MetricPair { name, groups: groups(metric), config, control, experiment })
    };
    let pairs = metrics.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
    let judgement = kayenta::judge(&pairs, &weights(parameters)?, thresholds(parameters)?);
    let judgement = judgement.map_err(|error| error.to_string())?;
    let metric = |metric: &kayenta::JudgedMetric| {
        let mut values = verdict(&metric.judged);
        values.insert("name".to_owned(), json!(metric.name));
        values.insert("muted".to_owned(), json!(metric.muted));
        values.insert("control".to_owned(), summary(metric.control));
        values.insert("experiment".to_owned(), summary(metric.experiment));
        Value::Object(values)
    };
    let mut values = Map::from_iter(group_values(&judgement.groups));
    values.insert("score".to_owned(), number(judgement.score));
    values.insert("classification".to_owned(), json!(judgement.label.name()));
    values.insert("reason_present".to_owned(), json!(judgement.reason.is_some()));
    values.insert("metrics".to_owned(), Value::Array(judgement.metrics.iter().map(metric).collect()));
    Ok(Value::Object(values))
}
