//! What the analyzer remembers of one rollout in addition to its hypotheses, in one row.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::{EventTime, Generation, ModelName, RolloutId, Span, Version},
    records::{Arm, ArmCounts, Control, Phase},
};
use serin_spec::Rules;

use crate::{arms::Shares, baseline::Baseline, coverage::Coverage, health::Health, outage::Outage, standing::Standing};

/// What one generation means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Era {
    pub(crate) phase: Phase,
    pub(crate) step: i32,
    pub(crate) shares: Shares,
}

impl Era {
    pub(crate) fn of(control: &Control) -> Self {
        let shares = Shares { canary: control.canary_share, control: control.control_share };
        Self { phase: control.phase, step: control.step, shares }
    }

    /// The arm of the version on trial. While the version serves no calls, the answers to mirrored calls are used.
    pub(crate) fn trial(self) -> Arm {
        if self.shares.canary > 0 { Arm::Canary } else { Arm::Shadow }
    }

    /// Whether its windows are learned from and not judged.
    pub(crate) fn is_warm_up(self) -> bool {
        matches!(self.phase, Phase::Pending | Phase::Warming)
    }
}

/// The time at which the rollout's evidence crossed the threshold of rollback. It is never withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Crossing {
    /// End of the deciding window.
    pub(crate) at: EventTime,
    /// The hypothesis that contributed most.
    pub(crate) largest: u32,
}

/// What is kept of one rollout. `C` is what is counted per arm; old rows have another form of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head<C = ArmCounts> {
    pub(crate) model: ModelName,
    pub(crate) rollout: RolloutId,
    pub(crate) stable: Version,
    pub(crate) canary: Version,
    /// The spec in the first Control record, with the steps of the newest.
    pub(crate) spec: String,
    /// The frozen segments, as Control contains them.
    pub(crate) frozen: Option<String>,
    /// The segments that the analyzer proposed to freeze.
    pub(crate) proposed: Option<String>,
    pub(crate) eras: BTreeMap<Generation, Era>,
    /// All windows that close up to here have arrived: what all partitions have promised, less the rollout's grace.
    pub(crate) through: EventTime,
    /// The time of the last verdict.
    pub(crate) as_of: EventTime,
    pub(crate) warmup_events: u64,
    pub(crate) warmup_labels: bool,
    /// Per stream, the step whose evidence for a pass is collected.
    pub(crate) steps: BTreeMap<Span, i32>,
    /// The canary's compared answers in the step of stream 0.
    pub(crate) step_canary: u64,
    /// Totals since the canary started.
    pub(crate) arms: BTreeMap<Arm, C>,
    pub(crate) health: Health,
    pub(crate) crossed: Option<Crossing>,
    /// Parallel to the plan's groups; empty until the first window is judged.
    pub(crate) groups: Vec<GroupState>,
    /// By the first generation of a run with the same traffic: end of the first window of stream 0 in which the version on
    /// trial had answers. Recorded only where windows are left out after a change (`settle`).
    pub(crate) began: BTreeMap<Generation, EventTime>,
    /// Version of the rules under which the rollout started, from its Control record.
    pub(crate) rules: i32,
    /// How much of the answers the comparison sees.
    pub(crate) coverage: Coverage,
    /// The rules under which it is judged: those of `rules`, if this build knows them.
    pub(crate) judged: Rules,
}

/// What keeps a rollout from taking a step although its evidence would allow it. In a separate row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Guards {
    /// What warm-up saw.
    pub(crate) baseline: Baseline,
    /// How many calls fail at present.
    pub(crate) outage: Outage,
    /// Dimensions in which the arms were seen to serve different populations, in any step.
    pub(crate) mixed: BTreeSet<String>,
    /// Start of the step's first window of stream 0.
    pub(crate) step_began: Option<EventTime>,
    /// The findings that hold the rollout, and those of them that were acknowledged.
    pub(crate) standing: Standing,
}

/// What a group of metrics has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GroupState {
    /// Largest `ln E` so far.
    pub(crate) max_ln_e: f64,
    /// End of the window in which the group failed.
    pub(crate) failed_at: Option<EventTime>,
}

/// [`ArmCounts`] in rows of format 4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OutcomeCounts {
    first: OldCounts,
    refused: i64,
    redirected: i64,
    unread: i64,
    cancelled: i64,
    left: i64,
}

impl From<OutcomeCounts> for ArmCounts {
    fn from(old: OutcomeCounts) -> Self {
        let OutcomeCounts { first, refused, redirected, unread, cancelled, left } = old;
        Self { refused, redirected, unread, cancelled, left, ..first.into() }
    }
}

/// [`ArmCounts`] in rows up to format 3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OldCounts {
    arm: Arm,
    predictions: i64,
    excluded: i64,
    errors: i64,
    invalid: i64,
    late: i64,
    lost: i64,
    labelled: i64,
}

impl From<OldCounts> for ArmCounts {
    fn from(old: OldCounts) -> Self {
        let OldCounts { arm, predictions, excluded, errors, invalid, late, lost, labelled } = old;
        Self { predictions, excluded, errors, invalid, late, lost, labelled, ..Self::none(arm) }
    }
}

impl<C: Into<ArmCounts>> Head<C> {
    /// The same head, with zero for what was not counted.
    pub(crate) fn with_all_counts(self) -> Head {
        Head {
            model: self.model,
            rollout: self.rollout,
            stable: self.stable,
            canary: self.canary,
            spec: self.spec,
            frozen: self.frozen,
            proposed: self.proposed,
            eras: self.eras,
            through: self.through,
            as_of: self.as_of,
            warmup_events: self.warmup_events,
            warmup_labels: self.warmup_labels,
            steps: self.steps,
            step_canary: self.step_canary,
            arms: self.arms.into_iter().map(|(arm, counts)| (arm, counts.into())).collect(),
            health: self.health,
            crossed: self.crossed,
            groups: self.groups,
            began: self.began,
            rules: self.rules,
            coverage: self.coverage,
            judged: self.judged,
        }
    }
}

impl Head {
    /// The newest generation and its meaning.
    pub(crate) fn current(&self) -> (Generation, Era) {
        let (&generation, &era) = self.eras.last_key_value().expect("a rollout begins with a Control record");
        (generation, era)
    }

    /// The first of the run of generations that ends with this one. The traffic does not change within a run: it includes holds and
    /// pauses that leave the weights alone.
    fn run_of(&self, generation: Generation) -> Generation {
        let traffic = |era: &Era| (era.step, era.shares);
        let newest = self.eras.get(&generation).map(traffic);
        let run = self.eras.range(..=generation).rev().take_while(|(_, era)| Some(traffic(era)) == newest);
        run.last().map_or(generation, |(&first, _)| first)
    }

    /// Records that the version on trial had answers in a window of stream 0. Windows come in order, so the first one is kept.
    pub(crate) fn had_answers(&mut self, generation: Generation, end: EventTime) {
        self.began.entry(self.run_of(generation)).or_insert(end);
    }

    /// End of the first window of a generation's traffic that enters the comparison, if the traffic `settles` for this long. `None`
    /// if the version on trial has had no answers yet.
    pub(crate) fn compared_from(&self, generation: Generation, settles: Span) -> Option<EventTime> {
        self.began.get(&self.run_of(generation)).map(|first| first.plus(settles))
    }
}
