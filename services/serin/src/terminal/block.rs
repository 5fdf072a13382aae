//! A block of lines that is drawn again in its place.

use console::measure_text_width;

/// The block as it stands on the terminal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    /// Columns of each of its lines.
    lines: Vec<usize>,
}

impl Block {
    /// What to print so that `text` stands where the block stood, on a terminal of so many columns. The text has no line that the
    /// terminal breaks into more rows than it has.
    pub(crate) fn replace(&mut self, text: &str, columns: usize) -> String {
        let erased = self.erase(columns);
        self.lines = text.lines().map(measure_text_width).collect();
        format!("{erased}{text}\n")
    }

    /// What to print so that the block is gone.
    pub(crate) fn erase(&mut self, columns: usize) -> String {
        let rows: usize = self.lines.drain(..).map(|line| rows(line, columns)).sum();
        // ANSI: cursor up n lines, to the first column, erase to the end of the screen.
        if rows == 0 { String::new() } else { format!("\u{1b}[{rows}A\r\u{1b}[J") }
    }

    /// Leaves the block as it stands: what follows comes below it.
    pub(crate) fn keep(&mut self) {
        self.lines.clear();
    }
}

/// Rows that a line takes: a terminal breaks what is wider than itself.
pub(crate) fn rows(line: usize, columns: usize) -> usize {
    line.div_ceil(columns.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_the_terminal_breaks_is_erased_whole() {
        let mut block = Block::default();
        assert_eq!(block.replace("one\ntwo", 80), "one\ntwo\n");
        let long = format!("{}\n{}\n\nend", "x".repeat(161), "y".repeat(80));
        assert_eq!(block.replace(&long, 80), format!("\u{1b}[2A\r\u{1b}[J{long}\n"));
        // 3 rows, 1, 1 and 1; of a terminal that has become narrower 5, 2, 1 and 1.
        assert_eq!(block.clone().erase(80), "\u{1b}[6A\r\u{1b}[J");
        assert_eq!(block.clone().erase(40), "\u{1b}[9A\r\u{1b}[J");
        block.keep();
        assert_eq!(block.erase(80), "");
    }

    #[test]
    fn colors_take_no_columns() {
        let mut block = Block::default();
        block.replace(&format!("\u{1b}[31m{}\u{1b}[0m", "x".repeat(80)), 80);
        assert_eq!(block.erase(80), "\u{1b}[1A\r\u{1b}[J");
    }
}
