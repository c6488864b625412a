//! The secret by which an agent knows that a call comes from its platform.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use moka::future::Cache;
use secrecy::{ExposeSecret, SecretString};

use super::{NewToken, random_token};
use crate::{
    clock::Entropy,
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    id::{AttemptId, WorkspaceId},
    secrets::{Cipher, Sealed},
    store::Credentials,
};

/// What a sealed one begins with. No token does: their alphabet has no colon.
const SEALED: &str = "sealed:";

/// What is done where an error says that a secret could not be opened.
const OPEN: &str = "open an inbound secret";

/// For how long one that could not be opened is not tried again: its agent asks with every beat.
const UNREADABLE_HOLDS: Duration = Duration::from_secs(30);

/// The workspaces whose secret could not be opened a moment ago.
#[derive(Debug)]
pub(crate) struct Unreadable(Cache<WorkspaceId, ()>);

impl Default for Unreadable {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(100_000).time_to_live(UNREADABLE_HOLDS).build())
    }
}

/// `secret` as it is kept: as it is without a key, otherwise the version, the id of the key and the bytes.
fn seal(secret: &SecretString, cipher: &Cipher, entropy: &dyn Entropy) -> Result<String> {
    if cipher.key_id().is_none() {
        return Ok(secret.expose_secret().to_owned());
    }
    let Sealed { encrypted_value, encryption_version, key_id } = cipher.seal(secret, entropy)?;
    let bytes = STANDARD.encode(encrypted_value);
    Ok(format!("{SEALED}{encryption_version}:{}:{bytes}", key_id.unwrap_or_default()))
}

/// The secret that is kept as `kept`; one from before there was a key is kept as it is.
///
/// # Errors
/// Where its key is missing or wrong.
pub(crate) fn open_inbound_secret(kept: &str, cipher: &Cipher) -> Result<SecretString> {
    let Some(sealed) = kept.strip_prefix(SEALED) else { return Ok(kept.into()) };
    let parse = || {
        let mut fields = sealed.splitn(3, ':');
        let encryption_version = fields.next()?.parse().ok()?;
        let key_id = fields.next().map(str::to_owned);
        let encrypted_value = STANDARD.decode(fields.next()?).ok()?;
        Some(Sealed { encrypted_value, encryption_version, key_id })
    };
    let broken = || Error::new(ErrorKind::Unexpected, "an inbound secret cannot be read");
    parse().ok_or_else(broken).and_then(|sealed| cipher.open(&sealed)).map_err(|error| error.during(OPEN))
}

/// A secret that was asked for.
#[derive(Debug, Clone)]
pub struct InboundSecret {
    /// What a call presents as its bearer.
    pub secret: SecretString,
    /// There was none, so that the agent hears of it with its next heartbeat only.
    pub minted: bool,
}

impl ControlPlane {
    /// The secret that calls into `id` present, minted where it has none.
    ///
    /// It is read at most once in five minutes, however many ask.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn inbound_secret(&self, id: WorkspaceId) -> Result<InboundSecret> {
        let store = &self.inner.store;
        if let Some(secret) = store.memory().inbound_secret(id, self.now()) {
            return Ok(InboundSecret { secret, minted: false });
        }
        // Of those who ask at once, one asks the database.
        let _turn = self.inner.secret_gates.enter(id).await;
        let cipher = &self.inner.cipher;
        if let Some(secret) = store.inbound_secret(id, cipher, self.now()).await? {
            return Ok(InboundSecret { secret, minted: false });
        }
        let sealed = seal(&random_token(&*self.inner.entropy), cipher, &*self.inner.entropy)?;
        let minted = store.mint_inbound_secret(id, &sealed, cipher, self.now()).await?;
        let secret = minted.ok_or_else(|| no_workspace(id))?;
        tracing::info!(workspace.id = %id, "a workspace without an inbound secret was given one");
        Ok(InboundSecret { secret, minted: true })
    }

    /// As [`ControlPlane::inbound_secret`], for an answer that is due with or without it.
    pub(crate) async fn deliver_inbound_secret(&self, id: WorkspaceId, operation: &str) -> Option<SecretString> {
        let Unreadable(unreadable) = &self.inner.unreadable;
        // What is known by heart was read; only others may be unreadable.
        if let Some(secret) = self.inner.store.memory().inbound_secret(id, self.now()) {
            return Some(secret);
        }
        if unreadable.contains_key(&id) {
            return None;
        }
        match self.inbound_secret(id).await {
            Ok(found) => Some(found.secret),
            Err(error) => {
                if error.is_during(OPEN) {
                    unreadable.insert(id, ()).await;
                }
                tracing::warn!(workspace.id = %id, operation, error = error.detail(), "the inbound secret is not told");
                None
            }
        }
    }

    /// Gives `id` another secret than it has, and gives that. Other replicas use it at once.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn rotate_inbound_secret(&self, id: WorkspaceId) -> Result<SecretString> {
        let _turn = self.inner.secret_gates.enter(id).await;
        let (secret, sealed) = self.new_inbound_secret()?;
        if !self.inner.store.replace_inbound_secret(id, &secret, &sealed, self.now()).await? {
            return Err(no_workspace(id));
        }
        Ok(secret)
    }

    /// Gives the workspace `id` other credentials than it has for what `attempt` starts, and gives the inbound secret. Without
    /// a `token` its agent is given one when it registers. None, with nothing changed, where that is not the current try.
    pub(crate) async fn renew_credentials(
        &self,
        id: WorkspaceId,
        attempt: AttemptId,
        token: Option<&NewToken>,
    ) -> Result<Option<SecretString>> {
        let _turn = self.inner.secret_gates.enter(id).await;
        let (inbound_secret, sealed) = self.new_inbound_secret()?;
        let new = Credentials { token, inbound_secret: &inbound_secret, sealed: &sealed };
        let renewed = self.inner.store.renew_credentials(id, attempt, new, self.now()).await?;
        Ok(renewed.then_some(inbound_secret))
    }

    /// A secret, and the same as it is kept.
    fn new_inbound_secret(&self) -> Result<(SecretString, String)> {
        let secret = random_token(&*self.inner.entropy);
        let sealed = seal(&secret, &self.inner.cipher, &*self.inner.entropy)?;
        Ok((secret, sealed))
    }

    /// Forgets the secret of `id`, so that it is read anew.
    pub(crate) fn forget_inbound_secret(&self, id: WorkspaceId) {
        self.inner.store.memory().forget_inbound_secret(id);
    }

    /// Forgets every secret that was read, so that each is read anew.
    pub fn forget_inbound_secrets(&self) {
        self.inner.store.memory().forget_inbound_secrets();
    }
}

