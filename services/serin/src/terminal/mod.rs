//! Properties of the terminal: its width, its colors, and whether it can be redrawn.
//!
//! Invariants: no word is cut; a line is wider than the terminal only if a single word is. Without a terminal nothing is wrapped, colored
//! or redrawn, so that output can be searched line by line (`COLUMNS` sets a width).

mod block;
mod table;
mod visible;

use console::{Style, Term, measure_text_width};

pub(crate) use block::{Block, rows};
pub(crate) use table::{Cell, Column, Table};
pub(crate) use visible::{escaped_json, visible};

/// Width of a terminal that does not report it.
const USUAL: usize = 80;
/// Smallest width for wrapping. A narrower terminal wraps lines itself.
const NARROWEST: usize = 40;

/// The meaning of a string, shown as its color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// A good state.
    Good,
    /// A bad state.
    Bad,
    /// An operator is needed, or the result is not known yet.
    Open,
    /// Normal text.
    Plain,
}

/// The abilities of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Width for wrapping; `None`: lines are not wrapped.
    width: Option<usize>,
    colors: bool,
    /// Rows and columns, if the terminal can move its cursor.
    size: Option<(usize, usize)>,
}

impl Terminal {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self::of(&Term::stdout(), console::colors_enabled())
    }

    /// Standard error.
    pub(crate) fn stderr() -> Self {
        Self::of(&Term::stderr(), console::colors_enabled_stderr())
    }

    fn of(term: &Term, colors: bool) -> Self {
        let is_terminal = term.features().is_attended();
        let size = term.size_checked().map(|(rows, columns)| (usize::from(rows), usize::from(columns)));
        let size = size.filter(|(rows, columns)| is_terminal && *rows > 0 && *columns > 0);
        let named = std::env::var("COLUMNS").ok();
        Self {
            width: width_of(named.as_deref(), size.map(|(_, columns)| columns), is_terminal),
            colors,
            size: size.filter(|_| !console::is_dumb()),
        }
    }

    /// Rows and columns, if output can be redrawn. `None`: progress is printed as lines.
    pub(crate) fn redraws(self) -> Option<(usize, usize)> {
        self.size
    }

    /// The width of the output, or the usual one.
    pub(crate) fn columns(self) -> usize {
        self.width.unwrap_or(USUAL)
    }

    /// Whether the output has colors.
    pub(crate) fn has_colors(self) -> bool {
        self.colors
    }

    /// The text in the color of its tone.
    pub(crate) fn paint(self, text: &str, tone: Tone) -> String {
        let style = match tone {
            Tone::Good => Style::new().green(),
            Tone::Bad => Style::new().red(),
            Tone::Open => Style::new().yellow(),
            Tone::Plain => Style::new(),
        };
        style.force_styling(self.colors).apply_to(text).to_string()
    }

    /// Wraps the lines of a string between words. Continuation lines are indented by `more` columns more than the line.
    pub(crate) fn wrap(self, text: &str, more: usize) -> String {
        let Some(width) = self.width else { return text.to_owned() };
        let wrapped = text.split('\n').flat_map(|line| {
            let indent = line.len() - line.trim_start().len() + more;
            let lines = wrapped(line, width, width.saturating_sub(indent));
            lines.into_iter().enumerate().map(
                move |(number, line)| {
                    if number == 0 { line } else { " ".repeat(indent) + &line }
                },
            )
        });
        wrapped.collect::<Vec<_>>().join("\n")
    }
}

/// Width for wrapping: from `COLUMNS`; if that is not set, from the terminal; otherwise the usual width of a terminal.
fn width_of(named: Option<&str>, reported: Option<usize>, is_terminal: bool) -> Option<usize> {
    let named = named.and_then(|text| text.trim().parse().ok()).filter(|columns| *columns > 0);
    let width = named.or(reported).or(is_terminal.then_some(USUAL));
    width.map(|width: usize| width.max(NARROWEST))
}

/// A line in pieces of whole words. The first piece has at most `first` columns, the others at most `others`.
fn wrapped(line: &str, first: usize, others: usize) -> Vec<String> {
    let words = line.trim_start();
    let mut piece = line[..line.len() - words.len()].to_owned();
    let (mut pieces, mut is_start) = (Vec::new(), true);
    for word in words.split(' ') {
        let width = if pieces.is_empty() { first } else { others };
        let space = usize::from(!is_start);
        if !is_start && measure_text_width(&piece) + space + measure_text_width(word) > width {
            pieces.push(std::mem::take(&mut piece));
        } else if !is_start {
            piece.push(' ');
        }
        piece.push_str(word);
        is_start = false;
    }
    pieces.push(piece);
    pieces
}

#[cfg(test)]
pub(crate) fn of_width(width: Option<usize>) -> Terminal {
    Terminal { width, colors: false, size: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_does_not_know_its_width_has_the_usual_one() {
        for (named, reported, is_terminal, width) in [
            (None, Some(120), true, Some(120)),
            (None, None, true, Some(80)),
            (Some("0"), None, true, Some(80)),
            (Some("0"), Some(100), true, Some(100)),
            (Some("60"), Some(120), true, Some(60)),
            (Some("wide"), None, true, Some(80)),
            (Some("1"), None, true, Some(40)),
            (None, Some(7), true, Some(40)),
            (None, None, false, None),
            (Some("60"), None, false, Some(60)),
        ] {
            assert_eq!(width_of(named, reported, is_terminal), width, "{named:?} {reported:?} {is_terminal}");
        }
    }

    #[test]
    fn lines_are_wrapped_only_between_words() {
        let wide = of_width(None);
        assert_eq!(wide.wrap("  as it is,  however long", 4), "  as it is,  however long");
        let narrow = Terminal { width: Some(12), ..wide };
        assert_eq!(narrow.wrap("  ! one two three four", 2), "  ! one two\n    three\n    four");
        assert_eq!(narrow.wrap("a-word-that-does-not-fit and", 2), "a-word-that-does-not-fit\n  and");
        assert_eq!(narrow.wrap("é à ü ö ß ñ ê î ô", 0), "é à ü ö ß ñ\nê î ô");
        assert_eq!(narrow.wrap("two\nlines, and more", 1), "two\nlines, and\n more");
        assert_eq!(narrow.wrap("", 4), "");
    }

    #[test]
    fn without_colors_a_text_is_unchanged() {
        let plain = of_width(Some(80));
        assert_eq!(plain.paint("x", Tone::Bad), "x");
        let colored = Terminal { colors: true, ..plain };
        assert_eq!(colored.paint("x", Tone::Bad), "\u{1b}[31mx\u{1b}[0m");
        let many = [colored.paint("one", Tone::Good), colored.paint("two", Tone::Open)].join(" ");
        assert_eq!(Terminal { width: Some(7), ..colored }.wrap(&many, 0), many);
    }
}
