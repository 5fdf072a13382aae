//! Labels of the canary that arrive later than control's: the metric on their delay holds the rollout, and the labels do not count
//! against the canary.

mod support;

use serin_schemas::records::{Decision, MetricResult, NoDataReason, Phase, Segment};
use support::{
    HEALTHY, Version,
    labels::{play, play_until, play_with, spec},
};

#[test]
fn slower_labels_of_the_canary_are_reported_and_named() {
    let spec = spec("\"distribution\"", "{\"absolute\": 0.1}");
    let world = play(1, &spec, 1.5, 1.0);
    assert_eq!(world.last().decision, Decision::Hold, "{}", world.last().sentence);
    let issue = &world.last().health[0];
    assert_eq!((issue.reason, issue.policy.as_str()), (NoDataReason::LabelDelay, "hold"));
    let begin = "click_delay: the canary's distribution of label delay is beyond its margin: its labels arrive later";
    assert!(issue.sentence.starts_with(begin), "{}", issue.sentence);
    assert_ne!(world.metric("clicked", &Segment::all()).result, MetricResult::Fail);
}

/// A metric that only watches the delay decides nothing, but what it shows of the labels counts.
#[test]
fn a_delay_that_is_only_watched_holds_the_label_metrics() {
    let world = play(50, &spec("\"distribution\"", "{\"absolute\": 0.1}, \"role\": \"watch\""), 1.5, 1.0);
    assert_eq!(world.last().decision, Decision::Hold, "{}", world.last().sentence);
    assert_eq!(world.last().health[0].reason, NoDataReason::LabelDelay);
    let clicked = world.metric("clicked", &Segment::all());
    assert_eq!((clicked.result, clicked.no_data), (MetricResult::NoData, Some(NoDataReason::LabelDelay)));
}

#[test]
fn a_quantile_of_the_delay_is_in_seconds() {
    let own = spec("{\"quantile\": {\"level\": 0.9}}", "{\"relative\": 0.2}");
    let rollback = own.replacen("\"window\"", "\"noData\": {\"labelDelay\": \"warn\"}, \"window\"", 1);
    let world = play(2, &rollback, 1.6, 1.0);
    assert_eq!(world.last().decision, Decision::Rollback, "{}", world.last().sentence);
    let reason = &world.last().reasons[0];
    assert_eq!(reason.metric, "click_delay");
    let words = reason.sentence.strip_prefix("the canary's p90 label delay is ").unwrap_or_default();
    assert!(words.contains(" s against ") && words.contains(" s, at least "), "{}", reason.sentence);
}

#[test]
fn labels_that_arrive_alike_pass_and_more_labels_are_not_an_issue() {
    // A better canary has more clicks. A delay on the same label must not treat that as missing labels.
    let world = play(3, &spec("\"distribution\"", "{\"absolute\": 0.2}"), 1.0, 1.5);
    assert_eq!(world.metric("click_delay", &Segment::all()).result, MetricResult::Pass);
    assert!(world.verdicts.iter().all(|verdict| verdict.health.is_empty()), "{:?}", world.last().health);
}

/// The maturity ends before most of the canary's clicks have arrived, so there are fewer of them although none is missing.
#[test]
fn a_canary_whose_labels_are_merely_slower_is_not_rolled_back() {
    for seed in 10..16 {
        // The widest possible margin: the delay metric itself shows a difference late or never.
        let own =
            spec("\"distribution\"", "{\"absolute\": 0.9}").replacen("{\"relative\": 0.5}", "{\"relative\": 0.2}", 1);
        let world = play(seed, &own, 3.0, 1.0);
        assert_eq!(world.last().decision, Decision::Hold, "{seed}: {}", world.last().sentence);
        let sentence = &world.last().sentence;
        assert!(
            sentence.starts_with("hold: the canary's label click arrives later than control's, and all evidence"),
            "{sentence}"
        );
    }
}

