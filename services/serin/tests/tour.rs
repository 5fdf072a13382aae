//! The tour of `README.md`, and the verbs that it uses: `serin model-server`, `serin load` and the emergency switch.
//!
//! The lines of the tour are read from the page and run by a shell, on other ports.
//!
//! Each code block that is run has a comment on the line before it:
//!
//! - `<!-- tour: background -->`: each line is a process that runs until the end of the tour.
//! - `<!-- tour -->`: the lines run in one shell, and succeed.
//! - `<!-- tour: prints -->`: the output of the previous block, except for numbers. `SERIN_WRITE_DOCS=1` updates it.

#[path = "support/pages.rs"]
mod pages;
mod support;

#[path = "support/world.rs"]
mod world;

use std::{fs, path::Path, time::Instant};

use reqwest::Method;
use serde_json::{Value, json};

use pages::{Stage, masked};
use support::{Pipeline, free_port, http};
use world::{Run, serin, unreachable_url};

#[test]
fn the_tour_of_the_readme_promotes_the_good_version_and_rolls_back_the_bad_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let mut stage = Stage::new();
    let (mut all, mut printed, mut page) = (String::new(), String::new(), Vec::new());
    let (mut blocks, mut stale) = (0, Vec::new());
    let started = Instant::now();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        page.push(line.to_owned());
        let Some(kind) = line.strip_prefix("<!-- tour").and_then(|rest| rest.strip_suffix(" -->")) else { continue };
        let fence = lines.next().unwrap();
        assert!(fence.starts_with("```"), "{line:?} is followed by {fence:?} instead of a code block");
        page.push(fence.to_owned());
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let block = block.join("\n");
        let mut kept = block.clone();
        blocks += 1;
        match kind {
            ": background" => stage.background(&block),
            "" => {
                let status;
                (printed, status) = stage.run(&format!("set -e\n{block}"));
                assert_eq!(status, 0, "{block}\nprints:\n{printed}\n{}", stage.logs());
                all += &printed;
            }
            ": prints" if masked(&block) == masked(&printed) => {}
            ": prints" => {
                stale.push(format!("has:\n{block}\nnow:\n{printed}"));
                kept = printed.replace('\r', "").trim_end().to_owned();
            }
            other => panic!("tour{other} is not a valid mark"),
        }
        page.extend([kept, "```".to_owned()]);
    }
    assert_eq!(blocks, 8, "the tour of the README");
    println!("the tour takes {:.0} s:\n{all}\n{}", started.elapsed().as_secs_f64(), stage.logs());
    for expected in [
        "rollout.yaml: 0 errors, 0 warnings",
        "2 is the new stable: ",
        "canary's rate of wrong answers is ",
        "{\"accepted\":1}",
    ] {
        assert!(all.contains(expected), "{expected:?} is missing in:\n{all}\n{}", stage.logs());
    }
    let asked = stage.run("serin status fraud").0;
    assert!(asked.contains("canary's rate of wrong answers"), "{asked}");
    let logs = stage.logs();
    for expected in ["Next, in another terminal:", "answered by version 3", "version 3 answers at http://127.0.0.1:"] {
        assert!(logs.contains(expected), "{expected:?} is missing in:\n{logs}");
    }
    if std::env::var_os("SERIN_WRITE_DOCS").is_some() {
        fs::write(&path, page.join("\n") + "\n").unwrap();
    } else {
        assert!(stale.is_empty(), "run this test with SERIN_WRITE_DOCS=1 and check the change:\n{}", stale.join("\n"));
    }
}

fn load(arguments: &[&str]) -> Run {
    serin(&[&["load", "fraud"], arguments].concat())
}

