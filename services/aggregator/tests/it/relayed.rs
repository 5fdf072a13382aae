//! How the aggregator counts relayed events.

use bytes::Bytes;
use serin_intake::{IntakeConfig, IntakeFold};
use serin_schemas::{event::EventRecord, records::Arm};
use serin_stream::{
    driver::FoldDriver,
    record::{Headers, Outgoing, Target},
};

use crate::common::*;

fn send(relay: &mut FoldDriver, body: &str) -> Option<&'static str> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let record = relay.record("predictions", 2, 1_000_000, "any", Headers::default(), Some(body));
    relay.apply(&record).unwrap().poison.map(|poison| poison.code.as_str())
}

fn decode(out: &[Outgoing]) -> Vec<EventRecord> {
    out.iter().map(|record| EventRecord::decode(&record.headers, record.value.as_ref().unwrap()).unwrap()).collect()
}

#[test]
fn relayed_events_count_in_the_aggregator() {
    let mut relay = FoldDriver::new(|| Box::new(IntakeFold::new(IntakeConfig::default(), 2, 4))).unwrap();
    for n in 0..8 {
        let version = if n % 2 == 0 { "v2" } else { "v1" };
        let body = format!(
            r#"{{"prediction_id":"call-{n}","model":"flights","version":"{version}","completed_at":1000000,"outputs":{{"score":0.5}}}}"#
        );
        assert_eq!(send(&mut relay, &body), None);
        assert_eq!(send(&mut relay, &body), None);
    }
    let last = r#"{"prediction_id":"z","model":"flights","version":"v9","completed_at":25000000}"#;
    assert_eq!(send(&mut relay, last), None);
    relay.tick(1_000_000).unwrap();
    let out = relay.commit().unwrap();
    let spec = spec_with(&[], |spec| spec["traffic"] = "external".into());
    let mut counts = (0, 0);
    for partition in 0..4 {
        let mut bench = Bench::with(serin_aggregator::Config::default(), partition, 4);
        bench.feed([baking(&spec)]);
        for (record, event) in out.iter().zip(decode(&out)) {
            if record.target == Target::Partition(partition) {
                bench.feed([event]);
            }
        }
        // No router is heard for some seconds, so the relay's heartbeat drives event time.
        let beat = decode(&out).into_iter().rev().find(|event| matches!(event, EventRecord::Heartbeat(_))).unwrap();
        for second in 1..=4 {
            bench.stamp_ms = 1_000_000 + second * 1000;
            let EventRecord::Heartbeat(beat) = beat.clone() else { unreachable!("only heartbeats were selected") };
            let writer = serin_schemas::records::Writer { seq: 0, ..beat.writer.clone() };
            bench.feed([EventRecord::Heartbeat(serin_schemas::records::Heartbeat { writer, ..beat })]);
        }
        for window in bench.windows() {
            counts.0 += arm(&window, Arm::Canary).predictions;
            counts.1 += arm(&window, Arm::Control).predictions;
        }
    }
    assert_eq!(counts, (4, 4));
}
