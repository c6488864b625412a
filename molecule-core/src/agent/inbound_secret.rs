//! The secret a platform proves itself with when it calls into a workspace.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::{
    StateDir,
    secret_file::{SecretFile, Stamp, checked},
};
use crate::error::Result;

/// Keeps the inbound secret of one workspace and checks calls against it.
///
/// A clone is a handle on the same store.
#[derive(Debug, Clone)]
pub struct InboundSecret(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: SecretFile,
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    secret: SecretString,
    /// What the file looked like when the secret was read from it or written to it.
    stamp: Option<Stamp>,
}

impl InboundSecret {
    /// The secret kept in `folder`.
    pub fn new(folder: &StateDir) -> Self {
        Self(Arc::new(Shared { file: folder.inbound_secret(), known: Mutex::new(None) }))
    }

    /// Whether `authorization`, the bytes of the whole header, is `Bearer` and the secret.
    ///
    /// Without a secret nothing passes. Another process may have saved a new secret, so a mismatch reads the file once
    /// more when it has changed. The comparison takes the same time wherever the two differ.
    pub fn verify(&self, authorization: Option<&[u8]>) -> bool {
        let Some(presented) = authorization else { return false };
        let mut known = self.lock();
        if known.as_ref().is_some_and(|known| matches(presented, &known.secret)) {
            return true;
        }
        let stamp = self.0.file.stamp();
        if known.as_ref().is_some_and(|known| known.stamp == stamp) {
            return false;
        }
        match self.0.file.read() {
            Ok(secret) => *known = secret.map(|secret| Known { secret, stamp }),
            Err(error) => {
                tracing::error!(error = error.detail(), "the inbound secret cannot be read; the call is refused");
                return false;
            }
        }
        known.as_ref().is_some_and(|known| matches(presented, &known.secret))
    }

    /// Uses `secret` from now on and keeps it in the file.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput), changing nothing, when `secret` is empty or cannot be
    /// sent; [`Unexpected`](crate::error::ErrorKind::Unexpected) when the file cannot be written, in which case it is
    /// in use all the same.
    pub fn save(&self, secret: &SecretString) -> Result<()> {
        let secret = SecretString::from(checked(secret)?);
        let mut known = self.lock();
        let written = self.0.file.write(&secret);
        *known = Some(Known { secret, stamp: self.0.file.stamp() });
        written
    }

    fn lock(&self) -> MutexGuard<'_, Option<Known>> {
        // Every assignment leaves a whole state, so a panic elsewhere spoils nothing.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `presented`, the bytes of a whole header, is `Bearer` and the `secret`; it takes the same time wherever they differ.
pub(super) fn matches(presented: &[u8], secret: &SecretString) -> bool {
    let expected = SecretString::from(format!("Bearer {}", secret.expose_secret()));
    presented.ct_eq(expected.expose_secret().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder() -> (tempfile::TempDir, StateDir) {
        let root = tempfile::tempdir().unwrap();
        let folder = StateDir::resolve(Some(root.path()), None).unwrap();
        (root, folder)
    }

    #[test]
    fn nothing_passes_without_a_secret() {
        let (root, folder) = folder();
        let secret = InboundSecret::new(&folder);
        for header in [None, Some(&b""[..]), Some(b"Bearer "), Some(b"Bearer s3cret")] {
            assert!(!secret.verify(header), "{header:?}");
        }
        fs::write(root.path().join(".platform_inbound_secret"), " \n").unwrap();
        assert!(!secret.verify(Some(b"Bearer ")));
    }

    #[test]
    fn only_the_exact_header_passes() {
        let (root, folder) = folder();
        let secret = InboundSecret::new(&folder);
        secret.save(&"s3cret\n".into()).unwrap();
        assert_eq!(fs::read(root.path().join(".platform_inbound_secret")).unwrap(), b"s3cret");
        assert!(secret.verify(Some(b"Bearer s3cret")));
        for header in
            [&b"bearer s3cret"[..], b"s3cret", b"Bearer s3cret ", b"Bearer  s3cret", b"Bearer s3cre", b"\xff\xfe", b""]
        {
            assert!(!secret.verify(Some(header)), "{header:?}");
        }
        assert!(!secret.verify(None));
    }

    #[test]
    fn a_secret_saved_by_another_process_is_found_on_a_mismatch() {
        let (_root, folder) = folder();
        let here = InboundSecret::new(&folder);
        here.save(&"old".into()).unwrap();
        let there = InboundSecret::new(&folder);
        there.save(&"new".into()).unwrap();
        assert!(here.verify(Some(b"Bearer new")));
        assert!(!here.verify(Some(b"Bearer old")));
    }

    #[test]
    fn a_secret_taken_away_passes_nobody() {
        let (root, folder) = folder();
        let secret = InboundSecret::new(&folder);
        secret.save(&"old".into()).unwrap();
        fs::remove_file(root.path().join(".platform_inbound_secret")).unwrap();
        assert!(!secret.verify(Some(b"Bearer new")));
        assert!(!secret.verify(Some(b"Bearer old")), "the mismatch found the file gone");
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let (_root, folder) = folder();
        let secret = InboundSecret::new(&folder);
        secret.save(&"s3cret".into()).unwrap();
        assert!(!format!("{secret:?}").contains("s3cret"));
    }
}
