//! The one HTTP client: rustls on ring, certificates built in, no redirects, and no proxies but those of an agent.
//!
//! The certificates are compiled in because a static binary in an empty image finds none on disk. Redirects are
//! not followed because an address that was checked must be the address that is called.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use reqwest::{Client, ClientBuilder, NoProxy, Proxy, Response, Url, redirect::Policy};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

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
    builder(timeouts).build().map_err(not_built)
}

pub(crate) fn not_built(error: reqwest::Error) -> Error {
    Error::new(ErrorKind::Unexpected, "the HTTP client cannot be built").during("http_client.build").caused_by(error)
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

/// What no proxy is asked for.
const THIS_HOST: &str = "localhost,127.0.0.0/8,::1";

/// How the calls of an agent leave the network that it runs in, and whom they trust on the way: whoever runs the agent says
/// so. Calls of the control plane know none of this: they go straight to the address that was checked.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// `HTTPS_PROXY`: the proxy for addresses that begin with `https`.
    pub https_proxy: Option<String>,
    /// `HTTP_PROXY`: the proxy for the others.
    pub http_proxy: Option<String>,
    /// `ALL_PROXY`: the proxy where there is no other.
    pub all_proxy: Option<String>,
    /// `NO_PROXY`: hosts and networks that are called without one, beside this host, which always is.
    pub no_proxy: Option<String>,
    /// `SSL_CERT_FILE`: certificates that are trusted beside those that are built in.
    pub certificates: Option<PathBuf>,
}

impl Way {
    /// Asks `variable` for each variable by its name.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let given = |names: &[&str]| {
            let found = names.iter().find_map(|name| variable(name).map(|value| value.trim().to_owned()));
            found.filter(|value| !value.is_empty())
        };
        Self {
            https_proxy: given(&["https_proxy", "HTTPS_PROXY"]),
            http_proxy: given(&["http_proxy", "HTTP_PROXY"]),
            all_proxy: given(&["all_proxy", "ALL_PROXY"]),
            no_proxy: given(&["no_proxy", "NO_PROXY"]),
            certificates: given(&["SSL_CERT_FILE"]).map(PathBuf::from),
        }
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address of a proxy may hold a password.
        f.debug_struct("Way").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

/// A client with these `timeouts` that goes this `way`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a proxy that is no address or speaks something else than HTTP, and for certificates that
/// cannot be read.
pub fn build_for(timeouts: Timeouts, way: &Way) -> Result<Client> {
    let mut builder = builder(timeouts);
    if let Some(path) = &way.certificates {
        builder = builder.tls_backend_preconfigured(tls(roots_and(path)?));
    }
    let no_proxy = format!("{THIS_HOST},{}", way.no_proxy.as_deref().unwrap_or_default());
    let no_proxy = NoProxy::from_string(&no_proxy);
    type Make = fn(Url) -> reqwest::Result<Proxy>;
    let proxies: [(&Option<String>, &str, Make); 3] = [
        (&way.http_proxy, "HTTP_PROXY", Proxy::http),
        (&way.https_proxy, "HTTPS_PROXY", Proxy::https),
        (&way.all_proxy, "ALL_PROXY", Proxy::all),
    ];
    // A proxy that is added counts, whatever was said before.
    for (proxy, name, make) in proxies {
        let Some(proxy) = proxy else { continue };
        let made = make(spoken(name, proxy)?).map_err(|_| no_address(name))?;
        builder = builder.proxy(made.no_proxy(no_proxy.clone()));
    }
    builder.build().map_err(not_built)
}

/// The address of the `proxy` that `name` names, where HTTP is spoken: with another kind calls would fail, or go past it.
fn spoken(name: &str, proxy: &str) -> Result<Url> {
    let address = if proxy.contains("://") { proxy.parse() } else { format!("http://{proxy}").parse() };
    let address: Url = address.map_err(|_| no_address(name))?;
    match address.scheme() {
        "http" | "https" => Ok(address),
        scheme => {
            Err(Error::invalid(format!("{name} names a proxy of the kind {scheme}: only http and https are spoken")))
        }
    }
}

/// What is wrong may hold a password.
fn no_address(name: &str) -> Error {
    Error::invalid(format!("{name} is no address of a proxy"))
}

fn roots_and(path: &Path) -> Result<RootCertStore> {
    let failed = |what: &str| Error::invalid(format!("SSL_CERT_FILE {what}: {}", path.display()));
    let mut roots = roots();
    let found = CertificateDer::pem_file_iter(path).map_err(|error| failed("cannot be read").caused_by(error))?;
    let mut count = 0;
    for certificate in found {
        let certificate = certificate.map_err(|error| failed("holds something else than PEM").caused_by(error))?;
        roots.add(certificate).map_err(|error| failed("holds a certificate that is none").caused_by(error))?;
        count += 1;
    }
    if count == 0 { Err(failed("holds no certificate")) } else { Ok(roots) }
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

static TLS: LazyLock<ClientConfig> = LazyLock::new(|| tls(roots()));

fn roots() -> RootCertStore {
    RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned())
}

fn tls(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

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

    #[test]
    fn a_way_is_read_and_what_is_wrong_with_it_is_told() {
        let read = |variables: &[(&str, &str)]| {
            Way::read(|asked| variables.iter().find(|(name, _)| *name == asked).map(|(_, value)| (*value).to_owned()))
        };
        let way = read(&[("HTTPS_PROXY", " http://p:1 "), ("NO_PROXY", ""), ("SSL_CERT_FILE", "/c")]);
        assert_eq!((way.https_proxy.as_deref(), &way.http_proxy, &way.no_proxy), (Some("http://p:1"), &None, &None));
        assert!(!format!("{way:?}").contains("http://p"));
        assert_eq!(way.certificates, Some(PathBuf::from("/c")));
        assert_eq!(read(&[("https_proxy", "a"), ("HTTPS_PROXY", "b")]).https_proxy.as_deref(), Some("a"));

        let folder = tempfile::tempdir().unwrap();
        let (empty, odd) = (folder.path().join("empty"), folder.path().join("odd"));
        std::fs::write(&empty, "").unwrap();
        std::fs::write(&odd, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let trusting = |path: &Path| Way { certificates: Some(path.to_owned()), ..Way::default() };
        for (way, said) in [
            (read(&[("ALL_PROXY", "http://user:passw0rd@[")]), "ALL_PROXY is no address"),
            (read(&[("ALL_PROXY", "socks5h://user:passw0rd@p:1")]), "ALL_PROXY names a proxy of the kind socks5h"),
            (read(&[("HTTPS_PROXY", "ftp://user:passw0rd@p:1")]), "HTTPS_PROXY names a proxy of the kind ftp"),
            (trusting(&folder.path().join("none")), "SSL_CERT_FILE cannot be read"),
            (trusting(&empty), "SSL_CERT_FILE holds no certificate"),
            (trusting(&odd), "SSL_CERT_FILE holds a certificate that is none"),
        ] {
            let error = build_for(TIMEOUTS, &way).unwrap_err();
            assert!(error.message().starts_with(said) && !error.detail().contains("passw0rd"), "{}", error.detail());
        }
        for way in
            [Way::default(), read(&[("http_proxy", "p:1"), ("HTTPS_PROXY", "127.0.0.1:1"), ("ALL_PROXY", "https://p")])]
        {
            assert!(build_for(TIMEOUTS, &way).is_ok(), "{way:?}");
        }
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
