//! A listener's certificate, reloaded when its files change.
//!
//! Invariant: unusable files have no effect. The current certificate stays in use, and a warning gives the reason.
//! `serin_certificate_expiry_timestamp_seconds` is about the certificate in use, not about the files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration as StdDuration,
};

use arc_swap::ArcSwap;
use opentelemetry::KeyValue;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_spec::units::Duration;
use serin_stream::{
    declare_metrics,
    gauge::{PresentGauge, Series},
    metric::words,
};

use crate::validity;

declare_metrics! {
    pub METRICS {
        /// When the certificate that a port uses expires, in seconds since the Unix epoch: the earliest end of its chain.
        EXPIRY = Gauge "serin_certificate_expiry_timestamp_seconds" in "s"
            [words("setting", &["router.tls", "router.admin_tls", "controller.tls", "telemetry.tls"])];
    }
}

static EXPIRES: LazyLock<PresentGauge> = LazyLock::new(|| PresentGauge::new(&EXPIRY));

/// The TLS files of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM file with the certificate and its intermediate certificates.
    pub certificate: PathBuf,
    /// PEM file with the private key of the certificate.
    pub key: PathBuf,
    /// PEM file with certificate authorities. If set, clients must present a certificate that one of them has issued.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// How often these files are checked for changes; SIGHUP checks immediately. After a change, new connections use the
    /// new certificate.
    #[serde(default = "TlsFiles::reload_every")]
    pub reload_every: Duration,
}

impl TlsFiles {
    /// The default interval between checks of the files.
    pub fn reload_every() -> Duration {
        Duration::from_secs(10)
    }
}

/// A certificate that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{section}.{setting}: {path}: {cause}")]
pub struct CertificateError {
    section: &'static str,
    setting: &'static str,
    path: String,
    cause: String,
}

/// The result of reloading changed files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The new files are in use.
    Loaded,
    /// The new files cannot be used.
    Unusable,
}

/// The contents of the files.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// A certificate that is in use and can be reloaded.
pub struct Certificate {
    source: Source,
    current: Arc<ArcSwap<ServerConfig>>,
    files: Files,
}

/// Where a certificate comes from.
struct Source {
    /// The section of the configuration that names the files.
    section: &'static str,
    named: TlsFiles,
    /// Protocols in order of preference (ALPN).
    protocols: &'static [&'static str],
}

impl Certificate {
    /// Loads the certificate that `section` of the configuration names, for these protocols in order of preference.
    pub fn load(
        section: &'static str,
        named: TlsFiles,
        protocols: &'static [&'static str],
    ) -> Result<Self, CertificateError> {
        let source = Source { section, named, protocols };
        let files = source.read()?;
        let current = Arc::new(ArcSwap::from_pointee(source.compile(&files)?));
        Ok(Self { source, current, files })
    }

    /// The configuration that new connections use.
    pub fn current(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.current)
    }

    /// Checks the files periodically and on SIGHUP. Calls `seen` with the result when they have changed. Exports when the
    /// certificate in use expires.
    pub async fn watch(mut self, seen: impl Fn(Reload)) {
        let mut shown = self.show();
        let every = StdDuration::from_micros(self.source.named.reload_every.0.0.max(1).unsigned_abs());
        let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
        let mut reported = None;
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => drop(hangup.recv().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = asked => reported = None,
            }
            match self.reload() {
                Ok(false) => {}
                Ok(true) => {
                    reported = None;
                    drop(shown);
                    shown = self.show();
                    seen(Reload::Loaded);
                    let certificate = self.source.named.certificate.display();
                    tracing::info!(%certificate, "the certificate changed and is in use");
                }
                Err(error) => {
                    // The files are written one after the other, so one failed check is normal. A lasting problem is
                    // reported once.
                    if reported.as_ref() != Some(&error) {
                        seen(Reload::Unusable);
                        tracing::warn!(%error, "the changed certificate cannot be used; the previous one stays in use");
                        reported = Some(error);
                    }
                }
            }
        }
    }

    fn show(&self) -> Option<Series> {
        let seconds = expires_at(&self.files.certificate)?;
        Some(EXPIRES.hold(vec![KeyValue::new("setting", self.source.section)], seconds as f64))
    }

    fn reload(&mut self) -> Result<bool, CertificateError> {
        let files = self.source.read()?;
        if files == self.files {
            return Ok(false);
        }
        self.current.store(Arc::new(self.source.compile(&files)?));
        self.files = files;
        Ok(true)
    }
}

/// When the first certificate of a chain expires, in seconds since the Unix epoch. `None` if no certificate can be parsed.
fn expires_at(chain: &[u8]) -> Option<i64> {
    let chain = CertificateDer::pem_slice_iter(chain).filter_map(Result::ok);
    chain.filter_map(|certificate| validity::expires_at(&certificate)).min()
}

impl Source {
    fn read(&self) -> Result<Files, CertificateError> {
        let read = |setting, path: &Path| fs::read(path).map_err(|error| self.wrong(setting, path, error.to_string()));
        Ok(Files {
            certificate: read("certificate", &self.named.certificate)?,
            key: read("key", &self.named.key)?,
            client_ca: self.named.client_ca.as_ref().map(|path| read("client_ca", path)).transpose()?,
        })
    }

    fn wrong(&self, setting: &'static str, path: &Path, cause: String) -> CertificateError {
        CertificateError { section: self.section, setting, path: path.display().to_string(), cause }
    }

    fn compile(&self, files: &Files) -> Result<ServerConfig, CertificateError> {
        let of_certificate = |cause: String| self.wrong("certificate", &self.named.certificate, cause);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&files.certificate).collect();
        let chain = chain.map_err(|error| of_certificate(error.to_string()))?;
        if chain.is_empty() {
            return Err(of_certificate("there is no certificate in it; it must be PEM".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|error| {
            self.wrong("key", &self.named.key, format!("there is no private key in it that can be used ({error})"))
        })?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| of_certificate(error.to_string()))?;
        let builder = match (&self.named.client_ca, &files.client_ca) {
            (Some(path), Some(bytes)) => {
                let of_clients = |cause: String| self.wrong("client_ca", path, cause);
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
            .map_err(|error| of_certificate(format!("the certificate does not match its private key ({error})")))?;
        server.alpn_protocols = self.protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_expires_with_its_first_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let until = |year| {
            let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
            parameters.self_signed(&key).unwrap().pem()
        };
        let (leaf, intermediate) = (until(2040), until(2030));
        assert_eq!(expires_at(leaf.as_bytes()), Some(2_208_988_800));
        assert_eq!(expires_at((leaf + &intermediate).as_bytes()), Some(1_893_456_000));
        assert_eq!(expires_at(b"not PEM"), None);
    }
}
