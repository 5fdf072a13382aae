//! The rollout files that the pages of `docs/` show are accepted.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use serin_rollout::check;

#[test]
fn every_kind_of_metric_is_written_as_the_statistics_page_says() {
    let page = include_str!("../../../docs/statistics.md");
    let text = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let checked = check(text, None);
    assert!(!checked.has_errors(), "{:#?}", checked.problems);
    assert!(checked.spec.unwrap().metrics.len() >= 10);
}
