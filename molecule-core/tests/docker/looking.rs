//! What an operator sees.

use futures_util::future::join_all;
use molecule_core::{
    error::ErrorKind,
    provisioner::{LocalProvisioner, Workload, WorkloadInspector},
};

use crate::bench::{eventually, on_engine};

#[tokio::test]
async fn tells_absent_running_and_ended_apart() {
    on_engine(async |bench| {
        let id = bench.workspace();
        assert_eq!(bench.provisioner.observe(id).await.unwrap(), Workload::Absent);
        assert!(!bench.provisioner.is_running(id).await.unwrap());

        let serve = bench.runtime().await;
        bench.provisioner.start(&bench.spec(id, &serve)).await.unwrap();
        assert_eq!(bench.provisioner.observe(id).await.unwrap(), Workload::Running);
        assert!(bench.provisioner.is_running(id).await.unwrap());

        let crashing = bench.spec_with(id, &serve, &[("MOLECULE_TEST_EXIT", "3")]);
        bench.provisioner.start(&crashing).await.unwrap();
        eventually("a crash with code 3", async || {
            bench.provisioner.observe(id).await.unwrap() == Workload::Ended { exit_code: Some(3) }
        })
        .await;
        let logs = bench.provisioner.logs(id, 100).await.unwrap();
        assert!(String::from_utf8(logs).unwrap().contains("workload starts"), "logs are there after a crash");
    })
    .await;
}

#[tokio::test]
async fn gives_the_last_lines_of_both_streams() {
    on_engine(async |bench| {
        let id = bench.workspace();
        assert_eq!(bench.provisioner.logs(id, 10).await.unwrap_err().kind(), ErrorKind::NotFound);
        let runtime = bench.runtime().await;
        let spec = bench.spec_with(id, &runtime, &[("MOLECULE_TEST_LINES", "1"), ("MOLECULE_TEST_ERRORS", "1")]);
        bench.provisioner.start(&spec).await.unwrap();
        let lines = async |count| {
            let logs = String::from_utf8(bench.provisioner.logs(id, count).await.unwrap()).unwrap();
            logs.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        eventually("three lines", async || lines(10).await.len() == 3).await;
        let all = lines(10).await;
        // Which of the two streams comes first is not known.
        for expected in ["workload starts", "line 1", "error line"] {
            assert!(all.iter().any(|line| line == expected), "{expected}: {all:?}");
        }
        assert_eq!(lines(1).await, all[2..]);
        assert_eq!(lines(0).await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn lists_each_workspace_once_with_or_without_a_workload() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let (running, stopped, unknown) = (bench.workspace(), bench.workspace(), bench.workspace());
        for id in [running, stopped] {
            bench.provisioner.start(&bench.spec(id, &runtime)).await.unwrap();
        }
        bench.provisioner.stop(stopped).await.unwrap();
        let inventory = bench.provisioner.inventory().await.unwrap();
        for (id, times) in [(running, 1), (stopped, 1), (unknown, 0)] {
            assert_eq!(inventory.iter().filter(|listed| **listed == id).count(), times);
        }
    })
    .await;
}

#[tokio::test]
async fn the_gateway_is_an_address_of_this_host() {
    on_engine(async |bench| {
        let gateways = tokio::join!(bench.provisioner.gateway(), bench.provisioner.gateway());
        let gateway = gateways.0.unwrap().expect("a bridge has a gateway");
        assert_eq!(gateways.1.unwrap(), Some(gateway));
        std::net::TcpListener::bind((gateway, 0)).expect("a server can listen there");
    })
    .await;
}

#[tokio::test]
async fn servers_that_make_the_network_at_once_end_up_with_one() {
    on_engine(async |bench| {
        let mut servers = Vec::new();
        for _ in 0..4 {
            servers.push(bench.connect(bench.config()).await);
        }
        let gateways = join_all(servers.iter().map(|server| server.gateway())).await;
        assert!(gateways.iter().all(Result::is_ok), "{gateways:?}");
        // Whoever looked before the last was made may have seen another.
        let gateway = bench.provisioner.gateway().await.unwrap();
        let networks = bench.docker.list_networks(None).await.unwrap();
        assert_eq!(networks.iter().filter(|network| network.name.as_ref() == Some(&bench.tag)).count(), 1);
        std::net::TcpListener::bind((gateway.unwrap(), 0)).unwrap();
    })
    .await;
}
