//! `serin export`: records for other tools.

use std::process::ExitCode;

use jiff::Timestamp;
use serin_insight::exposure::{COLUMNS, Exposure, Exposures as Found, MOST_UNITS};
use serin_schemas::{codec, ids::EventTime, records::Prediction};
use serin_topology::EVENTS;

use crate::{
    cli::{Export, Exported, Exposures, Output},
    output,
    replay::each,
    serve, settings,
    time::range,
};

/// `serin export`.
pub(crate) fn export(args: &Export) -> anyhow::Result<ExitCode> {
    match &args.what {
        Exported::Exposures(args) => exposures(args),
    }
}

/// Which predictions are exported.
struct Wanted<'a> {
    args: &'a Exposures,
    from: Option<EventTime>,
    to: Option<EventTime>,
}

impl Wanted<'_> {
    /// Whether a prediction is of the model and the rollout.
    fn is_of(&self, prediction: &Prediction) -> bool {
        let of_rollout = |text: &str| prediction.rollout.as_ref().is_some_and(|id| id.as_str().starts_with(text));
        self.args.model.as_deref().is_none_or(|model| prediction.model.as_str() == model)
            && self.args.rollout.as_deref().is_none_or(of_rollout)
    }

    /// Whether a prediction is within the range of time.
    fn is_within(&self, prediction: &Prediction) -> bool {
        self.from.is_none_or(|from| prediction.completed_at >= from)
            && self.to.is_none_or(|to| prediction.completed_at < to)
    }
}

/// `serin export exposures`.
fn exposures(args: &Exposures) -> anyhow::Result<ExitCode> {
    let (from, to) = range(args.from.as_deref(), args.to.as_deref(), Timestamp::now())?;
    let wanted = Wanted { args, from, to };
    let settings = settings::load(&args.serve)?;
    let look = serve::open_log_read_only(&settings)?;
    let log = look.log.as_ref();
    if args.output == Output::Text {
        output::line(COLUMNS.join(","));
    }
    let (mut found, mut rows, mut not_read, mut known) = (Found::default(), 0_u64, 0_u64, false);
    for partition in 0..log.partitions(EVENTS)? {
        each(log, EVENTS, partition, |record| {
            let Some(body) = record.value.as_deref() else { return Ok(()) };
            let prediction = match codec::read::<Prediction>(&record.headers, body) {
                Ok(prediction) => prediction,
                // The topic has other types of records too.
                Err(codec::DecodeError::UnknownType { .. }) => return Ok(()),
                Err(_) => {
                    not_read += 1;
                    return Ok(());
                }
            };
            if output::is_closed() || !wanted.is_of(&prediction) {
                return Ok(());
            }
            known = true;
            if !wanted.is_within(&prediction) {
                return Ok(());
            }
            if let Some(exposure) = found.of(&prediction) {
                rows += 1;
                match args.output {
                    Output::Json => output::json_line(&exposure)?,
                    Output::Text => output::part(csv_line(&exposure)?),
                }
            }
            Ok(())
        })?;
        if output::is_closed() {
            break;
        }
    }
    output::aside(format!(
        "{rows} exposures; not exported: {} answers whose arm the split did not choose, {} without a rollout",
        found.not_assigned, found.without_rollout
    ));
    if not_read > 0 {
        output::aside(format!("{not_read} records of {EVENTS} cannot be read"));
    }
    if !known && !output::is_closed() {
        let names = [("model", &args.model), ("rollout", &args.rollout)];
        let names: Vec<String> =
            names.iter().filter_map(|(kind, name)| name.as_ref().map(|name| format!("{kind} {name:?}"))).collect();
        anyhow::ensure!(names.is_empty(), "the log has no prediction of {}; check the name", names.join(" and "));
    }
    if found.full {
        output::aside(format!(
            "more than {MOST_UNITS} users: some of them have several rows, of which the earliest counts"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// An exposure as a line of CSV (RFC 4180, with a line feed).
fn csv_line(exposure: &Exposure) -> anyhow::Result<String> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.serialize(exposure)?;
    Ok(String::from_utf8(writer.into_inner()?)?)
}
