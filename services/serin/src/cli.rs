//! The command line: every verb, its arguments and its help.

mod foresight;
mod other;
mod report;
mod shell;
mod steps;
mod trial;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

pub(crate) use foresight::{Plan, Replay, Simulate};
pub(crate) use other::refuse;
pub(crate) use report::{Fleet, Report, ReportOutput};
pub(crate) use shell::{Completion, Man, completion, man};
pub(crate) use steps::{Freeze, Mark, Retry, SetWeight, Unfreeze, Was};
pub(crate) use trial::{Load, ModelServer, Switch, Wanted};

/// Canary analysis and progressive delivery for ML models, driven by events on Kafka.
///
/// `serin demo` shows it on recorded flights. `serin up` runs it in one process, without a broker.
#[derive(Debug, Parser)]
#[command(name = "serin", version, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The verbs of `serin`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the whole pipeline in this process: router, aggregator, analyzer, controller
    ///
    /// Without a configuration file, it keeps its log and state in ./serin-data and needs no broker. Send model traffic
    /// to the router. Verbs about rollouts, such as `serin get`, use the controller's API. With destinations in the section
    /// `connector` of the configuration, a connector runs too.
    #[command(
        after_help = "Examples:\n  serin up\n  serin up --config serin.yaml\n  SERIN__ROUTER__LISTEN=0.0.0.0:8000 serin up\n  serin up --set data_dir=/var/lib/serin --set topology.partitions=8"
    )]
    Up(Serve),
    /// Run one router on Kafka: it splits the traffic and reports every call
    #[command(
        after_help = "Example:\n  serin router --config serin.yaml\n  serin router --set log.kind=kafka --set log.kafka.brokers=broker:9092 --set router.name=router-1\n  serin router --config serin.yaml --replace"
    )]
    Router(RouterArgs),
    /// Run one aggregator on Kafka: it folds events into windows and relays events of other producers
    #[command(after_help = "Example:\n  serin aggregator --config serin.yaml")]
    Aggregator(Serve),
    /// Run one analyzer on Kafka: it turns windows into verdicts
    #[command(after_help = "Example:\n  serin analyzer --config serin.yaml")]
    Analyzer(Serve),
    /// Run one controller on Kafka: it turns verdicts into weights and serves the API
    #[command(after_help = "Example:\n  serin controller --config serin.yaml")]
    Controller(Serve),
    /// Run one connector on Kafka: it sends events of rollouts to chat and other systems
    ///
    /// Destinations are in the section `connector` of the configuration (docs/connector.md). Nothing waits for the connector: without it,
    /// rollouts go on, and what happened meanwhile is sent after its next start.
    #[command(after_help = "Example:\n  serin connector --config serin.yaml")]
    Connector(Serve),
    /// Show one promotion and two rollbacks on recorded flights
    #[command(
        after_help = "Examples:\n  serin demo\n  serin demo --output json --seed 7\n  serin demo --kafka localhost:9092"
    )]
    Demo(Demo),
    /// Run a small model server, for a first rollout
    ///
    /// The server speaks the Open Inference Protocol V2 and predicts from the `amount` of a payment how likely it is fraud. Run
    /// one process per version. A bad version gives wrong answers (--wrong), fails (--fail) or is slow (--latency).
    #[command(
        after_help = "Examples:\n  serin model-server\n  serin model-server --version 2 --listen 127.0.0.1:9002\n  serin model-server --version 3 --listen 127.0.0.1:9003 --wrong 20%"
    )]
    ModelServer(ModelServer),
    /// Send calls for the model of `serin model-server` through a router, and the labels of the answers
    ///
    /// Prints every five seconds how many calls each version answered. Calls continue while the router does not know the model yet.
    #[command(
        after_help = "Exit status: 0, or 2 when no call was answered.\n\nExamples:\n  serin load fraud\n  serin load fraud --rate 200/s --for 1m --label-after 10s"
    )]
    Load(Load),
    /// Start a rollout from a file
    #[command(
        after_help = "Example:\n  serin apply -f rollout.yaml\n  serin apply -f rollout.yaml --wait && echo promoted"
    )]
    Apply(Apply),
    /// Check a rollout file and list all its problems, each with its line, its cause and the fix
    #[command(
        after_help = "Exit status: 0 no errors, 1 errors found, 2 the file cannot be read.\n\nExample:\n  serin lint -f rollout.yaml --traffic 10000/min"
    )]
    Lint(Lint),
    /// Compare a rollout file with the rollout of its model
    #[command(
        after_help = "Exit status: 0 no difference, 1 they differ, 2 the file has errors or there is no such rollout.\n\nExamples:\n  serin diff -f rollout.yaml\n  serin diff -f rollout.yaml --rollout 01a22e39"
    )]
    Diff(Diff),
    /// Forecast which regressions a rollout can detect, how long it takes and what it costs
    #[command(
        after_help = "The forecast is computed from formulas, without simulation; `serin simulate` plays the same rollout many times. Costs\nneed `replica` of the versions and `plan.costPerBadOutcome` in the rollout file.\n\nExamples:\n  serin plan -f rollout.yaml --traffic 10000/min\n  serin plan -f rollout.yaml --traffic 50/s --base failed=0.5% --regression 'failed 0.5%->1%'\n  serin plan -f rollout.yaml --traffic 10000/min --output json"
    )]
    Plan(Plan),
    /// Simulate a rollout many times on random traffic: how often and when it promotes, rolls back or holds
    #[command(
        after_help = "The analyzer's fold and the planner are the real ones. The clock is virtual and the counts of the windows are random.\n\nA regression: METRIC FROM->TO or METRIC xFACTOR, then any of: at SPAN, in DIMENSION=VALUE, tail SHARE\n  'failed 1%->2%'                         failures double\n  'latency_p99 x1.5 tail 3%'              3 % of the answers are slow\n  'failed 1%->3% at 30m in origin=LGA'    starts after 30 minutes, in one segment only\n\nExit status: 0, or 1 when a scenario's expectation is not met.\n\nExamples:\n  serin simulate -f rollout.yaml --traffic 10000/min --runs 2000\n  serin simulate -f rollout.yaml --traffic 10000/min --regression 'failed 1%->2%' --runs 2000\n  serin simulate --list\n  serin simulate --scenario 8.2-error-1-to-2 --output json"
    )]
    Simulate(Simulate),
    /// Judge a recorded log again: by the recorded policy, which must give the same bytes, or by another policy
    #[command(
        after_help = "The weights stay as recorded: a replay shows when another policy would have ended each step, not what other weights\nwould have shown. Exit status: 0, or 1 when a recomputed verdict differs.\n\nExamples:\n  serin replay --from serin-data\n  serin replay --config serin.yaml\n  serin replay --from serin-data -f stricter.yaml\n  serin replay --from serin-data -f new-metrics.yaml --events"
    )]
    Replay(Replay),
    /// List rollouts
    #[command(after_help = "Examples:\n  serin list\n  serin list --output json --api http://controller:8100")]
    List(Remote),
    /// List all rollouts of a model, with how long each took and how it ended
    #[command(after_help = "Example:\n  serin history flights")]
    History(History),
    /// Print the events of a rollout, each with its time, its cause and its actor
    #[command(after_help = "Examples:\n  serin events flights\n  serin events flights --follow --output json")]
    Events(Events),
    /// Show one rollout: its ramp, both arms and the result of each metric
    #[command(after_help = "Examples:\n  serin get flights\n  serin get flights --watch")]
    Get(Get),
    /// Return the state of a rollout as exit status, or wait for its end
    #[command(
        after_help = "Exit status: 0 promoted and used by routers, 1 still running (without --wait), timed out or not applied by routers yet, 2 unknown, 3 rolled back, 4 aborted or superseded.\n\nExamples:\n  serin status flights\n  serin status flights --wait --timeout 2h && deploy"
    )]
    Status(Status),
    /// Promote to the next step, or to the end with --full
    #[command(
        after_help = "A manual promotion needs no evidence. The audit log records the actor and the reason. A rollout with `mode: observe` cannot be promoted.\n\nExit status: 0 routers use it, 1 decided but not applied yet, 2 refused.\n\nExamples:\n  serin promote flights --reason 'seen enough'\n  serin promote flights --full"
    )]
    Promote(Promote),
    /// Give the canary another weight, up or down
    ///
    /// The weight becomes a step of its own, with the checks and the bake of the step of the file at or below it. Its evidence starts
    /// over, so no check counts as passed. The heavier steps of the file follow. The weight, the person and the reason stay in `get`,
    /// `explain` and the audit log.
    #[command(
        after_help = "Exit status: 0 routers use it, 1 decided but not applied yet, 2 refused.\n\nExamples:\n  serin set-weight flights 2% --reason 'the queue of the GPU grows'\n  serin set-weight flights 60% --force --reason 'load test, agreed with the team'"
    )]
    SetWeight(SetWeight),
    /// Approve the step that waits for it
    ///
    /// A step of the rollout file with `approve` waits when its evidence is complete. A rollback does not wait.
    #[command(
        after_help = "Exit status: 0 routers use the next step, 1 decided but not applied yet, 2 refused: nothing waits for an approval.\n\nExample:\n  serin approve flights --reason 'seen by the risk team'"
    )]
    Approve(Act),
    /// Reject the step that waits for an approval: the rollout ends and all traffic goes back to stable
    #[command(after_help = "Example:\n  serin reject flights --reason 'the product team wants another version'")]
    Reject(Act),
    /// Take no steps of a model, of models that match a pattern, or of all; without a name, list the freezes
    ///
    /// Rollouts keep their weights and can still be rolled back, aborted and undone. A new rollout warms up and then waits.
    #[command(
        after_help = "Exit status: 0 every partition has it, 1 not confirmed yet, 2 refused.\n\nExamples:\n  serin freeze flights --reason 'incident 4711'\n  serin freeze 'team-a-*' --for 12h --reason 'release night'\n  serin freeze --all --for 3d --reason holidays\n  serin freeze"
    )]
    Freeze(Freeze),
    /// End a freeze
    #[command(after_help = "Examples:\n  serin unfreeze flights\n  serin unfreeze --all --reason 'holidays are over'")]
    Unfreeze(Unfreeze),
    /// Go back to the version that served before, without steps
    ///
    /// A rollout that has not ended is ended: its stable version serves. After a promotion, the previous version serves again. Its
    /// servers must still run; `promotion.keepPrevious` in the rollout file (24 h) says for how long.
    #[command(
        visible_alias = "rollback",
        after_help = "Exit status: 0 routers use it, 1 decided but not applied yet, 2 refused.\n\nExample:\n  serin undo flights --reason 'complaints from the call center'"
    )]
    Undo(Act),
    /// Start an ended rollout again, from its first step or a later one
    ///
    /// The new rollout has its own id and starts with warm-up. `get` keeps showing how the attempt before ended. If the evidence ended it,
    /// a reason is required.
    #[command(
        after_help = "Exit status: 0 started, 1 not applied yet, 2 refused.\n\nExamples:\n  serin retry flights\n  serin retry 01a22e39 --from-step 2 --reason 'the label job is fixed'"
    )]
    Retry(Retry),
    /// Pause a rollout at its current weight
    #[command(
        after_help = "The clock of the step stops and the canary keeps its share. Evidence against the canary still rolls it back.\n\nExample:\n  serin pause flights --reason 'the label job is late'"
    )]
    Pause(Act),
    /// Resume a paused rollout: the clock of the step runs again
    #[command(after_help = "Example:\n  serin resume flights")]
    Resume(Act),
    /// End a rollout: all traffic goes back to stable
    #[command(after_help = "Example:\n  serin abort flights --reason 'wrong model file'")]
    Abort(Act),
    /// Emergency: send all traffic to stable
    #[command(
        after_help = "If the controller or the log is unavailable, use `serin switch on`: it asks the routers directly.\n\nExample:\n  serin stop --all --reason 'incident 4711'"
    )]
    Stop(Stop),
    /// Emergency, without the controller: switch routers directly to send every call to stable
    ///
    /// The verb uses the admin port of each router, which needs neither the controller nor the log. The switch survives a
    /// restart of the router. Rollouts keep their state and continue when the switch is off again.
    #[command(
        after_help = "Exit status: 0 every router is switched, 1 some routers are not (each with its cause), 2 no router could be asked.\n\nExamples:\n  serin switch on\n  serin switch on --routers http://router-0:8001,http://router-1:8001\n  serin switch\n  serin switch off"
    )]
    Switch(Switch),
    /// Explain a rollout's last verdict with all its evidence
    #[command(
        after_help = "Examples:\n  serin explain flights\n  serin explain flights --metric latency_p99 --output json\n  serin explain flights --examples 3\n  serin explain flights --contrasts\n  serin explain flights --over-time --metric latency_p99"
    )]
    Explain(Explain),
    /// Write the report of a rollout: who, what, when, every verdict over time, approvals, overrides, the end and its evidence
    ///
    /// Text is Markdown, `html` is one page without a script and without other files. The report has a fingerprint of all audit events;
    /// --verify compares a report with the log later. docs/report.md describes what that proves.
    #[command(
        after_help = "Exit status: 0; of --verify: 0 the log has the same events, 1 they differ, 2 it is not possible to tell.\n\nExamples:\n  serin report flights > report.md\n  serin report 01a22e39 --output html > report.html\n  serin report flights --output json > report.json\n  serin report --verify report.json\n  serin report --verify report.json --log --config serin.yaml"
    )]
    Report(Report),
    /// Record whether the version of an ended rollout was good or bad, as it turned out
    ///
    /// The mark changes no traffic. `serin fleet` counts false alarms and missed regressions by it.
    #[command(
        after_help = "Exit status: 0 recorded, 1 not confirmed yet, 2 refused: the rollout has not ended, or is not one of the model's last 32.\n\nExamples:\n  serin mark flights --was good --reason 'the labels of that day were wrong'\n  serin mark 01a22e39 --was bad --reason 'complaints a week later'"
    )]
    Mark(Mark),
    /// Show all rollouts of a time in numbers: how many, what was caught, who stepped in, how long promotions took
    #[command(after_help = "Examples:\n  serin fleet\n  serin fleet --since 90d --output json")]
    Fleet(Fleet),
    /// Show the distribution of each output, feature and latency per version
    ///
    /// It is computed from the windows on the log. The JSON has histograms with the bounds and counts of their bins, and quantiles;
    /// docs/profiles.md describes it. An output has a distribution if a metric of the rollout reads it; the others are listed with
    /// the line to add.
    #[command(
        after_help = "Examples:\n  serin profile flights\n  serin profile flights --from 2026-11-30T14:00:00Z --segments --output json\n  serin profile flights --from 1h --per-window --output json"
    )]
    Profile(Profile),
    /// Export records for other tools
    #[command(after_help = "Example:\n  serin export exposures --config serin.yaml > exposures.csv")]
    Export(Export),
    /// Compare two files of predictions for the same inputs, pair by pair
    ///
    /// A is the version that serves now, B the version that may replace it. Both files contain one row per input, as CSV with
    /// a header, as JSON lines or as a JSON array (.jsonl, .ndjson, .json). Rows are joined by id. What is judged depends on
    /// the data. For classes with --label: which version is wrong more often (McNemar's test).
    /// For numbers with --label: the squared error if labels are 0 or 1 (the Brier score), otherwise the absolute error.
    /// For numbers without labels: the mean, if --margin sets by how much it may differ.
    /// In all cases: the share of answers that differ, which is judged if --max-differ is given.
    #[command(
        after_help = "The first of these that has a limit is also judged per value of each --segment column. Holm's correction keeps the chance of any false \"FAIL\" at --alpha. The test is for one look at complete files: do not repeat it on growing files.\n\nExit status: 0 B may replace A, 1 not known yet, 2 not possible (all bad rows are listed), 3 B is worse beyond the margin.\n\nExamples:\n  serin compare v1.csv v2.csv --label late --margin 0.01 --segment origin,carrier\n  serin compare a.jsonl b.jsonl --id request_id --prediction probability --label late --margin 0.002\n  serin compare a.csv b.csv --tolerance 0.001 --max-differ 0.01 && echo 'the same model'"
    )]
    Compare(Compare),
    /// Report what a fixed-sample canary check would have decided about recorded values
    ///
    /// The file is a request of Kayenta's remote judge, which is judged as Kayenta judges it, or JSON with `metrics`: each has a name, a
    /// margin (`absolute`, `relative` or both), a `direction` and the lists of values `control` and `canary`. Such checks are valid for one look, and
    /// Serin decides nothing by them: use this to compare.
    #[command(
        after_help = "Exit status: 0 pass or promote, 1 marginal or hold, 2 the file cannot be judged, 3 fail or rollback.\n\nExamples:\n  serin judge -f request.json\n  serin judge -f values.json --output json"
    )]
    Judge(Judge),
    /// Print the records of a topic, decoded, as they arrive
    #[command(
        after_help = "Examples:\n  serin tail verdicts --config serin.yaml\n  serin tail events --from-beginning --limit 10 --output json"
    )]
    Tail(Tail),
    /// Create the topics, or compare them with the configuration
    #[command(
        after_help = "Examples:\n  serin topology ensure --config serin.yaml\n  serin topology check --config serin.yaml && echo ready"
    )]
    Topology(Topology),
    /// Check the installation: configuration, disk, log, topics, services, routers, rollouts
    ///
    /// Each problem is printed with the command or the setting that repairs it. A router that has not reported for an hour is listed as
    /// gone, which is not a problem while another one reports.
    #[command(
        after_help = "Exit status: 0 no problem, 1 problems found, 2 the checks could not run, 64 the configuration cannot be used.\n\nExamples:\n  serin doctor\n  serin doctor --config serin.yaml --services http://router-0:9464,http://controller-0:9464"
    )]
    Doctor(Doctor),
    /// Print the JSON Schema of the rollout file, or of the configuration
    #[command(
        after_help = "For editors and CI. Example:\n  serin schema > rollout.schema.json\n  serin schema --config > serin.schema.json"
    )]
    Schema(Schema),
    /// Print the completion script of a shell
    #[command(
        after_help = "Examples:\n  serin completion bash > /etc/bash_completion.d/serin\n  serin completion zsh > ~/.zfunc/_serin\n  serin completion fish > ~/.config/fish/completions/serin.fish"
    )]
    Completion(Completion),
    /// Write the manual pages, one per verb, into a directory
    #[command(after_help = "Example:\n  serin man --to /usr/local/share/man/man1")]
    Man(Man),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Text, for people.
    #[default]
    Text,
    /// One JSON document (or one per line, for streams), for scripts.
    Json,
}

