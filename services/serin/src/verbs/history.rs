//! `serin history` and `serin events`: what happened to the rollouts of a model, and to one rollout.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use serde_json::Value;
use serin_rollout::RolloutState;
use serin_schemas::ids::EventTime;

use super::list::short_ids;
use crate::{
    cli::{Events, History, Output},
    client::{Api, ApiError},
    headline, output,
    terminal::{Cell, Column, Table, Terminal},
    time::{span, to_the_second},
};

/// Longest wait for new events in one request.
const NEWS: Duration = Duration::from_secs(20);

static ROLLOUTS: [Column; 7] = [
    Column::text("rollout", 0),
    Column::text("stable", 4),
    Column::text("canary", 1),
    Column::text("started", 3),
    Column::text("took", 5),
    Column::text("phase", 0),
    Column::clipped("how it ended", 2, 40),
];

/// `serin history`: all rollouts of a model, the newest first.
pub(crate) async fn history(args: &History) -> anyhow::Result<ExitCode> {
    let mut rollouts = Api::new(&args.remote)?.rollouts().await?;
    if let Value::Array(all) = &mut rollouts {
        all.retain(|state| state["spec"]["model"].as_str() == Some(&args.model));
        if all.is_empty() {
            return Err(ApiError::NotFound(format!("there is no rollout of a model {:?}", args.model)).into());
        }
    }
    if args.remote.output == Output::Json {
        output::json(&rollouts)?;
        return Ok(ExitCode::SUCCESS);
    }
    let states: Vec<RolloutState> =
        serde_json::from_value(rollouts).context("this version of serin cannot read the controller's answer")?;
    for line in rollout_lines(&states, Terminal::stdout()) {
        output::line(line);
    }
    Ok(ExitCode::SUCCESS)
}

fn rollout_lines(states: &[RolloutState], terminal: Terminal) -> Vec<String> {
    let mut table = Table::new(&ROLLOUTS);
    for (state, id) in states.iter().zip(short_ids(states)) {
        let ended = state.ending.as_ref().map(|ending| ending.at);
        let took = ended.map(|ended| span(ended.since(state.started_at).as_secs_f64()));
        let sentence = state.ending.as_ref().map_or(&state.sentence, |ending| &ending.sentence);
        table.row(vec![
            id.into(),
            state.spec.stable.version.to_string().into(),
            state.spec.canary.version.to_string().into(),
            to_the_second(state.started_at).into(),
            took.unwrap_or_else(|| "-".to_owned()).into(),
            Cell::toned(headline::phase(state), headline::tone(state.phase)),
            sentence.as_str().into(),
        ]);
    }
    table.lines(terminal)
}

/// `serin events`: the events of a rollout in their order, with --follow also those to come until it ends.
pub(crate) async fn events(args: &Events) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.remote)?;
    let state = api.state(&args.rollout).await?;
    let has_ended = state.phase.is_final();
    pages(&api, &state.id.0, has_ended, args.follow, |page| print(page, args.remote.output)).await?;
    Ok(ExitCode::SUCCESS)
}

/// Passes the events of a rollout to `print`, page by page: those so far, with `follow` also those to come until the rollout ends.
async fn pages(
    api: &Api,
    rollout: &str,
    mut has_ended: bool,
    follow: bool,
    mut print: impl FnMut(&Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        // The state was read before this page. If the rollout had ended, the page contains the event that ended it.
        let is_last = !follow || has_ended;
        let page = api.events(rollout, after, if is_last { Duration::ZERO } else { NEWS }).await?;
        print(&page)?;
        if is_last || output::is_closed() {
            return Ok(());
        }
        after = page["next"].as_u64().context("the controller's answer has no position")?;
        has_ended = api.state(rollout).await?.phase.is_final();
    }
}

/// Prints a page of events: a table, or one JSON document per line.
fn print(page: &Value, format: Output) -> anyhow::Result<()> {
    let events = page["events"].as_array().map_or(&[][..], Vec::as_slice);
    match format {
        Output::Json => events.iter().try_for_each(output::json_line)?,
        Output::Text => events.iter().for_each(|event| output::line(Terminal::stdout().wrap(&event_line(event), 2))),
    }
    Ok(())
}

fn event_line(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let at = event["recorded_at"].as_i64().or(event["at"].as_i64());
    let at = at.map_or_else(String::new, |at| to_the_second(EventTime(at)));
    format!("{at}  {}: {} ({})", text("kind"), text("sentence"), text("actor"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serin_schemas::records::Action;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::samples::Sample;

    /// A controller with a rollout that ends just before its state is read.
    async fn ending(state: RolloutState) -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Api::at(&format!("http://{}", listener.local_addr().unwrap()), None, None).unwrap();
        tokio::spawn(async move {
            let mut happened = 1;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap() == 0 {
                        break;
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let body = if let Some((_, rest)) = head.split_once("/events?after=") {
                    let after: usize = rest.split('&').next().unwrap().parse().unwrap();
                    let events = ["started", "aborted"].get(after..happened).unwrap_or_default();
                    json!({"events": events, "next": happened})
                } else {
                    happened = 2;
                    serde_json::to_value(&state).unwrap()
                };
                let body = body.to_string();
                let length = body.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        api
    }

    #[tokio::test]
    async fn the_event_that_ends_a_rollout_is_printed() {
        let ended = Sample::started().command(Action::Abort, "wrong file").state();
        assert!(ended.phase.is_final());
        for (follow, expected) in [(true, vec!["started", "aborted"]), (false, vec!["started"])] {
            let (api, mut seen) = (ending(ended.clone()).await, Vec::new());
            let take = |page: &Value| {
                let events = page["events"].as_array().unwrap();
                seen.extend(events.iter().map(|event| event.as_str().unwrap().to_owned()));
                Ok(())
            };
            pages(&api, "r1", false, follow, take).await.unwrap();
            assert_eq!(seen, expected, "follow: {follow}");
        }
    }

    #[test]
    fn an_event_is_one_line_with_its_time_and_its_actor() {
        let event = json!({
            "kind": "advanced", "recorded_at": 1_700_000_000_000_000_i64, "actor": "analyzer",
            "sentence": "step 1 of 2: 30% to v2 after 661 answers of v1",
        });
        let expected = "2023-11-14 22:13:20  advanced: step 1 of 2: 30% to v2 after 661 answers of v1 (analyzer)";
        assert_eq!(event_line(&event), expected);
    }
}
