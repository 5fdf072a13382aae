//! The progress of the demo: a block that is redrawn on a terminal, plain lines elsewhere.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use console::measure_text_width;
use serin_rollout::{RolloutState, planner::StepIndex};
use serin_schemas::{
    ids::EventTime,
    records::{Phase, Verdict},
};

use super::tally::Tally;
use crate::{
    evidence::{self, Rows},
    headline::{headline, ramp},
    terminal::{Block, Terminal, rows},
    time::{span, to_the_second},
};

/// Shortest time between two redraws of the block, to save work.
const REDRAW: Duration = Duration::from_millis(100);
/// Maximum number of events on the screen.
const EVENTS: usize = 6;
/// Columns of an event's time and the spaces around it.
const EVENT_INDENT: usize = 21;

/// How the demo shows its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// No progress, because the result is a JSON document.
    Silent,
    /// A line per event.
    Lines,
    /// A block that is redrawn.
    Live,
}

/// The demo's screen.
pub(super) struct View {
    style: Style,
    title: String,
    started: Instant,
    drawn: Option<Instant>,
    block: Block,
    shown: Option<(Phase, Option<StepIndex>)>,
    events: Vec<String>,
}

impl View {
    /// A view for this output: live on a terminal, lines elsewhere, nothing for JSON.
    pub(crate) fn new(json: bool) -> Self {
        let style = match (json, Terminal::stderr().redraws()) {
            (true, _) => Style::Silent,
            (false, Some(_)) => Style::Live,
            (false, None) => Style::Lines,
        };
        Self {
            style,
            title: String::new(),
            started: Instant::now(),
            drawn: None,
            block: Block::default(),
            shown: None,
            events: Vec::new(),
        }
    }

    /// Prints a line once.
    pub(crate) fn print(&mut self, line: &str) {
        if self.style != Style::Silent {
            self.clear();
            eprint_line(line);
        }
    }

    /// Starts the view of a rollout.
    pub(super) fn chapter(&mut self, stable: &str, canary: &str) {
        self.clear();
        self.title = format!("flights: {stable} -> {canary}");
        self.events.clear();
        self.shown = None;
        if self.style == Style::Lines {
            eprint_line(&format!("\n== {} ==", self.title));
        }
    }

    /// Whether the next [`window`](Self::window) will draw, and so needs the verdict.
    pub(super) fn wants_verdict(&self, state: &RolloutState) -> bool {
        match self.style {
            Style::Silent => false,
            Style::Lines => decided(state),
            Style::Live => decided(state) || self.drawn.is_none_or(|at| at.elapsed() >= REDRAW),
        }
    }

    /// Shows the state after a window has passed through the pipeline.
    pub(crate) fn window(&mut self, end: EventTime, state: &RolloutState, verdict: Option<&Verdict>, tally: Tally) {
        if self.shown != Some((state.phase, state.step)) {
            self.shown = Some((state.phase, state.step));
            let line = format!("  {}  {}", to_the_second(end), state.sentence);
            if self.style == Style::Lines {
                eprint_line(line.trim_start());
            }
            self.events.push(line);
            if self.events.len() > EVENTS {
                self.events.remove(0);
            }
        }
        let ended = decided(state);
        let terminal = Terminal::stderr();
        if ended && self.style == Style::Lines {
            eprint_line(&self.lines(end, state, verdict, tally, terminal).join("\n"));
        }
        if self.style == Style::Live && (ended || self.drawn.is_none_or(|at| at.elapsed() >= REDRAW)) {
            let mut lines = self.lines(end, state, verdict, tally, terminal);
            if let Some((height, columns)) = terminal.redraws() {
                if !ended {
                    keep_what_fits(&mut lines, height, columns);
                }
                eprint(&self.block.replace(&lines.join("\n"), columns));
            }
            if ended {
                eprint("\n");
                self.block.keep();
            }
            self.drawn = Some(Instant::now());
        }
    }

    /// Erases the block.
    fn clear(&mut self) {
        if let Some((_, columns)) = Terminal::stderr().redraws() {
            eprint(&self.block.erase(columns));
        }
    }

    fn lines(
        &self,
        end: EventTime,
        state: &RolloutState,
        verdict: Option<&Verdict>,
        tally: Tally,
        terminal: Terminal,
    ) -> Vec<String> {
        let (tone, first) = headline(state, None);
        let mut lines = vec![terminal.paint(&terminal.wrap(&first, 0), tone)];
        let mut add = |text: String, more| lines.push(terminal.wrap(&text, more));
        if let Some(verdict) = verdict {
            add(verdict.sentence.clone(), 0);
        }
        let (at, wall) = (to_the_second(end), span(self.started.elapsed().as_secs_f64()));
        add(format!("{}   event time {at}   wall {wall}   generation {}", self.title, state.generation), 2);
        add(ramp(state), 2);
        add(
            format!(
                "requests {}   canary served {}   of these worse than stable's answer: {}",
                tally.requests, tally.canary, tally.hurt
            ),
            2,
        );
        if let Some(verdict) = verdict.filter(|verdict| !verdict.metrics.is_empty()) {
            for line in evidence::table(verdict, &state.spec, Rows::Relevant, terminal) {
                add(line, 2);
            }
        }
        for event in &self.events {
            add(event.clone(), EVENT_INDENT);
        }
        lines.iter().flat_map(|text| text.split('\n').map(str::to_owned)).collect()
    }
}

/// Drops the last lines of the block if the terminal is too low, because a cursor cannot be moved above the first row.
fn keep_what_fits(lines: &mut Vec<String>, height: usize, columns: usize) {
    let mut left = height.saturating_sub(1);
    let fits = lines.iter().take_while(|line| {
        let rows = rows(measure_text_width(line), columns);
        let fits = rows <= left;
        left = left.saturating_sub(rows);
        fits
    });
    let fits = fits.count();
    lines.truncate(fits);
}

fn eprint_line(line: &str) {
    eprint(&format!("{line}\n"));
}

/// Prints progress on standard error. Errors are ignored.
fn eprint(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Whether the rollout is decided: it has ended, or it is promoted and still monitored.
pub(super) fn decided(state: &RolloutState) -> bool {
    state.phase.is_final() || state.promoted
}
