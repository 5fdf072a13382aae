//! The command line: every verb, its arguments and its help.

mod foresight;
mod trial;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

pub(crate) use foresight::{Plan, Replay, Simulate};
pub(crate) use trial::{Load, ModelServer, Switch, Wanted};

/// Canary analysis and progressive delivery for ML models, driven by events on Kafka.
///
/// `serin demo` shows all of it on recorded flights, `serin up` runs it in one process without a broker.
#[derive(Debug, Parser)]
#[command(name = "serin", version, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Everything `serin` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the whole pipeline in this process: router, aggregator, analyzer, controller
    ///
    /// Without a configuration file it keeps its log and state in ./serin-data and needs no broker. Model traffic goes to
    /// the router, everything else of this command line to the controller's API.
    #[command(
        after_help = "Examples:\n  serin up\n  serin up --config serin.yaml\n  SERIN__ROUTER__LISTEN=0.0.0.0:8000 serin up\n  serin up --set data_dir=/var/lib/serin --set topology.partitions=8"
    )]
    Up(Serve),
    /// Run one router, on Kafka: splits the traffic, reports every call
    #[command(
        after_help = "Example:\n  serin router --config serin.yaml\n  serin router --set log.kind=kafka --set log.kafka.brokers=broker:9092 --set router.name=router-1\n  serin router --config serin.yaml --replace"
    )]
    Router(RouterArgs),
    /// Run one aggregator, on Kafka: folds events into windows, relays foreign events
    #[command(after_help = "Example:\n  serin aggregator --config serin.yaml")]
    Aggregator(Serve),
    /// Run one analyzer, on Kafka: turns windows into verdicts
    #[command(after_help = "Example:\n  serin analyzer --config serin.yaml")]
    Analyzer(Serve),
    /// Run one controller, on Kafka: turns verdicts into weights, serves the API
    #[command(after_help = "Example:\n  serin controller --config serin.yaml")]
    Controller(Serve),
    /// Show the main job on recorded flights: one promotion, two rollbacks
    #[command(
        after_help = "Examples:\n  serin demo\n  serin demo --output json --seed 7\n  serin demo --kafka localhost:9092"
    )]
    Demo(Demo),
    /// Run a small model server, for a first rollout and for trying
    ///
    /// It speaks the Open Inference Protocol V2 and says how likely a payment is fraud, from its `amount`. Each version is a
    /// process of its own; a bad one gives wrong answers (--wrong), fails (--fail) or is slow (--latency).
    #[command(
        after_help = "Examples:\n  serin model-server\n  serin model-server --version 2 --listen 127.0.0.1:9002\n  serin model-server --version 3 --listen 127.0.0.1:9003 --wrong 20%"
    )]
    ModelServer(ModelServer),
    /// Send calls for that model through a router, and the labels of the answers
    ///
    /// Prints every five seconds who answered in them. A router that does not know the model yet is asked again with the next call.
    #[command(
        after_help = "Exit status: 0, or 2 when no call was answered.\n\nExamples:\n  serin load fraud\n  serin load fraud --rate 200/s --for 1m --label-after 10s"
    )]
    Load(Load),
    /// Start a rollout from a file
    #[command(
        after_help = "Example:\n  serin apply -f rollout.yaml\n  serin apply -f rollout.yaml --wait && echo promoted"
    )]
    Apply(Apply),
    /// Check a rollout file: every problem at once, with line, cause and way out
    #[command(
        after_help = "Exit status: 0 no errors, 1 errors found, 2 the file cannot be read.\n\nExample:\n  serin lint -f rollout.yaml --traffic 10000/min"
    )]
    Lint(Lint),
    /// Tell before a rollout what it can see, how long it takes and what it costs
    #[command(
        after_help = "Forecasts from formulas, in an instant; `serin simulate` plays the same rollout many times. What it says of costs needs\n`replica` of the versions and `plan.costPerBadOutcome` in the rollout file.\n\nExamples:\n  serin plan -f rollout.yaml --traffic 10000/min\n  serin plan -f rollout.yaml --traffic 50/s --base failed=0.5% --regression 'failed 0.5%->1%'\n  serin plan -f rollout.yaml --traffic 10000/min --output json"
    )]
    Plan(Plan),
    /// Play a rollout many times on drawn traffic: how often and when it promotes, rolls back or holds
    #[command(
        after_help = "The analyzer's fold and the planner are the real ones, the clock is virtual, the windows' counts are drawn.\n\nA regression: METRIC FROM->TO or METRIC xFACTOR, then any of: at SPAN, in DIMENSION=VALUE, tail SHARE\n  'failed 1%->2%'                         failures double\n  'latency_p99 x1.5 tail 3%'              a slow path of 3 % of the answers\n  'failed 1%->3% at 30m in origin=LGA'      later, and in one segment\n\nExit status: 0, or 1 when a scenario's expectation is not met.\n\nExamples:\n  serin simulate -f rollout.yaml --traffic 10000/min --runs 2000\n  serin simulate -f rollout.yaml --traffic 10000/min --regression 'failed 1%->2%' --runs 2000\n  serin simulate --list\n  serin simulate --scenario 8.2-error-1-to-2 --output json"
    )]
    Simulate(Simulate),
    /// Judge a recorded log again: by its own policy to the same bytes, or by another one
    #[command(
        after_help = "Weights are those of the record: a replay tells when another policy would have ended each step, not what other\nweights would have shown. Exit status: 0, or 1 when a recomputed verdict differs.\n\nExamples:\n  serin replay --from serin-data\n  serin replay --config serin.yaml\n  serin replay --from serin-data -f stricter.yaml\n  serin replay --from serin-data -f new-metrics.yaml --events"
    )]
    Replay(Replay),
    /// List rollouts
    #[command(after_help = "Examples:\n  serin list\n  serin list --output json --api http://controller:8100")]
    List(Remote),
    /// Show one rollout: ramp, both arms, what each metric says
    #[command(after_help = "Examples:\n  serin get flights\n  serin get flights --watch")]
    Get(Get),
    /// Wait for a rollout's end, or tell its state, by exit status
    #[command(
        after_help = "Exit status: 0 promoted and used by routers, 1 still running (without --wait), timed out or not applied by routers yet, 2 not known, 3 rolled back, 4 aborted or superseded.\n\nExamples:\n  serin status flights\n  serin status flights --wait --timeout 2h && deploy"
    )]
    Status(Status),
    /// Go to the next step, or with --full to the end
    #[command(
        after_help = "Promotion by hand needs no evidence; the audit log names who asked and why. What is only observed (mode: observe) cannot be promoted.\n\nExit status: 0 routers use it, 1 decided and not applied yet, 2 refused.\n\nExamples:\n  serin promote flights --reason 'seen enough'\n  serin promote flights --full"
    )]
    Promote(Promote),
    /// Stop the clock at the present weight
    #[command(
        after_help = "The canary keeps its share. Evidence against it still rolls it back.\n\nExample:\n  serin pause flights --reason 'the label job is late'"
    )]
    Pause(Act),
    /// Let the clock run again
    #[command(after_help = "Example:\n  serin resume flights")]
    Resume(Act),
    /// End a rollout: all traffic back to stable
    #[command(after_help = "Example:\n  serin abort flights --reason 'wrong model file'")]
    Abort(Act),
    /// Emergency: send traffic to stable
    #[command(
        after_help = "Where the controller or the log is away, `serin switch on` does it at the routers.\n\nExample:\n  serin stop --all --reason 'incident 4711'"
    )]
    Stop(Stop),
    /// Emergency, without the controller: every call to stable, at the routers
    ///
    /// Asks the admin port of each router, which needs no log for it. The switch outlives a restart of the router; rollouts stay as they are, and go on
    /// when it is off again.
    #[command(
        after_help = "Exit status: 0 every router does it, 1 not all of them do (each says why), 2 it could not be tried.\n\nExamples:\n  serin switch on\n  serin switch on --routers http://router-0:8001,http://router-1:8001\n  serin switch\n  serin switch off"
    )]
    Switch(Switch),
    /// Say why: the evidence behind a rollout's last verdict
    #[command(
        after_help = "Examples:\n  serin explain flights\n  serin explain flights --metric latency_p99 --output json\n  serin explain flights --examples 3"
    )]
    Explain(Explain),
    /// Compare two files of predictions for the same inputs, pair by pair
    ///
    /// A is what serves now, B what may replace it. Both files hold one row per input, CSV with a header or JSON lines or a
    /// JSON array (.jsonl, .ndjson, .json), and are joined by id. What is judged depends on what there is:
    /// classes and --label: who is wrong more often (McNemar's test);
    /// numbers and --label: the squared error where labels are 0 or 1 (the Brier score), else the absolute error;
    /// numbers without labels: the mean, if a --margin says by how much it may differ;
    /// always: the share of answers that differ, judged if --max-differ is given.
    #[command(
        after_help = "The first of these that has a limit is also judged per value of each --segment column; Holm's correction keeps the chance of any false \"FAIL\" at --alpha. One look at complete files: do not run it again and again on growing ones.\n\nExit status: 0 B may replace A, 1 not known yet, 2 not possible (bad rows are listed, all at once), 3 B is worse beyond the margin.\n\nExamples:\n  serin compare v1.csv v2.csv --label late --margin 0.01 --segment origin,carrier\n  serin compare a.jsonl b.jsonl --id request_id --prediction probability --label late --margin 0.002\n  serin compare a.csv b.csv --tolerance 0.001 --max-differ 0.01 && echo 'the same model'"
    )]
    Compare(Compare),
    /// Print a topic's records, decoded, as they come
    #[command(
        after_help = "Examples:\n  serin tail verdicts --config serin.yaml\n  serin tail events --from-beginning --limit 10 --output json"
    )]
    Tail(Tail),
    /// Create the topics, or compare them with what they should be
    #[command(
        after_help = "Examples:\n  serin topology ensure --config serin.yaml\n  serin topology check --config serin.yaml && echo ready"
    )]
    Topology(Topology),
    /// Print the JSON Schema of the rollout file, or of the configuration
    #[command(
        after_help = "For editors and CI. Example:\n  serin schema > rollout.schema.json\n  serin schema --config > serin.schema.json"
    )]
    Schema(Schema),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON document (or one per line, for streams), for scripts.
    Json,
}

