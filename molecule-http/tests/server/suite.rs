//! `molecule-conformance http`, as people and CI servers run it: flags, exit codes, progress and reports.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use molecule_conformance::{Feature, Profile, cases, http};
use serde_json::Value;

use crate::{
    process::{self, Outcome},
    server::Setup,
    without::Without,
};

/// What stands in the paths of the routes of a feature, and of no others.
fn words(feature: Feature) -> &'static [&'static str] {
    match feature {
        Feature::OrgTokens => &["org"],
        Feature::Secrets => &["secrets", "model", "provider"],
        Feature::Templates => &["templates"],
        Feature::Lifecycle => &["pause", "resume", "hibernate", "collapse", "expand"],
        Feature::Activity => &["activity", "notify", "session-search", "queue", "a2a-queue"],
        Feature::Delegation => &["delegate", "delegations"],
        Feature::Memory => &["memory", "memories"],
        Feature::Records => &["approvals", "config", "checkpoints", "audit", "instructions"],
        Feature::Schedules => &["schedules"],
        Feature::Files => &["files", "chat"],
        Feature::Streams => &["stream"],
        Feature::Mcp => &["mcp"],
        // Those are no routes of their own.
        Feature::Backend | Feature::Organisation => &[],
        _ => panic!("{feature} is not known here: name what stands in the paths of its routes"),
    }
}

/// Runs the program, with the operator's token where there is one.
async fn run(token: Option<&str>, args: &[&str]) -> Outcome {
    let mut command = Command::new(program());
    command.args(args).env_remove("MOLECULE_CONFORMANCE_TOKEN");
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    if let Some(token) = token {
        command.env("MOLECULE_CONFORMANCE_TOKEN", token);
    }
    tokio::task::spawn_blocking(move || process::run(command)).await.expect("it runs")
}

fn program() -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let program = test.ancestors().nth(2).expect("it lies in deps").join("molecule-conformance");
    assert!(program.is_file(), "build it with `cargo build -p molecule-conformance`");
    program
}

fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

fn names(features: impl IntoIterator<Item = Feature>) -> BTreeSet<&'static str> {
    features.into_iter().map(Feature::as_str).collect()
}

#[tokio::test]
async fn a_server_of_the_core_alone_passes_what_is_demanded_of_it() {
    let server = Setup::none().start().await;
    let core = Without::of(&server, Feature::ALL.iter().flat_map(|feature| words(*feature)).copied().collect()).await;
    let token = server.token();
    // It is seen to have nothing else; whether it runs workspaces a case finds out.
    let seen = run(Some(&token), &["http", "--base-url", core.url(), "--json"]).await;
    let report = json(&seen);
    let failed: Vec<&Value> =
        report["cases"].as_array().into_iter().flatten().filter(|case| case["outcome"] == "failed").collect();
    assert!(seen.code == Some(0) && failed.is_empty(), "{:?}: {failed:#?}", seen.code);
    assert_eq!(report["features"], serde_json::json!(["backend"]));
    let count = |is: fn(&str) -> bool| {
        let cases = cases::http::all();
        cases.iter().filter(|case| is(&case.level.to_string())).count()
    };
    assert_eq!(report["passed"], count(|level| level == "core"));
    assert_eq!(report["unsupported"], count(|level| level != "core"));
    assert_eq!(report["skipped"], 0);

    let claimed =
        ["http", "--base-url", core.url(), "--profile", "core", "--features", "memory", "--filter", "R-VALUE-2"];
    let refused = run(Some(&token), &claimed).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stdout.contains("FAILED      a_value_is_read_back"), "{refused:?}");
}

