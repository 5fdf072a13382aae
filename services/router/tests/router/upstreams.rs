//! Model servers for tests, working and failing.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
pub(crate) use futures_body::ChannelBody;
use http::{HeaderMap, HeaderName, Request, Response, Version};
use http_body_util::{BodyExt as _, Either, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// A request as seen by a model server.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A working model server with a fixed reply.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// The reply of a working server.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    pub(crate) delay: Duration,
    pub(crate) headers: HeaderMap,
    pub(crate) trailers: HeaderMap,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Bytes>) -> Self {
        Self {
            status: 200,
            body: body.into(),
            delay: Duration::ZERO,
            headers: HeaderMap::new(),
            trailers: HeaderMap::new(),
        }
    }

    /// A gRPC answer that ends with this status.
    pub(crate) fn grpc(body: impl Into<Bytes>, status: &str) -> Self {
        let mut reply = Self::ok(body).with("content-type", "application/grpc");
        reply.trailers.insert("grpc-status", status.parse().unwrap());
        reply
    }

    /// Adds a header.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        self
    }

    /// An Open Inference Protocol answer with one probability.
    pub(crate) fn probability(value: &str) -> Self {
        Self::ok(format!(r#"{{"outputs":[{{"name":"p","shape":[1],"datatype":"FP64","data":[{value}]}}]}}"#))
    }
}

impl Server {
    pub(crate) async fn start(reply: Reply) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, seen: Arc::clone(&seen) };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (reply, seen) = (reply.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (reply, seen) = (reply.clone(), Arc::clone(&seen));
                        async move { Ok::<_, Infallible>(answer(&reply, &seen, request).await) }
                    });
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn answer(
    reply: &Reply,
    seen: &Mutex<Vec<Seen>>,
    request: Request<Incoming>,
) -> Response<BoxBody<Bytes, Infallible>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let path = parts.uri.path_and_query().unwrap().to_string();
    seen.lock().unwrap().push(Seen { path, version: parts.version, headers: parts.headers, body });
    tokio::time::sleep(reply.delay).await;
    let body = Full::new(reply.body.clone());
    let trailers = reply.trailers.clone();
    let mut response = Response::new(if trailers.is_empty() {
        body.boxed()
    } else {
        body.with_trailers(async move { Some(Ok(trailers)) }).boxed()
    });
    *response.status_mut() = http::StatusCode::from_u16(reply.status).unwrap();
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response.headers_mut().extend(reply.headers.clone());
    response
}

/// A server over TLS, with the certificate and key of this directory; it answers `{}`.
pub(crate) async fn tls_server(folder: &std::path::Path) -> SocketAddr {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let chain = vec![CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate disconnects.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(|_: Request<Incoming>| async {
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"{}"))))
                });
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// A server that writes these bytes after the head of a request, waits until they are read, and resets the connection.
pub(crate) async fn reset_after(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = vec![0; 65536];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                stream.set_zero_linger().unwrap();
            });
        }
    });
    address
}

/// A failing model server: after the head of a request it writes these bytes, then hangs or closes.
pub(crate) async fn raw(answer: &'static [u8], hang: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = vec![0; 65536];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
                if hang {
                    // Read until the other side closes.
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    address
}

/// An address without a listener.
pub(crate) async fn unused_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A server that sends one chunk of a stream for each message.
pub(crate) async fn streaming() -> (SocketAddr, tokio::sync::mpsc::UnboundedSender<Bytes>) {
    let (send, receive) = tokio::sync::mpsc::unbounded_channel();
    let receive = Arc::new(Mutex::new(Some(receive)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let receive = Arc::clone(&receive);
            tokio::spawn(async move {
                let service = service_fn(move |_: Request<Incoming>| {
                    let body = match receive.lock().unwrap().take() {
                        Some(receive) => Either::Left(ChannelBody(receive)),
                        None => Either::Right(Full::new(Bytes::new())),
                    };
                    let mut response = Response::new(body);
                    response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
                    async move { Ok::<_, Infallible>(response) }
                });
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, send)
}

mod futures_body {
    //! A body whose chunks come through a channel.

    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use http_body::{Body, Frame};
    use tokio::sync::mpsc::UnboundedReceiver;

    pub(crate) struct ChannelBody(pub(crate) UnboundedReceiver<Bytes>);

    impl Body for ChannelBody {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
        }
    }
}
