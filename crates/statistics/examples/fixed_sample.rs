//! A report in the style of the common fixed-sample analyzer:
//! `cargo run --release -p serin-statistics --example fixed_sample -- FILE.json`.
//!
//! The file is `{"alpha": 0.05, "metrics": [{"name", "direction", "absolute" and/or "relative", "control": [..], "canary": [..]}]}`, or
//! an object with a list `cases` of these. The exit code is 2 if the file cannot be read or a metric is refused (0/1 data).

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::Value;
use serin_statistics::fixed_sample::{Metric, Report, report};
use serin_statistics::{Direction, Margin};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(path), None) = (args.next(), args.next()) else {
        return refuse("usage: fixed_sample FILE.json");
    };
    let output = std::fs::read_to_string(&path).map_err(|error| error.to_string()).and_then(|text| run(&text));
    match output {
        Ok(text) => {
            // A closed pipe is not an error of the report.
            let _ = write!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&format!("{path}: {error}")),
    }
}

fn refuse(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {message}");
    ExitCode::from(2)
}

fn run(text: &str) -> Result<String, String> {
    let file: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let cases = file["cases"].as_array().cloned().unwrap_or_else(|| vec![file]);
    let mut output = String::new();
    for case in &cases {
        if let Some(name) = case["name"].as_str() {
            output += name;
            output += "\n";
        }
        output += &lines(&judge(case)?);
    }
    Ok(output + "valid for one look at the end: with repeated looks, it fails a third of all healthy canaries\n")
}

/// One metric of the file with its values.
struct Input {
    name: String,
    weight: f64,
    direction: Direction,
    margin: Margin,
    control: Vec<f64>,
    canary: Vec<f64>,
}

fn judge(case: &Value) -> Result<Report, String> {
    let metrics = case["metrics"].as_array().ok_or("`metrics` must be a list")?;
    let inputs: Vec<Input> =
        metrics.iter().enumerate().map(|(index, metric)| read(index, metric)).collect::<Result<_, _>>()?;
    let metrics: Vec<Metric<'_>> = inputs
        .iter()
        .map(|input| Metric {
            name: &input.name,
            weight: input.weight,
            direction: input.direction,
            margin: input.margin,
            control: &input.control,
            canary: &input.canary,
        })
        .collect();
    report(&metrics, case["alpha"].as_f64().unwrap_or(0.05)).map_err(|refusal| refusal.to_string())
}

fn read(index: usize, metric: &Value) -> Result<Input, String> {
    let name = metric["name"].as_str().map_or_else(|| format!("{}", index + 1), str::to_owned);
    let values = |key: &str| {
        let list = metric[key].as_array().and_then(|list| list.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>());
        list.ok_or_else(|| format!("metric {name}: `{key}` must be a list of numbers"))
    };
    let direction = match metric["direction"].as_str() {
        None | Some("lower_is_better") => Direction::LowerIsBetter,
        Some("higher_is_better") => Direction::HigherIsBetter,
        Some(other) => return Err(format!("metric {name}: unknown direction {other:?}")),
    };
    let margin = Margin { absolute: metric["absolute"].as_f64(), relative: metric["relative"].as_f64() };
    let (control, canary) = (values("control")?, values("canary")?);
    Ok(Input { weight: metric["weight"].as_f64().unwrap_or(1.0), direction, margin, control, canary, name })
}

fn lines(report: &Report) -> String {
    let line = |metric: &serin_statistics::fixed_sample::MetricReport| {
        format!(
            "  {}: control {:.4}, canary {:.4}, margin {:.4}; p within {:.4}, p beyond {:.4}, Cohen's d {:+.3}: {}\n",
            metric.name,
            metric.control_mean,
            metric.canary_mean,
            metric.margin,
            metric.p_within,
            metric.p_beyond,
            metric.cohen_d,
            format!("{:?}", metric.finding).to_lowercase(),
        )
    };
    let decision = format!("{:?}", report.decision).to_lowercase();
    let metrics: String = report.metrics.iter().map(line).collect();
    format!("{metrics}  score {:.1}: {decision} (95 or more promotes, 60 or less rolls back)\n", report.score)
}
