//! The cases, in the order of the promises.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use secrecy::SecretString;
use url::{Host, Url};

use super::bench::{Bench, Failure, Proof, clean_up, ensure, file, kind};
use crate::{
    error::ErrorKind,
    provisioner::{EXEC_READ_LIMIT, FilePath, FileRoot, Workload},
};

pub(super) async fn preparing_leaves_alone_what_runs(bench: Bench<'_>) -> Proof {
    let spec = bench.spec(&[]);
    bench.backend.prepare(&spec).await?;
    let found = bench.backend.observe(bench.id).await?;
    ensure!(found == Workload::Absent, "preparing a start made {found:?}");
    let url = bench.backend.start(&spec).await?;
    if let Some(url) = &url {
        bench.comes_to_answer(url).await?;
    }
    bench.backend.prepare(&spec).await?;
    ensure!(bench.backend.is_running(bench.id).await?, "preparing a start ended what ran");
    if let Some(url) = url {
        ensure!(bench.fixture.status(&url).await.is_ok(), "after preparing a start nobody answers at {url}");
    }
    Ok(())
}

pub(super) async fn what_is_halted_stays_so(bench: Bench<'_>) -> Proof {
    bench.backend.halt(bench.id).await?;
    for variables in [&[][..], &[("MOLECULE_TEST_EXIT", "3")][..]] {
        bench.backend.start(&bench.spec(variables)).await?;
        bench.log_with("workload starts", |line| line == "workload starts").await?;
        for _ in 0..2 {
            bench.backend.halt(bench.id).await?;
        }
        // Longer than any backend waits before it begins again what crashed at once.
        let settled = tokio::time::Instant::now() + std::time::Duration::from_millis(500);
        while tokio::time::Instant::now() < settled {
            let found = bench.backend.observe(bench.id).await?;
            ensure!(found != Workload::Running, "it runs after it was halted");
            tokio::time::sleep(super::bench::POLL).await;
        }
    }
    Ok(())
}

pub(super) async fn what_is_halted_keeps_its_log(bench: Bench<'_>) -> Proof {
    bench.backend.start(&bench.spec(&[])).await?;
    bench.log_with("workload starts", |line| line == "workload starts").await?;
    bench.backend.halt(bench.id).await?;
    let log = bench.log().await?;
    ensure!(log.contains("workload starts\n"), "of what it wrote there is {log:?}");
    Ok(())
}

pub(super) async fn tells_where_an_agent_is_called(bench: Bench<'_>) -> Proof {
    let told = bench.backend.start(&bench.spec(&[])).await?;
    let found = bench.backend.address(bench.id).await?;
    ensure!(found.is_none() || found == told, "it was started at {told:?}, and is called at {found:?}");
    bench.backend.stop(bench.id).await?;
    let found = bench.backend.address(bench.id).await?;
    ensure!(found.is_none(), "nothing runs, and is called at {found:?}");
    Ok(())
}

pub(super) async fn files_are_in_place(bench: Bench<'_>) -> Proof {
    for (private, mode) in [(true, "600"), (false, "644")] {
        let mut spec = bench.spec(&[("MOLECULE_TEST_SHOW", "skills/one.md")]);
        spec.files = vec![file("skills/one.md", format!("contents {mode}"), private)];
        bench.backend.start(&spec).await?;
        let wanted = format!("contents {mode}");
        let log = bench.log_with(&wanted, |line| line.ends_with(&wanted)).await?;
        let shown = format!("file skills/one.md {mode} contents {mode}");
        ensure!(log.contains(&shown), "the workload should see {shown:?}, its log is {log:?}");
    }
    Ok(())
}

pub(super) async fn an_earlier_workload_is_replaced(bench: Bench<'_>) -> Proof {
    let mut first = bench.spec(&[]);
    first.files = vec![file("first", "1", false)];
    let first_url = bench.backend.start(&first).await?;
    let mut second = bench.spec(&[("MOLECULE_TEST_SHOW", "first")]);
    second.files = vec![file("second", "2", false)];
    let second_url = bench.backend.start(&second).await?;
    let log = bench.log_with("file first", |line| line.starts_with("file first")).await?;
    ensure!(log.contains("file first 644 1\n"), "the file of the first start is not as it was: {log:?}");
    ensure!(bench.backend.volume_has_file(bench.id, "second").await?, "the files of the second start are missing");
    if let (Some(first_url), Some(second_url)) = (first_url, second_url) {
        bench.comes_to_answer(&second_url).await?;
        let old_answers = first_url != second_url && bench.fixture.status(&first_url).await.is_ok();
        ensure!(!old_answers, "the earlier workload still answers at {first_url}");
    }
    bench.backend.stop(bench.id).await?;
    ensure!(!bench.backend.is_running(bench.id).await?, "one stop did not end all there was");
    Ok(())
}

