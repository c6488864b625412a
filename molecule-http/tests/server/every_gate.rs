//! Every operation of the document, called with every kind of credential: what it answers is in `docs/access.md`.

use std::{collections::BTreeMap, fs, path::Path};

use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::{Value, json};

use crate::{
    openapi,
    server::{Server, Setup},
};

/// Whom a request is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Nobody,
    /// With a token that nobody issued.
    Stranger,
    /// The agent of a workspace that may not talk with the one concerned.
    Foreign,
    Own,
    Operator,
    Organisation,
}

const ALL: [From; 6] = [From::Nobody, From::Stranger, From::Foreign, From::Own, From::Operator, From::Organisation];

/// What it is told: nothing about its credential, or a status with its text, where that is always the same.
type Told = Option<(u16, Option<&'static str>)>;

const LET_IN: Told = None;

const fn refused(text: &'static str) -> Told {
    Some((401, Some(text)))
}

/// What `from` is told at a gate of `docs/access.md`.
fn told(gate: &str, from: From) -> Told {
    let ordinary = |missing, invalid, own: Told, others: Told| match from {
        From::Nobody => refused(missing),
        From::Stranger => refused(invalid),
        From::Foreign => match gate {
            "caller" => Some((403, None)),
            _ => refused(invalid),
        },
        From::Own => own,
        From::Operator | From::Organisation => others,
    };
    match gate {
        "open" => LET_IN,
        "operator" => {
            let invalid = "invalid admin auth token";
            ordinary("admin auth required", invalid, refused(invalid), LET_IN)
        }
        "workspace" => ordinary("missing workspace auth token", "invalid workspace auth token", LET_IN, LET_IN),
        "deciding" => {
            ordinary("missing workspace auth token", "invalid workspace auth token", Some((403, None)), LET_IN)
        }
        "registry" => {
            let invalid = "invalid workspace auth token";
            ordinary("missing workspace auth token", invalid, LET_IN, refused(invalid))
        }
        "caller" => ordinary("missing caller auth token", "invalid caller auth token", LET_IN, LET_IN),
        "hidden" => Some((404, None)),
        "tests" => match from {
            From::Operator => LET_IN,
            _ => refused("admin auth required"),
        },
        other => panic!("docs/access.md names the gate {other}, which nobody knows"),
    }
}

/// The gate of each operation, such as `GET /health`, by the last table of its section in `docs/access.md`.
fn gates() -> BTreeMap<String, String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/access.md");
    let text = fs::read_to_string(page).expect("docs/access.md can be read");
    let (_, section) = text.split_once("| gate | operations |").expect("docs/access.md tells of every operation");
    let rows = section.lines().skip(2).take_while(|line| line.starts_with('|'));
    let operations = rows.flat_map(|row| {
        let gate = row.split('|').nth(1).expect("a row has cells").trim().to_owned();
        row.split('`').skip(1).step_by(2).map(move |operation| (operation.to_owned(), gate.clone()))
    });
    operations.collect()
}

/// Every operation of the document.
fn operations() -> Vec<String> {
    let document: Value = serde_json::from_str(&openapi::printed()).expect("the document is JSON");
    let paths = document["paths"].as_object().expect("the document has paths");
    let of_path = |(path, methods): (&String, &Value)| {
        let methods: Vec<String> = methods.as_object().expect("a path has methods").keys().cloned().collect();
        let path = path.clone();
        methods.into_iter().map(move |method| format!("{} {path}", method.to_uppercase()))
    };
    paths.iter().flat_map(of_path).collect()
}

/// What is asked of, and by whom.
struct Bench {
    server: Server,
    foreign: String,
    organisation: String,
}

impl Bench {
    async fn new() -> Self {
        // Nothing is open to whoever comes from this host.
        let setup = Setup::none().env("MOLECULE_ENABLE_TEST_TOKENS", "1").env("ADMIN_TOKEN", "break-glass");
        let server = setup.start().await;
        let (elsewhere, _) = server.create_external("elsewhere", None).await;
        let (_, foreign) = server.create_external("foreign", Some(&elsewhere)).await;
        let minted = server.post("/org/tokens", &json!({})).await;
        let organisation = minted.json()["auth_token"].as_str().expect("a token").to_owned();
        Self { server, foreign, organisation }
    }

    /// The status and the error of one request about a workspace that was just made.
    async fn ask(&self, operation: &str, from: From) -> (u16, Value) {
        let server = &self.server;
        let (id, own) = server.create_external("own", None).await;
        let (method, path) = operation.split_once(' ').expect("a method and a path");
        let path: Vec<&str> = path.split('/').map(|part| filled(part, &id)).collect();
        let path = path.join("/");
        let method: Method = method.parse().expect("a method");
        let mut request = server.client().request(method, format!("{}{path}", server.url()));
        if ["/discover/", "/schedules/health"].iter().any(|part| path.contains(part)) {
            request = request.header("x-workspace-id", &id);
        }
        let operator = server.token();
        let bearer = match from {
            From::Nobody => None,
            From::Stranger => Some("nobody-issued-this"),
            From::Foreign => Some(self.foreign.as_str()),
            From::Own => Some(own.as_str()),
            From::Operator => Some(operator.as_str()),
            From::Organisation => Some(self.organisation.as_str()),
        };
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        let body = if path.starts_with("/registry/") {
            let names = json!({"workspace_id": id, "caller_id": id, "target_id": id, "id": id});
            let says = json!({"agent_card": {}, "url": "", "delivery_mode": "poll"});
            merged(names, says).to_string()
        } else {
            String::new()
        };
        let answer = request.header(CONTENT_TYPE, "application/json").body(body).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{operation}: {error:?}"));
        let status = answer.status().as_u16();
        // A stream that was opened has no end.
        let body = if status < 400 { Value::Null } else { answer.json().await.unwrap_or_default() };
        (status, body["error"].clone())
    }
}

fn merged(mut one: Value, other: Value) -> Value {
    if let (Some(one), Value::Object(other)) = (one.as_object_mut(), other) {
        one.extend(other);
    }
    one
}

/// A part of a path: where it names something, the workspace, or what is not there.
fn filled<'a>(part: &'a str, id: &'a str) -> &'a str {
    match part {
        "{id}" => id,
        "{key}" => "KEY",
        "{*path}" => "notes.txt",
        _ if part.starts_with('{') => "00000000-0000-4000-8000-000000000000",
        _ => part,
    }
}

#[tokio::test]
async fn every_operation_lets_in_whom_it_is_for_and_no_others() {
    let gates = gates();
    let operations = operations();
    let bench = Bench::new().await;
    let mut wrong = Vec::new();
    for operation in &operations {
        let Some(gate) = gates.get(operation) else {
            wrong.push(format!("docs/access.md names no gate of {operation}"));
            continue;
        };
        for from in ALL {
            let (status, error) = bench.ask(operation, from).await;
            let as_told = match told(gate, from) {
                LET_IN => status < 500 && ![401, 403].contains(&status) || status == 501 || status == 503,
                Some((expected, text)) => status == expected && text.is_none_or(|text| error == text),
            };
            if !as_told {
                wrong.push(format!("{operation} ({gate}) answers {from:?} with {status} {error}"));
            }
        }
    }
    wrong.extend(gates.keys().filter(|gate| !operations.contains(gate)).map(|gone| format!("{gone} is not there")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
