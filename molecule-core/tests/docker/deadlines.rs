//! Starts that are given up half-way.

use std::{sync::Arc, time::Duration};

use molecule_core::{
    ControlPlane,
    config::Config,
    provisioner::LocalProvisioner,
    store::Store,
    workspace::{CreateWorkspace, Status},
};

use crate::bench::{eventually, on_engine};

#[tokio::test]
async fn a_start_that_is_given_up_half_way_leaves_no_workload() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let (mut finished, mut given_up) = (0, Vec::new());
        // From before the first request until one comes in time: some are given up while the engine works on each.
        for patience in (0..).step_by(40).map(Duration::from_millis) {
            let id = bench.workspace();
            let spec = bench.spec(id, &runtime);
            let start = tokio::time::timeout(patience, bench.provisioner.start(&spec)).await;
            bench.provisioner.stop(id).await.unwrap();
            match start {
                Ok(started) => {
                    started.unwrap();
                    finished += 1;
                    if finished == 3 {
                        break;
                    }
                }
                Err(_) => given_up.push((id, patience)),
            }
        }
        assert!(given_up.len() > 3, "only {given_up:?} were given up");
        // Nothing is under way any more that could make another.
        bench.provisioner.shutdown().await;
        for (id, patience) in given_up {
            let traces = bench.traces(id).await;
            assert!(traces.iter().all(|name| !name.starts_with('/')), "given up after {patience:?}: {traces:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_workspace_that_comes_up_too_late_fails_and_leaves_nothing() {
    on_engine(async |bench| {
        let image = format!("{}:late", bench.tag);
        bench.image(&image, &[]).await;
        let mut config = bench.config();
        config.images.overrides.insert("claude-code".to_owned(), image);
        let provisioner = bench.connect(config).await;
        let config = Config { provision_timeout: Some(Duration::from_millis(40)), ..Config::default() };
        let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap())
            .config(config)
            .local_backend(Arc::new(provisioner.clone()))
            .build()
            .unwrap();
        let request = CreateWorkspace { name: "late".to_owned(), ..CreateWorkspace::default() };
        let id = control_plane.create(request).await.unwrap().workspace.id;
        bench.adopt(id);
        let workspace = async || control_plane.workspace(id).await.unwrap().unwrap();
        eventually("the start to fail", async || workspace().await.status == Status::Failed).await;
        let reason = workspace().await.last_sample_error.unwrap();
        assert!(reason.starts_with("workspace start failed: the backend did not answer within"), "{reason}");
        provisioner.shutdown().await;
        assert!(bench.traces(id).await.iter().all(|name| !name.starts_with('/')));

        control_plane.delete(id, true, true).await.unwrap();
        eventually("nothing to be left", async || bench.traces(id).await.is_empty()).await;
        assert!(control_plane.shut_down(Duration::from_secs(30)).await);
    })
    .await;
}
