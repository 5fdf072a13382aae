//! `serin tail`: the records of a topic, decoded, as they arrive.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::{Value, json};
use serin_schemas::{codec, envelope, records};
use serin_stream::{
    log::{Polled, Start},
    record::{Headers, Record, TopicPartition},
};

use crate::{
    cli::{Output, Tail},
    output, serve, settings,
};

/// Largest number of records of one poll.
const BATCH: usize = 500;
/// How long one poll waits.
const WAIT: Duration = Duration::from_millis(250);

/// Prints the records of a topic.
pub(crate) fn tail(args: &Tail) -> anyhow::Result<ExitCode> {
    let settings = settings::load(&args.serve)?;
    let known: Vec<String> = settings.topics().into_iter().map(|topic| topic.name).collect();
    anyhow::ensure!(
        known.contains(&args.topic),
        "there is no topic {:?}; the topics are {}",
        args.topic,
        known.join(", ")
    );
    let look = serve::open_log_read_only(&settings)?;
    let log = &look.log;
    let partitions = log.partitions(&args.topic)?;
    let start = if args.from_beginning || args.until_end { Start::Beginning } else { Start::End };
    let name = log.full_name(&args.topic);
    let from: Vec<_> = (0..partitions).map(|partition| (TopicPartition::new(&name, partition), start)).collect();
    let mut reader = log.reader(&from)?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut batch = Vec::new();
    while left > 0 && !output::is_closed() {
        let polled = reader.poll(BATCH, WAIT, &mut batch)?;
        for record in batch.drain(..) {
            if left == 0 {
                break;
            }
            print(&record, args.output)?;
            left -= 1;
        }
        if polled == Polled::AtEnd && args.until_end && from.iter().all(|(at, _)| reader.at_end(at)) {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(record: &Record, format: Output) -> anyhow::Result<()> {
    let (kind, value) = match &record.value {
        None => ("tombstone".to_owned(), Value::Null),
        Some(body) => decoded(&record.headers, body),
    };
    let key = String::from_utf8_lossy(&record.key);
    match format {
        Output::Json => output::json_line(&json!({
            "partition": record.at.partition,
            "offset": record.offset,
            "timestamp_ms": record.timestamp_ms,
            "key": key,
            "type": kind,
            "value": value,
        })),
        Output::Text => {
            output::line(format!("{}:{} {kind} {key} {}", record.at.partition, record.offset, brief(&value)));
            Ok(())
        }
    }
}

/// A value as short text: its sentence or message if it has one. `--output json` prints the whole value.
fn brief(value: &Value) -> String {
    let word = |name: &str| value[name].as_str().unwrap_or_default();
    let message = [word("sentence"), word("message")].into_iter().find(|text| !text.is_empty());
    match message {
        Some(message) => [word("kind"), word("decision"), word("code")].concat() + ": " + message,
        None => value.to_string(),
    }
}

/// The record's type and its value as JSON. A value that cannot be decoded is shown as it is.
fn decoded(headers: &Headers, body: &Bytes) -> (String, Value) {
    let (name, version) = match envelope::record_type(headers) {
        Ok(known) => known,
        Err(error) => return (format!("unknown ({error})"), raw(body)),
    };
    let value =
        decode(name, version, body).unwrap_or_else(|error| json!({"error": format!("{error:#}"), "raw": raw(body)}));
    (name.to_owned(), value)
}

fn raw(body: &Bytes) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}

fn decode(name: &str, version: u32, body: &[u8]) -> anyhow::Result<Value> {
    /// Decodes one type of record and shows it as JSON.
    fn one<R: codec::Record>(version: u32, body: &[u8]) -> anyhow::Result<Value> {
        Ok(serde_json::to_value(codec::decode::<R>(version, body)?)?)
    }
    macro_rules! by_name {
        ($($record:ty),+ $(,)?) => {
            $(if name == <$record as codec::Record>::NAME {
                return one::<$record>(version, body);
            })+
        };
    }
    by_name!(
        records::Prediction,
        records::Feedback,
        records::Heartbeat,
        records::Control,
        records::RoutingTable,
        records::RouterStatus,
        records::WindowClosed,
        records::ClosedThrough,
        records::Verdict,
        records::Command,
        records::RolloutEvent,
        records::Delivery,
        records::DeliveryResult,
        records::DeadLetter,
    );
    None.with_context(|| format!("this version does not know records of type {name:?}"))
}
