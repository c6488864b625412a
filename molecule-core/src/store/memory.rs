//! What the store remembers, so that a steady heartbeat costs the database nothing (`docs/decisions/0006`).
//!
//! Three things are remembered: whose a token is, the condition of workspaces that report in, and for a while the secret
//! that calls into a workspace present. Whatever changes one of them in the database goes through the store, which
//! forgets it here in the same breath.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;

use super::{TokenOwner, org_tokens::KnownOrgTokens};
use crate::{
    id::{TokenId, WorkspaceId},
    registry::Runtime,
    workspace::{Status, Workspace, same_month},
};

/// How many locks share the load. A power of two.
const SHARDS: usize = 64;

/// How many counters of changes there are; workspaces that share one forget their tokens together. A power of two.
const EPOCHS: usize = 4096;

/// The SHA-256 of a token.
type TokenHash = [u8; 32];

/// A map in parts, each with a lock of its own.
type Shards<K, V> = Box<[Mutex<HashMap<K, V>>]>;

/// The condition of a workspace, as its agent reported it last.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    pub(crate) at: DateTime<Utc>,
    pub(crate) error_rate: f64,
    pub(crate) sample_error: Box<str>,
    pub(crate) active_tasks: i32,
    pub(crate) uptime_seconds: i64,
    pub(crate) current_task: Box<str>,
    pub(crate) monthly_spend: Option<i64>,
    pub(crate) runtime: Runtime,
}

impl Condition {
    /// Whether this says no more than what was known before, as far as others go by the row: what changed is in it at once.
    pub(crate) fn says_as_much(&self, later: &Self) -> bool {
        self.current_task == later.current_task
            && (self.active_tasks > 0) == (later.active_tasks > 0)
            && self.runtime == later.runtime
    }
}

#[cfg(any(test, feature = "testing"))]
impl Condition {
    /// That of an agent that is well and has nothing to do.
    pub(crate) fn quiet(at: DateTime<Utc>) -> Self {
        Self {
            at,
            error_rate: 0.0,
            sample_error: "".into(),
            active_tasks: 0,
            uptime_seconds: 0,
            current_task: "".into(),
            monthly_spend: None,
            runtime: Runtime::default(),
        }
    }
}

#[derive(Debug)]
struct Tracked {
    status: Status,
    condition: Condition,
    /// The database has not seen the condition.
    unsaved: bool,
}

#[derive(Debug)]
struct Known {
    owner: TokenOwner,
    epoch: u64,
    used_at: DateTime<Utc>,
    /// The database has not seen the use.
    unsaved: bool,
}

/// When a token was used last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    hash: TokenHash,
    pub(crate) id: TokenId,
    pub(crate) at: DateTime<Utc>,
}

/// How long an inbound secret is remembered after it was read.
const SECRET_HOLDS: TimeDelta = TimeDelta::minutes(5);

/// Tells one text of an inbound secret from another, as it is kept in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint(pub(crate) u64);

#[derive(Debug)]
struct KnownSecret {
    secret: SecretString,
    kept_as: Fingerprint,
    read_at: DateTime<Utc>,
}

/// The state of a workspace's changes at one moment: what was read after it may be remembered only while it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

/// As [`Epoch`], of every workspace at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u64);

/// See the module.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Nobody else changes the database, or this process hears of it at once.
    trusted: AtomicBool,
    /// Counts every change.
    changes: AtomicU64,
    workspaces: Shards<WorkspaceId, Tracked>,
    tokens: Shards<TokenHash, Known>,
    secrets: Shards<WorkspaceId, KnownSecret>,
    epochs: Box<[AtomicU64]>,
    pub(super) org_tokens: KnownOrgTokens,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            trusted: AtomicBool::new(true),
            changes: AtomicU64::new(0),
            workspaces: (0..SHARDS).map(|_| Mutex::default()).collect(),
            tokens: (0..SHARDS).map(|_| Mutex::default()).collect(),
            secrets: (0..SHARDS).map(|_| Mutex::default()).collect(),
            epochs: (0..EPOCHS).map(|_| AtomicU64::new(0)).collect(),
            org_tokens: KnownOrgTokens::default(),
        }
    }
}

impl Memory {
    /// To be taken before reading from the database what is then to be remembered.
    pub(crate) fn epoch(&self, id: WorkspaceId) -> Epoch {
        Epoch(self.epochs[slot(id) % EPOCHS].load(Ordering::Acquire))
    }

    /// As [`Memory::epoch`], where it is not known yet whose what is read will be.
    pub(crate) fn moment(&self) -> Moment {
        Moment(self.changes.load(Ordering::Acquire))
    }