#[tokio::test]
async fn what_a_server_has_is_seen() {
    let server = Setup::none().start().await;
    // Nobody named an organisation.
    let all: BTreeSet<Feature> = Feature::ALL.iter().copied().filter(|it| *it != Feature::Organisation).collect();
    for lacking in Feature::ALL.iter().filter(|feature| !words(**feature).is_empty()) {
        let without = Without::of(&server, words(*lacking).to_vec()).await;
        let target = http::Server::new(without.url(), None).expect("a client can be made");
        let seen = Profile::Offered.features(&target).await.expect("it answers");
        let expected = all.iter().copied().filter(|feature| feature != lacking);
        assert_eq!(names(seen), names(expected), "without {lacking}");
    }
    let target = http::Server::new(&server.url(), None).expect("a client can be made");
    assert_eq!(names(Profile::Offered.features(&target).await.expect("it answers")), names(all.clone()));
    assert_eq!(names(Profile::Everything.features(&target).await.expect("it answers")), names(all));
    assert!(Profile::Core.features(&target).await.expect("nobody is asked").is_empty());
}

#[tokio::test]
async fn reports_and_exit_codes_tell_what_came_of_it() {
    let server = Setup::none().start().await;
    let (url, token) = (server.url(), server.token());
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (junit, root) = (folder.path().join("junit.xml"), concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let (openapi, contract) = (format!("{root}/molecule-http/openapi.json"), format!("{root}/docs/contract.md"));
    let written = junit.display().to_string();
    let args = ["http", "--base-url", &url, "--filter", "R-HEALTH", "--seed", "7", "--junit"];
    let args = [&args[..], &[&*written, "--openapi", &openapi, "--contract", &contract]].concat();

    let people = run(Some(&token), &args).await;
    assert_eq!(people.code, Some(0), "{people:?}");
    assert!(people.stderr.contains("passed      health_answers\n"), "{people:?}");
    assert!(people.stdout.starts_with(&format!("{url} (--seed 7)\n  passed      health_answers: ")), "{people:?}");
    assert!(people.stdout.ends_with("\n1 passed, 0 failed, 0 unsupported, 0 skipped\n"), "{people:?}");
    for gap in ["  no case tries R-METRICS-1\n", "  no case asks for GET /metrics\n"] {
        assert!(people.stdout.contains(gap), "{people:?}");
    }
    assert!(!people.stdout.contains("R-HEALTH-1\n") && !people.stdout.contains("GET /health\n"), "{people:?}");
    let written = fs::read_to_string(&junit).expect("it wrote the file");
    assert!(written.contains(r#"<testcase name="health_answers" classname="R-HEALTH-1" time="#), "{written}");

    let programs = json(&run(Some(&token), &[&args[..], &["--json"]].concat()).await);
    assert_eq!((&programs["succeeded"], &programs["seed"], &programs["passed"]), (&true.into(), &7.into(), &1.into()));
    assert_eq!(programs["cases"][0]["level"], "core");
    assert_eq!(programs["features"].as_array().map(Vec::len), Some(Feature::ALL.len() - 1));
    assert!(programs["gaps"].as_array().is_some_and(|gaps| gaps.contains(&"no case tries R-METRICS-1".into())));

    // Without a token little can be tried, which is no success.
    let untold = run(None, &["http", "--base-url", &url, "--filter", "R-WORKSPACE"]).await;
    assert_eq!(untold.code, Some(1), "{untold:?}");
    assert!(untold.stdout.contains("cases of what everyone must do were not tried, which is a failure"), "{untold:?}");
    let nothing = run(Some(&token), &["http", "--base-url", &url, "--filter", "no such case"]).await;
    assert_eq!(nothing.code, Some(1), "{nothing:?}");
    assert!(nothing.stdout.contains("nothing was run, which is a failure"), "{nothing:?}");
    for wrong in [&["http"][..], &["http", "--base-url", &url, "--features", "flying"]] {
        assert_eq!(run(Some(&token), wrong).await.code, Some(2), "{wrong:?}");
    }
    let nobody = run(Some(&token), &["http", "--base-url", "http://127.0.0.1:1"]).await;
    assert!(nobody.code == Some(2) && nobody.stderr.starts_with("error: "), "{nobody:?}");
}
