//! The model servers: each reads the whole request and gives one answer, in one thread.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::http::message;

const ANSWER: &str = r#"{"model_name":"flights","model_version":"1","outputs":[{"name":"probability","shape":[1],"datatype":"FP64","data":[0.18273645]}]}"#;

/// One model server.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    answered: Arc<AtomicU64>,
}

impl Upstream {
    /// Number of answers so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// Starts three model servers: stable, canary, shadow.
pub(crate) fn start() -> anyhow::Result<[Upstream; 3]> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            for _ in 0..3 {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
                let upstream = Upstream { address: listener.local_addr()?, answered: Arc::default() };
                sender.send(upstream.clone()).ok();
                tokio::spawn(accept(listener, upstream.answered));
            }
            std::future::pending::<std::io::Result<()>>().await
        })
    });
    let next = || receiver.recv().context("the model servers do not start");
    Ok([next()?, next()?, next()?])
}

async fn accept(listener: TcpListener, answered: Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept().await {
        // A proxy may close its connections at any time.
        tokio::spawn(serve(stream, Arc::clone(&answered)));
    }
}

async fn serve(mut stream: TcpStream, answered: Arc<AtomicU64>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    let mut bytes = Vec::with_capacity(4096);
    while stream.read_buf(&mut bytes).await? > 0 {
        while let Some(end) = message(&bytes).filter(|&end| end <= bytes.len()) {
            bytes.drain(..end);
            answered.fetch_add(1, Ordering::Relaxed);
            stream.write_all(answer.as_bytes()).await?;
        }
    }
    Ok(())
}
