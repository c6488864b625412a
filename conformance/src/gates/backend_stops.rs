//! What runs is stopped in a task of its own, never on the path of a request that begins a restart: an answer would wait
//! for a backend that hangs. And a machine is asked back before a restart in one way, which tries again and tells of a
//! leak. So each way to stop something has the callers that are listed here, and no others.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};

use super::{Source, Violation, line_of};

/// What is looked at: backends stop what is theirs.
const CORE: &str = "molecule-core/src/";
const BACKENDS: [&str; 3] = ["provisioner/docker/", "provisioner/process/", "provisioner/remote.rs"];

/// Each way to stop something, and the functions that may go it.
const CALLERS: [(&str, &[(&str, &str)]); 5] = [
    (
        "stop",
        &[
            ("provisioner/stop.rs", "stop"),
            ("provisioner/stop.rs", "stop_workload"),
            ("provisioner/stop.rs", "stop_for_restart"),
            ("provisioner/stop.rs", "stop_with_retry"),
            ("provisioner/bring_up.rs", "discard"),
            ("sweep/orphans.rs", "clear"),
            ("sweep/machines.rs", "give_back_left"),
        ],
    ),
    ("stop_with_retry", &[("provisioner/stop.rs", "stop_for_restart"), ("provisioner/stop.rs", "give_back")]),
    ("stop_for_restart", &[("provisioner/bring_up.rs", "replace")]),
    ("stop_workload", &[("provisioner/stop.rs", "stop_while")]),
    (
        "stop_all",
        &[
            ("workspace/delete.rs", "remove_tree"),
            ("workspace/pause.rs", "pause"),
            ("workspace/hibernate.rs", "finish_hibernation"),
        ],
    ),
];

/// This file, whose list must not outlive what it lists.
const LIST: (&str, &str) = ("conformance/src/gates/backend_stops.rs", include_str!("backend_stops.rs"));

pub(super) fn check(sources: &[Source]) -> Vec<Violation> {
    let mut used = Vec::new();
    let mut violations: Vec<Violation> = sources.iter().flat_map(|source| look(source, &mut used)).collect();
    for (callee, callers) in CALLERS {
        for (path, function) in callers.iter().filter(|caller| !used.contains(&(callee, **caller))) {
            let (file, text) = LIST;
            violations.push(Violation {
                file: file.to_owned(),
                line: line_of(text, &format!("(\"{path}\", \"{function}\")")),
                what: format!("{function} of {path} does not call {callee} any more: take it off the list"),
            });
        }
    }
    violations
}

/// A way to stop something, and a caller on its list.
type Use = (&'static str, (&'static str, &'static str));

fn look(source: &Source, used: &mut Vec<Use>) -> Vec<Violation> {
    let Some(path) = source.file.strip_prefix(CORE) else { return Vec::new() };
    if BACKENDS.iter().any(|backend| path.starts_with(backend)) {
        return Vec::new();
    }
    let mut functions = Functions::default();
    functions.visit_file(&source.tree);
    let mut violations = Vec::new();
    for (function, body) in functions.found {
        let mut calls = Vec::new();
        collect(body, &mut calls);
        for (line, callee) in calls {
            let Some((_, callers)) = CALLERS.iter().find(|(name, _)| *name == callee) else { continue };
            match callers.iter().find(|caller| **caller == (path, function.as_str())) {
                Some(caller) => {
                    used.extend(CALLERS.iter().filter(|(name, _)| *name == callee).map(|it| (it.0, *caller)))
                }
                None => violations.push(Violation {
                    file: source.file.clone(),
                    line,
                    what: format!("{function} calls {callee}; begin a try, which stops in its own task"),
                }),
            }
        }
    }
    violations
}

/// Every function of a file, with its body.
#[derive(Default)]
struct Functions {
    found: Vec<(String, TokenStream)>,
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.found.push((function.sig.ident.to_string(), function.block.to_token_stream()));
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.found.push((function.sig.ident.to_string(), function.block.to_token_stream()));
        visit::visit_impl_item_fn(self, function);
    }
}

