//! The canary's answers lead to the same results as stable's, but its labels arrive later. A label that has not arrived by the maturity
//! counts as 0, so the canary looks worse. With a metric on the delay, the rollout is held and not rolled back. If the file says to ignore
//! the delay, the rollout must be rolled back, or the scenario would prove nothing.

use serin_schemas::records::Decision;

use crate::{
    lab::Lab,
    report::{Row, Unit, quantile, share},
    support::labels::{play, spec},
};

/// The probability that the file asks for.
const FALSE_ROLLBACK: f64 = 0.01;

/// A spec with a margin of a fifth for clicks, and with this margin for their delay.
fn file(delay: &str, margin: &str) -> String {
    spec(delay, margin).replacen("{\"relative\": 0.5}", "{\"relative\": 0.2}", 1)
}

/// How a rollout ended, and after how many seconds of baking.
struct End {
    decision: Decision,
    seconds: f64,
}

/// Rollouts in which the canary's labels take `times` times as long, and are `often` times as frequent.
fn rollouts(lab: Lab, name: &str, file: &str, times: f64, often: f64) -> Vec<End> {
    lab.each(name, lab.runs(200, 6), |run| {
        let world = play(1000 + run, file, times, often);
        let baking = world.now.since(world.control.decided_at);
        End { decision: world.last().decision, seconds: baking.0 as f64 / 1e6 }
    })
}

/// The share of rollouts that are rolled back.
fn rolled_back(lab: Lab, words: &str, file: &str, times: f64, often: f64) -> Row {
    let ends = rollouts(lab, words, file, times, often);
    let of = |decision| share(ends.iter().map(|end| end.decision == decision));
    let held = Unit::Share.text(of(Decision::Hold).0);
    Row::new("late", words, Unit::Share, of(Decision::Rollback)).note(format!("{held} held"))
}

/// Shares of rollouts that are rolled back, and the time until the delay is known.
pub(crate) fn rows(lab: Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    for (times, margin) in [(1.0, 0.1), (1.5, 0.1), (2.0, 0.9), (2.5, 0.1), (2.5, 0.9), (3.0, 0.1), (3.0, 0.9)] {
        let file = file("\"distribution\"", &format!("{{\"absolute\": {margin}}}"));
        let words = format!("false rollbacks, labels {times} times as late, margin of the delay {margin}");
        rows.push(rolled_back(lab, &words, &file, times, 1.0).at_most(FALSE_ROLLBACK));
    }
    let median = file("{\"quantile\": {\"level\": 0.5}}", "{\"relative\": 0.2}");
    for times in [1.5, 2.5] {
        let words = format!("false rollbacks, labels {times} times as late, their median may be 20 % later");
        rows.push(rolled_back(lab, &words, &median, times, 1.0).at_most(FALSE_ROLLBACK));
    }
    let narrow = file("\"distribution\"", "{\"absolute\": 0.1}");
    // Hardly any labels arrive in time. Too few show nothing of their delay.
    for times in [4.0, 5.0, 10.0] {
        let words = format!("false rollbacks, labels {times} times as late");
        rows.push(rolled_back(lab, &words, &narrow, times, 1.0).at_most(FALSE_ROLLBACK));
    }
    let seconds: Vec<f64> = rollouts(lab, "until the hold", &narrow, 2.5, 1.0).iter().map(|end| end.seconds).collect();
    let words = "until the hold, labels 2.5 times as late, median";
    rows.push(Row::new("late", words, Unit::Seconds, quantile(&seconds, 0.5)));
    let off = narrow.replacen("\"window\"", "\"noData\": {\"labelDelay\": \"proceed\"}, \"window\"", 1);
    let words = "rolled back, labels 3 times as late, if the file says to ignore it";
    rows.push(rolled_back(lab, words, &off, 3.0, 1.0).at_least(0.9));
    for times in [1.0, 1.02] {
        let words = format!("rolled back, half of the clicks, labels {times} times as late");
        rows.push(rolled_back(lab, &words, &narrow, times, 0.5).at_least(0.9));
    }
    rows
}
