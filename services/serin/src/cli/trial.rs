//! Arguments of `model-server`, `load` and `switch`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use serin_spec::units::{Duration, Share};

use super::Output;

/// One version of the model that ships with Serin.
#[derive(Clone, Debug, Args)]
pub(crate) struct ModelServer {
    /// Address to listen on
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9001")]
    pub(crate) listen: SocketAddr,
    /// The version's name
    #[arg(long, value_name = "NAME", default_value = "1")]
    pub(crate) version: String,
    /// Share of the calls that get the opposite answer, such as 20%
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = Share::parse)]
    pub(crate) wrong: Share,
    /// Share of the calls that fail with status 500
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = Share::parse)]
    pub(crate) fail: Share,
    /// Latency of an answer
    #[arg(long, value_name = "SPAN", default_value = "0", value_parser = Duration::parse)]
    pub(crate) latency: Duration,
    /// Seed that decides which calls are wrong or fail
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Calls to make.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    /// The model's name at the router
    pub(crate) model: String,
    /// The router
    #[arg(long, value_name = "URL", env = "SERIN_ROUTER", default_value = "http://127.0.0.1:8000")]
    pub(crate) to: String,
    /// Rate of the calls
    #[arg(long, value_name = "RATE", default_value = "50/s")]
    pub(crate) rate: String,
    /// Stop after this time. Default: run until Ctrl-C
    #[arg(long = "for", value_name = "SPAN", value_parser = Duration::parse)]
    pub(crate) length: Option<Duration>,
    /// How long after an answer its label `fraud` (1 or 0) is sent
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = Duration::parse)]
    pub(crate) label_after: Duration,
    /// Send no labels
    #[arg(long, conflicts_with = "label_after")]
    pub(crate) no_labels: bool,
    /// Seed that decides which payments are made
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Token of a writer, if the router requires one for labels (preferably from the environment, not on the command line)
    #[arg(long, value_name = "TOKEN", env = "SERIN_WRITER_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// PEM file with the CA that signed the router's certificate (https://). Default: the CAs that the system trusts
    #[arg(long, value_name = "FILE", env = "SERIN_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Routers to switch.
#[derive(Clone, Debug, Args)]
pub(crate) struct Switch {
    /// `on`: every call goes to stable; `off`: calls follow the routing tables. Without it, the state is only shown
    #[arg(value_enum)]
    pub(crate) to: Option<Wanted>,
    /// Admin ports of all routers, comma-separated
    #[arg(
        long,
        value_name = "URLS",
        env = "SERIN_ROUTER_ADMIN",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8001"
    )]
    pub(crate) routers: Vec<String>,
    /// The routers' admin token, if they require one (preferably from the environment, not on the command line)
    #[arg(long, value_name = "TOKEN", env = "SERIN_ROUTER_ADMIN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// PEM file with the CA that signed the certificates (https://). Default: the CAs that the system trusts
    #[arg(long, value_name = "FILE", env = "SERIN_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// The wanted state of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Wanted {
    /// Every call of every model goes to stable.
    On,
    /// Calls follow the routing tables.
    Off,
}
