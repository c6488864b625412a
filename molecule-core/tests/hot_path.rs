//! What a steady heartbeat costs the database, and what it never costs: the truth.

mod support;

use std::{sync::Arc, time::Duration};

use chrono::DateTime;
use futures_util::{StreamExt, stream};
use molecule_core::{
    ControlPlane,
    config::Config,
    id::WorkspaceId,
    identity::Credential,
    registry::Heartbeat,
    store::Store,
    testing::{ManualClock, hear_peers, heard_fleet},
    workspace::{CreateWorkspace, Status},
};
use secrecy::{ExposeSecret, SecretString};

const PATIENCE: Duration = Duration::from_secs(60);

/// Between two beats of an agent.
const BEAT: Duration = Duration::from_secs(20);

type Agents = Vec<(WorkspaceId, SecretString)>;

struct Fleet {
    control_plane: ControlPlane,
    clock: ManualClock,
}

impl Fleet {
    async fn over(store: Store) -> Self {
        Self::swept(store, Duration::from_secs(3600)).await
    }

    async fn swept(store: Store, health_tick: Duration) -> Self {
        let clock = ManualClock::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let config = Config {
            health_tick,
            // Saved by hand here, as often as the clock of the test says.
            telemetry_tick: Duration::from_secs(3600),
            timeout_tick: Duration::from_secs(3600),
            ..Config::default()
        };
        let control_plane = ControlPlane::builder(store).config(config).clock(Arc::new(clock.clone())).build().unwrap();
        Self { control_plane, clock }
    }

    async fn agents(&self, count: usize) -> Agents {
        stream::iter(0..count)
            .map(async |n| {
                let name = format!("e{n}");
                let request = CreateWorkspace { name, external: true, ..CreateWorkspace::default() };
                let created = self.control_plane.create(request).await.unwrap();
                (created.workspace.id, created.auth_token.unwrap())
            })
            .buffer_unordered(16)
            .collect()
            .await
    }

    async fn beat(&self, (id, token): &(WorkspaceId, SecretString)) -> molecule_core::Result<()> {
        let credential = self.control_plane.authenticate(Some(token.expose_secret())).await?;
        self.control_plane.heartbeat(*id, &Heartbeat::default(), credential).await.map(drop)
    }

    async fn status(&self, id: WorkspaceId) -> Status {
        self.control_plane.workspace(id).await.unwrap().unwrap().status
    }
}

/// How many workspaces the fleet of a million beats has, and how often each beats.
const AGENTS: usize = 100_000;
const ROUNDS: u64 = 10;

/// What the process may hold for each tracked workspace: 96 MiB for 100 000 of them.
const BYTES_EACH: u64 = 96 * 1024 * 1024 / 100_000;

/// A million beats; what is in memory is saved between them every 30 s, as the server does.
async fn steady_beats_cost_next_to_nothing(fleet: Fleet) {
    let memory = resident();
    let agents = heard_fleet(&fleet.control_plane, AGENTS).await;
    let store = fleet.control_plane.store().clone();
    let before = store.statements();
    let mut unsaved = Duration::ZERO;
    for _ in 0..ROUNDS {
        fleet.clock.advance(BEAT);
        unsaved += BEAT;
        for agent in &agents {
            fleet.beat(agent).await.unwrap();
        }
        if unsaved >= Config::default().telemetry_tick {
            fleet.control_plane.save_telemetry().await.unwrap();
            unsaved = Duration::ZERO;
        }
    }
    let after = store.statements();
    let beats = u64::try_from(agents.len()).unwrap() * ROUNDS;
    assert_eq!(after.reads - before.reads, 0, "a steady beat reads nothing");
    let writes = after.writes - before.writes;
    assert!(writes * 200 <= beats, "{writes} writes for {beats} beats");
    if let (Some(before), Some(after)) = (memory, resident()) {
        let grown = after.saturating_sub(before);
        assert!(grown <= BYTES_EACH * u64::try_from(AGENTS).unwrap(), "{grown} bytes for {AGENTS} workspaces");
    }
    fleet.control_plane.save_telemetry().await.unwrap();
    // What was saved is what was said last.
    let rows = fleet.control_plane.workspaces().await.unwrap();
    assert_eq!(rows.len(), AGENTS);
    let last = rows[0].created_at + BEAT * u32::try_from(ROUNDS).unwrap();
    assert!(rows.iter().all(|row| row.last_heartbeat_at == Some(last)), "a beat was lost");
    assert!(fleet.control_plane.shut_down(PATIENCE).await);
}

/// How many bytes of memory this process holds, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[tokio::test]
async fn a_million_steady_beats_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::connect(&format!("sqlite:{}", folder.path().join("fleet.db").display())).await.unwrap();
    steady_beats_cost_next_to_nothing(Fleet::over(store).await).await;
}

#[tokio::test]
async fn a_million_steady_beats_on_postgres() {
    let Some(database) = support::postgres_database().await else { return };
    let fleet = Fleet::over(Store::connect(database.url()).await.unwrap()).await;
    // Not started: what other loops read in all that time would be counted.
    hear_peers(&fleet.control_plane);
    until(async || fleet.control_plane.store().hears_peers()).await;
    steady_beats_cost_next_to_nothing(fleet).await;
}

#[tokio::test]
async fn first_beats_go_the_careful_way_and_the_next_ones_cost_nothing() {
    let fleet = Fleet::over(Store::connect("sqlite::memory:").await.unwrap()).await;
    let agents = fleet.agents(20).await;
    // The first brings a workspace online, the second is the first that is seen online.
    for round in 0..4 {
        let before = fleet.control_plane.store().statements();
        for agent in &agents {
            fleet.beat(agent).await.unwrap();
        }
        let after = fleet.control_plane.store().statements();
        assert_eq!(after == before, round > 1, "round {round}");
    }
}

