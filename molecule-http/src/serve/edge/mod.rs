//! What happens to every request before its route: which page and which organisation it is of, and how often its sender asks.

mod address;
pub(crate) mod args;
mod cors;
pub(crate) mod headers;
mod limit;
mod tenant;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use ipnet::IpNet;
use molecule_core::{Error, ErrorKind, identity::Credential};
use tokio::time::Instant;

pub(crate) use self::limit::Standing;
use self::{
    args::EdgeArgs,
    cors::{Cors, Verdict},
    limit::Windows,
    tenant::TenantGuard,
};
use super::{error::ApiError, guard::bearer, state::AppState};

/// Monitors ask as often as they like.
const UNLIMITED: [&str; 3] = ["/health", "/metrics", "/buildinfo"];

const MINUTE: Duration = Duration::from_secs(60);

/// How many senders, and how many tokens, are remembered: 16 bytes each. A flood of the ones pushes out none of the others.
const SENDERS: usize = 64 * 1024;
const TOKENS: usize = 256 * 1024;

/// How often a minute one token may be used for tools.
const TOOL_CALLS: u32 = 120;

/// How many tokens of the organisation one sender may have minted, and in which time.
const MINTS: u32 = 10;
const MINTS_PER: Duration = Duration::from_secs(3600);

/// Decides who gets as far as a route.
#[derive(Debug)]
pub(crate) struct Edge {
    cors: Cors,
    tenant: Option<TenantGuard>,
    trusted: Vec<IpNet>,
    /// None where development needs no limits.
    limits: Option<Limits>,
    mints: Windows,
    tools: Windows,
}

#[derive(Debug)]
struct Limits {
    senders: Windows,
    tokens: Windows,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender(pub(crate) IpAddr);

/// What the bearer of a request is worth, where that was found out before its route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recognised(pub(crate) Credential);

/// Whose window a request with a known token is counted in. That of the operator is shared by many people.
#[derive(Debug, Clone, Copy, Hash)]
enum Holder<'a> {
    Operator(IpAddr),
    Token(&'a str),
}

impl Edge {
    /// # Errors
    /// Where a setting cannot be read.
    pub(crate) fn new(args: &EdgeArgs, org_id: Option<&str>, limited: bool) -> Result<Self, Error> {
        let now = Instant::now();
        let windows = |room| Windows::new(args.rate_limit(), MINUTE, room, now);
        Ok(Self {
            cors: Cors::new(args.cors_origins()),
            tenant: org_id.map(|org_id| TenantGuard { org_id: org_id.to_owned(), has_canvas: args.has_canvas() }),
            trusted: args.trusted_proxies()?,
            limits: limited.then(|| Limits { senders: windows(SENDERS), tokens: windows(TOKENS) }),
            mints: Windows::new(MINTS, MINTS_PER, SENDERS, now),
            tools: Windows::new(TOOL_CALLS, MINUTE, TOKENS, now),
        })
    }

    /// Counts that `sender` has a token of the organisation minted.
    ///
    /// # Errors
    /// [`ErrorKind::LimitReached`] where it did so too often.
    pub(crate) fn count_mint(&self, Sender(address): Sender) -> Result<(), Error> {
        let standing = self.mints.take(address::household(address), Instant::now());
        if standing.allowed { Ok(()) } else { Err(too_often(standing)) }
    }

    /// Counts that tools are used with the token `bearer`.
    pub(crate) fn count_tools(&self, bearer: &str) -> Standing {
        self.tools.take(bearer, Instant::now())
    }

    /// What a request presents of which no more is asked here than that it is counted, and where its holder then stands:
    /// it shows the token of a workspace that is known. None for any other, which is not counted.
    pub(crate) fn known<B>(&self, app: &AppState, request: &Request<B>) -> Option<(Credential, Option<Standing>)> {
        let headers = request.headers();
        let passes = self.cors.judge(request.method(), headers, app.control_plane.has_sessions()) == Verdict::Pass
            && self.tenant.as_ref().is_none_or(|tenant| tenant.passes(request.uri().path(), headers));
        let bearer = bearer(headers).filter(|_| passes)?;
        let known = app.control_plane.recognise(bearer)?;
        let Credential::Workspace(_) = known else { return None };
        let limits = self.limits.as_ref();
        Some((known, limits.map(|limits| limits.tokens.take(Holder::Token(bearer), Instant::now()))))
    }

