//! Whatever happens in whatever order, some things always hold: a small model of a fleet is kept beside a real one while
//! agents, operators, sweeps, machines and the clock do as chance has it.
//!
//! A failure names its seed; `MOLECULE_TEST_SEED` plays it again. Ids, tokens and times come from the seed as well, and after
//! each move it is waited until the server is at rest, so that on one server the same seed is the same game to the last
//! answer: a test says so. What overlaps a start does so because a move held that start back. On two replicas only the moves
//! are the same: how fast one hears of the other is up to the database.

mod faults;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use molecule_core::{
    ControlPlane,
    clock::Clock,
    config::Config,
    error::{Error, ErrorKind, Result},
    events::{EventKind, Which},
    id::WorkspaceId,
    identity::Credential,
    provisioner::{Workload, WorkloadInspector},
    registry::{Heartbeat, Register},
    store::Store,
    testing::{
        ManualClock, Operation, Release, ScriptedProvisioner, SeededEntropy, Sweep, hear_peers, sweep, until_asked,
        until_over,
    },
    workspace::{CreateWorkspace, Status},
};
use secrecy::ExposeSecret;
use serde_json::json;

use faults::Fault;

const PATIENCE: Duration = Duration::from_secs(30);

/// How long one replica may take to hear what another revoked.
const HEARD: Duration = Duration::from_secs(1);

/// How long stopping may take for a clean-up.
const BUDGET: Duration = Duration::from_secs(2);

/// How long to wait before looking again.
const LOOK: Duration = Duration::from_millis(2);

/// How often every task has its turn before the server is asked whether it is at rest.
const YIELDS: usize = 32;

const GAMES: usize = 16;
const MOVES: usize = 60;
const MOST_WORKSPACES: usize = 5;

/// Something that happens. Numbers pick one of what is there.
#[derive(Debug, Clone, Copy)]
enum Move {
    Create {
        external: bool,
    },
    Register(usize, usize),
    Beat(usize, usize),
    Restart(usize),
    Pause(usize),
    Resume(usize),
    Hibernate(usize),
    Delete(usize),
    IssueToken(usize),
    RevokeToken(usize, usize),
    WorkloadEnds(usize),
    NextStartFails(usize),
    NextStopFails(usize),
    /// The next start goes on only when it is let go, so that other moves happen meanwhile.
    NextStartWaits(usize),
    LetGo(usize),
    Sweep(Sweep),
    ClockGoes {
        seconds: i64,
    },
    OtherReplica,
}

fn any_move(chance: &mut fastrand::Rng) -> Move {
    let who = chance.usize(..MOST_WORKSPACES);
    match chance.usize(..29) {
        0 | 1 => Move::Create { external: chance.bool() },
        2..=4 => Move::Register(who, chance.usize(..)),
        5..=9 => Move::Beat(who, chance.usize(..)),
        10 | 11 => Move::Restart(who),
        12 => Move::Pause(who),
        13 | 14 => Move::Resume(who),
        15 => Move::Hibernate(who),
        16 => Move::Delete(who),
        17 => Move::IssueToken(who),
        18 => Move::RevokeToken(who, chance.usize(..)),
        19 => Move::WorkloadEnds(who),
        20 => Move::NextStartFails(who),
        21 => Move::NextStopFails(who),
        22 => Move::NextStartWaits(who),
        23 | 24 => Move::LetGo(who),
        25 | 26 => {
            let sweeps = [Sweep::Health, Sweep::Timeouts, Sweep::Orphans, Sweep::Idle];
            Move::Sweep(sweeps[chance.usize(..sweeps.len())])
        }
        27 => Move::ClockGoes { seconds: [-3600, 5, 100, 700, 4000][chance.usize(..5)] },
        _ => Move::OtherReplica,
    }
}

/// A clock that is moved by hand, and besides goes on a little with each look, so that no two events have the same time.
#[derive(Debug)]
struct Ticking(ManualClock, AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> DateTime<Utc> {
        self.0.now() + TimeDelta::microseconds(self.1.fetch_add(1, Ordering::Relaxed))
    }

    fn uptime(&self) -> Duration {
        self.0.uptime()
    }
}

