//! Who is where in the fleet, as it was a moment ago: for those who are told of many workspaces, and must not ask the
//! store about each.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};

use crate::{control_plane::ControlPlane, error::Result, id::WorkspaceId};

/// For how long what was read holds.
const HOLDS: Duration = Duration::from_secs(5);

/// How far up it is looked, as where the store is asked.
const HIGHEST: usize = 32;

/// The parents of all workspaces that are not removed.
#[derive(Debug)]
pub struct Hierarchy {
    parents: HashMap<WorkspaceId, Option<WorkspaceId>>,
    read: Instant,
}

/// What was read last, as long as somebody uses it.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Weak<Hierarchy>>);

impl Hierarchy {
    /// Whether it is to be read again.
    pub fn is_old(&self) -> bool {
        self.read.elapsed() >= HOLDS
    }

    /// Whether two workspaces may talk; none where one of them was not there.
    pub fn can_communicate(&self, one: WorkspaceId, other: WorkspaceId) -> Option<bool> {
        if one == other {
            return Some(true);
        }
        let (first, second) = (self.parents.get(&one)?, self.parents.get(&other)?);
        Some(first == second || self.is_above(one, other) || self.is_above(other, one))
    }

    fn is_above(&self, top: WorkspaceId, below: WorkspaceId) -> bool {
        let up = |id: &WorkspaceId| self.parents.get(id).copied().flatten();
        std::iter::successors(up(&below), up).take(HIGHEST).any(|above| above == top)
    }
}

impl ControlPlane {
    /// Who is where, read at most every 5 seconds, however many ask.
    ///
    /// # Errors
    /// Where the store can't say.
    pub async fn hierarchy(&self) -> Result<Arc<Hierarchy>> {
        // Of those who ask at once, one asks the store.
        let mut known = self.inner.hierarchy.0.lock().await;
        if let Some(hierarchy) = known.upgrade().filter(|hierarchy| !hierarchy.is_old()) {
            return Ok(hierarchy);
        }
        let parents = self.inner.store.parents().await?.into_iter().collect();
        let hierarchy = Arc::new(Hierarchy { parents, read: Instant::now() });
        *known = Arc::downgrade(&hierarchy);
        Ok(hierarchy)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        store::Store,
        workspace::{CreateWorkspace, Deleted},
    };

    fn id(n: u128) -> WorkspaceId {
        WorkspaceId::from_uuid(Uuid::from_u128(n))
    }

    #[test]
    fn who_may_talk() {
        let parents = [(1, None), (2, None), (3, Some(1)), (4, Some(1)), (5, Some(3)), (6, Some(2)), (7, Some(5))];
        let parents = parents.into_iter().map(|(n, parent)| (id(n), parent.map(id))).collect();
        let hierarchy = Hierarchy { parents, read: Instant::now() };
        let rows = [
            (1, 1, Some(true)),
            (1, 2, Some(true)),
            (3, 4, Some(true)),
            (1, 7, Some(true)),
            (7, 3, Some(true)),
            (5, 4, Some(false)),
            (3, 6, Some(false)),
            (2, 3, Some(false)),
            (1, 9, None),
        ];
        for (one, other, expected) in rows {
            for (one, other) in [(one, other), (other, one)] {
                assert_eq!(hierarchy.can_communicate(id(one), id(other)), expected, "{one} {other}");
            }
        }
        let line = (0..40).map(|n| (id(n), n.checked_sub(1).map(id))).collect();
        let line = Hierarchy { parents: line, read: Instant::now() };
        assert_eq!(line.can_communicate(id(0), id(32)), Some(true));
        assert_eq!(line.can_communicate(id(0), id(33)), Some(false));
    }

    #[tokio::test]
    async fn it_is_read_once_for_all_who_ask() {
        let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap()).build().unwrap();
        let mut ids = Vec::new();
        for name in ["a", "b", "c"] {
            let request = CreateWorkspace { name: name.to_owned(), external: true, ..CreateWorkspace::default() };
            ids.push(control_plane.create(request).await.unwrap().workspace.id);
        }
        assert!(matches!(control_plane.delete(ids[2], true, false).await.unwrap(), Deleted::Removed { .. }));
        let before = control_plane.store().statements().reads;
        let asked = futures_util::future::join_all((0..50).map(|_| control_plane.hierarchy())).await;
        assert_eq!(control_plane.store().statements().reads - before, 1);
        let hierarchy = asked[0].as_ref().unwrap();
        assert_eq!(hierarchy.can_communicate(ids[0], ids[1]), Some(true));
        assert_eq!(hierarchy.can_communicate(ids[0], ids[2]), None, "it is removed");
    }
}
