//! Callers: as many calls as a proxy can answer, and a steady rate that every proxy can answer.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream as StdStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::http::message;

/// Number of connections of callers that send the next call as soon as the last one is answered.
const CONNECTIONS: usize = 64;
/// Number of connections of callers at a steady rate.
const PACED: u32 = 8;
const BODY: &str = r#"{"inputs":[{"name":"origin","shape":[1],"datatype":"BYTES","data":["LGA"]},{"name":"distance","shape":[1],"datatype":"FP64","data":[2586.0]},{"name":"hour","shape":[1],"datatype":"INT64","data":[17]}]}"#;

/// A call of a model. The path is the same for proxies that ignore it.
pub(crate) fn request(model: &str) -> Vec<u8> {
    let head = format!(
        "POST /v2/models/{model}/infer HTTP/1.1\r\nhost: models.example.org\r\nuser-agent: serin-bench\r\naccept: */*\r\n\
         content-type: application/json\r\nx-country: CA\r\n\
         traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ncontent-length: {}\r\n\r\n",
        BODY.len()
    );
    [head.as_bytes(), BODY.as_bytes()].concat()
}

/// Answered calls, and the duration of each in microseconds.
pub(crate) struct Answered {
    pub(crate) seconds: f64,
    pub(crate) took: Vec<f64>,
}

/// Sends calls as fast as they are answered, for the given time.
pub(crate) fn closed(target: SocketAddr, request: &[u8], span: Duration) -> anyhow::Result<Answered> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let start = Instant::now();
        let mut callers = Vec::new();
        for _ in 0..CONNECTIONS {
            callers.push(tokio::spawn(caller(target, request.to_vec(), start + span)));
        }
        let mut took = Vec::new();
        for caller in callers {
            took.extend(caller.await??);
        }
        Ok(Answered { seconds: start.elapsed().as_secs_f64(), took })
    })
}

async fn caller(target: SocketAddr, request: Vec<u8>, end: Instant) -> anyhow::Result<Vec<f64>> {
    let mut stream = TcpStream::connect(target).await.context("connecting to the proxy")?;
    stream.set_nodelay(true)?;
    let (mut took, mut bytes) = (Vec::new(), Vec::with_capacity(4096));
    loop {
        let sent = Instant::now();
        if sent >= end {
            return Ok(took);
        }
        stream.write_all(&request).await?;
        loop {
            ensure!(stream.read_buf(&mut bytes).await? > 0, "the proxy closed a connection");
            if message(&bytes).is_some_and(|end| end <= bytes.len()) {
                break;
            }
        }
        good(&bytes)?;
        bytes.clear();
        took.push(sent.elapsed().as_secs_f64() * 1e6);
    }
}

/// Sends this many calls a second, for the given time. A call that had to wait for the previous one counts from its due time.
pub(crate) fn paced(target: SocketAddr, request: &[u8], rate: u32, span: Duration) -> anyhow::Result<Answered> {
    let start = Instant::now();
    let callers: Vec<_> = (0..PACED)
        .map(|caller| {
            let request = request.to_vec();
            let gap = Duration::from_secs(1) * PACED / rate;
            thread::spawn(move || pace(target, &request, start + gap * caller / PACED, gap, start + span))
        })
        .collect();
    let mut took = Vec::new();
    for caller in callers {
        let Ok(times) = caller.join() else { bail!("a caller panicked") };
        took.extend(times?);
    }
    Ok(Answered { seconds: start.elapsed().as_secs_f64(), took })
}

fn pace(target: SocketAddr, request: &[u8], first: Instant, gap: Duration, end: Instant) -> anyhow::Result<Vec<f64>> {
    let mut stream = StdStream::connect(target).context("connecting to the proxy")?;
    stream.set_nodelay(true)?;
    let (mut took, mut bytes) = (Vec::new(), vec![0; 4096]);
    let mut due = first;
    while due < end {
        let mut from = due;
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            thread::sleep(wait);
            // The proxy is not responsible for a sleep that lasts too long.
            from = Instant::now();
        }
        stream.write_all(request)?;
        let mut filled = 0;
        loop {
            let read = stream.read(&mut bytes[filled..])?;
            ensure!(read > 0, "the proxy closed a connection");
            filled += read;
            if message(&bytes[..filled]).is_some_and(|end| end <= filled) {
                break;
            }
        }
        good(&bytes[..filled])?;
        took.push(from.elapsed().as_secs_f64() * 1e6);
        due += gap;
    }
    Ok(took)
}

fn good(answer: &[u8]) -> anyhow::Result<()> {
    if !answer.starts_with(b"HTTP/1.1 200") {
        bail!("a call was not answered 200: {}", String::from_utf8_lossy(answer));
    }
    Ok(())
}
