//! What files are called: pure.

use std::fmt::Write;

/// The longest name, in characters.
const LONGEST: usize = 100;

/// The longest ending that is kept where a name is cut, dot included.
const LONGEST_ENDING: usize = 16;

/// `given`, what a client calls a file, as a name that is safe in any folder.
pub(super) fn safe(given: &str) -> String {
    let last = given.rsplit('/').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = last.chars().map(plain).collect();
    match name.as_str() {
        "" | "." | ".." => "file".to_owned(),
        _ if name.len() <= LONGEST => name,
        _ => {
            let ending = name.rfind('.').map_or("", |at| &name[at..]);
            let ending = if ending.len() <= LONGEST_ENDING { ending } else { "" };
            format!("{}{ending}", &name[..LONGEST - ending.len()])
        }
    }
}

/// `Content-Disposition` of a file called `name`, which may be anything that a file can be called.
pub(super) fn disposition(name: &str) -> String {
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let mut plain = String::new();
    for c in name.chars() {
        match c {
            '"' | '\\' => plain.extend(['\\', c]),
            // Headers are ASCII; the other form says what it really is.
            _ => plain.push(if c.is_ascii() { c } else { '_' }),
        }
    }
    let mut encoded = String::new();
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => write!(encoded, "%{byte:02X}").expect("a String takes all that is written"),
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_row_by_row() {
        let crabs = "🦀".repeat(300);
        let long = "x".repeat(300);
        for (given, expected) in [
            ("plan.txt", "plan.txt".to_owned()),
            ("my plan.txt", "my_plan.txt".into()),
            ("a/b/c.txt", "c.txt".into()),
            ("../../etc/passwd", "passwd".into()),
            ("..", "file".into()),
            (".", "file".into()),
            ("", "file".into()),
            ("a/", "file".into()),
            ("a/..", "file".into()),
            (".env", ".env".into()),
            ("a\0b", "a_b".into()),
            ("a\r\nb", "a__b".into()),
            (r"C:\a.txt", "C__a.txt".into()),
            ("ü.pdf", "_.pdf".into()),
            (crabs.as_str(), "_".repeat(100)),
            (&format!("{crabs}.png"), format!("{}.png", "_".repeat(96))),
            (&format!("{long}.{}", "e".repeat(15)), format!("{}.{}", "x".repeat(84), "e".repeat(15))),
            (&format!("{long}.{}", "e".repeat(16)), "x".repeat(100)),
            (&"x".repeat(100), "x".repeat(100)),
        ] {
            let name = safe(given);
            assert_eq!(name, expected, "{given:?}");
            assert!(name.len() <= LONGEST);
        }
    }

    #[test]
    fn a_disposition_says_any_name() {
        for (name, expected) in [
            ("a b.txt", r#"attachment; filename="a b.txt"; filename*=UTF-8''a%20b.txt"#),
            (r#"a"b\c"#, r#"attachment; filename="a\"b\\c"; filename*=UTF-8''a%22b%5Cc"#),
            ("a\r\nX: y\0", r#"attachment; filename="aX: y"; filename*=UTF-8''aX%3A%20y"#),
            ("ü", "attachment; filename=\"_\"; filename*=UTF-8''%C3%BC"),
        ] {
            assert_eq!(disposition(name), expected, "{name:?}");
        }
    }
}
