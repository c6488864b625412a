//! `molecule serve`: the server.

mod accept;
mod backend;
mod data_dir;
mod descriptors;
mod detach;
mod docker;
mod edge;
mod error;
mod front;
mod guard;
mod installation;
mod listeners;
mod mcp;
mod metrics;
mod named;
mod operator_token;
mod origin;
mod remote;
mod router;
mod routes;
mod settings;
mod state;
mod templates;
mod welcome;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use molecule_core::{
    ControlPlane, Error, ErrorKind,
    config::Config,
    identity::Exposure,
    store::{Claim, Engine, Store},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::settings::ServeArgs;
use self::{
    accept::Places,
    backend::Chosen,
    descriptors::Descriptors,
    edge::Edge,
    front::Front,
    listeners::Listeners,
    mcp::Sdk,
    metrics::Metrics,
    settings::Settings,
    state::{AppState, Parts},
};
use crate::logging;

/// How often newer images are looked for, where they are.
const IMAGE_TICK: Duration = Duration::from_secs(5 * 60);

/// How long requests, sockets and tasks under way may take to end, each, on the way down.
const DRAIN: Duration = Duration::from_secs(30);

/// The OpenAPI document of every route, as JSON.
pub(crate) fn openapi() -> String {
    router::openapi()
}

/// Runs the server until it is told to stop by SIGINT or SIGTERM.
///
/// # Errors
/// Whatever keeps it from starting, each with what to do about it.
pub(crate) async fn run(args: ServeArgs, data_dir: Option<PathBuf>) -> Result<(), Error> {
    let settings = args.resolve(data_dir)?;
    logging::start(settings.log_format, &settings.log)?;
    refuse_open_doors(&settings)?;
    let descriptors = Descriptors::raise();
    let edge = edge(&settings)?;
    // Held until the end of the process, however that comes.
    let _lock = data_dir::take(&settings.data_dir)?;
    let listener = listen(settings.listen).await?;
    let address = listener.local_addr().map_err(|error| cannot_listen(settings.listen, error))?;
    let store = Store::connect(database_url(&settings)?.expose_secret()).await?;
    tracing::info!(database = engine_name(&store), data = %settings.data_dir.display(), "the store is open");
    let chosen = backend::choose(&settings, descriptors).await?;
    let claim = claim(&store, &chosen).await?;
    let mut listeners = vec![(listener, exposure_of(address.ip()))];
    if let Chosen::Docker { gateway: Some(gateway), .. } = &chosen {
        listeners.extend(listen_for_containers(*gateway, address).await);
    }
    let config = Config {
        alone: claim.is_some(),
        ..config(&settings, &chosen, address, operator_token::ensure(&settings.data_dir)?)
    };
    match settings.cipher.key_id() {
        Some(key) => tracing::info!(key, "secrets are encrypted"),
        None => tracing::warn!("secrets are kept as they are: set SECRETS_ENCRYPTION_KEY to encrypt them"),
    }
    let builder = ControlPlane::builder(store).config(config).cipher(settings.cipher.clone());
    let control_plane = match &chosen {
        Chosen::Docker { backend, .. } => builder.local_backend(backend.clone()).images(backend.clone()).build()?,
        Chosen::Process(backend) => builder.local_backend(backend.clone()).build()?,
        Chosen::ControlPlane(backend) => builder.control_plane_backend(backend.clone()).build()?,
        Chosen::None => builder.build()?,
    };
    let stop = CancellationToken::new();
    let state = AppState::new(Parts {
        control_plane: control_plane.clone(),
        metrics: Metrics::new()?,
        edge,
        mcp: Sdk::new(control_plane.clone(), stop.clone()),
        stop: stop.clone(),
        sockets: TaskTracker::new(),
        listeners: Listeners::new(settings.listener_ping),
        external_url: settings.external_platform_url.clone(),
    });
    match control_plane.renew_secrets().await? {
        (0, 0) => {}
        (renewed, 0) => tracing::info!(
            renewed,
            "secrets were encrypted anew; inbound secrets stay under the key of their last start"
        ),
        (renewed, unreadable) => tracing::error!(renewed, unreadable, "some secrets cannot be read: a key is missing"),
    }
    control_plane.start();
    let servers = serve(listeners, Places::with(descriptors.now), &state, &stop);
    tracing::info!(%address, backend = control_plane.backend_name(), "listening");
    let outcome = tokio::select! {
        result = until_stopped(settings.welcome.then_some(address), &control_plane) => { result?; Ok(()) }
        () = stop.cancelled() => Ok(()),
        error = taken(claim) => Err(error),
    };
    shut_down(state, servers, &chosen).await;
    outcome
}

/// Greets, if asked to, and waits for the signal to stop.
async fn until_stopped(welcome: Option<SocketAddr>, control_plane: &ControlPlane) -> Result<(), Error> {
    let failed = |error| Error::new(ErrorKind::Unexpected, "signals cannot be received").caused_by(error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let greeting = async {
        if let Some(address) = welcome
            && let Err(error) = welcome::welcome(control_plane, &format!("http://{address}")).await
        {
            tracing::error!(error = error.detail(), "the first workspace could not be brought up");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = interrupt.recv() => tracing::info!("interrupted; going down"),
        _ = terminate.recv() => tracing::info!("asked to stop; going down"),
        () = greeting => {}
    }
    Ok(())
}

fn serve(
    listeners: Vec<(TcpListener, Exposure)>,
    places: Places,
    state: &AppState,
    stop: &CancellationToken,
) -> JoinSet<std::io::Result<()>> {
    let front = Front::new(state.clone());
    let mut servers = JoinSet::new();
    for (listener, exposure) in listeners {
        let front = front.clone();
        let answer = move |peer, request| front.clone().answer(peer, exposure, request);
        servers.spawn(accept::serve(listener, answer, places.clone(), accept::HEAD_WITHIN, stop.clone()));
    }
    servers
}

/// Stops accepting, lets requests, sockets and tasks end, and closes the store.
async fn shut_down(state: AppState, mut servers: JoinSet<std::io::Result<()>>, chosen: &Chosen) {
    let running = state.control_plane.workspaces().await.map_or(0, |fleet| {
        fleet.iter().filter(|workspace| !workspace.is_external() && !workspace.url.is_empty()).count()
    });
    state.stop.cancel();
    state.sockets.close();
    let drained = tokio::time::timeout(DRAIN, async {
        while servers.join_next().await.is_some() {}
        state.sockets.wait().await;
    });
    if drained.await.is_err() {
        tracing::warn!("some requests took too long to end and were cut off");
    }
    if !state.control_plane.shut_down(DRAIN).await {
        tracing::warn!("some tasks took too long to end and were cut off");
    }
    match chosen {
        Chosen::Docker { backend, .. } => backend.shutdown().await,
        Chosen::Process(backend) => backend.shutdown().await,
        Chosen::ControlPlane(_) | Chosen::None => {}
    }
    state.control_plane.store().close().await;
    if running > 0 {
        tracing::info!(workspaces = running, "stopped; the workspaces go on and are found again at the next start");
    } else {
        tracing::info!("stopped");
    }
}

fn refuse_open_doors(settings: &Settings) -> Result<(), Error> {
    if settings.listen.ip().is_loopback() || settings.admin_token.is_some() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{} can be reached by others, so ADMIN_TOKEN must be set; or listen on 127.0.0.1",
        settings.listen
    )))
}

