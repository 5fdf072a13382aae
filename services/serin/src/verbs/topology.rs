//! `serin topology`: creates the topics, or compares them with the configuration.

use std::process::ExitCode;

use serde_json::json;

use crate::{
    cli::{Output, TopologyAction, TopologyArgs},
    exit, output, serve, settings,
};

/// Creates or checks the topics.
pub(crate) fn topology(action: &TopologyAction) -> anyhow::Result<ExitCode> {
    match action {
        TopologyAction::Ensure(args) => ensure(args),
        TopologyAction::Check(args) => check(args),
    }
}

fn ensure(args: &TopologyArgs) -> anyhow::Result<ExitCode> {
    let settings = settings::load(&args.serve)?;
    let log = serve::open_log(&settings)?;
    let expected = settings.topics();
    log.create(&expected)?;
    report(args, &serve::differences(log.as_ref(), &settings)?, expected.len())
}

fn check(args: &TopologyArgs) -> anyhow::Result<ExitCode> {
    let settings = settings::load(&args.serve)?;
    let look = serve::open_log_read_only(&settings)?;
    report(args, &serve::differences(look.log.as_ref(), &settings)?, settings.topics().len())
}

fn report(args: &TopologyArgs, differences: &[String], topics: usize) -> anyhow::Result<ExitCode> {
    match args.output {
        Output::Json => output::json(&json!({"topics": topics, "differences": differences}))?,
        Output::Text if differences.is_empty() => output::line(format!("{topics} topics are as expected")),
        Output::Text => {
            for difference in differences {
                output::line(difference);
            }
        }
    }
    Ok(exit::done_if(differences.is_empty()))
}
