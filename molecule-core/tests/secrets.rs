//! Secrets from the moment they are set to the environment of the agents they are for.
#![cfg(feature = "testing")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use molecule_core::{
    ControlPlane, Error, ErrorKind, Result,
    config::Config,
    id::WorkspaceId,
    provisioner::{StartSpec, env::EnvMutator},
    secrets::{Cipher, Scope},
    store::{Store, gate},
    testing::{Operation, ScriptedProvisioner},
    workspace::{CreateWorkspace, Status, Workspace},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);

const KEY: &str = "0123456789abcdef0123456789abcdef";

struct Fleet {
    control_plane: ControlPlane,
    backend: ScriptedProvisioner,
}

impl Fleet {
    async fn new() -> Self {
        Self::over(Store::connect("sqlite::memory:").await.unwrap(), KEY, None)
    }

    fn over(store: Store, key: &str, mutator: Option<Mutator>) -> Self {
        let backend = ScriptedProvisioner::new();
        let mut builder = ControlPlane::builder(store)
            .cipher(Cipher::new(&key.into(), &[]).unwrap())
            .local_backend(Arc::new(backend.clone()));
        if let Some(mutator) = mutator {
            builder = builder.env_mutator(Arc::new(mutator));
        }
        Self { control_plane: builder.build().unwrap(), backend }
    }

    async fn create(&self, request: CreateWorkspace) -> WorkspaceId {
        self.control_plane.create(request).await.unwrap().workspace.id
    }

    /// The environment of the `n`th start, counted from 1.
    async fn started_with(&self, n: usize) -> StartSpec {
        self.backend.called(Operation::Start, n).await;
        self.backend.starts().swap_remove(n - 1)
    }

