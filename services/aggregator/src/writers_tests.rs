#![expect(clippy::float_cmp, reason = "seconds that are whole are exact")]

use super::*;

const SECOND: i64 = 1_000_000;

fn writers() -> Writers {
    let seconds = Span::from_secs;
    let timeouts = WriterTimeouts {
        ttl: seconds(30),
        silent_after: seconds(2),
        clock_tolerance: seconds(2),
        max_skew: seconds(600),
        lateness: seconds(3),
    };
    Writers::new(timeouts, 8)
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
        sent_at: None,
        relay: false,
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
    // A task that starts in the middle of the log does not count earlier records as lost.
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
    // The watermark never goes back.
    writers.heartbeat(&beat("c", 1, 0, 50));
    assert_eq!(secs(&writers), Some(105));
}

#[test]
fn a_silent_writer_expires_by_the_clock_of_others_and_can_return() {
    let mut writers = writers();
    writers.heartbeat(&beat("dead", 1, 0, 100));
    for at in 100..=130 {
        writers.heartbeat(&beat("b", 1, 0, at));
    }
    assert_eq!(secs(&writers), Some(100));
    writers.heartbeat(&beat("b", 1, 0, 131));
    assert_eq!(secs(&writers), Some(131));
    // After a new heartbeat the writer is live again. The watermark does not move until it has caught up.
    writers.heartbeat(&beat("dead", 1, 0, 120));
    writers.heartbeat(&beat("b", 1, 0, 140));
    assert_eq!(secs(&writers), Some(131));
    writers.heartbeat(&beat("dead", 1, 0, 139));
    assert_eq!(secs(&writers), Some(139));
    // A heartbeat from long ago does not hold the watermark.
    assert!(writers.heartbeat(&beat("ancient", 1, 0, -10_000)).skewed);
    writers.heartbeat(&beat("dead", 1, 0, 145));
    writers.heartbeat(&beat("b", 1, 0, 145));
    assert_eq!(secs(&writers), Some(145));
    assert!(writers.heartbeat(&beat("dead", 0, 0, 500)).old_incarnation);
}