/// Options of the commands that run services.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Serve {
    /// Configuration file (YAML). Every setting can also be an environment variable, such as `SERIN__ROUTER__LISTEN`
    #[arg(long, short, value_name = "FILE", env = "SERIN_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, such as log.kafka.brokers=host:9092. It takes precedence over file and environment
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,
    /// Print the whole configuration with its defaults, then exit
    #[arg(long)]
    pub(crate) dump_config: bool,
}

/// Options of `serin schema`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Schema {
    /// Print the schema of the configuration (docs/settings.md) instead of the rollout file's
    #[arg(long)]
    pub(crate) config: bool,
}

/// Options of `serin router`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RouterArgs {
    /// Take over the ports of the router that runs with the same `data_dir`. That router exits when this one is ready
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) serve: Serve,
}

/// Where the controller's API is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Connection {
    /// URL of the controller's API
    #[arg(long, value_name = "URL", env = "SERIN_API", default_value = "http://127.0.0.1:8100")]
    pub(crate) api: String,
    /// Token of the API, if it requires one (preferably from the environment, not on the command line)
    #[arg(long, value_name = "TOKEN", env = "SERIN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// PEM file with the CA that signed the API's certificate (https://). Default: the CAs that the system trusts
    #[arg(long, value_name = "FILE", env = "SERIN_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// Where the controller's API is, and how its answer is printed.
