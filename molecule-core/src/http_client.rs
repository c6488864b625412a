//! The one HTTP client: rustls on ring, certificates built in, no redirects, no proxies.
//!
//! The certificates are compiled in because a static binary in an empty image finds none on disk. Redirects are
//! not followed because an address that was checked must be the address that is called.

use std::{sync::LazyLock, time::Duration};

use reqwest::{Client, ClientBuilder, Response, redirect::Policy};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::error::{Error, ErrorKind, Result};

/// What every request of this library calls itself.
pub const USER_AGENT: &str = concat!("molecule/", env!("CARGO_PKG_VERSION"));

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the connection stands, TLS included.
    pub connect: Duration,
    /// From the start of the call to the last byte of the answer; `None` where something else bounds it.
    pub total: Option<Duration>,
}

/// A client with these `timeouts`.
///
/// Cloning the client shares its connections.
///
/// # Errors
/// [`ErrorKind::Unexpected`] when the system gives no resolver.
pub fn build(timeouts: Timeouts) -> Result<Client> {
    builder(timeouts).build().map_err(|error| {
        Error::new(ErrorKind::Unexpected, "the HTTP client cannot be built")
            .during("http_client.build")
            .caused_by(error)
    })
}

/// The builder behind [`build`], for a caller that must add to it, such as an address it has checked.
pub fn builder(timeouts: Timeouts) -> ClientBuilder {
    let builder = Client::builder()
        .tls_backend_preconfigured(TLS.clone())
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(USER_AGENT)
        .connect_timeout(timeouts.connect);
    match timeouts.total {
        Some(total) => builder.timeout(total),
        None => builder,
    }
}

/// Reads the body of `response` as long as it holds at most `limit` bytes.
///
/// # Errors
/// [`ErrorKind::TooLarge`] once more than `limit` bytes arrived; [`ErrorKind::Upstream`] when the connection broke
/// or the time was up.
pub async fn read_body(mut response: Response, limit: usize) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let chunk = response
            .chunk()
            .await
            .map_err(|error| Error::new(ErrorKind::Upstream, "the answer broke off").caused_by(error.without_url()))?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() + chunk.len() > limit {
            return Err(Error::new(ErrorKind::TooLarge, format!("the answer is longer than {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
}

static TLS: LazyLock<ClientConfig> = LazyLock::new(|| {
    let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
});

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(5), total: Some(Duration::from_secs(5)) };

    /// Answers one request with `answer` and returns what was asked.
    async fn call(answer: &'static str) -> (Response, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        };
        let client = build(TIMEOUTS).unwrap();
        let (response, request) = tokio::join!(client.get(url).send(), serve);
        (response.unwrap(), request)
    }

    #[tokio::test]
    async fn names_itself_and_follows_no_redirect() {
        let (response, request) =
            call("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(response.status(), 302);
        assert!(request.contains(&format!("user-agent: {USER_AGENT}\r\n")), "{request}");
    }

    #[tokio::test]
    async fn reads_a_body_up_to_its_limit() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd";
        assert_eq!(read_body(call(answer).await.0, 4).await.unwrap(), b"abcd");
        assert_eq!(read_body(call(answer).await.0, 3).await.unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_an_error() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcd";
        assert_eq!(read_body(call(answer).await.0, 99).await.unwrap_err().kind(), ErrorKind::Upstream);
    }
}
