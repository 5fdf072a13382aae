//! Checks of the log at the end of a chaos run.
//!
//! `support::oracle` recomputes windows from events, and `serin replay` recomputes verdicts from windows. This module checks controls,
//! routing tables, audit and dead letters: each is written once and in order, and no rollback is lost.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{load::BAD, support::oracle};

/// All committed records of the topics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) events: Vec<Value>,
    /// Unreadable records of `events`.
    pub(crate) garbage: Vec<Value>,
    pub(crate) windows: Vec<Value>,
    pub(crate) verdicts: Vec<Value>,
    pub(crate) routing: Vec<Value>,
    pub(crate) audit: Vec<Value>,
    pub(crate) dead_letters: Vec<Value>,
    /// Rollouts of equal versions whose canary turned bad.
    pub(crate) turned_bad: BTreeSet<String>,
}

/// Counts of what was compared, for display.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) windows: oracle::Report,
    pub(crate) controls: usize,
    pub(crate) tables: usize,
    pub(crate) rollouts: usize,
    pub(crate) rollbacks: usize,
}

/// The end of a rollout: its last phase, and the generation that started with it.
type End = (String, i64);

impl Log {
    /// Checks everything, and returns what was compared and all differences.
    pub(crate) fn judge(&self) -> (Report, Vec<String>) {
        let mut differences = Vec::new();
        let mut report = Report::default();
        let mut note = |name: &str, result: Result<()>| {
            differences.extend(result.err().map(|error| format!("{name}: {error:#}")));
        };
        // Unreadable records advance the log's time too.
        let place = |record: &&Value| (record["partition"].as_i64(), record["offset"].as_i64());
        let mut events: Vec<&Value> = self.events.iter().chain(&self.garbage).collect();
        events.sort_by_key(place);
        let windows = oracle::compare(&events, &self.windows).map(|found| report.windows = found);
        note("windows", windows);
        note("controls", self.controls().map(|controls| report.controls = controls));
        note("routing", self.tables().map(|tables| report.tables = tables));
        note("verdicts", self.verdicts());
        note("audit", self.audit());
        let rollbacks = self.rollbacks().map(|found| (report.rollouts, report.rollbacks) = found);
        note("rollbacks", rollbacks);
        note("dead letters", self.dead_letters());
        (report, differences)
    }

    /// Every partition of `events` and `windows` has the same controls, in the order of their generations. While there are no verdicts,
    /// the newest control is repeated with a later time.
    fn controls(&self) -> Result<usize> {
        let mut lists: BTreeMap<(&str, i64), Vec<&Value>> = BTreeMap::new();
        for (topic, records) in [("events", &self.events), ("windows", &self.windows)] {
            for record in records.iter().filter(|record| record["type"] == "control") {
                lists.entry((topic, whole(record, "partition")?)).or_default().push(&record["value"]);
            }
        }
        let first = lists.values().next().context("no controls")?;
        for (place, list) in &lists {
            ensure!(
                list == first,
                "{place:?} has other controls than the rest: {} against {}",
                list.len(),
                first.len()
            );
        }
        let mut distinct: Vec<Value> = first.iter().map(|control| (*control).clone()).collect();
        for control in &mut distinct {
            control["decided_at"] = Value::Null;
        }
        distinct.dedup();
        ascending(distinct.iter().map(|control| whole(control, "generation")))?;
        Ok(first.len())
    }

    /// Generations of routing tables only grow, and so do the lease renewals within a generation.
    fn tables(&self) -> Result<usize> {
        let mut newest: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
        for record in &self.routing {
            let table = &record["value"];
            let now = (whole(table, "generation")?, whole(table, "lease_seq")?);
            if let Some(before) = newest.insert(text(table, "model"), now) {
                ensure!(before < now, "generation and renewal {now:?} after {before:?}: {record}");
            }
        }
        ensure!(!newest.is_empty(), "no routing tables");
        Ok(self.routing.len())
    }

    /// One verdict for each rollout and point of event time, in order.
    fn verdicts(&self) -> Result<()> {
        let mut by_rollout: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for record in &self.verdicts {
            let verdict = &record["value"];
            by_rollout.entry(text(verdict, "rollout")).or_default().push(whole(verdict, "as_of")?);
        }
        for (rollout, times) in by_rollout {
            ascending(times.into_iter().map(Ok)).with_context(|| format!("rollout {rollout}"))?;
        }
        Ok(())
    }

    /// Every event is there once, and every rollout starts once and ends once.
    fn audit(&self) -> Result<()> {
        let mut ids = BTreeSet::new();
        let mut seen: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for record in &self.audit {
            let event = &record["value"];
            ensure!(ids.insert(text(event, "id")), "an event twice: {record}");
            *seen.entry((text(event, "rollout"), text(event, "kind"))).or_default() += 1;
        }
        let ended = self.ends()?;
        for rollout in ended.keys() {
            let of = |kind| seen.get(&(rollout.as_str(), kind)).copied().unwrap_or(0);
            let ends = of("completed") + of("rolled_back") + of("aborted") + of("superseded");
            ensure!(
                of("started") == 1 && ends == 1,
                "rollout {rollout} started {} times, ended {ends} times",
                of("started")
            );
        }
        Ok(())
    }