pub(super) async fn a_failed_start_leaves_nothing(bench: Bench<'_>) -> Proof {
    for path in ["../escape", "/escape", "a/../../escape"] {
        let mut spec = bench.spec(&[]);
        spec.files = vec![file("fine", "", false), file(path, "", false)];
        let failure = kind(bench.backend.start(&spec).await);
        ensure!(failure == Some(ErrorKind::InvalidInput), "a file at {path:?} gave {failure:?}");
        ensure!(!bench.backend.is_running(bench.id).await?, "it runs after a failed start");
        let found = bench.backend.observe(bench.id).await?;
        ensure!(found == Workload::Absent, "after a failed start there is {found:?}");
    }
    Ok(())
}

pub(super) async fn the_url_is_as_declared(bench: Bench<'_>) -> Proof {
    let declared = bench.backend.capability().assigns_url;
    let url = bench.backend.start(&bench.spec(&[])).await?;
    ensure!(url.is_some() == declared, "assigns_url is {declared}, the URL is {url:?}");
    let Some(url) = url else { return Ok(()) };
    let ip = match Url::parse(&url).ok().and_then(|url| url.host().map(|host| host.to_owned())) {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
        other => return Err(Failure(format!("{url} names {other:?}, which is no address"))),
    };
    // Only an address of this host can be listened on.
    let local = tokio::net::TcpListener::bind(SocketAddr::new(ip, 0)).await;
    ensure!(local.is_ok(), "{ip} is no address of this host");
    bench.comes_to_answer(&url).await
}

pub(super) async fn own_variables_win(bench: Bench<'_>) -> Proof {
    let forged = [("WORKSPACE_ID", "forged"), ("PLATFORM_URL", "forged"), ("OTHER", "kept")];
    let mut spec = bench.spec(&forged);
    spec.env.insert("MOLECULE_TEST_ENV".to_owned(), "1".to_owned());
    spec.env.insert("MOLECULE_TEST_LINES".to_owned(), "1".to_owned());
    bench.backend.start(&spec).await?;
    let log = bench.log_with("line 1", |line| line == "line 1").await?;
    let id = bench.id.to_string();
    for (name, value) in [("WORKSPACE_ID", id.as_str()), ("PLATFORM_URL", &spec.platform_url), ("OTHER", "kept")] {
        let prefix = format!("env {name}=");
        let found: Vec<_> = log.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
        ensure!(found == [value], "{name} should be {value:?} and is {found:?}");
    }
    Ok(())
}

pub(super) async fn stopping_repeats(bench: Bench<'_>) -> Proof {
    bench.backend.stop(bench.id).await?;
    bench.backend.start(&bench.spec(&[])).await?;
    bench.backend.stop(bench.id).await?;
    bench.backend.stop(bench.id).await?;
    Ok(())
}

pub(super) async fn stop_waits(bench: Bench<'_>) -> Proof {
    let url = bench.backend.start(&bench.spec(&[])).await?;
    if let Some(url) = &url {
        bench.comes_to_answer(url).await?;
    }
    ensure!(bench.backend.is_running(bench.id).await?, "it does not run after its start");
    bench.backend.stop(bench.id).await?;
    ensure!(!bench.backend.is_running(bench.id).await?, "it runs after its stop");
    if let Some(url) = &url {
        ensure!(bench.fixture.status(url).await.is_err(), "{url} answers after the stop");
    }
    Ok(())
}

pub(super) async fn an_unknown_workspace_does_not_run(bench: Bench<'_>) -> Proof {
    ensure!(!bench.backend.is_running(bench.id).await?, "it does");
    Ok(())
}