    /// Whether what is remembered of tokens is true.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Acquire)
    }

    /// Forgets everything that was remembered of tokens and secrets, and remembers no token until it is trusted again.
    ///
    /// Conditions are kept: saving them finds out which of them are out of date.
    pub(crate) fn set_trusted(&self, trusted: bool) {
        self.trusted.store(trusted, Ordering::Release);
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.tokens.iter().for_each(|shard| lock(shard).clear());
        self.forget_inbound_secrets();
        self.org_tokens.forget();
    }

    /// Forgets the inbound secret of a workspace.
    pub(crate) fn forget_inbound_secret(&self, id: WorkspaceId) {
        self.secret_shard(id).remove(&id);
    }

    /// Forgets every inbound secret.
    pub(crate) fn forget_inbound_secrets(&self) {
        self.secrets.iter().for_each(|shard| lock(shard).clear());
    }

    /// Forgets the workspace, its tokens and its secret: its status or one of them changed.
    ///
    /// To be called after the change was committed. A condition that was not saved yet is lost with it; the next
    /// heartbeat brings a newer one.
    pub(crate) fn changed(&self, id: WorkspaceId) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.epochs[slot(id) % EPOCHS].fetch_add(1, Ordering::AcqRel);
        self.shard(id).remove(&id);
        self.secret_shard(id).remove(&id);
        self.org_tokens.forget_bound_to(id);
    }

    /// The inbound secret of a workspace, if it was read not long ago.
    pub(crate) fn inbound_secret(&self, id: WorkspaceId, now: DateTime<Utc>) -> Option<SecretString> {
        let shard = self.secret_shard(id);
        let known = shard.get(&id)?;
        // A clock that went back says nothing about how long ago that was.
        let age = now - known.read_at;
        (TimeDelta::zero() <= age && age < SECRET_HOLDS).then(|| known.secret.clone())
    }

    /// Remembers the inbound secret of a workspace, unless that changed since `epoch`.
    pub(crate) fn know_inbound_secret(
        &self,
        id: WorkspaceId,
        epoch: Epoch,
        secret: SecretString,
        kept_as: Fingerprint,
        read_at: DateTime<Utc>,
    ) {
        let mut shard = self.secret_shard(id);
        if self.epoch(id) == epoch {
            shard.insert(id, KnownSecret { secret, kept_as, read_at });
        }
    }

    /// Notes how the inbound secret of a workspace was seen to be kept: what is remembered holds on, or is forgotten.
    pub(crate) fn saw_inbound_secret(&self, id: WorkspaceId, epoch: Epoch, kept_as: Fingerprint, at: DateTime<Utc>) {
        let mut shard = self.secret_shard(id);
        let Some(known) = shard.get_mut(&id).filter(|_| self.epoch(id) == epoch) else { return };
        if known.kept_as == kept_as {
            known.read_at = known.read_at.max(at);
        } else {
            shard.remove(&id);
        }
    }

    /// Forgets every token of the organisation: one of them changed. To be called after the change was committed.
    pub(crate) fn org_tokens_changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.org_tokens.forget();
    }

    /// Remembers the condition of a workspace, unless it changed since `epoch`.
    pub(crate) fn track(&self, id: WorkspaceId, epoch: Epoch, status: Status, condition: Condition) {
        let mut shard = self.shard(id);
        // Under the lock: a change after this check waits for it, and then removes what was inserted.
        if self.epoch(id) == epoch {
            shard.insert(id, Tracked { status, condition, unsaved: false });
        }
    }

    /// Takes a newer condition if the workspace is remembered and `steady` says that nothing else follows from it.
    pub(crate) fn beat(
        &self,
        id: WorkspaceId,
        condition: Condition,
        steady: impl FnOnce(Status, &Condition) -> bool,
    ) -> bool {
        let mut shard = self.shard(id);
        let Some(tracked) = shard.get_mut(&id) else { return false };
        if !steady(tracked.status, &tracked.condition) {
            return false;
        }
        // What was spent in another month says nothing of this one.
        let known = tracked.condition.monthly_spend.filter(|_| same_month(tracked.condition.at, condition.at));
        let monthly_spend = condition.monthly_spend.or(known);
        tracked.condition = Condition { monthly_spend, ..condition };
        tracked.unsaved = true;
        true
    }

    /// When the agent was last heard, as far as this process knows.
    pub(crate) fn last_heard(&self, id: WorkspaceId) -> Option<DateTime<Utc>> {
        self.shard(id).get(&id).map(|tracked| tracked.condition.at)
    }

    /// Brings a row that was read up to date with what was heard since.
    pub(crate) fn refresh(&self, row: &mut Workspace) {
        let shard = self.shard(row.id);
        let Some(Tracked { condition, .. }) = shard.get(&row.id) else { return };
        if row.last_heartbeat_at.is_some_and(|at| at >= condition.at) {
            return;
        }
        row.last_heartbeat_at = Some(condition.at);
        row.last_error_rate = condition.error_rate;
        // Why it failed is kept, whatever its agent says.
        if row.status != Status::Failed {
            row.last_sample_error = Some(condition.sample_error.to_string());
        }
        row.active_tasks = condition.active_tasks;
        row.uptime_seconds = condition.uptime_seconds;
        row.current_task = Some(condition.current_task.to_string());
        if let Some(spent) = condition.monthly_spend {
            (row.monthly_spend, row.spent_at) = (spent, Some(condition.at));
        }
    }

    /// The workspaces of which the database has not seen the condition.
    pub(crate) fn unsaved(&self) -> Vec<WorkspaceId> {
        let mut unsaved = Vec::new();
        for shard in &self.workspaces {
            unsaved.extend(lock(shard).iter().filter(|(_, tracked)| tracked.unsaved).map(|(id, _)| *id));
        }
        unsaved
    }

    /// The condition of a workspace, if the database has not seen it; marked as seen.
    pub(crate) fn take_unsaved(&self, id: WorkspaceId) -> Option<(WorkspaceId, Status, Condition)> {
        let mut shard = self.shard(id);
        let tracked = shard.get_mut(&id).filter(|tracked| tracked.unsaved)?;
        tracked.unsaved = false;
        Some((id, tracked.status, tracked.condition.clone()))
    }

    /// Marks a condition as unseen again: saving it failed.
    pub(crate) fn keep_unsaved(&self, id: WorkspaceId) {
        if let Some(tracked) = self.shard(id).get_mut(&id) {
            tracked.unsaved = true;
        }
    }

    /// Whose a remembered token is. Notes its use.
    pub(crate) fn owner(&self, hash: &TokenHash, now: DateTime<Utc>) -> Option<TokenOwner> {
        let mut shard = self.token_shard(hash);
        let known = shard.get_mut(hash)?;
        if self.epoch(known.owner.workspace_id).0 != known.epoch {
            shard.remove(hash);
            return None;
        }
        known.used_at = now;
        known.unsaved = true;
        Some(known.owner)
    }

    /// Remembers whose a token is, unless anything changed since `moment`.
    pub(crate) fn know(&self, hash: TokenHash, owner: TokenOwner, moment: Moment, now: DateTime<Utc>) {
        let mut shard = self.token_shard(&hash);
        let Epoch(epoch) = self.epoch(owner.workspace_id);
        if self.is_trusted() && self.moment() == moment {
            shard.insert(hash, Known { owner, epoch, used_at: now, unsaved: true });
        }
    }

    /// Every use of a token that the database has not seen, marked as seen.
    pub(crate) fn take_uses(&self) -> Vec<Used> {
        let mut uses = Vec::new();
        for shard in &self.tokens {
            let mut shard = lock(shard);
            // What was revoked is of no use any more.
            shard.retain(|_, known| self.epoch(known.owner.workspace_id).0 == known.epoch);
            for (hash, known) in shard.iter_mut().filter(|(_, known)| known.unsaved) {
                known.unsaved = false;
                uses.push(Used { hash: *hash, id: known.owner.id, at: known.used_at });
            }
        }
        uses
    }

    /// Marks uses as unseen again: saving them failed.
    pub(crate) fn keep_unsaved_uses(&self, uses: &[Used]) {
        for used in uses {
            if let Some(known) = self.token_shard(&used.hash).get_mut(&used.hash) {
                known.unsaved = true;
            }
        }
    }

    fn shard(&self, id: WorkspaceId) -> MutexGuard<'_, HashMap<WorkspaceId, Tracked>> {
        lock(&self.workspaces[slot(id) % SHARDS])
    }

    fn secret_shard(&self, id: WorkspaceId) -> MutexGuard<'_, HashMap<WorkspaceId, KnownSecret>> {
        lock(&self.secrets[slot(id) % SHARDS])
    }

    fn token_shard(&self, hash: &TokenHash) -> MutexGuard<'_, HashMap<TokenHash, Known>> {
        lock(&self.tokens[usize::from(hash[0]) % SHARDS])
    }
}