/// Options of the commands that run services.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Serve {
    /// Configuration file (YAML). Every setting can also come from the environment: `SERIN__ROUTER__LISTEN`
    #[arg(long, short, value_name = "FILE", env = "SERIN_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, such as log.kafka.brokers=host:9092; wins over file and environment
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,
    /// Print the whole configuration with its defaults, and stop
    #[arg(long)]
    pub(crate) dump_config: bool,
}

/// Options of `serin schema`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Schema {
    /// The schema of the configuration (docs/settings.md) instead of the rollout file's
    #[arg(long)]
    pub(crate) config: bool,
}

/// Options of `serin router`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RouterArgs {
    /// Take over the ports of the router that runs with the same `data_dir`; it ends when this one is ready
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) serve: Serve,
}

/// Where the controller's API is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Remote {
    /// The controller's API
    #[arg(long, value_name = "URL", env = "SERIN_API", default_value = "http://127.0.0.1:8100")]
    pub(crate) api: String,
    /// Token of the API, if it wants one (better in the environment than on the command line)
    #[arg(long, value_name = "TOKEN", env = "SERIN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// PEM file with the authority that signed the API's certificate (https://); left out: what the system trusts
    #[arg(long, value_name = "FILE", env = "SERIN_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// How to print
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
    /// Give up waiting after this long; a controller that is away meanwhile is asked again
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
    /// Requests of the model, such as 10000/min: tells which margins the traffic can resolve
    #[arg(long, value_name = "RATE")]
    pub(crate) traffic: Option<String>,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// A rollout to show.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Model name, rollout id, or how the id begins
    pub(crate) rollout: String,
    /// Show it again whenever it changes, until it ends
    #[arg(long, short)]
    pub(crate) watch: bool,
    /// Give up watching after this long; a controller that is away meanwhile is asked again
    #[arg(long, value_name = "SPAN", default_value = "24h", requires = "watch")]
    pub(crate) timeout: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// A rollout to wait for.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Model name, rollout id, or how the id begins
    pub(crate) rollout: String,
    /// Wait for its end
    #[arg(long)]
    pub(crate) wait: bool,
    /// Give up waiting after this long; a controller that is away meanwhile is asked again
    #[arg(long, value_name = "SPAN", default_value = "24h", requires = "wait")]
    pub(crate) timeout: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// A rollout to act on.