    /// Tells in `headers` where the sender stands, where that is counted.
    pub(crate) fn tell(&self, headers: &mut HeaderMap, standing: Option<Standing>) {
        match standing {
            // A route that counts by itself has told already.
            _ if headers.contains_key(LIMIT) => {}
            Some(standing) => tell(headers, standing),
            None if self.limits.is_none() => {
                headers.insert(LIMIT, HeaderValue::from_static("unlimited"));
            }
            None => {}
        }
    }

    fn sender(&self, request: &Request) -> Sender {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        // Requests that never were on a network are this host's.
        let peer = peer.unwrap_or(Ipv4Addr::LOCALHOST.into());
        Sender(address::of_sender(peer, request.headers(), &self.trusted))
    }
}

impl Limits {
    /// Counts a request against the token that it shows, if that is worth anything, and otherwise against its sender:
    /// tokens that were made up get nobody a window of their own.
    ///
    /// What is `known` of a token is forgotten whenever its workspace changes, and with the end of the process, when all who
    /// are behind one address come at once. So who is not known is looked up, with `worth`, unless the sender has nothing
    /// left: that bounds how often made-up tokens are.
    async fn take(
        &self,
        Sender(address): Sender,
        bearer: Option<&str>,
        known: Option<Credential>,
        worth: impl Future<Output = Option<Credential>>,
    ) -> (Standing, Option<Credential>) {
        let household = address::household(address);
        let of_sender = || self.senders.take(household, Instant::now());
        let of_token = |holder| self.tokens.take(holder, Instant::now());
        let Some(bearer) = bearer else { return (of_sender(), None) };
        let holder = |credential| match credential {
            Credential::Operator => Holder::Operator(household),
            _ => Holder::Token(bearer),
        };
        if let Some(known) = known {
            return (of_token(holder(known)), Some(known));
        }
        if self.tokens.remembers(Holder::Token(bearer)) {
            return (of_token(Holder::Token(bearer)), None);
        }
        if let left @ Standing { allowed: false, .. } = self.senders.look(household, Instant::now()) {
            return (left, None);
        }
        match worth.await {
            Some(Credential::Unknown) => (of_sender(), Some(Credential::Unknown)),
            Some(found) => (of_token(holder(found)), Some(found)),
            // The store cannot say, which its route will answer.
            None => (self.senders.look(household, Instant::now()), None),
        }
    }
}

/// Lets a request through to its route, or answers it.
pub(crate) async fn guard(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let edge = &app.edge;
    let share = match edge.cors.judge(request.method(), request.headers(), app.control_plane.has_sessions()) {
        Verdict::Pass => None,
        Verdict::Share(origin) => Some(origin),
        Verdict::Preflight(origin) => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            cors::allow(response.headers_mut(), origin);
            return response;
        }
        Verdict::Refuse => return StatusCode::FORBIDDEN.into_response(),
    };
    let mut response = limited(&app, &mut request, next).await;
    if let Some(origin) = share {
        cors::share(response.headers_mut(), origin);
    }
    response
}

async fn limited(app: &AppState, request: &mut Request, next: Next) -> Response {
    let edge = &app.edge;
    if edge.tenant.as_ref().is_some_and(|tenant| !tenant.passes(request.uri().path(), request.headers())) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let sender = edge.sender(request);
    let bearer = bearer(request.headers());
    let mut known = bearer.and_then(|bearer| app.control_plane.recognise(bearer));
    let limits = edge.limits.as_ref().filter(|_| !UNLIMITED.contains(&request.uri().path()));
    let mut standing = None;
    if let Some(limits) = limits {
        let worth = async { app.control_plane.authenticate(bearer).await.ok() };
        let (counted, found) = limits.take(sender, bearer, known, worth).await;
        (standing, known) = (Some(counted), found);
    }
    let extensions = request.extensions_mut();
    extensions.insert(sender);
    if let Some(known) = known {
        extensions.insert(Recognised(known));
    }
    let mut response = match standing {
        Some(standing) if !standing.allowed => ApiError(too_often(standing)).into_response(),
        _ => next.run(std::mem::take(request)).await,
    };
    edge.tell(response.headers_mut(), standing);
    response
}

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Tells in `headers` where the sender stands.
pub(crate) fn tell(headers: &mut HeaderMap, standing: Standing) {
    headers.insert(LIMIT, standing.limit.into());
    headers.insert(REMAINING, standing.remaining.into());
    headers.insert(RESET, standing.reset.into());
}

pub(crate) fn too_often(standing: Standing) -> Error {
    Error::new(ErrorKind::LimitReached, "rate limit exceeded").with_member("retry_after", standing.reset)
}
