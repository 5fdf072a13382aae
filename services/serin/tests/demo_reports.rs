//! The reports of the demo's three rollouts are those in `docs/reports`, and can be verified, until someone changes them.
//! `SERIN_WRITE_DOCS=1` writes them.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{fs, path::Path};

use serde_json::{Value, json};

use support::{Demo, PATIENCE, Pipeline, REPLAY, alone, three_outcomes, wait_until};
use world::User;

/// A text without ids, hashes and numbers, which depend on the time.
fn masked(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !is_part(c)).unwrap_or(from.len()));
        out += before;
        let is_id = word.len() >= 8
            && word.contains(|c: char| c.is_ascii_digit())
            && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        let digits = if is_id { "#".to_owned() } else { word.replace(|c: char| c.is_ascii_digit(), "#") };
        out += &digits;
        while out.contains("##") {
            out = out.replace("##", "#");
        }
        rest = after;
    }
    out + rest
}

#[test]
fn the_reports_of_the_demo_are_those_of_the_documentation_and_can_be_verified() {
    let _alone = alone();
    // The events name the router.
    let pipeline = Pipeline::embedded(&[&REPLAY[..], &["router.name=router-0"]].concat()).unwrap();
    let demo = Demo::start(&["--seed", "1", "--attach", &pipeline.doors()]).unwrap();
    three_outcomes(&demo.finish(PATIENCE * 4).unwrap());
    let user = User(pipeline.api());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reports");
    let rollouts = pipeline.ask("/v1/rollouts").unwrap();
    let mut stale = Vec::new();
    for (canary, outcome) in [("v2", "promoted"), ("v3", "evidence"), ("v4", "evidence")] {
        let state = rollouts.as_array().unwrap().iter().find(|state| state["spec"]["canary"]["version"] == canary);
        let id = state.unwrap()["id"].as_str().unwrap();
        let report = || user.run(&["report", id, "--output", "json"]).expect(0).json();
        // Routers confirm a rollback a moment later.
        let has = |report: &Value, kind: &str| report["events"].as_array().unwrap().iter().any(|e| e["kind"] == kind);
        wait_until(PATIENCE, || Ok(canary == "v2" || has(&report(), "confirmed"))).unwrap();
        let found = report();
        assert_eq!((&found["outcome"], &found["evidence"]["decided"]), (&json!(outcome), &json!(true)), "{canary}");
        assert_eq!(found["notes"], json!([]), "{canary}");
        for (form, end) in [("text", "md"), ("html", "html")] {
            let text = user.run(&["report", id, "--output", form]).expect(0).out;
            let path = folder.join(format!("flights-{canary}.{end}"));
            let kept = fs::read_to_string(&path).unwrap_or_default();
            if masked(&kept) != masked(&text) {
                if std::env::var_os("SERIN_WRITE_DOCS").is_some() {
                    fs::write(&path, text).unwrap();
                } else {
                    stale.push(path.display().to_string());
                }
            }
        }
        verify(&pipeline, &user, id, &found);
    }
    assert!(stale.is_empty(), "run this test with SERIN_WRITE_DOCS=1 and check the change: {}", stale.join(", "));
}

/// Each form of a report is verified, by the API and on the log itself. A change of the report is found.
fn verify(pipeline: &Pipeline, user: &User, id: &str, report: &Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report");
    let file = file.to_str().unwrap();
    for form in ["text", "html", "json"] {
        fs::write(file, user.run(&["report", id, "--output", form]).expect(0).out).unwrap();
        let run = user.run(&["report", "--verify", file]).expect(0);
        assert!(run.out.starts_with(&format!("{id}: the controller has the same ")), "{run:?}");
    }
    let data = format!("data_dir={}", pipeline.data_dir("up").display());
    let on_log = ["report", "--verify", file, "--log", "--set", &data];
    let run = user.run(&on_log).expect(0);
    assert!(run.out.starts_with(&format!("{id}: the log has the same ")), "{run:?}");

    let mut edited = report.clone();
    edited["events"][0]["actor"] = json!("eve");
    fs::write(file, edited.to_string()).unwrap();
    for arguments in [&["report", "--verify", file][..], &on_log] {
        let run = user.run(arguments).expect(1);
        assert!(run.out.contains("event 1: actor is \"eve\" in the report and \"operator\" now"), "{run:?}");
    }
    let run = user.run(&["report", "--verify", file, "--output", "json"]).expect(1);
    assert_eq!((&run.json()["same"], &run.json()["rollout"]), (&json!(false), &json!(id)));
    fs::write(file, "no report").unwrap();
    let run = user.run(&["report", "--verify", file]).expect(2);
    assert!(run.err.contains("it is not a report: there is no line `serin.chain/v1 ROLLOUT EVENTS HEAD`"), "{run:?}");
}