#[derive(Debug, Args)]
pub(crate) struct Act {
    /// Model name, rollout id, or how the id begins
    pub(crate) rollout: String,
    /// Why; it stands in the audit log
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// A rollout to promote.
#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// All the way, at once
    #[arg(long)]
    pub(crate) full: bool,
    #[command(flatten)]
    pub(crate) act: Act,
}

/// What to stop.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Every rollout of every model, now
    #[arg(long, required = true)]
    pub(crate) all: bool,
    /// Why; it stands in the audit log
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// A rollout to explain.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Model name, rollout id, or how the id begins
    pub(crate) rollout: String,
    /// Only this metric
    #[arg(long)]
    pub(crate) metric: Option<String>,
    /// Show so many pairs of a live and a mirrored answer instead (`capture` in the rollout file)
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10", conflicts_with = "metric")]
    pub(crate) examples: Option<usize>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// How predictions are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Numbers if most of them are; classes if all are texts, 0 or 1, or, as the labels, few whole numbers.
    #[default]
    Auto,
    /// Numbers: scores, probabilities, amounts.
    Number,
    /// Classes: only equal or not.
    Class,
}

/// What a number's distance from its label costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Loss {
    /// Its square where all labels are 0 or 1 (of a probability: the Brier score), else the distance itself.
    #[default]
    Auto,
    /// The distance itself.
    Absolute,
    /// Its square.
    Squared,
}

