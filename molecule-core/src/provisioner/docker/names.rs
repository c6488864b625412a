//! The names and labels by which the things of a workspace are found on an engine.
//!
//! Names hold the full id. Older installations cut it to 12 characters; such things are recognised where they carry
//! the label of this platform.

use std::collections::HashMap;

use crate::id::WorkspaceId;

/// Marks everything that this platform made.
pub(super) const MANAGED: &str = "molecule.platform.managed";
/// Holds the full id of the workspace that a thing belongs to.
pub(super) const WORKSPACE: &str = "molecule.workspace.id";
/// Holds which installation of this platform made a thing; things of older ones do not say.
pub(super) const INSTALLATION: &str = "molecule.installation";
/// Holds the runtime that a configuration volume was made for.
pub(super) const RUNTIME: &str = "molecule.runtime";
/// The value of [`MANAGED`].
pub(super) const YES: &str = "true";

pub(super) fn container(id: WorkspaceId) -> String {
    format!("ws-{id}")
}

pub(super) fn legacy_container(id: WorkspaceId) -> String {
    format!("ws-{}", id.short())
}

pub(super) fn config_volume(id: WorkspaceId) -> String {
    format!("ws-{id}-configs")
}

pub(super) fn legacy_config_volume(id: WorkspaceId) -> String {
    format!("ws-{}-configs", id.short())
}

pub(super) fn session_volume(id: WorkspaceId) -> String {
    format!("ws-{id}-claude-sessions")
}

pub(super) fn legacy_session_volume(id: WorkspaceId) -> String {
    format!("ws-{}-claude-sessions", id.short())
}

/// Older installations used the full id here, too.
pub(super) fn workspace_volume(id: WorkspaceId) -> String {
    format!("ws-{id}-workspace")
}

/// The labels of everything that belongs to `id`.
pub(super) fn labels(id: WorkspaceId) -> HashMap<String, String> {
    HashMap::from([(MANAGED.to_owned(), YES.to_owned()), (WORKSPACE.to_owned(), id.to_string())])
}

/// Whether something that is called so belongs to `id`: this platform made it, and it does not say it is another's.
pub(super) fn belongs(labels: &HashMap<String, String>, id: WorkspaceId) -> bool {
    labels.get(MANAGED).is_some_and(|value| value == YES)
        && labels.get(WORKSPACE).is_none_or(|owner| *owner == id.to_string())
}

/// The workspace that a thing belongs to, by its label or else by its name; short names do not tell.
pub(super) fn owner(labels: &HashMap<String, String>, name: &str) -> Option<WorkspaceId> {
    if let Some(label) = labels.get(WORKSPACE) {
        return label.parse().ok();
    }
    name.trim_start_matches('/').strip_prefix("ws-")?.get(..36)?.parse().ok()
}

/// A filter for lists: things with all of `labels`, given as `key=value`.
pub(super) fn with_labels(labels: &[(&str, &str)]) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), labels.iter().map(|(key, value)| format!("{key}={value}")).collect())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_whose_a_thing_is() {
        let id: WorkspaceId = "6f9619ff-8b86-4011-b42d-00cf4fc964ff".parse().unwrap();
        let none = HashMap::new();
        assert_eq!(owner(&labels(id), "whatever"), Some(id));
        assert_eq!(owner(&none, "/ws-6f9619ff-8b86-4011-b42d-00cf4fc964ff"), Some(id));
        assert_eq!(owner(&none, "ws-6f9619ff-8b86-4011-b42d-00cf4fc964ff-configs"), Some(id));
        assert_eq!(owner(&none, "ws-6f9619ff-8b8"), None);
        assert_eq!(owner(&none, "other"), None);

        let managed = HashMap::from([(MANAGED.to_owned(), YES.to_owned())]);
        let other: WorkspaceId = "6f9619ff-8b86-4011-b42d-000000000000".parse().unwrap();
        assert!(belongs(&managed, id));
        assert!(belongs(&labels(id), id));
        assert!(!belongs(&labels(other), id), "two ids may share their first 12 characters");
        assert!(!belongs(&none, id), "somebody else's container");
    }
}
