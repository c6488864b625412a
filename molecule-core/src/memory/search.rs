//! From what somebody types to what is looked for: the same on both databases.

/// What a memory must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Search {
    /// Anything.
    Everything,
    /// This text, in whatever case.
    Holding(String),
    /// All of these words, in whatever form of them.
    Words(Vec<String>),
}

/// Words that every text holds. Postgres leaves them out; SQLite would look for them.
const STOP_WORDS: &str = " i me my myself we our ours ourselves you your yours yourself yourselves he him his himself \
    she her hers herself it its itself they them their theirs themselves what which who whom this that these those am is \
    are was were be been being have has had having do does did doing a an the and but if or because as until while of at \
    by for with about against between into through during before after above below to from up down in out on off over \
    under again further then once here there when where why how all any both each few more most other some such no nor \
    not only own same so than too very s t can will just don should now ";

impl Search {
    /// Words where there are any to look for; a single character, or nothing but stop words, is looked for as it is.
    pub(crate) fn of(text: &str) -> Self {
        let text = text.trim();
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (None, _) => return Self::Everything,
            (Some(_), None) => return Self::Holding(text.to_owned()),
            _ => {}
        }
        let words: Vec<String> = text
            .split(|c: char| !c.is_alphanumeric())
            .map(str::to_lowercase)
            .filter(|word| !word.is_empty() && !STOP_WORDS.contains(&format!(" {word} ")))
            .collect();
        if words.is_empty() { Self::Holding(text.to_owned()) } else { Self::Words(words) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_becomes_a_search() {
        let words = |words: &[&str]| Search::Words(words.iter().map(|word| (*word).to_owned()).collect());
        let rows = [
            ("", Search::Everything),
            ("  ", Search::Everything),
            ("x", Search::Holding("x".to_owned())),
            ("🦀", Search::Holding("🦀".to_owned())),
            ("the", Search::Holding("the".to_owned())),
            ("%_", Search::Holding("%_".to_owned())),
            ("The Deploy key", words(&["deploy", "key"])),
            ("NEAR(a b) OR \"c\" -d*", words(&["near", "b", "c", "d"])),
            ("über-größe", words(&["über", "größe"])),
        ];
        for (text, expected) in rows {
            assert_eq!(Search::of(text), expected, "{text:?}");
        }
    }
}