/// Two files to compare.
#[derive(Clone, Debug, Args)]
pub(crate) struct Compare {
    /// Predictions of the version that serves now
    pub(crate) a: PathBuf,
    /// Predictions of the version that may replace it
    pub(crate) b: PathBuf,
    /// Column that names the input
    #[arg(long, value_name = "COLUMN", default_value = "id")]
    pub(crate) id: String,
    /// Column of the prediction
    #[arg(long, value_name = "COLUMN", default_value = "prediction")]
    pub(crate) prediction: String,
    /// Column of the true value, in either file or in both
    #[arg(long, value_name = "COLUMN")]
    pub(crate) label: Option<String>,
    /// Columns whose values are judged on their own, with commas, in either file
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub(crate) segment: Vec<String>,
    /// How much worse B may be, in the unit of what is judged (0.01: one point of an error rate); 0 with labels
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) margin: Option<f64>,
    /// Numbers that are no further apart than this count as equal
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) tolerance: f64,
    /// Share of the answers that may differ, such as 0.05; 0: none
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub(crate) max_differ: Option<f64>,
    /// Share of the ids that one of the files may lack
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, allow_negative_numbers = true)]
    pub(crate) max_missing: f64,
    /// How predictions are read
    #[arg(long, value_enum, default_value_t)]
    pub(crate) kind: Kind,
    /// What is judged for numbers with labels
    #[arg(long, value_enum, default_value_t)]
    pub(crate) loss: Loss,
    /// Chance of a false FAIL (over all lines), and of a false pass (per line)
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, allow_negative_numbers = true)]
    pub(crate) alpha: f64,
    /// How to print
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
    /// How to print
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
    /// Create what is missing; change nothing that exists
    Ensure(TopologyArgs),
    /// Name each difference; exit status 1 when there is one
    Check(TopologyArgs),
}

/// Options of the topology commands.
#[derive(Debug, Args)]
pub(crate) struct TopologyArgs {
    #[command(flatten)]
    pub(crate) serve: Serve,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// What the demo shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Three rollouts: v1 to v2 promoted, v2 to v3 and v2 to v4 rolled back.
    #[default]
    Main,
    /// v1 against itself: must be promoted.
    Aa,
}

/// Options of the demo.
#[derive(Clone, Debug, Args)]
pub(crate) struct Demo {
    /// Which rollouts to show
    #[arg(long, value_enum, default_value_t)]
    pub(crate) scenario: Scenario,
    /// Seed of everything random in the replay
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Run on this Kafka instead of the embedded log, every role its own process
    #[arg(long, value_name = "BROKERS")]
    pub(crate) kafka: Option<String>,
    /// Drive a pipeline that runs already: base URLs of router, router admin port and controller API, with commas
    #[arg(long, value_name = "URLS", conflicts_with = "kafka")]
    pub(crate) attach: Option<String>,
    /// Instead of replaying over HTTP: this many rollouts of the scenario in process with a virtual clock, counted
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub(crate) rollouts: Option<u32>,
    /// Let each window of six hours take at least this long by the clock, to watch it; 0: as fast as the machine is
    #[arg(long, value_name = "SPAN", default_value = "0", value_parser = serin_spec::units::Duration::parse)]
    pub(crate) pace: serin_spec::units::Duration,
    /// Keep log and state here instead of in a temporary folder
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}
