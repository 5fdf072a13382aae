//! All rollouts of a time in numbers: how many, how they ended, what caught the bad ones, who stepped in, how long promotions took, and how
//! people judged the endings afterwards.
//!
//! The numbers are computed on request from the audit events, which the log keeps for 400 days. They decide nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serin_rollout::{Outcome, planner::Ending};
use serin_schemas::{
    codec,
    ids::{EventTime, ModelName, RolloutId, Span},
    records::{EventKind, RolloutEvent},
};
use serin_stream::log::{Log, LogError};
use serin_topology::AUDIT;

use crate::{
    recorded::{Bound, Read, newest},
    report::{SERVICES, reads_as_approval},
};

/// Name and version of the structure.
const FORMAT: &str = "serin.fleet/v1";
/// How much of each partition is read.
const OF_AUDIT: Bound = Bound { records: 200_000, time: Duration::from_secs(30) };
/// The time that is covered unless another one is asked for.
pub const COVERED: Span = Span(30 * DAY);
const DAY: i64 = 86_400_000_000;

/// The numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    /// Name and version of the structure.
    pub format: String,
    /// Start of the time, wall clock.
    pub from: EventTime,
    /// End of the time, wall clock.
    pub to: EventTime,
    /// Number of models with a rollout.
    pub models: usize,
    /// All rollouts that started within the time.
    pub all: Counts,
    /// The same by the week of the start.
    pub weeks: Vec<Week>,
    /// What caught bad versions.
    pub caught: Caught,
    /// How long promotions took; `None` without any.
    pub promotion: Option<Promotion>,
    /// What people did in addition to starts, approvals and marks.
    pub overrides: Vec<Overrides>,
    /// How people judged the endings afterwards.
    pub judged: Judged,
}

/// Rollouts by their ending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rollouts that started.
    pub started: usize,
    /// Promoted.
    pub promoted: usize,
    /// Rolled back on evidence.
    pub caught: usize,
    /// Rolled back because time ran out.
    pub inconclusive: usize,
    /// Rolled back because they could not be judged.
    pub no_data: usize,
    /// Ended by a person, or undone after the promotion.
    pub aborted: usize,
    /// Ended by a newer rollout.
    pub superseded: usize,
    /// Not ended yet.
    pub open: usize,
}

/// The rollouts that started in one week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Week {
    /// Monday, 00:00 UTC.
    pub week: EventTime,
    /// Its rollouts.
    #[serde(flatten)]
    pub counts: Counts,
}

/// How many versions the evidence stopped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Caught {
    /// Rollouts that ended with a decision on the version: promoted, caught, inconclusive or without data.
    pub decided: usize,
    /// Those that were rolled back on evidence.
    pub caught: usize,
    /// The share of the second in the first; `None` without any.
    pub share: Option<f64>,
    /// By the metric of the worst finding, most first.
    pub by: Vec<CaughtBy>,
}

/// Rollouts that one metric caught.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaughtBy {
    /// Name of the metric; empty if the finding has none.
    pub metric: String,
    /// Number of rollouts.
    pub rollouts: usize,
    /// Those of them with the finding in a segment.
    pub in_segments: usize,
}

/// Times from the start to the promotion, by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Promotion {
    /// Number of promotions.
    pub promotions: usize,
    /// The median.
    pub median_seconds: f64,
    /// Nine of ten promotions took at most this long.
    pub p90_seconds: f64,
}

/// One kind of action of one person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// The person.
    pub by: String,
    /// The kind of the events: `paused`, `aborted`, `advanced` ...
    pub kind: String,
    /// How often.
    pub count: usize,
    /// The newest of them, with its reason.
    pub newest: String,
}

/// How people judged the endings afterwards. The newest mark of a rollout counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Rollouts with a mark.
    pub marked: usize,
    /// Rolled back on evidence, and marked as good.
    pub false_alarms: usize,
    /// Rolled back on evidence, and marked as bad.
    pub right_alarms: usize,
    /// Promoted, and marked as bad.
    pub missed: usize,
    /// Promoted, and marked as good.
    pub right_promotions: usize,
}

/// The numbers, and what was read for them.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    #[serde(flatten)]
    fleet: Fleet,
    read: Read,
}

