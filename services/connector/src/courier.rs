//! Decides what one destination is sent next: order, repetition, and when to wait. It uses no clock and no network.
//!
//! Deliveries of one model wait for each other, so that they arrive in order. After a failure the delivery waits, longer each time. After
//! [`BREAKER`] failures in a row the destination's circuit breaker opens: then one delivery is tried at long intervals until one succeeds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serin_schemas::{
    ids::{EventTime, ModelName},
    records::{Delivery, DeliveryOutcome},
};

/// Failures in a row that open the circuit breaker.
pub(crate) const BREAKER: u32 = 5;
/// Wait after the first failure of a delivery. It doubles with every further one.
const FIRST_WAIT_MS: i64 = 1_000;
/// Wait of the circuit breaker when it opens. It doubles with every further failure.
const FIRST_BREAK_MS: i64 = 30_000;
/// Longest wait.
const LONGEST_WAIT_MS: i64 = 5 * 60_000;
/// Longest wait that a destination can ask for.
const LONGEST_ASKED_MS: i64 = 60 * 60_000;

/// A delivery and its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Key of the row that is removed with the result.
    pub(crate) row: String,
    pub(crate) delivery: Delivery,
}

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The destination answered.
    Status {
        /// HTTP status.
        status: u16,
        /// The wait that it asks for, in milliseconds.
        retry_after_ms: Option<i64>,
    },
    /// The call failed before an answer came; the text is the cause.
    NoAnswer(String),
}

/// A delivery with its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) due: Due,
    pub(crate) outcome: DeliveryOutcome,
    pub(crate) attempts: u32,
    pub(crate) status: Option<u16>,
    pub(crate) message: String,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Send this delivery, then call [`Courier::answered`].
    Send(Box<Delivery>),
    /// Wait until this time, in milliseconds since the epoch.
    At(i64),
    /// Wait for another delivery.
    Idle,
}

#[derive(Debug)]
struct Item {
    /// The fold that waits for the result; `None` after its partition has moved away.
    owner: Option<u64>,
    due: Due,
    attempts: u32,
    failure: Option<(Option<u16>, String)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Wait {
    failures: u32,
    until_ms: i64,
}

/// The deliveries of one destination.
#[derive(Debug)]
pub(crate) struct Courier {
    give_up_ms: i64,
    waiting: VecDeque<Item>,
    in_flight: Option<Item>,
    waits: BTreeMap<ModelName, Wait>,
    /// Failures in a row, whatever the model.
    failures: u32,
    open_until_ms: Option<i64>,
    finished: Vec<(u64, Finished)>,
}

impl Courier {
    /// Without deliveries. One that was not accepted for `give_up_ms` is given up.
    pub(crate) fn new(give_up_ms: i64) -> Self {
        Self {
            give_up_ms,
            waiting: VecDeque::new(),
            in_flight: None,
            waits: BTreeMap::new(),
            failures: 0,
            open_until_ms: None,
            finished: Vec::new(),
        }
    }

    /// Adds deliveries of a fold, in order. One that is known already, from before the fold was opened again, is kept once.
    pub(crate) fn add(&mut self, owner: u64, due: Vec<Due>) {
        for due in due {
            match &mut self.in_flight {
                Some(item) if item.due.delivery.id == due.delivery.id => item.owner = Some(owner),
                _ => {
                    self.waiting.push_back(Item { owner: Some(owner), due, attempts: 0, failure: None });
                }
            }
        }
    }

    /// Forgets the deliveries of a fold: its partition has moved, or it is opened again. A call that is under way is not repeated here.
    pub(crate) fn forget(&mut self, owner: u64) {
        self.waiting.retain(|item| item.owner != Some(owner));
        self.finished.retain(|(of, _)| *of != owner);
        if let Some(item) = self.in_flight.as_mut().filter(|item| item.owner == Some(owner)) {
            item.owner = None;
        }
    }

    /// Takes the results of a fold's deliveries.
    pub(crate) fn take_finished(&mut self, owner: u64) -> Vec<Finished> {
        let (own, rest) = std::mem::take(&mut self.finished).into_iter().partition(|(of, _)| *of == owner);
        self.finished = rest;
        let own: Vec<(u64, Finished)> = own;
        own.into_iter().map(|(_, finished)| finished).collect()
    }