pub(super) async fn reads_up_to_the_limit(bench: Bench<'_>) -> Proof {
    let largest = vec![b'x'; EXEC_READ_LIMIT];
    let mut too_large = largest.clone();
    too_large.push(b'x');
    let mut spec = bench.spec(&[]);
    spec.files = vec![
        file("small", b"not \xff text".as_slice(), true),
        file("empty", "", true),
        file("largest", largest.clone(), false),
        file("too-large", too_large, false),
    ];
    bench.backend.start(&spec).await?;
    let read = |path| bench.backend.exec_read(bench.id, path);
    ensure!(read("/configs/small").await? == b"not \xff text", "the contents differ");
    ensure!(read("/configs/empty").await?.is_empty(), "an empty file is not empty");
    ensure!(read("/configs/largest").await? == largest, "the contents of a file of the largest size differ");
    let failure = kind(read("/configs/too-large").await);
    ensure!(failure == Some(ErrorKind::TooLarge), "one byte over the limit gave {failure:?}");
    Ok(())
}

pub(super) async fn reading_what_is_not_there(bench: Bench<'_>) -> Proof {
    let read = |path| async move { kind(bench.backend.exec_read(bench.id, path).await) };
    let mut spec = bench.spec(&[]);
    spec.files = vec![file("there", "", false)];
    ensure!(read("/configs/there").await == Some(ErrorKind::NotFound), "an unknown workspace has the file");
    bench.backend.start(&spec).await?;
    ensure!(read("/configs/there").await.is_none(), "the file can't be read");
    ensure!(read("/configs/none").await == Some(ErrorKind::NotFound), "a missing file is not reported");
    bench.backend.stop(bench.id).await?;
    ensure!(read("/configs/there").await == Some(ErrorKind::NotFound), "a stopped workspace has the file");
    Ok(())
}

pub(super) async fn removing_repeats(bench: Bench<'_>) -> Proof {
    bench.backend.remove_volume(bench.id).await?;
    bench.backend.start(&bench.spec(&[])).await?;
    bench.backend.stop(bench.id).await?;
    bench.backend.remove_volume(bench.id).await?;
    bench.backend.remove_volume(bench.id).await?;
    Ok(())
}

pub(super) async fn purging_repeats(bench: Bench<'_>) -> Proof {
    bench.backend.purge_volumes(bench.id).await?;
    bench.backend.start(&bench.spec(&[])).await?;
    bench.backend.stop(bench.id).await?;
    bench.backend.remove_volume(bench.id).await?;
    for _ in 0..2 {
        bench.backend.purge_volumes(bench.id).await?;
    }
    Ok(())
}

pub(super) async fn nothing_is_left(bench: Bench<'_>) -> Proof {
    left_after(bench, false).await?;
    bench.backend.purge_volumes(bench.id).await?;
    ensure!(!bench.backend.own_inventory().await?.contains(&bench.id), "it is still ours");
    left_after(bench, true).await?;
    ensure!(!bench.backend.own_inventory().await?.contains(&bench.id), "it is still ours");
    Ok(())
}

pub(super) async fn no_configuration_is_left(bench: Bench<'_>) -> Proof {
    left_after(bench, false).await
}

async fn left_after(bench: Bench<'_>, purged: bool) -> Proof {
    let mut spec = bench.spec(&[]);
    spec.files = vec![file("config.yaml", "name: x", false)];
    bench.backend.start(&spec).await?;
    bench.backend.stop(bench.id).await?;
    match purged {
        true => bench.backend.purge_volumes(bench.id).await?,
        false => bench.backend.remove_volume(bench.id).await?,
    }
    ensure!(!bench.backend.inventory().await?.contains(&bench.id), "it is still in the inventory");
    ensure!(!bench.backend.volume_has_file(bench.id, "config.yaml").await?, "its file is still there");
    let found = bench.backend.observe(bench.id).await?;
    ensure!(found == Workload::Absent, "there is still {found:?}");
    Ok(())
}

pub(super) async fn no_volume_has_no_file(bench: Bench<'_>) -> Proof {
    ensure!(!bench.backend.volume_has_file(bench.id, "config.yaml").await?, "the answer is yes");
    let listed = bench.backend.inventory().await?.contains(&bench.id);
    ensure!(!listed, "asking made a volume");
    Ok(())
}

