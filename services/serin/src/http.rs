//! An HTTP client, plain or over TLS: for the controller's API, routers' admin ports, an OTLP collector and destinations of the connector.

use std::{io, path::Path, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Largest answer that is read, in bytes.
const ANSWER: usize = 64 << 20;
/// Timeout of a connection attempt.
const CONNECT: Duration = Duration::from_secs(10);

/// An HTTP client.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

/// The authorities that servers' certificates are checked against cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{from}: {cause}")]
pub(crate) struct AuthoritiesError {
    from: String,
    cause: String,
}

/// There is no answer from the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// No answer within the timeout.
    #[error("no answer in {} s", .0.as_secs())]
    Late(Duration),
    /// The connection was refused, so nothing was sent.
    #[error("{0}")]
    Refused(String),
    /// The innermost cause: "connection refused" is more useful than "client error".
    #[error("{0}")]
    Failed(String),
    /// The server's certificate is not valid here.
    #[error("{0}")]
    Certificate(#[from] CertificateProblem),
    /// The server does not speak TLS.
    #[error("the port answers, but not over TLS")]
    NotTls,
}

/// The problem of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateProblem {
    /// No trusted CA has signed it.
    #[error("the certificate is not signed by a trusted CA")]
    UnknownAuthority,
    /// The certificate is for other host names.
    #[error("the certificate is for another name")]
    OtherName,
    /// The certificate has expired, or is not valid yet.
    #[error("the certificate has expired, or is not valid yet")]
    OutOfTime,
    /// The certificate has another problem.
    #[error("the certificate cannot be used")]
    Unusable,
}

impl Http {
    /// A client with a timeout for the whole answer. Servers' certificates are checked against the PEM file `authorities`,
    /// or against the CAs that the system trusts.
    pub(crate) fn new(authorities: Option<&Path>, timeout: Duration) -> Result<Self, AuthoritiesError> {
        let wrong = |cause: rustls::Error| AuthoritiesError { from: "TLS".to_owned(), cause: cause.to_string() };
        let config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .with_root_certificates(roots(authorities)?)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().wrap_connector(tcp);
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), timeout })
    }

    /// Sends a request and reads the head of the answer.
    pub(crate) async fn head_of_answer(&self, request: Request<Bytes>) -> Result<Response<()>, NoAnswer> {
        let answer = async {
            let answer = self.client.request(request.map(Full::new)).await.map_err(|error| why(&error))?;
            Ok(answer.map(drop))
        };
        tokio::time::timeout(self.timeout, answer).await.map_err(|_| NoAnswer::Late(self.timeout))?
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, NoAnswer> {
        let answer = async {
            let (head, body) =
                self.client.request(request.map(Full::new)).await.map_err(|error| why(&error))?.into_parts();
            let body = Limited::new(body, ANSWER).collect().await.map_err(|error| why(error.as_ref()))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        tokio::time::timeout(self.timeout, answer).await.map_err(|_| NoAnswer::Late(self.timeout))?
    }
}

fn roots(authorities: Option<&Path>) -> Result<RootCertStore, AuthoritiesError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = authorities else {
        // If a system trusts no CA (a bare container), the error comes later: every certificate then has an unknown authority.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let wrong = |cause: String| AuthoritiesError { from: path.display().to_string(), cause };
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("it contains no certificate; the file must be PEM".to_owned())) } else { Ok(roots) }
}

/// The innermost cause of an error.
fn why(error: &(dyn std::error::Error + 'static)) -> NoAnswer {
    let mut cause = error;
    loop {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return of_tls(tls);
        }
        // Errors of a TLS connection are wrapped in an `io::Error`, whose `source` skips the wrapped error.
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let next: Option<&(dyn std::error::Error + 'static)> = match wrapped {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
        let Some(next) = next else {
            let refused = io::ErrorKind::ConnectionRefused;
            let is_refused = cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == refused);
            return if is_refused { NoAnswer::Refused } else { NoAnswer::Failed }(cause.to_string());
        };
        cause = next;
    }
}

fn of_tls(error: &rustls::Error) -> NoAnswer {
    use rustls::CertificateError as Wrong;
    match error {
        rustls::Error::InvalidCertificate(wrong) => NoAnswer::Certificate(match wrong {
            Wrong::UnknownIssuer | Wrong::BadSignature => CertificateProblem::UnknownAuthority,
            Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => CertificateProblem::OtherName,
            Wrong::Expired | Wrong::ExpiredContext { .. } | Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
                CertificateProblem::OutOfTime
            }
            _ => CertificateProblem::Unusable,
        }),
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => NoAnswer::NotTls,
        other => NoAnswer::Failed(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_cause_is_found_at_any_depth() {
        let wrong = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let once = io::Error::new(io::ErrorKind::InvalidData, wrong);
        let twice = io::Error::other(io::Error::other(once));
        assert!(matches!(why(&twice), NoAnswer::Certificate(CertificateProblem::UnknownAuthority)));
        let refused = io::Error::other(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(why(&refused).to_string(), "connection refused");
    }
}
