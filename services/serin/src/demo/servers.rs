//! The demo's model servers: one for each version, each on a loopback port.
//!
//! Latency is on the clock of the replay: a server answers at once and reports the latency in a header, so that no figure of the
//! demo depends on the machine. `v4` sends 3 % of the calls down a slow path.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use axum::http::StatusCode;
use serde_json::{Value, json};
use serin_sketches::hash::hash64;
use tokio::net::TcpListener;

use super::model::{self, Flight, Models};
use crate::model_server::{self, Answer, Clock, Model};

/// Every version the demo serves.
const VERSIONS: [&str; 4] = ["v1", "v2", "v3", "v4"];

/// Shortest latency of a call.
const SERVICE_TIME: Duration = Duration::from_millis(18);
/// Mean of the additional latency, in microseconds: exponential, as from a server with some load.
const MORE_US: f64 = 2000.0;
/// Additional latency of `v4`'s slow path: a second, as for a model that is reloaded.
const SLOW_TIME: Duration = Duration::from_secs(1);
/// One call in this many takes `v4`'s slow path: 3 %, so that p99 changes but the median does not.
const SLOW_ONE_IN: u64 = 33;

/// One version of the demo's model.
struct Version {
    name: &'static str,
    model: model::Model,
}

/// Starts a server for each version and returns their addresses. They run until the runtime ends.
pub(crate) async fn start() -> anyhow::Result<Vec<(&'static str, SocketAddr)>> {
    let models = Models::embedded();
    let mut started = Vec::new();
    for name in VERSIONS {
        let model = models.get(name).with_context(|| format!("{name} has no model"))?.clone();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("a model server's port")?;
        started.push((name, listener.local_addr()?));
        tokio::spawn(model_server::serve(listener, Version { name, model }, Clock::Replay));
    }
    Ok(started)
}

impl Model for Version {
    fn version(&self) -> &str {
        self.name
    }

    fn answer(&self, id: &str, inputs: &Value) -> Answer {
        let result = match Flight::from_oip(inputs) {
            Ok(flight) => {
                let probability = self.model.predict(&flight);
                Ok(json!([{"name": "probability", "shape": [1], "datatype": "FP64", "data": [probability]}]))
            }
            Err(error) => Err((StatusCode::BAD_REQUEST, error.to_string())),
        };
        Answer { takes: service_time(self.name, id), result }
    }
}

/// Whether a call takes the slow path. This depends on its id, so that a seed gives the same tail again.
pub(super) fn is_slow(version: &str, id: &str) -> bool {
    version == "v4" && hash64(b"slow path", id.as_bytes()).is_multiple_of(SLOW_ONE_IN)
}

/// The latency of a call.
pub(super) fn service_time(version: &str, id: &str) -> Duration {
    // 53 bits of the hash as a number in (0, 1].
    let uniform = ((hash64(b"service time", id.as_bytes()) >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
    let more = Duration::from_micros((-MORE_US * uniform.ln()) as u64);
    SERVICE_TIME + more + if is_slow(version, id) { SLOW_TIME } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_v4_has_a_slow_path_and_it_is_three_percent() {
        let slow = |version| (0..100_000).filter(|id| service_time(version, &id.to_string()) >= SLOW_TIME).count();
        assert_eq!(slow("v2"), 0);
        let share = slow("v4") as f64 / 1e5;
        assert!((0.028..0.033).contains(&share), "{share}");
    }

    #[test]
    fn a_call_of_any_version_takes_20_ms_on_average() {
        let times: Vec<Duration> = (0..100_000).map(|id| service_time("v1", &id.to_string())).collect();
        let mean = times.iter().sum::<Duration>().as_secs_f64() / times.len() as f64;
        assert!((mean - 0.02).abs() < 1e-4, "{mean}");
        assert_eq!(times[7], service_time("v2", "7"));
    }
}
