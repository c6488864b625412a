//! Volumes, with and without a running workload.

use std::collections::HashMap;

use bollard::models::VolumeCreateRequest;
use molecule_core::{
    error::ErrorKind,
    provisioner::{ConfigFile, EXEC_READ_LIMIT, LocalProvisioner, WorkloadInspector},
};

use crate::bench::{eventually, on_engine};

fn public(path: &str, contents: Vec<u8>) -> ConfigFile {
    ConfigFile { path: path.to_owned(), contents, private: false }
}

#[tokio::test]
async fn a_removed_workspace_leaves_its_work_on_the_engine_and_a_purged_one_nothing() {
    on_engine(async |bench| {
        let image = format!("{}:serve", bench.tag);
        bench.image(&image, &[]).await;
        let mut config = bench.config();
        config.images.overrides.insert("claude-code".to_owned(), image);
        let provisioner = bench.connect(config).await;
        let id = bench.workspace();
        provisioner.remove_volume(id).await.unwrap();

        provisioner.start(&bench.spec(id, "claude-code")).await.unwrap();
        let mut traces = bench.traces(id).await;
        traces.sort();
        assert_eq!(
            traces,
            ["/ws-ID", "ws-ID-claude-sessions", "ws-ID-configs", "ws-ID-workspace"]
                .map(|name| name.replace("ID", &id.to_string()))
        );
        let work = format!("ws-{id}-workspace");
        for _ in 0..2 {
            provisioner.remove_volume(id).await.unwrap();
            assert_eq!(bench.traces(id).await, [work.as_str()], "what its agent worked on stays");
        }
        let kept = bench.docker.inspect_volume(&work).await.unwrap();
        assert_eq!(kept.labels["molecule.platform.managed"], "true");
        assert_eq!(kept.labels["molecule.workspace.id"], id.to_string());
        for _ in 0..2 {
            provisioner.purge_volumes(id).await.unwrap();
            assert_eq!(bench.traces(id).await, [""; 0]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_is_kept_until_it_is_reset() {
    on_engine(async |bench| {
        let image = format!("{}:serve", bench.tag);
        bench.image(&image, &[]).await;
        let mut config = bench.config();
        config.images.overrides.insert("claude-code".to_owned(), image);
        let provisioner = bench.connect(config).await;
        let id = bench.workspace();
        let mut spec = bench.spec(id, "claude-code");
        // Sandboxed workspaces keep their conversations, too.
        spec.tier = 1;
        provisioner.start(&spec).await.unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        archive.append_data(&mut header, "talk", std::io::empty()).unwrap();
        let to = bollard::query_parameters::UploadToContainerOptionsBuilder::new().path("/root/.claude/sessions");
        let packed = bollard::body_full(archive.into_inner().unwrap().into());
        bench.docker.upload_to_container(&format!("ws-{id}"), Some(to.build()), packed).await.unwrap();

        provisioner.start(&spec).await.unwrap();
        provisioner.exec_read(id, "/root/.claude/sessions/talk").await.unwrap();
        spec.reset_session = true;
        provisioner.start(&spec).await.unwrap();
        let error = provisioner.exec_read(id, "/root/.claude/sessions/talk").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    })
    .await;
}

#[tokio::test]
async fn files_in_the_volume_are_found_whether_anything_runs_or_not() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let id = bench.workspace();
        assert!(!bench.provisioner.volume_has_file(id, "config.yaml").await.unwrap());
        assert_eq!(bench.traces(id).await, [""; 0], "asking makes nothing");

        let mut spec = bench.spec(id, &runtime);
        spec.files = vec![public("skills/a.md", b"a".to_vec())];
        bench.provisioner.start(&spec).await.unwrap();
        for running in [true, false] {
            if !running {
                bench.provisioner.stop(id).await.unwrap();
            }
            for (path, there) in [("skills/a.md", true), ("config.yaml", false), ("skills", false)] {
                let found = bench.provisioner.volume_has_file(id, path).await.unwrap();
                assert_eq!(found, there, "{path}, running: {running}");
            }
        }
        let error = bench.provisioner.volume_has_file(id, "../etc/passwd").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(bench.traces(id).await.iter().all(|name| !name.starts_with('/')), "no helper is left");
    })
    .await;
}

#[tokio::test]
async fn a_token_is_written_while_nothing_runs_and_replaces_an_earlier_one() {
    on_engine(async |bench| {
        let runtime = bench.runtime_with(&["USER agent"]).await;
        let id = bench.workspace();
        let seen = async |line: &str| {
            eventually(line, async || {
                let logs = bench.provisioner.logs(id, 10).await.unwrap();
                String::from_utf8(logs).unwrap().contains(line)
            })
            .await;
        };

        let spec = bench.spec_with(id, &runtime, &[("MOLECULE_TEST_SHOW", ".auth_token")]);
        bench.provisioner.write_auth_token(id, &"early".into()).await.unwrap();
        bench.provisioner.start(&spec).await.unwrap();
        // Before the first start nobody knows yet whom the token is for.
        seen("file .auth_token missing: Permission denied").await;
        bench.provisioner.remove_volume(id).await.unwrap();

        bench.provisioner.start(&spec).await.unwrap();
        bench.provisioner.stop(id).await.unwrap();
        bench.provisioner.write_auth_token(id, &"first".into()).await.unwrap();
        bench.provisioner.write_auth_token(id, &"the-second".into()).await.unwrap();
        bench.provisioner.start(&spec).await.unwrap();
        seen("file .auth_token 600 the-second\n").await;
        bench.provisioner.write_auth_token(id, &"while-running".into()).await.unwrap();
        assert_eq!(bench.provisioner.exec_read(id, "/configs/.auth_token").await.unwrap(), b"while-running");
    })
    .await;
}

#[tokio::test]
async fn reads_what_the_workload_sees_up_to_the_limit() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let id = bench.workspace();
        let kind = async |path: &str| bench.provisioner.exec_read(id, path).await.map_err(|error| error.kind());
        assert_eq!(kind("/etc/passwd").await, Err(ErrorKind::NotFound), "nothing runs");

        let mut spec = bench.spec(id, &runtime);
        spec.files = vec![public("full", vec![b'x'; EXEC_READ_LIMIT]), public("over", vec![b'x'; EXEC_READ_LIMIT + 1])];
        bench.provisioner.start(&spec).await.unwrap();
        assert!(kind("/etc/passwd").await.unwrap().starts_with(b"root:"));
        assert_eq!(kind("/configs/full").await.unwrap().len(), EXEC_READ_LIMIT);
        assert_eq!(kind("/configs/over").await, Err(ErrorKind::TooLarge));
        assert_eq!(kind("/configs/none").await, Err(ErrorKind::NotFound));
        assert_eq!(kind("/configs").await, Err(ErrorKind::NotFound));
    })
    .await;
}

#[tokio::test]
async fn the_volume_of_an_older_installation_goes_on_being_used() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let id = bench.workspace();
        let short = format!("ws-{}-configs", id.short());
        let labels = HashMap::from([("molecule.platform.managed".to_owned(), "true".to_owned())]);
        let request =
            VolumeCreateRequest { name: Some(short.clone()), labels: Some(labels), ..VolumeCreateRequest::default() };
        bench.docker.create_volume(request).await.unwrap();
        bench.provisioner.write_auth_token(id, &"old".into()).await.unwrap();
        bench.provisioner.start(&bench.spec(id, &runtime)).await.unwrap();
        assert_eq!(bench.provisioner.exec_read(id, "/configs/.auth_token").await.unwrap(), b"old");
        bench.provisioner.remove_volume(id).await.unwrap();
        assert_eq!(bench.traces(id).await, [format!("ws-{id}-workspace")]);
        assert!(!bench.provisioner.inventory().await.unwrap().contains(&id));
    })
    .await;
}
