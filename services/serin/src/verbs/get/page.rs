//! One rollout on one screen: its state and the cause, its progress, the evidence, and its events.

use std::fmt::Write as _;

use console::measure_text_width;
use serde_json::Value;
use serin_rollout::{
    RolloutState,
    planner::{HoldCause, StepIndex, without_order},
};
use serin_schemas::{
    ids::EventTime,
    records::{Arm, Phase, Verdict},
};

use super::reported::{Reported, refusals, undecided_sentence};
use crate::{
    evidence::{self, Rows},
    headline::{headline, ramp},
    terminal::{Terminal, Tone, rows},
    time::to_the_second,
    verbs::progress,
};

/// Largest number of events shown.
const MOST_EVENTS: usize = 10;
/// If a screen is too low, events are dropped first while there are at least this many.
const FEWEST_EVENTS: usize = 4;
/// Number of parts of the head that are kept longer than the last event: headline, sentence, ramp.
const SHORTEST_HEAD: usize = 5;
/// Columns of a name and the space after it.
const INDENT: usize = 11;
/// Columns of an event's time and the spaces around it.
const EVENT_INDENT: usize = 21;

/// A rollout and the data that is shown about it.
pub(super) struct Shown<'a> {
    pub(super) state: &'a RolloutState,
    pub(super) verdict: Option<&'a Verdict>,
    pub(super) reported: &'a Reported,
    /// All its events, oldest first.
    pub(super) events: &'a [Value],
}

/// The parts of a screen, as lines that fit a terminal.
pub(super) struct Page {
    head: Vec<String>,
    table: Vec<String>,
    notes: Vec<String>,
    events: Vec<String>,
    older: usize,
}

impl Page {
    /// The page of a rollout.
    pub(super) fn new(shown: &Shown<'_>, terminal: Terminal) -> Self {
        let Shown { state, verdict, reported, events } = *shown;
        let (tone, first) = headline(state, reported.applied.as_ref());
        let lines =
            |text: String| terminal.wrap(&text, 0).lines().map(|line| terminal.paint(line, tone)).collect::<Vec<_>>();
        let mut head = lines(first);
        let sentence = deciding(state, verdict);
        head.push(terminal.wrap(&sentence, 0));
        head.push(String::new());
        head.push(terminal.wrap(&format!("Ramp:      {}", ramp(state)), INDENT));
        for line in progress::lines(state, verdict, first_step(events)) {
            let indent = if line.starts_with(' ') { 2 } else { INDENT };
            head.push(terminal.wrap(&line, indent));
        }
        head.extend(progress::by_people(state).into_iter().map(|line| terminal.wrap(&line, INDENT)));
        head.push(terminal.wrap(&format!("Routing:   {}", routing(state, reported)), INDENT));
        head.extend(refusals(reported).map(|refusal| terminal.wrap(&format!("  ! {refusal}"), 2)));
        let (stable, canary) = (state.spec.stable.version.in_words(), state.spec.canary.version.in_words());
        head.push(terminal.wrap(&format!("Versions:  stable {stable}, canary {canary}"), INDENT));
        head.push(format!("Rollout:   {}", state.id));
        let (mut table, mut notes) = (Vec::new(), Vec::new());
        if let Some(verdict) = verdict {
            // In warm-up nothing is compared.
            if verdict.warmup_events.is_none() {
                let about = about(verdict, &sentence, &state.sentence);
                table.push(String::new());
                table.push(terminal.wrap(&about, INDENT));
                table.push(String::new());
                table.extend(evidence::table(verdict, &state.spec, Rows::Relevant, terminal));
                for arm in verdict.arms.iter().filter(|arm| arm.arm != Arm::Stable) {
                    let (name, outcomes) = (arm.arm.as_str(), evidence::outcomes(arm));
                    notes
                        .push(terminal.wrap(&format!("  {name}: {} answers compared: {outcomes}", arm.predictions), 2));
                }
            }
            for issue in &verdict.health {
                let tone = if matches!(issue.policy.as_str(), "hold" | "rollback") { Tone::Open } else { Tone::Plain };
                let text = terminal.wrap(&format!("  ! {} (policy: {})", issue.sentence, issue.policy), 2);
                notes.extend(text.lines().map(|line| terminal.paint(line, tone)));
            }
        }
        for (router, reported) in &reported.undecided {
            notes.push(terminal.wrap(&undecided_sentence(router, reported, &state.spec.stable.version), 2));
        }
        let older = events.len().saturating_sub(MOST_EVENTS);
        let events = events[older..].iter().map(|event| terminal.wrap(&event_line(event), EVENT_INDENT)).collect();
        Self { head, table, notes, events, older }
    }

