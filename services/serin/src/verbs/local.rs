//! Verbs that need no service: `lint`, `schema`.

use std::{collections::BTreeMap, io::Read as _, path::Path, process::ExitCode};

use anyhow::Context as _;
use serde_json::json;
use serin_kinds::count;
use serin_rollout::{Checked, Traffic};
use serin_spec::{Problem, Require, RolloutSpec, Severity};

use crate::{
    cli::{Lint, Output, Schema},
    exit, output, settings,
    terminal::{Terminal, Tone},
};

/// `serin lint`.
pub(crate) fn lint(args: &Lint) -> anyhow::Result<ExitCode> {
    let traffic =
        args.traffic.as_deref().map(rate).transpose().map_err(|error| anyhow::anyhow!("--traffic: {error}"))?;
    let text = read(&args.file)?;
    let checked = serin_rollout::check(&text, traffic.as_ref());
    print_problems(&args.file.display().to_string(), &checked, args.output)?;
    if let (Output::Text, Some(spec)) = (args.output, &checked.spec) {
        print_schedule(spec, traffic.as_ref());
    }
    Ok(exit::done_if(!checked.has_errors()))
}

/// Prints the steps that a schedule becomes, with the calls that the canary answers in each at least.
fn print_schedule(spec: &RolloutSpec, traffic: Option<&Traffic>) {
    let Some(schedule) = spec.schedule else { return };
    output::line(format!("schedule {schedule}:"));
    for (index, step) in spec.steps.iter().enumerate() {
        let calls = traffic.map(|traffic| traffic.per_second * step.share().fraction() * step.bake.min.0.as_secs_f64());
        let calls = calls.map_or_else(String::new, |calls| format!(", {} canary answers", count(calls)));
        let requires = if spec.require(index) == Require::NoFail { "" } else { ", requires " };
        let what = serde_json::to_value(spec.require(index)).unwrap_or_default();
        let what = if requires.is_empty() { "" } else { what.as_str().unwrap_or_default() };
        output::line(format!("  {step} for at least {}{calls}{requires}{what}", step.bake.min));
    }
}

/// `serin schema`.
pub(crate) fn schema(args: Schema) -> anyhow::Result<ExitCode> {
    output::json(&if args.config { settings::json_schema() } else { serin_rollout::json_schema() })?;
    Ok(ExitCode::SUCCESS)
}

/// The text of a file, or of standard input for `-`.
pub(crate) fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

/// Prints the problems of the rollout file `name`, one per line, and their count.
pub(crate) fn print_problems(name: &str, checked: &Checked, format: Output) -> anyhow::Result<()> {
    if format == Output::Json {
        let steps = checked.spec.as_ref().map(|spec| spec.normalized().steps);
        let ok = !checked.has_errors();
        return output::json(&json!({"file": name, "ok": ok, "problems": checked.problems, "steps": steps}));
    }
    for problem in &checked.problems {
        output::line(problem_line(name, problem));
    }
    let count = |severity| checked.problems.iter().filter(|problem| problem.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    output::line(format!("{name}: {}, {}", counted(errors, "error"), counted(warnings, "warning")));
    Ok(())
}

/// Prints the warnings about a valid rollout file, one per line.
pub(super) fn print_warnings(name: &str, checked: &Checked) {
    for problem in checked.problems.iter().filter(|problem| problem.severity == Severity::Warning) {
        output::line(problem_line(name, problem));
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn problem_line(name: &str, problem: &Problem) -> String {
    let tone = if problem.severity == Severity::Error { Tone::Bad } else { Tone::Open };
    Terminal::stdout().paint(&format!("{name}:{problem}"), tone)
}

/// A rate such as `10000/min`.
pub(crate) fn rate(text: &str) -> Result<Traffic, String> {
    let wrong = || format!("{text:?} is not a rate; write for example 50/s, 10000/min or 2000000/d");
    let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let seconds = match unit.trim() {
        "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    if !number.is_finite() || number < 0.0 {
        return Err(wrong());
    }
    Ok(Traffic { per_second: number / seconds, rates: BTreeMap::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_unit() {
        assert!((rate("600/min").unwrap().per_second - 10.0).abs() < 1e-12);
        for wrong in ["600", "x/min", "-1/s", "1/week", "inf/s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
