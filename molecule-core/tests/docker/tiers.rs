//! How much a workspace may use and do.

use molecule_core::provisioner::LocalProvisioner;

use crate::bench::{answers, on_engine};

#[tokio::test]
async fn by_default_no_workspace_owns_the_host() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let id = bench.workspace();
        for tier in [3, 4] {
            let mut spec = bench.spec(id, &runtime);
            spec.tier = tier;
            let url = bench.provisioner.start(&spec).await.unwrap().unwrap();
            answers(&url).await;
            let container = bench.inspect(id).await;
            let host = container.host_config.unwrap();
            assert_eq!(host.privileged, Some(false));
            assert_eq!(host.pid_mode.unwrap_or_default(), "");
            assert_eq!(host.memory, Some(512 * 1024 * 1024));
            assert!(container.config.unwrap().env.unwrap().contains(&"TIER=2".to_owned()));
        }
    })
    .await;
}

#[tokio::test]
async fn a_sandboxed_workspace_gets_its_files_on_a_read_only_system() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let id = bench.workspace();
        let mut spec = bench.spec(id, &runtime);
        spec.tier = 1;
        bench.provisioner.write_auth_token(id, &"before".into()).await.unwrap();
        let url = bench.provisioner.start(&spec).await.unwrap().unwrap();
        answers(&url).await;
        assert_eq!(bench.provisioner.exec_read(id, "/configs/.auth_token").await.unwrap(), b"before");
        bench.provisioner.write_auth_token(id, &"after".into()).await.unwrap();
        assert_eq!(bench.provisioner.exec_read(id, "/configs/.auth_token").await.unwrap(), b"after");
        let host = bench.inspect(id).await.host_config.unwrap();
        assert_eq!(host.readonly_rootfs, Some(true));
        assert!(host.tmpfs.unwrap().contains_key("/tmp"));
    })
    .await;
}

#[tokio::test]
async fn a_granted_tier_3_is_privileged() {
    on_engine(async |bench| {
        let provisioner = bench
            .connect({
                let mut config = bench.config();
                config.max_tier = 3;
                config
            })
            .await;
        let runtime = bench.runtime().await;
        if !bench.can_privilege(&runtime).await {
            return;
        }
        let id = bench.workspace();
        let mut spec = bench.spec(id, &runtime);
        spec.tier = 3;
        let url = provisioner.start(&spec).await.unwrap().unwrap();
        answers(&url).await;
        let host = bench.inspect(id).await.host_config.unwrap();
        assert_eq!((host.privileged, host.pid_mode.as_deref()), (Some(true), Some("host")));
    })
    .await;
}

#[tokio::test]
async fn agents_of_tier_4_share_the_network_of_the_host_on_ports_of_their_own() {
    on_engine(async |bench| {
        let provisioner = bench
            .connect({
                let mut config = bench.config();
                config.max_tier = 4;
                config
            })
            .await;
        let runtime = bench.runtime().await;
        if !bench.can_privilege(&runtime).await {
            return;
        }
        let mut urls = Vec::new();
        for id in [bench.workspace(), bench.workspace()] {
            let mut spec = bench.spec(id, &runtime);
            spec.tier = 4;
            let url = provisioner.start(&spec).await.unwrap().unwrap();
            answers(&url).await;
            assert!(provisioner.exec_read(id, "/etc/passwd").await.unwrap().starts_with(b"root:"));
            urls.push(url);
        }
        assert_ne!(urls[0], urls[1]);
        answers(&urls[0]).await;
    })
    .await;
}
