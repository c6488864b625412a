//! How gates tell where two things differ that must agree.

use std::fmt;

/// A place where a rule about the repository is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The file, from the root of the repository.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there, and how it is mended.
    pub what: String,
}

impl Violation {
    /// One in the line of `text`, which is that of `file`, that holds `near`; in the first where none does.
    pub fn near(file: &str, text: &str, near: &str, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: line_of(text, near), what: what.into() }
    }

    /// The first line in which `found`, the text of `file`, is not what it is `expected` to be, if any; `mend` says what to
    /// do about it.
    pub fn first_difference(file: &str, found: &str, expected: &str, mend: &str) -> Option<Self> {
        let (mut here, mut there) = (found.lines(), expected.lines());
        let mut line = 0;
        loop {
            line += 1;
            let what = match (here.next(), there.next()) {
                (None, None) => return None,
                (one, other) if one == other => continue,
                (Some(one), Some(other)) => format!("this is {one:?} and should be {other:?}: {mend}"),
                (Some(one), None) => format!("{one:?} should not be here: {mend}"),
                (None, Some(other)) => format!("{other:?} is missing: {mend}"),
            };
            return Some(Self { file: file.to_owned(), line, what });
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// The line of `text`, from 1, that holds `near` first; 1 where none does.
pub fn line_of(text: &str, near: &str) -> usize {
    text.lines().position(|line| line.contains(near)).map_or(1, |index| index + 1)
}

/// Demands that nothing differs, and shows all that does, a line each.
///
/// # Panics
/// Where something differs.
#[track_caller]
pub fn demand_none(found: &[Violation]) {
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "these do not agree:\n{}", lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_where_and_what() {
        let found = Violation::near("a.md", "one\ntwo\nthree two\n", "two", "it is gone: remove it");
        assert_eq!(found.to_string(), "a.md:2: it is gone: remove it");
        assert_eq!(line_of("one\n", "four"), 1);
        let first =
            |found: &str| Violation::first_difference("a.md", found, "one\ntwo\n", "write it").map(|it| it.to_string());
        assert_eq!(first("one\ntwo\n"), None);
        assert_eq!(first("one\n2\n").unwrap(), "a.md:2: this is \"2\" and should be \"two\": write it");
        assert_eq!(first("one\n").unwrap(), "a.md:2: \"two\" is missing: write it");
        demand_none(&[]);
        let shown = std::panic::catch_unwind(|| demand_none(&[found])).unwrap_err();
        let shown = shown.downcast_ref::<String>().expect("it panics with a text");
        assert!(shown.ends_with("agree:\na.md:2: it is gone: remove it"), "{shown}");
    }
}
