//! What is remembered of a workload, so that a later server finds it again.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{folder, proc_table::ProcessId};
use crate::error::{Error, ErrorKind, Result};

/// The workload of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its first process; none once it is known that no process of the workload is left.
    pub(super) process: Option<ProcessId>,
    /// The port its agent was told to listen on.
    pub(super) port: u16,
    /// What was run. Holds no secret: those are in files and in the environment.
    pub(super) command: Vec<String>,
    /// The folder it works in.
    pub(super) workspace: PathBuf,
    /// How the first process ended, where a parent of it lived to see that.
    pub(super) exit_code: Option<i64>,
}

/// The file that holds the [`Record`] of one workspace. Changes are whole or not at all, and one at a time.
#[derive(Debug)]
pub(super) struct RecordFile {
    path: PathBuf,
    lock: Mutex<()>,
}

impl RecordFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, lock: Mutex::new(()) }
    }

    /// What is remembered, or that nothing is.
    pub(super) fn read(&self) -> Result<Option<Record>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(folder::failed("read a file of the workspace", &self.path, error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            let message = "the record of the workspace's processes is damaged — end them by hand, then remove the record \
                           that the log names";
            Error::new(ErrorKind::Unexpected, message).context("path", self.path.display()).caused_by(error)
        })
    }

    pub(super) fn write(&self, record: &Record) -> Result<()> {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.replace(record)
    }

    /// Writes down how `process` ended, unless the file has moved on to another workload.
    pub(super) fn ended(&self, process: &ProcessId, exit_code: Option<i64>) -> Result<()> {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut record) = self.read()?.filter(|record| record.process.as_ref() == Some(process)) else {
            return Ok(());
        };
        record.exit_code = exit_code;
        // From here on its pid may be given away, so forget it as soon as nothing holds it.
        if process.workload().is_ok_and(|left| left.is_empty()) {
            record.process = None;
        }
        self.replace(&record)
    }

    /// Forgets the workload.
    pub(super) fn remove(&self) -> Result<()> {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(folder::failed("remove a file of the workspace", &self.path, error))
            }
            _ => Ok(()),
        }
    }

    fn replace(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record)
            .map_err(|error| folder::failed("write a file of the workspace", &self.path, error.into()))?;
        folder::replace(&self.path, &text, 0o600)
    }
}
