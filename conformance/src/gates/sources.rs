//! The sources that gates look at.

use std::{collections::BTreeSet, fs, path::Path};

use proc_macro2::{Literal, TokenStream, TokenTree};

/// One file of Rust, without its tests.
#[derive(Debug)]
pub struct Source {
    /// Where it lies, from the root of the repository.
    pub file: String,
    /// Its syntax tree.
    pub tree: syn::File,
}

impl Source {
    /// Reads `text`, and leaves out what is built for tests alone.
    ///
    /// # Errors
    /// Where it is no Rust.
    pub fn parse(file: &str, text: &str) -> Result<Self, String> {
        let mut tree = syn::parse_file(text).map_err(|error| format!("{file}: {error}"))?;
        tree.items.retain(|item| !is_for_tests(item));
        Ok(Self { file: file.to_owned(), tree })
    }

    /// Every string literal, those in macros included, with its line and its value.
    pub fn strings(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let tokens = self.tree.items.iter().map(quote::ToTokens::to_token_stream);
        tokens.for_each(|tokens| collect(tokens, &mut found));
        found
    }
}

/// What sources are made of, by name.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Every word that is not within a string.
    pub(super) words: BTreeSet<String>,
    /// The functions among them.
    pub(super) functions: BTreeSet<String>,
}

/// The names in all of `sources`.
pub(super) fn names(sources: &[Source]) -> Names {
    fn learn(tokens: TokenStream, names: &mut Names) {
        let mut is_function = false;
        for token in tokens {
            match token {
                TokenTree::Group(group) => learn(group.stream(), names),
                TokenTree::Ident(ident) => {
                    let word = ident.to_string();
                    if is_function {
                        names.functions.insert(word.clone());
                    }
                    is_function = word == "fn";
                    names.words.insert(word);
                    continue;
                }
                TokenTree::Literal(_) | TokenTree::Punct(_) => {}
            }
            is_function = false;
        }
    }
    let mut names = Names::default();
    for source in sources {
        source.tree.items.iter().for_each(|item| learn(quote::ToTokens::to_token_stream(item), &mut names));
    }
    names
}

fn collect(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
    let mut is_macro = [false; 2];
    for token in tokens {
        // `concat`, then `!`, then what is joined.
        is_macro = match &token {
            TokenTree::Ident(ident) => [ident == "concat", false],
            TokenTree::Punct(punct) if punct.as_char() == '!' => [false, is_macro[0]],
            TokenTree::Group(_) => is_macro,
            _ => [false; 2],
        };
        match token {
            TokenTree::Group(group) if is_macro[1] => {
                let pieces = joined(group.stream());
                let line = pieces.first().map(|(line, _)| *line);
                found.extend(line.map(|line| (line, pieces.into_iter().map(|(_, piece)| piece).collect())));
            }
            TokenTree::Group(group) => collect(group.stream(), found),
            TokenTree::Literal(literal) => found.extend(string(&literal)),
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

/// What `concat!` joins. What another macro stands for is written elsewhere: a name stands in its place.
fn joined(tokens: TokenStream) -> Vec<(usize, String)> {
    let mut pieces = Vec::new();
    let (mut name, mut is_call) = (String::new(), false);
    for token in tokens {
        let line = token.span().start().line;
        match &token {
            TokenTree::Group(group) if is_call && name == "concat" => pieces.extend(joined(group.stream())),
            TokenTree::Group(_) if is_call => pieces.push((line, "x".to_owned())),
            TokenTree::Literal(literal) => pieces.extend(string(literal)),
            TokenTree::Ident(ident) => name = ident.to_string(),
            TokenTree::Group(_) | TokenTree::Punct(_) => {}
        }
        is_call = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '!');
    }
    pieces
}

fn string(literal: &Literal) -> Option<(usize, String)> {
    let value = syn::parse_str::<syn::LitStr>(&literal.to_string()).ok()?.value();
    Some((literal.span().start().line, value))
}

fn is_for_tests(item: &syn::Item) -> bool {
    let attributes = match item {
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        list.path.is_ident("cfg") && matches!(&*list.tokens.to_string(), "test" | "feature = \"testing\"")
    })
}

/// The sources of every crate below `root` that run in production.
pub(super) fn production(root: &Path) -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    for folder in ["molecule-core/src", "molecule-http/src", "molecule-py/src"] {
        walk(root, &root.join(folder), &mut sources)?;
    }
    // What tests are made with may set anything.
    sources.retain(|source| !source.file.starts_with("molecule-core/src/testing/"));
    sources.sort_by(|one, other| one.file.cmp(&other.file));
    Ok(sources)
}

fn walk(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> Result<(), String> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
        if path.is_dir() {
            walk(root, &path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let file = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            sources.push(Source::parse(&file, &text)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_found_wherever_they_are_and_tests_are_left_out() {
        let text = "const A: &str = \"one\";\n\
                    statements! {\n B = \"two \\\n three\";\n}\n\
                    fn f() { g(r#\"four\"#, b\"not text\", 'x', 5); }\n\
                    #[cfg(test)]\nmod tests { const C: &str = \"left out\"; }\n\
                    #[cfg(feature = \"testing\")]\nmod suite { const D: &str = \"left out\"; }\n";
        let source = Source::parse("a.rs", text).unwrap();
        let expected = [(1, "one"), (3, "two three"), (6, "four")];
        assert_eq!(source.strings(), expected.map(|(line, text)| (line, text.to_owned())));
        assert!(Source::parse("b.rs", "fn (").unwrap_err().starts_with("b.rs: "));
    }
}
