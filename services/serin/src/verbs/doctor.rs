//! `serin doctor`: checks the whole installation from where it runs, and names a command or a setting for each finding.
//!
//! The judgement is pure ([`routers`], [`rollouts`], [`disk`], [`not_ready`]). The verb only collects what it needs.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use serin_rollout::RolloutState;
use serin_schemas::{
    ids::EventTime,
    records::{Phase, RouterStatus},
};

use crate::{
    cli::{Doctor, Output},
    client::{Api, ApiError},
    exit,
    http::Http,
    output, serve, settings,
    terminal::{Terminal, Tone},
    time::span,
};

/// Timeout of the answer of a service.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A router that has not reported for this long is reported as away, in seconds. Routers report every second or two.
const SILENT_SECONDS: f64 = 30.0;
/// A router that has not reported for this long is gone, in seconds: its process was killed, and another one has a new name.
const GONE_SECONDS: f64 = 3600.0;
/// Difference between a router's clock and this machine's that is reported, in seconds. The aggregator uses the same bound.
const CLOCK_SECONDS: f64 = 2.0;
/// Free share of a disk below which it is reported.
const FREE_SHARE: f64 = 0.1;
/// Free bytes below which a disk is reported.
const FREE_BYTES: u64 = 1 << 30;

/// What was found about one part of the installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// The part, such as `log` or `router router-1`.
    part: String,
    /// Whether there is nothing to do.
    ok: bool,
    /// What was found, in one sentence.
    found: String,
    /// The command or setting that repairs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn good(part: impl Into<String>, found: impl Into<String>) -> Self {
        Self { part: part.into(), ok: true, found: found.into(), fix: None }
    }

    fn bad(part: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { part: part.into(), ok: false, found: found.into(), fix: Some(fix.into()) }
    }

    fn line(&self, terminal: Terminal) -> String {
        let (mark, tone) = if self.ok { ("ok", Tone::Good) } else { ("!!", Tone::Bad) };
        let fix = self.fix.as_ref().map_or_else(String::new, |fix| format!("; {fix}"));
        terminal.wrap(&format!("{} {}: {}{fix}", terminal.paint(mark, tone), self.part, self.found), 5)
    }
}

/// `serin doctor`.
pub(crate) async fn doctor(args: &Doctor) -> anyhow::Result<ExitCode> {
    // A configuration with problems ends here: it lists all of them.
    let settings = settings::load(&args.serve)?;
    let mut found = vec![Finding::good("configuration", "no problem")];
    found.push(files());
    found.push(disk_of(&settings.data_dir.0));
    found.extend(log(&settings));
    let services = if args.services.is_empty() {
        let scheme = if settings.telemetry.tls.is_some() { "https" } else { "http" };
        vec![format!("{scheme}://{}", settings.telemetry.listen)]
    } else {
        args.services.clone()
    };
    let http = Http::new(args.remote.connection.ca_file.as_deref(), TIMEOUT).context("--ca-file")?;
    for service in &services {
        found.extend(readiness(&http, service.trim_end_matches('/')).await);
    }
    found.extend(controller(&Api::new(&args.remote)?, &args.remote.connection.api).await);

    let problems = found.iter().filter(|finding| !finding.ok).count();
    match args.remote.output {
        Output::Json => output::json(&found)?,
        Output::Text => {
            let terminal = Terminal::stdout();
            for finding in &found {
                output::line(finding.line(terminal));
            }
            output::line(match problems {
                0 => format!("{} checks, no problem", found.len()),
                1 => format!("{} checks, 1 problem", found.len()),
                more => format!("{} checks, {more} problems", found.len()),
            });
        }
    }
    Ok(exit::done_if(problems == 0))
}

fn files() -> Finding {
    match serve::open_files() {
        Ok(allowed) => Finding::good("open files", format!("a process may open {allowed}")),
        Err(error) => Finding::bad("open files", error.to_string(), "see docs/limits.md"),
    }
}