    async fn until(&self, id: WorkspaceId, status: Status) -> Workspace {
        tokio::time::timeout(PATIENCE, async {
            loop {
                let row = self.control_plane.workspace(id).await.unwrap().unwrap();
                if row.status == status {
                    return row;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{id} never became {status}"))
    }
}

fn named(name: &str) -> CreateWorkspace {
    CreateWorkspace { name: name.to_owned(), ..CreateWorkspace::default() }
}

fn secrets(pairs: &[(&str, &str)]) -> BTreeMap<String, SecretString> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretString::from(*value))).collect()
}

#[derive(Debug, Clone, Copy)]
enum Mutator {
    Adds,
    Repeats,
    Fails,
    Panics,
}

#[async_trait::async_trait]
impl EnvMutator for Mutator {
    async fn mutate(&self, workspace: &Workspace, env: &mut BTreeMap<String, String>) -> Result<()> {
        match self {
            Self::Adds => drop(env.insert("FROM_PLUGIN".to_owned(), format!("{} of {}", env["OWN"], workspace.name))),
            Self::Repeats => drop(env.insert("REPEATED".to_owned(), format!("{}, again", env["FROM_PLUGIN"]))),
            Self::Panics => panic!("it is asked all the same"),
            Self::Fails => return Err(Error::invalid("the plugin's own words")),
        }
        Ok(())
    }
}

#[tokio::test]
async fn an_agent_is_given_its_secrets_its_model_and_its_identity() {
    let store = Store::connect("sqlite::memory:").await.unwrap();
    let fleet = Fleet::over(store, KEY, Some(Mutator::Adds));
    fleet.control_plane.set_global_secret("SHARED", &"global".into()).await.unwrap();
    fleet.control_plane.set_global_secret("OWN", &"global".into()).await.unwrap();
    let parent = fleet.create(CreateWorkspace { external: true, ..named("lead") }).await;
    let request = CreateWorkspace {
        role: Some("analyst".to_owned()),
        model: Some("minimax/MiniMax-M2.7".to_owned()),
        runtime: Some("hermes".to_owned()),
        parent_id: Some(parent),
        secrets: secrets(&[("OWN", "own"), ("GIT_AUTHOR_NAME", "me"), ("LEFT_OUT", "")]),
        ..named("Data Engineer")
    };
    fleet.create(request).await;
    let env = fleet.started_with(1).await.env;
    let expected = [
        ("FROM_PLUGIN", "own of Data Engineer"),
        ("GIT_AUTHOR_EMAIL", "data-engineer@agents.moleculesai.app"),
        ("GIT_AUTHOR_NAME", "me"),
        ("GIT_COMMITTER_EMAIL", "data-engineer@agents.moleculesai.app"),
        ("GIT_COMMITTER_NAME", "Molecule AI Data Engineer"),
        ("HERMES_DEFAULT_MODEL", "minimax/MiniMax-M2.7"),
        ("LLM_PROVIDER", "minimax"),
        ("MODEL", "minimax/MiniMax-M2.7"),
        ("MODEL_PROVIDER", "minimax/MiniMax-M2.7"),
        ("MOLECULE_AGENT_NAME", "Data Engineer"),
        ("MOLECULE_AGENT_ROLE", "analyst"),
        ("OWN", "own"),
        ("PARENT_ID", &parent.to_string()),
        ("SHARED", "global"),
    ];
    assert_eq!(env, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
}

#[tokio::test]
async fn the_model_reaches_every_runtime_and_survives_every_restart() {
    let fleet = Fleet::new().await;
    for (n, (runtime, model, provider)) in [
        ("claude-code", Some("sonnet"), None),
        ("hermes", Some("nousresearch/hermes-4-70b"), Some("openrouter")),
        ("openclaw", Some("openai:gpt-4.1-mini"), None),
        ("codex", Some("some-unknown-vendor/foo"), None),
        ("claude-code", None, None),
    ]
    .into_iter()
    .enumerate()
    {
        let request =
            CreateWorkspace { runtime: Some(runtime.to_owned()), model: model.map(str::to_owned), ..named("a") };
        let id = fleet.create(request).await;
        let first = fleet.started_with(2 * n + 1).await.env;
        fleet.control_plane.restart(id, false).await.unwrap();
        let second = fleet.started_with(2 * n + 2).await.env;
        assert_eq!(first, second, "{runtime}");
        let found = |name: &str| first.get(name).map(String::as_str);
        assert_eq!((found("MODEL"), found("MODEL_PROVIDER")), (model, model), "{runtime}");
        assert_eq!(found("HERMES_DEFAULT_MODEL"), model.filter(|_| runtime == "hermes"), "{runtime}");
        assert_eq!(found("LLM_PROVIDER"), provider, "{runtime}");
    }
}

#[tokio::test]
async fn a_change_of_the_model_restarts_once_and_takes_a_derived_provider_along() {
    let fleet = Fleet::new().await;
    let control_plane = &fleet.control_plane;
    let id = fleet.create(CreateWorkspace { model: Some("minimax/a".to_owned()), ..named("a") }).await;
    fleet.started_with(1).await;
    control_plane.set_model(id, "grok/b").await.unwrap();
    let env = fleet.started_with(2).await.env;
    assert_eq!((env["MODEL"].as_str(), env["LLM_PROVIDER"].as_str()), ("grok/b", "xai"));
    control_plane.set_provider(id, "custom").await.unwrap();
    fleet.started_with(3).await;
    control_plane.set_model(id, "minimax/c").await.unwrap();
    let env = fleet.started_with(4).await.env;
    assert_eq!((env["MODEL"].as_str(), env["LLM_PROVIDER"].as_str()), ("minimax/c", "custom"), "it was chosen");
    control_plane.set_model(id, "").await.unwrap();
    let env = fleet.started_with(5).await.env;
    assert_eq!((env.get("MODEL"), env["LLM_PROVIDER"].as_str()), (None, "custom"));
    assert_eq!(control_plane.model(id).await.unwrap(), None);
    control_plane.set_provider(id, "").await.unwrap();
    assert!(!fleet.started_with(6).await.env.contains_key("LLM_PROVIDER"));
    assert_eq!(fleet.backend.starts().len(), 6);
}

#[tokio::test]
async fn what_a_plugin_breaks_fails_the_start_in_plain_words() {
    let store = Store::connect("sqlite::memory:").await.unwrap();
    let fleet = Fleet::over(store, KEY, Some(Mutator::Fails));
    let id = fleet.create(named("a")).await;
    let row = fleet.until(id, Status::Failed).await;
    assert_eq!(row.last_sample_error.as_deref(), Some("plugin env mutator chain failed"));
    assert!(fleet.backend.starts().is_empty());
}

#[tokio::test]
async fn plugins_act_in_their_order_and_the_first_that_fails_ends_it() {
    let store = Store::connect("sqlite::memory:").await.unwrap();
    let backend = ScriptedProvisioner::new();
    let chain = |mutators: &[Mutator]| {
        let mut builder = ControlPlane::builder(store.clone())
            .cipher(Cipher::new(&KEY.into(), &[]).unwrap())
            .local_backend(Arc::new(backend.clone()));
        for mutator in mutators {
            builder = builder.env_mutator(Arc::new(*mutator));
        }
        Fleet { control_plane: builder.build().unwrap(), backend: backend.clone() }
    };
    let request = || CreateWorkspace { secrets: secrets(&[("OWN", "v")]), ..named("a") };
    chain(&[Mutator::Adds, Mutator::Repeats]).create(request()).await;
    let env = chain(&[]).started_with(1).await.env;
    assert_eq!((env["FROM_PLUGIN"].as_str(), env["REPEATED"].as_str()), ("v of a", "v of a, again"));
    let fleet = chain(&[Mutator::Fails, Mutator::Panics]);
    let id = fleet.create(request()).await;
    let row = fleet.until(id, Status::Failed).await;
    assert_eq!(row.last_sample_error.as_deref(), Some("plugin env mutator chain failed"), "the next is not asked");
}

#[tokio::test]
async fn what_does_not_decrypt_fails_the_start_and_is_named_to_the_operator() {
    let store = Store::connect("sqlite::memory:").await.unwrap();
    let before = Fleet::over(store.clone(), KEY, None);
    let own = before.create(CreateWorkspace { secrets: secrets(&[("OWN", "v")]), ..named("own") }).await;
    before.started_with(1).await;
    let after = Fleet::over(store, "another key of thirty-two bytes!", None);
    after.control_plane.restart(own, false).await.unwrap();
    let row = after.until(own, Status::Failed).await;
    assert_eq!(row.last_sample_error.as_deref(), Some("failed to decrypt workspace secret"));
    before.control_plane.set_global_secret("SHARED", &"v".into()).await.unwrap();
    let error = after.control_plane.secret_values(own).await.unwrap_err();
    assert_eq!(error.members(), [("failed_keys", json!(["global:SHARED", "workspace:OWN"]))]);
    let chosen = before.create(CreateWorkspace { model: Some("grok/grok-4".to_owned()), ..named("chosen") }).await;
    for error in [after.control_plane.model(chosen).await, after.control_plane.provider(chosen).await] {
        let error = error.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unexpected, "failed to decrypt"));
    }
    let fresh = after.create(named("fresh")).await;
    let row = after.until(fresh, Status::Failed).await;
    assert_eq!(row.last_sample_error.as_deref(), Some("failed to decrypt global secret"));
    assert!(after.backend.starts().is_empty());
}

