//! Rows as bytes: what one build wrote, the next must read.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

mod support;

use bytes::Bytes;
use serin_schemas::{
    ids::EventTime,
    records::{Arm, Cell, Phase, Segment, Verdict},
};
use serin_sketches::{Buckets, Rate, Summary, hash::hash64};
use support::{PARTITIONS, SPEC, WINDOW, World};

/// What a task that opens with these rows says once all is closed: of the rollout that bakes, and of the one that warms up.
fn goes_on_from(rows: Vec<(Bytes, Bytes)>) -> Vec<Verdict> {
    assert!(rows.len() > 12);
    let mut world = World::new(13);
    world.harness.reset(rows.into_iter().collect()).unwrap();
    let now = EventTime(support::START.0 + 30 * WINDOW.0);
    for partition in 0..PARTITIONS {
        world.close_one(partition, now);
    }
    assert_eq!(world.verdicts.iter().map(|verdict| verdict.step).collect::<Vec<_>>(), [0, -1]);
    assert!(world.verdicts[0].metrics[0].canary.n > 10);
    assert!(world.verdicts[1].warmup_events.unwrap() > 300);
    world.verdicts
}

/// Rows as they were written by the build that introduced format 4: evidence and waiting windows. Whoever changes
/// the layout of a row raises the format and says how old rows are read. `SERIN_BLESS=1` writes the file again.
#[test]
fn rows_of_format_4_are_read() {
    let settles = SPEC.replacen("\"window\"", "\"settle\": 1, \"window\"", 1);
    let rows = some_rows(&settles, 2);
    let path = golden("rows-v4.bin");
    if std::env::var_os("SERIN_BLESS").is_some() {
        std::fs::write(&path, frame(&rows)).unwrap();
    }
    let golden = unframe(&std::fs::read(path).unwrap());
    assert_eq!(golden, rows);
    goes_on_from(golden);
}

/// Rows that are only there where the spec asks for planned looks and strata, pinned in the same way.
#[test]
fn rows_of_looks_and_strata_are_read() {
    let looks = "\"require\": \"pass\", \"groupSequential\": {\"answers\": 6000}";
    let spec = SPEC.replacen("\"require\": \"pass\"", looks, 1);
    let spec = spec.replacen("\"segments\": [\"origin\"]", "\"stratifyBy\": \"origin\", \"segments\": [\"origin\"]", 1);
    let mut world = World::with_spec(14, &spec);
    world.traffic = 400;
    world.bake();
    world.turn(Phase::Baking, 1, 2500, 7500);
    world.window();
    world.window();
    world.commit();
    let rows: Vec<_> = world.harness.rows().into_iter().collect();
    let path = golden("rows-v4-looks-strata.bin");
    if std::env::var_os("SERIN_BLESS").is_some() {
        std::fs::write(&path, frame(&rows)).unwrap();
    }
    let pinned = unframe(&std::fs::read(path).unwrap());
    assert_eq!(pinned, rows);
    world.window();
    let went_on = world.last().clone();
    let mut again = World::with_spec(14, &spec);
    again.traffic = 400;
    again.bake();
    again.turn(Phase::Baking, 1, 2500, 7500);
    again.window();
    again.window();
    again.harness.reset(pinned.into_iter().collect()).unwrap();
    again.window();
    assert_eq!(again.last(), &went_on);
}

/// Rules had no numbers before format 4: its rollouts say so for as long as they run.
fn under_the_first_rules(mut verdicts: Vec<Verdict>) -> Vec<Verdict> {
    for verdict in &mut verdicts {
        verdict.rules = 1;
    }
    verdicts
}

/// Format 3 counted four outcomes fewer: what it kept goes on, and is written as format 4.
#[test]
fn rows_of_format_3_are_read() {
    let settles = SPEC.replacen("\"window\"", "\"settle\": 1, \"window\"", 1);
    let old = goes_on_from(unframe(&std::fs::read(golden("rows-v3.bin")).unwrap()));
    assert_eq!(old, under_the_first_rules(goes_on_from(some_rows(&settles, 2))));
}

/// Format 2 knew no windows that are left out: what it kept goes on, and is written as format 4.
#[test]
fn rows_of_format_2_are_read() {
    let old = goes_on_from(unframe(&std::fs::read(golden("rows-v2.bin")).unwrap()));
    assert_eq!(old, under_the_first_rules(goes_on_from(some_rows(SPEC, 1))));
}

/// The same of what warm-up learns: summaries per segment value, and sums per bucket of users.
#[test]
fn rows_of_warm_up_are_read() {
    let path = golden("rows-v4-warmup.bin");
    if std::env::var_os("SERIN_BLESS").is_some() {
        std::fs::write(&path, frame(&rows_of_warm_up())).unwrap();
    }
    assert_eq!(unframe(&std::fs::read(path).unwrap()), rows_of_warm_up());
    warms_up_from("rows-v2-warmup.bin");
    warms_up_from("rows-v3-warmup.bin");
    warms_up_from("rows-v4-warmup.bin");
}

