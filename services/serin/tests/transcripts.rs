//! Checks that transcripts in the documentation match the output of the binary.
//!
//! A page marks code blocks with comments, each on the line before a block:
//!
//! - `<!-- file: NAME -->`: the block is a file.
//! - `<!-- runs: PROGRAM -->`: the block is input of a program, such as `python3`, that creates files.
//! - `<!-- transcript -->`: the block has commands (lines that start with `$ `), each with its output, including standard error, and its
//!   exit status if that is not 0.
//! - `<!-- live: background -->`: each line of the block is a process that runs until the end of the page, such as `serin up`.
//! - `<!-- live: transcript -->`: like `transcript`, while these processes run. It is compared without numbers, ids and times.
//! - `<!-- until: COMMAND -->`: repeats a command until it succeeds. It has no block.
//!
//! All blocks of a page share a directory, and run in the order of the page. `SERIN_WRITE_DOCS=1` updates the transcripts.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

#[path = "support/pages.rs"]
mod pages;
mod support;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use pages::{COLUMNS, Stage, masked};

/// Kind of a block, according to its comment.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    File(String),
    Runs(String),
    Transcript,
    Background,
    Live,
    Until(String),
}

fn mark(line: &str) -> Option<Mark> {
    let text = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?;
    match text.split_once(": ") {
        Some(("file", name)) => Some(Mark::File(name.to_owned())),
        Some(("runs", program)) => Some(Mark::Runs(program.to_owned())),
        Some(("until", command)) => Some(Mark::Until(command.to_owned())),
        Some(("live", "background")) => Some(Mark::Background),
        Some(("live", "transcript")) => Some(Mark::Live),
        _ => (text == "transcript").then_some(Mark::Transcript),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// An environment for a page, with links to the project's directories.
fn stage() -> Stage {
    let stage = Stage::new();
    for name in ["services", "examples"] {
        std::os::unix::fs::symlink(root().join(name), stage.folder().join(name)).unwrap();
    }
    stage
}

/// The output of a command of a live transcript: that of the page, unless more than numbers differ.
fn live(stage: &mut Stage, command: &str, kept: &[&str]) -> Vec<String> {
    let (printed, status) = stage.run(command);
    let mut lines: Vec<String> = printed.lines().map(|line| line.trim_end().to_owned()).collect();
    if status != 0 {
        lines.push(format!("[exit status {status}]"));
    }
    if masked(&kept.join("\n")) == masked(&lines.join("\n")) {
        return kept.iter().map(|line| (*line).to_owned()).collect();
    }
    lines
}

/// The output of a command, and the exit status if it is not 0.
fn shell(folder: &Path, command: &str) -> Vec<String> {
    let serin = Path::new(env!("CARGO_BIN_EXE_serin")).parent().unwrap();
    let path = format!("{}:{}", serin.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1; {command}")])
        .env("PATH", path)
        .env("COLUMNS", COLUMNS)
        .env("NO_COLOR", "1")
        .current_dir(folder)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
    let status = output.status.code().unwrap();
    if status != 0 {
        lines.push(format!("[exit status {status}]"));
    }
    lines
}

fn program(folder: &Path, program: &str, input: &str) {
    let mut child = Command::new(program).stdin(Stdio::piped()).current_dir(folder).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program} failed with:\n{input}");
}

/// The page with current transcripts, and their number.
fn renewed(page: &str) -> (String, usize) {
    let mut stage = stage();
    let mut lines = page.lines();
    let (mut out, mut transcripts) = (Vec::new(), 0);
    while let Some(line) = lines.next() {
        out.push(line.to_owned());
        let Some(mark) = mark(line) else { continue };
        if let Mark::Until(command) = &mark {
            stage.until(command);
            continue;
        }
        let fence = lines.next().unwrap_or_default();
        assert!(fence.starts_with("```"), "{line:?} is followed by {fence:?} instead of a code block");
        out.push(fence.to_owned());
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let text = joined(&block);
        match mark {
            Mark::File(name) => fs::write(stage.folder().join(name), stage.with_ports(&text)).unwrap(),
            Mark::Runs(name) => program(stage.folder(), &name, &text),
            Mark::Background => stage.background(&text),
            Mark::Until(_) => {}
            Mark::Live => {
                let mut rest = &block[..];
                while let Some((first, further)) = rest.split_first() {
                    let command = first.strip_prefix("$ ").unwrap_or_else(|| panic!("no command: {first:?}"));
                    let length = further.iter().take_while(|line| !line.starts_with("$ ")).count();
                    out.push((*first).to_owned());
                    out.extend(live(&mut stage, command, &further[..length]));
                    rest = &further[length..];
                }
                transcripts += 1;
            }
            Mark::Transcript => {
                let commands: Vec<&str> = block.iter().filter_map(|line| line.strip_prefix("$ ")).collect();
                assert!(!commands.is_empty(), "no command below {line:?}:\n{text}");
                for command in commands {
                    out.push(format!("$ {command}"));
                    out.extend(shell(stage.folder(), command));
                }
                transcripts += 1;
            }
        }
        if mark_keeps(line) {
            out.extend(block.iter().map(|line| (*line).to_owned()));
        }
        out.push("```".to_owned());
    }
    (joined(&out), transcripts)
}

/// Joins lines, each with a line break.
fn joined(lines: &[impl AsRef<str>]) -> String {
    lines.iter().flat_map(|line| [line.as_ref(), "\n"]).collect()
}

/// Whether the block after this comment is kept unchanged.
fn mark_keeps(line: &str) -> bool {
    !matches!(mark(line), Some(Mark::Transcript | Mark::Live))
}

fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

#[test]
fn transcripts_match_the_output_of_the_binary() {
    let (mut found, mut stale) = (0, Vec::new());
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        let (now, transcripts) = renewed(&page);
        found += transcripts;
        if now == page {
            continue;
        }
        if std::env::var_os("SERIN_WRITE_DOCS").is_some() {
            fs::write(&path, now).unwrap();
            continue;
        }
        let differs = page.lines().zip(now.lines()).enumerate().find(|(_, (kept, now))| kept != now);
        let place =
            differs.map_or_else(String::new, |(n, (kept, now))| format!(":{}\n  has  {kept}\n  now  {now}", n + 1));
        stale.push(format!("{}{place}", path.display()));
    }
    assert!(found >= 5, "only {found} transcripts were found");
    assert!(stale.is_empty(), "run this test with SERIN_WRITE_DOCS=1 and check the change:\n{}", stale.join("\n"));
}
