use serin_rollout::planner::Applied;
use serin_schemas::{
    ids::Generation,
    records::{Action, Decision, MetricResult, NoDataReason, Segment},
};

use super::*;
use crate::{
    samples::{Sample, canary, check, failing, issue, waiting, warming},
    terminal::of_width,
};

fn applied(state: &RolloutState) -> Reported {
    let done = Applied {
        generation: state.generation,
        done: true,
        routers: vec!["router-0".to_owned()],
        ..Applied::default()
    };
    Reported { applied: Some(done), undecided: Vec::new(), refused: Vec::new() }
}

fn page(sample: &Sample, reported: Option<&Reported>, width: Option<usize>) -> Page {
    let (state, events) = (sample.state(), sample.events());
    let usual = applied(&state);
    let shown = Shown {
        state: &state,
        verdict: sample.verdict.as_ref(),
        reported: reported.unwrap_or(&usual),
        events: &events,
    };
    Page::new(&shown, of_width(width))
}

/// The page at three widths. No word may be cut.
fn pages(sample: &Sample) -> String {
    pages_of(sample, None)
}

fn pages_of(sample: &Sample, reported: Option<&Reported>) -> String {
    let whole = page(sample, reported, None).text();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let at = |width: usize| {
        let text = page(sample, reported, Some(width)).text();
        let longest = text.lines().map(console::measure_text_width).max().unwrap_or(0);
        assert!(longest <= width, "{longest} columns of {width}:\n{text}");
        for word in words(&text) {
            assert!(words(&whole).contains(&word) || word.contains('…'), "{word:?} is cut:\n{text}");
        }
        format!("{}\n{text}\n", "=".repeat(width))
    };
    [60, 80, 120].map(at).join("\n")
}

#[test]
fn warm_up() {
    let sample = Sample::started().verdict(20, |verdict| {
        warming(verdict, 412);
        verdict.seen = vec![
            serin_schemas::records::Seen { metric: "wrong".to_owned(), answers: 412, values: 0 },
            serin_schemas::records::Seen { metric: "latency_p99".to_owned(), answers: 412, values: 412 },
        ];
    });
    insta::assert_snapshot!(pages(&sample));
}

#[test]
fn nothing_has_come_yet() {
    insta::assert_snapshot!(pages(&Sample::started()));
}

#[test]
fn a_step_that_runs() {
    let sample = Sample::started().at_step(1).verdict(700, |verdict| {
        verdict.decision = Decision::Promote;
        canary(verdict).predictions = 66_120;
    });
    insta::assert_snapshot!(pages(&sample));
}

#[test]
fn the_last_step_waits_for_labels() {
    let sample = Sample::started().at_step(2).verdict(1900, |verdict| waiting(verdict, &[1, 2]));
    insta::assert_snapshot!(pages(&sample));
}

#[test]
fn held_for_several_causes() {
    let sample = Sample::started().at_step(1).verdict(900, |verdict| {
        verdict.decision = Decision::Hold;
        verdict.health = vec![
            issue(NoDataReason::SampleRatio, "hold", "the canary has 9.1 % of the compared answers instead of 10 %"),
            issue(
                NoDataReason::Outage,
                "hold",
                "stable is failing too, so the canary is not the cause: 61 % of its calls fail",
            ),
            issue(NoDataReason::NotHeard, "warn", "not heard from: router-1; promotion waits, a rollback does not"),
        ];
        verdict.sentence = format!("hold: {}", verdict.health[0].sentence);
    });
    let sample = sample.verdict(1500, |verdict| {
        verdict.decision = Decision::Hold;
        verdict.health = vec![
            issue(NoDataReason::SampleRatio, "hold", "the canary has 9.3 % of the compared answers instead of 10 %"),
            issue(
                NoDataReason::Outage,
                "hold",
                "stable is failing too, so the canary is not the cause: 58 % of its calls fail",
            ),
        ];
        verdict.sentence = format!("hold: {}", verdict.health[0].sentence);
    });
    insta::assert_snapshot!(pages(&sample));
}

#[test]
fn held_because_the_time_is_over() {
    let sample = Sample::started().at_step(2);
    let sample = sample.verdict(1260 + 4 * 3600, |verdict| waiting(verdict, &[2]));
    let sample = sample.verdict(1260 + 5 * 3600, |verdict| waiting(verdict, &[2]));
    insta::assert_snapshot!(pages(&sample));
}

#[test]
fn rolled_back() {
    let sample = Sample::started().at_step(1).verdict(900, failing);
    insta::assert_snapshot!(pages(&sample));
}

#[test]
fn rolled_back_and_not_applied_yet() {
    let sample = Sample::started().at_step(1).verdict(900, failing);
    let behind = Applied {
        generation: Generation(4),
        waits_for: "router router-1 has not applied generation 4".to_owned(),
        soon: true,
        ..Applied::default()
    };
    let reported = Reported {
        applied: Some(behind),
        undecided: Vec::new(),
        refused: vec!["router router-2 cannot use the newest table: no URL".to_owned()],
    };
    insta::assert_snapshot!(pages_of(&sample, Some(&reported)));
}