/// Hardly any of the canary's labels arrives before the maturity. Those that do may be too few to show that they are later.
#[test]
fn a_canary_whose_labels_are_five_times_as_late_is_held() {
    let files = [
        spec("\"distribution\"", "{\"absolute\": 0.1}"),
        spec("\"distribution\"", "{\"absolute\": 0.9}"),
        spec("{\"quantile\": {\"level\": 0.5}}", "{\"relative\": 0.2}"),
    ];
    let narrow = |file: &String| file.replacen("{\"relative\": 0.5}", "{\"relative\": 0.2}", 1);
    for file in files.iter().flat_map(|file| [file.clone(), narrow(file)]) {
        for (seed, times) in (90..).zip([4.0, 5.0, 5.0, 10.0]) {
            let world = play(seed, &file, times, 1.0);
            let sentence = &world.last().sentence;
            assert_eq!(world.last().decision, Decision::Hold, "{seed}, {times} times: {sentence}");
            let issue = &world.last().health[0];
            if issue.reason == NoDataReason::ValueMissing {
                // Not a single label of the canary was in time.
                assert!(issue.sentence.starts_with("click_delay has no data: "), "{sentence}");
                continue;
            }
            assert_eq!((issue.reason, issue.policy.as_str()), (NoDataReason::LabelDelay, "hold"));
            let known = sentence.contains("arrives later") || sentence.contains("arrive later");
            assert!(known || sentence.contains("too rarely to know whether it is merely later"), "{sentence}");
        }
        // The file may say that such a doubt does not count.
        let off = file.replacen("\"window\"", "\"noData\": {\"labelDelay\": \"proceed\"}, \"window\"", 1);
        let world = play(98, &off, 4.0, 1.0);
        let held =
            world.last().health.iter().any(|issue| issue.reason == NoDataReason::LabelDelay && issue.policy == "hold");
        assert!(!held, "{}", world.last().sentence);
    }
}

/// Once enough labels have arrived, their delay is known. If it is not longer, the missing ones count.
#[test]
fn a_canary_that_loses_nearly_all_labels_is_rolled_back_once_their_delay_is_known() {
    let mut doubted = 0;
    for seed in 100..106 {
        let file = spec("\"distribution\"", "{\"absolute\": 0.2}");
        let world = play_until(&[Decision::Rollback], seed, &file, 1.0, 0.05, HEALTHY);
        assert_eq!(world.last().decision, Decision::Rollback, "{seed}: {}", world.last().sentence);
        assert_eq!(world.last().reasons[0].metric, "clicked");
        doubted += usize::from(world.verdicts.iter().any(|verdict| verdict.sentence.contains("too rarely to know")));
    }
    assert!(doubted > 0, "the loss was never seen before the delay was known");
}

/// A resume acknowledges a hold for slower labels. What rests on these labels is then neither a pass nor a finding.
#[test]
fn a_resume_acknowledges_slower_labels() {
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
fn a_canary_that_is_worse_by_its_labels_is_still_rolled_back() {
    for seed in 20..24 {
        let world = play(seed, &spec("\"distribution\"", "{\"absolute\": 0.2}"), 1.0, 0.2);
        assert_eq!(world.last().decision, Decision::Rollback, "{seed}: {}", world.last().sentence);
        assert_eq!(world.last().reasons[0].metric, "clicked");
    }
}

/// A distribution is tested in both directions, but labels that arrive earlier do not explain missing ones.
#[test]
fn labels_that_arrive_earlier_excuse_nothing() {
    for seed in 30..33 {
        let world = play(seed, &spec("\"distribution\"", "{\"absolute\": 0.2}"), 0.5, 0.2);
        assert_eq!(world.last().decision, Decision::Rollback, "{seed}: {}", world.last().sentence);
    }
}

/// Labels that arrive a little later explain only a little, whatever their number.
#[test]
fn labels_that_arrive_a_little_later_do_not_excuse_a_worse_canary() {
    for seed in 40..43 {
        let world = play(seed, &spec("\"distribution\"", "{\"absolute\": 0.2}"), 1.02, 0.2);
        assert_eq!(world.last().decision, Decision::Rollback, "{seed}: {}", world.last().sentence);
        assert_eq!(world.last().reasons[0].metric, "clicked");
    }
}

/// With more labels, the small delay is beyond chance. A doubt needs half of the margin.
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

/// The labels are in doubt, but the answers themselves are not.
#[test]
fn a_canary_that_fails_is_rolled_back_no_matter_how_late_its_labels_are() {
    for seed in 70..76 {
        let own =
            spec("\"distribution\"", "{\"absolute\": 0.9}").replacen("{\"relative\": 0.5}", "{\"relative\": 0.2}", 1);
        let world = play_with(seed, &own, 3.0, 1.0, Version { error: 0.03, error_lga: Some(0.1), ..HEALTHY });
        assert_eq!(world.last().decision, Decision::Rollback, "{seed}: {}", world.last().sentence);
        assert_eq!(world.last().reasons[0].metric, "error_rate");
    }
}

/// With few labels the median moves by chance. What its interval does not show excuses nothing.
#[test]
fn a_median_that_chance_explains_excuses_nothing() {
    for seed in 80..86 {
        let own = spec("{\"quantile\": {\"level\": 0.5}}", "{\"relative\": 0.05}");
        let world = play(seed, &own, 1.0, 0.2);
        assert_eq!(world.last().decision, Decision::Rollback, "{seed}: {}", world.last().sentence);
        assert_eq!(world.last().reasons[0].metric, "clicked");
    }
}
