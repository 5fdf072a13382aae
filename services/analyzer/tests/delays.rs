//! Labels of the canary that come later than control's: the metric on their delay tells, and holds; nothing else is held against it.

mod support;

use serin_schemas::records::{Decision, MetricResult, NoDataReason, Phase, Segment};
use support::{
    HEALTHY, Version,
    labels::{play, play_with, spec},
};

#[test]
fn slower_labels_of_the_canary_are_told_and_named() {
    let spec = spec("\"distribution\"", "{\"absolute\": 0.1}");
    let world = play(1, &spec, 1.5, 1.0);
    assert_eq!(world.last().decision, Decision::Hold, "{}", world.last().sentence);
    let issue = &world.last().health[0];
    assert_eq!((issue.reason, issue.policy.as_str()), (NoDataReason::LabelDelay, "hold"));
    let begin = "click_delay: the canary's distribution of label delay is beyond its margin: its labels come later";
    assert!(issue.sentence.starts_with(begin), "{}", issue.sentence);
    assert_ne!(world.metric("clicked", &Segment::all()).result, MetricResult::Fail);
}

/// A metric that only watches the delay decides nothing, and what it knows of the labels is heard all the same.
#[test]
fn a_delay_that_is_only_watched_holds_what_labels_say() {
    let world = play(50, &spec("\"distribution\"", "{\"absolute\": 0.1}, \"role\": \"watch\""), 1.5, 1.0);
    assert_eq!(world.last().decision, Decision::Hold, "{}", world.last().sentence);
    assert_eq!(world.last().health[0].reason, NoDataReason::LabelDelay);
    let clicked = world.metric("clicked", &Segment::all());
    assert_eq!((clicked.result, clicked.no_data), (MetricResult::NoData, Some(NoDataReason::LabelDelay)));
}

#[test]
fn a_quantile_of_the_delay_is_told_in_seconds() {
    let own = spec("{\"quantile\": {\"level\": 0.9}}", "{\"relative\": 0.2}");
    let rollback = own.replacen("\"window\"", "\"noData\": {\"labelDelay\": \"warn\"}, \"window\"", 1);
    let world = play(2, &rollback, 1.6, 1.0);
    assert_eq!(world.last().decision, Decision::Rollback, "{}", world.last().sentence);
    let reason = &world.last().reasons[0];
    assert_eq!(reason.metric, "click_delay");
    let words = reason.sentence.strip_prefix("canary's p90 label delay is ").unwrap_or_default();
    assert!(words.contains(" s against ") && words.contains(" s, at least "), "{}", reason.sentence);
}

#[test]
fn labels_that_come_alike_pass_and_more_of_them_are_no_trouble() {
    // More clicks are what a better canary has: a delay on the same label must not take that for missing labels.
    let world = play(3, &spec("\"distribution\"", "{\"absolute\": 0.2}"), 1.0, 1.5);
    assert_eq!(world.metric("click_delay", &Segment::all()).result, MetricResult::Pass);
    assert!(world.verdicts.iter().all(|verdict| verdict.health.is_empty()), "{:?}", world.last().health);
}

/// The maturity ends before most of the canary's clicks have come: fewer of them are there, and none is missing.
#[test]
fn a_canary_whose_labels_are_merely_slower_is_not_rolled_back() {
    for seed in 10..16 {
        // As wide as it may be: what the delay metric itself asks for is shown late, or never.
        let own =
            spec("\"distribution\"", "{\"absolute\": 0.9}").replacen("{\"relative\": 0.5}", "{\"relative\": 0.2}", 1);
        let world = play(seed, &own, 3.0, 1.0);
        assert_eq!(world.last().decision, Decision::Hold, "{seed}: {}", world.last().sentence);
        let sentence = &world.last().sentence;
        assert!(
            sentence.starts_with("hold: the canary's label click comes later than control's, and all that speaks"),
            "{sentence}"
        );
    }
}

