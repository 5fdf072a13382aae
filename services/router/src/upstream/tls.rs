//! TLS to model servers: the trust store and the client certificate.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::config::Config;

/// A file for TLS to upstreams cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {cause}")]
pub struct RootsError {
    path: String,
    cause: String,
}

/// The TLS configuration for upstreams.
pub(crate) fn tls(config: &Config) -> Result<ClientConfig, RootsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| RootsError { path: "TLS".to_owned(), cause: error.to_string() })?
        .with_root_certificates(roots(config)?);
    let (Some(certificate), Some(key)) = (&config.upstream_certificate, &config.upstream_key) else {
        return Ok(builder.with_no_client_auth());
    };
    let wrong = |path: &Path, cause: String| RootsError { path: path.display().to_string(), cause };
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    let cannot_be_shown = |error: rustls::Error| {
        wrong(certificate, format!("the certificate cannot be used as a client certificate ({error})"))
    };
    builder.with_client_auth_cert(certificates(certificate)?, key).map_err(cannot_be_shown)
}

/// The trust store: a file of the configuration, otherwise the system's trust store.
fn roots(config: &Config) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &config.upstream_ca else {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "a certificate in the system's trust store cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
        return Ok(roots);
    };
    for certificate in certificates(path)? {
        let wrong = |error: rustls::Error| RootsError { path: path.display().to_string(), cause: error.to_string() };
        roots.add(certificate).map_err(wrong)?;
    }
    Ok(roots)
}

/// The certificates in a PEM file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let wrong = |cause: String| RootsError { path: path.display().to_string(), cause };
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?.collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("the file contains no certificate".to_owned())) } else { Ok(found) }
}
