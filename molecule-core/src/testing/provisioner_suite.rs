//! What every provisioner of this host does, as cases over the traits.
//!
//! Each line under *Behavior* of [`LocalProvisioner`] has a case of the same words. The workloads are those of a
//! [`Fixture`]: the program `examples/workload.rs` of this library, or something that honours the same variables.

use std::{
    fmt::{self, Write as _},
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{FutureExt, future::BoxFuture};
use secrecy::SecretString;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use url::{Host, Url};

use crate::{
    clock::{SystemEntropy, random_uuid},
    error::{Error, ErrorKind},
    id::WorkspaceId,
    provisioner::{Capability, ConfigFile, EXEC_READ_LIMIT, LocalProvisioner, StartSpec, Workload, WorkloadInspector},
};

/// How long a workload may take to do what a case waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long one case may take.
const CASE_LIMIT: Duration = Duration::from_secs(180);

const POLL: Duration = Duration::from_millis(20);

/// What the suite is run on. Every type that has both traits has this one.
pub trait Backend: LocalProvisioner + WorkloadInspector {}

impl<T: LocalProvisioner + WorkloadInspector> Backend for T {}

/// Tells the suite how to have its workloads run by a backend.
#[async_trait]
pub trait Fixture: Sync {
    /// A spec whose workload stays up, and honours the variables of `examples/workload.rs`. The suite adds files to
    /// it and variables whose names begin with `MOLECULE_TEST_`.
    fn spec(&self, id: WorkspaceId) -> StartSpec;

    /// The HTTP status that `url` answers with.
    async fn status(&self, url: &str) -> io::Result<u16> {
        http_status(url).await
    }
}

/// One thing that a backend does.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The sentence it proves.
    pub name: &'static str,
    /// Whether a backend of this capability claims it.
    pub requires: fn(&Capability) -> bool,
    run: for<'a> fn(Bench<'a>) -> BoxFuture<'a, Proof>,
}

/// Every case. What is not in this list is not run.
pub const CASES: &[Case] = &[
    Case {
        name: "Files of the spec are in place before the agent's first instruction, private ones readable by it alone.",
        requires: always,
        run: |bench| Box::pin(files_are_in_place(bench)),
    },
    Case {
        name: "An earlier workload of the same workspace is replaced; its volume is kept.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(an_earlier_workload_is_replaced(bench)),
    },
    Case {
        name: "A failed start leaves no workload behind.",
        requires: always,
        run: |bench| Box::pin(a_failed_start_leaves_nothing(bench)),
    },
    Case {
        name: "The URL is there when Capability::assigns_url is, and names an address of this host.",
        requires: always,
        run: |bench| Box::pin(the_url_is_as_declared(bench)),
    },
    Case {
        name: "The backend's own variables win over these.",
        requires: always,
        run: |bench| Box::pin(own_variables_win(bench)),
    },
    Case {
        name: "Stopping a stopped or unknown workspace succeeds.",
        requires: always,
        run: |bench| Box::pin(stopping_repeats(bench)),
    },
    Case {
        name: "Returns once no process of the workspace runs.",
        requires: always,
        run: |bench| Box::pin(stop_waits(bench)),
    },
    Case {
        name: "An unknown workspace does not run.",
        requires: always,
        run: |bench| Box::pin(an_unknown_workspace_does_not_run(bench)),
    },
    Case {
        name: "Reads a file as the running workload sees it, at most EXEC_READ_LIMIT bytes.",
        requires: |capability| capability.exec,
        run: |bench| Box::pin(reads_up_to_the_limit(bench)),
    },
    Case {
        name: "ErrorKind::NotFound for a missing file or a workload that does not run",
        requires: |capability| capability.exec,
        run: |bench| Box::pin(reading_what_is_not_there(bench)),
    },
    Case {
        name: "Removing what is not there succeeds.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(removing_repeats(bench)),
    },
    Case {
        name: "Afterwards nothing of the workspace is left on the backend.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(nothing_is_left(bench)),
    },
    Case {
        name: "Without a volume the answer is no.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(no_volume_has_no_file(bench)),
    },
    Case {
        name: "Whether the configuration folder holds path, relative to it.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(a_volume_tells_its_files(bench)),
    },
    Case {
        name: "Works while nothing runs, and replaces an earlier token.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(a_token_is_replaced(bench)),
    },
    Case {
        name: "The token never appears in an argument, an environment or an inspectable setting.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(a_token_stays_in_its_file(bench)),
    },
    Case {
        name: "What the workload of id does now.",
        requires: always,
        run: |bench| Box::pin(observes_what_a_workload_does(bench)),
    },
    Case {
        name: "The last lines lines that the workload wrote, oldest first; also after it ended, until it is removed.",
        requires: always,
        run: |bench| Box::pin(logs_end_with_the_last_line(bench)),
    },
    Case {
        name: "ErrorKind::NotFound where there is no workload to read from.",
        requires: always,
        run: |bench| Box::pin(no_workload_has_no_log(bench)),
    },
    Case {
        name: "The workspaces that have anything on this backend: a workload in whatever state, or a volume.",
        requires: always,
        run: |bench| Box::pin(the_inventory_lists_everything(bench)),
    },
    Case {
        name: "What is not declared is refused as unsupported.",
        requires: |capability| !capability.exec || !capability.volumes,
        run: |bench| Box::pin(the_undeclared_is_refused(bench)),
    },
];

