//! The decisions of another policy, step by step, next to the recorded ones.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serin_schemas::{
    codec,
    event::WindowRecord,
    ids::{EventTime, ModelName, RolloutId, Version},
    records::{Arm, Control, Decision, Phase, Verdict},
};
use serin_spec::{RolloutSpec, Share, Step};
use serin_stream::{fold::Fold, record::Record};

use crate::in_process::LocalFold;

/// The parts of a verdict that a story needs.
#[derive(Clone, Debug)]
struct Brief {
    as_of: EventTime,
    step: i32,
    decision: Decision,
    canary_answers: i64,
    sentence: String,
}

/// Runs one analyzer over records of `windows`, and keeps its verdicts.
pub(crate) struct Judge {
    analyzer: LocalFold,
    verdicts: BTreeMap<RolloutId, Vec<Brief>>,
    /// Why records could not be used.
    pub(crate) refused: BTreeSet<String>,
}

impl Judge {
    /// A judge with this fold of the analyzer.
    pub(crate) fn new(analyzer: Box<dyn Fold>) -> anyhow::Result<Self> {
        Ok(Self { analyzer: LocalFold::new(analyzer)?, verdicts: BTreeMap::new(), refused: BTreeSet::new() })
    }

    /// Takes a record of `windows`.
    pub(crate) fn take(&mut self, record: &Record) -> anyhow::Result<()> {
        self.refused.extend(self.analyzer.apply(record)?);
        for outgoing in std::mem::take(&mut self.analyzer.out) {
            let verdict: Verdict = codec::read(&outgoing.headers, &outgoing.value.unwrap_or_default())?;
            let canary = verdict.arms.iter().find(|arm| arm.arm == Arm::Canary);
            let brief = Brief {
                as_of: verdict.as_of,
                step: verdict.step,
                decision: verdict.decision,
                canary_answers: canary.map_or(0, |arm| arm.predictions),
                sentence: verdict.sentence,
            };
            self.verdicts.entry(verdict.rollout).or_default().push(brief);
        }
        Ok(())
    }
}

/// How a step ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StepOutcome {
    /// The rollout goes to the next step, or is promoted after the last step.
    Advance,
    /// The rollout is rolled back to stable.
    RollBack,
    /// The rollout is held: there is not enough evidence by `bake.max`, or the evidence is unsound.
    Hold,
    /// An operator ended the rollout.
    Ended,
    /// The record ends before the step does.
    Open,
}

/// The end of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StepEnd {
    pub(crate) how: StepOutcome,
    /// Event time of the end, or of the last verdict if the step is still open.
    pub(crate) at: EventTime,
    pub(crate) sentence: String,
}

/// One recorded step with both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StepStory {
    /// Index of the step, from 0.
    pub(crate) step: i32,
    canary_share: i32,
    pub(crate) began: EventTime,
    /// The recorded end.
    pub(crate) recorded: StepEnd,
    /// The end under the other policy; `None` after it rolled back.
    pub(crate) other: Option<StepEnd>,
}

/// One rollout under both policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Story {
    pub(crate) rollout: RolloutId,
    pub(crate) model: ModelName,
    pub(crate) stable: Version,
    pub(crate) canary: Version,
    pub(crate) steps: Vec<StepStory>,
}

/// Takes the Control records of rollouts, in order.
#[derive(Default)]
pub(crate) struct Controls(BTreeMap<RolloutId, Vec<Control>>);

impl Controls {
    /// Keeps a record if it is a Control.
    pub(crate) fn take(&mut self, record: &Record) {
        let body = record.value.as_deref().unwrap_or_default();
        if let Ok(WindowRecord::Control(control)) = WindowRecord::decode(&record.headers, body) {
            self.0.entry(control.rollout.clone()).or_default().push(control);
        }
    }

    /// The recorded spec of each rollout of a model whose start is on the log.
    pub(crate) fn specs(&self, model: &ModelName) -> anyhow::Result<BTreeMap<RolloutId, RolloutSpec>> {
        let first = |controls: &[Control]| controls.first().filter(|first| first.model == *model).cloned();
        let firsts = self.0.values().filter_map(|controls| first(controls));
        let complete = firsts.filter(|first| matches!(first.phase, Phase::Pending | Phase::Warming));
        complete.map(|first| Ok((first.rollout, serde_json::from_str(&first.spec)?))).collect()
    }
}