async fn refused_within_a_second(replica: &Fleet, token: &SecretString) {
    let refused = tokio::time::timeout(Duration::from_secs(1), async {
        while replica.control_plane.authenticate(Some(token.expose_secret())).await.unwrap() != Credential::Unknown {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    refused.await.expect("the replica hears of it within a second");
}

#[tokio::test]
async fn a_token_revoked_on_one_replica_is_refused_by_the_other_within_a_second() {
    let Some(database) = support::postgres_database().await else { return };
    let one = Fleet::over(Store::connect(database.url()).await.unwrap()).await;
    let other = Fleet::over(Store::connect(database.url()).await.unwrap()).await;
    for fleet in [&one, &other] {
        fleet.control_plane.start();
        until(async || fleet.control_plane.store().hears_peers()).await;
    }
    let agent = one.agents(1).await.remove(0);
    for _ in 0..4 {
        other.beat(&agent).await.unwrap();
    }
    let reads = other.control_plane.store().statements().reads;
    other.beat(&agent).await.unwrap();
    assert_eq!(other.control_plane.store().statements().reads, reads, "the other replica knows it by heart");
    let second = one.control_plane.issue_token(agent.0).await.unwrap().token;
    other.beat(&(agent.0, second.clone())).await.unwrap();
    let live = one.control_plane.tokens(agent.0, 10, 0).await.unwrap();
    // Both were issued at the same instant of this clock.
    let listed = live.iter().find(|token| second.expose_secret().starts_with(&token.prefix)).unwrap();
    one.control_plane.revoke_token(agent.0, listed.id).await.unwrap();
    refused_within_a_second(&other, &second).await;
    other.beat(&agent).await.expect("its other token stays good");
    one.control_plane.delete(agent.0, true, false).await.unwrap();
    refused_within_a_second(&other, &agent.1).await;
    assert!(other.beat(&agent).await.is_err());
    for fleet in [one, other] {
        assert!(fleet.control_plane.shut_down(PATIENCE).await);
        fleet.control_plane.store().close().await;
    }
}

#[tokio::test]
async fn a_token_of_the_organisation_is_known_by_heart_until_another_replica_revokes_it() {
    let Some(database) = support::postgres_database().await else { return };
    let one = Fleet::over(Store::connect(database.url()).await.unwrap()).await;
    let other = Fleet::over(Store::connect(database.url()).await.unwrap()).await;
    for fleet in [&one, &other] {
        fleet.control_plane.start();
        until(async || fleet.control_plane.store().hears_peers()).await;
    }
    let minted = one.control_plane.mint_org_token(Credential::Operator, Some("ci")).await.unwrap();
    let show = async || other.control_plane.authenticate(Some(minted.token.expose_secret())).await.unwrap();
    for _ in 0..3 {
        assert!(matches!(show().await, Credential::Org(owner) if owner.id == minted.id));
    }
    let reads = other.control_plane.store().statements().reads;
    assert!(matches!(show().await, Credential::Org(_)));
    assert_eq!(other.control_plane.store().statements().reads, reads, "the other replica knows it by heart");
    other.control_plane.save_telemetry().await.unwrap();
    assert!(one.control_plane.org_tokens().await.unwrap()[0].last_used_at.is_some());
    one.control_plane.revoke_org_token(minted.id).await.unwrap();
    refused_within_a_second(&other, &minted.token).await;
    for fleet in [one, other] {
        assert!(fleet.control_plane.shut_down(PATIENCE).await);
        fleet.control_plane.store().close().await;
    }
}

#[tokio::test]
async fn an_agent_that_is_only_heard_in_memory_is_not_lost() {
    let fleet = Fleet::swept(Store::connect("sqlite::memory:").await.unwrap(), Duration::from_millis(20)).await;
    let agent = fleet.agents(1).await.remove(0);
    for _ in 0..3 {
        fleet.beat(&agent).await.unwrap();
    }
    // The row was written long ago; the agent was heard a moment ago.
    fleet.clock.advance(Duration::from_secs(80));
    fleet.beat(&agent).await.unwrap();
    fleet.clock.advance(Duration::from_secs(80));
    fleet.control_plane.start();
    let swept = fleet.control_plane.store().statements().reads + 3;
    until(async || fleet.control_plane.store().statements().reads >= swept).await;
    assert_eq!(fleet.status(agent.0).await, Status::Online);
    fleet.clock.advance(Duration::from_secs(11));
    until(async || fleet.status(agent.0).await == Status::AwaitingAgent).await;
    fleet.beat(&agent).await.unwrap();
    assert_eq!(fleet.status(agent.0).await, Status::Online);
    assert!(fleet.control_plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn what_is_in_memory_is_saved_on_the_way_down() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("fleet.db").display());
    let fleet = Fleet::over(Store::connect(&url).await.unwrap()).await;
    let agent = fleet.agents(1).await.remove(0);
    for _ in 0..4 {
        fleet.clock.advance(BEAT);
        fleet.beat(&agent).await.unwrap();
    }
    let heard = fleet.control_plane.workspace(agent.0).await.unwrap().unwrap().last_heartbeat_at;
    assert!(fleet.control_plane.shut_down(PATIENCE).await);
    fleet.control_plane.store().close().await;
    let again = Fleet::over(Store::connect(&url).await.unwrap()).await;
    assert_eq!(again.control_plane.workspace(agent.0).await.unwrap().unwrap().last_heartbeat_at, heard);
}

#[expect(clippy::future_not_send, reason = "it is awaited where it is made")]
async fn until(condition: impl AsyncFn() -> bool) {
    let reached = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("the condition comes true");
}
