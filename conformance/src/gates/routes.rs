//! Every route is in the document of the API: the server is put together from documented handlers alone, and no documented
//! handler is left out.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};

use super::{Source, Violation};

/// Where the server is put together.
const SERVER: &str = "molecule-http/src/serve/";
const ROUTER: &str = "molecule-http/src/serve/router.rs";

/// The ways to add a route that the document does not hear of.
const UNHEARD: [&str; 6] = ["route", "route_service", "nest", "nest_service", "merge", "fallback_service"];

pub(super) fn check(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let (mut documented, mut routed) = (BTreeMap::new(), Vec::new());
    for source in sources.iter().filter(|source| source.file.starts_with(SERVER)) {
        let mut calls = Vec::new();
        methods(source.tree.to_token_stream(), &mut calls);
        for (line, name) in calls {
            let what = format!("{name} adds a route that the document does not hear of: add it with `routes!`");
            violations.push(Violation { file: source.file.clone(), line, what });
        }
        let mut handlers = Handlers::default();
        handlers.visit_file(&source.tree);
        let module = source.file.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        for (line, function) in handlers.found {
            documented.insert(format!("{module}::{function}"), (source.file.clone(), line));
        }
        if source.file == ROUTER {
            listed(source.tree.to_token_stream(), &mut routed);
        }
    }
    for (handler, (file, line)) in documented.iter().filter(|(handler, _)| !routed.iter().any(|(_, it)| it == *handler))
    {
        let what = format!("{handler} is documented and no route: add it in {ROUTER}, or remove it");
        violations.push(Violation { file: file.clone(), line: *line, what });
    }
    for (line, handler) in routed.iter().filter(|(_, handler)| !documented.contains_key(handler)) {
        let what = format!("{handler} is a route without `#[utoipa::path]`: document it");
        violations.push(Violation { file: ROUTER.to_owned(), line: *line, what });
    }
    violations
}

/// The calls of methods that add routes, each with its line.
fn methods(tokens: TokenStream, calls: &mut Vec<(usize, String)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => methods(group.stream(), calls),
            TokenTree::Ident(ident) if UNHEARD.iter().any(|name| ident == name) => {
                let dotted = at > 0 && matches!(&tokens[at - 1], TokenTree::Punct(dot) if dot.as_char() == '.');
                // A path comes first: other things are merged and nested as well.
                let with_path = matches!(tokens.get(at + 1), Some(TokenTree::Group(group))
                    if group.delimiter() == Delimiter::Parenthesis && !group.stream().is_empty());
                if dotted && with_path {
                    calls.push((ident.span().start().line, ident.to_string()));
                }
            }
            _ => {}
        }
    }
}

/// The last two names of each path within `routes!(…)`, with its line.
fn listed(tokens: TokenStream, routed: &mut Vec<(usize, String)>) {
    let mut is_macro = [false; 2];
    for token in tokens {
        is_macro = match &token {
            TokenTree::Ident(ident) => [ident == "routes", false],
            TokenTree::Punct(punct) if punct.as_char() == '!' => [false, is_macro[0]],
            TokenTree::Group(_) => is_macro,
            _ => [false; 2],
        };
        let TokenTree::Group(group) = token else { continue };
        if !is_macro[1] {
            listed(group.stream(), routed);
            continue;
        }
        let mut path: Vec<(usize, String)> = Vec::new();
        for token in group
            .stream()
            .into_iter()
            .chain([TokenTree::Punct(proc_macro2::Punct::new(',', proc_macro2::Spacing::Alone))])
        {
            match token {
                TokenTree::Ident(ident) => path.push((ident.span().start().line, ident.to_string())),
                TokenTree::Punct(punct) if punct.as_char() == ',' => {
                    if let [.., (_, module), (line, function)] = &path[..] {
                        routed.push((*line, format!("{module}::{function}")));
                    }
                    path.clear();
                }
                _ => {}
            }
        }
    }
}

/// Every function with `#[utoipa::path]`, with its line.
#[derive(Default)]
struct Handlers {
    found: Vec<(usize, String)>,
}

impl<'ast> Visit<'ast> for Handlers {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        let documented = function.attrs.iter().any(|attribute| {
            let names: Vec<String> = attribute.path().segments.iter().map(|part| part.ident.to_string()).collect();
            names == ["utoipa", "path"]
        });
        if documented {
            self.found.push((function.sig.ident.span().start().line, function.sig.ident.to_string()));
        }
        visit::visit_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDLERS: &str = "#[utoipa::path(get, path = \"/a\")]\nasync fn list() {}\nasync fn helper() {}\n";

    fn found(router: &str, handlers: &str) -> Vec<String> {
        let sources = [(ROUTER, router), ("molecule-http/src/serve/routes/things.rs", handlers)];
        let sources = sources.map(|(file, text)| Source::parse(file, text).unwrap());
        check(&sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_route_that_nobody_reads_of_is_found() {
        let router = "fn api() -> R {\n    R::new()\n        .routes(routes!(routes::things::list))\n}\n";
        assert_eq!(found(router, HANDLERS), [""; 0]);
        let beside = router.replace("R::new()\n", "R::new()\n        .route(\"/secret\", get(secret))\n");
        let expected = "router.rs:3: route adds a route that the document does not hear of: add it with `routes!`";
        assert_eq!(found(&beside, HANDLERS), [format!("molecule-http/src/serve/{expected}")]);
        let unrouted = found("fn api() {}\n", HANDLERS);
        let expected =
            "things.rs:2: things::list is documented and no route: add it in molecule-http/src/serve/router.rs";
        assert!(unrouted.len() == 1 && unrouted[0].contains(expected), "{unrouted:?}");
        let undocumented = router.replace("things::list", "things::list, routes::things::helper");
        let told = found(&undocumented, HANDLERS);
        let expected = "router.rs:3: things::helper is a route without `#[utoipa::path]`: document it";
        assert!(told.len() == 1 && told[0].contains(expected), "{told:?}");
    }

    #[test]
    fn what_is_made_for_tests_is_left_alone() {
        let router = "#[cfg(test)]\nmod tests { fn f() { r.route(\"/x\", get(y)) } }\n";
        assert_eq!(found(router, ""), [""; 0]);
    }
}
