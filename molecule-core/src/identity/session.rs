//! Sessions of people whom another control plane signed in: it is asked whether a cookie is theirs, and its answer holds
//! for a moment.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use moka::future::Cache;
use reqwest::{Client, StatusCode, Url, header};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Result},
    http_client::{self, Timeouts},
};

/// What the other control plane knows this one as.
const USER_AGENT: &str = "molecule-tenant-platform/session-verifier";

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most that its answer may hold.
const ANSWER_LIMIT: usize = 64 * 1024;

/// How long an answer holds.
const YES_HOLDS: Duration = Duration::from_secs(30);
const NO_HOLDS: Duration = Duration::from_secs(5);

/// How many answers are remembered.
const REMEMBERED: u64 = 10_000;

/// After so many failures in a row nobody is made to wait for another, for so long.
const FAILURES: u32 = 3;
const REST: Duration = Duration::from_secs(5);

/// Who signs people in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSource {
    /// The base URL of the control plane that does.
    pub upstream_url: String,
    /// The name under which it knows the organisation of this one.
    pub org_slug: String,
    /// The cookie that holds a session, where only one can: requests with others alone cost no question.
    pub cookie_name: Option<String>,
}

/// Knows which cookies are sessions.
pub(crate) struct Sessions {
    question: Url,
    source: SessionSource,
    http: Client,
    answers: Cache<[u8; 32], Answer>,
    breaker: Mutex<Breaker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Member,
    Stranger,
    /// It could not be asked, or did not know.
    Unanswered,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    verdict: Verdict,
    at: DateTime<Utc>,
}

impl Answer {
    /// Whether it must be asked for again. A clock that went back proves nothing.
    fn is_stale(&self, now: DateTime<Utc>) -> bool {
        let holds = match self.verdict {
            Verdict::Member => YES_HOLDS,
            Verdict::Stranger => NO_HOLDS,
            Verdict::Unanswered => return true,
        };
        (now - self.at).to_std().map_or(true, |age| age >= holds)
    }
}

/// Spares callers the wait for a control plane that is away.
#[derive(Debug, Default, Clone, Copy)]
struct Breaker {
    failures: u32,
    last_failure: Option<DateTime<Utc>>,
}

impl Breaker {
    fn is_open(&self, now: DateTime<Utc>) -> bool {
        let rests = |last: DateTime<Utc>| (now - last).to_std().is_ok_and(|age| age < REST);
        self.failures >= FAILURES && self.last_failure.is_some_and(rests)
    }

    fn take(&mut self, answered: bool, now: DateTime<Utc>) {
        *self = match answered {
            true => Self::default(),
            false => Self { failures: self.failures.saturating_add(1), last_failure: Some(now) },
        };
    }
}

/// What the other control plane says of a cookie.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Membership {
    member: bool,
    user_id: String,
}

