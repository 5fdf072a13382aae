//! Runs the examples of a documentation page: background processes and commands in a directory. The output is compared, except for parts
//! that depend on time and chance.
//!
//! Pages use the default ports. They are replaced by free ports in commands, files and settings, so that a page can run in parallel with
//! other tests, and mapped back in the output. Only processes that were started here are ended.

#![allow(dead_code, reason = "each test file uses only a part of this module")]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::Method;
use tempfile::TempDir;

use crate::support::{PATIENCE, SERIN, free_port, http, wait_until};

/// Width of a page's terminal.
pub(crate) const COLUMNS: &str = "200";
/// Timeout of one block.
const BLOCK: Duration = Duration::from_mins(5);
/// The ports on pages: router, its admin port, API, metrics, model servers.
const PORTS: [u16; 7] = [8000, 8001, 8100, 9464, 9001, 9002, 9003];

/// The environment in which a page is run.
pub(crate) struct Stage {
    folder: TempDir,
    ports: BTreeMap<String, String>,
    running: Vec<Child>,
    /// The last non-empty output of a command.
    last: String,
}

impl Stage {
    /// Creates an empty directory, and finds free ports.
    pub(crate) fn new() -> Self {
        let ports = PORTS.iter().map(|port| (port.to_string(), free_port().unwrap().to_string())).collect();
        Self { folder: tempfile::tempdir().unwrap(), ports, running: Vec::new(), last: String::new() }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the page's ports in a string by the actual ones.
    pub(crate) fn with_ports(&self, text: &str) -> String {
        swap(text, |number| self.ports.get(number).cloned())
    }

    /// Replaces the actual ports in a string by the page's ports.
    fn with_ports_of_page(&self, text: &str) -> String {
        swap(text, |number| self.ports.iter().find(|(_, here)| *here == number).map(|(page, _)| page.clone()))
    }

    fn shell(&self, command: &str) -> Command {
        let here = |port: u16| format!("127.0.0.1:{}", self.ports[&port.to_string()]);
        let serin = Path::new(SERIN).parent().unwrap().display().to_string();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", command])
            .env("PATH", format!("{serin}:{}", std::env::var("PATH").unwrap()))
            .env("COLUMNS", COLUMNS)
            .env("NO_COLOR", "1")
            .env("SERIN__ROUTER__LISTEN", here(8000))
            .env("SERIN__ROUTER__ADMIN_LISTEN", here(8001))
            .env("SERIN__CONTROLLER__LISTEN", here(8100))
            .env("SERIN__TELEMETRY__LISTEN", here(9464))
            .env("SERIN_ROUTER", format!("http://{}", here(8000)))
            .env("SERIN_ROUTER_ADMIN", format!("http://{}", here(8001)))
            .env("SERIN_API", format!("http://{}", here(8100)))
            .stdin(Stdio::null())
            .current_dir(self.folder());
        shell
    }

    fn log(&self, number: usize) -> PathBuf {
        self.folder().join(format!("background-{number}.log"))
    }

    /// Starts each line of a block as a process, and waits until `serin up` is ready.
    pub(crate) fn background(&mut self, block: &str) {
        for line in block.lines().filter(|line| !line.is_empty()) {
            let command = self.with_ports(line.trim_end_matches('&').trim_end());
            let log = File::create(self.log(self.running.len())).unwrap();
            let mut shell = self.shell(&format!("exec {command}"));
            let child = shell.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
            self.running.push(child);
        }
        let ready = format!("http://127.0.0.1:{}/readyz", self.ports["9464"]);
        let is_ready = || Ok(http(Method::GET, &ready, None).is_ok_and(|answer| answer.text == "ready\n"));
        let ready = wait_until(PATIENCE, is_ready);
        assert!(ready.is_ok(), "not ready after {block:?}:\n{}", self.logs());
    }

    /// Runs a block in one shell. Returns its output, including standard error, and its exit status.
    pub(crate) fn run(&mut self, block: &str) -> (String, i32) {
        let path = self.folder().join("block.out");
        let out = File::create(&path).unwrap();
        let mut shell = self.shell(&self.with_ports(block));
        let mut child = shell.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        let mut status = None;
        let ended = wait_until(BLOCK, || {
            status = child.try_wait()?;
            Ok(status.is_some())
        });
        let printed = self.with_ports_of_page(&String::from_utf8_lossy(&fs::read(&path).unwrap()));
        if ended.is_err() {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the block does not end:\n{block}\nit printed:\n{printed}\n{}", self.logs());
        }
        let status = status.unwrap().code().unwrap();
        if !printed.is_empty() {
            printed.clone_into(&mut self.last);
        }
        (printed, status)
    }

    /// Repeats a command until it succeeds.
    pub(crate) fn until(&mut self, command: &str) {
        let succeeds = wait_until(PATIENCE, || Ok(self.run(command).1 == 0));
        assert!(succeeds.is_ok(), "never true: {command}\n{}\n{}", self.last, self.logs());
    }

    /// The output of the background processes.
    pub(crate) fn logs(&self) -> String {
        let logs = (0..self.running.len()).map(|number| fs::read_to_string(self.log(number)).unwrap_or_default());
        logs.collect::<Vec<_>>().join("\n---\n")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in &mut self.running {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Replaces whole numbers in a string.
fn swap(text: &str, by: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let (number, after) = from.split_at(from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len()));
        out += before;
        out += &by(number).unwrap_or_else(|| number.to_owned());
        rest = after;
    }
    out + rest
}

/// Masks the parts of a string that depend on time and chance: numbers with their signs, ids, dates, and the width of columns.
pub(crate) fn masked(text: &str) -> String {
    let line = |line: &str| {
        let line = line.trim_end();
        if line.starts_with("date: ") {
            return "date: #".to_owned();
        }
        let words: Vec<String> = line.split_whitespace().map(word).collect();
        // Evidence is printed as odds, or as "none".
        let text = words.join(" ").replace("# : #", "#").replace(" none ", " # ");
        // Which metrics have too few answers depends on timing.
        text.split("; not judged:").next().unwrap_or_default().to_owned()
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn word(word: &str) -> String {
    // Tables have the first eight digits of an id, which are those of a time.
    let has_length = |part: &str| part.len() >= 12 || part.len() == 8 && part.starts_with("01");
    let is_id = |part: &str| has_length(part) && part.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let plain = word.trim_matches(|c: char| c.is_ascii_punctuation());
    if is_id(plain) {
        return word.replace(plain, "#");
    }
    let mut out = String::new();
    for c in word.chars() {
        match c {
            '0'..='9' => {
                out.truncate(out.trim_end_matches(['-', '+']).len());
                if !out.ends_with('#') {
                    out.push('#');
                }
            }
            '─' if out.ends_with('─') => {}
            c => out.push(c),
        }
        // Join the parts of a fraction or a time.
        for joined in ["#.#", "#,#", "#:#"] {
            if out.ends_with(joined) {
                out.truncate(out.len() - joined.len() + 1);
            }
        }
    }
    out
}

#[test]
fn masks_keep_words_and_their_order() {
    for (text, expected) in [
        ("step 1 of 2: 30% to v2 after 64 answers", "step # of #: #% to v# after # answers"),
        ("rollout 01a1fdf2-b94c-723a-becb-c53d9fa5f068 accepted.", "rollout # accepted."),
        ("2026-11-21 11:51:45  v1 -> v2", "# # v# -> v#"),
        (" 01a2301f  v1      v2", "# v# v#"),
        ("ln e -0.52, for it 3.66,", "ln e #, for it #,"),
        ("0.2000   114 : 1  pass", "# # pass"),
        ("0.2000      none  pass", "# # pass"),
        ("nothing has failed; not judged: wrong (too few answers)", "nothing has failed"),
        ("date: Fri, 27 Nov 2026 19:28:00 GMT", "date: #"),
        ("a   b\u{2500}\u{2500}\u{2500}c ", "a b\u{2500}c"),
    ] {
        assert_eq!(masked(text), expected);
    }
}
