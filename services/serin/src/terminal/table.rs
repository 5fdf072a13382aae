//! Tables that fit the terminal: columns are left out by rank, long names are shortened in the middle, words are never cut.

use std::borrow::Cow;

use comfy_table::{CellAlignment, Color, ContentArrangement, presets};
use console::measure_text_width;

use super::{Terminal, Tone, wrapped};

/// Columns between two columns of a table, and around it.
const SPACE: usize = 2;
/// Smallest width of a shortened name.
const SHORTEST: usize = 12;
/// Columns of this rank or larger are left out before a string takes more than two lines.
const SPARE: u8 = 5;

/// A column of a table.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    name: Cow<'static, str>,
    /// On a narrow terminal, the column with the largest rank is left out first. Columns of rank 0 are always shown.
    rank: u8,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Numbers, on one line, aligned right.
    Number,
    /// Words, on several lines if needed.
    Text,
    /// A sentence on one line, shortened with an ellipsis. It needs at least this many columns.
    Clipped(usize),
}

impl Column {
    /// A column of numbers.
    pub(crate) const fn number(name: &'static str, rank: u8) -> Self {
        Self { name: Cow::Borrowed(name), rank, shape: Shape::Number }
    }

    /// A column of names and words.
    pub(crate) const fn text(name: &'static str, rank: u8) -> Self {
        Self { name: Cow::Borrowed(name), rank, shape: Shape::Text }
    }

    /// The start of a sentence, with at least `least` columns.
    pub(crate) const fn clipped(name: &'static str, rank: u8, least: usize) -> Self {
        Self { name: Cow::Borrowed(name), rank, shape: Shape::Clipped(least) }
    }

