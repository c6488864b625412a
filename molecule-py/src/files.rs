//! The files of a workspace, for whatever serves HTTP in Python.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{StreamExt, stream};
use molecule_core::{
    Error, ErrorKind,
    agent::files::{Bits, Files as Core, Opened, Refusal},
    clock::SystemEntropy,
};
use pyo3::{
    IntoPyObjectExt,
    prelude::*,
    types::{PyBytes, PyTuple},
};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
};

use crate::{
    agent::{Agent, Header},
    errors::raised,
    runtime::{runtime, wait},
};

/// How many pieces of an upload wait to be written.
const AHEAD: usize = 4;

/// The files of one workspace: what is sent to it, and what is read of it. ``molecule.files`` serves them.
#[pyclass(frozen, module = "molecule._molecule")]
#[derive(Debug)]
pub(crate) struct Files(Core);

#[pymethods]
impl Files {
    #[new]
    #[pyo3(signature = (agent, *, root=None))]
    fn new(agent: &Agent, root: Option<PathBuf>) -> Self {
        let secrets = &agent.secrets;
        let root = root.unwrap_or_else(|| Core::root_beside(&secrets.folder));
        let (inbound, tokens) = (secrets.inbound.clone(), secrets.tokens.clone());
        Self(Core::new(root, inbound, tokens, Arc::new(SystemEntropy)))
    }

    /// Begins to take in a form with files.
    #[pyo3(signature = (authorization, content_type, content_length))]
    fn upload(
        &self,
        py: Python<'_>,
        authorization: Option<Header>,
        content_type: Option<String>,
        content_length: Option<u64>,
    ) -> PyResult<Upload> {
        let (sender, receiver) = mpsc::channel::<io::Result<bytes::Bytes>>(AHEAD);
        let body: Bits =
            stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))).boxed();
        let files = self.0.clone();
        let taking = async move {
            let authorization = authorization.as_ref().map(Header::bytes);
            files.ingest(authorization, content_type.as_deref(), content_length, body).await
        };
        let runtime = runtime().map_err(|error| raised(py, &error))?;
        let state = Taking { sender, task: runtime.spawn(taking) };
        Ok(Upload(Mutex::new(Some(state))))
    }

    /// Opens a file by the path that the workspace knows it by.
    #[pyo3(signature = (authorization, path))]
    fn read(&self, py: Python<'_>, authorization: Option<Header>, path: &str) -> PyResult<FileAnswer> {
        let reading = async { Ok(self.0.read(authorization.as_ref().map(Header::bytes), path).await) };
        wait(py, reading).map(|read| read.map_or_else(FileAnswer::refused, FileAnswer::opened))
    }

    /// From which line on, and how many lines of the transcript to show; an answer where that is refused.
    #[pyo3(signature = (authorization, since, limit))]
    fn transcript_page<'py>(
        &self,
        py: Python<'py>,
        authorization: Option<Header>,
        since: Option<&str>,
        limit: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let authorization = authorization.as_ref().map(Header::bytes);
        match py.detach(|| self.0.transcript_page(authorization, since, limit)) {
            Ok(page) => PyTuple::new(py, [page.since, page.limit])?.into_bound_py_any(py),
            Err(refusal) => FileAnswer::refused(refusal).into_bound_py_any(py),
        }
    }
}

struct Taking {
    sender: mpsc::Sender<io::Result<bytes::Bytes>>,
    task: JoinHandle<Result<Value, Refusal>>,
}

/// A form with files on its way in. One that breaks off is not kept.
#[pyclass(frozen, module = "molecule._molecule")]
pub(crate) struct Upload(Mutex<Option<Taking>>);

#[pymethods]
impl Upload {
    /// Passes on a piece of the form, and says whether more is wanted.
    #[pyo3(signature = (piece))]
    fn write(&self, py: Python<'_>, piece: &[u8]) -> PyResult<bool> {
        let Some(sender) = self.lock().as_ref().map(|taking| taking.sender.clone()) else { return Ok(false) };
        let piece = bytes::Bytes::copy_from_slice(piece);
        wait(py, async { Ok(sender.send(Ok(piece)).await.is_ok()) })
    }

    /// The answer, once the form is at its end.
    fn finish(&self, py: Python<'_>) -> PyResult<FileAnswer> {
        let ended = |cause: Option<JoinError>| {
            let error = Error::new(ErrorKind::Unexpected, "the upload is over already");
            cause.into_iter().fold(error, Error::caused_by)
        };
        let taking = self.lock().take();
        wait(py, async {
            let Taking { sender, task } = taking.ok_or_else(|| ended(None))?;
            drop(sender);
            let taken = task.await.map_err(|error| ended(Some(error)))?;
            Ok(taken.map_or_else(FileAnswer::refused, |kept| FileAnswer::json(200, &kept)))
        })
    }
}

impl Upload {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Taking>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to answer.
#[pyclass(frozen, module = "molecule._molecule")]
pub(crate) struct FileAnswer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Arc<tokio::sync::Mutex<Bits>>,
}

#[pymethods]
impl FileAnswer {
    /// The HTTP status.
    #[getter]
    fn status(&self) -> u16 {
        self.status
    }

    /// The headers, as ASGI has them.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let bytes = |text: &str| PyBytes::new(py, text.as_bytes());
        self.headers.iter().map(|(name, value)| (bytes(name), bytes(value))).collect()
    }

    /// The next piece of the body; ``None`` at its end.
    ///
    /// Raises ``MoleculeError`` where a file turns out shorter than it was.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let body = self.body.clone();
        let piece = wait(py, async move {
            let broken = |error: io::Error| Error::new(ErrorKind::Unexpected, "the file broke off").caused_by(error);
            body.lock().await.next().await.transpose().map_err(broken)
        })?;
        Ok(piece.map(|piece| PyBytes::new(py, &piece)))
    }
}

impl FileAnswer {
    fn json(status: u16, body: &Value) -> Self {
        let text = body.to_string();
        let headers = vec![("content-type", "application/json".to_owned()), ("content-length", text.len().to_string())];
        Self::new(status, headers, stream::iter([Ok(text.into())]).boxed())
    }

    fn refused(refusal: Refusal) -> Self {
        Self::json(refusal.status, &refusal.body)
    }

    fn opened(opened: Opened) -> Self {
        let headers = vec![
            ("content-type", opened.content_type),
            ("content-length", opened.length.to_string()),
            ("content-disposition", opened.content_disposition),
        ];
        Self::new(200, headers, opened.body)
    }

    fn new(status: u16, headers: Vec<(&'static str, String)>, body: Bits) -> Self {
        Self { status, headers, body: Arc::new(tokio::sync::Mutex::new(body)) }
    }
}