fn disk_of(folder: &Path) -> Finding {
    // The folder is created at the first start.
    let existing = folder.ancestors().find(|part| part.exists()).unwrap_or(Path::new("."));
    match rustix::fs::statvfs(existing) {
        Ok(disk) => {
            self::disk(folder, disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize))
        }
        Err(error) => {
            let found = format!("{} (data_dir) cannot be examined: {error}", folder.display());
            Finding::bad("disk", found, "check the path and its permissions")
        }
    }
}

fn disk(folder: &Path, free: u64, all: u64) -> Finding {
    let share = free as f64 / all.max(1) as f64;
    let found = format!(
        "{:.1} GiB ({:.0} %) free for {} (data_dir)",
        free as f64 / f64::from(1 << 30),
        100.0 * share,
        folder.display()
    );
    if free < FREE_BYTES || share < FREE_SHARE && free < 20 * FREE_BYTES {
        let fix = "free space, or lower log.embedded.max_bytes (docs/limits.md): a full disk stops every stage";
        Finding::bad("disk", found, fix)
    } else {
        Finding::good("disk", found)
    }
}

fn log(settings: &settings::Settings) -> Vec<Finding> {
    let differences =
        serve::open_log_read_only(settings).and_then(|look| serve::differences(look.log.as_ref(), settings));
    match differences {
        Ok(differences) if differences.is_empty() => {
            vec![Finding::good("log", format!("{} topics are as expected", settings.topics().len()))]
        }
        Ok(differences) => {
            let fix = "serin topology ensure creates missing topics";
            differences.into_iter().map(|difference| Finding::bad("log", difference, fix)).collect()
        }
        Err(error) => {
            let fix = "check log.kind, log.kafka.brokers and data_dir (serin up --dump-config shows them)";
            vec![Finding::bad("log", format!("{error:#}"), fix)]
        }
    }
}

