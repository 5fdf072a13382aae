//! Checks that the rollout files in `docs/` and `examples/` are accepted.

use serin_rollout::check;

#[test]
fn the_metrics_on_the_statistics_page_are_accepted() {
    let page = include_str!("../../../docs/statistics.md");
    let text = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let checked = check(text, None);
    assert!(!checked.has_errors(), "{:#?}", checked.problems);
    assert!(checked.spec.unwrap().metrics.len() >= 10);
}

#[test]
fn whole_rollout_files_on_the_pages_are_accepted() {
    let pages = [include_str!("../../../docs/cli.md"), include_str!("../../../docs/plan-simulate-replay.md")];
    for page in pages {
        // One file is an example of a refused spec.
        let page = page.replace("<!-- file: bad.yaml -->\n```yaml\n", "```\n");
        let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let rollouts: Vec<_> = blocks.filter(|text| text.contains("\nkind: Rollout\n")).collect();
        assert_eq!(rollouts.len(), 1);
        let checked = check(rollouts[0], None);
        assert!(!checked.has_errors(), "{:#?}", checked.problems);
    }
}

#[test]
fn the_example_that_starts_with_mirroring_is_accepted() {
    let checked = check(include_str!("../../../examples/shadow.yaml"), None);
    assert!(!checked.has_errors(), "{:#?}", checked.problems);
    let spec = checked.spec.unwrap();
    assert_eq!((spec.steps[0].to_string(), spec.steps[1].to_string()), ("mirror 20%".to_owned(), "5%".to_owned()));
}
