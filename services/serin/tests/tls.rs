//! TLS on every port with the real binary: renewed certificates, wrong CAs, and a collector over HTTPS.

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use axum::{Router, http::StatusCode, routing::post};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer, pki_types::pem::PemObject as _};
use serin_listener::{Certificate, Listener, PROTOCOLS, TlsFiles};
use support::{PATIENCE, free_port, wait_until};
use tempfile::TempDir;
use world::{Run, command, run};

/// A CA, and the current certificate of a process.
struct Files(TempDir);

impl Files {
    fn new() -> Result<Self> {
        let files = Self(TempDir::with_prefix("serin-test-tls-")?);
        files.renew("ca.pem", &["localhost", "127.0.0.1"])?;
        Ok(files)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Creates a new CA in the file `authority`, and a certificate that it signs for these names.
    fn renew(&self, authority: &str, names: &[&str]) -> Result<()> {
        let mut of_authority = rcgen::CertificateParams::new(Vec::new())?;
        of_authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::CertifiedIssuer::self_signed(of_authority, rcgen::KeyPair::generate()?)?;
        let key = rcgen::KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = rcgen::CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        std::fs::write(self.path(authority), issuer.pem())?;
        std::fs::write(self.path("key.pem"), key.serialize_pem())?;
        std::fs::write(self.path("cert.pem"), certificate.pem())?;
        Ok(())
    }
}

/// `serin up` on its own ports.
struct Up {
    child: Child,
    dir: TempDir,
    api: u16,
    admin: u16,
    telemetry: u16,
}

impl Up {
    fn start(settings: &[String], environment: &[(&str, &str)]) -> Result<Self> {
        let (router, admin, api, telemetry) = (free_port()?, free_port()?, free_port()?, free_port()?);
        let dir = TempDir::with_prefix("serin-test-")?;
        let log = File::create(dir.path().join("log"))?;
        let own = [
            format!("data_dir={}", dir.path().join("data").display()),
            format!("router.listen=127.0.0.1:{router}"),
            format!("router.admin_listen=127.0.0.1:{admin}"),
            format!("controller.listen=127.0.0.1:{api}"),
            format!("telemetry.listen=127.0.0.1:{telemetry}"),
            "topology.partitions=1".to_owned(),
        ];
        let mut command = command(&["up"]);
        for setting in own.iter().chain(settings) {
            command.args(["--set", setting]);
        }
        let child = command.envs(environment.iter().copied()).stdout(Stdio::null()).stderr(log).spawn()?;
        Ok(Self { child, dir, api, admin, telemetry })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn wait_for_log(&self, text: &str) -> Result<()> {
        wait_until(PATIENCE, || Ok(self.log().contains(text))).with_context(|| format!("{text}: {}", self.log()))
    }

    fn hang_up(&self) -> Result<()> {
        let pid = self.child.id().to_string();
        ensure!(std::process::Command::new("kill").args(["-HUP", &pid]).status()?.success());
        Ok(())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Settings for the certificate of `files` on all three ports.
fn secured(files: &Files) -> Vec<String> {
    let both = |section: &str| {
        [
            format!("{section}.certificate={}", files.text("cert.pem")),
            format!("{section}.key={}", files.text("key.pem")),
        ]
    };
    ["controller.tls", "router.admin_tls", "telemetry.tls"].iter().flat_map(|section| both(section)).collect()
}

/// Runs `serin list` for this address.
fn list(api: &str, authority: Option<&str>) -> Run {
    let mut arguments = vec!["list", "--api", api];
    arguments.extend(authority.iter().flat_map(|file| ["--ca-file", file]));
    run(&mut command(&arguments))
}

/// Sends a GET request to an `https://` address whose certificate this CA has signed.
fn get(url: &str, authority: &Path) -> Result<(u16, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
        let answer = client.get(url.parse()?).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    })
}

#[test]
fn every_port_serves_tls_and_a_wrong_ca_is_reported() -> Result<()> {
    let files = Files::new()?;
    let up = Up::start(&secured(&files), &[])?;
    let authority = files.path("ca.pem");
    let telemetry = format!("https://127.0.0.1:{}", up.telemetry);
    wait_until(PATIENCE, || Ok(get(&format!("{telemetry}/readyz"), &authority).is_ok_and(|got| got.0 == 200)))
        .with_context(|| up.log())?;
    // Each port reports when its certificate expires. The test's certificates do so in the year 4096.
    for setting in ["router.admin_tls", "controller.tls", "telemetry.tls"] {
        let label = format!("setting=\"{setting}\"");
        let expires = |line: &str| {
            line.starts_with("serin_certificate_expiry_timestamp_seconds{")
                && line.contains(&label)
                && line.ends_with(" 67090118400")
        };
        wait_until(PATIENCE, || Ok(get(&format!("{telemetry}/metrics"), &authority)?.1.lines().any(expires)))
            .context(setting)?;
    }
    let tables = get(&format!("https://localhost:{}/tables", up.admin), &authority)?;
    assert_eq!(tables.0, 200, "{tables:?}");

    let (here, named) = (format!("https://127.0.0.1:{}", up.api), format!("https://localhost:{}", up.api));
    for api in [&here, &named] {
        list(api, Some(&files.text("ca.pem"))).expect(0);
    }
    let mut by_environment = command(&["list", "--api", &here]);
    run(by_environment.env("SERIN_CA_FILE", files.path("ca.pem"))).expect(0);

    let other = Files::new()?;
    let wrong = list(&here, Some(&other.text("ca.pem"))).expect(2).err;
    assert!(wrong.contains("not signed by a trusted CA") && wrong.contains("--ca-file"), "{wrong}");
    let system = list(&here, None).expect(2).err;
    assert!(system.contains("--ca-file") && !system.contains("serin up"), "{system}");
    // A request without TLS.
    let plain = list(&format!("http://127.0.0.1:{}", up.api), None).expect(2).err;
    assert!(plain.contains("no controller answers") && plain.contains("https://"), "{plain}");
    // Files that are missing or have no certificate.
    let missing = list(&here, Some("/nowhere/ca.pem")).expect(2).err;
    assert!(missing.contains("--ca-file") && missing.contains("/nowhere/ca.pem"), "{missing}");
    let key = list(&here, Some(&files.text("key.pem"))).expect(2).err;
    assert!(key.contains("it contains no certificate"), "{key}");
    Ok(())
}

#[test]
fn https_to_a_port_without_tls_and_a_certificate_for_another_name_are_reported() -> Result<()> {
    let files = Files::new()?;
    let plain = Up::start(&[], &[])?;
    let api = format!("https://127.0.0.1:{}", plain.api);
    let mut error = String::new();
    wait_until(PATIENCE, || {
        error = list(&api, Some(&files.text("ca.pem"))).expect(2).err;
        Ok(error.contains("not over TLS"))
    })
    .with_context(|| error.clone())?;
    assert!(error.contains("use http://") && error.contains("controller.tls"), "{error}");

    files.renew("ca.pem", &["serin.example"])?;
    let up = Up::start(&secured(&files), &[])?;
    let api = format!("https://localhost:{}", up.api);
    wait_until(PATIENCE, || {
        error = list(&api, Some(&files.text("ca.pem"))).expect(2).err;
        Ok(error.contains("the certificate is for another name"))
    })
    .with_context(|| error.clone())?;
    assert!(error.contains("--api"), "{error}");
    Ok(())
}

#[test]
fn an_invalid_certificate_is_reported_at_the_start() -> Result<()> {
    let files = Files::new()?;
    std::fs::write(files.path("key.pem"), "no key")?;
    let mut up = Up::start(&secured(&files), &[])?;
    wait_until(PATIENCE, || Ok(up.child.try_wait()?.is_some()))?;
    let log = up.log();
    assert!(log.contains("controller.tls.key") && log.contains("there is no private key in it"), "{log}");
    Ok(())
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart() -> Result<()> {
    let files = Files::new()?;
    let mut settings = secured(&files);
    // The API's files are only reloaded on SIGHUP within this test, those of the admin port every 50 ms.
    settings.extend(["controller.tls.reload_every=1h".to_owned(), "router.admin_tls.reload_every=50ms".to_owned()]);
    let up = Up::start(&settings, &[])?;
    let api = format!("https://127.0.0.1:{}", up.api);
    let admin = format!("https://127.0.0.1:{}/healthz", up.admin);
    wait_until(PATIENCE, || Ok(list(&api, Some(&files.text("ca.pem"))).code == 0)).with_context(|| up.log())?;

    files.renew("new-ca.pem", &["localhost", "127.0.0.1"])?;
    wait_until(PATIENCE, || Ok(get(&admin, &files.path("new-ca.pem")).is_ok())).with_context(|| up.log())?;
    assert!(get(&admin, &files.path("ca.pem")).is_err(), "the old certificate is still in use");
    list(&api, Some(&files.text("ca.pem"))).expect(0);
    up.hang_up()?;
    wait_until(PATIENCE, || Ok(list(&api, Some(&files.text("new-ca.pem"))).code == 0)).with_context(|| up.log())?;

    // An incomplete renewal has no effect.
    std::fs::write(files.path("key.pem"), "no key")?;
    up.wait_for_log("the changed certificate cannot be used")?;
    up.hang_up()?;
    list(&api, Some(&files.text("new-ca.pem"))).expect(0);
    assert!(get(&admin, &files.path("new-ca.pem")).is_ok());
    Ok(())
}

#[test]
fn metrics_reach_a_collector_over_tls_and_a_failure_is_logged_once() -> Result<()> {
    let files = Files::new()?;
    let (broken, got) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let collector = {
        let _inside = runtime.enter();
        let tls = TlsFiles {
            certificate: files.path("cert.pem"),
            key: files.path("key.pem"),
            client_ca: None,
            reload_every: TlsFiles::reload_every(),
        };
        let certificate = Certificate::load("collector", tls, PROTOCOLS)?;
        let socket = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let listener = Listener::new(socket, Some(&certificate))?;
        let address = listener.address();
        let (broken, got) = (Arc::clone(&broken), Arc::clone(&got));
        let routes = Router::new().route(
            "/v1/metrics",
            post(move |body: Bytes| {
                let status = if broken.load(Ordering::Relaxed) {
                    StatusCode::SERVICE_UNAVAILABLE
                } else {
                    got.fetch_add(body.len(), Ordering::Relaxed);
                    StatusCode::OK
                };
                async move { status }
            }),
        );
        runtime.spawn(listener.serve(routes, std::future::pending()));
        address
    };
    let settings = [
        format!("telemetry.otlp=https://{collector}/v1/metrics"),
        format!("telemetry.otlp_ca_file={}", files.text("ca.pem")),
    ];
    let often = [("OTEL_METRIC_EXPORT_INTERVAL", "50")];
    let up = Up::start(&settings, &often)?;
    up.wait_for_log("it answers 503")?;
    broken.store(false, Ordering::Relaxed);
    up.wait_for_log("metrics reach the OTLP collector again")?;
    wait_until(PATIENCE, || Ok(got.load(Ordering::Relaxed) > 1000))?;
    assert_eq!(up.log().matches("it answers 503").count(), 1, "{}", up.log());

    // A CA that did not sign the certificate.
    let other = Files::new()?;
    let settings = [settings[0].clone(), format!("telemetry.otlp_ca_file={}", other.text("ca.pem"))];
    let up = Up::start(&settings, &often)?;
    up.wait_for_log("not signed by a trusted CA")?;
    let mut tries = 0;
    wait_until(PATIENCE, || {
        tries += 1;
        Ok(tries > 50)
    })?;
    assert_eq!(up.log().matches("do not reach the OTLP collector").count(), 1, "{}", up.log());
    Ok(())
}
