//! What is known of a machine from beside it: that it never got to its agent, and what it wrote to its console.

use serde_json::json;

use super::{
    Status,
    lifecycle::{gone_is_not_found, said},
};
use crate::{
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    store::clean,
};

/// How many bytes of an error, and of the end of a log, are kept.
const KEPT: usize = 8192;

/// What stands for the part of a log that is not kept.
const CUT: &str = "…(truncated)\n";

/// The first bytes of `text`, as many as are kept, without a broken character.
fn head(text: &str) -> &str {
    &text[..text.floor_char_boundary(KEPT)]
}

/// The last bytes of `text`, as many as are kept, without a broken character, and a mark where that is not all.
fn tail(text: &str) -> String {
    match text.len().checked_sub(KEPT) {
        None | Some(0) => text.to_owned(),
        Some(from) => format!("{CUT}{}", &text[text.ceil_char_boundary(from)..]),
    }
}

impl ControlPlane {
    /// Takes the word of whoever watches machines come up that the one of a workspace did not. False where the workspace
    /// is not being brought up.
    ///
    /// # Errors
    /// [`ErrorKind::Unexpected`] where that could not be kept, so that whoever watches tells it again.
    pub async fn bootstrap_failed(&self, id: WorkspaceId, error: &str, log_tail: &str) -> Result<bool> {
        let row = self.inner.store.workspace(id).await?.filter(|row| row.status == Status::Provisioning);
        let Some(attempt) = row.and_then(|row| row.provision_attempt) else { return Ok(false) };
        let error = clean::text(error.trim());
        let text = match head(&error) {
            "" => "the machine did not come up — its console says why".to_owned(),
            error => error.to_owned(),
        };
        let failure = Error::new(ErrorKind::Upstream, text);
        let extra = json!({"log_tail": tail(log_tail), "source": "bootstrap_watcher"});
        self.try_to_fail(id, attempt, &failure, None, extra).await.map_err(|error| said(error, "db update failed"))
    }

    /// What the machine of a workspace wrote to its console.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] unless workspaces run on machines of another control plane; [`ErrorKind::Upstream`]
    /// where that one refuses.
    pub async fn console(&self, id: WorkspaceId) -> Result<String> {
        let Backend::ControlPlane(provisioner) = &self.inner.backend else {
            let text = "console output is there only for machines of a control plane; see the logs instead";
            return Err(Error::new(ErrorKind::Unsupported, text));
        };
        self.existing(id).await.map_err(gone_is_not_found)?;
        provisioner.console_output(id).await.map_err(|error| {
            Error::new(ErrorKind::Upstream, "control plane returned an error fetching console output").caused_by(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_breaks_no_character() {
        let long = "é".repeat(5000);
        assert_eq!(head(&long), "é".repeat(4096));
        assert_eq!(head(&format!("a{long}")).len(), 8191);
        assert_eq!(tail(&long), format!("{CUT}{}", "é".repeat(4096)));
        assert_eq!(tail(&format!("{long}a")), format!("{CUT}{}a", "é".repeat(4095)));
        for whole in ["", "a", &"a".repeat(8192)] {
            assert_eq!((head(whole), tail(whole)), (whole, whole.to_owned()));
        }
    }
}