pub(super) async fn a_volume_tells_its_files(bench: Bench<'_>) -> Proof {
    let mut spec = bench.spec(&[]);
    spec.files = vec![file("config.yaml", "name: x", false), file("skills/$(one) two.md", "", false)];
    bench.backend.start(&spec).await?;
    for running in [true, false] {
        for (path, there) in [("config.yaml", true), ("skills/$(one) two.md", true), ("none", false), ("skills", false)]
        {
            let found = bench.backend.volume_has_file(bench.id, path).await?;
            ensure!(found == there, "for {path:?} the answer is {found} (running: {running})");
        }
        bench.backend.stop(bench.id).await?;
    }
    Ok(())
}

pub(super) async fn a_token_is_replaced(bench: Bench<'_>) -> Proof {
    for token in ["earlier-and-longer-token", "later-token"] {
        bench.backend.write_auth_token(bench.id, &SecretString::from(token)).await?;
    }
    ensure!(bench.backend.volume_has_file(bench.id, ".auth_token").await?, "the token is not in the volume");
    bench.backend.start(&bench.spec(&[("MOLECULE_TEST_SHOW", ".auth_token")])).await?;
    let log = bench.log_with("file .auth_token", |line| line.starts_with("file .auth_token")).await?;
    let shown = "file .auth_token 600 later-token";
    ensure!(log.lines().any(|line| line == shown), "the workload should see {shown:?}, its log is {log:?}");
    Ok(())
}

pub(super) async fn a_token_stays_in_its_file(bench: Bench<'_>) -> Proof {
    let token = "token-that-must-stay-hidden";
    bench.backend.write_auth_token(bench.id, &SecretString::from(token)).await?;
    let mut spec = bench.spec(&[("MOLECULE_TEST_ENV", "1"), ("MOLECULE_TEST_LINES", "1")]);
    spec.files = vec![file(".auth_token", token, true)];
    bench.backend.start(&spec).await?;
    let log = bench.log_with("line 1", |line| line == "line 1").await?;
    ensure!(log.contains("env WORKSPACE_ID="), "the workload did not print its environment: {log:?}");
    ensure!(!log.contains(token), "the token is in an argument or the environment");
    Ok(())
}

pub(super) async fn observes_what_a_workload_does(bench: Bench<'_>) -> Proof {
    bench.comes_to(Workload::Absent).await?;
    bench.backend.start(&bench.spec(&[])).await?;
    bench.comes_to(Workload::Running).await?;
    bench.backend.start(&bench.spec(&[("MOLECULE_TEST_EXIT", "3")])).await?;
    bench.comes_to(Workload::Ended { exit_code: Some(3) }).await?;
    bench.backend.stop(bench.id).await?;
    let found = bench.backend.observe(bench.id).await?;
    ensure!(found == Workload::Absent, "after its stop there is {found:?}");
    Ok(())
}

pub(super) async fn logs_end_with_the_last_line(bench: Bench<'_>) -> Proof {
    bench.backend.start(&bench.spec(&[("MOLECULE_TEST_LINES", "50")])).await?;
    bench.log_with("line 50", |line| line == "line 50").await?;
    for (lines, expected) in [(0, ""), (1, "line 50\n"), (3, "line 48\nline 49\nline 50\n")] {
        let found = String::from_utf8_lossy(&bench.backend.logs(bench.id, lines).await?).into_owned();
        ensure!(found == expected, "the last {lines} lines should be {expected:?} and are {found:?}");
    }
    bench.backend.start(&bench.spec(&[("MOLECULE_TEST_LINES", "7"), ("MOLECULE_TEST_EXIT", "3")])).await?;
    bench.comes_to(Workload::Ended { exit_code: Some(3) }).await?;
    bench.log_with("line 7", |line| line == "line 7").await?;
    clean_up(bench.backend, bench.id).await?;
    if bench.backend.capability().volumes {
        let failure = kind(bench.backend.logs(bench.id, 1).await);
        ensure!(failure == Some(ErrorKind::NotFound), "once all is removed, the log gave {failure:?}");
    }
    Ok(())
}

pub(super) async fn no_workload_has_no_log(bench: Bench<'_>) -> Proof {
    let failure = kind(bench.backend.logs(bench.id, 10).await);
    ensure!(failure == Some(ErrorKind::NotFound), "it gave {failure:?}");
    Ok(())
}