/// Runs every case that `backend` claims, one after the other, each with a workspace of its own that is removed
/// afterwards.
pub async fn run_suite(backend: &dyn Backend, fixture: &dyn Fixture) -> Report {
    let capability = backend.capability();
    let mut report = Report::default();
    for case in CASES {
        if !(case.requires)(&capability) {
            report.unsupported.push(case.name);
            continue;
        }
        let id = WorkspaceId::from_uuid(random_uuid(&SystemEntropy));
        let run = contain((case.run)(Bench { backend, fixture, id })).await;
        match run.and(contain(clean_up(backend, id)).await) {
            Ok(()) => report.passed.push(case.name),
            Err(Failure(reason)) => report.failed.push((case.name, reason)),
        }
    }
    report
}

/// What came of a run of the suite.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The cases that passed.
    pub passed: Vec<&'static str>,
    /// The cases that failed, and why.
    pub failed: Vec<(&'static str, String)>,
    /// The cases that the backend does not claim.
    pub unsupported: Vec<&'static str>,
}

impl Report {
    /// Whether every claimed case passed, of which there must be one.
    pub fn is_success(&self) -> bool {
        self.failed.is_empty() && !self.passed.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, unsupported } = self;
        writeln!(f, "{} passed, {} failed, {} unsupported", passed.len(), failed.len(), unsupported.len())?;
        failed.iter().try_for_each(|(name, reason)| writeln!(f, "failed: {name}\n    {reason}"))?;
        unsupported.iter().try_for_each(|name| writeln!(f, "unsupported: {name}"))
    }
}

/// What a case works with.
#[derive(Clone, Copy)]
struct Bench<'a> {
    backend: &'a dyn Backend,
    fixture: &'a dyn Fixture,
    id: WorkspaceId,
}

type Proof = Result<(), Failure>;

/// Why a case failed.
struct Failure(String);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(format!("{error:?}"))
    }
}

macro_rules! ensure {
    ($holds:expr, $($reason:tt)+) => {
        if !$holds {
            return Err(Failure(format!($($reason)+)));
        }
    };
}

fn always(_: &Capability) -> bool {
    true
}

async fn contain(run: impl Future<Output = Proof> + Send) -> Proof {
    match timeout(CASE_LIMIT, AssertUnwindSafe(run).catch_unwind()).await {
        Ok(Ok(proof)) => proof,
        Ok(Err(_)) => Err(Failure("it panicked".to_owned())),
        Err(_) => Err(Failure(format!("it took longer than {CASE_LIMIT:?}"))),
    }
}

