//! Whatever happens in whatever order, some things always hold: a small model of a fleet is kept beside a real one while
//! agents, operators, sweeps, machines and the clock do as chance has it.
//!
//! A failure names its seed; `MOLECULE_TEST_SEED` plays it again.

mod support;

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use chrono::DateTime;
use molecule_core::{
    ControlPlane,
    config::Config,
    error::{Error, ErrorKind, Result},
    events::{EventKind, Which},
    id::WorkspaceId,
    identity::Credential,
    registry::{Heartbeat, Register},
    store::Store,
    testing::{ManualClock, Operation, ScriptedProvisioner, Sweep, hear_peers, sweep},
    workspace::{CreateWorkspace, Status},
};
use secrecy::ExposeSecret;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);

/// How long one replica may take to hear what another revoked.
const HEARD: Duration = Duration::from_secs(1);

const GAMES: usize = 16;
const MOVES: usize = 60;
const MOST_WORKSPACES: usize = 5;

/// Something that happens. Numbers pick one of what is there.
#[derive(Debug, Clone, Copy)]
enum Move {
    Create { external: bool },
    Register(usize, usize),
    Beat(usize, usize),
    Restart(usize),
    Pause(usize),
    Resume(usize),
    Hibernate(usize),
    Delete(usize),
    IssueToken(usize),
    RevokeToken(usize),
    WorkloadEnds(usize),
    NextStartFails,
    NextStopFails,
    Sweep(Sweep),
    ClockGoes { seconds: i64 },
    OtherReplica,
}

fn any_move(chance: &mut fastrand::Rng) -> Move {
    let who = chance.usize(..MOST_WORKSPACES);
    match chance.usize(..26) {
        0 | 1 => Move::Create { external: chance.bool() },
        2..=4 => Move::Register(who, chance.usize(..)),
        5..=9 => Move::Beat(who, chance.usize(..)),
        10 | 11 => Move::Restart(who),
        12 => Move::Pause(who),
        13 | 14 => Move::Resume(who),
        15 => Move::Hibernate(who),
        16 => Move::Delete(who),
        17 => Move::IssueToken(who),
        18 => Move::RevokeToken(who),
        19 => Move::WorkloadEnds(who),
        20 => Move::NextStartFails,
        21 => Move::NextStopFails,
        22 | 23 => {
            let sweeps = [Sweep::Health, Sweep::Timeouts, Sweep::Orphans, Sweep::Idle];
            Move::Sweep(sweeps[chance.usize(..sweeps.len())])
        }
        24 => Move::ClockGoes { seconds: [-3600, 5, 100, 700, 4000][chance.usize(..5)] },
        _ => Move::OtherReplica,
    }
}

/// What is known of a workspace without asking the control plane.
struct Member {
    external: bool,
    removed: bool,
    /// Every token that was ever issued for it, and whether it was refused once.
    tokens: BTreeMap<String, bool>,
}

struct Game {
    replicas: Vec<ControlPlane>,
    turn: usize,
    backend: ScriptedProvisioner,
    clock: ManualClock,
    members: Vec<(WorkspaceId, Member)>,
}