    /// The column with another name.
    pub(crate) fn called(self, name: String) -> Self {
        Self { name: Cow::Owned(name), ..self }
    }
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a tone.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        // Strings from other sources may contain line breaks.
        Self { text: text.into().replace(['\n', '\r', '\t'], " "), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// A table that adapts to the width of the terminal.
#[derive(Clone, Debug)]
pub(crate) struct Table<'a> {
    columns: &'a [Column],
    rows: Vec<Vec<Cell>>,
}

impl<'a> Table<'a> {
    /// A table of these columns.
    pub(crate) fn new(columns: &'a [Column]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row with a cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The lines of the table, without trailing spaces.
    pub(crate) fn lines(&self, terminal: Terminal) -> Vec<String> {
        let (shown, widths) = self.layout(terminal.width);
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if terminal.colors {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(shown.iter().map(|&index| self.columns[index].name.as_ref()));
        for row in &self.rows {
            table.add_row(shown.iter().zip(&widths).map(|(&index, &width)| {
                let cell = comfy_table::Cell::new(self.fitted(&row[index].text, index, width));
                match color(row[index].tone) {
                    Some(color) => cell.fg(color),
                    None => cell,
                }
            }));
        }
        for (place, &index) in shown.iter().enumerate() {
            if let Some(column) = table.column_mut(place).filter(|_| self.columns[index].shape == Shape::Number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// The columns that are shown, and their widths.
    fn layout(&self, width: Option<usize>) -> (Vec<usize>, Vec<usize>) {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let natural = |index: usize| self.widest(index, measure_text_width);
        let Some(width) = width else {
            let widths = shown.iter().map(|&index| natural(index)).collect();
            return (shown, widths);
        };
        let name = (width / 3).max(SHORTEST);
        let least = |index: usize, lines: Lines| match self.columns[index].shape {
            Shape::Number => natural(index),
            Shape::Text => self.widest(index, |text| narrowest(text, lines).min(name)),
            Shape::Clipped(least) => natural(index).min(least),
        };
        let every = |lines| (0..self.columns.len()).map(|index| least(index, lines)).collect::<Vec<usize>>();
        let (two, many) = (every(Lines::Two), every(Lines::Many));
        let sum = |shown: &[usize], least: &[usize]| shown.iter().map(|&index| least[index] + SPACE).sum::<usize>();
        let mut leave_out = |least: &[usize], lowest: u8| {
            while sum(&shown, least) > width {
                let rank = |&(_, &index): &(usize, &usize)| self.columns[index].rank;
                let last = shown.iter().enumerate().max_by_key(rank).filter(|last| rank(last) >= lowest);
                let Some((place, _)) = last else { return };
                shown.remove(place);
            }
        };
        // Columns of rank SPARE or larger are left out before a string takes many lines, the others after that.
        leave_out(&two, SPARE);
        leave_out(&many, 1);
        let least = if sum(&shown, &two) <= width { two } else { many };
        let mut widths: Vec<usize> = shown.iter().map(|&index| least[index]).collect();
        let mut left = width.saturating_sub(sum(&shown, &least));
        for (place, &index) in shown.iter().enumerate() {
            let more = natural(index).saturating_sub(widths[place]).min(left);
            widths[place] += more;
            left -= more;
        }
        // Only names are left, and they do not fit.
        let mut over = sum(&shown, &least).saturating_sub(width);
        for (place, _) in shown.iter().enumerate().filter(|(_, index)| self.columns[**index].shape == Shape::Text) {
            let less = widths[place].saturating_sub(SHORTEST).min(over);
            widths[place] -= less;
            over -= less;
        }
        (shown, widths)
    }

    /// The largest measure of a column's cells, including its name.
    fn widest(&self, index: usize, measure: impl Fn(&str) -> usize) -> usize {
        let cells = self.rows.iter().map(|row| measure(&row[index].text)).max().unwrap_or(0);
        cells.max(measure_text_width(&self.columns[index].name))
    }

    fn fitted(&self, text: &str, index: usize, width: usize) -> String {
        match self.columns[index].shape {
            Shape::Number => text.to_owned(),
            Shape::Text => {
                let words: Vec<String> = text.split(' ').map(|word| shortened(word, width)).collect();
                wrapped(&words.join(" "), width, width).join("\n")
            }
            Shape::Clipped(_) if measure_text_width(text) <= width => text.to_owned(),
            Shape::Clipped(_) => {
                let start = wrapped(text, width.saturating_sub(2), width).swap_remove(0);
                shortened(&start, width.saturating_sub(2)) + " …"
            }
        }
    }
}

/// How many lines a string may take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    Two,
    Many,
}

/// The smallest width in which a string takes at most this many lines.
fn narrowest(text: &str, lines: Lines) -> usize {
    let longest = text.split(' ').map(measure_text_width).max().unwrap_or(0);
    let all = measure_text_width(text);
    (longest..all).find(|&width| lines == Lines::Many || wrapped(text, width, width).len() <= 2).unwrap_or(all)
}

fn color(tone: Tone) -> Option<Color> {
    match tone {
        Tone::Good => Some(Color::Green),
        Tone::Bad => Some(Color::Red),
        Tone::Open => Some(Color::Yellow),
        Tone::Plain => None,
    }
}

/// A name that fits. A long name is shortened in the middle, because names often differ at their ends.
fn shortened(name: &str, width: usize) -> String {
    if measure_text_width(name) <= width {
        return name.to_owned();
    }
    let half = width.saturating_sub(1) / 2;
    let fits = |part: &[char]| measure_text_width(&part.iter().collect::<String>()) <= half;
    let letters: Vec<char> = name.chars().collect();
    let start = (0..=letters.len()).rev().find(|&end| fits(&letters[..end])).unwrap_or(0);
    let end = (0..=letters.len()).find(|&start| fits(&letters[start..])).unwrap_or(letters.len());
    let text = |part: &[char]| part.iter().collect::<String>();
    format!("{}…{}", text(&letters[..start]), text(&letters[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::of_width;

    static COLUMNS: [Column; 5] = [
        Column::text("metric", 0),
        Column::number("canary", 1),
        Column::number("evidence", 3),
        Column::text("verdict", 0),
        Column::clipped("sentence", 2, 20),
    ];

    fn table(metric: &str) -> Table<'static> {
        let mut table = Table::new(&COLUMNS);
        table.row(vec![
            metric.into(),
            "8.3 % (n 1234)".into(),
            "none".into(),
            "no data: labels pending".into(),
            "a sentence that goes on and on".into(),
        ]);
        table
    }

    fn at(metric: &str, width: usize) -> String {
        let lines = table(metric).lines(of_width(Some(width)));
        assert!(lines.iter().all(|line| measure_text_width(line) <= width.max(40)), "{lines:#?}");
        format!("{}\n", lines.join("\n"))
    }

    #[test]
    fn columns_are_left_out_by_rank_and_words_stay_whole() {
        insta::assert_snapshot!([200, 80, 60, 40].map(|width| at("wrong_rate", width)).join("\n"));
    }

    #[test]
    fn long_names_are_shortened_in_the_middle() {
        let name = format!("begin_{}_end", "x".repeat(190));
        insta::assert_snapshot!([120, 60, 40].map(|width| at(&name, width)).join("\n"));
        assert!(
            table(&name).lines(of_width(None)).join("\n").contains(&name),
            "without a terminal nothing is left out"
        );
    }

    #[test]
    fn a_cell_has_no_line_breaks() {
        let mut table = Table::new(&COLUMNS[..1]);
        table.row(vec!["two\nlines\tand more".into()]);
        assert_eq!(table.lines(of_width(None)), [" metric", " two lines and more"]);
    }
}