async fn readiness(http: &Http, service: &str) -> Vec<Finding> {
    let part = format!("service {service}");
    let request = Request::builder().method(Method::GET).uri(format!("{service}/readyz")).body(Bytes::new());
    let answer = match request {
        Ok(request) => http.send(request).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match answer {
        Ok(answer) if answer.status().is_success() => vec![Finding::good(part, "ready")],
        Ok(answer) => not_ready(&part, answer.status(), &String::from_utf8_lossy(answer.body())),
        Err(error) => {
            let fix = "start it, or name the metrics ports of your services with --services";
            vec![Finding::bad(part, error, fix)]
        }
    }
}

/// Why a service is not ready: the lines of its answer. Without these, or if another program answers, there is only the status.
fn not_ready(part: &str, status: StatusCode, body: &str) -> Vec<Finding> {
    let mut lines = body.lines().filter(|line| !line.trim().is_empty()).peekable();
    if status == StatusCode::SERVICE_UNAVAILABLE && lines.peek().is_some() {
        let fix = "its log has the cause; docs/reliability.md";
        return lines.map(|line| Finding::bad(part, format!("not ready: {line}"), fix)).collect();
    }
    let why = lines.next().filter(|line| !line.starts_with('<')).map_or_else(String::new, |line| format!(": {line}"));
    let fix = "check that this is the metrics port of a service (telemetry.listen), or pass another URL as --services";
    vec![Finding::bad(part, format!("not ready: /readyz answers {status}{why}"), fix)]
}

async fn controller(api: &Api, address: &str) -> Vec<Finding> {
    let part = format!("controller {address}");
    let states = match api.rollouts().await.and_then(crate::client::read::<Vec<RolloutState>>) {
        Ok(states) => states,
        Err(error @ ApiError::Forbidden { .. }) => {
            return vec![Finding::bad(part, error.to_string(), "set SERIN_TOKEN")];
        }
        Err(error) => return vec![Finding::bad(part, error.to_string(), "check controller.listen, or pass --api")],
    };
    let mut found = vec![Finding::good(part, format!("answers; {} rollouts", states.len()))];
    found.extend(rollouts(&states));
    match api.routers().await {
        Ok(reports) => found.extend(routers(&reports, EventTime(Timestamp::now().as_microsecond()))),
        Err(error) => found.push(Finding::bad("routers", error.to_string(), "check the controller's log")),
    }
    found
}

/// Rollouts that need a person.
fn rollouts(states: &[RolloutState]) -> Vec<Finding> {
    let waits = |state: &&RolloutState| matches!(state.phase, Phase::Held | Phase::Paused);
    let of = |state: &RolloutState| {
        let what = if state.phase == Phase::Paused { "is paused" } else { "is held" };
        let found = format!("{what}: {}", state.sentence);
        Finding::bad(format!("rollout of {}", state.spec.model), found, format!("serin get {}", state.spec.model))
    };
    states.iter().filter(waits).map(of).collect()
}

/// Routers that are away, have a wrong clock, cannot use a table, or do not call a version. There is one report per router and
/// partition; the newest of each router counts. Routers that were stopped or are gone are listed without a problem, as long as another
/// one reports.
fn routers(reports: &[RouterStatus], now: EventTime) -> Vec<Finding> {
    let mut names: Vec<&str> = reports.iter().map(|report| report.router.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        let fix = "start one (serin router), and check that it uses the same log and topology.prefix";
        return vec![Finding::bad("routers", "no router has reported to this controller", fix)];
    }
    let has_left = |name: &&str| {
        let newest = reports.iter().filter(|report| report.router == *name).max_by_key(|report| report.at);
        newest.is_some_and(|report| report.leaving || silence(report, now) > GONE_SECONDS)
    };
    let all_left = names.iter().all(has_left);
    let mut found: Vec<Finding> = names
        .into_iter()
        .flat_map(|name| router(name, reports.iter().filter(|report| report.router == name), now))
        .collect();
    if all_left {
        found.push(Finding::bad("routers", "no router reports any more", "start one (serin router)"));
    }
    found
}

/// The time since a report, in seconds. Below zero: the router's clock is ahead of this machine's.
fn silence(report: &RouterStatus, now: EventTime) -> f64 {
    now.since(report.at).as_secs_f64()
}

fn router<'a>(name: &str, reports: impl Iterator<Item = &'a RouterStatus>, now: EventTime) -> Vec<Finding> {
    let reports: Vec<&RouterStatus> = reports.collect();
    let part = format!("router {name}");
    let Some(newest) = reports.iter().max_by_key(|report| report.at) else { return Vec::new() };
    if newest.leaving {
        return vec![Finding::good(part, "was stopped")];
    }
    let behind = silence(newest, now);
    if behind > GONE_SECONDS {
        return vec![Finding::good(part, format!("is gone: it has not reported for {}", span(behind)))];
    }
    let mut found = Vec::new();
    if behind > SILENT_SECONDS {
        let fix =
            "check its process, its connection to the log and its clock; without the log it sends every call to stable";
        found.push(Finding::bad(&part, format!("has not reported for {}", span(behind)), fix));
    } else if behind < -CLOCK_SECONDS {
        let ahead = format!("its clock is {} ahead of this machine's", span(-behind));
        found.push(Finding::bad(&part, ahead, "synchronize both clocks (chronyc tracking)"));
    }
    for report in &reports {
        for refused in &report.refused {
            let sentence = format!("cannot use the newest table of {}: {}", refused.model, refused.reason);
            found.push(Finding::bad(&part, sentence, format!("serin get {}", refused.model)));
        }
        for shed in &report.shed {
            let sentence = format!("does not call version {} of {}: {}", shed.version, shed.model, shed.cause);
            found.push(Finding::bad(&part, sentence, "check the servers of this version"));
        }
    }
    if found.is_empty() {
        found.push(Finding::good(part, "reports, and uses its tables"));
    }
    found
}

#[cfg(test)]
mod tests {
    use serin_schemas::{
        ids::{Generation, ModelName, Version},
        records::{Shed, TableRefused},
    };

    use super::*;

