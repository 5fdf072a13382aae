//! `serin load`: sends calls for a first rollout through a router, and the labels of the answers.
//!
//! Calls start at the requested rate, independent of latency, up to a limit of calls in flight. Calls beyond it are not sent, but
//! counted. There are no retries: if the router is down, or does not know the model yet, the next call tries again.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::MissedTickBehavior};

use super::fraud;
use crate::{
    cli::{self, Output},
    http::Http,
    output, serve,
    time::span,
    verbs::rate,
};

/// Timeout of an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest number of calls in flight.
const IN_FLIGHT: usize = 512;
/// Largest rate, in calls per second.
const FASTEST: f64 = 10_000.0;
/// Largest number of labels in one request.
const BATCH: usize = 200;
/// Interval at which due labels are sent.
const LABELS_EVERY: Duration = Duration::from_millis(100);
/// Largest number of waiting labels. The oldest is dropped first.
const WAITING: usize = 1_000_000;
/// Interval at which counts are printed.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Counts of the calls by result.
#[derive(Clone, Debug, Default, Serialize)]
struct Counts {
    /// Calls sent.
    calls: u64,
    /// Answers with a 2xx status, by the version that gave them.
    answers: BTreeMap<String, u64>,
    /// Requests without such an answer, including requests with labels.
    failed: u64,
    /// The last error.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<String>,
    /// Calls that were not sent because too many were in flight.
    not_made: u64,
    /// Labels that the router accepted.
    labels: u64,
}

impl Counts {
    /// The counts since `before`.
    fn since(&self, before: &Self) -> Self {
        let count = |version: &String| before.answers.get(version).copied().unwrap_or_default();
        let answers = self.answers.iter().map(|(version, all)| (version.clone(), all - count(version)));
        let failed = self.failed - before.failed;
        Self {
            calls: self.calls - before.calls,
            answers: answers.filter(|(_, count)| *count > 0).collect(),
            failed,
            last_failure: self.last_failure.clone().filter(|_| failed > 0),
            not_made: self.not_made - before.not_made,
            labels: self.labels - before.labels,
        }
    }

    fn text(&self, of: Duration) -> String {
        let answered: u64 = self.answers.values().sum();
        let mut text = format!("{}: {} calls", span(of.as_secs_f64().round()), self.calls);
        for (version, count) in &self.answers {
            let percent = *count as f64 / answered.max(1) as f64 * 100.0;
            let name = if version.is_empty() { "(unknown)" } else { version };
            let _ = write!(text, ", {count} answered by version {name} ({percent:.0} %)");
        }
        let _ = write!(text, ", {} labels", self.labels);
        if self.not_made > 0 {
            let _ = write!(text, ", {} not sent: {IN_FLIGHT} calls were in flight", self.not_made);
        }
        if let Some(why) = &self.last_failure {
            let _ = write!(text, ", {} failed, last error: {why}", self.failed);
        }
        text
    }
}

/// A label that is not sent yet.
struct Label {
    due: Instant,
    id: String,
    fraud: bool,
}

struct Load {
    http: Http,
    infer: String,
    feedback: String,
    token: Option<String>,
    label_after: Option<Duration>,
    counts: Mutex<Counts>,
    labels: Mutex<VecDeque<Label>>,
}

/// `serin load`.
pub(crate) async fn load(args: &cli::Load) -> anyhow::Result<ExitCode> {
    let per_second = rate(&args.rate).map_err(|error| anyhow::anyhow!("--rate: {error}"))?.per_second;
    if per_second <= 0.0 || per_second > FASTEST {
        bail!("--rate {}: the rate must be more than 0 and at most {FASTEST} calls per second", args.rate);
    }
    let base = args.to.trim_end_matches('/');
    if !base.starts_with("http://") && !base.starts_with("https://") {
        bail!("--to {base}: pass the router's URL, such as http://127.0.0.1:8000");
    }
    let micros = |span: serin_spec::units::Duration| Duration::from_micros(span.0.0.unsigned_abs());
    let model = utf8_percent_encode(&args.model, NON_ALPHANUMERIC);
    let load = Arc::new(Load {
        http: Http::new(args.ca_file.as_deref(), TIMEOUT).context("--ca-file")?,
        infer: format!("{base}/v2/models/{model}/infer"),
        feedback: format!("{base}/v1/feedback"),
        token: args.token.clone(),
        label_after: (!args.no_labels).then(|| micros(args.label_after)),
        counts: Mutex::default(),
        labels: Mutex::default(),
    });
    let started = Instant::now();
    let length = args.length.map(micros);
    tokio::select! {
        () = load.calls(per_second, args.seed, length) => {}
        () = load.send_labels() => {}
        () = load.report(started, args.output) => {}
        () = serve::asked_to_stop() => {}
    }
    let counts = load.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    print("all ", &counts, started.elapsed(), args.output);
    if counts.answers.is_empty() {
        bail!("no call was answered: {}", counts.last_failure.unwrap_or_else(|| "no call was sent".to_owned()));
    }
    Ok(ExitCode::SUCCESS)
}