pub(super) async fn the_inventory_lists_everything(bench: Bench<'_>) -> Proof {
    let listed = || async { Ok::<_, Failure>(bench.backend.inventory().await?.contains(&bench.id)) };
    ensure!(!listed().await?, "an unknown workspace is listed");
    bench.backend.start(&bench.spec(&[])).await?;
    ensure!(listed().await?, "a running workspace is not listed");
    bench.backend.start(&bench.spec(&[("MOLECULE_TEST_EXIT", "3")])).await?;
    bench.comes_to(Workload::Ended { exit_code: Some(3) }).await?;
    ensure!(listed().await?, "a workspace that ended is not listed");
    if bench.backend.capability().volumes {
        bench.backend.stop(bench.id).await?;
        ensure!(listed().await?, "a workspace that has only a volume is not listed");
        clean_up(bench.backend, bench.id).await?;
        ensure!(!listed().await?, "a removed workspace is listed");
    }
    Ok(())
}

pub(super) async fn what_is_our_own_is_listed_as_well(bench: Bench<'_>) -> Proof {
    bench.backend.start(&bench.spec(&[])).await?;
    let all = bench.backend.inventory().await?;
    let own = bench.backend.own_inventory().await?;
    // Other workspaces of the backend may come and go meanwhile.
    ensure!(!own.contains(&bench.id) || all.contains(&bench.id), "what is our own is not in the inventory");
    bench.backend.stop(bench.id).await?;
    if bench.backend.capability().volumes {
        bench.backend.purge_volumes(bench.id).await?;
        ensure!(!bench.backend.own_inventory().await?.contains(&bench.id), "a purged workspace is our own");
    }
    Ok(())
}

const STATES: [&str; 2] = ["running", "stopped"];

/// Brings a workload with these files to one of the [`STATES`].
async fn bring_to(bench: Bench<'_>, state: &str, files: &[(&str, &[u8])]) -> Proof {
    if state == "stopped" {
        return Ok(bench.backend.stop(bench.id).await?);
    }
    let mut spec = bench.spec(&[]);
    spec.files = files.iter().map(|(path, contents)| file(path, *contents, false)).collect();
    bench.backend.start(&spec).await?;
    Ok(())
}

pub(super) async fn files_are_listed(bench: Bench<'_>) -> Proof {
    let none = bench.backend.list_files(bench.id, FileRoot::Configs, None, 1).await?;
    ensure!(none.is_none(), "without a volume there is {none:?}");
    let files: [(&str, &[u8]); 5] =
        [("b", b"1234"), ("a/c", b""), ("a/d/e", b"x"), (".git/config", b"x"), ("a/node_modules/x", b"x")];
    for state in STATES {
        bring_to(bench, state, &files).await?;
        let list = async |folder: Option<&str>, depth| -> Result<Vec<String>, Failure> {
            let folder = folder.map(FilePath::parse).transpose()?;
            let found = bench.backend.list_files(bench.id, FileRoot::Configs, folder.as_ref(), depth).await?;
            let entries = found.unwrap_or_default().into_iter();
            Ok(entries.map(|entry| format!("{} {} {}", entry.path, entry.size, entry.dir)).collect())
        };
        let found = list(None, 1).await?;
        ensure!(found == ["a 0 true", "b 4 false"], "{state}: {found:?}");
        let found = list(Some("a"), 2).await?;
        ensure!(found == ["c 0 false", "d 0 true", "d/e 1 false"], "{state}: {found:?}");
        let none = FilePath::parse("none")?;
        let failure = kind(bench.backend.list_files(bench.id, FileRoot::Configs, Some(&none), 1).await);
        ensure!(failure == Some(ErrorKind::NotFound), "{state}: a folder that is not there gave {failure:?}");
    }
    Ok(())
}

