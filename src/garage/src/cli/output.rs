//! What a command prints, gathered until it ends, and the aligned tables it is made of.

use std::io::{ErrorKind, Write};

/// Text for both streams and the exit code.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// Results.
    pub(crate) stdout: String,
    /// Hints and errors.
    pub(crate) stderr: String,
    /// Exit code of the process when the command itself did not fail.
    pub(crate) exit_code: u8,
}

impl Output {
    /// A line of results.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) {
        self.stdout.push_str(text.as_ref());
        self.stdout.push('\n');
    }

    /// A line of hints or errors.
    pub(crate) fn hint(&mut self, text: impl AsRef<str>) {
        self.stderr.push_str(text.as_ref());
        self.stderr.push('\n');
    }

    /// A section title, set off from what stands before it.
    pub(crate) fn title(&mut self, title: &str) {
        if !self.stdout.is_empty() {
            self.stdout.push('\n');
        }
        self.line(format!("==== {title} ===="));
    }

    /// Rows with aligned columns.
    pub(crate) fn table(&mut self, table: &Table) {
        self.stdout.push_str(&table.to_text());
    }

    /// Writes both streams. A reader that went away is no error: it has read what it wanted.
    pub(crate) fn write(&self) -> std::io::Result<()> {
        for result in [write_all(std::io::stdout().lock(), &self.stdout), write_all(std::io::stderr().lock(), &self.stderr)] {
            match result {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                other => other?,
            }
        }
        Ok(())
    }
}

fn write_all(mut stream: impl Write, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

/// Rows of cells; columns are as wide as their widest cell, two spaces apart, the last one not padded.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a header line.
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        Table { rows: vec![header.iter().map(|cell| cell.to_string()).collect()] }
    }

    /// A block of `Key:  value` lines.
    pub(crate) fn pairs() -> Self {
        Table::default()
    }

    /// One row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // A tab or line break in a name would tear the table apart.
        let clean = |cell: String| cell.replace(|c: char| c.is_control(), " ");
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    /// One `Key:  value` line.
    pub(crate) fn pair(&mut self, key: &str, value: impl ToString) {
        self.row([key.to_string(), value.to_string()]);
    }

    /// Whether there is nothing but a header.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() <= 1
    }

    fn to_text(&self) -> String {
        let column_count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..column_count).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}