#[derive(Clone, Debug, Args)]
pub(crate) struct Remote {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// A rollout file and what to do with it.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The rollout file; - for standard input
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Wait for the rollout's end and exit as `serin status` does
    #[arg(long)]
    pub(crate) wait: bool,
    /// Stop waiting after this time. Requests are retried while the controller is unavailable
    #[arg(long, value_name = "SPAN", default_value = "24h", requires = "wait")]
    pub(crate) timeout: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// A rollout file to check.
#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// The rollout file; - for standard input
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Request rate of the model, such as 10000/min: warns about margins that this traffic cannot resolve
    #[arg(long, value_name = "RATE")]
    pub(crate) traffic: Option<String>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// A rollout file to compare with a rollout.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The rollout file; - for standard input
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Rollout id, or the start of the id. Default: the current rollout of the file's model
    #[arg(long, value_name = "ID")]
    pub(crate) rollout: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// A model whose rollouts to list.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// Model name
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// A rollout whose events to print.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Model name, rollout id, or the start of the id
    pub(crate) rollout: String,
    /// Print new events as they happen, until the rollout ends
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// A rollout to show.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Model name, rollout id, or the start of the id
    pub(crate) rollout: String,
    /// Refresh whenever the rollout changes, until it ends
    #[arg(long, short)]
    pub(crate) watch: bool,
    /// Stop watching after this time. Requests are retried while the controller is unavailable
    #[arg(long, value_name = "SPAN", default_value = "24h", requires = "watch")]
    pub(crate) timeout: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// A rollout to wait for.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Model name, rollout id, or the start of the id
    pub(crate) rollout: String,
    /// Wait for the rollout's end
    #[arg(long)]
    pub(crate) wait: bool,
    /// Stop waiting after this time. Requests are retried while the controller is unavailable
    #[arg(long, value_name = "SPAN", default_value = "24h", requires = "wait")]
    pub(crate) timeout: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// A rollout to act on.
#[derive(Debug, Args)]
pub(crate) struct Act {
    /// Model name, rollout id, or the start of the id
    pub(crate) rollout: String,
    /// The reason, for the audit log
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// A rollout to promote.
#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// Promote to 100 % immediately
    #[arg(long)]
    pub(crate) full: bool,
    #[command(flatten)]
    pub(crate) act: Act,
}

/// What to stop.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// End every rollout of every model now
    #[arg(long, required = true)]
    pub(crate) all: bool,
    /// The reason, for the audit log
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// A rollout to explain.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Model name, rollout id, or the start of the id
    pub(crate) rollout: String,
    /// Show only this metric
    #[arg(long)]
    pub(crate) metric: Option<String>,
    /// Show this many captured pairs of a live and a mirrored answer instead, those that show a finding first (`capture` in the
    /// rollout file)
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10")]
    pub(crate) examples: Option<usize>,
    /// Search for the values of one or two dimensions in which the arms differ most, instead. The result is a lead, not a verdict
    #[arg(long, conflicts_with = "examples")]
    pub(crate) contrasts: bool,
    /// Plot the interval of each effect over time instead: one line per verdict, at most 12 per metric
    #[arg(long, conflicts_with_all = ["examples", "contrasts"])]
    pub(crate) over_time: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// Which windows to profile.
#[derive(Debug, Args)]
pub(crate) struct Profile {
    /// Model name, rollout id, or the start of the id
    pub(crate) rollout: String,
    /// Only windows that start at this time or later: RFC 3339, or a span before now such as 2h
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Only windows that end at this time or earlier: RFC 3339, or a span before now such as 1h
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// One profile per window, instead of one over all windows
    #[arg(long)]
    pub(crate) per_window: bool,
    /// Distributions per segment value too
    #[arg(long)]
    pub(crate) segments: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// What to export.
#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(subcommand)]
    pub(crate) what: Exported,
}

/// What to export.
#[derive(Debug, Subcommand)]
#[expect(clippy::doc_markdown, reason = "this is the text of --help")]
pub(crate) enum Exported {
    /// Which version each user saw, from the events on the log: CSV, or JSON lines with --output json
    ///
    /// The columns are those of a GrowthBook experiment assignment query: user_id, timestamp, experiment_id, variation_id, and
    /// request_id, model, arm. A user may occur more than once; the earliest row counts. See docs/exposures.md.
    #[command(
        after_help = "Examples:\n  serin export exposures --config serin.yaml > exposures.csv\n  serin export exposures --model flights --from 24h --output json"
    )]
    Exposures(Exposures),
}