#[tokio::test]
async fn an_older_key_can_go_once_secrets_were_encrypted_anew() {
    const NEW: &str = "another key of thirty-two bytes!";
    let store = Store::connect("sqlite::memory:").await.unwrap();
    // One kept under no key, one under the old one.
    let plain = ControlPlane::builder(store.clone()).build().unwrap();
    plain.set_global_secret("PLAIN", &"p".into()).await.unwrap();
    assert_eq!(plain.renew_secrets().await.unwrap(), (0, 0), "without a key there is nothing to do");
    let old = Fleet::over(store.clone(), KEY, None).control_plane;
    let request = CreateWorkspace { external: true, secrets: secrets(&[("OWN", "o")]), ..named("a") };
    let id = old.create(request).await.unwrap().workspace.id;
    let with = |older: &[&str]| {
        let older: Vec<SecretString> = older.iter().map(|key| SecretString::from(*key)).collect();
        let cipher = Cipher::new(&NEW.into(), &older).unwrap();
        ControlPlane::builder(store.clone()).cipher(cipher).build().unwrap()
    };
    assert_eq!(with(&[]).renew_secrets().await.unwrap(), (1, 1), "what cannot be read stays");
    assert_eq!(with(&[KEY]).renew_secrets().await.unwrap(), (1, 0));
    assert_eq!(with(&[KEY]).renew_secrets().await.unwrap(), (0, 0));
    let values = with(&[]).secret_values(id).await.unwrap();
    let values: Vec<(&str, &str)> = values.iter().map(|(key, value)| (key.as_str(), value.expose_secret())).collect();
    assert_eq!(values, [("OWN", "o"), ("PLAIN", "p")]);
    assert!(old.secret_values(id).await.is_err());
}

