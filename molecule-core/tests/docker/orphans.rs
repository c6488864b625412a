//! The sweep that clears up what nobody claims, on a real engine that others use as well.

use std::{sync::Arc, time::Duration};

use chrono::DateTime;
use molecule_core::{
    ControlPlane,
    config::Config,
    provisioner::{LocalProvisioner, WorkloadInspector, docker::DockerConfig},
    store::Store,
    testing::ManualClock,
};

use crate::bench::{eventually, on_engine};

#[tokio::test]
async fn what_this_installation_made_and_no_row_knows_is_cleared_up_and_nothing_of_others() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let installed = |name: &str| DockerConfig { installation: Some(name.to_owned()), ..bench.config() };
        let ours = Arc::new(bench.connect(installed(&bench.tag)).await);
        let theirs = bench.connect(installed(&format!("{}-other", bench.tag))).await;
        let (stray, foreign, unmarked) = (bench.workspace(), bench.workspace(), bench.workspace());
        ours.start(&bench.spec(stray, &runtime)).await.unwrap();
        theirs.start(&bench.spec(foreign, &runtime)).await.unwrap();
        bench.provisioner.start(&bench.spec(unmarked, &runtime)).await.unwrap();
        assert_eq!(ours.own_inventory().await.unwrap(), [stray]);
        assert_eq!(
            (ours.inventory().await.unwrap().contains(&foreign), theirs.inventory().await.unwrap().contains(&stray)),
            (false, false)
        );
        assert!(ours.inventory().await.unwrap().contains(&unmarked), "an older server may have made it");
        assert_eq!(bench.provisioner.own_inventory().await.unwrap(), [], "who has no name has nothing of its own");

        let clock = ManualClock::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let config = Config { orphan_tick: Duration::from_millis(50), ..Config::default() };
        let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap())
            .config(config)
            .clock(Arc::new(clock.clone()))
            .local_backend(ours.clone())
            .build()
            .unwrap();
        control_plane.start();
        eventually("a first look", async || control_plane.liveness().contains_key("orphan-sweeper")).await;
        assert!(ours.is_running(stray).await.unwrap());
        clock.advance(Duration::from_secs(301));
        eventually("its end", async || !ours.is_running(stray).await.unwrap()).await;
        assert_eq!(ours.own_inventory().await.unwrap(), [stray], "its volumes are kept for a day");
        clock.advance(Duration::from_secs(24 * 60 * 60));
        eventually("nothing to be left", async || bench.traces(stray).await.is_empty()).await;
        for id in [foreign, unmarked] {
            assert!(bench.provisioner.is_running(id).await.unwrap(), "another's");
        }
        assert!(control_plane.shut_down(Duration::from_secs(60)).await);
    })
    .await;
}
