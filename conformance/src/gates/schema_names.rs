//! No two schemas of the API share a name: of two that do, the document has the last, and says of the routes of the other
//! what is not so.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::{Source, Violation};

/// Where the types of the API are.
const FRONTEND: &str = "molecule-http/src/";

pub(super) fn check(sources: &[Source]) -> Vec<Violation> {
    let mut first: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    let mut violations = Vec::new();
    for source in sources.iter().filter(|source| source.file.starts_with(FRONTEND)) {
        let mut schemas = Schemas::default();
        schemas.visit_file(&source.tree);
        for (line, name) in schemas.found {
            match first.get(&name) {
                None => drop(first.insert(name, (&source.file, line))),
                Some((file, at)) => violations.push(Violation {
                    file: source.file.clone(),
                    line,
                    what: format!(
                        "{file}:{at} has a schema {name} as well, and the document has room for one: rename it, or say \
                         `#[schema(as = …)]`"
                    ),
                }),
            }
        }
    }
    violations
}

/// Every schema of a file by its name in the document, with its line.
#[derive(Default)]
struct Schemas {
    found: Vec<(usize, String)>,
}

impl Schemas {
    fn see(&mut self, attributes: &[syn::Attribute], ident: &syn::Ident) {
        let lists = |name: &'static str| {
            let lists = attributes.iter().filter_map(|attribute| attribute.meta.require_list().ok());
            lists.filter(move |list| list.path.is_ident(name)).map(|list| list.tokens.clone())
        };
        if lists("derive").any(|derives| mentions(derives, "ToSchema")) {
            let name = lists("schema").find_map(renamed).unwrap_or_else(|| ident.to_string());
            self.found.push((ident.span().start().line, name));
        }
    }
}

impl<'ast> Visit<'ast> for Schemas {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.see(&item.attrs, &item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.see(&item.attrs, &item.ident);
        visit::visit_item_enum(self, item);
    }
}

fn mentions(tokens: TokenStream, name: &str) -> bool {
    tokens.into_iter().any(|token| matches!(token, TokenTree::Ident(ident) if ident == name))
}

/// The path after `as =`.
fn renamed(tokens: TokenStream) -> Option<String> {
    let mut tokens = tokens.into_iter().skip_while(|token| token.to_string() != "as");
    tokens.next()?;
    let path = tokens.skip(1).map(|token| token.to_string()).take_while(|token| token != ",");
    Some(path.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(file, text)| Source::parse(file, text).unwrap()).collect();
        check(&sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_name_that_is_taken_is_found() {
        let one = "#[derive(Debug, Serialize, ToSchema)]\nstruct TokenView { id: u8 }\n";
        let other = "use x::y;\n#[derive(utoipa::ToSchema)]\npub(crate) enum TokenView { A }\n\
                     #[derive(ToSchema)]\n#[schema(as = TokenView, example = 1)]\nstruct Another;\n";
        let violations = found(&[("molecule-http/src/a.rs", one), ("molecule-http/src/b.rs", other)]);
        assert_eq!(violations.len(), 2, "{violations:?}");
        assert!(violations[0].starts_with("molecule-http/src/b.rs:3: molecule-http/src/a.rs:2 has a schema TokenView"));
        assert!(violations[1].starts_with("molecule-http/src/b.rs:6: "), "{violations:?}");
    }

    #[test]
    fn another_name_and_what_is_no_schema_are_no_violation() {
        let one = "#[derive(ToSchema)]\nstruct View;\n#[derive(Debug)]\nstruct Other;\n";
        let other = "#[derive(ToSchema)]\n#[schema(as = OtherView)]\nstruct View;\n#[derive(Clone)]\nstruct Other;\n";
        assert_eq!(found(&[("molecule-http/src/a.rs", one), ("molecule-http/src/b.rs", other)]), [""; 0]);
        assert_eq!(found(&[("molecule-http/src/a.rs", one), ("molecule-core/src/a.rs", one)]), [""; 0]);
    }
}