    /// Whether all results were taken.
    pub(crate) fn is_settled(&self) -> bool {
        self.finished.is_empty()
    }

    /// Number of deliveries without a result.
    pub(crate) fn depth(&self) -> usize {
        self.waiting.len() + usize::from(self.in_flight.is_some())
    }

    /// Whether the circuit breaker is open, also while one delivery tries whether the destination works again.
    pub(crate) fn is_open(&self) -> bool {
        self.open_until_ms.is_some()
    }

    /// The next delivery to send. One is in flight at a time.
    pub(crate) fn next(&mut self, now_ms: i64) -> Next {
        if self.in_flight.is_some() {
            return Next::Idle;
        }
        self.give_up(now_ms);
        if let Some(until) = self.open_until_ms.filter(|until| *until > now_ms && !self.waiting.is_empty()) {
            return Next::At(until);
        }
        let mut seen = BTreeSet::new();
        let mut earliest: Option<i64> = None;
        let mut found = None;
        for (index, item) in self.waiting.iter().enumerate() {
            let model = &item.due.delivery.model;
            if !seen.insert(model) {
                continue;
            }
            let until = self.waits.get(model).map_or(i64::MIN, |wait| wait.until_ms);
            if until <= now_ms {
                found = Some(index);
                break;
            }
            earliest = Some(earliest.map_or(until, |other| other.min(until)));
        }
        match (found.and_then(|index| self.waiting.remove(index)), earliest) {
            (Some(item), _) => {
                let delivery = Box::new(item.due.delivery.clone());
                self.in_flight = Some(item);
                Next::Send(delivery)
            }
            (None, Some(at)) => Next::At(at),
            (None, None) => Next::Idle,
        }
    }

    /// Records what came of the delivery in flight.
    pub(crate) fn answered(&mut self, now_ms: i64, answer: Answer) {
        let Some(mut item) = self.in_flight.take() else { return };
        item.attempts = item.attempts.saturating_add(1);
        let model = item.due.delivery.model.clone();
        let (status, message, asked_ms) = match answer {
            Answer::Status { status: 200..=299, .. } => {
                self.works(&model);
                self.finish(item, DeliveryOutcome::Delivered, String::new());
                return;
            }
            Answer::Status { status, .. } if is_refusal(status) => {
                self.works(&model);
                item.failure = Some((Some(status), String::new()));
                self.finish(item, DeliveryOutcome::Refused, format!("the destination answered {status}"));
                return;
            }
            Answer::Status { status, retry_after_ms } => {
                (Some(status), format!("the destination answered {status}"), retry_after_ms.unwrap_or(0))
            }
            Answer::NoAnswer(why) => (None, why, 0),
        };
        item.failure = Some((status, message));
        let asked_ms = asked_ms.clamp(0, LONGEST_ASKED_MS);
        let wait = self.waits.entry(model).or_default();
        wait.failures = wait.failures.saturating_add(1);
        wait.until_ms = now_ms.saturating_add(doubled(FIRST_WAIT_MS, wait.failures - 1).max(asked_ms));
        self.failures = self.failures.saturating_add(1);
        if self.failures >= BREAKER {
            let wait = doubled(FIRST_BREAK_MS, self.failures - BREAKER).max(asked_ms);
            self.open_until_ms = Some(now_ms.saturating_add(wait));
        }
        if item.owner.is_none() {
            return;
        }
        // Before all later ones of its model. Models take turns: this one is behind those of other models that wait as long.
        let place = self.waiting.iter().position(|other| other.due.delivery.model == item.due.delivery.model);
        let place = place.unwrap_or(self.waiting.len());
        self.waiting.insert(place, item);
    }

    /// The destination works: the breaker closes, and what waited is sent at once.
    fn works(&mut self, model: &ModelName) {
        self.failures = 0;
        if self.open_until_ms.take().is_some() {
            self.waits.clear();
        }
        self.waits.remove(model);
    }