impl Load {
    /// Makes calls until `length` is over, and waits for the last answers.
    async fn calls(self: &Arc<Self>, per_second: f64, seed: u64, length: Option<Duration>) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
        // Missed ticks are caught up, so that the rate holds on average.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let places = Arc::new(Semaphore::new(IN_FLIGHT));
        let started = Instant::now();
        while length.is_none_or(|length| started.elapsed() < length) {
            ticks.tick().await;
            let amount = (random.random::<f64>() * fraud::LARGEST * 100.0).round() / 100.0;
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                self.count(|counts| counts.not_made += 1);
                continue;
            };
            let load = Arc::clone(self);
            tokio::spawn(async move {
                load.call(amount).await;
                drop(place);
            });
        }
        let all = u32::try_from(IN_FLIGHT).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(TIMEOUT, places.acquire_many(all)).await;
        let last = tokio::time::Instant::now() + self.label_after.unwrap_or_default() + 2 * LABELS_EVERY;
        tokio::time::sleep_until(last).await;
    }

    async fn call(&self, amount: f64) {
        let answered = self.post(&self.infer, &json!({"inputs": fraud::inputs(amount)})).await;
        let (version, id) = match answered {
            Ok(answer) => answer,
            Err(why) => {
                return self.count(|counts| {
                    counts.calls += 1;
                    counts.failed += 1;
                    counts.last_failure = Some(why);
                });
            }
        };
        self.count(|counts| {
            counts.calls += 1;
            *counts.answers.entry(version).or_default() += 1;
        });
        let Some(after) = self.label_after.filter(|_| !id.is_empty()) else { return };
        let label = Label { due: Instant::now() + after, id, fraud: fraud::is_fraud(amount) };
        let mut labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        if labels.len() >= WAITING {
            labels.pop_front();
        }
        labels.push_back(label);
    }

    /// Sends labels when they are due, forever.
    async fn send_labels(&self) {
        loop {
            tokio::time::sleep(LABELS_EVERY).await;
            let due: Vec<Value> = {
                let mut labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                let count = labels.iter().take_while(|label| label.due <= now).count();
                let due = labels.drain(..count);
                due.map(|Label { id, fraud, .. }| json!({"prediction_id": id, "values": {"fraud": fraud}})).collect()
            };
            for batch in due.chunks(BATCH) {
                match self.post(&self.feedback, &Value::from(batch)).await {
                    Ok(_) => self.count(|counts| counts.labels += batch.len() as u64),
                    Err(why) => self.count(|counts| {
                        counts.failed += 1;
                        counts.last_failure = Some(format!("labels: {why}"));
                    }),
                }
            }
        }
    }

    /// Posts a request. Returns the version that answered, and the id of the prediction.
    async fn post(&self, url: &str, body: &Value) -> Result<(String, String), String> {
        let mut request =
            Request::builder().method(Method::POST).uri(url).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Bytes::from(body.to_string())).map_err(|error| error.to_string())?;
        let (head, body) = self.http.send(request).await.map_err(|error| format!("{url}: {error}"))?.into_parts();
        if !head.status.is_success() {
            return Err(error_text(head.status, &body));
        }
        let text = |name: &str| {
            let value = head.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        Ok((text("x-model-version"), text("x-prediction-id")))
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Prints the counts of each interval until standard output is closed. The first failure is printed at once.
    async fn report(&self, started: Instant, format: Output) {
        let mut reported = false;
        let mut before = Counts::default();
        let mut next = started + REPORT_EVERY;
        while !output::is_closed() {
            tokio::time::sleep(LABELS_EVERY).await;
            let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if !reported && let Some(why) = &counts.last_failure {
                reported = true;
                output::aside(format!("{why}\ncalls continue; stop with Ctrl-C"));
            }
            if Instant::now() >= next {
                next += REPORT_EVERY;
                print("", &counts.since(&before), REPORT_EVERY, format);
                before = counts;
            }
        }
    }
}

/// Prints the counts of an interval. `what`: a prefix that names it.
fn print(what: &str, counts: &Counts, of: Duration, format: Output) {
    match format {
        Output::Text => output::line(format!("{what}{}", counts.text(of))),
        Output::Json => output::line(json!({"seconds": of.as_secs_f64(), "counts": counts})),
    }
}

/// The error message of an unsuccessful response.
fn error_text(status: StatusCode, body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let problem = body["problems"][0].as_str().or_else(|| body["error"].as_str());
    problem.map_or_else(|| format!("status {status}"), |problem| format!("status {}: {problem}", status.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_printed_by_version_with_the_last_error() {
        let answers = [("1".to_owned(), 95), ("2".to_owned(), 5)].into();
        let mut counts = Counts { calls: 100, answers, labels: 90, ..Counts::default() };
        assert_eq!(
            counts.text(Duration::from_secs(5)),
            "5s: 100 calls, 95 answered by version 1 (95 %), 5 answered by version 2 (5 %), 90 labels"
        );
        counts.failed = 3;
        counts.last_failure = Some(error_text(StatusCode::NOT_FOUND, br#"{"error": "no such model"}"#));
        let text = counts.text(Duration::from_secs(5));
        assert!(text.ends_with(", 90 labels, 3 failed, last error: status 404: no such model"), "{text}");
        let before = Counts { calls: 60, answers: [("1".to_owned(), 95)].into(), failed: 3, ..Counts::default() };
        let text = counts.since(&before).text(Duration::from_secs(5));
        assert_eq!(text, "5s: 40 calls, 5 answered by version 2 (100 %), 90 labels");
        assert_eq!(error_text(StatusCode::BAD_GATEWAY, b"<html>"), "status 502 Bad Gateway");
    }
}
