//! The token a workspace proves itself with.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secrecy::{ExposeSecret, SecretString};

#[cfg(feature = "files")]
use super::secret_file::Stamp;
use super::{
    StateDir,
    secret_file::{SecretFile, checked},
};
use crate::error::Result;

/// Finds, keeps and replaces the token of one workspace.
///
/// A clone is a handle on the same store, so that everything in a process uses the same token. The token is found
/// once and kept in memory; that there is none is not kept, so that a token written later is found.
#[derive(Debug, Clone)]
pub struct TokenStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: SecretFile,
    order: Order,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    FileFirst,
    SuppliedFirst,
}

#[derive(Debug, Default)]
struct State {
    current: Option<SecretString>,
    supplied: Option<SecretString>,
    /// What was in the file when it was last looked at for [`TokenStore::kept`], and what it looked like.
    #[cfg(feature = "files")]
    kept: Option<(Option<Stamp>, Option<SecretString>)>,
}

impl TokenStore {
    /// A store that prefers the file in `folder` to the token `supplied` by the environment.
    pub fn file_first(folder: &StateDir, supplied: Option<SecretString>) -> Self {
        Self::new(folder, supplied, Order::FileFirst)
    }

    /// A store that prefers the token `supplied` by the environment to the file in `folder`.
    pub fn supplied_first(folder: &StateDir, supplied: Option<SecretString>) -> Self {
        Self::new(folder, supplied, Order::SuppliedFirst)
    }

    /// The token, if there is one.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or cannot be made private.
    pub fn get(&self) -> Result<Option<SecretString>> {
        let mut state = self.lock();
        if state.current.is_none() {
            state.current = self.find(&state)?;
        }
        Ok(state.current.clone())
    }

    /// Uses `token` from now on and keeps it in the file; it supersedes one that was supplied.
    ///
    /// The token is in use even when the file cannot be written: a platform issues it only once.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput), changing nothing, when `token` is empty or cannot be
    /// sent; [`Unexpected`](crate::error::ErrorKind::Unexpected) when the file cannot be written.
    pub fn save(&self, token: &SecretString) -> Result<()> {
        let token = SecretString::from(checked(token)?);
        let mut state = self.lock();
        state.supplied = None;
        state.current = Some(token.clone());
        self.0.file.write(&token)
    }

    /// Takes `token` for the one that the environment supplies, for when the token is next found.
    pub fn supply(&self, token: Option<SecretString>) {
        self.lock().supplied = trimmed(token);
    }

    /// Forgets the token in memory and finds it anew.
    ///
    /// # Errors
    /// As [`TokenStore::get`].
    pub fn refresh(&self) -> Result<Option<SecretString>> {
        self.lock().current = None;
        self.get()
    }

    /// The token to use after `rejected` was: the one in use, where that is another one by now, otherwise that in the
    /// file, which is used from now on. None where there is no other.
    ///
    /// This is how a process learns of a token that another one saved.
    ///
    /// # Errors
    /// As [`TokenStore::get`].
    pub fn instead_of(&self, rejected: Option<&SecretString>) -> Result<Option<SecretString>> {
        let is_other =
            |token: &SecretString| rejected.is_none_or(|rejected| rejected.expose_secret() != token.expose_secret());
        let mut state = self.lock();
        if let Some(current) = state.current.clone().filter(is_other) {
            return Ok(Some(current));
        }
        let other = self.0.file.read()?.filter(is_other);
        if other.is_some() {
            state.current.clone_from(&other);
        }
        Ok(other)
    }

    /// The token in the file: it is not used for that alone. The file is read anew only where it has changed.
    #[cfg(feature = "files")]
    pub(super) fn kept(&self) -> Result<Option<SecretString>> {
        let mut state = self.lock();
        let stamp = self.0.file.stamp();
        if let Some((_, token)) = state.kept.as_ref().filter(|(seen, _)| *seen == stamp) {
            return Ok(token.clone());
        }
        let token = self.0.file.read()?;
        state.kept = Some((stamp, token.clone()));
        Ok(token)
    }

    fn new(folder: &StateDir, supplied: Option<SecretString>, order: Order) -> Self {
        let state = Mutex::new(State { supplied: trimmed(supplied), ..State::default() });
        Self(Arc::new(Shared { file: folder.auth_token(), order, state }))
    }