/// What is known of a workspace without asking the control plane.
struct Member {
    external: bool,
    removed: bool,
    /// The status after the last move.
    status: Status,
    /// Every token that was ever issued for it, in that order.
    tokens: Vec<Token>,
    /// Lets go what was told to wait.
    held: Option<Release>,
}

struct Token {
    text: String,
    /// Whether it must be taken.
    good: bool,
    /// Whether nobody knows: a sweep may have revoked it, as it may what nobody used for long.
    doubtful: bool,
}

impl Token {
    fn new(text: String) -> Self {
        Self { text, good: true, doubtful: false }
    }
}

struct Game {
    replicas: Vec<ControlPlane>,
    turn: usize,
    backend: ScriptedProvisioner,
    clock: ManualClock,
    members: Vec<(WorkspaceId, Member)>,
    /// How many of the starts were looked at.
    starts: usize,
    /// The clock was set back.
    went_back: bool,
}

impl Game {
    async fn new(url: &str, replicas: usize, seed: u64) -> Self {
        let backend = ScriptedProvisioner::new();
        let clock = ManualClock::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let ticking = Arc::new(Ticking(clock.clone(), AtomicI64::new(0)));
        let mut game =
            Self { replicas: Vec::new(), turn: 0, backend, clock, members: Vec::new(), starts: 0, went_back: false };
        for n in 0..replicas {
            let control_plane = ControlPlane::builder(Store::connect(url).await.unwrap())
                .config(Config { delete_budget: BUDGET, ..Config::default() })
                .clock(Arc::clone(&ticking) as Arc<dyn Clock>)
                .entropy(Arc::new(SeededEntropy::new(seed.wrapping_add(n as u64))))
                .local_backend(Arc::new(game.backend.clone()))
                .build()
                .unwrap();
            hear_peers(&control_plane);
            game.replicas.push(control_plane);
        }
        for replica in game.replicas.iter().filter(|_| replicas > 1) {
            tokio::time::timeout(PATIENCE, async {
                while !replica.store().hears_peers() {
                    tokio::time::sleep(LOOK).await;
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
    fn token(&self, who: usize, which: usize) -> Option<(WorkspaceId, usize, String)> {
        let (id, member) = self.member(who)?;
        let at = which.checked_rem(member.tokens.len())?;
        Some((id, at, member.tokens[at].text.clone()))
    }

    async fn play(&mut self, next: Move) -> Result<()> {
        match next {
            Move::Create { external } if self.members.len() < MOST_WORKSPACES => {
                let name = format!("m{}", self.members.len());
                let created =
                    self.here().create(CreateWorkspace { name, external, ..CreateWorkspace::default() }).await?;
                let first = created.auth_token.map(|token| Token::new(token.expose_secret().to_owned()));
                let status = created.workspace.status;
                let tokens = first.into_iter().collect();
                let member = Member { external, removed: false, status, tokens, held: None };
                self.members.push((created.workspace.id, member));
            }
            Move::Register(who, which) => {
                if let Some((id, at, token)) = self.token(who, which) {
                    let credential = self.here().authenticate(Some(&token)).await?;
                    let register = Register {
                        id,
                        url: "http://127.0.0.1:9000".to_owned(),
                        agent_card: json!({"name": "m"}),
                        delivery_mode: None,
                    };
                    self.here().register(&register, credential).await?;
                    self.spoke_with(who, at);
                }
            }
            Move::Beat(who, which) => {
                if let Some((id, at, token)) = self.token(who, which) {
                    let credential = self.here().authenticate(Some(&token)).await?;
                    self.here().heartbeat(id, &Heartbeat::default(), credential).await?;
                    self.spoke_with(who, at);
                }
            }
            Move::IssueToken(who) => {
                if let Some((id, _)) = self.member(who) {
                    let issued = self.here().issue_token(id).await?;
                    self.members[who].1.tokens.push(Token::new(issued.token.expose_secret().to_owned()));
                }
            }
            Move::RevokeToken(who, which) => {
                if let Some((id, at, text)) = self.token(who, which) {
                    let listed = self.here().tokens(id, 100, 0).await?;
                    if let Some(token) = listed.iter().find(|token| text.starts_with(&token.prefix)) {
                        self.here().revoke_token(id, token.id).await?;
                        self.members[who].1.tokens[at].good = false;
                    }
                }
            }
            Move::Delete(who) => {
                if let Some((id, _)) = self.member(who) {
                    let deleted = self.here().delete(id, true, false).await;
                    // It is removed although its workload is still there, for the sweep to clear up.
                    if deleted.as_ref().err().is_none_or(is_a_failed_stop) {
                        let member = &mut self.members[who].1;
                        member.removed = true;
                        member.tokens.iter_mut().for_each(|token| token.good = false);
                    }
                    deleted?;
                }
            }
            Move::NextStartFails(who) | Move::NextStopFails(who) => {
                let operation =
                    if matches!(next, Move::NextStartFails(_)) { Operation::Start } else { Operation::Stop };
                if let Some((id, _)) = self.member(who) {
                    self.backend.when(operation).of(id).times(1).fail(ErrorKind::Upstream, "no");
                }
            }
            Move::NextStartWaits(who) => {
                if let Some((id, Member { held: None, .. })) = self.member(who) {
                    let release = self.backend.when(Operation::Start).of(id).times(1).hang_until_released();
                    self.members[who].1.held = Some(release);
                }
            }
            Move::LetGo(who) => {
                if let Some((_, member)) = self.members.get_mut(who)
                    && let Some(release) = member.held.take()
                {
                    release.release();
                }
            }
            Move::Sweep(which) => {
                sweep(self.here(), which).await?;
                if which == Sweep::Orphans {
                    self.doubt_unused().await?;
                }
            }
            Move::ClockGoes { seconds } => {
                self.went_back |= seconds < 0;
                self.clock.set(self.clock.now() + TimeDelta::seconds(seconds));
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
                    _ => self.workload_ends(id).await?,
                }
            }
            Move::Create { .. } => {}
        }
        Ok(())
    }

    /// Ends the workload. Where it was still waited for, that is noticed before anything else happens.
    async fn workload_ends(&self, id: WorkspaceId) -> Result<()> {
        self.backend.end(id, Some(1));
        if self.members.iter().any(|(it, member)| *it == id && member.external) {
            return Ok(());
        }
        let ended = matches!(self.backend.observe(id).await?, Workload::Ended { .. });
        if ended && self.backend.waiting(id) == 0 && self.status(id).await == Status::Provisioning {
            for replica in &self.replicas {
                tokio::time::timeout(PATIENCE, until_over(replica, id)).await.expect("it is noticed that it ended");
            }
        }
        Ok(())
    }

    async fn status(&self, id: WorkspaceId) -> Status {
        self.here().workspace(id).await.unwrap().expect("nothing is purged").status
    }

    /// Someone was let in with a token of this workspace.
    fn spoke_with(&self, who: usize, at: usize) {
        let (id, member) = &self.members[who];
        assert!(!member.removed, "the agent of {id} was heard, which was removed");
        let token = &member.tokens[at];
        let late = self.replicas.len() > 1;
        assert!(token.good || token.doubtful || late, "a token of {id} was taken, which was revoked");
    }

    /// Nobody knows of tokens whose workspace has no workload whether they were used lately.
    async fn doubt_unused(&mut self) -> Result<()> {
        for (id, member) in self.members.iter_mut().filter(|(_, member)| !member.external) {
            if self.backend.observe(*id).await? == Workload::Absent {
                member.tokens.iter_mut().filter(|token| token.good).for_each(|token| token.doubtful = true);
            }
        }
        Ok(())
    }

    /// Waits until nothing goes on that no move holds back.
    async fn settle(&self) {
        let at_rest = async {
            for (id, _) in self.members.iter().filter(|(_, member)| !member.external) {
                loop {
                    // A start that was given up hears of it before it is asked whether it waits.
                    for _ in 0..YIELDS {
                        tokio::task::yield_now().await;
                    }
                    let mut at_work = 0;
                    for replica in &self.replicas {
                        let asked = tokio::time::timeout(LOOK, until_asked(replica, *id)).await;
                        at_work += usize::from(asked.is_err());
                    }
                    // What one replica holds back says nothing of the other.
                    if at_work <= self.backend.waiting(*id) {
                        break;
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, at_rest).await.expect("the server comes to rest");
    }

    /// The tokens that the backend was handed since: each takes the place of those before it.
    fn learn_tokens(&mut self) {
        let starts = self.backend.starts();
        for spec in &starts[self.starts..] {
            let (_, member) = self.members.iter_mut().find(|(id, _)| *id == spec.workspace_id).expect("it was created");
            for file in spec.files.iter().filter(|file| file.path == ".auth_token") {
                let text = String::from_utf8(file.contents.clone()).unwrap();
                member.tokens.iter_mut().for_each(|token| token.good = false);
                member.tokens.push(Token { good: !member.removed, ..Token::new(text) });
            }
        }
        self.starts = starts.len();
    }

    /// Whom a move is about: the others stay as they are.
    fn concerns(next: Move, who: usize) -> bool {
        match next {
            Move::Create { .. } | Move::Sweep(_) => true,
            Move::Register(whom, _) | Move::Beat(whom, _) | Move::LetGo(whom) => whom == who,
            Move::Restart(whom) | Move::Pause(whom) | Move::Resume(whom) | Move::Hibernate(whom) => whom == who,
            Move::Delete(whom) | Move::WorkloadEnds(whom) => whom == who,
            _ => false,
        }
    }

    /// Looks at everything after a move. `next` is none after the last.
    async fn check(&mut self, next: Option<Move>) {
        self.learn_tokens();
        let (here, late) = (self.here().clone(), self.replicas.len() > 1);
        for (who, (id, member)) in self.members.iter_mut().enumerate() {
            let row = here.workspace(*id).await.unwrap().expect("nothing is purged");
            let (before, after) = (member.status, row.status);
            assert!(!member.removed || after == Status::Removed, "{id} was removed and is {after}");
            if let Some(next) = next {
                let by_two = || Status::ALL.iter().any(|by| before.can_become(*by) && by.can_become(after));
                let allowed = before == after || Self::concerns(next, who) && (before.can_become(after) || by_two());
                assert!(allowed, "{id} was {before} and is {after}");
                let asleep = matches!(before, Status::Paused | Status::Hibernating | Status::Hibernated);
                let spoke = matches!(next, Move::Register(..) | Move::Beat(..));
                assert!(!(asleep && spoke) || before == after, "{id} was {before}, and its agent made it {after}");
            }
            member.status = after;
            if member.external {
                let odd = matches!(after, Status::Offline | Status::Failed | Status::Hibernating | Status::Hibernated);
                assert!(!odd, "{id} is external and {after}");
                assert!(!self.backend.calls().iter().any(|call| call.workspace_id == Some(*id)), "{id} is external");
            }
            for token in &mut member.tokens {
                let mut works = works(&here, *id, &token.text).await;
                if token.doubtful {
                    token.good &= works;
                    token.doubtful = false;
                }
                // Another replica hears of it a moment later; the one that did it knows at once.
                let deadline = tokio::time::Instant::now() + HEARD;
                while works != token.good && late && tokio::time::Instant::now() < deadline {
                    tokio::time::sleep(LOOK).await;
                    works = self::works(&here, *id, &token.text).await;
                }
                match token.good {
                    true => assert!(works, "a token of {id} is refused that nobody revoked"),
                    false => assert!(!works, "a token of {id} that was revoked is taken"),
                }
            }
        }
    }

    /// Lets everything come to its end, and looks at what is left.
    async fn end(mut self) {
        self.backend.behave();
        self.members.iter_mut().filter_map(|(_, member)| member.held.take()).for_each(|held| held.release());
        self.settle().await;
        for late in [0, 100_000, 200_000] {
            self.clock.advance(Duration::from_secs(late));
            sweep(self.here(), Sweep::Timeouts).await.unwrap();
            sweep(self.here(), Sweep::Orphans).await.unwrap();
            self.doubt_unused().await.unwrap();
            self.settle().await;
        }
        for replica in &self.replicas {
            assert!(replica.shut_down(PATIENCE).await, "a task was left behind");
        }
        self.check(None).await;
        for (id, member) in &self.members {
            let row = self.here().workspace(*id).await.unwrap().expect("nothing is purged");
            assert_ne!(row.status, Status::Provisioning, "{id} has been started for days");
            let all = Which { limit: 1000, ..Which::default() };
            let mut log: Vec<String> =
                self.here().event_log(Some(*id), &all).await.unwrap().into_iter().map(|it| it.event_type).collect();
            log.reverse();
            // Each server keeps its own events in order. Those of another it hears too late to write after them where the clock
            // that both go by was set back.
            let in_order = self.replicas.len() == 1 || !self.went_back;
            if let Err(why) = each_try_ends_once(&log).or_else(|why| if in_order { Err(why) } else { Ok(()) }) {
                panic!("{id}: {why}: {log:?}");
            }
            let tries = log.iter().filter(|kind| *kind == EventKind::WorkspaceProvisioning.as_str()).count();
            let starts = self.backend.starts().iter().filter(|spec| spec.workspace_id == *id).count();
            assert!(starts <= tries, "{id} was started {starts} times in {tries} tries");
            let removals = log.iter().filter(|kind| *kind == EventKind::WorkspaceRemoved.as_str()).count();
            assert_eq!(removals, usize::from(member.removed), "{id}");
        }
        for replica in &self.replicas {
            replica.store().close().await;
        }
    }
}

/// Whether each try of a log, oldest first, ends once: its agent comes, it fails, or something else takes its place.
fn each_try_ends_once(log: &[String]) -> std::result::Result<(), String> {
    let (begins, fails) = (EventKind::WorkspaceProvisioning.as_str(), EventKind::WorkspaceProvisionFailed.as_str());
    let comes = EventKind::WorkspaceOnline.as_str();
    let others = [EventKind::WorkspacePaused, EventKind::WorkspaceHibernated, EventKind::WorkspaceRemoved];
    // Of the try under way: that it failed, and that its agent came.
    let mut of_try: Option<(bool, bool)> = None;
    for (at, kind) in log.iter().enumerate() {
        match &mut of_try {
            _ if kind == begins => of_try = Some((false, false)),
            Some((failed, came)) if kind == fails => {
                if *failed || *came {
                    let before = if *came { "its agent had come" } else { "it had failed before" };
                    return Err(format!("event {at}: a try failed although {before}"));
                }
                *failed = true;
            }
            Some((_, came)) if kind == comes => *came = true,
            None if kind == fails => return Err(format!("event {at}: a try failed that had not begun")),
            _ if others.iter().any(|other| kind == other.as_str()) => of_try = None,
            _ => {}
        }
    }
    match of_try {
        Some((false, false)) => Err("the last try has no end".to_owned()),
        _ => Ok(()),
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

/// Plays a game, and gives all that was moved and answered. The error is what did not hold.
async fn game(url: &str, replicas: usize, seed: u64, fault: Option<Fault>) -> std::result::Result<String, String> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut game = Game::new(url, replicas, seed).await;
    let mut told = String::new();
    let first = [Move::Create { external: false }, Move::Create { external: true }, Move::Create { external: false }];
    let played = async {
        let planned: Vec<Move> = first.into_iter().chain(fault.into_iter().flat_map(Fault::moves)).collect();
        let sure = planned.len();
        let moves = planned.into_iter().chain(std::iter::repeat_with(|| any_move(&mut chance)));
        for (n, next) in moves.take(MOVES).enumerate() {
            let outcome = game.play(next).await;
            game.settle().await;
            if let Some(fault) = fault.filter(|_| n + 1 == sure) {
                fault.strikes(&game).await;
            }
            match &outcome {
                Ok(()) => writeln!(told, "{next:?}").unwrap(),
                Err(error) => {
                    writeln!(told, "{next:?}: {error}").unwrap();
                    assert!(is_an_answer(error), "{next:?}: {error:?}");
                }
            }
            game.check(Some(next)).await;
            let statuses: Vec<&str> = game.members.iter().map(|(_, member)| member.status.as_str()).collect();
            writeln!(told, "    {}", statuses.join(" ")).unwrap();
        }
        game.end().await;
    };
    match AssertUnwindSafe(played).catch_unwind().await {
        Ok(()) => Ok(told),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let why = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
            Err(format!("{why}\nMOLECULE_TEST_SEED={seed} plays this again:\n{told}"))
        }
    }
}

async fn play(url: &str, replicas: usize, seed: u64) {
    if let Err(why) = game(url, replicas, seed, None).await {
        panic!("{why}");
    }
}

/// Plays a game on one server, whose database is gone with it.
async fn alone(seed: u64, fault: Option<Fault>) -> std::result::Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    game(&format!("sqlite:{}", folder.path().join("molecule.db").display()), 1, seed, fault).await
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
        if let Err(why) = alone(seed, None).await {
            panic!("{why}");
        }
    }
}

#[tokio::test]
async fn whatever_happens_on_two_replicas_the_model_holds() {
    for seed in seeds(GAMES / 4) {
        let Some(database) = support::postgres_database().await else { return };
        play(database.url(), 2, seed).await;
    }
}

#[tokio::test]
async fn a_seed_is_the_same_game_each_time() {
    for seed in seeds(3) {
        let once = alone(seed, None).await.unwrap_or_else(|why| panic!("{why}"));
        let again = alone(seed, None).await.unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(once, again, "MOLECULE_TEST_SEED={seed}");
    }
}

#[tokio::test]
async fn the_model_notices_what_is_wrong() {
    for (fault, why) in [
        (Fault::Revokes, "is refused that nobody revoked"),
        (Fault::Forgives, "that was revoked is taken"),
        (Fault::Revives, "was removed and is online"),
        (Fault::Resumes, "was paused, and its agent made it online"),
        (Fault::FailsExternal, "is external and failed"),
        (Fault::AsksExternal, "is external"),
        (Fault::FailsTwice, "a try failed although it had failed before"),
        (Fault::StartsTwice, " tries\nMOLECULE_TEST_SEED"),
    ] {
        let told = alone(7, Some(fault)).await.expect_err("the model must notice");
        assert!(told.contains(why) && told.contains("MOLECULE_TEST_SEED=7 plays this again"), "{fault:?}: {told}");
    }
}

#[test]
fn a_try_ends_once() {
    let (begins, comes, fails) = ("WORKSPACE_PROVISIONING", "WORKSPACE_ONLINE", "WORKSPACE_PROVISION_FAILED");
    let log = |kinds: &[&str]| each_try_ends_once(&kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>());
    for good in [
        &[begins, comes][..],
        &[begins, fails, comes],
        &[begins, begins, comes, "WORKSPACE_OFFLINE", comes],
        &[begins, "WORKSPACE_PAUSED", begins, fails],
        &["WORKSPACE_AWAITING_AGENT", comes, "WORKSPACE_REMOVED"],
    ] {
        assert_eq!(log(good), Ok(()), "{good:?}");
    }
    for bad in [&[begins][..], &[begins, fails, fails], &[begins, comes, fails], &[fails], &[begins, comes, begins]] {
        assert!(log(bad).is_err(), "{bad:?}");
    }
    let known: BTreeSet<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert!([begins, comes, fails, "WORKSPACE_PAUSED", "WORKSPACE_REMOVED"].iter().all(|kind| known.contains(kind)));
}
