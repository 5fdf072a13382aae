//! `serin simulate`: plays many rollouts in process and reports how they end.

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use anyhow::Context as _;
use serde_json::{Value, json};
use serin_kinds::{Metric as _, significant};
use serin_schemas::{ids::Span, records::Role};
use serin_spec::{MetricSpec, Mode, RolloutSpec, units::Duration};

use super::local::{rate, read};
use crate::{
    cli::{Output, Simulate},
    exit, output, parallel,
    simulate::{self, Case, Compared, Experiment, Report, Setup, World, number},
};

/// Number of runs if neither the command line nor the scenario sets it.
const RUNS: u32 = 1000;

/// Simulates a rollout, or the cases of a scenario.
pub(crate) fn simulate(args: &Simulate) -> anyhow::Result<ExitCode> {
    if args.list {
        return list(args.output);
    }
    #[expect(clippy::single_match_else, reason = "two cases side by side")]
    let (scenario, spec, mut setup) = match &args.scenario {
        Some(name) => {
            let (scenario, spec) = simulate::find(name)?;
            let setup = scenario.setup()?;
            (Some(scenario), spec, setup)
        }
        None => {
            let file = args.file.as_deref().context("pass a rollout file with -f, or a scenario with --scenario")?;
            (None, load(file)?, Setup::default())
        }
    };
    let spec = match (&args.file, &scenario) {
        (Some(file), Some(_)) => load(file)?,
        _ => spec,
    };
    change(&mut setup, args)?;
    anyhow::ensure!(setup.per_second > 0.0, "pass the request rate, such as --traffic 10000/min");
    let runs = args.runs.or(scenario.as_ref().and_then(|scenario| scenario.runs)).unwrap_or(RUNS);
    anyhow::ensure!(runs > 0, "the scenario plays 0 rollouts; write `runs: 1` or more");
    let cases = scenario.as_ref().map(|scenario| scenario.cases.clone()).filter(|cases| !cases.is_empty());
    let (mut all, mut held) = (Vec::new(), true);
    for case in cases.unwrap_or_else(|| vec![Case::default()]) {
        let spec = scenario.as_ref().map_or_else(|| spec.clone(), |scenario| scenario.spec_of(&case, &spec));
        let normalized = spec.normalized();
        let setup = setup.of(&normalized);
        let played = play(&normalized, &setup, runs, args)?;
        let expected = case.expect.as_ref().map(|expect| expect.compare(&played)).transpose()?.unwrap_or_default();
        held &= expected.iter().all(|compared| compared.holds != Some(false));
        match args.output {
            Output::Json => all.push(in_json(&case, &notes(&normalized, &setup), &played, &expected)),
            Output::Text => {
                let title = scenario.as_ref().map(|scenario| format!("{}: {}", scenario.name, scenario.about));
                print(title, &case, &spec, &setup, &played, &expected);
            }
        }
    }
    if args.output == Output::Json {
        let name = scenario.as_ref().map(|scenario| scenario.name.as_str());
        output::json(&json!({"scenario": name, "seed": args.seed, "runs": runs, "drawn": "counts", "cases": all}))?;
    }
    Ok(exit::done_if(held))
}