async fn clean_up(backend: &dyn Backend, id: WorkspaceId) -> Proof {
    backend.stop(id).await?;
    if backend.capability().volumes {
        backend.remove_volume(id).await?;
    }
    Ok(())
}

impl Bench<'_> {
    /// The spec of the fixture with variables for the workload.
    fn spec(&self, variables: &[(&str, &str)]) -> StartSpec {
        let mut spec = self.fixture.spec(self.id);
        spec.env.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        spec
    }

    async fn log(&self) -> Result<String, Failure> {
        Ok(String::from_utf8_lossy(&self.backend.logs(self.id, 1000).await?).into_owned())
    }

    /// Waits until the log holds a line that `wanted` likes, and gives the whole of it.
    async fn log_with(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.log().await?;
            if log.lines().any(&wanted) {
                return Ok(log);
            }
            ensure!(Instant::now() < deadline, "no line {what:?} came; the log is {log:?}");
            sleep(POLL).await;
        }
    }

    /// Waits until the workload does what is expected.
    async fn comes_to(&self, expected: Workload) -> Proof {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.backend.observe(self.id).await?;
            if found == expected {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the workload is {found:?}, not {expected:?}");
            sleep(POLL).await;
        }
    }

    async fn comes_to_answer(&self, url: &str) -> Proof {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.fixture.status(url).await {
                Ok(200) => return Ok(()),
                Ok(status) => return Err(Failure(format!("{url} answered {status}"))),
                Err(error) => ensure!(Instant::now() < deadline, "{url} never answered: {error}"),
            }
            sleep(POLL).await;
        }
    }
}

