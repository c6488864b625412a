//! A provisioner without machines that does as it is told.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Component, Path},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    provisioner::{
        Capability, ConfigFile, EXEC_READ_LIMIT, FileEntry, FilePath, FileRoot, LocalProvisioner, StartSpec, Workload,
        WorkloadInspector, WorkspaceFiles,
        files::{is_listed, no_file},
    },
};

/// An operation of [`LocalProvisioner`], [`WorkloadInspector`] or [`WorkspaceFiles`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is named like the method it stands for")]
pub enum Operation {
    Prepare,
    Start,
    Stop,
    Halt,
    IsRunning,
    ExecRead,
    RemoveVolume,
    PurgeVolumes,
    VolumeHasFile,
    WriteAuthToken,
    Address,
    Observe,
    Logs,
    Inventory,
    OwnInventory,
    ListFiles,
    ReadFile,
    WriteFiles,
    DeleteFile,
}

/// An operation that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Which one.
    pub operation: Operation,
    /// For which workspace; none for [`Operation::Inventory`] and [`Operation::OwnInventory`].
    pub workspace_id: Option<WorkspaceId>,
}

/// Keeps workloads in memory, passes the [suite](super::provisioner_suite), and fails on demand.
///
/// Clones share everything.
#[derive(Debug, Clone)]
pub struct ScriptedProvisioner {
    capability: Capability,
    state: Arc<Mutex<State>>,
    calls: watch::Sender<Vec<Call>>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Script>,
    starts: Vec<StartSpec>,
    workspaces: BTreeMap<WorkspaceId, Fake>,
    /// Whose calls wait for their release.
    waiting: Vec<WorkspaceId>,
}

/// What is kept of one workspace.
#[derive(Debug)]
struct Fake {
    files: BTreeMap<String, FakeFile>,
    workload: Workload,
    url: String,
    log: String,
}

#[derive(Debug)]
struct FakeFile {
    contents: Vec<u8>,
    private: bool,
}

impl Default for ScriptedProvisioner {
    fn default() -> Self {
        Self::new()
    }
}

impl ScriptedProvisioner {
    /// A provisioner that can do everything, and does.
    pub fn new() -> Self {
        let name = "scripted";
        Self::with_capability(Capability {
            name,
            assigns_url: true,
            exec: true,
            volumes: true,
            files: true,
            isolation: true,
        })
    }

    /// A provisioner that can do only what `capability` declares.
    pub fn with_capability(capability: Capability) -> Self {
        Self { capability, state: Arc::default(), calls: watch::Sender::default() }
    }

    /// Begins a rule for `operation`. Of the rules that fit a call, the one added first holds until it is used up.
    pub fn when(&self, operation: Operation) -> Rule<'_> {
        Rule { provisioner: self, operation, workspace_id: None, times: None }
    }

    /// Drops every rule. Calls that hang already go on hanging.
    pub fn behave(&self) {
        self.lock().rules.clear();
    }

    /// Makes the workload of `id` end by itself.
    pub fn end(&self, id: WorkspaceId, exit_code: Option<i64>) {
        if let Some(fake) = self.lock().workspaces.get_mut(&id) {
            fake.workload = Workload::Ended { exit_code };
        }
    }

    /// Every call so far, in order, those included that failed or hang.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    /// How often `operation` was called so far.
    pub fn count(&self, operation: Operation) -> usize {
        count(&self.calls.borrow(), operation)
    }

    /// Returns once `operation` was called `times` times, counted from the beginning.
    pub async fn called(&self, operation: Operation, times: usize) {
        let enough = |calls: &Vec<Call>| count(calls, operation) >= times;
        // It fails only once every sender is gone, and `self` holds one.
        let _ = self.calls.subscribe().wait_for(enough).await;
    }

    /// The specs of every start so far, in order.
    pub fn starts(&self) -> Vec<StartSpec> {
        self.lock().starts.clone()
    }

    /// Whether a running workload has this URL.
    pub fn serves(&self, url: &str) -> bool {
        self.lock().workspaces.values().any(|fake| fake.url == url && fake.workload == Workload::Running)
    }

    /// How many calls for `id` wait for their release.
    pub fn waiting(&self, id: WorkspaceId) -> usize {
        self.lock().waiting.iter().filter(|waiting| **waiting == id).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call and does what the rules say before it may go on.
    async fn enter(&self, operation: Operation, workspace_id: Option<WorkspaceId>) -> Result<()> {
        self.calls.send_modify(|calls| calls.push(Call { operation, workspace_id }));
        let action = self.lock().take_action(operation, workspace_id);
        match action {
            None => {}
            Some(Action::Fail(error)) => return Err(error()),
            Some(Action::Hang) => std::future::pending().await,
            Some(Action::Until(release)) => {
                let _waits = workspace_id.map(|id| Waits::new(self, id));
                release.0.cancelled().await;
            }
            Some(Action::Late(by)) => tokio::time::sleep(by).await,
            Some(Action::Panic(message)) => panic!("{message}"),
        }
        Ok(())
    }

    fn require(&self, declared: bool, operation: &'static str) -> Result<()> {
        if declared { Ok(()) } else { Err(self.capability.unsupported(operation)) }
    }
}

