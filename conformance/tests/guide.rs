//! The page for integrators: its program is the example, word for word, and does what the page says.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

const PAGE: &str = include_str!("../../docs/integrators.md");
const EXAMPLE: &str = include_str!("../examples/toy_provisioner.rs");

fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let program = test.ancestors().nth(2).expect("it lies in deps").join("examples").join(name);
    assert!(program.is_file(), "build the examples of the workspace first: `cargo build --workspace --examples`");
    program
}

fn run(mistakes: &[&str]) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(example("toy_provisioner"));
    let outcome = command.arg(folder.path()).arg(example("workload")).args(mistakes).output().unwrap();
    let said = String::from_utf8(outcome.stdout.clone()).unwrap();
    (outcome, said)
}

#[test]
fn the_page_holds_the_example_as_it_is() {
    let (_, rest) = PAGE.split_once("```rust\n").expect("the page has a program");
    let (program, _) = rest.split_once("```\n").expect("the program ends");
    assert!(program == EXAMPLE, "docs/integrators.md and conformance/examples/toy_provisioner.rs differ");
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/toy_provisioner.rs").is_file());
}

#[test]
fn the_example_passes_what_it_claims() {
    let (outcome, said) = run(&[]);
    assert!(outcome.status.success() && said.contains(" 0 failed, "), "{said}");
    assert!(said.contains("passed      What is not declared is refused as unsupported."), "{said}");
}

#[test]
fn a_mistake_is_refused_by_name_as_the_page_says() {
    let (outcome, said) = run(&["--forgets-to-stop"]);
    let (_, shown) = PAGE.split_once("```text\n  FAILED").expect("the page shows a failure");
    let (shown, _) = shown.split_once("```").expect("which ends");
    assert_eq!(outcome.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("  FAILED{shown}")), "{said}");
}

#[test]
fn a_control_plane_of_machines_is_tried_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut owner = Command::new(example("control_plane"));
    owner.arg("--process").arg(folder.path()).arg(example("workload")).env("CP_SECRET", "shared");
    let mut owner = owner.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").expect("it says where it is");
    let tried = |secret: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_molecule-conformance"));
        command.args(["machines", "--base-url", url]).env("MOLECULE_CP_SHARED_SECRET", secret).output().unwrap()
    };
    let (passes, is_refused) = (tried("shared"), tried("another"));
    owner.kill().unwrap();
    owner.wait().unwrap();

    let said = String::from_utf8(passes.stdout).unwrap();
    assert!(passes.status.success() && said.ends_with(" passed, 0 failed, 0 unsupported, 0 skipped\n"), "{said}");
    let said = String::from_utf8(is_refused.stdout).unwrap();
    assert_eq!(is_refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("FAILED      A machine that is given back comes to its end.") && said.contains("401"),
        "{said}"
    );
}