/// Ids are random, so that their low bits spread them evenly.
fn slot(id: WorkspaceId) -> usize {
    let (_, low) = id.as_uuid().as_u64_pair();
    usize::try_from(low & 0xffff).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> WorkspaceId {
        WorkspaceId::from_uuid(Uuid::from_u128(n))
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn condition(seconds: i64) -> Condition {
        Condition { current_task: "t".into(), ..Condition::quiet(at(seconds)) }
    }

    fn owner(n: u128) -> TokenOwner {
        TokenOwner { id: TokenId::from_uuid(Uuid::from_u128(n)), workspace_id: id(n), provision_attempt: None }
    }

    #[test]
    fn a_beat_is_taken_only_where_the_workspace_is_remembered_and_steady() {
        let memory = Memory::default();
        assert!(!memory.beat(id(1), condition(1), |_, _| true));
        memory.track(id(1), memory.epoch(id(1)), Status::Online, condition(0));
        assert!(
            !memory.beat(id(1), condition(1), |status, known| status != Status::Online || &*known.current_task != "t")
        );
        assert_eq!(memory.last_heard(id(1)), Some(at(0)));
        assert!(memory.beat(id(1), condition(1), |status, known| status == Status::Online && known.at == at(0)));
        assert_eq!(memory.last_heard(id(1)), Some(at(1)));
        assert_eq!(memory.unsaved(), [id(1)]);
        assert_eq!(memory.take_unsaved(id(1)), Some((id(1), Status::Online, condition(1))));
        assert_eq!((memory.unsaved(), memory.take_unsaved(id(1))), (Vec::new(), None));
        memory.keep_unsaved(id(1));
        assert_eq!(memory.unsaved(), [id(1)]);
    }

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let memory = Memory::default();
        let (before, moment) = (memory.epoch(id(1)), memory.moment());
        memory.changed(id(1));
        memory.track(id(1), before, Status::Online, condition(0));
        memory.know([1; 32], owner(1), moment, at(0));
        assert_eq!(memory.last_heard(id(1)), None);
        assert_eq!(memory.owner(&[1; 32], at(0)), None);
    }

    #[test]
    fn a_change_forgets_the_workspace_and_its_tokens_and_no_other() {
        let memory = Memory::default();
        for n in [1, 2] {
            memory.track(id(n), memory.epoch(id(n)), Status::Online, condition(0));
            memory.know([u8::try_from(n).unwrap(); 32], owner(n), memory.moment(), at(0));
        }
        memory.changed(id(1));
        assert_eq!(memory.last_heard(id(1)), None);
        assert_eq!(memory.owner(&[1; 32], at(5)), None);
        assert_eq!(memory.last_heard(id(2)), Some(at(0)));
        assert_eq!(memory.owner(&[2; 32], at(5)), Some(owner(2)));
        let uses = memory.take_uses();
        assert_eq!(uses, [Used { hash: [2; 32], id: owner(2).id, at: at(5) }]);
        assert!(memory.take_uses().is_empty());
        memory.keep_unsaved_uses(&uses);
        assert_eq!(memory.take_uses(), uses);
        assert!(memory.take_uses().is_empty());
    }

    #[test]
    fn tokens_are_not_remembered_while_changes_may_go_unheard() {
        let memory = Memory::default();
        memory.know([1; 32], owner(1), memory.moment(), at(0));
        memory.set_trusted(false);
        assert_eq!(memory.owner(&[1; 32], at(1)), None);
        memory.know([1; 32], owner(1), memory.moment(), at(1));
        assert_eq!(memory.owner(&[1; 32], at(1)), None);
        memory.set_trusted(true);
        memory.know([1; 32], owner(1), memory.moment(), at(1));
        assert_eq!(memory.owner(&[1; 32], at(1)), Some(owner(1)));
    }

    #[test]
    fn a_secret_is_remembered_for_five_minutes_unless_it_is_seen_again() {
        use secrecy::ExposeSecret;
        let memory = Memory::default();
        let known = |now| memory.inbound_secret(id(1), at(now)).map(|secret| secret.expose_secret().to_owned());
        let know = |text: &str, read_at| {
            memory.know_inbound_secret(id(1), memory.epoch(id(1)), text.into(), Fingerprint(1), at(read_at));
        };
        assert_eq!(known(0), None);
        know("s", 0);
        assert_eq!((known(0), known(299), known(300)), (Some("s".to_owned()), Some("s".to_owned()), None));
        assert_eq!(known(-1), None, "the clock went back");
        memory.saw_inbound_secret(id(1), memory.epoch(id(1)), Fingerprint(1), at(200));
        assert_eq!((known(499), known(500)), (Some("s".to_owned()), None));
        memory.saw_inbound_secret(id(1), memory.epoch(id(1)), Fingerprint(2), at(201));
        assert_eq!(known(201), None, "it is another now");
        memory.saw_inbound_secret(id(1), memory.epoch(id(1)), Fingerprint(2), at(201));
        assert_eq!(known(201), None, "what was not asked for is not remembered");
        know("s", 0);
        memory.changed(id(1));
        assert_eq!(known(0), None);
        know("s", 0);
        memory.set_trusted(true);
        assert_eq!(known(0), None);
    }

    #[test]
    fn a_secret_that_was_read_before_a_change_is_not_remembered_after_it() {
        let memory = Memory::default();
        let before = memory.epoch(id(1));
        memory.changed(id(1));
        memory.know_inbound_secret(id(1), before, "old".into(), Fingerprint(1), at(0));
        assert!(memory.inbound_secret(id(1), at(0)).is_none());
    }
}
