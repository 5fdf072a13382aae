//! HTTP as a client, plain or over TLS: the controller's API for the command line, a collector for metrics.

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

/// Largest answer that is read.
const ANSWER: usize = 64 << 20;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// A client.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    patience: Duration,
}

/// The authorities that servers' certificates are checked against cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{from}: {cause}")]
pub(crate) struct AuthoritiesError {
    from: String,
    cause: String,
}

/// No answer came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// None in time.
    #[error("no answer in {} s", .0.as_secs())]
    Late(Duration),
    /// Nobody listens there: nothing was sent.
    #[error("{0}")]
    Refused(String),
    /// Why, in the words of the innermost cause: "connection refused" says more than "client error".
    #[error("{0}")]
    Failed(String),
    /// The server's certificate cannot be believed.
    #[error("{0}")]
    Certificate(#[from] CertificateProblem),
    /// The server does not speak TLS.
    #[error("the port answers, but not over TLS")]
    NotTls,
}

/// What is wrong with a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateProblem {
    /// Nobody who is trusted has signed it.
    #[error("its certificate is not from an authority that is trusted here")]
    UnknownAuthority,
    /// It is for other names.
    #[error("its certificate is for another name")]
    OtherName,
    /// Its time is over, or has not begun.
    #[error("its certificate has expired, or is not valid yet")]
    OutOfTime,
    /// Anything else.
    #[error("its certificate cannot be used")]
    Unusable,
}

impl Http {
    /// A client that waits so long for a whole answer. Servers' certificates are checked against the PEM file `authorities`,
    /// or against what the system trusts.
    pub(crate) fn new(authorities: Option<&Path>, patience: Duration) -> Result<Self, AuthoritiesError> {
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
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), patience })
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, NoAnswer> {
        let answer = async {
            let (head, body) =
                self.client.request(request.map(Full::new)).await.map_err(|error| why(&error))?.into_parts();
            let body = Limited::new(body, ANSWER).collect().await.map_err(|error| why(error.as_ref()))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        tokio::time::timeout(self.patience, answer).await.map_err(|_| NoAnswer::Late(self.patience))?
    }
}

fn roots(authorities: Option<&Path>) -> Result<RootCertStore, AuthoritiesError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = authorities else {
        // Where a system trusts nobody (a bare container), every certificate is one of an unknown authority: it is told then.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let wrong = |cause: String| AuthoritiesError { from: path.display().to_string(), cause };
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("there is no certificate in it; it must be PEM".to_owned())) } else { Ok(roots) }
}

/// What the innermost cause says.
fn why(error: &(dyn std::error::Error + 'static)) -> NoAnswer {
    let mut cause = error;
    loop {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return of_tls(tls);
        }
        // What comes out of a TLS connection is wrapped as an error of input or output, whose source leaves out what it wraps.
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
    fn a_wrapped_cause_is_found_however_deep() {
        let wrong = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let once = io::Error::new(io::ErrorKind::InvalidData, wrong);
        let twice = io::Error::other(io::Error::other(once));
        assert!(matches!(why(&twice), NoAnswer::Certificate(CertificateProblem::UnknownAuthority)));
        let refused = io::Error::other(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(why(&refused).to_string(), "connection refused");
    }
}