    fn find(&self, state: &State) -> Result<Option<SecretString>> {
        match (self.0.order, &state.supplied) {
            (Order::SuppliedFirst, Some(supplied)) => Ok(Some(supplied.clone())),
            (Order::FileFirst, supplied) => Ok(self.0.file.read()?.or_else(|| supplied.clone())),
            (Order::SuppliedFirst, None) => self.0.file.read(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every assignment leaves a whole state, so a panic elsewhere spoils nothing.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `token` without blanks around it; an empty one is none.
fn trimmed(token: Option<SecretString>) -> Option<SecretString> {
    let token = token?;
    let token = token.expose_secret().trim();
    (!token.is_empty()).then(|| token.into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Fixture {
        root: tempfile::TempDir,
        folder: StateDir,
    }

    fn fixture(file: Option<&str>) -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let folder = StateDir::resolve(Some(root.path()), None).unwrap();
        let fixture = Fixture { root, folder };
        if let Some(token) = file {
            fixture.write(token);
        }
        fixture
    }

    impl Fixture {
        fn write(&self, token: &str) {
            fs::write(self.root.path().join(".auth_token"), token).unwrap();
        }
    }

    fn text(token: Option<SecretString>) -> Option<String> {
        token.map(|token| token.expose_secret().to_owned())
    }

    #[test]
    fn precedence_is_that_of_the_constructor() {
        for (file, supplied, file_first, supplied_first) in [
            (None, None, None, None),
            (Some("f\n"), None, Some("f"), Some("f")),
            (None, Some(" s "), Some("s"), Some("s")),
            (Some("f"), Some("s"), Some("f"), Some("s")),
            (Some(" \n"), Some("s"), Some("s"), Some("s")),
            (Some("f"), Some("  "), Some("f"), Some("f")),
        ] {
            let fixture = fixture(file);
            let store = TokenStore::file_first(&fixture.folder, supplied.map(SecretString::from));
            assert_eq!(text(store.get().unwrap()).as_deref(), file_first, "{file:?} {supplied:?}");
            let store = TokenStore::supplied_first(&fixture.folder, supplied.map(SecretString::from));
            assert_eq!(text(store.get().unwrap()).as_deref(), supplied_first, "{file:?} {supplied:?}");
        }
    }

    #[test]
    fn the_token_is_kept_until_a_refresh() {
        let fixture = fixture(None);
        let store = TokenStore::file_first(&fixture.folder, None);
        assert_eq!(text(store.get().unwrap()), None);
        fixture.write("one");
        assert_eq!(text(store.get().unwrap()).as_deref(), Some("one"), "absence is not kept");
        fixture.write("two");
        assert_eq!(text(store.get().unwrap()).as_deref(), Some("one"));
        assert_eq!(text(store.refresh().unwrap()).as_deref(), Some("two"));
    }

    #[test]
    fn a_saved_token_reaches_every_handle_and_supersedes_a_supplied_one() {
        let fixture = fixture(None);
        let store = TokenStore::supplied_first(&fixture.folder, Some("s".into()));
        let handle = store.clone();
        store.save(&" saved\n".into()).unwrap();
        assert_eq!(text(handle.get().unwrap()).as_deref(), Some("saved"));
        assert_eq!(text(handle.refresh().unwrap()).as_deref(), Some("saved"));
        assert_eq!(fs::read_to_string(fixture.root.path().join(".auth_token")).unwrap(), "saved");
    }

    #[test]
    fn an_empty_token_is_refused_and_changes_nothing() {
        let fixture = fixture(Some("f"));
        let store = TokenStore::file_first(&fixture.folder, None);
        assert!(store.save(&" \n".into()).is_err());
        assert_eq!(text(store.get().unwrap()).as_deref(), Some("f"));
    }

    #[test]
    fn a_token_that_cannot_be_written_is_used_all_the_same() {
        let fixture = fixture(None);
        let store = TokenStore::file_first(&fixture.folder, None);
        fixture.root.close().unwrap();
        assert!(store.save(&"saved".into()).is_err());
        assert_eq!(text(store.get().unwrap()).as_deref(), Some("saved"));
    }

    #[test]
    fn after_a_rejection_the_file_counts_and_so_does_what_others_found_in_it() {
        let fixture = fixture(None);
        let store = TokenStore::supplied_first(&fixture.folder, Some("s".into()));
        let rejected = store.get().unwrap();
        let instead = || text(store.instead_of(rejected.as_ref()).unwrap());
        assert_eq!(instead(), None, "no file");
        fixture.write("s");
        assert_eq!(instead(), None, "the same token");
        fixture.write("f");
        assert_eq!(instead().as_deref(), Some("f"));
        assert_eq!(text(store.get().unwrap()).as_deref(), Some("f"));
        assert_eq!(instead().as_deref(), Some("f"), "rejected at the same time");
        assert_eq!(text(store.instead_of(Some(&"f".into())).unwrap()), None);
        assert_eq!(text(store.refresh().unwrap()).as_deref(), Some("s"), "precedence is as before");
    }

    #[cfg(feature = "files")]
    #[test]
    fn what_is_kept_is_read_anew_where_the_file_has_changed_alone() {
        let fixture = fixture(None);
        let store = TokenStore::supplied_first(&fixture.folder, Some("s".into()));
        let kept = || text(store.kept().unwrap());
        assert_eq!(kept(), None);
        fixture.write("one");
        assert_eq!(kept().as_deref(), Some("one"));
        let file = fs::OpenOptions::new().write(true).open(fixture.root.path().join(".auth_token")).unwrap();
        let before = file.metadata().unwrap().modified().unwrap();
        fixture.write("two");
        file.set_modified(before).unwrap();
        assert_eq!(kept().as_deref(), Some("one"), "it looks as it did");
        fixture.write("other");
        assert_eq!(kept().as_deref(), Some("other"));
        assert_eq!(text(store.get().unwrap()).as_deref(), Some("s"), "it is not used");
    }

    #[test]
    fn debug_output_shows_no_token() {
        let fixture = fixture(Some("t0ken-in-file"));
        let store = TokenStore::file_first(&fixture.folder, Some("t0ken-supplied".into()));
        store.get().unwrap();
        assert!(!format!("{store:?}").contains("t0ken"));
    }

    #[test]
    fn a_token_supplied_later_is_used_once_the_token_is_found_anew() {
        let fixture = fixture(None);
        let store = TokenStore::file_first(&fixture.folder, Some("old".into()));
        assert_eq!(text(store.get().unwrap()).as_deref(), Some("old"));
        store.supply(Some(" new ".into()));
        assert_eq!(text(store.get().unwrap()).as_deref(), Some("old"));
        assert_eq!(text(store.refresh().unwrap()).as_deref(), Some("new"));
        store.supply(Some(" ".into()));
        assert_eq!(text(store.refresh().unwrap()), None);
    }
}
