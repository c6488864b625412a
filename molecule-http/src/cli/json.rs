//! JSON text laid out anew without touching what it says.
//!
//! Parsing and printing would reorder members and round numbers; scripts are promised what the server sent.

use super::text::is_harmful;

/// `json` with one member a line. It must be valid JSON.
pub(crate) fn pretty(json: &str) -> String {
    lay_out(json, true)
}

/// `json` on a single line. It must be valid JSON.
pub(crate) fn one_line(json: &str) -> String {
    lay_out(json, false)
}

fn lay_out(json: &str, pretty: bool) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth: usize = 0;
    let break_line = |out: &mut String, depth: usize| {
        if pretty {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth));
        }
    };
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                copy_string(&mut chars, &mut out);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(close) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(if pretty { ": " } else { ":" }),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// Copies up to and with the closing quote. What could harm a terminal is escaped: the same string to a parser.
fn copy_string(chars: &mut impl Iterator<Item = char>, out: &mut String) {
    let mut escaped = false;
    for c in chars {
        if is_harmful(c) {
            out.push_str(&format!("\\u{:04x}", c as u32));
        } else {
            out.push(c);
        }
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_numbers_and_strings_stay_as_they_were() {
        let text = r#"{"b": 1.10, "a" :[ ], "c":[1,{"x":"a\"{,}: \\"}], "d":{} ,"e":12345678901234567890123}"#;
        insta::assert_snapshot!(pretty(text), @r#"
        {
          "b": 1.10,
          "a": [],
          "c": [
            1,
            {
              "x": "a\"{,}: \\"
            }
          ],
          "d": {},
          "e": 12345678901234567890123
        }
        "#);
        let compact = r#"{"b":1.10,"a":[],"c":[1,{"x":"a\"{,}: \\"}],"d":{},"e":12345678901234567890123}"#;
        assert_eq!(one_line(text), compact);
        assert_eq!(one_line(&pretty(text)), compact);
    }

    #[test]
    fn what_could_harm_a_terminal_is_escaped_and_reads_the_same() {
        let text = "[\"a\u{9b}31m\u{7f}\u{202e}\"]";
        assert_eq!(pretty(text), "[\n  \"a\\u009b31m\\u007f\\u202e\"\n]");
        let before: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&pretty(text)).unwrap(), before);
    }
}
