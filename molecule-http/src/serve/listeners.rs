//! Those who hear what happens: how many there may be, and whether they still may.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{
    HeaderMap,
    header::{COOKIE, SEC_WEBSOCKET_PROTOCOL},
};
use molecule_core::{
    Error, ErrorKind,
    id::WorkspaceId,
    identity::{self, Caller, Credential, Exposure},
};
use secrecy::{ExposeSecret, SecretString};

use super::{guard, state::AppState};

/// How many may listen at once, in all and for one workspace.
const IN_ALL: usize = 4096;
const OF_ONE: usize = 16;

/// How often a listener is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(30);

/// How long one piece may take to leave for a listener.
pub(crate) const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// The protocol that is spoken on `/ws`.
pub(crate) const PROTOCOL: &str = "molecule";

/// How often those who listen are looked after. All of it follows from how often they are asked whether they live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How often one who listens on a WebSocket is asked.
    pub(crate) ping: Duration,
    /// How long it may say nothing, not even an answer to that.
    pub(crate) longest_silence: Duration,
    /// How often a stream says that it is there, so that proxies keep it.
    pub(crate) stream_ping: Duration,
    /// How often a listener's credential is looked at again.
    pub(crate) recheck: Duration,
}

impl Pace {
    fn of(ping: Duration) -> Self {
        Self { ping, longest_silence: ping * 5 / 2, stream_ping: ping / 2, recheck: ping / 6 }
    }
}

/// Counts those who listen, and looks after them.
#[derive(Debug, Clone)]
pub(crate) struct Listeners {
    counts: Arc<Mutex<Counts>>,
    /// How often.
    pub(crate) pace: Pace,
}

#[derive(Debug, Default)]
struct Counts {
    in_all: usize,
    of: HashMap<WorkspaceId, usize>,
}

/// The place of one who listens, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    listeners: Listeners,
    of: Option<WorkspaceId>,
}

impl Listeners {
    /// Nobody yet. Those who come are asked every `ping` whether they live.
    pub(crate) fn new(ping: Option<Duration>) -> Self {
        Self { counts: Arc::default(), pace: Pace::of(ping.unwrap_or(PING_EVERY)) }
    }

    /// A place for one who listens for a workspace, or for the operator.
    pub(crate) fn enter(&self, of: Option<WorkspaceId>) -> Result<Place, Error> {
        let full = |text| Err(Error::new(ErrorKind::LimitReached, text));
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.in_all >= IN_ALL {
            return full("too many listeners");
        }
        if let Some(id) = of {
            let own = counts.of.entry(id).or_default();
            if *own >= OF_ONE {
                return full("too many listeners for this workspace");
            }
            *own += 1;
        }
        counts.in_all += 1;
        Ok(Place { listeners: self.clone(), of })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.listeners.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.in_all -= 1;
        if let Some(id) = self.of
            && let Some(own) = counts.of.get_mut(&id)
        {
            *own -= 1;
            if *own == 0 {
                counts.of.remove(&id);
            }
        }
    }
}

/// What a listener asks to hear.
#[derive(Debug, Clone)]
pub(crate) enum Wish {
    /// The feed of the fleet, for the operator or for the agent that it says it is.
    Feed { claimed: Option<String> },
    /// What happens to one workspace.
    Workspace(WorkspaceId),
}

/// Who listens, by what it showed: it is looked at again and again, since it may be worth nothing any more.
#[derive(Debug)]
pub(crate) struct Admission {
    shown: Shown,
    exposure: Exposure,
    wish: Wish,
}

/// What a listener shows. Cookies that another site had sent did not get as far as here.
#[derive(Debug)]
enum Shown {
    Nothing,
    Bearer(SecretString),
    Cookies(SecretString),
}

impl Admission {
    pub(crate) fn new(headers: &HeaderMap, exposure: Exposure, wish: Wish) -> Self {
        let bearer = guard::bearer(headers).or_else(|| offered_bearer(headers));
        let cookies = || headers.get(COOKIE).and_then(|cookies| cookies.to_str().ok());
        let shown = match bearer {
            Some(bearer) => Shown::Bearer(bearer.into()),
            None => cookies().map_or(Shown::Nothing, |cookies| Shown::Cookies(cookies.into())),
        };
        Self { shown, exposure, wish }
    }

    /// Who it is.
    ///
    /// # Errors
    /// Where it may not listen, and where the store cannot tell.
    pub(crate) async fn admit(&self, app: &AppState) -> Result<Caller, Error> {
        let control_plane = &app.control_plane;
        let credential = match &self.shown {
            Shown::Nothing => Credential::Absent,
            Shown::Bearer(bearer) => control_plane.authenticate(Some(bearer.expose_secret())).await?,
            Shown::Cookies(cookies) => control_plane.authenticate_session(cookies.expose_secret()).await?,
        };
        match &self.wish {
            Wish::Feed { claimed } => control_plane.admit_listener(credential, claimed.as_deref(), self.exposure).await,
            Wish::Workspace(id) => control_plane.admit_to_workspace(credential, *id, self.exposure),
        }
    }

    /// Whether it may go on. A store that is away says nothing about a credential.
    pub(crate) async fn holds(&self, app: &AppState) -> bool {
        match self.admit(app).await {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::Unavailable,
        }
    }
}

/// The token that a browser offers among its protocols.
fn offered_bearer(headers: &HeaderMap) -> Option<&str> {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    offered.filter_map(|value| value.to_str().ok()).find_map(identity::offered_bearer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_places_for_so_many_and_they_are_free_again() {
        let listeners = Listeners::new(None);
        let [one, other] = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]
            .map(|id| Some(id.parse().unwrap()));
        let mut places: Vec<Place> = (0..OF_ONE).map(|_| listeners.enter(one).unwrap()).collect();
        assert_eq!(listeners.enter(one).unwrap_err().kind(), ErrorKind::LimitReached);
        places.push(listeners.enter(other).unwrap());
        places.extend((places.len()..IN_ALL).map(|_| listeners.enter(None).unwrap()));
        assert_eq!(listeners.enter(None).unwrap_err().kind(), ErrorKind::LimitReached);
        assert_eq!(listeners.enter(other).unwrap_err().kind(), ErrorKind::LimitReached);
        places.clear();
        assert!(listeners.counts.lock().unwrap().of.is_empty());
        drop(listeners.enter(one).unwrap());
        assert_eq!(listeners.counts.lock().unwrap().in_all, 0);
    }

    #[test]
    fn all_periods_follow_from_one() {
        let pace = Listeners::new(None).pace;
        let seconds = [pace.ping, pace.longest_silence, pace.stream_ping, pace.recheck].map(|period| period.as_secs());
        assert_eq!(seconds, [30, 75, 15, 5]);
    }

    #[test]
    fn a_token_may_be_among_the_protocols() {
        let headers = |values: &[&str]| {
            HeaderMap::from_iter(values.iter().map(|value| (SEC_WEBSOCKET_PROTOCOL, value.parse().unwrap())))
        };
        let mut two = headers(&["molecule"]);
        two.append(SEC_WEBSOCKET_PROTOCOL, "molecule.bearer.abc".parse().unwrap());
        for (headers, expected) in
            [(headers(&["molecule, molecule.bearer.abc"]), Some("abc")), (two, Some("abc")), (headers(&[]), None)]
        {
            assert_eq!(offered_bearer(&headers), expected, "{headers:?}");
        }
    }
}