#[tokio::test]
async fn a_broken_rule_leaves_no_workspace_behind() {
    let fleet = Fleet::new().await;
    for (key, value) in [("WORKSPACE_ID", "x"), ("A B", "x"), ("A", "nul\0")] {
        let request = CreateWorkspace { secrets: secrets(&[(key, value)]), ..named("a") };
        let error = fleet.control_plane.create(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{key}");
    }
    assert!(fleet.control_plane.workspaces().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_change_restarts_exactly_those_it_concerns() {
    let fleet = Fleet::new().await;
    let control_plane = &fleet.control_plane;
    let with_own = fleet.create(CreateWorkspace { secrets: secrets(&[("KEY", "own")]), ..named("own") }).await;
    let without = fleet.create(named("without")).await;
    let external = fleet.create(CreateWorkspace { external: true, ..named("external") }).await;
    let removed = fleet.create(named("removed")).await;
    fleet.backend.called(Operation::Start, 3).await;
    control_plane.delete(removed, true, false).await.unwrap();
    let started =
        || -> Vec<WorkspaceId> { fleet.backend.starts().iter().skip(3).map(|spec| spec.workspace_id).collect() };
    control_plane.set_global_secret("KEY", &"v".into()).await.unwrap();
    assert_eq!(fleet.started_with(4).await.env["KEY"], "v");
    control_plane.set_secret(external, "KEY", &"v".into()).await.unwrap();
    control_plane.set_secret(with_own, "KEY", &"v".into()).await.unwrap();
    fleet.started_with(5).await;
    control_plane.delete_global_secret("KEY").await.unwrap();
    assert!(!fleet.started_with(6).await.env.contains_key("KEY"));
    assert_eq!(started(), [without, with_own, without]);
    let listed: Vec<_> = control_plane.secrets(external).await.unwrap();
    assert_eq!(
        listed.iter().map(|secret| (secret.key.as_str(), secret.scope)).collect::<Vec<_>>(),
        [("KEY", Scope::Workspace)]
    );
    let values = control_plane.secret_values(external).await.unwrap();
    assert_eq!(values["KEY"].expose_secret(), "v");
}

#[tokio::test]
async fn a_change_for_all_brings_them_up_a_few_at_a_time() {
    let fleet = Fleet::new().await;
    let mut ids = BTreeSet::new();
    for n in 0..10 {
        ids.insert(fleet.create(named(&n.to_string())).await);
    }
    fleet.backend.called(Operation::Start, 10).await;
    fleet.control_plane.set_global_secret("KEY", &"v".into()).await.unwrap();
    // Nobody registers, so that each of those under way keeps its place.
    fleet.backend.called(Operation::Start, 14).await;
    let mut seen = 14;
    while seen < 20 {
        assert_eq!(fleet.backend.starts().len(), seen, "one more than places are free was started");
        let next = fleet.backend.starts()[seen - 4].clone();
        let token = next.files.iter().find(|file| file.path == ".auth_token").unwrap();
        let token = String::from_utf8(token.contents.clone()).unwrap();
        let credential = fleet.control_plane.authenticate(Some(&token)).await.unwrap();
        let beat = molecule_core::registry::Heartbeat::default();
        fleet.control_plane.heartbeat(next.workspace_id, &beat, credential).await.unwrap();
        seen += 1;
        fleet.backend.called(Operation::Start, seen).await;
    }
    let again: BTreeSet<WorkspaceId> = fleet.backend.starts().iter().skip(10).map(|spec| spec.workspace_id).collect();
    assert_eq!(again, ids);
}

#[tokio::test]
async fn what_is_kept_already_brings_nothing_up() {
    let fleet = Fleet::new().await;
    let control_plane = &fleet.control_plane;
    let id = fleet.create(CreateWorkspace { model: Some("minimax/a".to_owned()), ..named("a") }).await;
    fleet.started_with(1).await;
    // Blanks around a choice do not count.
    let same = async |model: &str| {
        let chosen = Some(model.to_owned()).filter(|model| !model.is_empty());
        assert_eq!(control_plane.set_model(id, &format!(" {model}\n")).await.unwrap(), chosen);
        let provider = control_plane.provider(id).await.unwrap();
        let again = format!(" {} ", provider.as_deref().unwrap_or_default());
        assert_eq!(control_plane.set_provider(id, &again).await.unwrap(), provider);
    };
    same("minimax/a").await;
    control_plane.set_model(id, "grok/b").await.unwrap();
    assert_eq!(fleet.started_with(2).await.env["LLM_PROVIDER"], "xai");
    same("grok/b").await;
    for (starts, own, value) in [(3, true, "1"), (4, true, "2"), (5, false, "1")] {
        for _ in 0..3 {
            match own {
                true => control_plane.set_secret(id, "OWN", &value.into()).await.unwrap(),
                false => control_plane.set_global_secret("GLOBAL", &value.into()).await.unwrap(),
            }
        }
        let env = fleet.started_with(starts).await.env;
        assert_eq!(env[if own { "OWN" } else { "GLOBAL" }], value);
    }
    assert_eq!(control_plane.set_model(id, " ").await.unwrap(), None);
    fleet.started_with(6).await;
    same("").await;
    // Whatever is under way comes to its end here.
    assert!(fleet.control_plane.shut_down(PATIENCE).await);
    assert_eq!(fleet.backend.count(Operation::Start), 6);
    assert_eq!(control_plane.model(id).await.unwrap(), None);
}

#[tokio::test]
async fn many_changes_at_once_are_two_cycles() {
    let fleet = Fleet::new().await;
    let id = fleet.create(named("a")).await;
    fleet.started_with(1).await;
    let release = fleet.backend.when(Operation::Start).hang_until_released();
    let set = async |value: usize| {
        fleet.control_plane.set_secret(id, "KEY", &value.to_string().into()).await.unwrap();
    };
    set(0).await;
    fleet.backend.called(Operation::Start, 2).await;
    for value in 1..=20 {
        set(value).await;
    }
    assert_eq!(fleet.backend.count(Operation::Start), 2, "the first cycle is not given up for them");
    release.release();
    let last = fleet.started_with(3).await;
    assert_eq!(last.env["KEY"], "20");
    // Whatever is under way comes to its end here.
    assert!(fleet.control_plane.shut_down(PATIENCE).await);
    assert_eq!(fleet.backend.count(Operation::Start), 3);
}

#[tokio::test]
async fn a_cycle_that_panics_does_not_keep_the_next_one_away() {
    let fleet = Fleet::new().await;
    let id = fleet.create(named("a")).await;
    fleet.started_with(1).await;
    fleet.backend.when(Operation::Stop).times(1).panic("in the middle of it");
    fleet.control_plane.set_secret(id, "KEY", &"1".into()).await.unwrap();
    let row = fleet.until(id, Status::Failed).await;
    assert!(row.last_sample_error.unwrap().starts_with("provision panic"));
    fleet.control_plane.set_secret(id, "KEY", &"2".into()).await.unwrap();
    assert_eq!(fleet.started_with(2).await.env["KEY"], "2");
    assert!(fleet.control_plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn agents_are_told_of_the_awareness_that_there_is() {
    let backend = ScriptedProvisioner::new();
    let config = Config { awareness_url: Some("http://awareness.example".to_owned()), ..Config::default() };
    let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap())
        .config(config)
        .local_backend(Arc::new(backend.clone()))
        .build()
        .unwrap();
    let fleet = Fleet { control_plane, backend };
    let id = fleet.create(named("a")).await;
    let env = fleet.started_with(1).await.env;
    assert_eq!(env["AWARENESS_URL"], "http://awareness.example");
    assert_eq!(env["AWARENESS_NAMESPACE"], format!("workspace:{id}"));
    let without = Fleet::new().await;
    without.create(named("a")).await;
    assert!(!without.started_with(1).await.env.contains_key("AWARENESS_NAMESPACE"), "both, or none");
}

#[tokio::test]
async fn a_model_changes_with_its_provider_or_not_at_all() {
    let store = Store::connect("sqlite::memory:").await.unwrap();
    let control_plane = ControlPlane::builder(store).cipher(Cipher::new(&KEY.into(), &[]).unwrap()).build().unwrap();
    let request = CreateWorkspace { external: true, model: Some("minimax/M2".to_owned()), ..named("a") };
    let id = control_plane.create(request).await.unwrap().workspace.id;
    let chosen = async || {
        let (model, provider) = (control_plane.model(id).await.unwrap(), control_plane.provider(id).await.unwrap());
        (model.unwrap_or_default(), provider.unwrap_or_default())
    };
    let pair = |model: &str, provider: &str| (model.to_owned(), provider.to_owned());
    assert_eq!(chosen().await, pair("minimax/M2", "minimax"));
    let pool = gate::sqlite(control_plane.store()).unwrap();
    let trigger = "CREATE TRIGGER broken BEFORE UPDATE ON workspace_secrets WHEN NEW.key = 'LLM_PROVIDER' \
                   BEGIN SELECT RAISE(ABORT, 'no'); END";
    sqlx::query(trigger).execute(pool).await.unwrap();
    let error = control_plane.set_model(id, "grok/grok-4").await.unwrap_err();
    assert_eq!(error.message(), "failed to save model");
    assert_eq!(chosen().await, pair("minimax/M2", "minimax"), "neither has changed");
    sqlx::query("DROP TRIGGER broken").execute(pool).await.unwrap();
    control_plane.set_model(id, "grok/grok-4").await.unwrap();
    assert_eq!(chosen().await, pair("grok/grok-4", "xai"));
    // Both at once are both kept, whichever comes first: the provider is that of the model before until it is chosen.
    for round in 0..8 {
        control_plane.set_provider(id, "minimax").await.unwrap();
        control_plane.set_model(id, "minimax/M2").await.unwrap();
        let (model, provider) = (control_plane.set_model(id, "grok/grok-4"), control_plane.set_provider(id, "custom"));
        let both = match round % 2 {
            0 => tokio::join!(model, provider),
            _ => {
                let (provider, model) = tokio::join!(provider, model);
                (model, provider)
            }
        };
        assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
        assert_eq!(chosen().await, pair("grok/grok-4", "custom"));
    }
    control_plane.set_model(id, "sonnet").await.unwrap();
    for bad in ["a\nb", &"m".repeat(101)] {
        for error in [control_plane.set_model(id, bad).await, control_plane.set_provider(id, bad).await] {
            let error = error.unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidInput, "invalid request body"));
        }
    }
    assert_eq!(chosen().await.0, "sonnet");
}
