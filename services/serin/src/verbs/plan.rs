//! `serin plan`: which regressions a rollout can detect, how long it takes and what it costs.

use std::process::ExitCode;

use serin_spec::units::Duration;

use super::{
    local::rate,
    simulate::{bases, counted, load},
};
use crate::{
    cli::{Output, Plan},
    output,
    plan::{self, Request},
    simulate::Setup,
};

/// Prints the forecast of a rollout.
pub(crate) fn plan(args: &Plan) -> anyhow::Result<ExitCode> {
    let spec = load(&args.file)?.normalized();
    let traffic = rate(&args.traffic).map_err(|error| anyhow::anyhow!("--traffic: {error}"))?;
    anyhow::ensure!(traffic.per_second > 0.0, "--traffic: without requests there is nothing to plan");
    let react = Duration::parse(&args.react).map_err(|error| anyhow::anyhow!("--react: {error}"))?;
    let named = Setup {
        base: bases(&args.base)?,
        counted: counted(&args.counted)?,
        regressions: args.regressions.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        ..Setup::default()
    };
    let Setup { base, counted, regressions, .. } = named.of(&spec);
    let (per_second, react_seconds) = (traffic.per_second, react.0.as_secs_f64());
    let request = Request { spec, per_second, base, counted, regressions, react_seconds };
    if args.cheapest {
        let ramps = plan::cheapest(&request)?;
        match args.output {
            Output::Json => output::json(&ramps)?,
            Output::Text => plan::print_cheapest(&ramps),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let forecast = plan::forecast(&request)?;
    match args.output {
        Output::Json => output::json(&forecast)?,
        Output::Text => plan::print(&request.spec, &forecast),
    }
    Ok(ExitCode::SUCCESS)
}