fn edge(settings: &Settings) -> Result<Edge, Error> {
    // Development opens what it opens on loopback alone; the limits go with it.
    let limited = !(settings.development && settings.admin_token.is_none());
    Edge::new(&settings.edge, settings.remote.org_id(), limited)
}

fn database_url(settings: &Settings) -> Result<SecretString, Error> {
    if let Some(url) = &settings.database_url {
        return Ok(url.clone());
    }
    let path = settings.data_dir.join("molecule.db");
    let path = path.to_str().ok_or_else(|| {
        Error::invalid(format!("the data folder {} is not named in UTF-8", settings.data_dir.display()))
    })?;
    Ok(format!("sqlite:{path}").into())
}

/// A backend sees the workloads of its own host alone: two servers would take each other's for lost.
async fn claim(store: &Store, chosen: &Chosen) -> Result<Option<Claim>, Error> {
    if matches!(chosen, Chosen::ControlPlane(_) | Chosen::None) {
        return Ok(None);
    }
    store.claim().await?.map(Some).ok_or_else(another_runs_workspaces)
}

/// Waits until another server holds the database, if ever.
async fn taken(claim: Option<Claim>) -> Error {
    match claim {
        Some(mut claim) => claim.lost().await,
        None => std::future::pending().await,
    }
    tracing::error!(
        "another server has this database now; going down, so that neither takes the other's workloads for lost"
    );
    another_runs_workspaces()
}

