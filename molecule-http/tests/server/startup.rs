//! Whatever keeps a server from starting is said in one line, soon.

use std::{fs, net::TcpListener, time::Duration};

use tempfile::TempDir;

use crate::{
    process::{self, Outcome},
    server::Setup,
};

/// A person who starts a server waits no longer.
const SOON: Duration = Duration::from_secs(10);

/// A secret that must not be repeated.
const PASSWORD: &str = "hunter2";

fn serve(home: &TempDir, args: &[&str], env: &[(&str, &str)]) -> Outcome {
    let mut command = process::molecule(home.path());
    // Without what it says on its way there.
    command.env("MOLECULE_LOG", "error").arg("serve").args(args).envs(env.iter().copied());
    process::run(command)
}

/// The exit code and the one line.
fn refusal(outcome: &Outcome) -> (i32, String) {
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{outcome:?}");
    assert!(lines[0].starts_with("error: ") && !lines[0].contains(PASSWORD), "{outcome:?}");
    assert!(outcome.stdout.is_empty() && outcome.took < SOON, "{outcome:?}");
    (outcome.code.expect("it was not killed"), lines[0].to_owned())
}

fn assert_refuses(args: &[&str], env: &[(&str, &str)], code: i32, says: &[&str]) {
    let home = tempfile::tempdir().unwrap();
    let outcome = serve(&home, args, env);
    let (found, line) = refusal(&outcome);
    assert_eq!(found, code, "{line}");
    for part in says {
        assert!(line.contains(part), "{line:?} does not say {part:?}");
    }
}

/// Flags, variables, and what the refusal says.
type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn flags_and_variables_that_cannot_be_understood() {
    const LOCAL: [&str; 4] = ["--listen", "127.0.0.1:0", "--provisioner", "none"];
    let rows: [Row; 19] = [
        (&["--bogus"], &[], &["--bogus"]),
        (&["--listen", "nonsense"], &[], &["nonsense", "--listen"]),
        (&["--listen", "127.0.0.1:99999"], &[], &["99999", "--listen"]),
        (&["--listen"], &[], &["--listen"]),
        (&["--provisioner", "podman"], &[], &["podman", "docker", "process"]),
        (&[], &[("MOLECULE_PROVISIONER", "podman")], &["podman", "docker", "process"]),
        (&[], &[("PORT", "abc")], &["abc", "--port"]),
        (&LOCAL, &[("PROVISION_TIMEOUT_SECONDS", "0")], &["0", "--provision-timeout-seconds"]),
        (&LOCAL, &[("REMOTE_LIVENESS_STALE_AFTER", "0")], &["0", "--remote-liveness-stale-after"]),
        (&LOCAL, &[("REMOTE_LIVENESS_STALE_AFTER", "soon")], &["soon", "--remote-liveness-stale-after"]),
        (&LOCAL, &[("REMOTE_LIVENESS_STALE_AFTER", "-5")], &["-5", "--remote-liveness-stale-after"]),
        (&LOCAL, &[("RATE_LIMIT", "0")], &["0", "--rate-limit"]),
        (&LOCAL, &[("RATE_LIMIT", "many")], &["many", "--rate-limit"]),
        (&LOCAL, &[("MOLECULE_MAX_TIER", "9")], &["9", "--max-tier"]),
        (&LOCAL, &[("MOLECULE_DEPLOY_MODE", "weird")], &["weird", "MOLECULE_DEPLOY_MODE", "saas"]),
        (&LOCAL, &[("MOLECULE_LOG", "molecule=banana")], &["molecule=banana", "filter"]),
        (&LOCAL, &[("MOLECULE_LOG_FORMAT", "xml")], &["xml", "json", "pretty"]),
        (&LOCAL, &[("DATABASE_URL", "mysql://u:hunter2@db/x")], &["sqlite:", "postgres://"]),
        (&LOCAL, &[("DATABASE_URL", "postgres://u:hunter2@:x:y/z")], &["Postgres URL"]),
    ];
    for (args, env, says) in rows {
        assert_refuses(args, env, 2, says);
    }
}

#[test]
fn settings_files_that_cannot_be_used() {
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let missing = home.path().join("missing.toml").display().to_string();
    let rows = [
        (missing, "cannot be read"),
        (home.path().display().to_string(), "cannot be read"),
        (file("syntax.toml", "listen = \n"), "is not valid"),
        (file("unknown.toml", "lissten = \"127.0.0.1:0\"\n"), "lissten"),
        (file("type.toml", "listen = 5\n"), "is not valid"),
        (file("value.toml", "provisioner = \"podman\"\n"), "podman"),
        (file("secret.toml", "admin-token = \"hunter2\"\nmax-tier = \"x\"\n"), "is not valid"),
    ];
    for (path, says) in &rows {
        assert_refuses(&["--config", path], &[], 2, &[path, says]);
    }
}

