//! Rows as bytes: the next build must read what one build wrote.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use bytes::Bytes;
use serin_schemas::{
    ids::EventTime,
    records::{Arm, Cell, Phase, RULES, Segment, Verdict, WindowClosed},
};
use serin_sketches::{Buckets, Rate, Summary, hash::hash64};
use support::{PARTITIONS, SPEC, WINDOW, World};

/// The verdicts of a task that opens with these rows once all is closed: on the rollout that bakes, and on the one that warms up.
fn continues_from(rows: Vec<(Bytes, Bytes)>) -> Vec<Verdict> {
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

/// Rows as written by the build that introduced format 6: evidence and pending windows. A change of the layout of a row needs
/// a new format and code that reads old rows. `SERIN_BLESS=1` writes the file again.
#[test]
fn rows_of_format_6_are_read() {
    let settles = SPEC.replacen("\"window\"", "\"settle\": 1, \"window\"", 1);
    let rows = some_rows(&settles, 2, RULES);
    let path = golden("rows-v6.bin");
    if std::env::var_os("SERIN_BLESS").is_some() {
        std::fs::write(&path, frame(&rows)).unwrap();
    }
    let golden = unframe(&std::fs::read(path).unwrap());
    assert_eq!(golden, rows);
    continues_from(golden);
}

/// Rows that exist only where the spec asks for planned looks and strata, pinned in the same way.
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
    let path = golden("rows-v6-looks-strata.bin");
    if std::env::var_os("SERIN_BLESS").is_some() {
        std::fs::write(&path, frame(&rows)).unwrap();
    }
    let pinned = unframe(&std::fs::read(path).unwrap());
    assert_eq!(pinned, rows);
    world.window();
    let continued = world.last().clone();
    let mut again = World::with_spec(14, &spec);
    again.traffic = 400;
    again.bake();
    again.turn(Phase::Baking, 1, 2500, 7500);
    again.window();
    again.window();
    again.harness.reset(pinned.into_iter().collect()).unwrap();
    again.window();
    assert_eq!(again.last(), &continued);
}

/// Format 5 did not keep what units add to the checks of calls. Windows that wait had no counts per unit.
#[test]
fn rows_of_format_5_are_read() {
    let settles = SPEC.replacen("\"window\"", "\"settle\": 1, \"window\"", 1);
    let old = continues_from(unframe(&std::fs::read(golden("rows-v5.bin")).unwrap()));
    assert_eq!(old, continues_from(some_rows(&settles, 2, RULES)));
}

/// Format 4 did not count labels that contradict each other.
#[test]
fn rows_of_format_4_are_read() {
    let settles = SPEC.replacen("\"window\"", "\"settle\": 1, \"window\"", 1);
    let old = continues_from(unframe(&std::fs::read(golden("rows-v4.bin")).unwrap()));
    assert_eq!(old, continues_from(some_rows(&settles, 2, RULES)));
}

/// Format 3 counted four outcomes fewer, and rules had no numbers. Its rollouts continue under the first rules, and are written as
/// format 6.
#[test]
fn rows_of_format_3_are_read() {
    let settles = SPEC.replacen("\"window\"", "\"settle\": 1, \"window\"", 1);
    let old = continues_from(unframe(&std::fs::read(golden("rows-v3.bin")).unwrap()));
    assert_eq!(old, continues_from(some_rows(&settles, 2, 1)));
}

/// Format 2 had no windows that are left out. Its rollouts continue, and are written as format 6.
#[test]
fn rows_of_format_2_are_read() {
    let old = continues_from(unframe(&std::fs::read(golden("rows-v2.bin")).unwrap()));
    assert_eq!(old, continues_from(some_rows(SPEC, 1, 1)));
}

/// The same for what warm-up learns: summaries per segment value, and sums per bucket of users.
#[test]
fn rows_of_warm_up_are_read() {
    let path = golden("rows-v6-warmup.bin");
    if std::env::var_os("SERIN_BLESS").is_some() {
        std::fs::write(&path, frame(&rows_of_warm_up())).unwrap();
    }
    assert_eq!(unframe(&std::fs::read(path).unwrap()), rows_of_warm_up());
    warms_up_from("rows-v2-warmup.bin", 1);
    warms_up_from("rows-v3-warmup.bin", 1);
    warms_up_from("rows-v4-warmup.bin", RULES);
    warms_up_from("rows-v5-warmup.bin", RULES);
    warms_up_from("rows-v6-warmup.bin", RULES);
}

