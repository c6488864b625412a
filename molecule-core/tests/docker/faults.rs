//! An engine that is away, slow, or asked for the same thing many times.

use std::time::Duration;

use bollard::models::VolumeCreateRequest;
use futures_util::future::join_all;
use molecule_core::{
    error::ErrorKind,
    provisioner::{
        ConfigFile, LocalProvisioner, WorkloadInspector,
        docker::{DockerConfig, DockerProvisioner},
    },
};

use crate::{
    bench::{eventually, on_engine},
    proxy::Proxy,
};

#[tokio::test]
async fn without_an_engine_connecting_fails_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let silent = folder.path().join("no-engine.sock");
    // A socket that nobody listens on any more, and none at all.
    drop(std::os::unix::net::UnixListener::bind(&silent).unwrap());
    for host in [format!("unix://{}", silent.display()), "unix:///no/socket".to_owned(), "tcp://127.0.0.1:1".to_owned()]
    {
        let config = DockerConfig { docker_host: Some(host.clone()), ..DockerConfig::default() };
        let error = DockerProvisioner::connect(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().starts_with(&format!("no docker engine answers at {host} — start")), "{error}");
    }
    let config = DockerConfig { docker_host: Some("ssh://host".to_owned()), ..DockerConfig::default() };
    assert_eq!(DockerProvisioner::connect(config).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn an_engine_that_went_away_is_an_error_and_no_stopped_workspace() {
    on_engine(async |bench| {
        let mut proxy = Proxy::to(&bench.host, None);
        let mut config = bench.config();
        config.docker_host = Some(proxy.host.clone());
        let provisioner = bench.connect(config).await;
        let id = bench.workspace();
        assert!(!provisioner.is_running(id).await.unwrap());
        proxy.close().await;
        for error in [
            provisioner.is_running(id).await.unwrap_err(),
            provisioner.observe(id).await.unwrap_err(),
            provisioner.stop(id).await.unwrap_err(),
            provisioner.remove_volume(id).await.unwrap_err(),
            provisioner.volume_has_file(id, "config.yaml").await.unwrap_err(),
            provisioner.inventory().await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_hangs_is_given_up_on() {
    on_engine(async |bench| {
        let proxy = Proxy::to(&bench.host, Some("GET /containers/"));
        let mut config = bench.config();
        config.docker_host = Some(proxy.host.clone());
        config.request_timeout = Duration::from_secs(1);
        let provisioner = bench.connect(config).await;
        let error = provisioner.is_running(bench.workspace()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    })
    .await;
}

#[tokio::test]
async fn starts_that_need_the_same_image_pull_it_once() {
    on_engine(async |bench| {
        const STARTS: usize = 5;
        let proxy = Proxy::to(&bench.host, Some("POST /images/create"));
        let mut config = bench.config();
        config.docker_host = Some(proxy.host.clone());
        config.images.overrides.insert("gone".to_owned(), format!("localhost:1/{}:1", bench.tag));
        let provisioner = bench.connect(config).await;
        let specs: Vec<_> = (0..STARTS).map(|_| bench.spec(bench.workspace(), "gone")).collect();
        // Nothing is started before its image is there.
        let starts = join_all(specs.iter().map(|spec| provisioner.prepare(spec)));
        let release = async {
            eventually("every start to know that the image is missing", async || {
                proxy.finished("GET /images/", "/json") == STARTS
            })
            .await;
            proxy.release();
        };
        let (outcomes, ()) = tokio::join!(starts, release);
        for outcome in outcomes {
            assert!(outcome.unwrap_err().message().contains("could not be pulled"));
        }
        assert_eq!(proxy.asked("POST /images/create"), 1);
    })
    .await;
}

#[tokio::test]
async fn a_pull_has_a_time_budget_of_its_own() {
    on_engine(async |bench| {
        let proxy = Proxy::to(&bench.host, Some("POST /images/create"));
        let mut config = bench.config();
        config.docker_host = Some(proxy.host.clone());
        config.pull_timeout = Duration::from_millis(100);
        config.images.overrides.insert("slow".to_owned(), format!("localhost:1/{}:1", bench.tag));
        let provisioner = bench.connect(config).await;
        let error = provisioner.start(&bench.spec(bench.workspace(), "slow")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.detail().contains("the pull took longer than 100ms"), "{}", error.detail());
        assert!(error.message().contains("was not pulled within 0 s"), "{}", error.message());
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_fails_the_start_and_leaves_no_container() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let id = bench.workspace();
        let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=64k")];
        let small = VolumeCreateRequest {
            name: Some(format!("ws-{id}-configs")),
            driver_opts: Some(options.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
            ..VolumeCreateRequest::default()
        };
        bench.docker.create_volume(small).await.unwrap();
        let mut spec = bench.spec(id, &runtime);
        let file = |bytes| ConfigFile { path: "file".to_owned(), contents: vec![b'x'; bytes], private: false };
        spec.files = vec![file(1024 * 1024)];
        let error = bench.provisioner.start(&spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Upstream);
        assert!(error.detail().contains("no space left"), "{}", error.detail());
        assert!(!error.message().contains("/var/"), "{}", error.message());
        assert!(bench.traces(id).await.iter().all(|name| !name.starts_with('/')), "{:?}", bench.traces(id).await);
        spec.files = vec![file(1024)];
        bench.provisioner.start(&spec).await.unwrap();
        assert!(bench.provisioner.is_running(id).await.unwrap());
    })
    .await;
}