/// The numbers of all rollouts that started from `from` to `to`, by the wall clock. This blocks.
pub(crate) fn fleet(log: &Arc<dyn Log>, from: EventTime, to: EventTime) -> Result<Shown, LogError> {
    let mut counting = Counting::default();
    let read = newest(log, AUDIT, 0..log.partitions(AUDIT)?, OF_AUDIT, |record| {
        let event = record.value.as_deref().map(|body| codec::read::<RolloutEvent>(&record.headers, body));
        // A record that cannot be read is skipped.
        if let Some(Ok(event)) = event {
            counting.add(&event);
        }
    })?;
    Ok(Shown { fleet: counting.finish(from, to), read })
}

/// What is known of one rollout.
#[derive(Clone, Debug, Default)]
struct Known {
    model: ModelName,
    started: Option<EventTime>,
    promoted: Option<EventTime>,
    ending: Option<Ending>,
    was_good: Option<bool>,
}

/// The part of a rollout's state that is counted.
#[derive(Deserialize)]
struct Ended {
    ending: Option<Ending>,
}

/// Adds up events. The events of a rollout are added in their order.
#[derive(Clone, Debug, Default)]
struct Counting {
    rollouts: BTreeMap<RolloutId, Known>,
    acts: Vec<(EventTime, String, EventKind, String)>,
}

impl Counting {
    fn add(&mut self, event: &RolloutEvent) {
        let Some(id) = &event.rollout else { return };
        let known = self.rollouts.entry(id.clone()).or_default();
        known.model.clone_from(&event.model);
        match event.kind {
            EventKind::Started => {
                known.started.get_or_insert(event.recorded_at);
            }
            EventKind::Marked => known.was_good = event.was_good.or(known.was_good),
            EventKind::Completed => known.promoted = Some(event.recorded_at),
            _ => {}
        }
        let is_end = matches!(
            event.kind,
            EventKind::Completed | EventKind::RolledBack | EventKind::Aborted | EventKind::Superseded
        );
        if let Some(state) = event.state.as_deref().filter(|_| is_end) {
            known.ending =
                serde_json::from_str::<Ended>(state).ok().and_then(|ended| ended.ending).or(known.ending.take());
        }
        let is_plain = matches!(event.kind, EventKind::Started | EventKind::Marked | EventKind::Refused);
        if !is_plain && !SERVICES.contains(&event.actor.as_str()) && !reads_as_approval(event) {
            let sentence = format!("{}: {}", event.model, event.sentence);
            self.acts.push((event.recorded_at, event.actor.clone(), event.kind, sentence));
        }
    }

    fn finish(self, from: EventTime, to: EventTime) -> Fleet {
        let within = |at: EventTime| from <= at && at <= to;
        let mut fleet = Fleet {
            format: FORMAT.to_owned(),
            from,
            to,
            models: 0,
            all: Counts::default(),
            weeks: Vec::new(),
            caught: Caught::default(),
            promotion: None,
            overrides: Vec::new(),
            judged: Judged::default(),
        };
        let (mut models, mut weeks, mut by, mut times) =
            (BTreeSet::new(), BTreeMap::new(), BTreeMap::new(), Vec::new());
        for known in self.rollouts.values() {
            let Some(started) = known.started.filter(|started| within(*started)) else { continue };
            models.insert(&known.model);
            let outcome = known.ending.as_ref().map(|ending| ending.outcome);
            for counts in [&mut fleet.all, weeks.entry(monday(started)).or_insert_with(Counts::default)] {
                counts.add(outcome);
            }
            if let Some(promoted) = known.promoted {
                times.push(promoted.since(started).as_secs_f64().max(0.0));
            }
            if outcome == Some(Outcome::Evidence) {
                let reason = known.ending.as_ref().and_then(|ending| ending.reasons.first());
                let metric = reason.map(|reason| reason.metric.clone()).unwrap_or_default();
                let one = by.entry(metric.clone()).or_insert(CaughtBy { metric, rollouts: 0, in_segments: 0 });
                one.rollouts += 1;
                one.in_segments += usize::from(reason.is_some_and(|reason| !reason.segment.is_all()));
            }
            fleet.judged.add(outcome, known);
        }
        fleet.models = models.len();
        fleet.weeks = weeks.into_iter().map(|(week, counts)| Week { week, counts }).collect();
        fleet.caught = Caught::of(&fleet.all, by.into_values().collect());
        fleet.promotion = Promotion::of(times);
        fleet.overrides = overrides(self.acts.into_iter().filter(|(at, ..)| within(*at)));
        fleet
    }
}

