//! The binary of Serin: every role, the whole pipeline in one process, the command line and the demo.

mod cli;
mod client;
mod compare;
#[cfg(test)]
mod cookbook_tests;
mod demo;
#[cfg(test)]
mod doors_tests;
mod evidence;
mod exit;
mod headline;
mod http;
mod in_process;
#[cfg(test)]
mod in_process_tests;
mod judge;
mod model_server;
#[cfg(test)]
mod outcomes_tests;
mod output;
mod parallel;
mod plan;
mod process;
mod replay;
#[cfg(test)]
mod samples;
mod serve;
mod settings;
mod simulate;
mod telemetry;
mod terminal;
mod time;
mod verbs;

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;

use cli::{Cli, Verb};

/// Folds and calls allocate and drop many small values on many threads. jemalloc needs less time and retains less memory than malloc.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Longest wait for databases to close at exit. A flush of the write buffers takes less.
const CLOSING: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::refuse(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report(&error.into());
            return exit::with(exit::FAILED);
        }
    };
    let ended = runtime.block_on(run(cli.verb));
    drop(runtime);
    if !serin_stream::native::wait_until_closed(CLOSING) {
        tracing::warn!("a database was not closed in time");
    }
    if let Some(error) = output::failure() {
        output::aside(format!("error: the result cannot be written to standard output: {error}"));
        return exit::with(exit::FAILED);
    }
    match ended {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            let usage = error.downcast_ref::<settings::SettingsError>().is_some();
            exit::with(if usage { exit::CONFIG } else { exit::FAILED })
        }
    }
}

async fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Up(args) => Box::pin(serve::run(serve::Role::ALL, &args, false)).await,
        Verb::Router(args) => Box::pin(serve::run(&[serve::Role::Router], &args.serve, args.replace)).await,
        Verb::Aggregator(args) => Box::pin(serve::run(&[serve::Role::Aggregator], &args, false)).await,
        Verb::Analyzer(args) => Box::pin(serve::run(&[serve::Role::Analyzer], &args, false)).await,
        Verb::Controller(args) => Box::pin(serve::run(&[serve::Role::Controller], &args, false)).await,
        Verb::Connector(args) => Box::pin(serve::run(&[serve::Role::Connector], &args, false)).await,
        Verb::Demo(args) => Box::pin(demo::run(&args)).await,
        Verb::ModelServer(args) => model_server::run(&args).await,
        Verb::Load(args) => model_server::load(&args).await,
        Verb::Apply(args) => verbs::apply(&args).await,
        Verb::Lint(args) => verbs::lint(&args),
        Verb::Diff(args) => verbs::diff(&args).await,
        Verb::Plan(args) => verbs::plan(&args),
        Verb::Simulate(args) => verbs::simulate(&args),
        Verb::Replay(args) => verbs::replay(&args),
        Verb::List(args) => verbs::list(&args).await,
        Verb::History(args) => verbs::history(&args).await,
        Verb::Events(args) => verbs::events(&args).await,
        Verb::Get(args) => verbs::get(&args).await,
        Verb::Status(args) => verbs::status(&args).await,
        Verb::Promote(args) => verbs::act(&args.act, "promote", args.full).await,
        Verb::SetWeight(args) => verbs::set_weight(&args).await,
        Verb::Approve(args) => verbs::act(&args, "approve", false).await,
        Verb::Reject(args) => verbs::act(&args, "reject", false).await,
        Verb::Freeze(args) => verbs::freeze(&args).await,
        Verb::Unfreeze(args) => verbs::unfreeze(&args).await,
        Verb::Undo(args) => verbs::act(&args, "undo", false).await,
        Verb::Retry(args) => verbs::retry(&args).await,
        Verb::Pause(args) => verbs::act(&args, "pause", false).await,
        Verb::Resume(args) => verbs::act(&args, "resume", false).await,
        Verb::Abort(args) => verbs::act(&args, "abort", false).await,
        Verb::Stop(args) => verbs::stop_all(&args).await,
        Verb::Switch(args) => verbs::switch(&args).await,
        Verb::Explain(args) => verbs::explain(&args).await,
        Verb::Report(args) => verbs::report(&args).await,
        Verb::Mark(args) => verbs::mark(&args).await,
        Verb::Fleet(args) => verbs::fleet(&args).await,
        Verb::Profile(args) => verbs::profile(&args).await,
        Verb::Export(args) => verbs::export(&args),
        Verb::Compare(args) => verbs::compare(&args),
        Verb::Judge(args) => judge::run(&args),
        Verb::Tail(args) => verbs::tail(&args),
        Verb::Topology(args) => verbs::topology(&args.action),
        Verb::Doctor(args) => Box::pin(verbs::doctor(&args)).await,
        Verb::Schema(args) => verbs::schema(args),
        Verb::Completion(args) => {
            cli::completion(args);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Man(args) => cli::man(&args),
    }
}

/// Prints an error and its causes on standard error.
fn report(error: &anyhow::Error) {
    output::aside(format!("error: {error}"));
    for cause in error.chain().skip(1) {
        output::aside(format!("  because: {cause}"));
    }
}