/// A call that waits, for as long as it does: until it is let go, or nobody cares any more.
struct Waits<'a>(&'a ScriptedProvisioner, WorkspaceId);

impl<'a> Waits<'a> {
    fn new(provisioner: &'a ScriptedProvisioner, id: WorkspaceId) -> Self {
        provisioner.lock().waiting.push(id);
        Self(provisioner, id)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let waiting = &mut self.0.lock().waiting;
        if let Some(at) = waiting.iter().position(|id| *id == self.1) {
            waiting.swap_remove(at);
        }
    }
}

fn count(calls: &[Call], operation: Operation) -> usize {
    calls.iter().filter(|call| call.operation == operation).count()
}

/// A rule in the making: which calls it is for, and then, last, what becomes of them.
#[derive(Debug)]
#[must_use = "a rule holds once it says what happens"]
pub struct Rule<'a> {
    provisioner: &'a ScriptedProvisioner,
    operation: Operation,
    workspace_id: Option<WorkspaceId>,
    times: Option<usize>,
}

impl Rule<'_> {
    /// Only for calls that name `id`.
    pub fn of(mut self, id: WorkspaceId) -> Self {
        self.workspace_id = Some(id);
        self
    }

    /// Only for the next `times` calls that it fits.
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// They fail, and do nothing.
    pub fn fail(self, kind: ErrorKind, message: &'static str) {
        self.fail_with(move || Error::new(kind, message));
    }

    /// They fail with the error that `error` makes, and do nothing.
    pub fn fail_with(self, error: impl Fn() -> Error + Send + Sync + 'static) {
        self.add(Action::Fail(Arc::new(error)));
    }

    /// They never return, and do nothing.
    pub fn hang(self) {
        self.add(Action::Hang);
    }

    /// They wait for the release, and then go on as usual.
    pub fn hang_until_released(self) -> Release {
        let release = Release(CancellationToken::new());
        self.add(Action::Until(release.clone()));
        release
    }

    /// They wait for `by`, and then go on as usual.
    pub fn late(self, by: Duration) {
        self.add(Action::Late(by));
    }

    /// They panic with `message`.
    pub fn panic(self, message: &'static str) {
        self.add(Action::Panic(message));
    }

    fn add(self, action: Action) {
        let Self { provisioner, operation, workspace_id, times } = self;
        provisioner.lock().rules.push(Script { operation, workspace_id, left: times, action });
    }
}

/// Lets the calls go on that wait for it, and those that come later.
#[derive(Debug, Clone)]
pub struct Release(CancellationToken);

impl Release {
    /// Lets them go on.
    pub fn release(&self) {
        self.0.cancel();
    }
}

#[derive(Debug)]
struct Script {
    operation: Operation,
    workspace_id: Option<WorkspaceId>,
    /// How many calls it is still for; none for all of them.
    left: Option<usize>,
    action: Action,
}

#[derive(Clone)]
enum Action {
    Fail(Arc<dyn Fn() -> Error + Send + Sync>),
    Hang,
    Until(Release),
    Late(Duration),
    Panic(&'static str),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fail(_) => "Fail",
            Self::Hang => "Hang",
            Self::Until(_) => "Until",
            Self::Late(_) => "Late",
            Self::Panic(_) => "Panic",
        })
    }
}

impl State {
    fn take_action(&mut self, operation: Operation, id: Option<WorkspaceId>) -> Option<Action> {
        let rule = self.rules.iter_mut().find(|rule| {
            rule.operation == operation
                && (rule.workspace_id.is_none() || rule.workspace_id == id)
                && rule.left != Some(0)
        })?;
        rule.left = rule.left.map(|left| left - 1);
        Some(rule.action.clone())
    }