impl Game {
    async fn new(url: &str, replicas: usize) -> Self {
        let backend = ScriptedProvisioner::new();
        let clock = ManualClock::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let mut game = Self { replicas: Vec::new(), turn: 0, backend, clock, members: Vec::new() };
        for _ in 0..replicas {
            let control_plane = ControlPlane::builder(Store::connect(url).await.unwrap())
                .config(Config::default())
                .clock(Arc::new(game.clock.clone()))
                .local_backend(Arc::new(game.backend.clone()))
                .build()
                .unwrap();
            hear_peers(&control_plane);
            game.replicas.push(control_plane);
        }
        for replica in game.replicas.iter().filter(|_| replicas > 1) {
            tokio::time::timeout(PATIENCE, async {
                while !replica.store().hears_peers() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
            .await
            .expect("replicas hear one another");
        }
        game
    }

    fn here(&self) -> &ControlPlane {
        &self.replicas[self.turn % self.replicas.len()]
    }

    fn member(&self, who: usize) -> Option<(WorkspaceId, &Member)> {
        self.members.get(who).map(|(id, member)| (*id, member))
    }

    /// One of the tokens of a workspace, good or not.
    fn token(&self, who: usize, which: usize) -> Option<(WorkspaceId, String)> {
        let (id, member) = self.member(who)?;
        let count = member.tokens.len();
        member.tokens.keys().nth(which.checked_rem(count)?).map(|token| (id, token.clone()))
    }

    async fn play(&mut self, next: Move) -> Result<()> {
        match next {
            Move::Create { external } if self.members.len() < MOST_WORKSPACES => {
                let name = format!("m{}", self.members.len());
                let created =
                    self.here().create(CreateWorkspace { name, external, ..CreateWorkspace::default() }).await?;
                let first = created.auth_token.map(|token| (token.expose_secret().to_owned(), false));
                let member = Member { external, removed: false, tokens: first.into_iter().collect() };
                self.members.push((created.workspace.id, member));
            }
            Move::Register(who, which) => {
                if let Some((id, token)) = self.token(who, which) {
                    let credential = self.here().authenticate(Some(&token)).await?;
                    let register = Register {
                        id,
                        url: "http://127.0.0.1:9000".to_owned(),
                        agent_card: json!({"name": "m"}),
                        delivery_mode: None,
                    };
                    self.here().register(&register, credential).await?;
                    self.spoke_for(who);
                }
            }
            Move::Beat(who, which) => {
                if let Some((id, token)) = self.token(who, which) {
                    let credential = self.here().authenticate(Some(&token)).await?;
                    self.here().heartbeat(id, &Heartbeat::default(), credential).await?;
                    self.spoke_for(who);
                }
            }
            Move::IssueToken(who) => {
                if let Some((id, _)) = self.member(who) {
                    let issued = self.here().issue_token(id).await?;
                    self.members[who].1.tokens.insert(issued.token.expose_secret().to_owned(), false);
                }
            }
            Move::RevokeToken(who) => {
                if let Some((id, _)) = self.member(who)
                    && let Some(token) = self.here().tokens(id, 1, 0).await?.first()
                {
                    self.here().revoke_token(id, token.id).await?;
                    for (text, refused) in &mut self.members[who].1.tokens {
                        *refused |= text.starts_with(&token.prefix);
                    }
                }
            }
            Move::Delete(who) => {
                if let Some((id, _)) = self.member(who) {
                    let deleted = self.here().delete(id, true, false).await;
                    // It is removed although its workload is still there, for the sweep to clear up.
                    self.members[who].1.removed |= deleted.as_ref().err().is_none_or(is_a_failed_stop);
                    deleted?;
                }
            }
            Move::NextStartFails => self.backend.when(Operation::Start).times(1).fail(ErrorKind::Upstream, "no"),
            Move::NextStopFails => self.backend.when(Operation::Stop).times(1).fail(ErrorKind::Upstream, "no"),
            Move::Sweep(which) => sweep(self.here(), which).await?,
            Move::ClockGoes { seconds } => {
                let now = molecule_core::clock::Clock::now(&self.clock);
                self.clock.set(now + chrono::TimeDelta::seconds(seconds));
            }
            Move::OtherReplica => self.turn += 1,
            Move::Restart(who)
            | Move::Pause(who)
            | Move::Resume(who)
            | Move::Hibernate(who)
            | Move::WorkloadEnds(who) => {
                let Some((id, _)) = self.member(who) else { return Ok(()) };
                match next {
                    Move::Restart(_) => drop(self.here().restart(id, false).await?),
                    Move::Pause(_) => drop(self.here().pause(id).await?),
                    Move::Resume(_) => drop(self.here().resume(id).await?),
                    Move::Hibernate(_) => self.here().hibernate(id, true).await?,
                    _ => self.backend.end(id, Some(1)),
                }
            }
            Move::Create { .. } => {}
        }
        Ok(())
    }

    /// Someone was let in with a token of this workspace.
    fn spoke_for(&self, who: usize) {
        assert!(!self.members[who].1.removed, "the agent of a removed workspace was heard");
    }

    /// The tokens that the backend was handed since.
    fn learn_tokens(&mut self) {
        for spec in self.backend.starts() {
            let (_, member) = self.members.iter_mut().find(|(id, _)| *id == spec.workspace_id).expect("it was created");
            for file in spec.files.iter().filter(|file| file.path == ".auth_token") {
                member.tokens.entry(String::from_utf8(file.contents.clone()).unwrap()).or_insert(false);
            }
        }
    }

    async fn check(&mut self) {
        self.learn_tokens();
        let here = self.here().clone();
        for (id, member) in &mut self.members {
            let row = here.workspace(*id).await.unwrap().expect("nothing is purged");
            assert!(!member.removed || row.status == Status::Removed, "{id} was removed and is {}", row.status);
            if member.external {
                let odd =
                    matches!(row.status, Status::Offline | Status::Failed | Status::Hibernating | Status::Hibernated);
                assert!(!odd, "{id} is external and {}", row.status);
                assert!(!self.backend.calls().iter().any(|call| call.workspace_id == Some(*id)), "{id} is external");
            }
            for (token, refused) in &mut member.tokens {
                let mut good = works(&here, *id, token).await;
                if *refused && good {
                    let deadline = tokio::time::Instant::now() + HEARD;
                    while good && tokio::time::Instant::now() < deadline {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        good = works(&here, *id, token).await;
                    }
                    assert!(!good, "a token of {id} that was refused is taken again");
                }
                // On another replica it may still be good for a moment.
                *refused |= !good;
            }
        }
    }

    /// Lets everything come to its end, and looks at what is left.
    async fn end(mut self) {
        self.backend.behave();
        for late in [0, 100_000, 200_000] {
            self.clock.advance(Duration::from_secs(late));
            sweep(self.here(), Sweep::Timeouts).await.unwrap();
            sweep(self.here(), Sweep::Orphans).await.unwrap();
        }
        for replica in &self.replicas {
            assert!(replica.shut_down(PATIENCE).await, "a task was left behind");
        }
        self.check().await;
        for (id, member) in &self.members {
            let row = self.here().workspace(*id).await.unwrap().expect("nothing is purged");
            assert_ne!(row.status, Status::Provisioning, "{id} has been started for days");
            let all = Which { limit: 1000, ..Which::default() };
            let events = self.here().event_log(Some(*id), &all).await.unwrap();
            let count = |kind: EventKind| events.iter().filter(|event| event.event_type == kind.as_str()).count();
            let (begun, failed) = (count(EventKind::WorkspaceProvisioning), count(EventKind::WorkspaceProvisionFailed));
            assert!(failed <= begun, "{id} was begun {begun} times and failed {failed} times");
            assert_eq!(count(EventKind::WorkspaceRemoved), usize::from(member.removed), "{id}");
        }
        for replica in &self.replicas {
            replica.store().close().await;
        }
    }
}

/// Whether the token speaks for the workspace.
async fn works(control_plane: &ControlPlane, id: WorkspaceId, token: &str) -> bool {
    match control_plane.authenticate(Some(token)).await {
        Ok(Credential::Workspace(owner)) => owner.workspace_id == id,
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
            false
        }
    }
}

/// Nothing that anyone does is a fault of the server, but for what its backend was told to fail.
fn is_an_answer(error: &Error) -> bool {
    let fault = matches!(error.kind(), ErrorKind::Unexpected | ErrorKind::Unavailable);
    !fault || is_a_failed_stop(error)
}

fn is_a_failed_stop(error: &Error) -> bool {
    error.to_string().contains("could not be stopped")
}

async fn play(url: &str, replicas: usize, seed: u64) {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut game = Game::new(url, replicas).await;
    let mut told = String::new();
    let first = [Move::Create { external: false }, Move::Create { external: true }, Move::Create { external: false }];
    let played = async {
        let moves = first.into_iter().chain(std::iter::repeat_with(|| any_move(&mut chance)));
        for next in moves.take(MOVES) {
            let outcome = game.play(next).await;
            match &outcome {
                Ok(()) => writeln!(told, "{next:?}").unwrap(),
                Err(error) => {
                    writeln!(told, "{next:?}: {error}").unwrap();
                    assert!(is_an_answer(error), "{next:?}: {error:?}");
                }
            }
            game.check().await;
        }
        game.end().await;
    };
    let played = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(played)).await;
    if played.is_err() {
        panic!("MOLECULE_TEST_SEED={seed} plays this again:\n{told}");
    }
}

/// The seeds of the games: the one that was asked for, or others each time.
#[expect(clippy::disallowed_methods, reason = "whoever runs the test says which game is played")]
fn seeds(count: usize) -> Vec<u64> {
    match std::env::var("MOLECULE_TEST_SEED").ok() {
        Some(seed) => vec![seed.parse().expect("MOLECULE_TEST_SEED is a number")],
        None => (0..count).map(|_| fastrand::u64(..)).collect(),
    }
}

#[tokio::test]
async fn whatever_happens_on_one_server_the_model_holds() {
    for seed in seeds(GAMES) {
        let folder = tempfile::tempdir().unwrap();
        play(&format!("sqlite:{}", folder.path().join("molecule.db").display()), 1, seed).await;
    }
}

#[tokio::test]
async fn whatever_happens_on_two_replicas_the_model_holds() {
    for seed in seeds(GAMES / 4) {
        let Some(database) = support::postgres_database().await else { return };
        play(database.url(), 2, seed).await;
    }
}
