//! The demo: recorded flights replayed through the whole pipeline, and models that predict whether they arrive late.
//!
//! It uses real HTTP requests, real events and the same services as in production. It drives them only through their public
//! ports, so that it works the same in one process, on Kafka with one process per role, and with a pipeline that is already
//! running (`--attach`).

mod data;
mod model;

mod ids;
mod pipeline;
mod replay;
mod servers;
mod story;
mod stuck;
mod summary;
mod tally;
mod view;
mod virtual_run;

use std::{process::ExitCode, time::Duration};

use crate::{
    cli::{self, Output},
    client::Api,
    exit, output,
};

use model::Models;
use pipeline::Pipeline;
use replay::Replay;
use story::{MODEL, RouterAdmin, Story, WINDOW};
use view::View;

/// Runs the demo.
pub(crate) async fn run(args: &cli::Demo) -> anyhow::Result<ExitCode> {
    if let Some(rollouts) = args.rollouts {
        return virtual_run::run(args, rollouts);
    }
    let mut view = View::new(args.output == Output::Json);
    view.print(story::about(args.scenario));
    view.print("starting the pipeline ...");
    let mut pipeline = Box::pin(Pipeline::start(args)).await?;
    let servers = servers::start().await?;
    let endpoints = pipeline.endpoints().clone();
    let mut story = Story {
        replay: Replay::new(endpoints.clone(), MODEL, WINDOW, args.seed)?,
        api: Api::at(&endpoints.api, None, None)?,
        router: RouterAdmin::at(&endpoints.router_admin),
        applied: std::collections::BTreeMap::new(),
        models: Models::embedded(),
        view: &mut view,
        servers,
        pace: Duration::from_micros(args.pace.0.0.unsigned_abs()),
    };
    let endings = Box::pin(story.play(args.scenario)).await;
    let requests = story.replay.requests;
    let applied = summary::ApplyTimes::of(story.applied.into_values().collect());
    let endings = match endings {
        Ok(endings) => Ok(endings),
        Err(error) => Err(match pipeline.trouble().await {
            Some(trouble) => anyhow::anyhow!("{trouble}").context(format!("{error:#}")),
            None => error,
        }),
    };
    pipeline.stop().await;
    let summary = summary::Summary::new(args, endings?, requests, applied);
    match args.output {
        Output::Json => output::json(&summary)?,
        Output::Text => output::text(summary.text()),
    }
    Ok(exit::done_if(summary.as_expected()))
}
