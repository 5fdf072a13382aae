//! The command line from a user's view: help, a rollout from the file to its end, clear errors, and exit codes.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use serde_json::{Value, json};
use serin_tests::kafka::{Broker, unique_prefix};

use support::Pipeline;
use world::{Behavior, Traffic, User, borrowed, model_server, rollout, serin, unreachable_url, wall};

const VERBS: [&str; 32] = [
    "up",
    "router",
    "aggregator",
    "analyzer",
    "controller",
    "demo",
    "model-server",
    "load",
    "apply",
    "lint",
    "plan",
    "simulate",
    "replay",
    "list",
    "get",
    "status",
    "promote",
    "pause",
    "resume",
    "abort",
    "stop",
    "switch",
    "explain",
    "report",
    "mark",
    "fleet",
    "profile",
    "export",
    "compare",
    "tail",
    "topology",
    "schema",
];

/// Starts a pipeline with v1 and one version per behavior: v2, v3 ...
fn pipeline(canaries: &[Behavior]) -> (Pipeline, User) {
    let all = [&[Behavior::Good], canaries].concat();
    let servers: Vec<(String, String)> =
        all.iter().enumerate().map(|(index, behavior)| (format!("v{}", index + 1), model_server(*behavior))).collect();
    let versions: Vec<(&str, &str)> = servers.iter().map(|(name, url)| (name.as_str(), url.as_str())).collect();
    let pipeline = Pipeline::embedded(&borrowed(&wall(&versions))).unwrap();
    let user = User(pipeline.api());
    (pipeline, user)
}

fn no_rollout(user: &User) {
    insta::assert_snapshot!(user.run(&["list"]).expect(0).out.trim_end(), @"no rollouts yet; start one with: serin apply -f rollout.yaml");
    assert_eq!(user.run(&["list", "--output", "json"]).expect(0).json(), json!([]));
    let unknown = user.run(&["get", "mood"]).expect(2);
    insta::assert_snapshot!(unknown.err.trim_end(), @r#"
    error: there is no rollout "mood", and no model of that name with a rollout
    `serin list` shows all rollouts
    "#);
}

#[test]
fn the_first_page_tells_what_there_is() {
    let help = serin(&["--help"]).expect(0).out;
    insta::assert_snapshot!(help);
    for verb in VERBS {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}");
    }
}

#[test]
fn the_help_of_every_verb_has_an_example() {
    for verb in VERBS {
        let help = serin(&[verb, "--help"]).expect(0).out;
        assert!(help.contains("Usage: "), "{help}");
        assert!(help.contains("Example"), "{verb} has no example:\n{help}");
        assert!(help.contains(&format!("\n  serin {verb}")), "{verb}'s example does not use it:\n{help}");
    }
    insta::assert_snapshot!("help_apply", serin(&["apply", "--help"]).out);
    insta::assert_snapshot!("help_status", serin(&["status", "--help"]).out);
    insta::assert_snapshot!("help_tail", serin(&["tail", "--help"]).out);
}

#[test]
fn a_missing_controller_is_reported() {
    let api = unreachable_url();
    for arguments in [
        &["list"][..],
        &["get", "m"],
        &["status", "m"],
        &["abort", "m"],
        &["stop", "--all"],
        &["explain", "m"],
        &["profile", "m"],
    ] {
        let run = User(api.clone()).run(arguments).expect(2);
        let expected = format!("error: no controller answers at {api}: Connection refused");
        assert!(run.err.starts_with(&expected), "{run:?}");
        assert!(run.err.contains("start one with `serin up`, or pass another URL as --api"), "{run:?}");
        assert_eq!(run.out, "");
    }
}