#[test]
fn addresses_that_cannot_be_used() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_refuses(&["--listen", &address, "--provisioner", "none"], &[], 1, &[&address, "is in use"]);
    // An address for documentation, which no host has.
    assert_refuses(&["--listen", "192.0.2.1:0"], &[("ADMIN_TOKEN", PASSWORD)], 1, &["192.0.2.1", "--listen"]);
    assert_refuses(&["--listen", "0.0.0.0:0"], &[], 2, &["ADMIN_TOKEN", "127.0.0.1"]);
    assert_refuses(&["--listen", "[::]:0"], &[("ADMIN_TOKEN", " ")], 2, &["ADMIN_TOKEN"]);
}

#[test]
fn databases_that_do_not_answer() {
    let args = ["--listen", "127.0.0.1:0", "--provisioner", "none"];
    let unreachable = "postgres://u:hunter2@127.0.0.1:1/x";
    assert_refuses(
        &args,
        &[("DATABASE_URL", unreachable)],
        1,
        &["Postgres database at 127.0.0.1:1", "connection refused"],
    );
    assert_refuses(&args, &[("DATABASE_URL", "sqlite:/nonexistent/folder/x.db")], 1, &["SQLite file"]);
    let home = tempfile::tempdir().unwrap();
    let garbage = home.path().join("garbage.db");
    fs::write(&garbage, "this is no database".repeat(100)).unwrap();
    assert_refuses(&args, &[("DATABASE_URL", &format!("sqlite:{}", garbage.display()))], 1, &["SQLite"]);
}

#[test]
fn data_folders_that_cannot_be_used() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let args = ["--listen", "127.0.0.1:0", "--provisioner", "none", "--data-dir"];
    for path in [file.clone(), file.join("below")] {
        let path = path.display().to_string();
        assert_refuses(&[&args[..], &[&path]].concat(), &[], 1, &[&path, "data folder"]);
    }
    // A folder with a token file that holds none.
    let data = home.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("operator-token"), "").unwrap();
    assert_refuses(
        &[&args[..], &[&data.display().to_string()]].concat(),
        &[],
        1,
        &["operator-token", "holds no token"],
    );
}

#[test]
fn backends_that_are_not_there() {
    let gone = ("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let open = [gone, ("ADMIN_TOKEN", PASSWORD)];
    assert_refuses(&["--listen", "127.0.0.1:0", "--provisioner", "docker"], &[gone], 1, &["docker", gone.1]);
    assert_refuses(&["--listen", "0.0.0.0:0"], &open, 1, &["Docker", "--provisioner process"]);
    let control_plane = ["--listen", "127.0.0.1:0", "--provisioner", "control-plane"];
    assert_refuses(&control_plane, &[], 2, &["control-plane", "MOLECULE_ORG_ID"]);
    let organisation = ("MOLECULE_ORG_ID", "org-1");
    assert_refuses(&control_plane, &[organisation, ("CP_PROVISION_URL", "api.example")], 2, &["api.example", "http"]);
}

#[tokio::test]
async fn a_folder_is_one_servers_at_a_time() {
    let mut server = Setup::none().start().await;
    let data = server.data().display().to_string();
    let second = server.run(&["serve", "--listen", "127.0.0.1:0", "--provisioner", "none"]).await;
    let (code, line) = refusal(&second);
    assert!(code == 1 && line.contains("another server") && line.contains(&data), "{line}");
    assert_eq!(server.get("/health").await.status, 200);
    // However it ended, the next one may have the folder.
    server.kill9();
    server.start_again().await;
}

#[tokio::test]
async fn a_variable_that_is_set_and_empty_says_nothing() {
    let server = ["RATE_LIMIT", "PROVISION_TIMEOUT_SECONDS", "REMOTE_LIVENESS_STALE_AFTER", "DATABASE_URL", "PORT"]
        .into_iter()
        .fold(Setup::none(), |setup, name| setup.env(name, ""))
        .start()
        .await;
    let reply = server.ask(reqwest::Method::GET, "/nowhere", &[], "").await;
    assert_eq!(reply.headers["x-ratelimit-limit"], "600", "as without it");
}