impl Counts {
    fn add(&mut self, outcome: Option<Outcome>) {
        self.started += 1;
        *match outcome {
            None => &mut self.open,
            Some(Outcome::Promoted) => &mut self.promoted,
            Some(Outcome::Evidence) => &mut self.caught,
            Some(Outcome::NoData) => &mut self.no_data,
            Some(Outcome::Inconclusive) => &mut self.inconclusive,
            Some(Outcome::Aborted) => &mut self.aborted,
            Some(Outcome::Superseded) => &mut self.superseded,
        } += 1;
    }
}

impl Caught {
    fn of(all: &Counts, mut by: Vec<CaughtBy>) -> Self {
        by.sort_by_key(|one| std::cmp::Reverse(one.rollouts));
        let decided = all.promoted + all.caught + all.inconclusive + all.no_data;
        let share = (decided > 0).then(|| all.caught as f64 / decided as f64);
        Self { decided, caught: all.caught, share, by }
    }
}

impl Promotion {
    fn of(mut times: Vec<f64>) -> Option<Self> {
        times.sort_by(f64::total_cmp);
        let at = |level: f64| times.get(((level * times.len() as f64).ceil() as usize).saturating_sub(1)).copied();
        Some(Self { promotions: times.len(), median_seconds: at(0.5)?, p90_seconds: at(0.9)? })
    }
}

impl Judged {
    fn add(&mut self, outcome: Option<Outcome>, known: &Known) {
        let Some(was_good) = known.was_good else { return };
        self.marked += 1;
        // An undone promotion was a promotion.
        let was_promoted = known.promoted.is_some();
        match (outcome, was_good) {
            (Some(Outcome::Evidence), true) => self.false_alarms += 1,
            (Some(Outcome::Evidence), false) => self.right_alarms += 1,
            (_, true) if was_promoted => self.right_promotions += 1,
            (_, false) if was_promoted => self.missed += 1,
            _ => {}
        }
    }
}

/// Actions by person and kind, most first.
fn overrides(acts: impl Iterator<Item = (EventTime, String, EventKind, String)>) -> Vec<Overrides> {
    let mut found: BTreeMap<(String, &str), (usize, EventTime, String)> = BTreeMap::new();
    for (at, by, kind, sentence) in acts {
        let (count, newest, text) = found.entry((by, kind.as_str())).or_insert((0, at, String::new()));
        *count += 1;
        if at >= *newest {
            (*newest, *text) = (at, sentence);
        }
    }
    let one =
        |((by, kind), (count, _, newest)): ((String, &str), _)| Overrides { by, kind: kind.to_owned(), count, newest };
    let mut all: Vec<Overrides> = found.into_iter().map(one).collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.count));
    all
}

