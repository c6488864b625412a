//! What every backend promises, on this one.

use std::{process::Stdio, time::Duration};

use molecule_core::{
    id::WorkspaceId,
    provisioner::{
        ControlPlaneProvisioner, StartSpec,
        remote::{RemoteConfig, RemoteProvisioner},
    },
    testing::provisioner_suite::{Fixture, machines, run_suite},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::bench::{Bench, example, on_engine};

/// Workloads of one image.
struct Workloads<'a> {
    bench: &'a Bench,
    runtime: String,
}

impl Fixture for Workloads<'_> {
    fn spec(&self, id: WorkspaceId) -> StartSpec {
        self.bench.adopt(id);
        self.bench.spec(id, &self.runtime)
    }
}

#[tokio::test]
async fn the_docker_backend_passes_the_suite() {
    on_engine(async |bench| {
        let workloads = Workloads { bench: &bench, runtime: bench.runtime().await };
        let report = run_suite(&bench.provisioner, &workloads).await;
        assert!(report.is_success(), "{report}");
        assert_eq!(report.unsupported, ["What is not declared is refused as unsupported."]);
    })
    .await;
}

/// The example of a control plane, with containers as its machines, and its client. The first is gone with its value.
async fn control_plane(bench: &Bench) -> (Child, RemoteProvisioner) {
    let mut command = Command::new(example("control_plane"));
    command.arg("--docker").env_clear().env("DOCKER_HOST", &bench.host).env("CP_SECRET", "between-control-planes");
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let line = BufReader::new(child.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    let client = RemoteProvisioner::new(RemoteConfig {
        base_url: line.strip_prefix("listening on ").unwrap().to_owned(),
        org_id: "org-1".to_owned(),
        shared_secret: Some("between-control-planes".into()),
        admin_api_token: None,
        admin_token: None,
        timeout: Duration::from_secs(60),
    });
    (child, client.unwrap())
}

#[tokio::test]
async fn the_example_of_a_control_plane_passes_the_suite_of_machines_with_containers() {
    on_engine(async |bench| {
        let workloads = Workloads { bench: &bench, runtime: bench.runtime().await };
        let (_child, client) = control_plane(&bench).await;
        let report = machines::run_suite(&client, &workloads).await;
        assert!(report.is_success(), "{report}");
        assert_eq!(report.passed.len(), machines::CASES.len());
    })
    .await;
}

#[tokio::test]
async fn a_machine_of_the_example_is_a_container_that_goes_with_its_volumes() {
    on_engine(async |bench| {
        let (runtime, id) = (bench.runtime().await, bench.workspace());
        let (_child, client) = control_plane(&bench).await;
        let instance = client.start(&bench.spec(id, &runtime)).await.unwrap().instance_id;
        let container = bench.inspect(id).await;
        assert_eq!(container.state.unwrap().running, Some(true));
        assert!(container.config.unwrap().env.unwrap().contains(&format!("WORKSPACE_ID={id}")));
        assert!(client.is_running(id, &instance).await.unwrap());
        client.stop(id, &instance).await.unwrap();
        assert_eq!(bench.traces(id).await, [""; 0]);
        assert!(!client.is_running(id, &instance).await.unwrap());
    })
    .await;
}