fn warms_up_from(file: &str, rules: i32) {
    let golden = unframe(&std::fs::read(golden(file)).unwrap());
    let count = |kind| golden.iter().filter(|(key, _)| kind_of(key) == kind).count();
    assert_eq!((count("warm-up"), count("clusters")), (9, 1));
    let mut world = World::with_spec(13, &sticky());
    world.control.rules = rules;
    world.harness.reset(golden.into_iter().collect()).unwrap();
    world.now = support::START.plus(WINDOW);
    let frozen = (0..20).find_map(|_| {
        world.window();
        world.last().frozen.clone()
    });
    let frozen = frozen.unwrap();
    // Only the rows contain that airport, and how alike its users' answers are.
    assert!(frozen.contains("\"SFO\""), "{frozen}");
    world.control.frozen = Some(frozen);
    world.turn(Phase::Baking, 0, 500, 5000);
    world.window();
    let effect = world.metric("error_rate", &Segment::all()).design_effect.unwrap();
    assert!((5.0..12.0).contains(&effect), "{effect}");
}

/// Rows are a cache: with rows of an unknown build, a task starts from scratch instead of stopping.
#[test]
fn rows_of_an_unknown_format_are_deleted() {
    let newer = |(key, value): (Bytes, Bytes)| (key, Bytes::from([&[99], &value[1..]].concat()));
    let read = |file| unframe(&std::fs::read(golden(file)).unwrap());
    for rows in [read("rows-v1.bin"), read("rows-v2.bin").into_iter().map(newer).collect()] {
        let mut world = World::new(13);
        world.harness.reset(rows.into_iter().collect()).unwrap();
        world.commit();
        assert!(world.harness.rows().is_empty());
        // The controller repeats the Control record of a rollout without verdicts.
        world.bake();
        world.window();
        assert!(world.last().metrics[0].canary.n > 10);
    }
}

/// Evidence under other rules than this build uses for a rollout starts over. The generations keep their meaning.
#[test]
fn rows_of_other_rules_start_over() {
    let mut world = World::new(21);
    world.bake();
    world.window();
    world.window();
    let before = world.last().metrics[0].canary.n;
    let mut rows = world.harness.rows();
    let (key, value) =
        rows.iter().find(|(key, _)| kind_of(key) == "a rollout").map(|(k, v)| (k.clone(), v.clone())).unwrap();
    // The last byte is the version of the rules under which it was judged; `postcard` writes 2 as 4.
    assert_eq!(value.last(), Some(&4));
    rows.insert(key, Bytes::from([&value[..value.len() - 1], &[18]].concat()));
    world.harness.reset(rows).unwrap();
    // Without a past, the first window is only learned from.
    world.window();
    world.window();
    let after = world.last();
    assert_eq!((after.step, after.rules), (0, RULES));
    assert!(
        after.metrics[0].canary.n < before && after.metrics[0].canary.n > 10,
        "{} of {before}",
        after.metrics[0].canary.n
    );
}

/// A Control record with other rules restarts the evidence under them, and windows under the rules before do not enter.
#[test]
fn a_rollout_under_other_rules_starts_over() {
    let mut world = World::new(22);
    world.bake();
    world.window();
    world.window();
    let before = world.last().metrics[0].canary.n;
    world.control.rules = 1;
    world.turn(Phase::Baking, 0, 500, 5000);
    let parts = world.draw();
    for part in &parts {
        world.send(&WindowClosed { rules: RULES, ..part.clone() });
    }
    world.close(world.now);
    assert_eq!(world.last().metrics[0].canary.n, 0, "windows of other rules were taken");
    // Without a past, the first window is only learned from.
    world.window();
    world.window();
    let after = world.last();
    assert_eq!(after.rules, 1);
    assert!(after.metrics[0].canary.n > 10 && after.metrics[0].canary.n < before);
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

fn some_rows(spec: &str, windows: usize, rules: i32) -> Vec<(Bytes, Bytes)> {
    let mut world = World::with_spec(12, spec);
    world.control.rules = rules;
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

/// [`support::SPEC`] with users who keep their arm.
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