/// Which exposures to export.
#[derive(Debug, Args)]
pub(crate) struct Exposures {
    /// Only calls of this model
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Only calls of this rollout: its id, or the start of the id
    #[arg(long, value_name = "ID")]
    pub(crate) rollout: Option<String>,
    /// Only answers that were complete at this time or later: RFC 3339, or a span before now such as 24h
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Only answers that were complete before this time: RFC 3339, or a span before now such as 1h
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) serve: Serve,
}

/// How predictions are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Numbers if most values are numbers. Classes if all are strings, 0 or 1, or, like the labels, few distinct whole numbers.
    #[default]
    Auto,
    /// Numbers: scores, probabilities, amounts.
    Number,
    /// Classes: two values are either equal or not.
    Class,
}

/// How the distance of a number from its label is scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Loss {
    /// The squared distance if all labels are 0 or 1 (for a probability, the Brier score), otherwise the absolute distance.
    #[default]
    Auto,
    /// The absolute distance.
    Absolute,
    /// The squared distance.
    Squared,
}

/// Two files to compare.
#[derive(Clone, Debug, Args)]
pub(crate) struct Compare {
    /// Predictions of the version that serves now
    pub(crate) a: PathBuf,
    /// Predictions of the version that may replace it
    pub(crate) b: PathBuf,
    /// Column with the id of the input
    #[arg(long, value_name = "COLUMN", default_value = "id")]
    pub(crate) id: String,
    /// Column of the prediction
    #[arg(long, value_name = "COLUMN", default_value = "prediction")]
    pub(crate) prediction: String,
    /// Column of the label (the true value), in either file or in both
    #[arg(long, value_name = "COLUMN")]
    pub(crate) label: Option<String>,
    /// Columns whose values are judged separately, comma-separated, in either file
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub(crate) segment: Vec<String>,
    /// How much worse B may be, in the unit of what is judged (0.01: one point of an error rate). Default: 0 with labels
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) margin: Option<f64>,
    /// Numbers that differ by at most this count as equal
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) tolerance: f64,
    /// Share of the answers that may differ, such as 0.05. 0 means none
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub(crate) max_differ: Option<f64>,
    /// Share of the ids that may be missing in one of the files
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, allow_negative_numbers = true)]
    pub(crate) max_missing: f64,
    /// How predictions are read
    #[arg(long, value_enum, default_value_t)]
    pub(crate) kind: Kind,
    /// Skip the checks for classes and labels that the files write in different ways
    #[arg(long)]
    pub(crate) as_written: bool,
    /// What is judged for numbers with labels
    #[arg(long, value_enum, default_value_t)]
    pub(crate) loss: Loss,
    /// Chance of a false FAIL over all lines, and of a false pass per line
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, allow_negative_numbers = true)]
    pub(crate) alpha: f64,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// What to check.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Metrics ports of the services, comma-separated. Default: telemetry.listen
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    pub(crate) services: Vec<String>,
    #[command(flatten)]
    pub(crate) serve: Serve,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// Recorded values to judge.
