//! What the cases have in common: a workspace, and ways to wait for what its workload does.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use url::Url;

use super::{Backend, Fixture};
use crate::{
    error::{Error, ErrorKind},
    id::WorkspaceId,
    provisioner::{ConfigFile, StartSpec, Workload},
};

/// How long a workload may take to do what a case waits for.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const POLL: Duration = Duration::from_millis(20);

/// What a case works with.
#[derive(Clone, Copy)]
pub(super) struct Bench<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) fixture: &'a dyn Fixture,
    pub(super) id: WorkspaceId,
}

pub(super) type Proof = Result<(), Failure>;

/// Why a case failed.
pub(super) struct Failure(pub(super) String);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(format!("{error:?}"))
    }
}

/// Ends the case with a reason unless something holds.
macro_rules! ensure {
    ($holds:expr, $($reason:tt)+) => {
        if !$holds {
            return Err(Failure(format!($($reason)+)));
        }
    };
}
pub(super) use ensure;

impl Bench<'_> {
    /// The spec of the fixture with variables for the workload.
    pub(super) fn spec(&self, variables: &[(&str, &str)]) -> StartSpec {
        let mut spec = self.fixture.spec(self.id);
        spec.env.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        spec
    }

    pub(super) async fn log(&self) -> Result<String, Failure> {
        Ok(String::from_utf8_lossy(&self.backend.logs(self.id, 1000).await?).into_owned())
    }

    /// Waits until the log holds a line that `wanted` likes, and gives the whole of it.
    pub(super) async fn log_with(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String, Failure> {
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
    pub(super) async fn comes_to(&self, expected: Workload) -> Proof {
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

    pub(super) async fn comes_to_answer(&self, url: &str) -> Proof {
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

pub(super) fn file(path: &str, contents: impl Into<Vec<u8>>, private: bool) -> ConfigFile {
    ConfigFile { path: path.to_owned(), contents: contents.into(), private }
}

pub(super) fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// The status of a GET request to `url`. No client library: the suite asks nothing of the ones that are about.
pub(super) async fn http_status(url: &str) -> io::Result<u16> {
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

pub(super) async fn clean_up(backend: &dyn Backend, id: WorkspaceId) -> Proof {
    backend.stop(id).await?;
    if backend.capability().volumes {
        backend.purge_volumes(id).await?;
    }
    Ok(())
}
