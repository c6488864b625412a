//! Text that comes from others, made harmless for a terminal.

/// `text` on one line, without anything that a terminal would act on.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => clean.push(' '),
            c => clean.push(harmless(c)),
        }
    }
    clean
}

/// As [`clean`], keeping line ends and tabs.
pub(crate) fn clean_lines(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    text.chars().map(|c| if matches!(c, '\n' | '\t') { c } else { harmless(c) }).collect()
}

/// Whether a terminal may act on `c`, or show what stands around it in another order.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn harmless(c: char) -> char {
    match c {
        // The picture of the control character, as wide as a letter.
        '\0'..='\u{1f}' => char::from_u32(0x2400 + c as u32).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\u{7f}' => '\u{2421}',
        c if is_harmful(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_acts_on_is_left() {
        let evil = "a\u{1b}]0;title\u{7}b\u{9b}31mc\rd\u{7f}\u{202e}e\n\tf é 東";
        assert_eq!(clean(evil), "a␛]0;title␇b\u{fffd}31mc d␡\u{fffd}e  f é 東");
        assert_eq!(clean_lines("a\r\nb\rc\n\td"), "a\nb␍c\n\td");
        assert!(!clean(evil).chars().any(is_harmful));
    }
}
