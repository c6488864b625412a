//! What runs is stopped in a task of its own, never on the path of a request that begins a restart: an answer would wait
//! for a backend that hangs. And a machine is asked back before a restart in one way, which tries again and tells of a
//! leak. So each way to stop something has the callers that are listed here, and no others.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};

use super::{Source, Violation};

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

pub(super) fn check(source: &Source) -> Vec<Violation> {
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
            if !callers.contains(&(path, function.as_str())) {
                violations.push(Violation {
                    file: source.file.clone(),
                    line,
                    what: format!("{function} calls {callee}; begin a try, which stops in its own task"),
                });
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

/// Every call with arguments, in macros as well, with its line.
fn collect(tokens: TokenStream, calls: &mut Vec<(usize, String)>) {
    let mut before: Option<(usize, String)> = None;
    for token in tokens {
        let mut name = None;
        match token {
            TokenTree::Ident(ident) => name = Some((ident.span().start().line, ident.to_string())),
            TokenTree::Group(group) => {
                if group.delimiter() == Delimiter::Parenthesis && !group.stream().is_empty() {
                    calls.extend(before.take());
                }
                collect(group.stream(), calls);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        before = name;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, text: &str) -> Vec<String> {
        check(&Source::parse(file, text).unwrap()).iter().map(ToString::to_string).collect()
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