fn file(path: &str, contents: impl Into<Vec<u8>>, private: bool) -> ConfigFile {
    ConfigFile { path: path.to_owned(), contents: contents.into(), private }
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// The status of a GET request to `url`. No client library: the suite asks nothing of the ones that are about.
async fn http_status(url: &str) -> io::Result<u16> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let url = Url::parse(url).map_err(|error| invalid(&error.to_string()))?;
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(invalid("the URL names no host"));
    };
    let ask = async {
        let mut stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut answer).await?;
        let status = String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse().ok());
        status.ok_or_else(|| invalid("the answer is not HTTP"))
    };
    timeout(Duration::from_secs(5), ask).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn files_are_in_place(bench: Bench<'_>) -> Proof {
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

async fn an_earlier_workload_is_replaced(bench: Bench<'_>) -> Proof {
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

async fn a_failed_start_leaves_nothing(bench: Bench<'_>) -> Proof {
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

async fn the_url_is_as_declared(bench: Bench<'_>) -> Proof {
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

async fn own_variables_win(bench: Bench<'_>) -> Proof {
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

async fn stopping_repeats(bench: Bench<'_>) -> Proof {
    bench.backend.stop(bench.id).await?;
    bench.backend.start(&bench.spec(&[])).await?;
    bench.backend.stop(bench.id).await?;
    bench.backend.stop(bench.id).await?;
    Ok(())
}

async fn stop_waits(bench: Bench<'_>) -> Proof {
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

async fn an_unknown_workspace_does_not_run(bench: Bench<'_>) -> Proof {
    ensure!(!bench.backend.is_running(bench.id).await?, "it does");
    Ok(())
}

async fn reads_up_to_the_limit(bench: Bench<'_>) -> Proof {
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

async fn reading_what_is_not_there(bench: Bench<'_>) -> Proof {
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

async fn removing_repeats(bench: Bench<'_>) -> Proof {
    bench.backend.remove_volume(bench.id).await?;
    bench.backend.start(&bench.spec(&[])).await?;
    bench.backend.stop(bench.id).await?;
    bench.backend.remove_volume(bench.id).await?;
    bench.backend.remove_volume(bench.id).await?;
    Ok(())
}

async fn nothing_is_left(bench: Bench<'_>) -> Proof {
    let mut spec = bench.spec(&[]);
    spec.files = vec![file("config.yaml", "name: x", false)];
    bench.backend.start(&spec).await?;
    bench.backend.stop(bench.id).await?;
    bench.backend.remove_volume(bench.id).await?;
    ensure!(!bench.backend.inventory().await?.contains(&bench.id), "it is still in the inventory");
    ensure!(!bench.backend.volume_has_file(bench.id, "config.yaml").await?, "its file is still there");
    let found = bench.backend.observe(bench.id).await?;
    ensure!(found == Workload::Absent, "there is still {found:?}");
    Ok(())
}

async fn no_volume_has_no_file(bench: Bench<'_>) -> Proof {
    ensure!(!bench.backend.volume_has_file(bench.id, "config.yaml").await?, "the answer is yes");
    let listed = bench.backend.inventory().await?.contains(&bench.id);
    ensure!(!listed, "asking made a volume");
    Ok(())
}

async fn a_volume_tells_its_files(bench: Bench<'_>) -> Proof {
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

async fn a_token_is_replaced(bench: Bench<'_>) -> Proof {
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

async fn a_token_stays_in_its_file(bench: Bench<'_>) -> Proof {
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

async fn observes_what_a_workload_does(bench: Bench<'_>) -> Proof {
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

async fn logs_end_with_the_last_line(bench: Bench<'_>) -> Proof {
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

async fn no_workload_has_no_log(bench: Bench<'_>) -> Proof {
    let failure = kind(bench.backend.logs(bench.id, 10).await);
    ensure!(failure == Some(ErrorKind::NotFound), "it gave {failure:?}");
    Ok(())
}

async fn the_inventory_lists_everything(bench: Bench<'_>) -> Proof {
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

async fn the_undeclared_is_refused(bench: Bench<'_>) -> Proof {
    let (backend, id) = (bench.backend, bench.id);
    let capability = backend.capability();
    let mut refusals = Vec::new();
    if !capability.exec {
        refusals.push(("exec_read", kind(backend.exec_read(id, "/configs/x").await)));
    }
    if !capability.volumes {
        refusals.push(("remove_volume", kind(backend.remove_volume(id).await)));
        refusals.push(("volume_has_file", kind(backend.volume_has_file(id, "x").await)));
        refusals.push(("write_auth_token", kind(backend.write_auth_token(id, &SecretString::from("x")).await)));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines under *Behavior* of a trait, each as one sentence without its links.
    fn behaviors(source: &str) -> Vec<String> {
        let (mut found, mut within): (Vec<String>, bool) = (Vec::new(), false);
        for line in source.lines().map(str::trim) {
            match line.strip_prefix("///").map(str::trim) {
                Some(title) if title.starts_with('#') => within = title == "# Behavior",
                Some(text) if within => match (text.strip_prefix("- "), found.last_mut()) {
                    (Some(sentence), _) => found.push(sentence.to_owned()),
                    (None, Some(last)) if !text.is_empty() => *last += &format!(" {text}"),
                    _ => {}
                },
                _ => within = false,
            }
        }
        found.iter().map(|sentence| sentence.replace(['[', ']', '`'], "")).collect()
    }

    #[test]
    fn every_promise_of_the_traits_has_a_case() {
        let promises = behaviors(include_str!("../provisioner/mod.rs"));
        assert!(promises.len() >= 12, "only {promises:?} found");
        for promise in promises {
            assert!(CASES.iter().any(|case| case.name == promise), "no case is named {promise:?}");
        }
    }

    #[test]
    fn nothing_run_is_a_failure() {
        assert!(!Report::default().is_success());
        assert!(Report { passed: vec!["x"], ..Report::default() }.is_success());
        assert!(!Report { passed: vec!["x"], failed: vec![("y", String::new())], ..Report::default() }.is_success());
    }
}