    /// The workspace, made where it is not there.
    fn volume(&mut self, id: WorkspaceId) -> &mut Fake {
        self.workspaces.entry(id).or_insert_with(|| Fake {
            files: BTreeMap::new(),
            workload: Workload::Absent,
            url: String::new(),
            log: String::new(),
        })
    }
}

impl Fake {
    /// Does what the suite's workload does with its variables.
    fn run(&mut self, env: &BTreeMap<String, String>) {
        self.log = "workload starts\n".to_owned();
        if let Some(path) = env.get("MOLECULE_TEST_SHOW") {
            let shown = match self.files.get(path) {
                Some(file) => {
                    let mode = if file.private { 600 } else { 644 };
                    format!("{mode} {}", String::from_utf8_lossy(&file.contents))
                }
                None => "missing".to_owned(),
            };
            self.log.push_str(&format!("file {path} {shown}\n"));
        }
        if env.contains_key("MOLECULE_TEST_ENV") {
            env.iter().for_each(|(name, value)| self.log.push_str(&format!("env {name}={value}\n")));
        }
        for line in 1..=number(env, "MOLECULE_TEST_LINES").unwrap_or(0) {
            self.log.push_str(&format!("line {line}\n"));
        }
        self.workload = match number(env, "MOLECULE_TEST_EXIT") {
            None => Workload::Running,
            exit_code => Workload::Ended { exit_code },
        };
    }
}

