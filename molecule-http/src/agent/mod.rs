//! `molecule agent`: a reference agent that registers, beats, and answers messages by repeating them.
//!
//! It is the smallest agent that keeps every promise of one, and what the image for tests runs.

mod files;
mod membership;
mod rpc;
mod server;
mod settings;
mod transcript;

use std::{future::pending, sync::Arc, time::Duration};

use axum::Router;
use molecule_core::{
    agent::{HeartbeatLoop, InboundSecret, PlatformClient, Program, TokenStore, files::Files},
    clock::SystemEntropy,
    error::{Error, ErrorKind, Result},
    http_client::Way,
};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::settings::AgentArgs;
use self::{server::Agent, settings::Settings};
use crate::{
    logging::{self, LogFormat},
    paths,
};

/// How long requests in flight may take once the agent was told to stop; engines kill after ten seconds.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the agent until a SIGTERM or SIGINT.
///
/// It listens before it registers, so that the platform never learns of an address that does not answer, and then
/// outlives everything the platform does.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for settings that are missing or cannot be read; [`ErrorKind::Unavailable`] when the
/// port is taken.
pub(crate) async fn run(args: AgentArgs) -> Result<()> {
    logging::start(LogFormat::Pretty, &args.log)?;
    // A process that is the first of its container dies of no signal that it does not handle.
    let mut signals = Signals::new()?;
    let settings = Settings::try_from(args)?;
    let address = (settings.listen_host.as_str(), settings.port);
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Error::new(
            ErrorKind::Unavailable,
            format!("cannot listen on {}:{}: {}; choose another --port or --listen-host", address.0, address.1, error),
        )
    })?;
    let port = listener.local_addr().map_err(|error| Error::new(ErrorKind::Unexpected, error.to_string()))?.port();
    let url = settings.url(port)?;

    let tokens = TokenStore::supplied_first(&settings.state, settings.token);
    let inbound = InboundSecret::new(&settings.state);
    let entropy = Arc::new(SystemEntropy);
    let files = Files::new(settings.files_root, inbound.clone(), tokens.clone(), entropy.clone());
    let way = Way::read(paths::environment);
    let client = PlatformClient::new(settings.platform_url, settings.workspace_id, tokens, inbound, &way)?
        .with_timeout(settings.platform_timeout);
    let agent = Agent::new(server::card(settings.name, url.clone()), entropy.clone());
    tracing::info!(workspace.id = %settings.workspace_id, url, state = %settings.state.path().display(), "agent listens");

    let stop = CancellationToken::new();
    let wait_for_signal = async {
        tokio::select! {
            name = signals.next() => tracing::info!(signal = name, "agent stops"),
            () = stop.cancelled() => {}
        }
        stop.cancel();
    };
    let belong = async {
        if membership::join(&client, agent.card(), url, entropy.as_ref(), &stop).await {
            let beats = HeartbeatLoop::new(client.clone(), Program::AGENT, entropy.clone());
            let started = Instant::now();
            beats.every(settings.heartbeat_interval).run(|| agent.beat(started.elapsed()), stop.cancelled()).await;
        }
    };
    let serve = async {
        let result = serve(listener, server::router(agent.clone(), files), &stop).await;
        stop.cancel();
        result
    };
    let ((), (), served) = tokio::join!(wait_for_signal, belong, serve);
    served
}

async fn serve(listener: TcpListener, router: Router, stop: &CancellationToken) -> Result<()> {
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let time_is_up = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        result = served => result.map_err(|error| Error::new(ErrorKind::Unexpected, format!("serving failed: {error}"))),
        () = time_is_up => {
            tracing::warn!("requests were still in flight when the agent stopped");
            Ok(())
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Error::new(ErrorKind::Unexpected, "signals cannot be handled").caused_by(error))
        };
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        let Self { terminate, interrupt } = self;
        tokio::select! {
            Some(()) = terminate.recv() => "SIGTERM",
            Some(()) = interrupt.recv() => "SIGINT",
            else => pending().await,
        }
    }
}
