//! Views read and refuse the same bytes as the library: for records, for arbitrary bytes, and for damaged records.

mod support;

use proptest::{prelude::*, test_runner::TestRunner};
use serin_schemas::{
    codec::{self, Record},
    envelope::{self, Envelope},
    event::EventRecord,
    ids::EventTime,
    records::{Feedback, Heartbeat, Prediction},
    view::{EventView, FeedbackView, PredictionView},
};
use support::{Draw, Source};

fn law<S: Strategy>(strategy: &S, check: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let mut runner = TestRunner::new_with_rng(
        ProptestConfig { cases: 4000, ..ProptestConfig::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    runner.run(strategy, check).expect("the law holds");
}

fn drawn<R: Draw + std::fmt::Debug>() -> impl Strategy<Value = R> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| R::draw(&mut Source(&bytes)))
}

/// Checks that view and library read the same. NaN is not equal to itself, so strings are compared.
fn agree(body: &[u8]) -> Result<(), TestCaseError> {
    let library = codec::decode::<Prediction>(Prediction::VERSION, body).ok().map(|record| format!("{record:?}"));
    let view = PredictionView::read(body).map(|view| format!("{:?}", view.to_record()));
    prop_assert_eq!(view, library);
    let library = codec::decode::<Feedback>(Feedback::VERSION, body).ok().map(|record| format!("{record:?}"));
    let view = FeedbackView::read(body).map(|view| format!("{:?}", view.to_record()));
    prop_assert_eq!(view, library);
    Ok(())
}

#[test]
fn view_and_library_agree_on_records() {
    law(&drawn::<Prediction>(), |record| {
        let body = codec::encode(&record).unwrap();
        prop_assert_eq!(PredictionView::read(&body).unwrap().to_record(), record);
        agree(&body)
    });
    law(&drawn::<Feedback>(), |record| {
        let body = codec::encode(&record).unwrap();
        prop_assert_eq!(FeedbackView::read(&body).unwrap().to_record(), record);
        agree(&body)
    });
}

#[test]
fn view_and_library_agree_on_damaged_bodies() {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    let edits = (changes, 0_usize..4, prop::collection::vec(any::<u8>(), 0..3));
    law(&(drawn::<Prediction>(), drawn::<Feedback>(), edits), |(prediction, feedback, (changes, cut, more))| {
        for mut body in [codec::encode(&prediction).unwrap(), codec::encode(&feedback).unwrap()] {
            for (place, byte) in &changes {
                let place = place.index(body.len());
                body[place] = *byte;
            }
            agree(&body)?;
            body.truncate(body.len().saturating_sub(cut));
            body.extend(&more);
            agree(&body)?;
        }
        Ok(())
    });
}

#[test]
fn view_and_library_agree_on_arbitrary_bytes() {
    law(&prop::collection::vec(any::<u8>(), 0..80), |body| agree(&body));
    // Small numbers are plausible lengths, counts and indexes.
    law(&prop::collection::vec(0_u8..6, 0..60), |body| agree(&body));
}

/// The encoder writes one block. The specification allows several, with or without their sizes, and repeated names.
#[test]
fn view_and_library_agree_on_maps_in_several_blocks() {
    // "id", at 0, revision 0, then the blocks, no classes, writer "w" 0 0, no credential.
    let body = |blocks: &[u8]| [&[4, b'i', b'd', 0, 0], blocks, &[0, 2, b'w', 0, 0, 0]].concat();
    let entry = |name: u8, value: f64| [&[2, name][..], &value.to_le_bytes()].concat();
    let one = [&[2][..], &entry(b'a', 1.0), &[0]].concat();
    let two = [&[2][..], &entry(b'a', 1.0), &[2], &entry(b'b', 2.0), &[0]].concat();
    let sized = [&[3, 40][..], &entry(b'a', 1.0), &entry(b'a', 3.0), &[2], &entry(b'b', 2.0), &[0]].concat();
    for (blocks, values) in
        [(&one, vec![("a", 1.0)]), (&two, vec![("a", 1.0), ("b", 2.0)]), (&sized, vec![("a", 3.0), ("b", 2.0)])]
    {
        let body = body(blocks);
        agree(&body).unwrap();
        let view = FeedbackView::read(&body).unwrap();
        assert_eq!(view.values.sorted(), values);
        assert!(values.iter().all(|(name, value)| view.values.get(name) == Some(*value)));
        assert_eq!((view.values.get("c"), view.values.is_empty(), view.classes.is_empty()), (None, false, true));
    }
}

/// The specification also allows several blocks in the list of a credential.
#[test]
fn view_and_library_agree_on_lists_in_several_blocks() {
    // "id", at 0, revision 0, no values, no classes, writer "w" 0 0, a credential of "t", then the blocks.
    let body = |blocks: &[u8]| [&[4, b'i', b'd', 0, 0, 0, 0, 2, b'w', 0, 0, 2, 2, b't'], blocks].concat();
    for (blocks, models) in [
        (&[0][..], vec![]),
        (&[2, 2, b'a', 0], vec!["a"]),
        (&[4, 2, b'a', 2, b'b', 0], vec!["a", "b"]),
        (&[2, 2, b'a', 3, 40, 2, b'b', 2, b'c', 0], vec!["a", "b", "c"]),
    ] {
        let body = body(blocks);
        agree(&body).unwrap();
        assert_eq!(FeedbackView::read(&body).unwrap().credential.unwrap().models, models);
    }
    // The length is larger than the body.
    let endless = body(&[0xfe, 0xff, 0xff, 0xff, 0x0f, 0]);
    agree(&endless).unwrap();
    assert_eq!(FeedbackView::read(&endless), None);
}

#[test]
fn view_and_library_agree_on_numbers_at_their_limits() {
    let long = |bytes: &[u8]| [&[0], bytes, &[0, 0, 0, 0, 0, 0, 0]].concat();
    for bytes in [
        &[0x80, 0x00][..],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    ] {
        agree(&long(bytes)).unwrap();
    }
    assert!(FeedbackView::read(&long(&[0x80, 0x00])).is_some());
}

#[test]
fn the_headers_select_the_record_and_the_library_reports_errors() {
    let about = Envelope { id: "1", source: "/routers/router-0", subject: "m", time: EventTime(0) };
    let prediction = Prediction::draw(&mut Source(&[7; 300]));
    let body = codec::encode(&prediction).unwrap();
    let headers = envelope::headers::<Prediction>(&about);
    let EventView::Prediction(view) = EventView::decode(&headers, &body).unwrap() else { panic!("another record") };
    assert_eq!(view.to_record(), prediction);
    let cut = EventView::decode(&headers, &body[1..]).unwrap_err();
    assert_eq!(cut, EventRecord::decode(&headers, &body[1..]).unwrap_err());
    assert_eq!(cut.code().as_str(), "garbage");

    let beat = Heartbeat::draw(&mut Source(&[3; 40]));
    let body = codec::encode(&beat).unwrap();
    let headers = envelope::headers::<Heartbeat>(&about);
    let other = EventView::decode(&headers, &body).unwrap();
    assert_eq!(other, EventView::Other(Box::new(EventRecord::Heartbeat(beat))));
    let newer = [("ce_type", "dev.serin.prediction.v9")].into_iter().collect();
    assert_eq!(EventView::decode(&newer, &body).unwrap_err().code().as_str(), "unknown_schema_version");
    let _ = Prediction::schema();
}
