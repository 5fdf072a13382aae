//! Verbs whose output is closed early, and verbs whose controller restarts while they wait.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    fs::File,
    io::{BufRead as _, BufReader, pipe},
    process::{Command, Stdio},
};

use support::{PATIENCE, Pipeline, wait_until};
use world::{Behavior, User, borrowed, command, model_server, rollout, run, unreachable_url, wall};

/// Runs a command with standard output, standard error, or both closed, and compares it with a normal run.
fn with_closed_outputs(what: &str, make: &dyn Fn() -> Command) {
    let open = run(&mut make());
    assert!(!open.err.contains("panicked"), "{what}: {open:?}");
    let closed = || pipe().unwrap().1;
    let no_stdout = run(make().stdout(closed()));
    // `run` captures both streams of a command unless they are set.
    let outcome = |run: &world::Run| (run.code, run.err.contains("panicked"));
    assert_eq!(outcome(&no_stdout), (open.code, false), "{what}: {no_stdout:?}, with a reader {open:?}");
    let no_stderr = run(make().stderr(closed()));
    // Durations and counts change between two runs.
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    assert_eq!(
        (no_stderr.code, words(&no_stderr.out)),
        (open.code, words(&open.out)),
        "{what}: {no_stderr:?}, with a reader {open:?}"
    );
    assert_eq!(run(make().stdout(closed()).stderr(closed())).code, open.code, "{what}");
}

#[test]
fn closed_outputs_do_not_change_the_exit_status() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = file("good.yaml", &rollout("v2", "1m"));
    let bad = file("bad.yaml", "kind: Rolout\n");
    let rows = (0..40).fold("id,prediction\n".to_owned(), |text, i| text + &format!("{i},{}\n", i % 7));
    let csv = file("a.csv", &rows);
    let offline: &[&[&str]] = &[
        &["--help"],
        &["--version"],
        &["apply", "--help"],
        &["nonsense"],
        &["up", "--dump-config"],
        &["schema"],
        &["completion", "bash"],
        &["lint", "-f", &good],
        &["lint", "-f", &bad, "--output", "json"],
        &["plan", "-f", &good, "--traffic", "100/s"],
        &["plan", "-f", &good, "--traffic", "none"],
        &["simulate", "--list"],
        &["simulate", "-f", &good, "--traffic", "10/s", "--runs", "2", "--until", "1m"],
        &["compare", &csv, &csv, "--max-differ", "0.5"],
        &["compare", &csv, "/nowhere.csv"],
        &["replay", "--from", "/nowhere"],
        &["topology", "check"],
    ];
    for arguments in offline {
        with_closed_outputs(&arguments.join(" "), &|| {
            let mut command = command(arguments);
            command.current_dir(folder.path());
            command
        });
    }
    // A full disk is reported, unlike a closed pipe.
    let full = run(command(&["schema"]).stdout(File::options().write(true).open("/dev/full").unwrap()));
    assert!(full.code == 2 && full.err.contains("standard output: No space left on device"), "{full:?}");

    let (v1, v2) = (model_server(Behavior::Good), model_server(Behavior::Good));
    let mut pipeline = Pipeline::embedded(&borrowed(&wall(&[("v1", &v1), ("v2", &v2)]))).unwrap();
    let user = User(pipeline.api());
    let id = user.apply(&rollout("v2", "1h"));
    let online: &[&[&str]] = &[
        &["list"],
        &["get", &id],
        &["get", &id, "--output", "json"],
        &["status", &id],
        &["status", "nothing"],
        &["explain", &id],
        &["abort", "nothing"],
    ];
    for arguments in online {
        with_closed_outputs(&arguments.join(" "), &|| {
            let mut command = command(arguments);
            command.env("SERIN_API", &user.0);
            command
        });
    }
    // Verbs that print continuously end when their output is closed.
    let mut watch = command(&["get", &id, "--watch", "--output", "json"]);
    let mut watch = watch.env("SERIN_API", &user.0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(watch.stdout.take().unwrap()).read_line(&mut first).unwrap();
    user.run(&["pause", &id]).expect(0);
    wait_until(PATIENCE, || Ok(watch.try_wait()?.is_some())).unwrap();
    assert!(watch.wait().unwrap().success());
    for more in [&["--from-beginning"][..], &["--from-beginning", "--until-end"], &["--output", "json"]] {
        tail_with_closed_output(&pipeline, &[&["tail", "audit"], more].concat(), &user);
    }
    pipeline.stop_all().unwrap();
}

