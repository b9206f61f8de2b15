//! What is wrong with a configuration file, where, and what would be right?

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

/// A place in the file; both count from 1. Line 0 stands for the file as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// One thing to put right.
///
/// Prints as `12:7: servers[0].timeouts.connect: "5 parsecs" is not a duration; write a number …`. Never contains a
/// secret: values are quoted only where the key is not one of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, e.g. `servers[0].instances[1].url`; empty for the file as a whole.
    pub path: String,
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 for the file as a whole.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: String,
}

impl Problem {
    /// A problem with the key `path` at `at`.
    pub fn new(path: impl Into<String>, at: Position, complaint: Complaint) -> Self {
        let Complaint { message, hint } = complaint;
        Self { path: path.into(), line: at.line, column: at.column, message, hint }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        // A message may repeat what stands in the file: whatever that is, it stays on one line.
        for char in self.message.chars() {
            if char.is_control() { write!(f, "{}", char.escape_default())? } else { f.write_char(char)? }
        }
        write!(f, "; {}", self.hint)
    }
}

/// What is wrong with a value and what would be right, before it is known where the value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: String,
}

impl Complaint {
    /// Both halves of the sentence.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// Every problem of one file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Report {
    /// The file, as the operator named it.
    pub file: PathBuf,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Puts the name of the file to its problems.
    pub fn new(file: &Path, problems: Vec<Problem>) -> Self {
        Self { file: file.to_owned(), problems }
    }
}

impl fmt::Display for Report {
    /// One line a problem, `FILE:LINE:COLUMN: KEY: WHAT; HINT`, without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, problem) in self.problems.iter().enumerate() {
            let (newline, space) = (if nth == 0 { "" } else { "\n" }, if problem.line == 0 { " " } else { "" });
            write!(f, "{newline}{}:{space}{problem}", self.file.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fuzzer's: an expression with a line end in a string, which the parser repeats.
    #[test]
    fn a_problem_stays_on_one_line() {
        let message = "no \"a\r\n\u{1b}[2Jé\"".to_owned();
        let problem = Problem { path: "x".to_owned(), line: 1, column: 2, message, hint: "mend it".to_owned() };
        assert_eq!(problem.to_string(), r#"1:2: x: no "a\r\n\u{1b}[2Jé"; mend it"#);
    }
}
