//! Callers that hold idle connections, and a process with a low limit of open files: each port keeps its own connections.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use support::{PATIENCE, SERIN, free_port, wait_until};
use tempfile::TempDir;

/// `serin up` with a limit of open files.
struct Up {
    dir: TempDir,
    child: Child,
    router: u16,
    admin: u16,
    api: u16,
    metrics: u16,
}

impl Up {
    fn start(files: u32, settings: &[&str]) -> Self {
        let dir = TempDir::with_prefix("serin-sockets-").unwrap();
        let port = || free_port().unwrap();
        let (router, admin, api, metrics) = (port(), port(), port(), port());
        let mut arguments = vec![
            format!("data_dir={}", dir.path().join("data").display()),
            format!("router.listen=127.0.0.1:{router}"),
            format!("router.admin_listen=127.0.0.1:{admin}"),
            format!("controller.listen=127.0.0.1:{api}"),
            format!("telemetry.listen=127.0.0.1:{metrics}"),
            "topology.partitions=1".to_owned(),
        ];
        arguments.extend(settings.iter().map(ToString::to_string));
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("sh")
            .args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\""), SERIN, "up"])
            .args(arguments.iter().flat_map(|setting| ["--set", setting]))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { dir, child, router, admin, api, metrics }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn ready(files: u32, settings: &[&str]) -> Self {
        let up = Self::start(files, settings);
        wait_until(PATIENCE, || Ok(answers(up.metrics, "/readyz", "200 OK"))).unwrap();
        up
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a port answers a request with this status within a timeout.
fn answers(port: u16, path: &str, status: &str) -> bool {
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    asked().is_ok_and(|text| text.starts_with(&format!("HTTP/1.1 {status}")))
}

/// Opens connections that send only a part of a request's head.
fn half_heads(port: u16, count: usize) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n").ok()?;
        Some(stream)
    };
    (0..count).filter_map(open).collect()
}

#[test]
fn with_too_few_files_the_process_exits_with_an_error() {
    for files in [64, 200] {
        let mut up = Up::start(files, &[]);
        let started = Instant::now();
        while up.child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < PATIENCE, "the process hangs: {}", up.log());
            std::thread::yield_now();
        }
        assert!(!up.child.wait().unwrap().success());
        let expected = format!("this process may open {files} files and needs at least 256: raise the limit");
        assert!(up.log().contains(&expected), "{}", up.log());
    }
}

#[test]
fn limits_that_do_not_fit_are_lowered_and_logged_once() {
    let up = Up::ready(1024, &[]);
    let log = up.log();
    assert_eq!(log.matches("router.limits.connections is 298 instead of 10000").count(), 1, "{log}");
    assert!(answers(up.router, "/", "404"), "a request without a model");
}

#[test]
fn incomplete_requests_on_one_port_do_not_affect_the_others() {
    let up = Up::ready(1024, &[]);
    let held: Vec<TcpStream> =
        [up.api, up.admin, up.metrics].into_iter().flat_map(|port| half_heads(port, 150)).collect();
    assert!(held.len() > 400, "{} connections", held.len());
    // These are more connections than each port accepts. The router still answers all the time.
    let callers = half_heads(up.router, 100);
    for _ in 0..20 {
        assert!(answers(up.router, "/", "404"));
    }
    // Connections without a complete head time out, so each port answers although the callers keep their connections open.
    for (port, path) in [(up.api, "/v1/rollouts"), (up.admin, "/healthz"), (up.metrics, "/healthz"), (up.router, "/")] {
        let status = if port == up.router { "404" } else { "200 OK" };
        wait_until(PATIENCE, || Ok(answers(port, path, status))).unwrap();
    }
    drop((held, callers));
    let warnings = up.log().lines().filter(|line| line.contains("could not be accepted")).count();
    assert!(warnings < 5, "{warnings} warnings:\n{}", up.log());
}