/// Every call with arguments, and every function that is handed on by its path, in macros as well, with its line.
fn collect(tokens: TokenStream, calls: &mut Vec<(usize, String)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is = |at: Option<&TokenTree>, punct: char| matches!(at, Some(TokenTree::Punct(it)) if it.as_char() == punct);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(ident) => {
                let next = tokens.get(at + 1);
                let called = matches!(next, Some(TokenTree::Group(group))
                    if group.delimiter() == Delimiter::Parenthesis && !group.stream().is_empty());
                let of_a_type = at > 1 && is(tokens.get(at - 1), ':') && is(tokens.get(at - 2), ':');
                let handed_on = of_a_type && !is(next, ':') && !matches!(next, Some(TokenTree::Group(_)));
                if called || handed_on {
                    calls.push((ident.span().start().line, ident.to_string()));
                }
            }
            TokenTree::Group(group) => collect(group.stream(), calls),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, text: &str) -> Vec<String> {
        look(&Source::parse(file, text).unwrap(), &mut Vec::new()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_stop_on_the_path_of_a_restart_is_found() {
        let planted = "impl ControlPlane {\n\
                       pub async fn restart(&self) -> Result<()> {\n\
                       tokio::select! { stopped = self.inner.backend.stop(id, None) => stopped?, () = late => {} }\n\
                       self.stop_for_restart(&workspace, source).await;\n\
                       Ok(())\n}\n}\n";
        let violations = found("molecule-core/src/workspace/restart.rs", planted);
        assert_eq!(violations.len(), 2, "{violations:?}");
        assert!(violations[0].starts_with("molecule-core/src/workspace/restart.rs:3: restart calls stop;"));
        assert!(violations[1].starts_with("molecule-core/src/workspace/restart.rs:4: restart calls stop_for_restart;"));
    }

    #[test]
    fn a_stop_that_is_handed_on_is_found() {
        let planted = "async fn restart() { run(&list, Backend::stop).await; }";
        let violations = found("molecule-core/src/workspace/restart.rs", planted);
        assert!(violations.len() == 1 && violations[0].contains("restart.rs:1: restart calls stop;"), "{violations:?}");
    }

    #[test]
    fn a_caller_that_is_none_any_more_is_told() {
        let text = "async fn stop() { backend.stop(id, None).await }";
        let told = check(&[Source::parse("molecule-core/src/provisioner/stop.rs", text).unwrap()]);
        let listed: usize = CALLERS.iter().map(|(_, callers)| callers.len()).sum();
        assert_eq!(told.len(), listed - 1, "{told:?}");
        let told = told[0].to_string();
        let expected = "stop_workload of provisioner/stop.rs does not call stop any more: take it off the list";
        assert!(told.starts_with("conformance/src/gates/backend_stops.rs:") && told.ends_with(expected), "{told}");
        let line: usize = told.split(':').nth(1).unwrap().parse().unwrap();
        assert!(LIST.1.lines().nth(line - 1).unwrap().contains("(\"provisioner/stop.rs\", \"stop_workload\")"));
    }

    #[test]
    fn the_one_way_is_no_violation_and_neither_is_another_meaning() {
        let text = "async fn stop_for_restart() { stop_with_retry(&p, id).await; backend.stop(id, None).await }";
        assert_eq!(found("molecule-core/src/provisioner/stop.rs", text), [""; 0]);
        let elsewhere = found("molecule-core/src/sweep/health.rs", text);
        assert_eq!(elsewhere.len(), 2, "{elsewhere:?}");
        // Without arguments it stops no workspace.
        let text = "async fn restart() { self.stop(); self.inner.stop.cancelled().await; let stop = 1; }";
        assert_eq!(found("molecule-core/src/workspace/restart.rs", text), [""; 0]);
        assert_eq!(found("molecule-http/src/cli/x.rs", "fn f() { child.stop(id) }"), [""; 0]);
    }
}