    /// Gives up what is too old, as long as the destination fails.
    fn give_up(&mut self, now_ms: i64) {
        if self.failures == 0 {
            return;
        }
        let (late, rest) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|item: &Item| now_ms.saturating_sub(ms(item.due.delivery.due_at)) >= self.give_up_ms);
        self.waiting = rest;
        let late: VecDeque<Item> = late;
        for item in late {
            let why =
                item.failure.as_ref().map_or("the destination failed with other deliveries", |(_, why)| why.as_str());
            let message = format!("not accepted within {} s: {why}", self.give_up_ms / 1_000);
            self.finish(item, DeliveryOutcome::Expired, message);
        }
    }

    fn finish(&mut self, item: Item, outcome: DeliveryOutcome, message: String) {
        let Some(owner) = item.owner else { return };
        let status = item.failure.and_then(|(status, _)| status).filter(|_| outcome != DeliveryOutcome::Delivered);
        self.finished.push((owner, Finished { due: item.due, outcome, attempts: item.attempts, status, message }));
    }
}

/// Whether the destination says that the content is wrong. Every other failure may end by itself or by a change of the configuration.
fn is_refusal(status: u16) -> bool {
    matches!(status, 400 | 413 | 422)
}

fn doubled(first_ms: i64, times: u32) -> i64 {
    first_ms.saturating_mul(1 << times.min(20)).min(LONGEST_WAIT_MS)
}