fn number(env: &BTreeMap<String, String>, name: &str) -> Option<i64> {
    env.get(name)?.parse().ok()
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LocalProvisioner for ScriptedProvisioner {
    fn capability(&self) -> Capability {
        self.capability
    }

    async fn prepare(&self, spec: &StartSpec) -> Result<()> {
        self.enter(Operation::Prepare, Some(spec.workspace_id)).await
    }

    async fn start(&self, spec: &StartSpec) -> Result<Option<String>> {
        let id = spec.workspace_id;
        self.lock().starts.push(spec.clone());
        self.enter(Operation::Start, Some(id)).await?;
        for file in &spec.files {
            if !Path::new(&file.path).components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(Error::invalid(format!(
                    "config file path {:?} leaves the configuration folder",
                    file.path
                )));
            }
        }
        let mut state = self.lock();
        let url = format!("http://127.0.0.1:{}", 20_000 + state.starts.len() % 40_000);
        let fake = state.volume(id);
        for file in &spec.files {
            let kept = FakeFile { contents: file.contents.clone(), private: file.private };
            fake.files.insert(file.path.clone(), kept);
        }
        let mut env = spec.env.clone();
        env.insert("WORKSPACE_ID".to_owned(), id.to_string());
        env.insert("PLATFORM_URL".to_owned(), spec.platform_url.clone());
        fake.url.clone_from(&url);
        fake.run(&env);
        Ok(self.capability.assigns_url.then_some(url))
    }

    async fn stop(&self, id: WorkspaceId) -> Result<()> {
        self.enter(Operation::Stop, Some(id)).await?;
        if let Some(fake) = self.lock().workspaces.get_mut(&id) {
            fake.workload = Workload::Absent;
        }
        Ok(())
    }

    async fn halt(&self, id: WorkspaceId) -> Result<()> {
        self.enter(Operation::Halt, Some(id)).await?;
        let mut state = self.lock();
        if let Some(fake) = state.workspaces.get_mut(&id).filter(|fake| fake.workload == Workload::Running) {
            fake.workload = Workload::Ended { exit_code: None };
        }
        Ok(())
    }

    async fn is_running(&self, id: WorkspaceId) -> Result<bool> {
        self.enter(Operation::IsRunning, Some(id)).await?;
        Ok(self.lock().workspaces.get(&id).is_some_and(|fake| fake.workload == Workload::Running))
    }

    async fn exec_read(&self, id: WorkspaceId, path: &str) -> Result<Vec<u8>> {
        self.enter(Operation::ExecRead, Some(id)).await?;
        self.require(self.capability.exec, "read files of a workload")?;
        let state = self.lock();
        let fake = state.workspaces.get(&id).filter(|fake| fake.workload == Workload::Running);
        let fake = fake.ok_or_else(|| Error::not_found("the workspace does not run"))?;
        let contents = path.strip_prefix("/configs/").and_then(|path| fake.files.get(path)).map(|file| &file.contents);
        match contents {
            None => Err(Error::not_found(format!("there is no file {path}"))),
            Some(contents) if contents.len() > EXEC_READ_LIMIT => {
                Err(Error::new(ErrorKind::TooLarge, format!("{path} is too large")))
            }
            Some(contents) => Ok(contents.clone()),
        }
    }

    async fn remove_volume(&self, id: WorkspaceId) -> Result<()> {
        self.enter(Operation::RemoveVolume, Some(id)).await?;
        self.require(self.capability.volumes, "remove a volume")?;
        self.lock().workspaces.remove(&id);
        Ok(())
    }

    async fn purge_volumes(&self, id: WorkspaceId) -> Result<()> {
        self.enter(Operation::PurgeVolumes, Some(id)).await?;
        self.require(self.capability.volumes, "remove volumes")?;
        self.lock().workspaces.remove(&id);
        Ok(())
    }

    async fn volume_has_file(&self, id: WorkspaceId, path: &str) -> Result<bool> {
        self.enter(Operation::VolumeHasFile, Some(id)).await?;
        self.require(self.capability.volumes, "look into a volume")?;
        Ok(self.lock().workspaces.get(&id).is_some_and(|fake| fake.files.contains_key(path)))
    }

    async fn write_auth_token(&self, id: WorkspaceId, token: &SecretString) -> Result<()> {
        self.enter(Operation::WriteAuthToken, Some(id)).await?;
        self.require(self.capability.volumes, "write to a volume")?;
        let kept = FakeFile { contents: token.expose_secret().into(), private: true };
        self.lock().volume(id).files.insert(".auth_token".to_owned(), kept);
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl WorkloadInspector for ScriptedProvisioner {
    fn peer_url(&self, _: WorkspaceId) -> Option<String> {
        None
    }

    async fn address(&self, id: WorkspaceId) -> Result<Option<String>> {
        self.enter(Operation::Address, Some(id)).await?;
        let state = self.lock();
        let fake = state.workspaces.get(&id).filter(|fake| fake.workload == Workload::Running);
        Ok(fake.map(|fake| fake.url.clone()).filter(|_| self.capability.assigns_url))
    }

    async fn observe(&self, id: WorkspaceId) -> Result<Workload> {
        self.enter(Operation::Observe, Some(id)).await?;
        Ok(self.lock().workspaces.get(&id).map_or(Workload::Absent, |fake| fake.workload))
    }

    async fn logs(&self, id: WorkspaceId, lines: usize) -> Result<Vec<u8>> {
        self.enter(Operation::Logs, Some(id)).await?;
        let state = self.lock();
        let fake = state.workspaces.get(&id).filter(|fake| fake.workload != Workload::Absent);
        let log = &fake.ok_or_else(|| Error::not_found("the workspace has no workload to read a log of"))?.log;
        let all: Vec<&str> = log.split_inclusive('\n').collect();
        Ok(all[all.len().saturating_sub(lines)..].concat().into_bytes())
    }

    async fn inventory(&self) -> Result<Vec<WorkspaceId>> {
        self.enter(Operation::Inventory, None).await?;
        Ok(self.lock().workspaces.keys().copied().collect())
    }

    async fn own_inventory(&self) -> Result<Vec<WorkspaceId>> {
        self.enter(Operation::OwnInventory, None).await?;
        Ok(self.lock().workspaces.keys().copied().collect())
    }
}

/// Only the configuration folder has files.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl WorkspaceFiles for ScriptedProvisioner {
    async fn list_files(
        &self,
        id: WorkspaceId,
        root: FileRoot,
        folder: Option<&FilePath>,
        depth: usize,
    ) -> Result<Option<Vec<FileEntry>>> {
        self.enter(Operation::ListFiles, Some(id)).await?;
        self.require(self.capability.files, "list files")?;
        let state = self.lock();
        let Some(fake) = state.workspaces.get(&id).filter(|_| root == FileRoot::Configs) else { return Ok(None) };
        let prefix = folder.map_or_else(String::new, |folder| format!("{folder}/"));
        let below = fake.files.iter().filter_map(|(path, file)| Some((path.strip_prefix(&prefix)?, file)));
        let mut found = BTreeMap::new();
        for (path, file) in below {
            for (end, _) in path.match_indices('/') {
                found.insert(path[..end].to_owned(), None);
            }
            found.insert(path.to_owned(), Some(file.contents.len() as u64));
        }
        if folder.is_some() && found.is_empty() {
            return Err(no_file());
        }
        let entry =
            |(path, size): (String, Option<u64>)| FileEntry { path, size: size.unwrap_or(0), dir: size.is_none() };
        Ok(Some(found.into_iter().filter(|(path, _)| is_listed(path, depth)).map(entry).collect()))
    }

    async fn read_file(&self, id: WorkspaceId, root: FileRoot, path: &FilePath) -> Result<Option<Vec<u8>>> {
        self.enter(Operation::ReadFile, Some(id)).await?;
        self.require(self.capability.files, "read files")?;
        let state = self.lock();
        let Some(fake) = state.workspaces.get(&id).filter(|_| root == FileRoot::Configs) else { return Ok(None) };
        match fake.files.get(path.as_str()) {
            None => Err(no_file()),
            Some(file) if file.contents.len() > EXEC_READ_LIMIT => {
                Err(Error::new(ErrorKind::TooLarge, format!("{path} is too large")))
            }
            Some(file) => Ok(Some(file.contents.clone())),
        }
    }

    async fn write_files(&self, id: WorkspaceId, files: &[ConfigFile]) -> Result<()> {
        self.enter(Operation::WriteFiles, Some(id)).await?;
        self.require(self.capability.files, "write files")?;
        for file in files {
            FilePath::parse(&file.path)?;
        }
        let mut state = self.lock();
        let fake = state.volume(id);
        for file in files {
            let kept = FakeFile { contents: file.contents.clone(), private: file.private };
            fake.files.insert(file.path.clone(), kept);
        }
        Ok(())
    }

    async fn delete_file(&self, id: WorkspaceId, path: &FilePath) -> Result<()> {
        self.enter(Operation::DeleteFile, Some(id)).await?;
        self.require(self.capability.files, "delete files")?;
        let mut state = self.lock();
        let Some(fake) = state.workspaces.get_mut(&id) else { return Ok(()) };
        if fake.files.keys().any(|file| file.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/'))) {
            return Err(Error::invalid("it is a folder"));
        }
        fake.files.remove(path.as_str());
        Ok(())
    }
}
#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{clock::random_uuid, testing::SeededEntropy};

    fn ids() -> [WorkspaceId; 2] {
        let entropy = SeededEntropy::new(1);
        [(); 2].map(|()| WorkspaceId::from_uuid(random_uuid(&entropy)))
    }

    #[tokio::test]
    async fn rules_hold_for_their_workspace_and_in_the_order_they_were_added() {
        let provisioner = ScriptedProvisioner::new();
        let [one, other] = ids();
        provisioner.when(Operation::Stop).of(one).times(2).fail(ErrorKind::Upstream, "first");
        provisioner.when(Operation::Stop).of(one).fail(ErrorKind::Conflict, "then");
        let mut kinds = Vec::new();
        for _ in 0..4 {
            kinds.push(provisioner.stop(one).await.unwrap_err().kind());
        }
        assert_eq!(kinds, [ErrorKind::Upstream, ErrorKind::Upstream, ErrorKind::Conflict, ErrorKind::Conflict]);
        provisioner.stop(other).await.unwrap();
        provisioner.behave();
        provisioner.stop(one).await.unwrap();
        assert_eq!(provisioner.calls()[4], Call { operation: Operation::Stop, workspace_id: Some(other) });
        assert_eq!(provisioner.count(Operation::Stop), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_hang_come_late_and_panic() {
        let provisioner = ScriptedProvisioner::new();
        let [id, _] = ids();
        provisioner.when(Operation::IsRunning).times(1).hang();
        provisioner.when(Operation::IsRunning).times(1).late(Duration::from_secs(60));
        let release = provisioner.when(Operation::IsRunning).times(1).hang_until_released();
        provisioner.when(Operation::IsRunning).panic("as asked");

        let ask = || provisioner.is_running(id);
        assert!(tokio::time::timeout(Duration::from_secs(3600), ask()).await.is_err());
        let before = tokio::time::Instant::now();
        assert!(!ask().await.unwrap());
        assert_eq!(before.elapsed().as_secs(), 60);
        let (answer, ()) = tokio::join!(ask(), async {
            provisioner.called(Operation::IsRunning, 3).await;
            release.release();
        });
        assert!(!answer.unwrap());
        assert!(std::panic::AssertUnwindSafe(ask()).catch_unwind().await.is_err());
    }
}
