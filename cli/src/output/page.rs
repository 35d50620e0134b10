//! A page: tables and lines, laid out first and coloured last.

use std::fmt::Display;

use serde::Serialize;

use crate::printable::printable;

/// What a piece of text says, in colour where there is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tone {
    /// Nothing in particular.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Doubtful,
    /// Wrong.
    Bad,
    /// A heading.
    Strong,
    /// Beside the point.
    Faint,
}

/// A piece of text and its tone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

/// Text that grows from top to bottom.
#[derive(Debug, Default)]
pub(crate) struct Page {
    blocks: Vec<Block>,
}

#[derive(Debug)]
enum Block {
    Line(Vec<Cell>),
    Table { indent: usize, rows: Vec<Vec<Cell>> },
}

impl Cell {
    /// What a terminal would obey is escaped: texts come from manifests and from the wire.
    pub(crate) fn new(text: impl Display, tone: Tone) -> Self {
        Self { text: printable(&text.to_string()).into_owned(), tone }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    fn render(&self, colour: bool, out: &mut String) {
        out.push_str(&self.tone.paint(&self.text, colour));
    }
}

impl Tone {
    /// The text in this tone's colour, if there is to be any (ECMA-48, SGR).
    pub(crate) fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Plain => "",
            Self::Good => "32",
            Self::Doubtful => "33",
            Self::Bad => "31",
            Self::Strong => "1",
            Self::Faint => "2",
        };
        match colour && !code.is_empty() && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

impl<T: Display> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl Page {
    /// A line of several pieces.
    pub(crate) fn line(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.blocks.push(Block::Line(cells.into_iter().collect()));
    }

    /// A line of one piece.
    pub(crate) fn say(&mut self, text: impl Display, tone: Tone) {
        self.line([Cell::new(text, tone)]);
    }

    /// An empty line, unless the page is empty.
    pub(crate) fn gap(&mut self) {
        if !self.blocks.is_empty() {
            self.line([]);
        }
    }

    /// Rows whose columns are aligned, `indent` spaces from the left; a missing cell is empty.
    pub(crate) fn table(
        &mut self,
        indent: usize,
        heading: &[&str],
        rows: impl IntoIterator<Item = Vec<Cell>>,
    ) {
        let heading = heading.iter().map(|text| Cell::new(text, Tone::Strong)).collect();
        let rows = std::iter::once(heading).chain(rows).collect();
        self.blocks.push(Block::Table { indent, rows });
    }

    /// The page as text. No line ends in spaces.
    pub(crate) fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for block in &self.blocks {
            match block {
                Block::Line(cells) => {
                    cells.iter().for_each(|cell| cell.render(colour, &mut out));
                    out.push('\n');
                }
                Block::Table { indent, rows } => table(*indent, rows, colour, &mut out),
            }
        }
        out
    }
}

fn table(indent: usize, rows: &[Vec<Cell>], colour: bool, out: &mut String) {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            match widths.get_mut(column) {
                Some(width) => *width = (*width).max(cell.width()),
                None => widths.push(cell.width()),
            }
        }
    }
    for row in rows {
        let mut owed = indent;
        for (cell, width) in row.iter().zip(&widths) {
            if cell.width() > 0 {
                out.extend(std::iter::repeat_n(' ', owed));
                owed = 0;
                cell.render(colour, out);
            }
            owed += width - cell.width() + 2;
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let mut page = Page::default();
        page.gap();
        page.say("two pods", Tone::Faint);
        page.table(
            2,
            &["POD", "READY", "NODE"],
            [vec!["a".into(), Cell::new("yes", Tone::Good), "".into()], vec!["longer".into(), "no".into()]],
        );
        page
    }

    #[test]
    fn columns_are_aligned_and_lines_end_where_their_text_ends() {
        assert_eq!(page().render(false), "two pods\n  POD     READY  NODE\n  a       yes\n  longer  no\n");
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_and_not_obeyed() {
        let mut page = Page::default();
        page.table(0, &["NAME"], [vec!["a\x1b[2Jb".into(), "c".into()]]);
        assert_eq!(page.render(false), "NAME\na\\u{1b}[2Jb  c\n");
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let coloured = page().render(true);
        assert!(coloured.contains("\x1b[32myes\x1b[0m"));
        let mut plain = coloured;
        for code in ["0", "1", "2", "32"] {
            plain = plain.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(plain, page().render(false));
    }
}
