//! The clients that call agents. Who is called again is called over the same connection.

use std::{net::SocketAddr, time::Duration};

use moka::future::Cache;
use reqwest::{Client, ClientBuilder};

use crate::{
    error::{Error, ErrorKind, Result},
    http_client::{self, Timeouts},
    net::CheckedUrl,
};

/// How long a connection to an agent may take. What comes after it is bounded by signs of life.
const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(10), total: None };

/// For how many hosts that agents named a client is kept.
const HOSTS: u64 = 1024;

/// How long a connection is kept that nobody uses. Agents close theirs too, uvicorn after 5 seconds; a request that meets
/// that would be one of which nobody knows whether the agent has it.
const IDLE: Duration = Duration::from_secs(4);

/// How long a client is kept that nobody uses.
const UNUSED: Duration = Duration::from_secs(90);

/// Clients for agents.
#[derive(Debug)]
pub(crate) struct Clients {
    assigned: Client,
    /// By the host and the addresses that were found good for it: a client connects to no others.
    named: Cache<(String, Vec<SocketAddr>), Client>,
}

impl Clients {
    /// # Errors
    /// [`ErrorKind::Unexpected`] when the system gives no resolver.
    pub(crate) fn new() -> Result<Self> {
        let named = Cache::builder().max_capacity(HOSTS).time_to_idle(UNUSED).build();
        Ok(Self { assigned: builder().build().map_err(http_client::not_built)?, named })
    }

    /// The one for addresses that the backend assigned.
    pub(super) fn assigned(&self) -> Client {
        self.assigned.clone()
    }

    /// The one that calls the host of `checked` at the addresses that were checked, and at no other.
    ///
    /// # Errors
    /// [`ErrorKind::Unexpected`] when the system gives no client.
    pub(super) async fn pinned(&self, checked: CheckedUrl) -> Result<Client> {
        let host = checked.url.host_str().unwrap_or_default().to_owned();
        let mut key = (host, checked.addresses.clone());
        // A resolver may give them in another order each time.
        key.1.sort_unstable();
        if let Some(client) = self.named.get(&key).await {
            return Ok(client);
        }
        let client = builder()
            .resolve_to_addrs(&key.0, &checked.addresses)
            .build()
            .map_err(|error| Error::new(ErrorKind::Unexpected, "failed to create proxy request").caused_by(error))?;
        self.named.insert(key, client.clone()).await;
        Ok(client)
    }
}

fn builder() -> ClientBuilder {
    http_client::builder(TIMEOUTS).pool_idle_timeout(IDLE)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Answers `requests` requests that come over one connection.
    async fn answer(listener: &TcpListener, requests: usize) {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..requests {
            respond(&mut stream).await;
        }
    }

    async fn respond(stream: &mut TcpStream) {
        let mut request = [0; 4096];
        assert_ne!(stream.read(&mut request).await.unwrap(), 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    }

    fn checked(url: &str, address: SocketAddr) -> CheckedUrl {
        CheckedUrl { url: url.parse().unwrap(), addresses: vec![address] }
    }

    #[tokio::test]
    async fn who_is_called_again_is_called_over_the_same_connection_and_nowhere_else() {
        let clients = Clients::new().unwrap();
        let (one, other) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let url = "http://agent.example/";
        let call = async |at: SocketAddr| {
            let client = clients.pinned(checked(url, at)).await.unwrap();
            assert_eq!(client.get(url).send().await.unwrap().status(), 200);
        };
        let here = one.local_addr().unwrap();
        let calls = async {
            call(here).await;
            call(here).await;
        };
        tokio::join!(calls, answer(&one, 2));
        // Its name leads elsewhere now: what was open before is not used.
        tokio::join!(call(other.local_addr().unwrap()), answer(&other, 1));
    }
}
