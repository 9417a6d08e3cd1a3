//! Text in columns, for people. Pure: rows in, lines out.
//!
//! Cells are cleaned first: names and addresses in them were chosen by strangers, and a terminal obeys more
//! than letters.

use crate::app::owner_api::readable;

/// Blanks between two columns.
const GAP: usize = 2;

/// What a piece of text means; the printer turns it into a colour where there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing in particular.
    Plain,
    /// A heading.
    Strong,
    /// As it should be.
    Good,
    /// Somebody has to look at it.
    Attention,
    /// Refused or broken.
    Bad,
    /// Past and gone.
    Faint,
}

impl Tone {
    /// The text in this tone, as a terminal with colours understands it (ECMA-48 SGR).
    pub(crate) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Strong => "1",
            Self::Good => "32",
            Self::Attention => "33",
            Self::Bad => "31",
            Self::Faint => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a meaning.
    pub(crate) fn toned(text: &str, tone: Tone) -> Self {
        Self { text: readable(text), tone }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// Rows below a line of headings, each column as wide as its widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| Cell::toned(heading, Tone::Strong)).collect()] }
    }

    /// Adds a row; what is empty becomes a dash, so that columns stay columns for `awk` too.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        let filled = |cell: Cell| if cell.text.is_empty() { Cell::from("-") } else { cell };
        self.rows.push(cells.into_iter().map(filled).collect());
    }

    /// The lines, without blanks at their ends.
    pub(crate) fn lines(&self, coloured: bool) -> Vec<String> {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let line = |row: &Vec<Cell>| {
            let mut line = String::new();
            let mut owed = 0;
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&" ".repeat(owed));
                if coloured {
                    line.push_str(&cell.tone.paint(&cell.text));
                } else {
                    line.push_str(&cell.text);
                }
                owed = width.saturating_sub(cell.text.chars().count()).saturating_add(GAP);
            }
            line
        };
        self.rows.iter().map(line).collect()
    }
}

/// `name: value` lines with the values below each other, each line begun with `indent` blanks.
pub(crate) fn pairs(indent: usize, pairs: &[(&str, &str)]) -> Vec<String> {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).saturating_add(1);
    let line = |(name, value): &(&str, &str)| {
        let line = format!("{}{:<width$} {}", " ".repeat(indent), format!("{name}:"), readable(value));
        line.trim_end().to_owned()
    };
    pairs.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_with_and_without_colours() {
        let mut table = Table::new(&["SERVICE", "MODE"]);
        table.row(vec!["a".into(), Cell::toned("gateway", Tone::Good)]);
        table.row(vec!["a-long-slug".into(), "".into()]);
        assert_eq!(table.lines(false), ["SERVICE      MODE", "a            gateway", "a-long-slug  -"]);
        let coloured = table.lines(true);
        assert!(coloured.iter().any(|line| line == "a            \u{1b}[32mgateway\u{1b}[0m"), "{coloured:?}");
        assert_eq!(Table::new(&["A"]).lines(false), ["A"]);
    }

    #[test]
    fn a_strangers_name_moves_no_cursor() {
        let mut table = Table::new(&["AGENT"]);
        table.row(vec!["evil\u{1b}[1A\r\nx\u{202e}".into()]);
        assert_eq!(table.lines(false), ["AGENT", "evil\u{fffd}[1A\u{fffd}\u{fffd}x\u{fffd}"]);
    }

    #[test]
    fn values_are_aligned() {
        assert_eq!(
            pairs(2, &[("id", "x"), ("gateway env", ""), ("b", "y")]),
            ["  id:          x", "  gateway env:", "  b:           y"]
        );
    }
}
