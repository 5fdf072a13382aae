//! The certificate of the callers' TLS port, loaded anew when its files change.

use std::{fs, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use crate::{
    config::{TlsConfig, span},
    metrics::Metrics,
};

/// The certificate cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("tls.{setting}: {path}: {cause}")]
pub struct CertificateError {
    setting: &'static str,
    path: String,
    cause: String,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// A certificate in use.
pub(crate) struct Certificate {
    /// What new connections get.
    pub(crate) current: Arc<ArcSwap<ServerConfig>>,
    files: Files,
}

impl Certificate {
    /// Loads the certificate that the configuration names.
    pub(crate) fn load(config: &TlsConfig) -> Result<Self, CertificateError> {
        let files = read(config)?;
        let current = Arc::new(ArcSwap::from_pointee(compile(config, &files)?));
        Ok(Self { current, files })
    }

    /// Looks at the files again and again. One that cannot be used changes nothing and is told.
    pub(crate) async fn watch(mut self, config: TlsConfig, metrics: Arc<Metrics>) {
        let mut told = None;
        loop {
            tokio::time::sleep(span(config.reload_every)).await;
            match self.reload(&config) {
                Ok(false) => {}
                Ok(true) => {
                    told = None;
                    metrics.certificate("loaded");
                    tracing::info!(certificate = %config.certificate.display(), "the certificate changed and is in use");
                }
                Err(error) => {
                    // The two files are written one after the other: only what stays wrong is worth a warning, once.
                    if told.as_ref() != Some(&error) {
                        metrics.certificate("unusable");
                        tracing::warn!(%error, "the changed certificate cannot be used; the one before stays");
                        told = Some(error);
                    }
                }
            }
        }
    }

    fn reload(&mut self, config: &TlsConfig) -> Result<bool, CertificateError> {
        let files = read(config)?;
        if files == self.files {
            return Ok(false);
        }
        self.current.store(Arc::new(compile(config, &files)?));
        self.files = files;
        Ok(true)
    }
}

fn read(config: &TlsConfig) -> Result<Files, CertificateError> {
    let read =
        |setting, path: &std::path::Path| fs::read(path).map_err(|error| wrong(setting, path, error.to_string()));
    Ok(Files {
        certificate: read("certificate", &config.certificate)?,
        key: read("key", &config.key)?,
        client_ca: config.client_ca.as_ref().map(|path| read("client_ca", path)).transpose()?,
    })
}

fn wrong(setting: &'static str, path: &std::path::Path, cause: String) -> CertificateError {
    CertificateError { setting, path: path.display().to_string(), cause }
}

fn compile(config: &TlsConfig, files: &Files) -> Result<ServerConfig, CertificateError> {
    let of_certificate = |cause: String| wrong("certificate", &config.certificate, cause);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&files.certificate).collect();
    let chain = chain.map_err(|error| of_certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(of_certificate("there is no certificate in it; it must be PEM".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|error| {
        wrong("key", &config.key, format!("there is no private key in it that can be used ({error})"))
    })?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| of_certificate(error.to_string()))?;
    let builder = match (&config.client_ca, &files.client_ca) {
        (Some(path), Some(bytes)) => {
            let of_clients = |cause: String| wrong("client_ca", path, cause);
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(bytes) {
                let certificate = certificate.map_err(|error| of_clients(error.to_string()))?;
                roots.add(certificate).map_err(|error| of_clients(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| of_clients(error.to_string()))?)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut server = builder
        .with_single_cert(chain, key)
        .map_err(|error| of_certificate(format!("it does not fit its key ({error})")))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(server)
}