    /// The newest control of each rollout. Returns an error if a rollout is still running.
    fn ends(&self) -> Result<BTreeMap<String, End>> {
        let mut ends = BTreeMap::new();
        for record in self.events.iter().filter(|record| record["type"] == "control" && record["partition"] == 0) {
            let control = &record["value"];
            let end = (text(control, "phase").to_owned(), whole(control, "generation")?);
            let over = ends.insert(text(control, "rollout").to_owned(), end);
            ensure!(over.is_none_or(|(phase, _)| !is_final(&phase)), "a rollout goes on after its end: {record}");
        }
        for (rollout, (phase, _)) in &ends {
            ensure!(is_final(phase), "rollout {rollout} is still {phase}");
        }
        Ok(ends)
    }

    /// A verdict to roll back is followed by the rollback, whose table has no canary, and by no other table of the rollout. The bad
    /// version is never promoted, and an equal version is never rolled back. Returns the numbers of rollouts and of rollbacks.
    fn rollbacks(&self) -> Result<(usize, usize)> {
        let ends = self.ends()?;
        let canaries: BTreeMap<&str, &str> = self
            .events
            .iter()
            .filter(|record| record["type"] == "control")
            .map(|record| (text(&record["value"], "rollout"), text(&record["value"], "canary")))
            .collect();
        let mut asked = BTreeSet::new();
        for record in self.verdicts.iter().filter(|record| record["value"]["decision"] == "rollback") {
            asked.insert(text(&record["value"], "rollout"));
        }
        let mut rollbacks = 0;
        for (rollout, (phase, generation)) in &ends {
            let canary = canaries.get(rollout.as_str()).copied().unwrap_or_default();
            let asked = asked.contains(rollout.as_str());
            match (phase.as_str(), canary == BAD || self.turned_bad.contains(rollout)) {
                ("rolled_back", true) => rollbacks += 1,
                ("rolled_back", false) => bail!("rollout {rollout} of {canary}, equal to stable, was rolled back"),
                ("aborted", _) => {
                    ensure!(!asked, "rollout {rollout} was aborted before its rollback");
                }
                (_, true) => bail!("rollout {rollout} of the bad version ended as {phase}"),
                (_, false) => ensure!(!asked, "rollout {rollout} should have been rolled back, but ended as {phase}"),
            }
            self.stays_ended(rollout, *generation)?;
        }
        Ok((ends.len(), rollbacks))
    }

    /// The table of a rollout's end exists and has no canary, and there is no later table of the rollout.
    fn stays_ended(&self, rollout: &str, generation: i64) -> Result<()> {
        let tables = || self.routing.iter().map(|record| &record["value"]);
        let last = tables().find(|table| table["generation"] == generation);
        let last = last.with_context(|| format!("no table of generation {generation}, with which {rollout} ended"))?;
        let canary =
            |table: &Value| table["routes"].as_array().is_some_and(|all| all.iter().any(|one| one["arm"] == "canary"));
        ensure!(!canary(last), "the table with which {rollout} ended has a canary: {last}");
        let after =
            tables().find(|table| table["rollout"] == rollout && table["generation"].as_i64() >= Some(generation));
        ensure!(after.is_none(), "a table of {rollout} after its end: {}", after.unwrap_or(&Value::Null));
        Ok(())
    }

    /// Every unusable record of `events` was dead-lettered once. Other dead letters are only records that a killed router still had in
    /// flight when its successor had started to write.
    fn dead_letters(&self) -> Result<()> {
        let mut letters: BTreeSet<(i64, i64)> = BTreeSet::new();
        for record in &self.dead_letters {
            let letter = &record["value"];
            let place = (whole(letter, "partition")?, whole(letter, "offset")?);
            let known = ["old_incarnation", "unknown_type"].contains(&text(letter, "code"));
            ensure!(known && text(letter, "topic").ends_with("events"), "an unexpected dead letter: {record}");
            ensure!(letters.insert(place), "dead-lettered twice: {record}");
        }
        for record in &self.garbage {
            let place = (whole(record, "partition")?, whole(record, "offset")?);
            ensure!(letters.contains(&place), "not dead-lettered: {record}");
        }
        Ok(())
    }
}

fn is_final(phase: &str) -> bool {
    ["completed", "rolled_back", "aborted", "superseded"].contains(&phase)
}

fn ascending(numbers: impl Iterator<Item = Result<i64>>) -> Result<()> {
    let mut before = None;
    for number in numbers {
        let number = number?;
        ensure!(before.is_none_or(|before| before < number), "{number} after {before:?}");
        before = Some(number);
    }
    Ok(())
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn whole(value: &Value, name: &str) -> Result<i64> {
    value[name].as_i64().with_context(|| format!("no number {name} in {value}"))
}