impl Sessions {
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a URL that cannot be called.
    pub(crate) fn new(source: SessionSource) -> Result<Self> {
        let base = source.upstream_url.trim_end_matches('/');
        let mut question = Url::parse(&format!("{base}/cp/auth/tenant-member"))
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| Error::invalid(format!("the URL {base:?} of the control plane is no http or https URL")))?;
        question.query_pairs_mut().append_pair("slug", &source.org_slug);
        let http = http_client::builder(Timeouts { connect: PATIENCE, total: Some(PATIENCE) })
            .user_agent(USER_AGENT)
            .build()
            .map_err(|error| Error::new(ErrorKind::Unexpected, "the HTTP client cannot be built").caused_by(error))?;
        let answers = Cache::builder().max_capacity(REMEMBERED).time_to_live(YES_HOLDS).build();
        Ok(Self { question, source, http, answers, breaker: Mutex::default() })
    }

    /// Whether the cookies of a request can hold a session at all.
    pub(crate) fn may_hold_one(&self, cookies: &str) -> bool {
        let Some(wanted) = &self.source.cookie_name else { return !cookies.trim().is_empty() };
        cookies.split(';').filter_map(|cookie| cookie.split_once('=')).any(|(name, _)| name.trim() == wanted)
    }

    /// Whether `cookies` are those of a member. Callers with the same ones wait for one question.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where the other control plane did not say; that is not remembered.
    pub(crate) async fn verify(&self, cookies: &str, clock: &dyn Clock) -> Result<bool> {
        let key = Sha256::new().chain_update(&self.source.org_slug).chain_update([0]).chain_update(cookies).finalize();
        let now = clock.now();
        let ask = async { Answer { verdict: self.ask(cookies, clock).await, at: clock.now() } };
        let entry = self.answers.entry(key.into()).or_insert_with_if(ask, |answer| answer.is_stale(now)).await;
        match entry.into_value().verdict {
            Verdict::Member => Ok(true),
            Verdict::Stranger => Ok(false),
            Verdict::Unanswered => {
                Err(Error::new(ErrorKind::Unavailable, "the session cannot be checked — retry shortly")
                    .with_member("code", "session_unavailable"))
            }
        }
    }

    async fn ask(&self, cookies: &str, clock: &dyn Clock) -> Verdict {
        if self.breaker().is_open(clock.now()) {
            return Verdict::Unanswered;
        }
        let verdict = match self.call(cookies).await {
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::warn!(error = error.detail(), "a session could not be checked");
                Verdict::Unanswered
            }
        };
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner).take(verdict != Verdict::Unanswered, clock.now());
        verdict
    }

    async fn call(&self, cookies: &str) -> Result<Verdict> {
        let request = self.http.get(self.question.clone()).header(header::COOKIE, cookies);
        let away = |error: reqwest::Error| {
            Error::new(ErrorKind::Upstream, "the control plane did not answer").caused_by(error.without_url())
        };
        let response = request.send().await.map_err(away)?;
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Error::new(ErrorKind::Upstream, format!("the control plane answered {}", status.as_u16())));
        }
        if status != StatusCode::OK {
            return Ok(Verdict::Stranger);
        }
        let body = http_client::read_body(response, ANSWER_LIMIT).await?;
        let membership: Membership = serde_json::from_slice(&body).unwrap_or_default();
        let is_member = membership.member && !membership.user_id.is_empty();
        Ok(if is_member { Verdict::Member } else { Verdict::Stranger })
    }

    fn breaker(&self) -> Breaker {
        *self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("source", &self.source).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn sessions(upstream_url: &str, cookie_name: Option<&str>) -> Result<Sessions> {
        Sessions::new(SessionSource {
            upstream_url: upstream_url.to_owned(),
            org_slug: "a b&c".to_owned(),
            cookie_name: cookie_name.map(str::to_owned),
        })
    }

    #[tokio::test]
    async fn so_many_answers_are_remembered_and_no_more() {
        let sessions = sessions("http://cp", None).unwrap();
        for n in 0..REMEMBERED + 2000 {
            let key = Sha256::digest(n.to_string()).into();
            sessions.answers.insert(key, Answer { verdict: Verdict::Member, at: at(0) }).await;
        }
        sessions.answers.run_pending_tasks().await;
        assert!(sessions.answers.entry_count() <= REMEMBERED);
    }

    #[test]
    fn how_long_an_answer_holds() {
        let rows = [
            (Verdict::Member, 29, false),
            (Verdict::Member, 30, true),
            (Verdict::Stranger, 4, false),
            (Verdict::Stranger, 5, true),
            (Verdict::Unanswered, 0, true),
            (Verdict::Member, -1, true),
        ];
        for (verdict, age, stale) in rows {
            assert_eq!(Answer { verdict, at: at(0) }.is_stale(at(age)), stale, "{verdict:?} after {age} s");
        }
    }

    #[test]
    fn after_three_failures_nobody_waits_for_a_while() {
        let mut breaker = Breaker::default();
        for failure in 0..3 {
            assert!(!breaker.is_open(at(failure)));
            breaker.take(false, at(failure));
        }
        assert!(breaker.is_open(at(2)) && breaker.is_open(at(6)));
        assert!(!breaker.is_open(at(7)), "one is let through to try");
        breaker.take(false, at(7));
        assert!(breaker.is_open(at(8)));
        breaker.take(true, at(9));
        assert!(!breaker.is_open(at(9)));
    }

    #[test]
    fn only_a_cookie_of_the_right_name_is_worth_a_question() {
        let named = sessions("https://cp.example", Some("mol_session")).unwrap();
        for (cookies, worth) in [
            ("mol_session=x", true),
            ("a=b; mol_session=x", true),
            ("a=mol_session", false),
            ("mol_session_2=x", false),
            ("mol_session", false),
            ("", false),
        ] {
            assert_eq!(named.may_hold_one(cookies), worth, "{cookies:?}");
        }
        let any = sessions("https://cp.example", None).unwrap();
        assert!(any.may_hold_one("a=b") && !any.may_hold_one(" "));
    }

    #[test]
    fn the_question_names_the_organisation() {
        let url = sessions("https://cp.example/base/", None).unwrap().question;
        assert_eq!(url.as_str(), "https://cp.example/base/cp/auth/tenant-member?slug=a+b%26c");
        for url in ["", "cp.example", "ftp://cp.example"] {
            assert_eq!(sessions(url, None).unwrap_err().kind(), ErrorKind::InvalidInput, "{url}");
        }
    }
}