    fn report(router: &str, at: i64) -> RouterStatus {
        RouterStatus {
            router: router.into(),
            incarnation: 1,
            at: EventTime::from_secs(at),
            applied: Vec::new(),
            shed: Vec::new(),
            undecided: Vec::new(),
            refused: Vec::new(),
            configured: None,
            leaving: false,
            seen_outputs: Vec::new(),
            seen_labels: Vec::new(),
        }
    }

    fn lines(reports: &[RouterStatus]) -> Vec<String> {
        let terminal = crate::terminal::of_width(None);
        routers(reports, EventTime::from_secs(1_000)).iter().map(|finding| finding.line(terminal)).collect()
    }

    #[test]
    fn the_newest_report_of_a_router_counts() {
        let found = lines(&[report("b", 999), report("a", 100), report("a", 998)]);
        assert_eq!(found, ["ok router a: reports, and uses its tables", "ok router b: reports, and uses its tables"]);
    }

    #[test]
    fn a_silent_router_and_a_wrong_clock_are_found() {
        let found = lines(&[report("silent", 900), report("early", 1_060)]);
        assert!(found[0].starts_with("!! router early: its clock is 1m 0s ahead"), "{found:?}");
        assert!(found[1].starts_with("!! router silent: has not reported for 1m 40s; check"), "{found:?}");
        assert!(lines(&[])[0].contains("no router has reported"));
    }

    #[test]
    fn routers_that_left_or_are_gone_are_a_problem_only_without_another_one() {
        let stopped = RouterStatus { leaving: true, ..report("a", 10) };
        let mut gone = report("b", -100_000);
        let (model, version) = (ModelName::from("fraud"), Version::from("v2"));
        gone.shed.push(Shed { model, version, since: EventTime::from_secs(1), cause: "refused".into() });
        let left = ["ok router a: was stopped", "ok router b: is gone: it has not reported for 1d 4h"];
        let found = lines(&[stopped.clone(), gone.clone()]);
        assert_eq!(found[..2], left);
        assert_eq!(found[2..], ["!! routers: no router reports any more; start one (serin router)"]);
        let found = lines(&[stopped, gone, report("c", 999)]);
        assert_eq!(found[..2], left);
        assert_eq!(found[2..], ["ok router c: reports, and uses its tables"]);
    }

    #[test]
    fn a_service_that_is_not_ready_is_always_a_problem() {
        let found = |status: StatusCode, reasons: &str| {
            let found = not_ready("service", status, reasons);
            assert!(found.iter().all(|finding| !finding.ok), "{found:?}");
            found.into_iter().map(|finding| finding.found).collect::<Vec<_>>()
        };
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(found(unavailable, "one\ntwo\n"), ["not ready: one", "not ready: two"]);
        for empty in ["", "\n", " \n\n"] {
            assert_eq!(found(unavailable, empty), ["not ready: /readyz answers 503 Service Unavailable"]);
        }
        // Another program answers here.
        assert_eq!(found(StatusCode::NOT_FOUND, "<html>\n</html>"), ["not ready: /readyz answers 404 Not Found"]);
        assert_eq!(found(StatusCode::FORBIDDEN, "no token\n"), ["not ready: /readyz answers 403 Forbidden: no token"]);
    }

    #[test]
    fn refused_tables_and_versions_without_calls_are_found() {
        let mut bad = report("a", 999);
        let (model, version) = (ModelName::from("fraud"), Version::from("v2"));
        bad.refused.push(TableRefused { model: model.clone(), generation: Generation(4), reason: "no address".into() });
        bad.shed.push(Shed { model, version, since: EventTime::from_secs(1), cause: "refused".into() });
        let found = lines(&[bad]);
        assert_eq!(found[0], "!! router a: cannot use the newest table of fraud: no address; serin get fraud");
        assert!(found[1].contains("does not call version v2 of fraud: refused"), "{found:?}");
    }

    #[test]
    fn a_nearly_full_disk_is_found() {
        let of = |free: u64, all: u64| disk(Path::new("data"), free << 30, all << 30).ok;
        assert!(of(100, 1_000) && of(50, 1_000) && of(2, 10));
        assert!(!of(0, 10) && !of(10, 1_000));
    }
}
