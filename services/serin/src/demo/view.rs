//! What a person sees while the demo runs: one block that is drawn again on a terminal, plain lines elsewhere.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use serin_rollout::RolloutState;
use serin_schemas::{
    ids::EventTime,
    records::{Phase, Verdict},
};

use super::{story::decided, tally::Tally};
use crate::{
    evidence::{self, Rows},
    time::{date, span},
};

/// The block is drawn at most this often: the eye sees no more, and drawing costs.
const REDRAW: Duration = Duration::from_millis(100);
/// Events kept on the screen.
const EVENTS: usize = 6;

/// How the demo shows its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Nothing: the result is a JSON document.
    Silent,
    /// A line per event.
    Lines,
    /// A block that is drawn again.
    Live,
}

/// The demo's screen.
pub(crate) struct View {
    style: Style,
    title: String,
    started: Instant,
    drawn: Option<Instant>,
    lines_drawn: usize,
    shown: Option<(Phase, i32)>,
    events: Vec<String>,
}

impl View {
    /// A view for this output: live on a terminal, lines elsewhere, nothing for JSON.
    pub(crate) fn new(json: bool) -> Self {
        let style = match (json, std::io::stderr().is_terminal()) {
            (true, _) => Style::Silent,
            (false, true) => Style::Live,
            (false, false) => Style::Lines,
        };
        Self {
            style,
            title: String::new(),
            started: Instant::now(),
            drawn: None,
            lines_drawn: 0,
            shown: None,
            events: Vec::new(),
        }
    }

    /// Says something once.
    pub(crate) fn say(&mut self, line: &str) {
        if self.style != Style::Silent {
            self.clear();
            eprint_line(line);
        }
    }

    /// A rollout begins.
    pub(crate) fn chapter(&mut self, stable: &str, canary: &str) {
        self.clear();
        self.title = format!("flights: {stable} -> {canary}");
        self.events.clear();
        self.shown = None;
        if self.style == Style::Lines {
            eprint_line(&format!("\n== {} ==", self.title));
        }
    }

    /// Whether the next [`window`](Self::window) will draw, and so needs the verdict.
    pub(crate) fn wants_verdict(&self, state: &RolloutState) -> bool {
        match self.style {
            Style::Silent => false,
            Style::Lines => decided(state),
            Style::Live => decided(state) || self.drawn.is_none_or(|at| at.elapsed() >= REDRAW),
        }
    }

    /// A window has passed through the pipeline.
    pub(crate) fn window(&mut self, end: EventTime, state: &RolloutState, verdict: Option<&Verdict>, tally: Tally) {
        if self.shown != Some((state.phase, state.step)) {
            self.shown = Some((state.phase, state.step));
            let line = format!("{}  {}", date(end), state.sentence);
            if self.style == Style::Lines {
                eprint_line(&line);
            }
            self.events.push(line);
            if self.events.len() > EVENTS {
                self.events.remove(0);
            }
        }
        let ended = decided(state);
        if ended && self.style == Style::Lines {
            eprint_line(&self.block(end, state, verdict, tally));
        }
        if self.style == Style::Live && (ended || self.drawn.is_none_or(|at| at.elapsed() >= REDRAW)) {
            let block = self.block(end, state, verdict, tally);
            self.clear();
            eprint_line(&block);
            self.lines_drawn = if ended { 0 } else { block.lines().count() };
            self.drawn = Some(Instant::now());
        }
    }

    /// Takes the block off the screen.
    fn clear(&mut self) {
        if self.lines_drawn > 0 {
            // ANSI: cursor up n lines, erase to the end of the screen.
            eprint(&format!("\x1b[{}A\x1b[J", self.lines_drawn));
            self.lines_drawn = 0;
        }
    }

    fn block(&self, end: EventTime, state: &RolloutState, verdict: Option<&Verdict>, tally: Tally) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{}   event time {}   wall {}",
            self.title,
            date(end),
            span(self.started.elapsed().as_secs_f64())
        );
        let _ = writeln!(text, "{}", ramp(state));
        let _ = writeln!(
            text,
            "requests {}   canary served {}   of these worse than stable's answer would have been: {}",
            tally.requests, tally.canary, tally.hurt
        );
        if let Some(verdict) = verdict {
            if !verdict.metrics.is_empty() {
                let colour = self.style == Style::Live;
                let _ = writeln!(text, "{}", evidence::table(verdict, Rows::Telling, colour));
            }
            let _ = writeln!(text, "{}", verdict.sentence);
        }
        for event in &self.events {
            let _ = writeln!(text, "  {event}");
        }
        text.truncate(text.trim_end().len());
        text
    }
}

/// The ramp as a line: steps done, the present one, those to come.
fn ramp(state: &RolloutState) -> String {
    let mut line = format!("{:<12}", phase(state));
    for (index, step) in state.spec.steps.iter().enumerate() {
        let index = index as i32;
        let mark = match index {
            _ if state.is_promoted() => '✔',
            _ if index < state.step => '✔',
            _ if index == state.step => '●',
            _ => '○',
        };
        let _ = write!(line, " {mark} {step} ");
        line.push_str("──");
    }
    let done = if state.is_promoted() { '✔' } else { '○' };
    let _ = write!(line, " {done} 100%   generation {}", state.generation);
    line
}

/// The phase as its wire name, which is what the docs and the other commands say.
fn phase(state: &RolloutState) -> String {
    serde_json::to_value(state.phase).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn eprint_line(line: &str) {
    eprint(&format!("{line}\n"));
}

/// Progress goes to standard error; what cannot be written there is lost without harm.
fn eprint(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
