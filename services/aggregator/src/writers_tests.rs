use super::*;

const SECOND: i64 = 1_000_000;

fn writers() -> Writers {
    Writers::new(Span::from_secs(30), Span::from_secs(600), 8)
}

fn record(name: &str, incarnation: i64, seq: i64) -> Writer {
    Writer { name: name.to_owned(), incarnation, seq }
}

fn beat(name: &str, incarnation: i64, seq: i64, low_secs: i64) -> Heartbeat {
    Heartbeat {
        writer: record(name, incarnation, seq),
        low_watermark: EventTime::from_secs(low_secs),
        drops: Vec::new(),
        leaving: false,
    }
}

fn secs(writers: &Writers) -> Option<i64> {
    writers.watermark.map(|at| at.0 / SECOND)
}

fn take(writers: &mut Writers, writer: &Writer) -> Seen {
    let seen = writers.look(writer.into());
    if seen == Seen::New {
        writers.mark(writer.into());
    }
    seen
}

#[test]
fn repeated_records_are_seen_in_any_order() {
    let mut writers = writers();
    for (seq, expected) in [
        (1, Seen::New),
        (3, Seen::New),
        (3, Seen::Repeated),
        (2, Seen::New),
        (2, Seen::Repeated),
        (REACH + 2, Seen::New),
        (1, Seen::Repeated),
        (2, Seen::Repeated),
        (4, Seen::New),
        (5 * REACH, Seen::New),
        (4 * REACH, Seen::Repeated),
        (4 * REACH + 1, Seen::New),
        (0, Seen::Malformed),
    ] {
        assert_eq!(take(&mut writers, &record("r", 7, seq)), expected, "seq {seq}");
    }
    assert_eq!(take(&mut writers, &record("r", 8, 1)), Seen::New);
    assert_eq!(take(&mut writers, &record("r", 7, 9)), Seen::OldIncarnation);
}

#[test]
fn gaps_are_counted_once_at_a_heartbeat() {
    let mut writers = writers();
    assert_eq!(writers.heartbeat(&beat("r", 1, 0, 0)).gaps, 0);
    for seq in [1, 2, 5] {
        take(&mut writers, &record("r", 1, seq));
    }
    assert_eq!(writers.heartbeat(&beat("r", 1, 7, 1)).gaps, 4);
    assert_eq!(writers.heartbeat(&beat("r", 1, 7, 2)).gaps, 0);
    // A task that begins in the middle of the log does not take what it never saw for lost.
    take(&mut writers, &record("s", 1, 1000));
    assert_eq!(writers.heartbeat(&beat("s", 1, 1001, 2)).gaps, 1);
}

#[test]
fn drops_are_cumulative_per_incarnation() {
    let mut writers = writers();
    let with = |incarnation, dropped| {
        let drops = vec![ArmDrops { model: "m".into(), arm: Arm::Canary, dropped }];
        Heartbeat { drops, ..beat("r", incarnation, 0, 0) }
    };
    let dropped: Vec<i64> = [(1, 3), (1, 3), (1, 5), (2, 1)]
        .map(|(incarnation, dropped)| {
            writers.heartbeat(&with(incarnation, dropped)).drops.iter().map(|d| d.dropped).sum()
        })
        .into();
    assert_eq!(dropped, [3, 0, 2, 1]);
}

#[test]
fn the_slowest_live_writer_holds_the_watermark() {
    let mut writers = writers();
    writers.heartbeat(&beat("a", 1, 0, 100));
    assert_eq!(secs(&writers), Some(100));
    writers.heartbeat(&beat("b", 1, 0, 110));
    writers.heartbeat(&beat("a", 1, 0, 105));
    assert_eq!(secs(&writers), Some(105));
    // It never goes back.
    writers.heartbeat(&beat("c", 1, 0, 50));
    assert_eq!(secs(&writers), Some(105));
}

#[test]
fn a_silent_writer_dies_by_the_others_clock_and_revives() {
    let mut writers = writers();
    writers.heartbeat(&beat("dead", 1, 0, 100));
    for at in 100..=130 {
        writers.heartbeat(&beat("b", 1, 0, at));
    }
    assert_eq!(secs(&writers), Some(100));
    writers.heartbeat(&beat("b", 1, 0, 131));
    assert_eq!(secs(&writers), Some(131));
    // A heartbeat from the dead: live again, the watermark stands until it has caught up.
    writers.heartbeat(&beat("dead", 1, 0, 120));
    writers.heartbeat(&beat("b", 1, 0, 140));
    assert_eq!(secs(&writers), Some(131));
    writers.heartbeat(&beat("dead", 1, 0, 139));
    assert_eq!(secs(&writers), Some(139));
    // One from long ago does not hold it.
    assert!(writers.heartbeat(&beat("ancient", 1, 0, -10_000)).skewed);
    writers.heartbeat(&beat("dead", 1, 0, 145));
    writers.heartbeat(&beat("b", 1, 0, 145));
    assert_eq!(secs(&writers), Some(145));
    assert!(writers.heartbeat(&beat("dead", 0, 0, 500)).old_incarnation);
}

#[test]
fn a_clock_that_jumps_ahead_kills_nobody() {
    let mut writers = writers();
    let year = 365 * 86_400;
    for at in 100..110 {
        writers.heartbeat(&beat("a", 1, 0, at));
        writers.heartbeat(&beat("fast", 1, 0, at));
    }
    assert!(writers.heartbeat(&beat("fast", 1, 0, year)).skewed);
    assert_eq!(secs(&writers), Some(109));
    for at in 110..200 {
        writers.heartbeat(&beat("a", 1, 0, at));
        writers.heartbeat(&beat("fast", 1, 0, year + at));
    }
    assert_eq!(secs(&writers), Some(199));
    assert!(writers.is_far_future("fast", EventTime::from_secs(year)));
    assert!(!writers.is_far_future("a", EventTime::from_secs(700)));
    // When the honest one is silent, time goes on with the other.
    for at in 200..240 {
        writers.heartbeat(&beat("fast", 1, 0, year + at));
    }
    assert!(secs(&writers) >= Some(year));
}

#[test]
fn writers_that_all_stopped_do_not_block_one_that_starts_later() {
    let mut writers = writers();
    writers.heartbeat(&beat("a", 1, 0, 100));
    writers.heartbeat(&beat("b", 1, 0, 100));
    for at in 3700..=3731 {
        writers.heartbeat(&beat("a", 2, 0, at));
    }
    assert_eq!(secs(&writers), Some(3731));
}

#[test]
fn who_leaves_does_not_hold_the_watermark() {
    let mut writers = writers();
    writers.heartbeat(&beat("a", 1, 0, 100));
    writers.heartbeat(&beat("b", 1, 0, 200));
    writers.heartbeat(&Heartbeat { leaving: true, ..beat("a", 1, 0, 150) });
    assert_eq!(secs(&writers), Some(200));
    writers.heartbeat(&Heartbeat { leaving: true, ..beat("b", 1, 0, 300) });
    assert_eq!(secs(&writers), Some(300));
}

#[test]
fn the_number_of_writers_is_bounded() {
    let mut writers = writers();
    for n in 0..100 {
        writers.heartbeat(&beat(&format!("w{n}"), 1, 0, n));
    }
    assert_eq!(writers.known.len(), 8);
    assert_eq!(writers.removed.len(), 92);
}
