//! The document of the API: checked in, printed by the program, and true.

use std::{env, fs, path::Path};

use molecule_core::testing::drift::{Violation, demand_none};
use reqwest::Method;
use serde_json::Value;

use crate::{process, server::Setup};

pub(crate) fn printed() -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command = process::molecule(home.path());
    command.arg("openapi");
    let outcome = process::run(command);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.stdout
}

#[test]
#[expect(clippy::disallowed_methods, reason = "`make update` asks for it this way")]
fn generated_openapi_document_is_what_the_program_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    if env::var("UPDATE").is_ok() {
        fs::write(&path, printed()).expect("openapi.json can be written");
    } else {
        let found = fs::read_to_string(&path).expect("openapi.json can be read");
        demand_none(&stale(&found, &printed()));
    }
}

fn stale(found: &str, printed: &str) -> Vec<Violation> {
    let mend = "run `make update`, and commit what it changes";
    Violation::first_difference("molecule-http/openapi.json", found, printed, mend).into_iter().collect()
}

#[test]
fn a_document_that_says_something_else_is_found() {
    let printed = printed();
    let planted = stale(&printed.replacen("\"title\": \"Molecule\"", "\"title\": \"Other\"", 1), &printed);
    assert_eq!(planted.len(), 1, "{planted:?}");
    let told = planted[0].to_string();
    assert!(told.starts_with("molecule-http/openapi.json:4: ") && told.contains("run `make update`"), "{told}");
}

#[tokio::test]
async fn every_documented_route_is_there() {
    // Without the switch its route is not there, and says so.
    let server = Setup::none().env("MOLECULE_ENABLE_TEST_TOKENS", "1").start().await;
    let document: Value = serde_json::from_str(&printed()).unwrap();
    let mut routes = 0;
    for (path, methods) in document["paths"].as_object().expect("the document has paths") {
        for method in methods.as_object().expect("a path has methods").keys() {
            // A new one each time, since one of the methods removes it.
            let (id, _) = server.create_external("one", None).await;
            let path = path.replace("{id}", &id);
            let method: Method = method.to_uppercase().parse().unwrap();
            // It goes on for as long as somebody listens; `stream.rs` tries it.
            if path.ends_with("/stream") {
                continue;
            }
            let reply = server.send(method.clone(), &path, Some(&server.token()), "").await;
            // What a route cannot find it names.
            let no_route = reply.status == 404 && reply.error() == "not found";
            assert!(!no_route && ![405, 500].contains(&reply.status), "{method} {path}: {reply:?}");
            routes += 1;
        }
    }
    assert!(routes > 100, "only {routes} routes are documented");
}
