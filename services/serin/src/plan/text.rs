//! A forecast as text.

use serin_kinds::{Unit, count, significant};
use serin_spec::RolloutSpec;

use super::{
    course::{Course, Forecast, MetricStep, Reach, StepForecast},
    request::unit,
};
use crate::{
    evidence::short,
    output,
    terminal::{Column, Table, Terminal},
    time::span,
};

/// The table's columns. On a narrow terminal, columns with a large rank are removed first.
static COLUMNS: [Column; 11] = [
    Column::text("metric", 0),
    Column::number("stable", 2),
    Column::number("fails beyond", 6),
    Column::number("detectable by max", 7),
    Column::number("regressed to", 3),
    Column::number("fails after", 1),
    Column::number("90 % within", 8),
    Column::number("canary answers", 9),
    Column::number("passes after", 1),
    Column::number("90 % within", 10),
    Column::number("by max", 4),
];

/// Prints a forecast.
pub(crate) fn print(spec: &RolloutSpec, forecast: &Forecast) {
    let terminal = Terminal::stdout();
    for line in lines(spec, forecast, terminal) {
        output::line(terminal.wrap(&line, 2));
    }
}

pub(super) fn lines(spec: &RolloutSpec, forecast: &Forecast, terminal: Terminal) -> Vec<String> {
    let mut lines = vec![format!(
        "{}: {} -> {} at {} requests/s; {} hypotheses share a false-rollback budget of {}",
        spec.model,
        spec.stable.version.in_words(),
        spec.canary.version.in_words(),
        significant(forecast.requests_per_second, 3),
        forecast.hypotheses,
        Unit::Percent.precise(spec.decision.false_rollback)
    )];
    for step in &forecast.steps {
        let bake = &spec.steps[step.step].bake;
        let require = serde_json::to_value(spec.require(step.step)).unwrap_or_default();
        lines.push(String::new());
        lines.push(format!(
            "step {}: {} for {} to {}, requires {}; {} canary answers/s, {} control answers for each{}",
            step.step + 1,
            spec.steps[step.step],
            bake.min,
            bake.max,
            require.as_str().unwrap_or_default(),
            significant(step.canary_per_second, 3),
            significant(step.control_ratio, 3),
            if spec.settle > 0 { format!("; the first {} is left out", spec.settles_for()) } else { String::new() },
        ));
        if let Some(looks) = spec.steps[step.step].group_sequential {
            let (looks, answers) = (looks.looks, count(looks.answers as f64));
            lines.push(format!("rates and means pass at {looks} planned looks, the last one at {answers} answers"));
        }
        lines.extend(table(spec, step, terminal));
    }
    lines.push(String::new());
    lines.push(format!(
        "a canary equal to stable: {}; {} of such canaries are promoted without an operator",
        course(spec, &forecast.healthy),
        percent(forecast.healthy.share)
    ));
    for regressed in &forecast.regressions {
        let harm =
            regressed.extra_events.map_or_else(String::new, |events| format!(", {} more bad answers", count(events)));
        let currency = forecast.cost.currency.as_deref().unwrap_or("(no currency set)");
        let cost = regressed.harm_cost.map_or_else(String::new, |cost| format!(" = {} {currency}", short(cost)));
        lines.push(format!(
            "{} {} instead of {}: {}{harm}{cost}; {} of such canaries are rolled back",
            regressed.metric,
            unit(spec, &regressed.metric).precise(regressed.canary),
            unit(spec, &regressed.metric).precise(regressed.stable),
            course(spec, &regressed.course),
            percent(regressed.course.share)
        ));
    }
    lines.push(String::new());
    lines.extend(cost(forecast));
    if !forecast.advice.is_empty() {
        lines.push(String::new());
        lines.push("advice:".to_owned());
        lines.extend(forecast.advice.iter().map(|advice| format!("  - {advice}")));
    }
    lines
}

fn table(spec: &RolloutSpec, step: &StepForecast, terminal: Terminal) -> Vec<String> {
    let mut table = Table::new(&COLUMNS);
    for metric in &step.metrics {
        table.row(row(metric, unit(spec, &metric.metric)).into_iter().map(Into::into).collect());
    }
    table.lines(terminal)
}

fn row(metric: &MetricStep, unit: Unit) -> Vec<String> {
    let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| unit.precise(value));
    let after = |reach: Option<Reach>| reach.map_or_else(|| "never".to_owned(), |reach| span(reach.seconds));
    vec![
        metric.metric.clone(),
        unit.precise(metric.stable),
        value(metric.border),
        value(metric.seen_by_max),
        value(metric.border.map(|_| metric.regressed)),
        after(metric.fail),
        after(metric.fail_most),
        metric.requests_at_risk.map_or_else(|| "-".to_owned(), count),
        after(metric.pass),
        metric.pass_most.map_or_else(|| "-".to_owned(), |reach| span(reach.seconds)),
        percent(metric.passed_by_max),
    ]
}

/// A share in percent, never rounded to 0 % or 100 %.
pub(super) fn percent(share: f64) -> String {
    match 100.0 * share {
        all if all > 99.5 && share < 1.0 => "> 99 %".to_owned(),
        none if none < 0.5 && share > 0.0 => "< 1 %".to_owned(),
        percent => format!("{percent:.0} %"),
    }
}

fn course(spec: &RolloutSpec, course: &Course) -> String {
    let waits = course.waits.last().cloned().flatten().map_or_else(String::new, |wait| format!(", waiting for {wait}"));
    let place = format!(
        "step {} ({})",
        course.step + 1,
        spec.steps.get(course.step).map_or_else(String::new, ToString::to_string)
    );
    let requests = format!("{} canary answers", count(course.canary_requests));
    match course.end {
        "promoted" => format!("promoted after {}, {requests}", span(course.seconds)),
        "held" => format!("held in {place} after {}{waits}, {requests}", span(course.seconds)),
        _ => format!("rolled back in {place} after {}, {requests}", span(course.seconds)),
    }
}

fn cost(forecast: &Forecast) -> Vec<String> {
    let cost = &forecast.cost;
    let currency = cost.currency.as_deref().unwrap_or("(no currency set)");
    let mut lines = match (&cost.steps, cost.replicas_cost) {
        (Some(steps), Some(total)) => {
            let each = steps.iter().enumerate().map(|(step, cost)| {
                let gpus = if cost.gpus > 0 {
                    format!(" ({} GPU{})", cost.gpus, if cost.gpus == 1 { "" } else { "s" })
                } else {
                    String::new()
                };
                let replicas = if cost.replicas == 1 { "replica" } else { "replicas" };
                format!("step {}: {} {replicas}{gpus} for {:.1} h", step + 1, cost.replicas, cost.hours)
            });
            vec![format!("the second version: {}; {} {currency}", each.collect::<Vec<_>>().join(", "), short(total))]
        }
        _ => {
            vec!["the second version: set canary.replica in the rollout file to see replicas, GPUs and cost".to_owned()]
        }
    };
    let mirrored = if cost.mirrored_calls > 0.0 { count(cost.mirrored_calls) } else { "none".to_owned() };
    lines.push(format!("mirrored calls: {mirrored}"));
    lines
}