#[test]
fn a_clock_that_jumps_ahead_expires_no_other_writer() {
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
    // When the correct writer is silent, event time follows the other one.
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
fn a_writer_that_left_does_not_hold_the_watermark() {
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

/// Writers that report their send time, and their log. Times are in seconds after the log's first record.
struct Fleet {
    writers: Writers,
    now: f64,
}

impl Fleet {
    fn new() -> Self {
        Self { writers: writers(), now: 0.0 }
    }

    fn at(&mut self, now: f64) {
        self.now = now;
        self.writers.log.pass((now * 1000.0) as i64);
    }

    /// Appends a heartbeat now that was sent `delay` ago by a clock with the offset `off`.
    fn beat(&mut self, name: &str, delay: f64, off: f64) -> HeartbeatResult {
        let sent = self.now - delay + off;
        self.heartbeat(Heartbeat { sent_at: Some(micros(sent)), ..beat(name, 1, 0, 0) }, sent)
    }

    /// Appends a relay's heartbeat with its own watermark.
    fn relay(&mut self, name: &str, low: f64) -> HeartbeatResult {
        let sent_at = Some(micros(self.now));
        self.heartbeat(Heartbeat { sent_at, relay: true, ..beat(name, 1, 0, 0) }, low)
    }

    fn heartbeat(&mut self, heartbeat: Heartbeat, low: f64) -> HeartbeatResult {
        self.writers.heartbeat(&Heartbeat { low_watermark: micros(low), ..heartbeat })
    }

    /// Appends a timely heartbeat of each of these writers every second from `from` to `to`.
    fn healthy(&mut self, names: &[&str], from: i64, to: i64) {
        for second in from..=to {
            for (place, name) in names.iter().enumerate() {
                self.at(second as f64 + place as f64 / 10.0);
                self.beat(name, 0.01, 0.0);
            }
        }
    }

    fn mark(&self) -> f64 {
        self.writers.watermark.map_or(f64::NEG_INFINITY, |at| at.0 as f64 / 1e6)
    }

    fn skewed(&self) -> Vec<(String, i64)> {
        let skewed = self.writers.skewed().into_iter();
        skewed.map(|off| (off.writer, (off.offset.0 as f64 / 1e6).round() as i64)).collect()
    }
}

fn micros(seconds: f64) -> EventTime {
    EventTime((seconds * 1e6).round() as i64)
}

/// The maximum lag of event time behind the log with a slow writer: the silence timeout plus one second between two
/// heartbeats.
const BEHIND: f64 = 3.3;

#[test]
fn a_dead_or_stopped_writer_is_named_and_waited_for_only_seconds() {
    let mut fleet = Fleet::new();
    fleet.healthy(&["a", "b"], 0, 20);
    assert_eq!(fleet.writers.silent(), Vec::<String>::new());
    for second in 21..=49 {
        fleet.healthy(&["a"], second, second);
        assert!(fleet.mark() > fleet.now - BEHIND, "second {second}: {}", fleet.mark());
        if second > 23 {
            assert_eq!(fleet.writers.silent(), ["b"]);
            // Promotion waits for the silent writer.
            assert_eq!(fleet.writers.heard_through(), Some(micros(20.09)));
        }
    }
    fleet.healthy(&["a"], 50, 52);
    assert_eq!(fleet.writers.silent(), Vec::<String>::new(), "it has expired");
    assert_eq!(fleet.writers.heard_through(), fleet.writers.watermark);
    // The stopped writer resumes and is immediately one of two again.
    fleet.healthy(&["a", "b"], 53, 60);
    assert_eq!(fleet.writers.heard_through(), fleet.writers.watermark);
    assert_eq!(fleet.writers.silent(), Vec::<String>::new());
}

#[test]
fn a_pause_of_the_log_makes_no_writer_silent() {
    let mut fleet = Fleet::new();
    fleet.healthy(&["a", "b"], 0, 20);
    // No writer could write for 25 s; then the queues are flushed one after the other within a moment.
    for (name, from) in [("a", 45.5), ("b", 46.0)] {
        for beat in 21..=45 {
            fleet.at(from + f64::from(beat) / 100.0);
            fleet.beat(name, from - f64::from(beat), 0.0);
            assert!(name == "b" || fleet.mark() < 20.2, "{name} {beat}: {}", fleet.mark());
            assert_eq!((fleet.writers.silent(), fleet.skewed()), (vec![], vec![]));
        }
    }
    assert!((fleet.mark() - 45.4).abs() < 0.2, "{}", fleet.mark());
    fleet.healthy(&["a", "b"], 47, 60);
    assert_eq!((fleet.writers.silent(), fleet.skewed()), (vec![], vec![]));
}

#[test]
fn a_clock_that_is_off_holds_nothing_and_is_named_within_seconds() {
    for off in [-3600.0, -300.0, -5.0, 5.0, 300.0, 3600.0] {
        // The writer was the first one from the start.
        let mut fleet = Fleet::new();
        for second in 0..60 {
            fleet.at(f64::from(second));
            fleet.beat("off", 0.01, off);
            fleet.healthy(&["a"], i64::from(second), i64::from(second));
            let (mark, now) = (fleet.mark(), fleet.now);
            assert!(mark < now && (mark > now - BEHIND || second < 3), "{off}, second {second}: {mark}");
            if second > 3 {
                assert_eq!(fleet.skewed(), [("off".to_owned(), off as i64)]);
                assert_eq!(fleet.writers.silent(), Vec::<String>::new());
            }
        }
        // Promotion waits for a writer that is behind, because its records are late.
        assert_eq!(fleet.writers.heard_through() < fleet.writers.watermark, off < 0.0);
        // The clock was corrected.
        fleet.healthy(&["a"], 60, 60);
        fleet.at(60.5);
        fleet.beat("off", 0.01, 0.0);
        assert_eq!(fleet.skewed(), []);
    }
}

#[test]
fn a_clock_that_jumps_is_named_and_not_waited_for() {
    for off in [-600.0, 600.0] {
        let mut fleet = Fleet::new();
        fleet.healthy(&["a", "b"], 0, 20);
        for second in 21..=40 {
            fleet.healthy(&["a"], second, second);
            let heard = fleet.beat("b", 0.01, off);
            assert_eq!(heard.skewed, off > 0.0 || second > 22, "{off}, second {second}");
            assert!(fleet.mark() > fleet.now - BEHIND && fleet.mark() < fleet.now, "{off}, second {second}");
        }
        assert_eq!(fleet.skewed(), [("b".to_owned(), off as i64)]);
    }
}

#[test]
fn the_only_writer_holds_event_time_whatever_its_clock() {
    for off in [-300.0, 300.0] {
        let mut fleet = Fleet::new();
        for second in 0..20 {
            fleet.at(f64::from(second));
            fleet.beat("off", 0.01, off);
            let behind = fleet.now + off - fleet.mark();
            assert!(second < 4 || behind < 1.0, "{off}, second {second}: {behind}");
        }
        assert_eq!(fleet.skewed(), [("off".to_owned(), off as i64)]);
    }
}

#[test]
fn a_writer_that_joins_one_with_a_clock_ahead_does_not_stop_event_time() {
    let mut fleet = Fleet::new();
    for second in 0..40 {
        fleet.at(f64::from(second));
        fleet.beat("ahead", 0.01, 300.0);
        if second >= 20 {
            fleet.beat("joined", 0.01, 0.0);
        }
        assert!(second < 4 || fleet.mark() > fleet.now + 299.0 - BEHIND, "second {second}: {}", fleet.mark());
    }
}

#[test]
fn a_slow_writer_is_late_and_not_waited_for() {
    let mut fleet = Fleet::new();
    fleet.healthy(&["a", "b"], 0, 20);
    for second in 21..=60 {
        fleet.healthy(&["a"], second, second);
        fleet.beat("b", 12.0, 0.0);
        assert!(fleet.mark() > fleet.now - BEHIND, "second {second}: {}", fleet.mark());
    }
    // A constant delay cannot be distinguished from a clock that is behind.
    assert_eq!(fleet.skewed(), [("b".to_owned(), -12)]);
}

#[test]
fn a_relay_holds_event_time_only_while_no_router_is_heard() {
    let mut fleet = Fleet::new();
    for second in 0..30 {
        fleet.healthy(&["a"], second, second);
        // One current record, followed by old ones only.
        fleet.relay("intake-0", 5.0);
        assert!(fleet.mark() > fleet.now - 1.2);
    }
    assert_eq!(fleet.writers.heard_through(), fleet.writers.watermark);
    assert_eq!((fleet.writers.silent(), fleet.skewed()), (vec![], vec![]));
    // Without a router the relay drives event time, as long as its records get newer.
    let mut fleet = Fleet::new();
    for second in 0..30 {
        fleet.at(f64::from(second));
        fleet.relay("intake-0", -7200.0 + 60.0 * fleet.now);
        assert!(second < 4 || fleet.mark() == -7200.0 + 60.0 * fleet.now, "second {second}");
    }
    // If one of several relays does not advance, the others continue.
    for second in 30..60 {
        fleet.at(f64::from(second));
        fleet.relay("intake-0", -7200.0 + 60.0 * 29.0);
        fleet.relay("intake-1", -7200.0 + 60.0 * fleet.now);
        let lag = -7200.0 + 60.0 * fleet.now - fleet.mark();
        assert!(second < 36 || lag == 0.0, "second {second}: {lag}");
    }
}

/// An older version of the router, or an external writer.
#[test]
fn a_writer_without_send_time_is_not_waited_for_next_to_a_router_with_one() {
    for off in [0, -4, 4, -300, 300] {
        let mut fleet = Fleet::new();
        for second in 0..=20 {
            fleet.healthy(&["new"], second, second);
            fleet.writers.heartbeat(&beat("old", 1, 0, second + off));
            assert!(second < 4 || fleet.mark() > fleet.now - BEHIND, "off by {off}, second {second}: {}", fleet.mark());
            assert!(fleet.mark() <= fleet.now, "off by {off}, second {second}: {}", fleet.mark());
        }
        let named = if off == 0 { vec![] } else { vec![("old".to_owned(), off)] };
        assert_eq!(fleet.skewed(), named);
        for second in 21..=45 {
            fleet.healthy(&["new"], second, second);
            assert!(fleet.mark() > fleet.now - BEHIND, "off by {off}, silent, second {second}: {}", fleet.mark());
        }
    }
}

/// Without any other writer, harm is detected by this writer's clock, whatever its offset.
#[test]
fn a_writer_without_send_time_holds_event_time_where_no_router_is_heard() {
    for off in [0, -300, 300] {
        let mut fleet = Fleet::new();
        for second in 0..60 {
            fleet.at(f64::from(second));
            if second < 20 {
                fleet.beat("new", 0.01, 0.0);
            }
            let low = i64::from(second) + off;
            fleet.writers.heartbeat(&beat("old", 1, 0, low));
            let lag = low as f64 - fleet.mark();
            // A clock that is behind cannot move the watermark back: the writer's reports are late until the other
            // writer has left.
            assert!(off < 0 || second < 26 || lag <= BEHIND, "off by {off}, second {second}: {lag} s behind its clock");
        }
    }
}

#[test]
fn without_send_times_silence_is_measured_by_the_clock_of_others() {
    let mut writers = writers();
    for second in 0..=20 {
        for name in ["one", "two"] {
            writers.heartbeat(&beat(name, 1, 0, second));
        }
    }
    for second in 21..=50 {
        writers.heartbeat(&beat("two", 1, 0, second));
        assert_eq!(secs(&writers), Some(20), "it may be a replay, so its silence means nothing");
    }
    writers.heartbeat(&beat("two", 1, 0, 51));
    assert_eq!(secs(&writers), Some(51));
}

#[test]
fn log_time_advances_by_at_most_a_second_and_never_goes_back() {
    let mut log = LogTime::default();
    let times: Vec<i64> = [5_000, 5_400, 65_000, 4_000, 4_000, 4_999, 3_004_999, 5_100, 5_200]
        .map(|stamp_ms| {
            log.pass(stamp_ms);
            log.now.0 / 1000
        })
        .into();
    assert_eq!(times, [0, 400, 1400, 1400, 1400, 2399, 3399, 3399, 3499]);
}
