//! `molecule-conformance` where it needs no server: what it prints, where it writes, and how it ends.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(args: &[&str]) -> Outcome {
    let outcome = Command::new(env!("CARGO_BIN_EXE_molecule-conformance")).args(args).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("it says text");
    Outcome { code: outcome.status.code(), stdout: text(outcome.stdout), stderr: text(outcome.stderr) }
}

#[test]
fn gates_report_like_everything_else() {
    let folder = tempfile::tempdir().unwrap();
    let junit = folder.path().join("gates.xml");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository");
    let passes = run(&["gates", &root.display().to_string(), "--json", "--junit", &junit.display().to_string()]);
    let report: Value = serde_json::from_str(&passes.stdout).expect("it is JSON");
    assert!(passes.code == Some(0) && report["failed"] == 0, "{}", passes.stdout);
    assert!(fs::read_to_string(&junit).unwrap().contains("no_status_literal"));

    let sources = folder.path().join("molecule-core/src");
    fs::create_dir_all(&sources).unwrap();
    fs::write(sources.join("planted.rs"), "\nconst A: &str = \"UPDATE workspaces SET status = 'online'\";\n").unwrap();
    let fails = run(&["gates", &folder.path().display().to_string()]);
    assert_eq!(fails.code, Some(1), "{}", fails.stdout);
    assert!(
        fails.stdout.contains("molecule-core/src/planted.rs:2: this statement sets a status by a literal; bind a"),
        "{}",
        fails.stdout
    );
    let nowhere = run(&["gates", &folder.path().join("none").display().to_string()]);
    assert!(nowhere.code == Some(2) && nowhere.stderr.contains("no source lies there"), "{}", nowhere.stderr);
}

#[test]
fn a_store_and_a_backend_are_tried_by_name_and_watched() {
    let store = run(&["store", "--database-url", "sqlite:", "--json"]);
    let report: Value = serde_json::from_str(&store.stdout).expect("it is JSON");
    assert!(store.code == Some(0) && report["passed"].as_u64().is_some_and(|passed| passed > 30), "{}", store.stdout);
    let watched = |outcome: &Outcome| outcome.stderr.lines().filter(|line| line.starts_with("passed ")).count();
    assert_eq!(report["passed"], watched(&store));

    let backend = run(&["provisioner", "scripted"]);
    assert!(backend.code == Some(0) && watched(&backend) > 20, "{}", backend.stdout);
    assert_eq!(run(&["store", "--database-url", "mysql://x"]).code, Some(2));
    assert_eq!(run(&["provisioner", "docker"]).code, Some(2));
}