fn no_workspace(id: WorkspaceId) -> Error {
    Error::not_found("workspace not found").context("workspace.id", id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::SystemEntropy, store::Store, testing::Logged, workspace::CreateWorkspace};

    #[tokio::test]
    async fn one_that_cannot_be_opened_is_read_once_and_said_once() {
        let (key, other) = (SecretString::from("k".repeat(32)), SecretString::from("o".repeat(32)));
        let store = Store::connect("sqlite::memory:").await.unwrap();
        let with = |key| {
            let cipher = Cipher::new(key, &[]).unwrap();
            ControlPlane::builder(store.clone()).cipher(cipher).build().unwrap()
        };
        let (first, second) = (with(&key), with(&other));
        let request = CreateWorkspace { name: "e".to_owned(), external: true, ..CreateWorkspace::default() };
        let id = first.create(request).await.unwrap().workspace.id;
        assert!(first.deliver_inbound_secret(id, "heartbeat").await.is_some());
        second.forget_inbound_secrets();
        let (logged, _guard) = Logged::here();
        let before = store.statements();
        for _ in 0..5 {
            assert!(second.deliver_inbound_secret(id, "heartbeat").await.is_none());
        }
        let after = store.statements();
        assert_eq!((after.reads - before.reads, after.writes - before.writes), (1, 0));
        assert_eq!(logged.with("the inbound secret is not told").len(), 1);
        second.rotate_inbound_secret(id).await.unwrap();
        assert!(second.deliver_inbound_secret(id, "heartbeat").await.is_some());
    }

    #[test]
    fn a_secret_is_kept_sealed_where_there_is_a_key_and_opens_with_it_alone() {
        let [key, other] = ["k", "o"].map(|letter| SecretString::from(letter.repeat(32)));
        let (cipher, without) = (Cipher::new(&key, &[]).unwrap(), Cipher::default());
        let secret = random_token(&SystemEntropy);
        let sealed = seal(&secret, &cipher, &SystemEntropy).unwrap();
        assert!(!sealed.contains(secret.expose_secret()));
        let opened = |kept: &str, cipher: &Cipher| {
            open_inbound_secret(kept, cipher).map(|secret| secret.expose_secret().to_owned())
        };
        assert_eq!(opened(&sealed, &cipher).unwrap(), secret.expose_secret());
        let replaced = Cipher::new(&other, &[key]).unwrap();
        assert_eq!(opened(&sealed, &replaced).unwrap(), secret.expose_secret());
        for wrong in [&without, &Cipher::new(&other, &[]).unwrap()] {
            assert!(opened(&sealed, wrong).is_err());
        }
        // From before there was a key.
        let plain = seal(&secret, &without, &SystemEntropy).unwrap();
        assert_eq!(
            (plain.as_str(), opened(&plain, &cipher).unwrap().as_str()),
            (secret.expose_secret(), plain.as_str())
        );
        for broken in ["sealed:", "sealed:1:x", "sealed:1:x:!", "sealed:one:x:AAAA", &sealed[..sealed.len() - 8]] {
            assert!(opened(broken, &cipher).is_err(), "{broken}");
        }
    }
}