fn list(format: Output) -> anyhow::Result<ExitCode> {
    let names = simulate::names()?;
    match format {
        Output::Json => {
            let all: Vec<Value> = names.iter().map(|(name, about)| json!({"name": name, "about": about})).collect();
            output::json(&all)?;
        }
        Output::Text => {
            for (name, about) in names {
                output::line(format!("{name:<30} {about}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A rollout file without errors.
pub(crate) fn load(file: &Path) -> anyhow::Result<RolloutSpec> {
    let checked = serin_rollout::check(&read(file)?, None);
    checked.spec.ok_or_else(|| {
        let all: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}:\n  {}", file.display(), all.join("\n  "))
    })
}

/// Applies the options of the command line, which override the scenario.
fn change(setup: &mut Setup, args: &Simulate) -> anyhow::Result<()> {
    if let Some(text) = &args.traffic {
        setup.per_second = rate(text).map_err(|error| anyhow::anyhow!("--traffic: {error}"))?.per_second;
    }
    setup.base.extend(bases(&args.base)?);
    setup.counted.extend(counted(&args.counted)?);
    for text in &args.shares {
        let (segment, share) =
            text.split_once('=').and_then(|(name, rest)| Some((name, rest.split_once(':')?))).map_or_else(
                || Err(anyhow::anyhow!("--share {text}: write DIMENSION=VALUE:SHARE, such as origin=LGA:10%")),
                |(name, (value, share))| Ok(((name.to_owned(), value.to_owned()), share)),
            )?;
        let share = number(share).map_err(|error| anyhow::anyhow!("--share {text}: {error}"))?;
        setup.shares.entry(segment.0).or_default().push((segment.1, share));
    }
    if !args.regressions.is_empty() {
        setup.regressions = args.regressions.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    }
    if !args.drifts.is_empty() {
        setup.drifts = args.drifts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    }
    Ok(())
}

/// `metric=number` pairs of an option.
fn numbers(option: &str, example: &str, texts: &[String]) -> anyhow::Result<BTreeMap<String, f64>> {
    let pair = |text: &String| {
        let (name, value) =
            text.split_once('=').with_context(|| format!("{option} {text}: write METRIC=NUMBER, such as {example}"))?;
        Ok((name.to_owned(), number(value).map_err(|error| anyhow::anyhow!("{option} {text}: {error}"))?))
    };
    texts.iter().map(pair).collect()
}

/// The values of `--base`.
pub(crate) fn bases(texts: &[String]) -> anyhow::Result<BTreeMap<String, f64>> {
    numbers("--base", "failed=1%", texts)
}

/// The values of `--counted`.
pub(crate) fn counted(texts: &[String]) -> anyhow::Result<BTreeMap<String, f64>> {
    numbers("--counted", "recall=2%", texts)
}

fn play(spec: &RolloutSpec, setup: &Setup, runs: u32, args: &Simulate) -> anyhow::Result<Report> {
    anyhow::ensure!(
        spec.mode == Mode::Act,
        "with `mode: observe` no calls are moved, so there is nothing to simulate; set `mode: act` in a copy of the file"
    );
    let world = World::new(spec, setup)?;
    let planned: i64 = spec.steps.iter().map(|step| step.bake.max.0.0).fold(0, i64::saturating_add);
    let limit = match &args.until {
        Some(text) => Duration::parse(text).map_err(|error| anyhow::anyhow!("--until: {error}"))?.0,
        None => Span(planned.saturating_add(spec.promotion.monitor.0.0)),
    };
    let experiment = Experiment { spec: spec.clone(), world, seed: args.seed, limit };
    let jobs = args.jobs.map_or_else(parallel::cores, |jobs| jobs as usize);
    let played = parallel::run("rollouts", runs, jobs, |number| experiment.play(number))?;
    Ok(Report::new(&experiment, onset(setup), &played))
}

/// When the first regression starts.
fn onset(setup: &Setup) -> Span {
    setup.regressions.iter().map(|change| change.at.0).min().unwrap_or_default()
}

/// A sentence about each metric that no canary can fail in this world.
fn notes(spec: &RolloutSpec, setup: &Setup) -> Vec<String> {
    let stable = |metric: &MetricSpec| {
        let changes = setup.regressions.iter().filter(|change| change.metric == metric.name);
        let mut from = changes.filter_map(|change| change.change.from());
        from.next().or(setup.base.get(&metric.name).copied()).unwrap_or_else(|| metric.default_value())
    };
    let decides = spec.metrics.iter().filter(|metric| metric.role != Role::Watch);
    decides.filter_map(|metric| metric.cannot_fail_at(stable(metric))).collect()
}

fn in_json(case: &Case, notes: &[String], report: &Report, expected: &[Compared]) -> Value {
    json!({"case": case.title(), "notes": notes, "report": report, "expected": expected})
}

fn print(
    title: Option<String>,
    case: &Case,
    spec: &RolloutSpec,
    setup: &Setup,
    report: &Report,
    expected: &[Compared],
) {
    let (stable, canary) = (spec.stable.version.in_words(), spec.canary.version.in_words());
    let versions = format!("{}: {stable} -> {canary}", spec.model);
    output::text(title.map_or(versions, |title| format!("{title}\n{}", case.title())));
    let wrong: Vec<String> = setup.regressions.iter().map(|change| change.text(spec)).collect();
    let wrong = if wrong.is_empty() { "a canary equal to stable".to_owned() } else { wrong.join("; ") };
    output::text(format!(
        "{} rollouts at {} requests/s, {wrong}; random counts through the analyzer's fold and the planner",
        report.runs,
        significant(setup.per_second, 3)
    ));
    for note in notes(spec, setup) {
        output::text(note);
    }
    output::text("");
    simulate::print(report, onset(setup).as_secs_f64());
    for Compared { sentence, holds } in expected {
        let word = match holds {
            Some(true) => "as expected",
            Some(false) => "NOT AS EXPECTED",
            None => "for reference",
        };
        output::text(format!("{word}: {sentence}"));
    }
    output::text("");
}