    /// The whole page.
    pub(super) fn text(&self) -> String {
        self.with(self.head.len(), self.table.len(), self.notes.len(), self.events.len())
    }

    /// The part of the page that fits the screen. Headline and last events take precedence over progress, and progress over the table.
    pub(super) fn fitted(&self, (height, columns): (usize, usize)) -> String {
        let fits =
            |text: &str| text.lines().map(|line| rows(measure_text_width(line), columns)).sum::<usize>() < height;
        let (mut head, mut table, mut notes) = (self.head.len(), self.table.len(), self.notes.len());
        let mut events = self.events.len();
        loop {
            let text = self.with(head, table, notes, events);
            if fits(&text) {
                return text;
            }
            let less = match (events, head) {
                (FEWEST_EVENTS.., _) => &mut events,
                _ if notes > 0 => &mut notes,
                _ if table > 0 => &mut table,
                (2.., _) => &mut events,
                (_, SHORTEST_HEAD..) => &mut head,
                (1.., _) => &mut events,
                (_, 1..) => &mut head,
                _ => return String::new(),
            };
            *less -= 1;
        }
    }

    /// The first parts of head, table and notes, and the last events.
    fn with(&self, head: usize, table: usize, notes: usize, events: usize) -> String {
        let mut lines = [&self.head[..head], &self.table[..table], &self.notes[..notes]].concat();
        let left_out = self.older + self.events.len() - events;
        if events > 0 {
            let count =
                if left_out > 0 { format!(", the last {events} of {}", left_out + events) } else { String::new() };
            lines.push(format!("\nEvents: (UTC{count})"));
            lines.extend_from_slice(&self.events[self.events.len() - events..]);
        }
        lines.join("\n")
    }
}

/// The sentence that explains the state of the rollout.
fn deciding(state: &RolloutState, verdict: Option<&Verdict>) -> String {
    let holds = |verdict: &Verdict| {
        let causes: Vec<&str> =
            verdict.health.iter().filter(|issue| issue.policy == "hold").map(|issue| issue.sentence.as_str()).collect();
        let more = match causes.len() {
            0 | 1 => String::new(),
            2 => " (and 1 more cause, below)".to_owned(),
            all => format!(" (and {} more causes, below)", all - 1),
        };
        Some(format!("{}{more}", causes.first()?))
    };
    let now = verdict.filter(|verdict| StepIndex::of_number(verdict.step) == state.step);
    let sentence = match state.phase {
        Phase::Baking | Phase::Shadowing | Phase::Promoted => now.map(|verdict| verdict.sentence.clone()),
        Phase::Held if state.hold.as_ref().is_some_and(|hold| hold.cause == HoldCause::Health) => now.and_then(holds),
        _ => None,
    };
    let sentence = sentence.unwrap_or_else(|| state.sentence.clone());
    without_order(&sentence).to_owned()
}

/// The time and score of the evidence, with the verdict's sentence if the head does not contain it already.
fn about(verdict: &Verdict, sentence: &str, reason: &str) -> String {
    let mut text = format!(
        "Evidence through {} UTC, score {:.0} .. {:.0}",
        to_the_second(verdict.as_of),
        verdict.score_low,
        verdict.score_high
    );
    let verdict_sentence = without_order(&verdict.sentence);
    if !sentence.contains(verdict_sentence) && !reason.contains(verdict_sentence) {
        let _ = write!(text, ": {verdict_sentence}");
    }
    text
}

/// One event.
pub(super) fn event_line(event: &Value) -> String {
    let recorded = event["recorded_at"].as_i64().map_or_else(|| "?".to_owned(), |at| to_the_second(EventTime(at)));
    format!("  {recorded}  {}", event["sentence"].as_str().unwrap_or_default())
}

/// When the first step started, if there is an event of it.
fn first_step(events: &[Value]) -> Option<EventTime> {
    let first = events.iter().find(|event| event["kind"] == "advanced" && event["step"] == 0)?;
    first["at"].as_i64().map(EventTime)
}

/// The generation of the routing table, and the routers that use it.
fn routing(state: &RolloutState, reported: &Reported) -> String {
    if !state.acts() {
        return "no table: the rollout is only observed (mode: observe), so no calls are moved".to_owned();
    }
    match &reported.applied {
        None => format!("generation {}", state.generation),
        Some(applied) if applied.done => {
            format!("generation {}, applied by {}", state.generation, applied.routers.join(", "))
        }
        Some(applied) => format!("generation {}, not applied yet: {}", state.generation, applied.waits_for),
    }
}
