//! `serin list`.

use std::process::ExitCode;

use anyhow::Context as _;
use serin_rollout::RolloutState;

use crate::{
    cli::{Output, Remote},
    client::Api,
    headline, output,
    terminal::{Cell, Column, Table, Terminal},
};

static COLUMNS: [Column; 8] = [
    Column::text("model", 0),
    Column::text("rollout", 1),
    Column::text("stable", 5),
    Column::text("canary", 4),
    Column::text("phase", 0),
    Column::number("step", 3),
    Column::number("weight", 2),
    Column::clipped("last event", 6, 30),
];
/// Shortest length of an id prefix.
const SHORTEST_ID: usize = 8;

/// `serin list`.
pub(crate) async fn list(args: &Remote) -> anyhow::Result<ExitCode> {
    let rollouts = Api::new(args)?.rollouts().await?;
    if args.output == Output::Json {
        output::json(&rollouts)?;
        return Ok(ExitCode::SUCCESS);
    }
    let states: Vec<RolloutState> =
        serde_json::from_value(rollouts).context("this version of serin cannot read the controller's answer")?;
    if states.is_empty() {
        output::line("no rollouts yet; start one with: serin apply -f rollout.yaml");
        return Ok(ExitCode::SUCCESS);
    }
    for line in lines(&states, Terminal::stdout()) {
        output::line(line);
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(states: &[RolloutState], terminal: Terminal) -> Vec<String> {
    let mut table = Table::new(&COLUMNS);
    let ids = short_ids(states);
    for (state, id) in states.iter().zip(ids) {
        let step =
            state.step.map_or_else(|| "-".to_owned(), |step| format!("{}/{}", step.0 + 1, state.spec.steps.len()));
        let weight = if state.acts() { state.canary_share.to_string() } else { "observed".to_owned() };
        table.row(vec![
            state.spec.model.to_string().into(),
            id.into(),
            state.spec.stable.version.to_string().into(),
            state.spec.canary.version.to_string().into(),
            Cell::toned(headline::phase(state), headline::tone(state.phase)),
            step.into(),
            weight.into(),
            state.sentence.as_str().into(),
        ]);
    }
    table.lines(terminal)
}

/// The shortest unique prefix of each id.
pub(super) fn short_ids(states: &[RolloutState]) -> Vec<&str> {
    let ids: Vec<&str> = states.iter().map(|state| state.id.as_str()).collect();
    let common = |one: &str, two: &str| one.bytes().zip(two.bytes()).take_while(|(one, two)| one == two).count();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    let shared = sorted.windows(2).map(|pair| common(pair[0], pair[1])).max().unwrap_or(0);
    ids.into_iter().map(|id| id.get(..SHORTEST_ID.max(shared + 1)).unwrap_or(id)).collect()
}