fn another_runs_workspaces() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "another server that runs workspaces uses this database — stop it, name another with --database-url, or run this \
         one with --provisioner none",
    )
}

fn engine_name(store: &Store) -> &'static str {
    match store.engine() {
        Engine::Sqlite => "SQLite",
        Engine::Postgres => "Postgres",
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| cannot_listen(address, error))
}

fn cannot_listen(address: SocketAddr, error: std::io::Error) -> Error {
    let advice = match error.kind() {
        std::io::ErrorKind::AddrInUse => "is in use — stop what uses it, or choose another with --listen",
        std::io::ErrorKind::PermissionDenied => "may not be used by this user — choose a port above 1023",
        _ => "cannot be listened on — choose another with --listen",
    };
    Error::new(ErrorKind::Unavailable, format!("{address} {advice}")).caused_by(error)
}

/// Containers cannot reach this host's loopback, so the server also listens where their network meets the host.
async fn listen_for_containers(gateway: IpAddr, address: SocketAddr) -> Option<(TcpListener, Exposure)> {
    let covered = address.ip().is_unspecified() || address.ip() == gateway;
    if covered {
        return None;
    }
    let at = SocketAddr::new(gateway, address.port());
    match TcpListener::bind(at).await {
        Ok(listener) => {
            tracing::info!(address = %at, "listening for containers as well");
            Some((listener, Exposure::Network))
        }
        Err(error) => {
            // An engine in a virtual machine of its own forwards to this host's loopback by itself.
            tracing::warn!(address = %at, %error, "cannot listen where containers meet this host");
            None
        }
    }
}

fn exposure_of(ip: IpAddr) -> Exposure {
    if ip.is_loopback() { Exposure::Loopback } else { Exposure::Network }
}

/// How often what heartbeats left in memory is saved: other servers go by that, and agents beat every 30 seconds at most.
fn saved_every(external_silence: Duration, default: Duration) -> Duration {
    default.min(external_silence / 4)
}

fn config(settings: &Settings, chosen: &Chosen, address: SocketAddr, operator_token: SecretString) -> Config {
    let port = address.port();
    let reachable = match chosen {
        Chosen::Docker { .. } => format!("http://host.docker.internal:{port}"),
        _ if address.ip().is_unspecified() => format!("http://127.0.0.1:{port}"),
        _ => format!("http://{address}"),
    };
    let default = Config::default();
    let external_silence = settings.external_silence.unwrap_or(default.external_silence);
    Config {
        platform_url: settings.platform_url.clone().unwrap_or(reachable),
        awareness_url: settings.docker.awareness_url(),
        admin_token: settings.admin_token.clone(),
        operator_token: Some(operator_token),
        development: settings.development,
        test_tokens: settings.edge.test_tokens(),
        tools_message_users: settings.edge.mcp_allow_send_message(),
        sessions: settings.edge.sessions(),
        address_policy: settings.address_policy,
        workspace_roots: settings.workspace_roots.clone(),
        templates: templates::open(settings),
        external_silence,
        telemetry_tick: saved_every(external_silence, default.telemetry_tick),
        prepare_timeout: settings.prepare_timeout.unwrap_or(default.prepare_timeout),
        provision_timeout: settings.provision_timeout,
        health_tick: settings.health_tick.unwrap_or(default.health_tick),
        timeout_tick: settings.timeout_tick.unwrap_or(default.timeout_tick),
        queue_lease: settings.queue_lease.unwrap_or(default.queue_lease),
        a2a_idle: settings.a2a_idle.unwrap_or(default.a2a_idle),
        event_retention: settings.event_retention,
        audit_key: settings.audit_key.clone(),
        activity_retention: settings.activity_retention.unwrap_or(default.activity_retention),
        activity_tick: settings.activity_tick.unwrap_or(default.activity_tick),
        image_tick: settings.docker.watches_images().then_some(IMAGE_TICK),
        ..default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_saved_well_before_others_take_it_for_silence() {
        let seconds = Duration::from_secs;
        for (silence, expected) in [(90, 22_500), (3600, 30_000), (60, 15_000), (2, 500)] {
            assert_eq!(saved_every(seconds(silence), seconds(30)).as_millis(), expected, "{silence}");
        }
    }
}