fn warms_up_from(file: &str) {
    let golden = unframe(&std::fs::read(golden(file)).unwrap());
    let count = |kind| golden.iter().filter(|(key, _)| kind_of(key) == kind).count();
    assert_eq!((count("warm-up"), count("clusters")), (9, 1));
    let mut world = World::with_spec(13, &sticky());
    world.harness.reset(golden.into_iter().collect()).unwrap();
    world.now = support::START.plus(WINDOW);
    let frozen = (0..20).find_map(|_| {
        world.window();
        world.last().frozen.clone()
    });
    let frozen = frozen.unwrap();
    // Only the rows know that airport, and how alike its users' answers are.
    assert!(frozen.contains("\"SFO\""), "{frozen}");
    world.control.frozen = Some(frozen);
    world.turn(Phase::Baking, 0, 500, 5000);
    world.window();
    let effect = world.metric("error_rate", &Segment::all()).design_effect.unwrap();
    assert!((5.0..12.0).contains(&effect), "{effect}");
}

#[test]
fn rows_of_another_format_are_refused_with_the_way_out() {
    let old = unframe(&std::fs::read(golden("rows-v1.bin")).unwrap());
    let refusal = |rows: Vec<(Bytes, Bytes)>| World::new(13).harness.reset(rows.into_iter().collect()).unwrap_err();
    insta::assert_snapshot!(refusal(old), @"the analyzer's row of progress has format 1, this build reads 2 to 4: let the rollouts end under the version that wrote it, or delete the topic `analyzer-changelog`, the consumer group `analyzer` and the state directory, and it reads `windows` anew (verdicts on what is still retained are written once more, with the same ids)");
    // Each kind of row says so, whichever is read first.
    for what in ["progress", "a rollout", "a hypothesis", "a partial window", "clusters", "warm-up"] {
        let newer = |(key, value): (Bytes, Bytes)| {
            let format = if kind_of(&key) == what { 9 } else { 2 };
            (key, Bytes::from([&[format], &value[1..]].concat()))
        };
        let file = if matches!(what, "clusters" | "warm-up") { "rows-v2-warmup.bin" } else { "rows-v2.bin" };
        let rows: Vec<_> = unframe(&std::fs::read(golden(file)).unwrap()).into_iter().map(newer).collect();
        let text = refusal(rows).to_string();
        let want = format!(
            "the analyzer's row of {what} has format 9, this build reads 2 to 4: run the version that wrote it"
        );
        assert!(text.starts_with(&want), "{text}");
    }
}

fn kind_of(key: &[u8]) -> &'static str {
    if key[0] == b'p' {
        return "progress";
    }
    let end = key.iter().position(|&byte| byte == 0).unwrap();
    match key[end + 1] {
        b'a' => "a rollout",
        b'c' => "clusters",
        b'h' => "a hypothesis",
        b'w' => "warm-up",
        _ => "a partial window",
    }
}

fn golden(name: &str) -> String {
    format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn some_rows(spec: &str, windows: usize) -> Vec<(Bytes, Bytes)> {
    let mut world = World::with_spec(12, spec);
    world.traffic = 400;
    world.bake();
    for _ in 0..windows {
        world.window();
    }
    let part = world.draw().remove(0);
    world.send(&part);
    world.control.rollout = "0198-r2".into();
    world.control.frozen = None;
    world.turn(Phase::Warming, -1, 0, 0);
    world.now = world.now.minus(WINDOW);
    for part in world.draw() {
        world.send(&part);
    }
    world.commit();
    world.harness.rows().into_iter().collect()
}

/// [`support::SPEC`] with users that keep their arm.
fn sticky() -> String {
    SPEC.replacen("\"window\"", "\"assignment\": {\"sticky\": {\"header\": \"x-user\"}}, \"window\"", 1)
}

/// One window of warm-up: a busy airport, and users with eight answers each that are all alike.
fn rows_of_warm_up() -> Vec<(Bytes, Bytes)> {
    let mut world = World::with_spec(12, &sticky());
    world.traffic = 400;
    world.turn(Phase::Warming, -1, 0, 0);
    let mut parts = world.draw();
    let mut buckets = Buckets::new();
    for user in 0..2000_u64 {
        let errors = if user % 4 == 0 { 8.0 } else { 0.0 };
        buckets.insert(hash64(b"user", &user.to_le_bytes()), errors, 8).unwrap();
    }
    let cell = |segment, summary: Summary| Cell {
        arm: Arm::Stable,
        segment,
        metric: "error_rate".to_owned(),
        summary: summary.encode(),
    };
    let busy = Summary::Rate(Rate::new(100_000, 1000).unwrap());
    parts[0].cells.push(cell(Segment::of("origin", "SFO"), busy));
    parts[0].cells.push(cell(Segment::all(), Summary::Buckets(buckets)));
    for part in &parts {
        assert_eq!(world.send(part).poison, None);
    }
    world.close(world.now);
    world.commit();
    world.harness.rows().into_iter().collect()
}

fn frame(rows: &[(Bytes, Bytes)]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in rows.iter().flat_map(|(key, value)| [key, value]) {
        out.extend((part.len() as u32).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

fn unframe(mut bytes: &[u8]) -> Vec<(Bytes, Bytes)> {
    let mut next = || {
        let (length, rest) = bytes.split_first_chunk()?;
        let (part, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        bytes = rest;
        Some(Bytes::copy_from_slice(part))
    };
    std::iter::from_fn(|| Some((next()?, next()?))).collect()
}
