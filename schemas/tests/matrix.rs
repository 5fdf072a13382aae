//! Compatibility of builds of two releases, as docs/records.md describes it for each record.

use std::fs;

use serin_schemas::Code;
use serin_schemas::{
    codec::{self, Record},
    records::{RecordVisitor, visit_all},
};

/// The versions that commit `6f238b9` wrote, the newest that it can read.
const BEFORE: [(&str, u32); 13] = [
    ("prediction", 1),
    ("feedback", 1),
    ("heartbeat", 1),
    ("control", 1),
    ("window_closed", 2),
    ("closed_through", 1),
    ("verdict", 2),
    ("routing_table", 2),
    ("router_status", 2),
    ("command", 1),
    ("rollout_event", 1),
    ("dead_letter", 1),
    ("capture", 1),
];

fn before(name: &str) -> Option<u32> {
    BEFORE.iter().find(|(record, _)| *record == name).map(|(_, version)| *version)
}

struct Page(String);

impl RecordVisitor for Page {
    fn visit<R: Record + std::fmt::Debug + PartialEq>(&mut self) {
        let older = match before(R::NAME) {
            Some(version) if version == R::VERSION => "read",
            // That release does not have this record on its topics.
            None => return,
            Some(_) => "dead letter",
        };
        let row = format!("| `{}` | {older}", R::NAME);
        assert!(self.0.contains(&row), "docs/records.md: the matrix of upgrades has no row that starts with {row:?}");
    }
}

#[test]
fn the_page_describes_what_an_older_reader_does_with_each_record() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/records.md")).expect("the page");
    let (_, matrix) = page.split_once("### From the previous release to this one").expect("the matrix");
    visit_all(&mut Page(matrix.to_owned()));
}

struct Older;

impl RecordVisitor for Older {
    fn visit<R: Record + std::fmt::Debug + PartialEq>(&mut self) {
        let stem = |version| format!("{}/tests/golden/{}.v{version}", env!("CARGO_MANIFEST_DIR"), R::NAME);
        let body = |version| {
            let hex = fs::read_to_string(stem(version) + ".hex").expect("a golden body");
            let hex: String = hex.split_whitespace().collect();
            (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
                .collect::<Vec<u8>>()
        };
        // Records of the previous release are read, with defaults for fields that it did not have.
        if let Some(version) = before(R::NAME) {
            codec::decode::<R>(version, &body(version)).expect(R::NAME);
        }
        // Records of a future release are never read with a known schema, even if the bytes would fit.
        for newer in [R::VERSION + 1, R::VERSION + 100, u32::MAX] {
            let error = codec::decode::<R>(newer, &body(R::VERSION)).expect_err(R::NAME);
            assert_eq!(error.code(), Code::UnknownSchemaVersion, "{}", R::NAME);
        }
    }
}

#[test]
fn older_data_is_read_and_newer_data_is_a_dead_letter() {
    visit_all(&mut Older);
}

#[test]
fn records_of_older_versions_have_the_first_rules() {
    use serin_schemas::records::{Control, Verdict, WindowClosed};
    fn rules<R: Record>(version: u32, rules: impl Fn(R) -> i32) {
        let path = format!("{}/tests/golden/{}.v{version}.hex", env!("CARGO_MANIFEST_DIR"), R::NAME);
        let hex: String = fs::read_to_string(path).expect("a golden body").split_whitespace().collect();
        let body: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
        assert_eq!(rules(codec::decode::<R>(version, &body).expect(R::NAME)), 1);
    }
    rules::<Control>(1, |control| control.rules);
    rules::<WindowClosed>(1, |window| window.rules);
    rules::<WindowClosed>(2, |window| window.rules);
    rules::<Verdict>(1, |verdict| verdict.rules);
    rules::<Verdict>(2, |verdict| verdict.rules);
}