#[test]
fn invalid_arguments_are_reported() {
    let run =
        serin(&["up", "--set", "log.kind=pulsar", "--set", "telemetry.lisen=1", "--set", "nonsense=1"]).expect(64);
    for expected in
        ["\"pulsar\" is not valid here", "did you mean \"listen\"?", "the key \"nonsense\" is unknown", "--dump-config"]
    {
        assert!(run.err.contains(expected), "{expected}: {}", run.err);
    }
    let run = serin(&["router"]).expect(64);
    assert!(run.err.contains("run `serin up`, or set log.kind to kafka"), "{run:?}");
    let run = serin(&["lint", "-f", "/nowhere.yaml"]).expect(2);
    assert!(run.err.contains("/nowhere.yaml cannot be read") && run.err.contains("No such file"), "{run:?}");
    let run = serin(&["lint", "-f", "-", "--traffic", "many"]).expect(2);
    assert!(run.err.contains("\"many\" is not a rate; write for example 50/s"), "{run:?}");
    let folder = tempfile::tempdir().unwrap();
    let data = format!("data_dir={}", folder.path().display());
    let run = serin(&["tail", "gossip"]).expect(2);
    assert!(run.err.contains("there is no topic \"gossip\"; the topics are predictions, feedback, events,"), "{run:?}");
    let run = serin(&["tail", "audit", "--set", &data]).expect(2);
    assert!(run.err.contains("there is no log in") && run.err.contains("serin up"), "{run:?}");
}

/// `--dump-config` refuses every configuration with which Serin does not start.
#[test]
fn the_configuration_is_only_shown_if_it_can_be_started() {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("data_dir={}", folder.path().display());
    for (wrong, expected) in [
        (
            "router.models.fraud.stable=v9 router.models.fraud.versions.v1=http://127.0.0.1:9",
            "models.fraud.stable: version \"v9\" has no URL under versions",
        ),
        ("router.event_queue=0", "event_queue: must be at least 1"),
        ("router.upstream_ca=/nowhere.pem", "/nowhere.pem"),
        ("controller.lease_renewal=59s", "59s does not fit a lease of 1m"),
        ("controller.policies.fraud.stable=v1", "policies.fraud: give either spec or spec_file"),
        ("telemetry.log_level=a=b=c", "telemetry.log_level"),
        ("aggregator.max_writers=0", "aggregator.max_writers: must be at least 1"),
        ("aggregator.join_memory=1", "aggregator.join_memory: 1 is too little; use at least 65536 bytes"),
        ("analyzer.max_pending_windows=0", "analyzer.max_pending_windows: must be at least 1"),
        (
            "controller.tls.certificate=/nowhere.pem controller.tls.key=/nowhere.key",
            "controller.tls.certificate: /nowhere.pem",
        ),
    ] {
        for more in [&["--dump-config"][..], &[]] {
            let ports = ["router.listen", "router.admin_listen", "controller.listen", "telemetry.listen"];
            let ports = ports.map(|port| format!("{port}=127.0.0.1:0"));
            let settings = ports.iter().map(String::as_str).chain([data.as_str()]).chain(wrong.split(' '));
            let all = [&["up"], more].concat().into_iter().chain(settings.flat_map(|setting| ["--set", setting]));
            let run = serin(&all.collect::<Vec<_>>()).expect(64);
            assert!(run.err.contains(expected) && run.out.is_empty(), "{more:?}: {run:?}");
        }
    }
    let run = serin(&["router", "--dump-config"]).expect(64);
    assert!(run.err.contains("run `serin up`, or set log.kind to kafka"), "{run:?}");
    let mut kafka =
        world::command(&["up", "--dump-config", "--set", "log.kind=kafka", "--set", "log.kafka.brokers=b:1"]);
    let run = world::run(kafka.args(["--set", "log.kafka.properties.group.id=mine"])).expect(64);
    assert!(run.err.contains("the property `group.id` is managed by Serin"), "{run:?}");
}