/// Who resumes a hold for slower labels has acknowledged them. What rests on them is no pass, and no finding.
#[test]
fn who_resumes_a_hold_for_slower_labels_is_not_held_for_them_again() {
    let wide =
        spec("\"distribution\"", "{\"absolute\": 0.9}").replacen("{\"relative\": 0.5}", "{\"relative\": 0.2}", 1);
    for (seed, own, times) in [(1, spec("\"distribution\"", "{\"absolute\": 0.1}"), 1.5), (10, wide, 3.0)] {
        let mut world = play(seed, &own, times, 1.0);
        assert_eq!(world.last().decision, Decision::Hold, "{seed}: {}", world.last().sentence);
        world.turn(Phase::Held, 0, 500, 5000);
        world.control.acknowledged = Some(world.last().as_of);
        world.turn(Phase::Baking, 0, 500, 5000);
        world.close(world.now.plus(support::WINDOW));
        let verdict = world.last();
        assert_eq!(verdict.decision, Decision::Continue, "{seed}: {}", verdict.sentence);
        let issue = &verdict.health[0];
        assert_eq!((issue.reason, issue.policy.as_str()), (NoDataReason::LabelDelay, "warn"));
        assert!(issue.sentence.ends_with("(acknowledged by resume)"), "{}", issue.sentence);
    }
}

#[test]
fn a_canary_that_is_worse_by_its_labels_is_rolled_back_all_the_same() {
    for seed in 20..24 {
        let world = play(seed, &spec("\"distribution\"", "{\"absolute\": 0.2}"), 1.0, 0.2);
        assert_eq!(world.last().decision, Decision::Rollback, "{seed}: {}", world.last().sentence);
        assert_eq!(world.last().reasons[0].metric, "clicked");
    }
}

/// A distribution is tested in both directions, but labels that come earlier explain no missing ones.
#[test]
fn labels_that_come_earlier_excuse_nothing() {
    for seed in 30..33 {
        let world = play(seed, &spec("\"distribution\"", "{\"absolute\": 0.2}"), 0.5, 0.2);
        assert_eq!(world.last().decision, Decision::Rollback, "{seed}: {}", world.last().sentence);
    }
}

/// Whatever their number, labels that come a little later explain a little only.
#[test]
fn labels_that_come_a_little_later_do_not_excuse_a_worse_canary() {
    for seed in 40..43 {
        let world = play(seed, &spec("\"distribution\"", "{\"absolute\": 0.2}"), 1.02, 0.2);
        assert_eq!(world.last().decision, Decision::Rollback, "{seed}: {}", world.last().sentence);
        assert_eq!(world.last().reasons[0].metric, "clicked");
    }
}

/// More labels than that, so that the little is beyond chance: half of the margin is what a doubt needs.
#[test]
fn labels_that_are_surely_a_little_later_do_not_excuse_a_worse_canary() {
    for seed in 60..63 {
        let mut own = spec("\"distribution\"", "{\"absolute\": 0.6}");
        own = own.replacen("{\"relative\": 0.5}", "{\"relative\": 0.2}", 1);
        let world = play(seed, &own, 1.2, 0.5);
        assert_eq!(world.last().decision, Decision::Rollback, "{seed}: {}", world.last().sentence);
        assert_eq!(world.last().reasons[0].metric, "clicked");
    }
}

/// What labels say is in doubt; what the answers themselves show is not.
#[test]
fn a_canary_that_fails_is_rolled_back_however_late_its_labels_are() {
    for seed in 70..76 {
        let own =
            spec("\"distribution\"", "{\"absolute\": 0.9}").replacen("{\"relative\": 0.5}", "{\"relative\": 0.2}", 1);
        let world = play_with(seed, &own, 3.0, 1.0, Version { error: 0.03, error_lga: Some(0.1), ..HEALTHY });
        assert_eq!(world.last().decision, Decision::Rollback, "{seed}: {}", world.last().sentence);
        assert_eq!(world.last().reasons[0].metric, "error_rate");
    }
}

/// Of few labels the median moves by chance: what its interval does not show excuses nothing.
#[test]
fn a_median_that_chance_explains_excuses_nothing() {
    for seed in 80..86 {
        let own = spec("{\"quantile\": {\"level\": 0.5}}", "{\"relative\": 0.05}");
        let world = play(seed, &own, 1.0, 0.2);
        assert_eq!(world.last().decision, Decision::Rollback, "{seed}: {}", world.last().sentence);
        assert_eq!(world.last().reasons[0].metric, "clicked");
    }
}
