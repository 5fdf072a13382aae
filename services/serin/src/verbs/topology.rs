//! `serin topology`: the topics, created or compared.

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
    let look = serve::look_at_log(&settings)?;
    report(args, &serve::differences(look.log.as_ref(), &settings)?, settings.topics().len())
}

fn report(args: &TopologyArgs, differences: &[String], topics: usize) -> anyhow::Result<ExitCode> {
    match args.output {
        Output::Json => output::json(&json!({"topics": topics, "differences": differences}))?,
        Output::Text if differences.is_empty() => output::line(format!("{topics} topics are as they should be")),
        Output::Text => {
            for difference in differences {
                output::line(difference);
            }
        }
    }
    Ok(exit::if_so(differences.is_empty()))
}
