//! Names of hosts, looked up without waiting for ever: agents choose them, and who answers for them.

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use moka::future::Cache;
use tokio::sync::Semaphore;

/// How long an answer is waited for.
const WITHIN: Duration = Duration::from_secs(3);

/// How many names are looked up at once. Each holds a thread until it is over.
const AT_ONCE: usize = 32;

/// How long what the resolver of this host answered holds. Each address is judged for each call all the same.
const HOLDS: Duration = Duration::from_secs(1);

/// How many answers are kept.
const KEPT: u64 = 1024;

/// Finds the addresses of names.
pub trait Resolver: fmt::Debug + Send + Sync + 'static {
    /// Every address of `name`, with `port`. It may block.
    ///
    /// # Errors
    /// Where the name has none, or that cannot be found out.
    fn addresses(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// That of this host.
#[derive(Debug)]
struct SystemResolver;

impl Resolver for SystemResolver {
    fn addresses(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        (name, port).to_socket_addrs().map(Iterator::collect)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Names {
    resolver: Arc<dyn Resolver>,
    places: Arc<Semaphore>,
    /// What was answered a moment ago; none where the resolver is asked each time.
    known: Option<Cache<(String, u16), Vec<SocketAddr>>>,
}

impl Names {
    /// Asks `resolver` each time.
    pub(crate) fn new(resolver: Arc<dyn Resolver>) -> Self {
        Self { resolver, places: Arc::new(Semaphore::new(AT_ONCE)), known: None }
    }

    /// Asks the resolver of this host, of each name at most once a second.
    pub(crate) fn of_this_host() -> Self {
        Self::new(Arc::new(SystemResolver)).remembering(HOLDS)
    }

    fn remembering(self, holds: Duration) -> Self {
        Self { known: Some(Cache::builder().max_capacity(KEPT).time_to_live(holds).build()), ..self }
    }

    pub(super) async fn addresses(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let Some(known) = &self.known else { return self.look_up(name, port).await };
        let key = (name.to_owned(), port);
        if let Some(addresses) = known.get(&key).await {
            return Ok(addresses);
        }
        let addresses = self.look_up(name, port).await?;
        known.insert(key, addresses.clone()).await;
        Ok(addresses)
    }

    async fn look_up(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found = async {
            let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
            let (resolver, name) = (Arc::clone(&self.resolver), name.to_owned());
            // It cannot be called off, so it holds its place for as long as it takes.
            let asked = tokio::task::spawn_blocking(move || {
                let found = resolver.addresses(&name, port);
                drop(place);
                found
            });
            asked.await.map_err(io::Error::other)?
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        tokio::time::timeout(WITHIN, found).await.unwrap_or_else(|_| Err(late()))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
            mpsc::{Receiver, channel},
        },
        time::Instant,
    };

    use super::*;

    /// One that answers nobody until it is let go, and counts those who wait.
    #[derive(Debug)]
    struct Stuck {
        waiting: AtomicUsize,
        go_on: Mutex<Receiver<()>>,
    }

    impl Resolver for Stuck {
        fn addresses(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let _ = self.go_on.lock().unwrap().recv();
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn a_name_without_an_answer_is_given_up_and_few_hold_a_thread() {
        let (let_go, go_on) = channel();
        let stuck = Arc::new(Stuck { waiting: AtomicUsize::new(0), go_on: Mutex::new(go_on) });
        let names = Names::new(Arc::clone(&stuck) as Arc<dyn Resolver>);
        let began = Instant::now();
        let asked = (0..3 * AT_ONCE).map(|n| {
            let name = format!("{n}.example");
            let names = &names;
            async move { names.addresses(&name, 80).await }
        });
        for answer in futures_util::future::join_all(asked).await {
            assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        assert!(began.elapsed() < 3 * WITHIN, "nobody waited behind another");
        assert_eq!(stuck.waiting.load(Ordering::SeqCst), AT_ONCE);
        drop(let_go);
        assert_eq!(names.addresses("later.example", 80).await.unwrap(), []);
    }

    /// One that fails first, and then counts how often it was asked by the port.
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    impl Resolver for Counting {
        fn addresses(&self, _: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0 => Err(io::Error::other("not yet")),
                n => Ok(vec![SocketAddr::from(([127, 0, 0, u8::try_from(n).unwrap()], port))]),
            }
        }
    }

    #[tokio::test]
    async fn an_answer_holds_for_its_name_and_port_until_its_time_is_over_and_a_failure_does_not() {
        let names = Names::new(Arc::new(Counting::default())).remembering(Duration::from_secs(60));
        let last = async |name: &str, port| match names.addresses(name, port).await.unwrap()[0].ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            ip => panic!("{ip}"),
        };
        assert!(names.addresses("one.example", 80).await.is_err());
        assert_eq!([last("one.example", 80).await, last("one.example", 80).await], [1, 1]);
        assert_eq!([last("one.example", 81).await, last("two.example", 80).await], [2, 3]);
        let short = Names::new(Arc::new(Counting(AtomicUsize::new(1)))).remembering(Duration::from_millis(1));
        let first = short.addresses("one.example", 80).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while short.addresses("one.example", 80).await.unwrap() == first {
            assert!(Instant::now() < deadline, "it is asked again");
        }
    }
}