/// Checks that `tail` of a growing topic ends when its output is closed.
fn tail_with_closed_output(pipeline: &Pipeline, arguments: &[&str], user: &User) {
    let settings = pipeline.arguments("up");
    let all: Vec<&str> = arguments.iter().copied().chain(settings.iter().map(String::as_str)).collect();
    let mut child = command(&all).stdout(pipe().unwrap().1).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(PATIENCE, || {
        user.run(&["resume", "flights"]);
        Ok(child.try_wait()?.is_some())
    })
    .unwrap();
    let output = child.wait_with_output().unwrap();
    let panicked = String::from_utf8_lossy(&output.stderr).contains("panicked");
    assert!(output.status.success() && !panicked, "{arguments:?}: {output:?}");
}

#[test]
fn verbs_keep_waiting_over_a_restart_of_the_controller() {
    let (v1, v2) = (model_server(Behavior::Good), model_server(Behavior::Good));
    let mut pipeline = Pipeline::embedded(&borrowed(&wall(&[("v1", &v1), ("v2", &v2)]))).unwrap();
    let user = User(pipeline.api());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rollout.yaml");
    std::fs::write(&file, rollout("v2", "1h")).unwrap();
    let mut applied = user.start(&["apply", "-f", &file.display().to_string(), "--wait"]);
    let mut printed = BufReader::new(applied.stdout.take().unwrap()).lines().map_while(Result::ok);
    let accepted = printed.find(|line| line.contains("accepted")).unwrap();
    let id = accepted.split_whitespace().nth(1).unwrap().to_owned();
    let mut status = user.start(&["status", &id, "--wait"]);
    let mut watch = user.start(&["get", &id, "--watch", "--output", "json"]);
    let mut seen = world::lines_of(&mut watch);
    let _first = seen.next().unwrap();
    let mut errors: Vec<_> = [&mut applied, &mut status, &mut watch]
        .into_iter()
        .map(|child| BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok))
        .collect();
    drop(std::thread::spawn(move || seen.count()));
    drop(std::thread::spawn(move || printed.count()));

    pipeline.kill("up").unwrap();
    for lines in &mut errors {
        let line = lines.next().unwrap();
        assert!(line.contains("no controller answers at ") && line.ends_with("retrying until --timeout"), "{line}");
    }
    pipeline.start("up").unwrap();
    for lines in &mut errors {
        assert_eq!(lines.next().unwrap(), "the controller answers again");
    }
    user.run(&["abort", &id]).expect(0);
    assert_eq!(applied.wait().unwrap().code(), Some(4));
    assert_eq!(status.wait().unwrap().code(), Some(4));
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    assert!(errors.iter_mut().all(|lines| lines.next().is_none()));
}

#[test]
fn no_verb_waits_longer_than_the_timeout() {
    let away = User(unreachable_url());
    for arguments in [&["status", "m", "--wait", "--timeout", "1s"][..], &["get", "m", "--watch", "--timeout", "1s"]] {
        let run = away.run(arguments).expect(2);
        let mut lines = run.err.lines();
        assert!(lines.next().unwrap().ends_with("retrying until --timeout"), "{run:?}");
        assert!(lines.next().unwrap().starts_with("error: no controller answers at "), "{run:?}");
    }
    let run = away.with_file(&rollout("v2", "1h"), &["apply", "-f", "{}", "--wait", "--timeout", "1s"]).expect(2);
    assert!(run.err.contains("retrying until --timeout"), "{run:?}");
    // Without `--wait`, a verb fails at the first refused connection.
    let run = away.run(&["status", "m"]).expect(2);
    assert!(run.err.starts_with("error: no controller answers at "), "{run:?}");
}