/// The stories of the rollouts in `recorded`, under their recorded specs and under another policy.
pub(crate) fn stories(
    controls: &Controls,
    recorded: &BTreeMap<RolloutId, RolloutSpec>,
    base: &Judge,
    policy: &RolloutSpec,
    other: &Judge,
) -> Vec<Story> {
    let story = |id: &RolloutId| {
        let controls = controls.0.get(id)?;
        let first = controls.first()?;
        let mut gone = false;
        let steps = bakes(controls).map(|(control, next)| {
            let other = (!gone).then(|| decided(policy, control, next, other.of(id)));
            gone |= other.as_ref().is_some_and(|end| end.how == StepOutcome::RollBack);
            StepStory {
                step: control.step,
                canary_share: control.canary_share,
                began: control.decided_at,
                recorded: recorded_end(control, next, base.of(id)),
                other,
            }
        });
        Some(Story {
            rollout: id.clone(),
            model: first.model.clone(),
            stable: first.stable.clone(),
            canary: first.canary.clone(),
            steps: steps.collect(),
        })
    };
    recorded.keys().filter_map(story).collect()
}

impl Judge {
    fn of(&self, rollout: &RolloutId) -> &[Brief] {
        self.verdicts.get(rollout).map_or(&[], Vec::as_slice)
    }
}

/// Each Control that starts to bake a step, with the one that ends it.
fn bakes(controls: &[Control]) -> impl Iterator<Item = (&Control, Option<&Control>)> {
    let starts = |place: usize| {
        let (control, before) = (&controls[place], place.checked_sub(1).map(|place| &controls[place]));
        matches!(control.phase, Phase::Baking | Phase::Shadowing)
            && before.is_none_or(|before| before.step != control.step)
    };
    (0..controls.len()).filter(move |&place| starts(place)).map(|place| {
        let control = &controls[place];
        let ends =
            |next: &&Control| next.step != control.step || next.phase == Phase::Promoted || next.phase.is_final();
        (control, controls[place + 1..].iter().find(ends))
    })
}

/// How a step ended on the log. The analyzer's last sentence explains it.
fn recorded_end(control: &Control, next: Option<&Control>, verdicts: &[Brief]) -> StepEnd {
    let Some(next) = next else {
        let last = verdicts.iter().rfind(|brief| brief.step == control.step);
        let at = last.map_or(control.decided_at, |brief| brief.as_of);
        return StepEnd {
            how: StepOutcome::Open,
            at,
            sentence: last.map_or_else(String::new, |brief| brief.sentence.clone()),
        };
    };
    let how = match next.phase {
        Phase::RolledBack => StepOutcome::RollBack,
        Phase::Aborted | Phase::Superseded => StepOutcome::Ended,
        _ => StepOutcome::Advance,
    };
    let last = verdicts.iter().rfind(|brief| brief.as_of <= next.decided_at);
    StepEnd { how, at: next.decided_at, sentence: last.map_or_else(String::new, |brief| brief.sentence.clone()) }
}

/// How a policy would have ended a step of the record, by the planner's rule: a rollback at once; the next step when the verdict is
/// `promote`, `bake.min` has passed and there are `bake.minEvents` answers; a hold when the evidence is unsound, or not enough by
/// `bake.max`. After a hold, the step may still end.
fn decided(policy: &RolloutSpec, control: &Control, next: Option<&Control>, verdicts: &[Brief]) -> StepEnd {
    let step = usize::try_from(control.step).ok().and_then(|step| policy.steps.get(step));
    let bake = step.or(policy.steps.last()).map(|step: &Step| step.bake.clone()).unwrap_or_default();
    let until = next.map_or(EventTime(i64::MAX), |next| next.decided_at);
    let before = verdicts.iter().rfind(|brief| brief.as_of <= control.decided_at);
    let answers_before = before.map_or(0, |brief| brief.canary_answers);
    let mut end = StepEnd { how: StepOutcome::Open, at: control.decided_at, sentence: String::new() };
    for brief in verdicts.iter().filter(|brief| brief.step == control.step && brief.as_of <= until) {
        let (at, sentence) = (brief.as_of, brief.sentence.clone());
        let spent = at.since(control.decided_at);
        let answers = brief.canary_answers - answers_before;
        let how = match brief.decision {
            Decision::Rollback => StepOutcome::RollBack,
            Decision::Promote if spent >= bake.min.0 && answers >= bake.min_events as i64 => StepOutcome::Advance,
            Decision::Hold => StepOutcome::Hold,
            _ if spent >= bake.max.0 => StepOutcome::Hold,
            _ => StepOutcome::Open,
        };
        match how {
            StepOutcome::RollBack | StepOutcome::Advance => return StepEnd { how, at, sentence },
            // Keep the start of the hold.
            StepOutcome::Hold if end.how == StepOutcome::Hold => {}
            _ => end = StepEnd { how, at, sentence },
        }
    }
    end
}

impl StepOutcome {
    /// The end as text.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Advance => "next step",
            Self::RollBack => "rolled back",
            Self::Hold => "held",
            Self::Ended => "ended by an operator",
            Self::Open => "still baking",
        }
    }
}

impl StepStory {
    /// The canary's weight.
    pub(crate) fn weight(&self) -> Share {
        Share(self.canary_share)
    }
}
