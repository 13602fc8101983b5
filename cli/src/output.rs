//! What goes to standard output: text for people or, with `--json`, one object per line. Progress and notes go to
//! standard error, so that output can be piped.

use std::io::Write as _;

use serde_json::Value;

use crate::args::Global;
use crate::failure::Failure;

/// How this run talks.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON object per line.
    pub json: bool,
    /// No progress, no notes.
    pub quiet: bool,
}

impl Output {
    /// As the options say.
    pub const fn new(global: &Global) -> Self {
        Self { json: global.json, quiet: global.quiet }
    }

    /// The result of a command: `value` under the type `kind` with `--json`, else `text`.
    pub fn result(self, kind: &str, mut value: Value, text: impl FnOnce() -> String) {
        if self.json {
            if let Value::Object(fields) = &mut value {
                fields.insert("type".to_owned(), Value::from(kind));
            }
            put_out(&format!("{value}\n"));
        } else {
            put_out(&text());
        }
    }

    /// A line for people; nothing with `--json`.
    pub fn say(self, text: impl std::fmt::Display) {
        if !self.json {
            put_out(&format!("{text}\n"));
        }
    }

    /// A remark beside the result, on standard error.
    pub fn note(self, text: impl std::fmt::Display) {
        if !self.json && !self.quiet {
            eprintln!("{text}");
        }
    }

    /// A remark that matters more than quiet.
    pub fn warn(self, text: impl std::fmt::Display) {
        if !self.json {
            eprintln!("warning: {text}");
        }
    }

    /// How it ended, when it did not end well.
    pub fn failure(self, failure: &Failure) {
        if self.json {
            eprintln!("{}", failure.to_json());
        } else {
            eprint!("{}", failure.render());
        }
    }
}

/// Writes to standard output. A reader that went away (`tallow ls | head`) has what it wanted: the command goes on, and its
/// exit code tells how it went.
fn put_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let done = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to standard output: {error}");
            std::process::exit(i32::from(crate::failure::exit_code(crate::failure::Kind::Unavailable)));
        }
        _ => {}
    }
}

/// A table for people: columns as wide as their widest cell, numbers to the right.
pub fn table(head: &[&str], right: &[bool], rows: &[Vec<String>]) -> String {
    Table::new(head, right).lines(rows)
}

/// A table that comes in several runs of rows: the first has the head, and no column gets narrower.
pub struct Table {
    head: Option<Vec<String>>,
    right: Vec<bool>,
    widths: Vec<usize>,
}

impl Table {
    /// With names of columns, and whether each is set to the right.
    pub fn new(head: &[&str], right: &[bool]) -> Self {
        let widths = head.iter().map(|cell| cell.chars().count()).collect();
        let head = Some(head.iter().map(|cell| (*cell).to_owned()).collect());
        Self { head, right: right.to_vec(), widths }
    }

    /// The next rows.
    pub fn lines(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in self.head.take().iter().chain(rows) {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&self.widths).zip(&self.right) {
                let blanks = " ".repeat(width - cell.chars().count());
                line.push_str(&if *right { blanks + cell } else { cell.clone() + &blanks });
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: columns line up and lines have no trailing blanks. Method: one table.
    #[test]
    fn tables_line_up() {
        let rows = vec![vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "9".to_owned()]];
        let text = table(&["name", "n"], &[false, true], &rows);
        assert_eq!(text, "name   n\na     10\nlong   9\n");
        let mut runs = Table::new(&["name", "n"], &[false, true]);
        let text = runs.lines(&rows[..1]) + &runs.lines(&rows[1..]);
        assert_eq!(text, "name   n\na     10\nlong   9\n");
    }
}