#[test]
fn a_model_server_answers_fails_and_refuses_as_configured() {
    let mut stage = Stage::new();
    let (good, failing) = (free_port().unwrap(), free_port().unwrap());
    let servers = [
        format!("serin model-server --version 7 --listen 127.0.0.1:{good}"),
        format!("serin model-server --version 8 --listen 127.0.0.1:{failing} --fail 100%"),
        "serin up".to_owned(),
    ];
    stage.background(&servers.join("\n"));
    let at = |port: u16, path: &str| format!("http://127.0.0.1:{port}/v2/{path}");
    stage.until(&format!("curl -sf {} && curl -sf {}", at(good, "health/ready"), at(failing, "health/live")));
    let metadata = http(Method::GET, &at(good, "models/fraud"), None).unwrap().json().unwrap();
    assert_eq!((&metadata["name"], &metadata["versions"]), (&json!("fraud"), &json!(["7"])));

    let infer = |port: u16, path: &str, amounts: Value| {
        let body =
            json!({"id": "a", "inputs": [{"name": "amount", "shape": [1], "datatype": "FP64", "data": amounts}]});
        http(Method::POST, &at(port, path), Some(&body)).unwrap()
    };
    let answer = infer(good, "models/fraud/infer", json!([120.5])).json().unwrap();
    assert_eq!((&answer["id"], &answer["model_version"]), (&json!("a"), &json!("7")), "{answer}");
    assert_eq!(answer["outputs"][0]["data"], json!([0.0]));
    let several = infer(good, "models/fraud/versions/7/infer", json!([120.5, 999.0])).json().unwrap();
    assert_eq!(several["outputs"][0]["data"].as_array().unwrap().len(), 2, "{several}");
    for (port, path, amounts, status, expected) in [
        (failing, "models/fraud/infer", json!([1]), 500, "100% of the calls fail (--fail)"),
        (good, "models/fraud/infer", json!(["x"]), 400, "send for example {\"inputs\":"),
        (
            good,
            "models/fraud/versions/8/infer",
            json!([1]),
            404,
            "version \"8\" is not served here, only version \"7\"",
        ),
    ] {
        let refused = infer(port, path, amounts);
        let error = refused.json().unwrap()["error"].as_str().unwrap().to_owned();
        assert!(refused.status == status && error.contains(expected), "{refused:?}");
    }
    let taken = serin(&["model-server", "--listen", &format!("127.0.0.1:{good}")]).expect(2);
    assert!(taken.err.contains("the address cannot be used; choose another port"), "{taken:?}");
    for (wrong, expected) in [("20", "is not a share; write for example 5%"), ("101%", "is not a share")] {
        let refused = serin(&["model-server", "--wrong", wrong]).expect(2);
        assert!(refused.err.contains(expected), "{refused:?}");
    }
}

#[test]
fn load_reports_why_calls_fail() {
    let away = unreachable_url();
    let run = load(&["--to", &away, "--for", "500ms"]).expect(2);
    assert!(run.err.contains("error: no call was answered") && run.err.contains("refused"), "{run:?}");
    let pipeline = Pipeline::embedded(&[]).unwrap();
    let run = load(&["--to", &pipeline.router(), "--for", "500ms", "--output", "json"]).expect(2);
    assert!(run.err.contains("status 404: ") && run.err.contains("fraud"), "{run:?}");
    let last: Value = serde_json::from_str(run.out.lines().last().unwrap()).unwrap();
    assert_eq!(last["counts"]["calls"], last["counts"]["failed"], "{last}");
    for (arguments, expected) in [
        (["--rate", "0/s"], "must be more than 0"),
        (["--rate", "50"], "is not a rate"),
        (["--to", "localhost:8000"], "pass the router's URL"),
        (["--for", "5"], "is not a time span"),
    ] {
        let run = load(&arguments).expect(2);
        assert!(run.err.contains(expected), "{run:?}");
    }
}

#[test]
fn the_switch_is_set_at_every_router_and_unreachable_routers_are_reported() {
    let (one, other) = (Pipeline::embedded(&[]).unwrap(), Pipeline::embedded(&[]).unwrap());
    let switch = |to: &[&str], routers: &[&str]| serin(&[&["switch"], to, &["--routers", &routers.join(",")]].concat());
    let (one, other, away) = (one.admin(), other.admin(), unreachable_url());
    let both = [&*one, &*other];
    let run = switch(&[], &both).expect(0);
    assert_eq!(run.out.matches(": off: calls follow the routing tables").count(), 2, "{run:?}");
    let run = switch(&["on"], &both).expect(0);
    assert_eq!(run.out.matches(": on: every call goes to stable").count(), 2, "{run:?}");
    let tables = http(Method::GET, &format!("{other}/tables"), None).unwrap().json().unwrap();
    assert_eq!(tables["all_stable"], true);
    let run = switch(&["off", "--output", "json"], &[&one, &away]).expect(1);
    let report = run.json();
    assert_eq!((&report[0]["on"], report[1].get("on")), (&json!(false), None), "{report}");
    assert!(report[1]["problem"].as_str().unwrap().starts_with("no router answers there: "), "{report}");
    let run = switch(&[], &both).expect(0);
    assert!(run.out.contains(": off: ") && run.out.contains(": on: "), "{run:?}");
    switch(&["off"], &both).expect(0);
    for (wrong, expected) in [("127.0.0.1:8001", "write a URL that begins with http://"), (",", "write the URL")] {
        let run = switch(&["on"], &[wrong]).expect(2);
        assert!(run.err.contains(expected), "{run:?}");
    }
}