/// The problems of all services are in one list, and reported before the log or a port is opened.
#[test]
fn all_problems_of_a_configuration_are_listed_with_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serin.yaml");
    std::fs::write(
        &file,
        "router:
  lisen: 127.0.0.1:8000
  event_queue: 0
  models:
    fraud: {stable: v9, versions: {v1: \"http://127.0.0.1:9001\"}}
aggregator: {max_writers: 0, silent_after: many}
analyzer: {max_pending_windows: 0}
controller: {lease_renewal: 1h, history: 0}
",
    )
    .unwrap();
    let data = folder.path().join("data");
    let mut up = world::command(&["up", "--config"]);
    up.arg(&file).arg("--set").arg(format!("data_dir={}", data.display()));
    up.args(["--set", "router.limits.head=1"]).env("SERIN__CONTROLLER__LISTEN", "here");
    let run = world::run(&mut up).expect(64);
    insta::assert_snapshot!("problems_of_a_configuration", run.err.replace(&file.display().to_string(), "serin.yaml"));
    assert!(!data.exists(), "nothing is opened");
}

#[test]
fn a_variable_with_upper_case_letters_in_a_name_is_refused() {
    let dump = || world::command(&["up", "--dump-config"]);
    let variable = "SERIN__ROUTER__MODELS__MyModel__STABLE";
    let run = world::run(dump().env(variable, "v1")).expect(64);
    let expected = format!("{variable}: variables are read in lower case, so this names \"mymodel\", not \"MyModel\"");
    assert!(run.err.contains(&expected) && run.err.contains("--set router.models.MyModel..."), "{run:?}");
    let (stable, versions) = ("SERIN__ROUTER__MODELS__FRAUD__STABLE", "SERIN__ROUTER__MODELS__FRAUD__VERSIONS__V1");
    let run = world::run(dump().env(stable, "V1").env(versions, "http://127.0.0.1:9")).expect(64);
    assert!(run.err.contains("version \"V1\" has no URL under versions; \"v1\" exists"), "{run:?}");
    let taken = world::run(dump().env(stable, "v1").env(versions, "http://127.0.0.1:9")).expect(0).json();
    assert_eq!(taken["router"]["models"]["fraud"]["stable"], "v1");
}

#[test]
fn lint_and_apply_show_every_mistake_with_its_line() {
    let bad = rollout("v2", "3h")
        .replace("kind: Rollout", "kind: Rolout")
        .replace("weight: 50%", "weight: 10%")
        .replace("label: late", "lable: late")
        + "windwo: 1s\n";
    let user = User(unreachable_url());
    let lint = user.with_file(&bad, &["lint", "-f", "{}"]).expect(1);
    insta::assert_snapshot!("lint_of_many_mistakes", lint.out);
    // `apply` prints the same, without a request to the controller.
    assert_eq!(user.with_file(&bad, &["apply", "-f", "{}"]).expect(1).out, lint.out);
    let problems = user.with_file(&bad, &["lint", "-f", "{}", "--output", "json"]).expect(1).json();
    assert_eq!(problems["ok"], false);
    let problems = problems["problems"].as_array().unwrap();
    assert!(problems.len() >= 4, "{problems:?}");
    assert!(problems.iter().all(|problem| problem["line"].as_u64() > Some(0)), "{problems:?}");

    let good = rollout("v2", "1m");
    let report =
        user.with_file(&good, &["lint", "-f", "{}", "--traffic", "1/min", "--output", "json"]).expect(0).json();
    assert_eq!(report["ok"], true);
    assert!(report["problems"].as_array().unwrap().iter().any(|problem| problem["severity"] == "warning"), "{report}");
    user.with_file(&good, &["lint", "-f", "{}"]).expect(0);
}

#[test]
fn what_cannot_be_simulated_planned_or_replayed_is_named() {
    let user = User(unreachable_url());
    let error_of = |arguments: &[&str]| user.with_file(&rollout("v2", "1m"), arguments).expect(2).err;
    let simulate = ["simulate", "-f", "{}", "--traffic", "100/s", "--runs", "1"];
    let with = |more: &[&'static str]| error_of(&[&simulate[..], more].concat());
    insta::assert_snapshot!(
        [
            error_of(&["simulate", "-f", "{}"]),
            with(&["--regression", "error_rate 1% to 2%"]),
            with(&["--regression", "mood 1%->2%"]),
            with(&["--base", "error_rate"]),
            with(&["--share", "origin"]),
            error_of(&["plan", "-f", "{}", "--traffic", "many"]),
            error_of(&["plan", "-f", "{}", "--traffic", "10/s", "--base", "mood=1"]),
        ]
        .concat()
    );
    // `plan` and `simulate` accept what either of them prints.
    for more in [&["--base", "failed=0%"][..], &["--base", "failed=40%"], &["--regression", "wrong_rate=9%"]] {
        let plan = ["plan", "-f", "{}", "--traffic", "100/s"];
        user.with_file(&rollout("v2", "1m"), &[&plan[..], more].concat()).expect(0);
    }
    // With such a base the canary would never get a call.
    let plan = ["plan", "-f", "{}", "--traffic", "100/s", "--base", "failed=100%"];
    let run = user.with_file(&rollout("v2", "1m"), &plan).expect(2);
    assert!(run.err.contains("100 % of stable's answers would be bad"), "{run:?}");
    for text in ["wrong_rate=5%->9%", "wrong_rate 9%", "wrong_rate=x2"] {
        let run =
            user.with_file(&rollout("v2", "1m"), &[&simulate[..], &["--until", "1m", "--regression", text]].concat());
        assert_eq!(run.code, 0, "{run:?}");
    }
    let mean = rollout("v2", "1m")
        + "  - {name: score, kind: {mean: {min: 0, max: 1}}, source: {output: probability}, margin: {absolute: 0.1}}\n";
    for verb in [&["plan"][..], &["simulate", "--runs", "1"]] {
        let all = [verb, &["-f", "{}", "--traffic", "100/s", "--base", "score=5"]].concat();
        let run = user.with_file(&mean, &all).expect(2);
        assert!(run.err.contains("score: 5 is not a mean of values from 0 to 1"), "{run:?}");
    }
    for zero in [["--runs", "0"], ["--jobs", "0"]] {
        let run = user.with_file(&rollout("v2", "1m"), &[&simulate[..5], &zero[..]].concat()).expect(2);
        assert!(run.err.contains(&format!("invalid value '0' for '{}", zero[0])), "{run:?}");
    }
    let unknown = serin(&["simulate", "--scenario", "8.9-nothing"]).expect(2);
    assert!(unknown.err.contains("there is no scenario \"8.9-nothing\""), "{unknown:?}");
    let list = serin(&["simulate", "--list"]).expect(0).out;
    assert!(list.contains("8.2-error-1-to-2 ") && list.lines().count() >= 20, "{list}");
    let missing = serin(&["replay", "--from", "/nowhere"]).expect(2);
    assert!(missing.err.contains("there is no log in /nowhere"), "{missing:?}");
}

#[test]
fn the_schema_of_the_rollout_file_is_printed() {
    assert!(serin(&["schema"]).expect(0).json()["properties"]["apiVersion"].is_object());
}

#[test]
fn tokens_are_required_and_never_shown() {
    let settings = [
        "topology.partitions=2".to_owned(),
        "controller.tokens.ops.role=operator".to_owned(),
        "controller.tokens.ops.token=operator-0123456789".to_owned(),
        "controller.tokens.eyes.role=viewer".to_owned(),
        "controller.tokens.eyes.token=viewer-0123456789".to_owned(),
    ];
    let pipeline = Pipeline::embedded(&borrowed(&settings)).unwrap();
    let user = User(pipeline.api());
    let error_of = |run: world::Run| run.expect(2).err.replace(&pipeline.api(), "API");
    insta::assert_snapshot!(error_of(user.run(&["list"])).trim_end(), @"
    error: API refused the request: a bearer token is needed: `Authorization: Bearer <token>`
    set SERIN_TOKEN to a token with the operator role
    ");
    let wrong = error_of(user.run(&["list", "--token", "wrong-0123456789abc"]));
    assert!(
        wrong.contains("API refused the request: the token is unknown") && !wrong.contains("0123456789"),
        "{wrong}"
    );
    user.run(&["list", "--token", "viewer-0123456789"]).expect(0);
    let viewer = error_of(user.run(&["stop", "--all", "--token", "viewer-0123456789"]));
    assert!(viewer.contains("eyes may read but not act; this request needs the role operator"), "{viewer}");
    user.run(&["stop", "--all", "--token", "operator-0123456789"]).expect(0);
}

/// A rollout from its file to the end of the ramp, in real time, with requests and feedback over HTTP.
#[test]
fn a_good_version_is_promoted() {
    let (pipeline, user) = pipeline(&[Behavior::Good]);
    no_rollout(&user);
    let traffic = Traffic::start(&pipeline.router(), 100);
    traffic.wait_for("stable", 200, 10);

    let applied = user.with_file(&rollout("v2", "1s"), &["apply", "-f", "{}"]).expect(0);
    assert!(applied.out.contains("accepted"), "{applied:?}");
    assert!(applied.out.contains("watch it with: serin get "), "{applied:?}");
    user.run(&["status", "flights"]).expect(1);
    let mut plain = user.start(&["get", "flights", "--watch"]);
    let mut watch = user.start(&["get", "flights", "--watch", "--output", "json"]);
    let seen: Vec<Value> = world::lines_of(&mut watch).map(|line| serde_json::from_str(&line).unwrap()).collect();
    assert!(watch.wait().unwrap().success());
    assert_eq!(seen.last().unwrap()["state"]["phase"], "completed", "{:#}", seen.last().unwrap());
    assert!(seen.iter().any(|line| line["state"]["phase"] == "baking"), "{seen:?}");

    // The output to a pipe is lines: the whole state at the start and at the end, and each event once in between.
    let lines: Vec<String> = world::lines_of(&mut plain).collect();
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert!(plain.wait().unwrap().success() && !lines.iter().any(|line| line.contains('\u{1b}')), "{lines:?}");
    assert!(lines[0].starts_with("flights: ") && count("Ramp: ") <= 2, "{lines:#?}");
    assert_eq!(count("PROMOTED: v2 serves all calls"), 1, "{lines:#?}");
    // It is printed when it happens, and may be repeated in the events at the end.
    assert!((1..=2).contains(&count("  step 2 of 2: 50% to v2")), "{lines:#?}");

    assert!(user.run(&["status", "flights", "--wait", "--timeout", "1m"]).expect(0).out.contains("v2"));
    let rollouts = user.run(&["list", "--output", "json"]).expect(0).json();
    assert_eq!((&rollouts[0]["phase"], &rollouts[0]["ending"]["outcome"]), (&json!("completed"), &json!("promoted")));
    let table = user.run(&["list"]).expect(0).out;
    assert!(table.contains("flights") && table.contains("completed"), "{table}");
    let id = rollouts[0]["id"].as_str().unwrap();
    assert!(table.contains(&format!(" {} ", &id[..8])) && !table.contains(id), "{table}");
    let by_prefix = user.run(&["status", &id[..8], "--output", "json"]).expect(0).json();
    assert_eq!(by_prefix["id"], rollouts[0]["id"]);
    let screen = user.run(&["get", &id[..8]]).expect(0).out;
    for expected in ["Ramp:      ✔ 30%  ✔ 50%  ✔ 100%", "wrong_rate", "failed", "refused", "unusable", "Events:"]
    {
        assert!(screen.contains(expected), "{expected}:\n{screen}");
    }

    // Feedback over HTTP was joined: both arms have labelled answers.
    let verdict = user.run(&["explain", "flights", "--output", "json", "--metric", "wrong_rate"]).expect(0).json();
    assert!(verdict["metrics"][0]["canary"]["n"].as_u64() > Some(0), "{verdict:#}");
    assert_eq!(verdict["metrics"].as_array().unwrap().len(), 1);
    let explained = user.run(&["explain", "flights"]).expect(0).out;
    assert!(explained.contains("Decision: promote") && explained.contains("answers compared"), "{explained}");
    let old_word = user.run(&["explain", "flights", "--output", "json", "--metric", "error_rate"]).expect(0).json();
    assert_eq!(old_word["metrics"][0]["metric"], "failed");
    let unknown = user.run(&["explain", "flights", "--metric", "mood"]).expect(2);
    assert!(
        unknown.err.contains("has no metric \"mood\"; it has failed, refused, unusable, wrong_rate"),
        "{unknown:?}"
    );

    // Traffic now goes to v2, which is stable. The log can be read while `serin up` is running.
    traffic.wait_for("stable", 200, 10);
    let kinds: Vec<Value> =
        pipeline.tail("audit").unwrap().into_iter().map(|mut record| record["value"]["kind"].take()).collect();
    assert!(kinds.contains(&json!("completed")), "{kinds:?}");
    let tailed = pipeline.cli(&["tail", "events", "--from-beginning", "--limit", "5", "--output", "json"]).unwrap();
    assert_eq!(String::from_utf8(tailed.stdout).unwrap().lines().count(), 5);
    let live = pipeline.cli(&["tail", "events", "--limit", "3"]).unwrap();
    assert!(live.status.success() && String::from_utf8_lossy(&live.stdout).lines().count() == 3, "{live:?}");
}

/// The first reason of a rollout that was rolled back.
fn rolled_back_by(behavior: Behavior) -> (Value, String) {
    let (pipeline, user) = pipeline(&[behavior]);
    let _traffic = Traffic::start(&pipeline.router(), 100);
    let run = user.with_file(&rollout("v2", "30m"), &["apply", "-f", "{}", "--wait"]).expect(3);
    let state = user.run(&["status", "flights", "--output", "json"]).expect(3).json();
    assert_eq!(state["phase"], "rolled_back", "{run:?}");
    let mut verdict = user.run(&["explain", "flights", "--output", "json"]).expect(0).json();
    (verdict["reasons"][0].take(), run.out)
}

#[test]
fn a_version_that_fails_is_rolled_back() {
    let (reason, output) = rolled_back_by(Behavior::Fails);
    assert_eq!(reason["metric"], "failed", "{reason:#}");
    assert!(output.contains("error rate is 100.0 %"), "{output}");
}

#[test]
fn a_version_with_unusable_answers_is_rolled_back() {
    let (reason, output) = rolled_back_by(Behavior::Nan);
    assert_eq!(reason["metric"], "unusable", "{reason:#}");
    assert!(output.contains("unusable answers is 100.0 %"), "{output}");
}

#[test]
fn an_operator_promotes_pauses_and_ends_a_rollout() {
    let (pipeline, user) = pipeline(&[Behavior::Good]);
    let traffic = Traffic::start(&pipeline.router(), 100);
    let id = user.apply(&rollout("v2", "1h"));
    let same = user.with_file(&rollout("v2", "1h"), &["apply", "-f", "{}"]).expect(0);
    assert!(same.out.starts_with(&format!("unchanged: rollout {id} runs with this file")), "{same:?}");
    let second = user.with_file(&rollout("v2", "2h"), &["apply", "-f", "{}"]).expect(2);
    assert!(second.err.starts_with("error: ") && second.err.contains("flights"), "{second:?}");
    assert_eq!(user.wait_for_phase(&id, "baking")["step"], 0);
    traffic.wait_for("canary", 200, 5);

    let paused = user.run(&["pause", "flights", "--reason", "lunch", "--output", "json"]).expect(0).json();
    assert_eq!((&paused["refused"], &paused["event"]["kind"]), (&json!(false), &json!("paused")), "{paused:#}");
    assert_eq!(user.state(&id)["phase"], "paused");
    assert!(user.run(&["resume", "flights"]).expect(0).out.len() > 10);
    assert_eq!(user.state(&id)["phase"], "baking");
    let promoted = user.run(&["promote", "flights", "--output", "json"]).expect(0).json();
    assert_eq!(promoted["refused"], false, "{promoted:#}");
    assert_eq!(user.state(&id)["step"], 1);
    assert_eq!(user.run(&["abort", &id, "--reason", "enough", "--output", "json"]).expect(0).json()["refused"], false);
    user.run(&["status", &id]).expect(4);
    let again = user.run(&["abort", &id]).expect(2);
    assert!(again.err.starts_with("error: "), "{again:?}");

    let id = user.apply(&rollout("v2", "1h"));
    let stopped = user.run(&["stop", "--all", "--reason", "fire"]).expect(0);
    assert!(stopped.out.contains("the only running rollout has stopped; all traffic is on stable"), "{stopped:?}");
    user.run(&["status", &id]).expect(4);
    let none = user.run(&["stop", "--all", "--output", "json"]).expect(0).json();
    assert_eq!(none["sentence"], "no rollout is running; all traffic is on stable");

    let id = user.apply(&rollout("v2", "1h"));
    user.run(&["promote", &id, "--full", "--reason", "sure"]).expect(0);
    user.run(&["status", &id, "--wait", "--timeout", "1m"]).expect(0);

    let audit = pipeline.tail("audit").unwrap();
    let is_audited = |word: &str| audit.iter().any(|record| record["value"].to_string().contains(word));
    let tailed = pipeline.cli(&["tail", "audit", "--until-end"]).unwrap();
    let tailed = String::from_utf8(tailed.stdout).unwrap();
    assert!(
        tailed.lines().any(|line| line.contains(" rollout_event flights paused: paused by operator: lunch")),
        "{tailed}"
    );
    assert!(["lunch", "enough", "fire", "sure"].into_iter().all(is_audited), "{audit:#?}");
}

#[test]
fn waiting_for_the_end_of_a_rollout_can_time_out() {
    let (pipeline, user) = pipeline(&[Behavior::Good]);
    let id = user.apply(&rollout("v2", "1h"));
    let run = user.run(&["status", &id, "--wait", "--timeout", "1s"]).expect(1);
    assert!(!run.out.is_empty(), "{run:?}");
    drop(pipeline);
}

/// Settings that name topics of this prefix on a real Kafka.
fn on_kafka(broker: &Broker, prefix: &str) -> Vec<String> {
    vec![
        "log.kind=kafka".to_owned(),
        format!("log.kafka.brokers={}", broker.bootstrap()),
        format!("topology.prefix={prefix}"),
    ]
}

fn with(arguments: &[&str], settings: &[String], more: &[&str]) -> world::Run {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("data_dir={}", folder.path().display());
    let all = settings.iter().map(String::as_str).chain(more.iter().copied()).chain([data.as_str()]);
    serin(&arguments.iter().copied().chain(all.flat_map(|setting| ["--set", setting])).collect::<Vec<_>>())
}

#[test]
fn topics_are_created_and_compared_and_a_wrong_layout_is_refused() {
    let broker = Broker::shared().unwrap();
    let settings = on_kafka(broker, &unique_prefix("topology"));
    let missing =
        with(&["topology", "check", "--output", "json"], &settings, &["topology.partitions=2"]).expect(1).json();
    let topics = missing["topics"].as_u64().unwrap();
    assert_eq!(missing["differences"].as_array().unwrap().len() as u64, topics, "{missing}");

    // Missing topics: every stage refuses to start, and `tail` names the topic.
    let up = with(&["controller"], &settings, &["topology.partitions=2"]).expect(2);
    assert!(up.err.contains("verdicts: does not exist; create it with `serin topology ensure`"), "{up:?}");
    let tail = with(&["tail", "verdicts"], &settings, &[]).expect(2);
    assert!(tail.err.contains("verdicts\" does not exist; create it with `serin topology ensure`"), "{tail:?}");

    let ensured = with(&["topology", "ensure"], &settings, &["topology.partitions=2"]).expect(0);
    assert_eq!(ensured.out, format!("{topics} topics are as expected\n"));
    let checked =
        with(&["topology", "check", "--output", "json"], &settings, &["topology.partitions=2"]).expect(0).json();
    assert_eq!(checked, json!({"topics": topics, "differences": []}));

    // A wrong number of partitions is reported for each topic, by `check` and by every role.
    let wrong = with(&["topology", "check"], &settings, &["topology.partitions=3"]).expect(1);
    assert_eq!(
        wrong.out.lines().filter(|line| line.contains("has 2 partitions, expected 3")).count() as u64,
        topics,
        "{wrong:?}"
    );
    for role in ["aggregator", "analyzer", "controller", "up"] {
        let refused =
            with(&[role, "--set", "telemetry.listen=127.0.0.1:0"], &settings, &["topology.partitions=3"]).expect(2);
        assert!(refused.err.contains("the topics differ from their expected configuration"), "{refused:?}");
        assert_eq!(refused.err.matches("has 2 partitions, expected 3").count() as u64, topics, "{refused:?}");
    }
    // Existing topics are never changed.
    with(&["topology", "ensure"], &settings, &["topology.partitions=3"]).expect(1);
    with(&["topology", "check"], &settings, &["topology.partitions=2"]).expect(0);
}

#[test]
fn an_unreachable_cluster_is_reported() {
    let run =
        with(&["topology", "check"], &["log.kind=kafka".to_owned()], &["log.kafka.brokers=127.0.0.1:1"]).expect(2);
    assert!(run.err.contains("127.0.0.1:1"), "{run:?}");
}

#[test]
fn the_embedded_log_is_checked_and_has_only_one_writer() {
    let (pipeline, _user) = pipeline(&[]);
    assert_eq!(pipeline.cli(&["topology", "check"]).unwrap().status.code(), Some(0));
    let settings = pipeline.arguments("up");
    let settings = ["topology", "check"].into_iter().chain(settings.iter().map(String::as_str));
    let wrong = serin(&settings.chain(["--set", "topology.partitions=5"]).collect::<Vec<_>>()).expect(1);
    assert!(wrong.out.contains("events: has 2 partitions, expected 5"), "{wrong:?}");
    let second = pipeline.cli(&["up"]).unwrap();
    let errors = String::from_utf8_lossy(&second.stderr);
    assert!(errors.contains("in use"), "{errors}");
}