#[derive(Debug, Args)]
pub(crate) struct Judge {
    /// The file with the values, as JSON; - for standard input
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// A topic to print.
#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// Topic, without prefix: events, windows, verdicts, routing, audit, dead-letters ...
    pub(crate) topic: String,
    /// Start at the oldest record instead of the end
    #[arg(long)]
    pub(crate) from_beginning: bool,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Stop at the end of the topic instead of waiting for more
    #[arg(long)]
    pub(crate) until_end: bool,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) serve: Serve,
}

/// What to do with the topics.
#[derive(Debug, Args)]
pub(crate) struct Topology {
    #[command(subcommand)]
    pub(crate) action: TopologyAction,
}

/// What to do with the topics.
#[derive(Debug, Subcommand)]
pub(crate) enum TopologyAction {
    /// Create missing topics. Existing topics are not changed
    Ensure(TopologyArgs),
    /// List all differences. The exit status is 1 if there is one
    Check(TopologyArgs),
}

/// Options of the topology commands.
#[derive(Debug, Args)]
pub(crate) struct TopologyArgs {
    #[command(flatten)]
    pub(crate) serve: Serve,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// What the demo shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Three rollouts: v1 to v2 is promoted, v2 to v3 and v2 to v4 are rolled back.
    #[default]
    Main,
    /// v1 against itself, which must be promoted.
    Aa,
}

/// Options of the demo.
#[derive(Clone, Debug, Args)]
pub(crate) struct Demo {
    /// Which rollouts to show
    #[arg(long, value_enum, default_value_t)]
    pub(crate) scenario: Scenario,
    /// Seed of all random numbers in the replay
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Run on this Kafka cluster instead of the embedded log, with one process per role
    #[arg(long, value_name = "BROKERS")]
    pub(crate) kafka: Option<String>,
    /// Use a running pipeline: base URLs of router, router admin port and controller API, comma-separated
    #[arg(long, value_name = "URLS", conflicts_with = "kafka")]
    pub(crate) attach: Option<String>,
    /// Instead of replaying over HTTP, run this many rollouts of the scenario in process with a virtual clock and count how they end
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub(crate) rollouts: Option<u32>,
    /// Let each window of six hours take at least this long, to watch the run. 0 means as fast as possible
    #[arg(long, value_name = "SPAN", default_value = "0", value_parser = serin_spec::units::Duration::parse)]
    pub(crate) pace: serin_spec::units::Duration,
    /// Keep log and state in this directory instead of in a temporary one
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}
