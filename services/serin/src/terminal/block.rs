//! A block of lines that is redrawn in place.

use console::measure_text_width;

/// The block as it is on the terminal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    /// Columns of each of its lines.
    lines: Vec<usize>,
}

impl Block {
    /// The output that replaces the block with `text`, on a terminal with this many columns. No line of the text may take more rows
    /// than the terminal has.
    pub(crate) fn replace(&mut self, text: &str, columns: usize) -> String {
        let erased = self.erase(columns);
        self.lines = text.lines().map(measure_text_width).collect();
        format!("{erased}{text}\n")
    }

    /// The output that erases the block.
    pub(crate) fn erase(&mut self, columns: usize) -> String {
        let rows: usize = self.lines.drain(..).map(|line| rows(line, columns)).sum();
        // ANSI: cursor up n lines, to the first column, erase to the end of the screen.
        if rows == 0 { String::new() } else { format!("\u{1b}[{rows}A\r\u{1b}[J") }
    }

    /// Keeps the block on the screen: later output comes below it.
    pub(crate) fn keep(&mut self) {
        self.lines.clear();
    }
}

/// Rows that a line takes on a terminal, which wraps long lines.
pub(crate) fn rows(line: usize, columns: usize) -> usize {
    line.div_ceil(columns.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_the_terminal_wraps_is_erased_completely() {
        let mut block = Block::default();
        assert_eq!(block.replace("one\ntwo", 80), "one\ntwo\n");
        let long = format!("{}\n{}\n\nend", "x".repeat(161), "y".repeat(80));
        assert_eq!(block.replace(&long, 80), format!("\u{1b}[2A\r\u{1b}[J{long}\n"));
        // 3 rows, 1, 1 and 1; on a terminal that has become narrower 5, 2, 1 and 1.
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