pub(super) async fn files_are_read_as_they_are(bench: Bench<'_>) -> Proof {
    let path = FilePath::parse("a/b")?;
    let none = bench.backend.read_file(bench.id, FileRoot::Configs, &path).await?;
    ensure!(none.is_none(), "without a volume there is {none:?}");
    let contents: &[u8] = b" \xff text\r\n\n ";
    for state in STATES {
        bring_to(bench, state, &[("a/b", contents), ("empty", b"")]).await?;
        let read =
            async |path: &str| bench.backend.read_file(bench.id, FileRoot::Configs, &FilePath::parse(path)?).await;
        ensure!(read("a/b").await?.as_deref() == Some(contents), "{state}: the contents differ");
        ensure!(read("empty").await?.is_some_and(|read| read.is_empty()), "{state}: an empty file is not empty");
        for path in ["none", "none/x", "a"] {
            let failure = kind(read(path).await);
            ensure!(failure == Some(ErrorKind::NotFound), "{state}: {path:?} gave {failure:?}");
        }
    }
    Ok(())
}

pub(super) async fn files_are_written(bench: Bench<'_>) -> Proof {
    let contents: &[u8] = b"one\r\n\xff";
    // Before there is anything, too.
    bench.backend.write_files(bench.id, &[file("early.sh", contents, false)]).await?;
    for state in STATES {
        bring_to(bench, state, &[("a", b"before")]).await?;
        let files = [file("a", state, false), file("new/folder/b.md", contents, false)];
        bench.backend.write_files(bench.id, &files).await?;
        for (path, expected) in [("a", state.as_bytes()), ("new/folder/b.md", contents), ("early.sh", contents)] {
            let read = bench.backend.read_file(bench.id, FileRoot::Configs, &FilePath::parse(path)?).await?;
            ensure!(read.as_deref() == Some(expected), "{state}: {path} is {read:?}");
        }
        for path in ["../x", "/x", "a/../../x"] {
            let failure = kind(bench.backend.write_files(bench.id, &[file(path, "x", false)]).await);
            ensure!(failure == Some(ErrorKind::InvalidInput), "{state}: {path:?} gave {failure:?}");
        }
    }
    Ok(())
}

pub(super) async fn files_are_deleted(bench: Bench<'_>) -> Proof {
    bench.backend.delete_file(bench.id, &FilePath::parse("a")?).await?;
    for state in STATES {
        bring_to(bench, state, &[("folder/a", b"x"), ("folder/b", b"x")]).await?;
        let path = FilePath::parse(if state == "running" { "folder/a" } else { "folder/b" })?;
        for _ in 0..2 {
            bench.backend.delete_file(bench.id, &path).await?;
            let failure = kind(bench.backend.read_file(bench.id, FileRoot::Configs, &path).await);
            ensure!(failure == Some(ErrorKind::NotFound), "{state}: reading it then gave {failure:?}");
        }
        if state == "running" {
            let failure = kind(bench.backend.delete_file(bench.id, &FilePath::parse("folder")?).await);
            ensure!(failure == Some(ErrorKind::InvalidInput), "{state}: a folder gave {failure:?}");
        }
    }
    Ok(())
}

pub(super) async fn the_undeclared_is_refused(bench: Bench<'_>) -> Proof {
    let (backend, id) = (bench.backend, bench.id);
    let capability = backend.capability();
    let mut refusals = Vec::new();
    if !capability.exec {
        refusals.push(("exec_read", kind(backend.exec_read(id, "/configs/x").await)));
    }
    if !capability.volumes {
        refusals.push(("remove_volume", kind(backend.remove_volume(id).await)));
        refusals.push(("purge_volumes", kind(backend.purge_volumes(id).await)));
        refusals.push(("volume_has_file", kind(backend.volume_has_file(id, "x").await)));
        refusals.push(("write_auth_token", kind(backend.write_auth_token(id, &SecretString::from("x")).await)));
    }
    if !capability.files {
        let path = FilePath::parse("x")?;
        refusals.push(("list_files", kind(backend.list_files(id, FileRoot::Configs, None, 1).await)));
        refusals.push(("read_file", kind(backend.read_file(id, FileRoot::Configs, &path).await)));
        refusals.push(("write_files", kind(backend.write_files(id, &[]).await)));
        refusals.push(("delete_file", kind(backend.delete_file(id, &path).await)));
    }
    let mut wrong = String::new();
    for (operation, refusal) in refusals {
        if refusal != Some(ErrorKind::Unsupported) {
            let _ = write!(wrong, "{operation} gave {refusal:?}; ");
        }
    }
    ensure!(wrong.is_empty(), "{wrong}");
    Ok(())
}
