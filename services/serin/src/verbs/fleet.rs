//! `serin fleet`: all rollouts of a time in numbers.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::Value;
use serin_controller::fleet::{Counts, Fleet};

use crate::{
    cli::{Fleet as Args, Output},
    client::{Api, read},
    output,
    terminal::{Column, Table, Terminal},
    time::{named, span, to_the_second},
};

static WEEKS: [Column; 8] = [
    Column::text("week of", 0),
    Column::number("started", 0),
    Column::number("promoted", 0),
    Column::number("caught", 0),
    Column::number("inconclusive", 3),
    Column::number("no data", 3),
    Column::number("ended by hand", 2),
    Column::number("open", 1),
];

static OVERRIDES: [Column; 4] =
    [Column::text("by", 0), Column::text("what", 0), Column::number("times", 0), Column::clipped("newest", 1, 100)];

/// `serin fleet`.
pub(crate) async fn fleet(args: &Args) -> anyhow::Result<ExitCode> {
    let from = named("--since", &args.since, Timestamp::now())?;
    let document = Api::new(&args.remote)?.fleet(from).await?;
    match args.remote.output {
        Output::Json => output::json(&document)?,
        Output::Text => lines(document, Terminal::stdout())?.into_iter().for_each(output::line),
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(document: Value, terminal: Terminal) -> anyhow::Result<Vec<String>> {
    let note = document["read"]["note"].as_str().map(str::to_owned);
    let fleet: Fleet = read(document)?;
    let mut lines = vec![format!(
        "{} rollouts of {} models from {} to {} UTC",
        fleet.all.started,
        fleet.models,
        to_the_second(fleet.from),
        to_the_second(fleet.to)
    )];
    if fleet.all.started > 0 {
        lines.push(String::new());
        let mut table = Table::new(&WEEKS);
        for week in &fleet.weeks {
            table.row(row(to_the_second(week.week)[..10].to_owned(), &week.counts));
        }
        table.row(row("all".to_owned(), &fleet.all));
        lines.extend(table.lines(terminal));
        lines.push(String::new());
        lines.extend(sentences(&fleet).iter().map(|line| terminal.wrap(line, 2)));
    }
    if !fleet.overrides.is_empty() {
        lines.extend([String::new(), "People stepped in:".to_owned()]);
        let mut table = Table::new(&OVERRIDES);
        for one in &fleet.overrides {
            table.row(vec![
                one.by.as_str().into(),
                one.kind.replace('_', " ").into(),
                one.count.to_string().into(),
                one.newest.as_str().into(),
            ]);
        }
        lines.extend(table.lines(terminal));
    }
    lines.extend(note.map(|note| format!("Not everything was {note}")));
    Ok(lines)
}

fn row(name: String, counts: &Counts) -> Vec<crate::terminal::Cell> {
    let Counts { started, promoted, caught, inconclusive, no_data, aborted, superseded, open } = counts;
    let numbers = [*started, *promoted, *caught, *inconclusive, *no_data, aborted + superseded, *open];
    std::iter::once(name.into()).chain(numbers.map(|number| number.to_string().into())).collect()
}

/// What was caught, how long promotions took, and how people judged the endings.
fn sentences(fleet: &Fleet) -> Vec<String> {
    let caught = &fleet.caught;
    let share = caught.share.map_or_else(String::new, |share| format!(" ({:.0} %)", 100.0 * share));
    let by = caught.by.iter().map(|one| {
        let place = if one.in_segments > 0 { format!(", {} in a segment", one.in_segments) } else { String::new() };
        format!("{} ({}{place})", one.metric, one.rollouts)
    });
    let by: Vec<String> = by.collect();
    let by = if by.is_empty() { String::new() } else { format!(": {}", by.join(", ")) };
    let mut lines = vec![format!(
        "Caught:     {} of {} rollouts that ended with a decision on the version{share}{by}",
        caught.caught, caught.decided
    )];
    if let Some(promotion) = &fleet.promotion {
        lines.push(format!(
            "Promotion:  {} after the start in the median, nine of ten within {} ({} promotions)",
            span(promotion.median_seconds),
            span(promotion.p90_seconds),
            promotion.promotions
        ));
    }
    let judged = &fleet.judged;
    lines.push(if judged.marked == 0 {
        "Judged:     none yet (serin mark ROLLOUT --was good|bad)".to_owned()
    } else {
        format!(
            "Judged:     {} rollouts: {} false alarms and {} right ones, {} missed and {} right promotions",
            judged.marked, judged.false_alarms, judged.right_alarms, judged.missed, judged.right_promotions
        )
    });
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::terminal::of_width;

    fn counts(started: usize) -> Value {
        json!({"started": started, "promoted": 2, "caught": 1, "inconclusive": 0, "no_data": 0, "aborted": 1, "superseded": 1, "open": 0})
    }

    fn document(started: usize) -> Value {
        let mut week = counts(started);
        week["week"] = json!(1_795_996_800_000_000_i64);
        json!({
            "format": "serin.fleet/v1", "from": 1_793_500_000_000_000_i64, "to": 1_796_092_000_000_000_i64, "models": 2,
            "all": counts(started), "weeks": [week],
            "caught": {"decided": 3, "caught": 1, "share": 1.0 / 3.0, "by": [{"metric": "wrong", "rollouts": 1, "in_segments": 1}]},
            "promotion": {"promotions": 2, "median_seconds": 4000.0, "p90_seconds": 90000.0},
            "overrides": [{"by": "ada", "kind": "paused", "count": 2, "newest": "fraud: paused by ada: late labels"}],
            "judged": {"marked": 2, "false_alarms": 1, "right_alarms": 0, "missed": 0, "right_promotions": 1},
            "read": {"topic": "audit", "records": 9, "complete": true, "note": null},
        })
    }

    #[test]
    fn the_numbers_are_shown_as_tables_and_sentences() {
        let text = lines(document(5), of_width(Some(120))).unwrap().join("\n");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_was_not_read_is_named() {
        let mut document = document(5);
        document["read"]["note"] = json!("read: the newest 10 records of audit[0] only");
        let text = lines(document, of_width(Some(120))).unwrap().join("\n");
        assert!(text.ends_with("Not everything was read: the newest 10 records of audit[0] only"), "{text}");
    }
}
