//! Which labels count: the credential of a label against the model of the prediction.

use proptest::prelude::*;
use serin_schemas::{
    event::EventRecord::{self, Feedback as F, Prediction as P},
    records::{Arm, Credential, Feedback, Segment},
};

use crate::common::*;

fn by(models: &[&str], of: Feedback) -> EventRecord {
    let models = models.iter().map(ToString::to_string).collect();
    F(Feedback { credential: Some(Credential { writer: "w".to_owned(), models }), ..of })
}

/// The joined labels of the canary, as the `wrong` count of all traffic.
fn joined(events: Vec<EventRecord>, crash_after: usize) -> (u64, u64) {
    let mut bench = Bench::new();
    bench.feed([baking(&spec_with(&[wrong_metric()], |_| {}))]);
    for (at, event) in events.into_iter().enumerate() {
        if at == crash_after {
            bench.harness.commit().unwrap();
            bench.harness.crash().unwrap();
        }
        bench.feed([event]);
    }
    bench.feed([beat(1, 70.0)]);
    let windows = bench.windows();
    let window = windows.iter().find(|window| window.maturity == minute()).expect("a window of labels");
    cell(window, Arm::Canary, "wrong", &Segment::all())
}

#[test]
fn a_label_counts_only_if_its_writer_may_judge_the_model() {
    let call = || P(prediction(1, Arm::Canary, 1.0));
    let label = |models: &[&str]| by(models, feedback(1, 1, 0, "late", 0.0));
    for models in [&["flights"][..], &["*"], &["fl*"], &["fraud", "*ights"]] {
        assert_eq!(joined(vec![call(), label(models)], 9), (1, 1), "{models:?}");
        assert_eq!(joined(vec![label(models), call()], 9), (1, 1), "{models:?}, before its prediction");
    }
    for models in [&["fraud"][..], &["team-a-*"], &["Flights"], &[], &["flights2", ""]] {
        assert_eq!(joined(vec![call(), label(models)], 9), (0, 0), "{models:?}");
        assert_eq!(joined(vec![label(models), call()], 9), (0, 0), "{models:?}, before its prediction");
    }
    assert_eq!(joined(vec![call(), F(feedback(1, 1, 0, "late", 0.0))], 9), (1, 1), "a door without credentials");
}

#[test]
fn a_label_that_does_not_count_replaces_no_other_label() {
    let call = || P(prediction(1, Arm::Canary, 1.0));
    let forged = |seq| by(&["team-a-*"], feedback(1, seq, 1_000_000, "late", 0.0));
    let rightful = |seq| by(&["flights"], feedback(1, seq, 0, "late", 1.0));
    for crash_after in 0..4 {
        for events in [
            vec![call(), forged(1), rightful(2)],
            vec![forged(1), call(), rightful(2)],
            vec![forged(1), rightful(2), call()],
            vec![rightful(1), forged(2), call()],
            vec![call(), rightful(1), forged(2)],
        ] {
            assert_eq!(joined(events.clone(), crash_after), (0, 1), "{events:?}");
        }
    }
}

#[test]
fn labels_of_writers_with_different_rights_wait_separately_and_the_newest_counts() {
    let call = || P(prediction(1, Arm::Canary, 1.0));
    let one = by(&["flights"], feedback(1, 1, 1, "late", 0.0));
    let other = by(&["fl*"], feedback(1, 2, 2, "late", 1.0));
    for events in [vec![one.clone(), other.clone(), call()], vec![one, call(), other]] {
        assert_eq!(joined(events, 2), (0, 1));
    }
}

#[test]
fn a_label_that_no_rollout_may_use_does_not_wait() {
    let mut bench = Bench::new();
    bench.feed([baking(&spec_with(&[wrong_metric()], |_| {}))]);
    bench.feed([by(&["team-a-*"], feedback(7, 1, 0, "late", 1.0))]);
    bench.harness.commit().unwrap();
    assert_eq!(bench.harness.rows().keys().filter(|key| key[0] == 9).count(), 0);
    bench.feed([by(&["fl*"], feedback(7, 2, 0, "late", 1.0))]);
    bench.harness.commit().unwrap();
    assert_eq!(bench.harness.rows().keys().filter(|key| key[0] == 9).count(), 1);
}

proptest! {
    /// Labels of a writer without the right have no effect, whenever they arrive.
    #[test]
    fn forged_labels_change_nothing(
        honest in prop::collection::vec((0_i64..4, 0_u8..2), 0..4),
        forged in prop::collection::vec((0_i64..9, 0_u8..2, 0_usize..8), 0..6),
        call_at in 0_usize..5,
    ) {
        let mut events: Vec<(bool, Feedback)> = honest.iter().map(|&(revision, value)| {
            (true, feedback(1, 0, revision, "late", f64::from(value)))
        }).collect();
        for (revision, value, at) in forged {
            let at = at.min(events.len());
            events.insert(at, (false, feedback(1, 0, revision, "late", f64::from(value))));
        }
        let run = |forged: bool| {
            let mut seq = 0;
            let mut stamped = Vec::new();
            for (is_honest, of) in events.iter().filter(|(is_honest, _)| forged || *is_honest) {
                seq += 1;
                let of = Feedback { writer: writer("router-1", seq), ..of.clone() };
                stamped.push(by(if *is_honest { &["flights"] } else { &["team-a-*"] }, of));
            }
            stamped.insert(call_at.min(stamped.len()), P(prediction(1, Arm::Canary, 1.0)));
            joined(stamped, 2)
        };
        prop_assert_eq!(run(true), run(false));
    }
}
