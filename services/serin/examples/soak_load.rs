//! The load of `make soak`: a model server, callers at a fixed rate, and a label for every answer, some seconds later.
//!
//! Arguments: the first port and the calls per second. The router listens on the first port, the model server of this program on
//! the one three further. Prints every five seconds how many calls were answered, and how many were not.

#![expect(clippy::print_stdout, reason = "progress for the operator")]

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum::{Json, Router};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval},
};

const COUNTRIES: [&str; 10] = ["ch", "de", "fr", "it", "at", "us", "jp", "br", "in", "za"];
/// Labels of one request.
const LABELS: usize = 100;
const CALLERS: u32 = 8;

#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU64,
    failed: AtomicU64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let mut number = |what| arguments.next().context(what)?.parse::<u32>().context(what);
    let (port, rate) = (number("the first port")?, number("the calls per second")?);
    let models = TcpListener::bind(format!("127.0.0.1:{}", port + 3)).await.context("the model server's port")?;
    tokio::spawn(async { axum::serve(models, Router::new().fallback(answer)).await });
    let tally = Arc::new(Tally::default());
    for _ in 0..CALLERS {
        let pace = Duration::from_secs(1) * CALLERS / rate;
        tokio::spawn(call_on(format!("http://127.0.0.1:{port}"), pace, Arc::clone(&tally)));
    }
    let mut looks = interval(Duration::from_secs(5));
    loop {
        looks.tick().await;
        println!("{}/{}", tally.answered.load(Ordering::Relaxed), tally.failed.load(Ordering::Relaxed));
    }
}

async fn answer() -> Json<Value> {
    let output = json!({"name": "score", "datatype": "FP32", "shape": [1], "data": [rand::random::<f32>()]});
    Json(json!({"model_name": "soak", "outputs": [output]}))
}

async fn call_on(router: String, pace: Duration, tally: Arc<Tally>) {
    let client = Client::builder().timeout(Duration::from_secs(30)).build().expect("a client");
    let request = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]});
    let mut labels = Vec::new();
    let mut pace = interval(pace);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0_usize.. {
        pace.tick().await;
        let call = client.post(format!("{router}/v2/models/soak/infer")).header("x-country", COUNTRIES[number % 10]);
        match id_of(call.json(&request)).await {
            Ok(id) => {
                tally.answered.fetch_add(1, Ordering::Relaxed);
                labels.push(json!({"prediction_id": id, "label": u8::from(rand::random::<bool>())}));
            }
            Err(_) => drop(tally.failed.fetch_add(1, Ordering::Relaxed)),
        }
        if labels.len() >= LABELS {
            let feedback = client.post(format!("{router}/v1/feedback")).json(&std::mem::take(&mut labels)).send();
            if feedback.await.and_then(reqwest::Response::error_for_status).is_err() {
                tally.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Sends a call and reads its answer; returns the prediction's id.
async fn id_of(call: reqwest::RequestBuilder) -> Result<String> {
    let answer = call.send().await?.error_for_status()?;
    let id = answer.headers().get("x-prediction-id").context("no id")?.to_str()?.to_owned();
    answer.bytes().await?;
    Ok(id)
}