fn ms(time: EventTime) -> i64 {
    time.0 / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn due(id: &str, model: &str) -> Due {
        let delivery = Delivery {
            id: id.to_owned(),
            destination: "chat".to_owned(),
            model: model.into(),
            rollout: None,
            on: "held".to_owned(),
            event: id.to_owned(),
            at: EventTime(0),
            due_at: EventTime(0),
            body: "{}".to_owned(),
        };
        Due { row: format!("due/{id}"), delivery }
    }

    fn status(status: u16) -> Answer {
        Answer::Status { status, retry_after_ms: None }
    }

    /// Runs a courier against a destination until `end_ms`. Returns what it was sent, with the times.
    fn run(courier: &mut Courier, end_ms: i64, destination: impl Fn(i64, &str) -> (i64, Answer)) -> Vec<(i64, String)> {
        let (mut now, mut sent) = (0, Vec::new());
        loop {
            match courier.next(now) {
                Next::Send(delivery) => {
                    sent.push((now, delivery.id.clone()));
                    let (takes_ms, answer) = destination(now, &delivery.id);
                    now += takes_ms;
                    courier.answered(now, answer);
                }
                Next::At(at) if at <= end_ms => {
                    assert!(at > now, "it does not wait");
                    now = at;
                }
                Next::At(_) | Next::Idle => return sent,
            }
        }
    }

    fn outcomes(courier: &mut Courier) -> Vec<(String, DeliveryOutcome)> {
        courier.take_finished(1).into_iter().map(|done| (done.due.delivery.id, done.outcome)).collect()
    }

    #[test]
    fn an_hour_of_500_loses_nothing_keeps_the_order_and_calls_seldom() {
        let mut courier = Courier::new(24 * HOUR);
        courier.add(1, vec![due("a1", "a"), due("b1", "b"), due("a2", "a"), due("a3", "a")]);
        let sent = run(&mut courier, 2 * HOUR, |now, _| (10, status(if now < HOUR { 500 } else { 200 })));
        let failed = sent.iter().filter(|(at, _)| *at < HOUR).count();
        assert!((10..=25).contains(&failed), "{failed} calls in an hour");
        let expected: Vec<_> = ["a1", "a2", "a3", "b1"].map(|id| (id.to_owned(), DeliveryOutcome::Delivered)).into();
        let mut done = outcomes(&mut courier);
        assert!(!courier.is_open());
        let of_a: Vec<_> = done.iter().filter(|(id, _)| id.starts_with('a')).map(|(id, _)| id.as_str()).collect();
        assert_eq!(of_a, ["a1", "a2", "a3"]);
        done.sort();
        assert_eq!(done, expected);
        assert!(!sent.iter().any(|(at, id)| id == "a2" && *at < HOUR), "a2 waits for a1");
        let last = sent.last().unwrap().0;
        assert!(last < HOUR + LONGEST_WAIT_MS + 1_000, "{last}");
    }

    #[test]
    fn the_breaker_opens_after_failures_in_a_row_and_closes_with_a_success() {
        let mut courier = Courier::new(24 * HOUR);
        courier.add(1, (0..8).map(|n| due(&format!("d{n}"), &format!("m{n}"))).collect());
        for expected in [false, false, false, false, true] {
            assert!(matches!(courier.next(0), Next::Send(_)));
            courier.answered(0, Answer::NoAnswer("no answer in 10 s".to_owned()));
            assert_eq!(courier.is_open(), expected);
        }
        assert_eq!(courier.next(0), Next::At(FIRST_BREAK_MS));
        assert!(matches!(courier.next(FIRST_BREAK_MS), Next::Send(_)));
        assert!(courier.is_open(), "one delivery tries it");
        assert_eq!(courier.next(FIRST_BREAK_MS), Next::Idle, "only one");
        courier.answered(FIRST_BREAK_MS, status(200));
        assert!(!courier.is_open());
        let sent = run(&mut courier, HOUR, |_, _| (10, status(200)));
        assert_eq!(sent.len(), 7);
    }

    #[test]
    fn a_delivery_that_always_fails_delays_only_its_model() {
        let mut courier = Courier::new(24 * HOUR);
        courier.add(1, vec![due("bad", "a"), due("a2", "a"), due("b1", "b"), due("c1", "c")]);
        let sent = run(&mut courier, HOUR, |_, id| (10, status(if id == "bad" { 500 } else { 200 })));
        let first = |wanted: &str| sent.iter().find(|(_, id)| id == wanted).map(|(at, _)| *at);
        assert!(first("b1").is_some_and(|at| at < 1_000) && first("c1").is_some_and(|at| at < 1_000), "{sent:?}");
        assert_eq!(first("a2"), None);
        assert_eq!(courier.depth(), 2);
    }

    #[test]
    fn what_a_destination_cannot_use_is_not_repeated_and_a_wait_that_it_asks_for_is_kept() {
        let mut courier = Courier::new(24 * HOUR);
        courier.add(1, vec![due("a1", "a"), due("a2", "a")]);
        assert!(matches!(courier.next(0), Next::Send(_)));
        courier.answered(0, status(400));
        assert!(matches!(courier.next(0), Next::Send(delivery) if delivery.id == "a2"));
        courier.answered(0, Answer::Status { status: 429, retry_after_ms: Some(90_000) });
        assert_eq!(courier.next(1), Next::At(90_000));
        let finished = courier.take_finished(1);
        assert_eq!((finished[0].outcome, finished[0].status), (DeliveryOutcome::Refused, Some(400)));
    }

    #[test]
    fn what_is_not_accepted_in_time_is_given_up_with_the_reason() {
        let mut courier = Courier::new(2 * HOUR);
        courier.add(1, vec![due("a1", "a"), due("a2", "a")]);
        run(&mut courier, 3 * HOUR, |_, _| (30_000, Answer::NoAnswer("no answer in 30 s".to_owned())));
        let finished = courier.take_finished(1);
        assert_eq!(finished.len(), 2);
        assert!(finished.iter().all(|done| done.outcome == DeliveryOutcome::Expired));
        assert_eq!(finished[0].message, "not accepted within 7200 s: no answer in 30 s");
        // It is late, but the destination works: the connector itself was away.
        courier.failures = 0;
        courier.open_until_ms = None;
        courier.add(1, vec![due("b1", "b")]);
        assert!(matches!(courier.next(5 * HOUR), Next::Send(_)));
    }

    #[test]
    fn a_fold_that_is_opened_again_takes_over_and_one_that_moves_away_is_forgotten() {
        let mut courier = Courier::new(24 * HOUR);
        courier.add(1, vec![due("a1", "a"), due("a2", "a")]);
        assert!(matches!(courier.next(0), Next::Send(_)));
        courier.forget(1);
        assert_eq!(courier.depth(), 1, "the call is under way");
        courier.add(2, vec![due("a1", "a"), due("a2", "a")]);
        courier.answered(0, status(200));
        assert!(courier.take_finished(1).is_empty());
        assert_eq!(courier.take_finished(2).len(), 1, "the call counts for the new fold");
        courier.forget(2);
        assert_eq!((courier.depth(), courier.next(0)), (0, Next::Idle));
    }
}