/// The Monday of a time's week, 00:00 UTC.
fn monday(at: EventTime) -> EventTime {
    // 1970-01-01 was a Thursday.
    let day = at.0.div_euclid(DAY);
    EventTime((day - (day + 3).rem_euclid(7)) * DAY)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serin_schemas::{
        ids::Generation,
        records::{Phase, Segment},
    };

    use super::*;

    /// 2026-11-30, a Monday.
    const MONDAY: i64 = 1_795_996_800;

    fn event(rollout: &str, kind: EventKind, secs: i64, actor: &str) -> RolloutEvent {
        RolloutEvent {
            id: String::new(),
            model: rollout.split('-').next().unwrap().into(),
            rollout: Some(rollout.into()),
            kind,
            phase: Phase::Baking,
            step: 0,
            canary_share: 0,
            generation: Generation(1),
            at: EventTime(0),
            recorded_at: EventTime::from_secs(MONDAY + secs),
            actor: actor.into(),
            sentence: format!("{} by {actor}: why", kind.as_str()),
            cause: None,
            state: None,
            was_good: None,
        }
    }

    fn ended(rollout: &str, kind: EventKind, secs: i64, outcome: &str, segment: &Segment) -> RolloutEvent {
        let reasons = if outcome == "evidence" {
            json!([{"metric": "wrong", "segment": segment, "sentence": "worse"}])
        } else {
            json!([])
        };
        let ending = json!({"outcome": outcome, "reasons": reasons, "sentence": "", "at": 0, "actor": "analyzer"});
        let state = json!({"ending": ending, "anything": 1}).to_string();
        RolloutEvent { state: Some(state), ..event(rollout, kind, secs, "analyzer") }
    }

    fn marked(rollout: &str, was_good: bool) -> RolloutEvent {
        RolloutEvent { was_good: Some(was_good), ..event(rollout, EventKind::Marked, 9_000, "ada") }
    }

    fn count(events: &[RolloutEvent]) -> Fleet {
        let mut counting = Counting::default();
        for event in events {
            counting.add(event);
        }
        counting.finish(EventTime::from_secs(MONDAY - 7 * 86_400), EventTime::from_secs(MONDAY + 86_400))
    }

    #[test]
    fn rollouts_are_counted_by_ending_and_week() {
        let all = Segment::all();
        let fleet = count(&[
            event("a-1", EventKind::Started, -60, "ada"),
            ended("a-1", EventKind::Completed, 40, "promoted", &all),
            event("a-2", EventKind::Started, 60, "ada"),
            ended("a-2", EventKind::RolledBack, 70, "evidence", &Segment::of("origin", "LGA")),
            event("b-1", EventKind::Started, 80, "ada"),
            ended("b-1", EventKind::Completed, 380, "promoted", &all),
            event("b-2", EventKind::Started, 90, "ada"),
            // Before the time, and without a start on the log.
            event("c-1", EventKind::Started, -8 * 86_400, "ada"),
            ended("c-2", EventKind::RolledBack, 10, "evidence", &all),
        ]);
        let Counts { started, promoted, caught, open, .. } = fleet.all;
        assert_eq!((fleet.models, started, promoted, caught, open), (2, 4, 2, 1, 1));
        let weeks: Vec<_> = fleet.weeks.iter().map(|week| (week.week.0 / 1_000_000, week.counts.started)).collect();
        assert_eq!(weeks, [(MONDAY - 7 * 86_400, 1), (MONDAY, 3)]);
        assert_eq!((fleet.caught.decided, fleet.caught.share), (3, Some(1.0 / 3.0)));
        assert_eq!(fleet.caught.by, [CaughtBy { metric: "wrong".into(), rollouts: 1, in_segments: 1 }]);
        let promotion = fleet.promotion.unwrap();
        assert_eq!((promotion.promotions, promotion.median_seconds, promotion.p90_seconds), (2, 100.0, 300.0));
    }

    #[test]
    fn the_newest_mark_counts_and_an_undone_promotion_was_one() {
        let all = Segment::all();
        let rollout =
            |id: &str, kind, outcome| vec![event(id, EventKind::Started, 0, "ada"), ended(id, kind, 10, outcome, &all)];
        let mut events = [
            rollout("a-1", EventKind::RolledBack, "evidence"),
            rollout("a-2", EventKind::RolledBack, "evidence"),
            rollout("a-3", EventKind::Completed, "promoted"),
            rollout("a-4", EventKind::Completed, "promoted"),
            rollout("a-5", EventKind::Aborted, "aborted"),
        ]
        .concat();
        events.push(ended("a-3", EventKind::Aborted, 20, "aborted", &all));
        for (id, was_good) in
            [("a-1", false), ("a-1", true), ("a-2", false), ("a-3", false), ("a-4", true), ("a-5", true)]
        {
            events.push(marked(id, was_good));
        }
        let expected = Judged { marked: 5, false_alarms: 1, right_alarms: 1, missed: 1, right_promotions: 1 };
        assert_eq!(count(&events).judged, expected);
    }

    #[test]
    fn overrides_are_those_of_people_without_approvals_and_marks() {
        let mut approved = event("a-1", EventKind::Advanced, 5, "ada");
        approved.sentence = "step 2 of 3: 50% to v2, approved by ada: seen".into();
        let fleet = count(&[
            event("a-1", EventKind::Started, 0, "ada"),
            event("a-1", EventKind::Paused, 1, "ada"),
            event("a-1", EventKind::Paused, 3, "ada"),
            event("a-1", EventKind::Paused, 2, "bob"),
            event("a-1", EventKind::Refused, 4, "ada"),
            event("a-1", EventKind::Advanced, 4, "analyzer"),
            event("a-1", EventKind::Confirmed, 4, "controller"),
            approved,
            marked("a-1", true),
        ]);
        let found: Vec<_> = fleet.overrides.iter().map(|one| (one.by.as_str(), one.kind.as_str(), one.count)).collect();
        assert_eq!(found, [("ada", "paused", 2), ("bob", "paused", 1)]);
        assert_eq!(fleet.overrides[0].newest, "a: paused by ada: why");
    }

    #[test]
    fn weeks_start_on_monday() {
        for (secs, expected) in [(0, 0), (-1, -7), (6 * 86_400, 0), (7 * 86_400, 7)] {
            let start = monday(EventTime::from_secs(MONDAY + secs));
            assert_eq!(start, EventTime::from_secs(MONDAY + expected * 86_400), "{secs}");
        }
    }
}
