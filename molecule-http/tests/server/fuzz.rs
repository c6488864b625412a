//! Every documented operation under requests that nobody thought of: no defect, no status and no body that the document
//! does not know. Schemathesis makes the requests; `make fuzz` lets it go on for longer, from another seed.

use std::{env, process::Command};

use serde_json::json;

use crate::{
    server::{Server, Setup},
    support::{self, skip::skip},
};

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

#[tokio::test]
async fn the_api_keeps_its_document_on_sqlite() {
    keeps_its_document(None).await;
}

#[tokio::test]
async fn the_api_keeps_its_document_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        keeps_its_document(Some(database.url())).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the Makefile says where the fuzzer is, and how long it runs")]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

async fn keeps_its_document(database: Option<&str>) {
    let Some(program) = variable("MOLECULE_TEST_SCHEMATHESIS") else {
        return skip("MOLECULE_TEST_SCHEMATHESIS names no fuzzer; run `make test`");
    };
    let seconds = variable("MOLECULE_FUZZ_SECONDS").unwrap_or_else(|| "30".to_owned());
    let seed = variable("MOLECULE_FUZZ_SEED").unwrap_or_else(|| "7".to_owned());
    let server = Setup::none().database(database).start().await;
    furnish(&server).await;
    // Each operation a few times, however long that takes; and then as often as there is time for.
    let few = ["--phases", "fuzzing", "--max-examples", "3"];
    let said = run(&program, &server, &seed, &few).await;
    let reached = said.lines().find_map(|line| line.trim_start().strip_prefix("Tested: "));
    assert_eq!(reached.and_then(|count| count.trim().parse().ok()), Some(operations()), "{said}");
    run(&program, &server, &seed, &["--max-time", &seconds]).await;
    assert!(!server.log().contains("panicked"), "a handler panicked");
}

/// How many operations the document has that end by themselves.
fn operations() -> usize {
    let document: serde_json::Value =
        serde_json::from_str(include_str!("../../openapi.json")).expect("the document is JSON");
    let paths = document["paths"].as_object().expect("it has paths");
    let ends = paths.iter().filter(|(path, _)| *path != "/ws" && !path.ends_with("/stream"));
    ends.map(|(_, methods)| methods.as_object().map_or(0, |methods| methods.len())).sum()
}

/// Runs the fuzzer to success, and gives what it said.
async fn run(program: &str, server: &Server, seed: &str, how: &[&str]) -> String {
    let mut command = Command::new(program);
    command
        .args(["--config-file", concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/schemathesis/schemathesis.toml")])
        .args(["run", concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json")])
        .args(["--url", &server.url(), "--header", &format!("Authorization: Bearer {}", server.token())])
        .args(["--checks", CHECKS, "--seed", seed])
        .args(how)
        // These answer for as long as somebody listens.
        .args(["--exclude-path-regex", "(^/ws|/stream)$"])
        .args(["--suppress-health-check", "all", "--generation-database", "none", "--no-color"])
        .current_dir(server.data())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    // It goes over its time by the request under way, and by what it then makes smaller.
    let outcome = tokio::task::spawn_blocking(move || command.output()).await.expect("it runs").expect("it starts");
    let said = String::from_utf8_lossy(&outcome.stdout).into_owned();
    let tested = said.lines().any(|line| line.trim_start().starts_with("Tested: "));
    assert!(outcome.status.success() && tested, "{said}\n{}", String::from_utf8_lossy(&outcome.stderr));
    said
}

/// A few workspaces for the requests to be about.
async fn furnish(server: &Server) {
    let (parent, token) = server.create_external("parent", None).await;
    server.create_external("child", Some(&parent)).await;
    let card =
        json!({"id": parent, "url": "", "delivery_mode": "poll", "agent_card": {"name": "parent", "skills": []}});
    let registered = server.send(reqwest::Method::POST, "/registry/register", Some(&token), card.to_string()).await;
    assert_eq!(registered.status, 200, "{registered:?}");
}
