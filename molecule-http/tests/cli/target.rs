//! Which server is asked, with which token.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::{binary::Binary, stub::Stub};

fn bearer(stub: &Stub) -> Option<String> {
    stub.last().bearer
}

#[test]
fn flag_then_environment_then_profile() {
    let (flagged, named, saved) = (Stub::start(), Stub::start(), Stub::start());
    let binary = Binary::new();
    binary.ok(&["login", &saved.url, "--token", "saved"]);
    binary.ok(&["list"]);
    assert_eq!(bearer(&saved).as_deref(), Some("saved"));

    let binary = binary.env("MOLECULE_SERVER", &named.url).env("MOLECULE_TOKEN", "named");
    binary.ok(&["list"]);
    assert_eq!(bearer(&named).as_deref(), Some("named"));

    binary.ok(&["list", "--server", &flagged.url, "--token", "flagged"]);
    assert_eq!(bearer(&flagged).as_deref(), Some("flagged"));
    assert_eq!((saved.seen().len(), named.seen().len()), (2, 1));

    binary.ok(&["list", "--profile", "default"]);
    assert_eq!(saved.seen().len(), 3, "a profile named by a flag beats the environment");
}

#[test]
fn admin_token_is_the_last_variable_asked() {
    let stub = Stub::start();
    let binary = Binary::talking_to(&stub.url).env("ADMIN_TOKEN", "admin");
    binary.ok(&["list"]);
    assert_eq!(bearer(&stub).as_deref(), Some("admin"));
    binary.env("MOLECULE_TOKEN", "mine").ok(&["list"]);
    assert_eq!(bearer(&stub).as_deref(), Some("mine"));
}

#[test]
fn login_saves_a_profile_for_its_owner_only() {
    let stub = Stub::start();
    stub.world().token = Some("good".to_owned());
    let binary = Binary::new().stdin("good\n");
    let printed = binary.ok(&["login", &stub.url, "--token-stdin", "--profile", "lab"]);
    let file = binary.profiles_file();
    assert_eq!(printed, format!("saved {} as profile \"lab\" in {}\n", stub.url, file.display()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!printed.contains("good"), "the token is not shown");
    binary.ok(&["--profile", "lab", "list"]);
    assert_eq!(bearer(&stub).as_deref(), Some("good"));

    let before = fs::read_to_string(&file).unwrap();
    let (code, error) = binary.fails(&["login", &stub.url, "--token", "bad", "--profile", "lab"]);
    assert!(code == 1 && error.contains("refused the token from --token"), "{error}");
    assert!(!error.contains("bad"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), before, "what does not work is not saved");
    assert_eq!(binary.fails(&["--profile", "nix", "list"]).0, 2);
}

#[test]
fn a_server_on_this_host_leaves_its_token_for_its_user() {
    let stub = Stub::start();
    stub.world().token = Some("left".to_owned());
    let binary = Binary::talking_to(&stub.url);
    assert_eq!(binary.run(&["list"]).code, Some(1));
    binary.write(".local/share/molecule/operator-token", "left\n");
    binary.ok(&["list"]);

    binary.write("elsewhere/operator-token", "stale");
    let elsewhere = binary.home().join("elsewhere").display().to_string();
    let (_, error) = binary.fails(&["list", "--data-dir", &elsewhere]);
    assert!(error.contains(&format!("refused the token from {elsewhere}/operator-token")), "{error}");
    let binary = binary.env("MOLECULE_DATA_DIR", &elsewhere);
    assert_eq!(binary.run(&["list"]).code, Some(1));
    assert_eq!(binary.ok(&["list", "--token", "left", "--json"]), "[]\n");
}