#[test]
fn promoted() {
    let sample = Sample::started().at_step(3);
    insta::assert_snapshot!(pages(&sample));
}

#[test]
fn promoted_by_hand_steps_that_never_ran_are_not_done() {
    let sample = Sample::started().warm().command(Action::PromoteFull, "seen enough");
    insta::assert_snapshot!(pages(&sample));
}

#[test]
fn paused_and_aborted() {
    let paused = Sample::started().at_step(1).command(Action::Pause, "the label job is late");
    let seen = pages(&paused);
    let aborted = paused.command(Action::Abort, "wrong model file");
    insta::assert_snapshot!(format!("{seen}\n{}", pages(&aborted)));
}

/// A weight set by hand, a freeze, a step that waits for an approval, and its undo.
#[test]
fn people_step_in() {
    let approve = ("weight: 25%, ", "weight: 25%, approve: {within: 3h, otherwise: rollback}, ");
    let by_hand = Sample::with(&[approve, ("minEvents: 500", "minEvents: 0")]).warm();
    let by_hand = by_hand.command_with(Action::SetWeight, "small servers", |command| command.weight = Some(250));
    let by_hand = by_hand.command(Action::Freeze, "incident 4711").verdict(900, |_| ());
    let frozen = pages(&by_hand);
    let next = |sample: Sample, secs| sample.verdict(secs, |verdict| verdict.decision = Decision::Promote);
    let asked = next(next(next(by_hand.command(Action::Unfreeze, ""), 1600), 2300), 3000);
    let asked = asked.verdict(3600, |verdict| verdict.decision = Decision::Promote);
    let waits = pages(&asked);
    let undone = asked.command(Action::PromoteFull, "seen").command(Action::Undo, "complaints");
    insta::assert_snapshot!(format!("{frozen}\n{waits}\n{}", pages(&undone)));
}

#[test]
fn only_observed() {
    let sample = Sample::with(&[("kind: Rollout\n", "kind: Rollout\nmode: observe\n")]).warm().verdict(900, failing);
    insta::assert_snapshot!(pages(&sample));
}

#[test]
fn long_names() {
    let (long, version) = (format!("flights_{}_end", "x".repeat(190)), format!("release-{}-rc1", "y".repeat(190)));
    let sample = Sample::with(&[
        ("name: latency_p99", &format!("name: {long}")),
        ("version: '2'", &format!("version: '{version}'")),
    ]);
    let sample = sample.at_step(1).verdict(900, |verdict| verdict.metrics[2].metric.clone_from(&long));
    let text = page(&sample, None, Some(80)).text();
    insta::assert_snapshot!(text);
    for line in text.lines().filter(|line| console::measure_text_width(line) > 80) {
        assert!(line.contains(&version), "only a name may be this long: {line}");
    }
}

#[test]
fn many_segments() {
    let sample = Sample::started().at_step(1).verdict(900, |verdict| {
        failing(verdict);
        for number in 0..200 {
            let segment = Segment::of("origin", format!("A{number:03}").as_str());
            let one = check(("wrong", segment), MetricResult::Fail, [(50, 0.3), (500, 0.15)], (Some(0.03), Some(0.3)));
            verdict.metrics.push(one);
        }
    });
    insta::assert_snapshot!(pages(&sample));
}

#[test]
fn no_data() {
    let sample = Sample::started().at_step(1).verdict(900, |verdict| {
        for metric in &mut verdict.metrics {
            (metric.result, metric.no_data) = (MetricResult::NoData, Some(NoDataReason::CancelledShareDiffers));
            metric.canary.n = 0;
            (metric.canary.value, metric.effect, metric.effect_low, metric.effect_high) = (None, None, None, None);
        }
        verdict.sentence = "keep baking: no window of this step has answers of the canary yet".to_owned();
        canary(verdict).predictions = 66_000;
    });
    insta::assert_snapshot!(pages(&sample));
}

/// Headline and last events are kept on a low terminal.
#[test]
fn a_redrawn_page_fits_the_terminal() {
    let sample = Sample::started().at_step(2).verdict(1900, |verdict| waiting(verdict, &[1, 2]));
    for (height, columns) in [(60, 80), (40, 80), (30, 120), (24, 80), (24, 50), (10, 80), (3, 40), (1, 80)] {
        let text = page(&sample, None, Some(columns)).fitted((height, columns));
        let rows: usize =
            text.lines().map(|line| crate::terminal::rows(console::measure_text_width(line), columns)).sum();
        assert!(rows < height, "{rows} rows of {height}:\n{text}");
        assert!(height < 3 || text.starts_with("flights: version 2 gets 50% of"), "{text}");
        assert!(height < 24 || text.contains("step 3 of 3: 50% to"), "the last event is gone:\n{text}");
    }
    let low = page(&sample, None, Some(80)).fitted((30, 80));
    insta::assert_snapshot!(low);
}
