//! Starting, replacing and stopping.

use molecule_core::{
    error::ErrorKind,
    provisioner::{ConfigFile, LocalProvisioner, Workload, WorkloadInspector},
    workspace::Access,
};

use crate::bench::{answers, eventually, get, on_engine};

const TOKEN: &str = "tokentokentokentokentokentokentokentokentok";

fn private(path: &str, contents: &str) -> ConfigFile {
    ConfigFile { path: path.to_owned(), contents: contents.as_bytes().to_vec(), private: true }
}

fn public(path: &str, contents: &str) -> ConfigFile {
    ConfigFile { private: false, ..private(path, contents) }
}

#[tokio::test]
async fn files_are_in_place_before_the_first_instruction_and_private_ones_are_private() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let id = bench.workspace();
        let mut spec = bench.spec_with(id, &runtime, &[("MOLECULE_TEST_SHOW", ".auth_token")]);
        spec.files = vec![private(".auth_token", TOKEN), public("skills/a/run.sh", "one\ntwo\r\n")];
        bench.provisioner.start(&spec).await.unwrap();

        eventually("the greeting", async || {
            let logs = bench.provisioner.logs(id, 10).await.unwrap();
            String::from_utf8(logs).unwrap().contains(&format!("file .auth_token 600 {TOKEN}\n"))
        })
        .await;
        assert_eq!(bench.provisioner.exec_read(id, "/configs/skills/a/run.sh").await.unwrap(), b"one\ntwo\r\n");
        let inspected = serde_json::to_string(&bench.inspect(id).await).unwrap();
        assert!(inspected.contains("WORKSPACE_ID=") && !inspected.contains(TOKEN));
    })
    .await;
}

#[tokio::test]
async fn private_files_belong_to_the_user_of_the_image() {
    on_engine(async |bench| {
        let runtime = bench.runtime_with(&["USER agent"]).await;
        let id = bench.workspace();
        let mut spec = bench.spec_with(id, &runtime, &[("MOLECULE_TEST_SHOW", ".auth_token")]);
        spec.files = vec![private(".auth_token", TOKEN)];
        bench.provisioner.start(&spec).await.unwrap();
        eventually("the greeting", async || {
            let logs = bench.provisioner.logs(id, 10).await.unwrap();
            String::from_utf8(logs).unwrap().contains(&format!("file .auth_token 600 {TOKEN}\n"))
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn an_earlier_workload_is_replaced_and_its_volume_kept() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let id = bench.workspace();
        let mut spec = bench.spec(id, &runtime);
        spec.files = vec![public("kept.txt", "kept")];
        bench.provisioner.start(&spec).await.unwrap();
        let first = bench.inspect(id).await.id;
        spec.files.clear();
        let url = bench.provisioner.start(&spec).await.unwrap().unwrap();
        assert_ne!(bench.inspect(id).await.id, first);
        assert_eq!(bench.provisioner.exec_read(id, "/configs/kept.txt").await.unwrap(), b"kept");
        answers(&url).await;
    })
    .await;
}

#[tokio::test]
async fn the_url_leads_to_the_agent_and_still_does_after_a_crash() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let id = bench.workspace();
        let url = bench.provisioner.start(&bench.spec(id, &runtime)).await.unwrap().unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        answers(&url).await;
        get(&url, "/crash").await;
        eventually("a restart by the engine", async || bench.inspect(id).await.restart_count == Some(1)).await;
        answers(&url).await;
    })
    .await;
}

#[tokio::test]
async fn a_missing_image_is_named_together_with_what_to_do() {
    on_engine(async |bench| {
        let id = bench.workspace();
        // Nothing listens on port 1.
        let reference = format!("localhost:1/{}:1", bench.tag);
        let mut config = bench.config();
        config.images.overrides.insert("gone".to_owned(), reference.clone());
        let provisioner = bench.connect(config).await;
        let error = provisioner.start(&bench.spec(id, "gone")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(
            error.message(),
            "the image of runtime gone is not on this Docker engine and could not be pulled — build it with make image, \
             or check the registry"
        );
        assert!(error.detail().contains(&reference), "{error:?}");
        assert_eq!(bench.traces(id).await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_mounted_fails_the_start_without_naming_it() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let id = bench.workspace();
        let mut spec = bench.spec(id, &runtime);
        spec.workspace_dir = Some("/no/such/folder".into());
        spec.access = Access::ReadWrite;
        let error = bench.provisioner.start(&spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(!error.message().contains('/') && error.detail().contains("/no/such/folder"), "{error:?}");
        assert_eq!(bench.provisioner.observe(id).await.unwrap(), Workload::Absent);
    })
    .await;
}

#[tokio::test]
async fn a_spec_that_cannot_be_started_leaves_the_earlier_workload_alone() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let id = bench.workspace();
        bench.provisioner.start(&bench.spec(id, &runtime)).await.unwrap();
        let first = bench.inspect(id).await.id;
        let mut spec = bench.spec(id, &runtime);
        spec.files = vec![public("../escape", "x")];
        assert_eq!(bench.provisioner.start(&spec).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(bench.inspect(id).await.id, first);
        assert_eq!(
            bench.provisioner.start(&bench.spec(id, "gone gone")).await.unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        assert_eq!(bench.inspect(id).await.id, first);
    })
    .await;
}

#[tokio::test]
async fn a_moving_image_that_cannot_be_pulled_runs_from_the_cache() {
    on_engine(async |bench| {
        let id = bench.workspace();
        let reference = format!("localhost:1/{}:latest", bench.tag);
        bench.image(&reference, &[]).await;
        let mut config = bench.config();
        config.images.overrides.insert("cached".to_owned(), reference);
        let provisioner = bench.connect(config).await;
        let url = provisioner.start(&bench.spec(id, "cached")).await.unwrap().unwrap();
        answers(&url).await;
    })
    .await;
}

#[tokio::test]
async fn a_failed_start_leaves_no_workload_behind() {
    on_engine(async |bench| {
        let runtime = bench.runtime_with(&["CMD [\"/no-such-program\"]"]).await;
        let id = bench.workspace();
        let error = bench.provisioner.start(&bench.spec(id, &runtime)).await.unwrap_err();
        assert!(error.message().contains(&format!("start the container of workspace {id}")), "{error}");
        assert_eq!(bench.provisioner.observe(id).await.unwrap(), Workload::Absent);

        let good = bench.runtime().await;
        let mut spec = bench.spec(id, &good);
        spec.files = vec![public("../escape", "x")];
        assert_eq!(bench.provisioner.start(&spec).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(bench.provisioner.observe(id).await.unwrap(), Workload::Absent);
    })
    .await;
}

#[tokio::test]
async fn stopping_is_repeatable_ends_every_process_and_keeps_the_volume() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let id = bench.workspace();
        bench.provisioner.stop(id).await.unwrap();
        let mut spec = bench.spec(id, &runtime);
        spec.files = vec![public("kept.txt", "kept")];
        let url = bench.provisioner.start(&spec).await.unwrap().unwrap();
        answers(&url).await;

        let (one, two) = tokio::join!(bench.provisioner.stop(id), bench.provisioner.stop(id));
        one.unwrap();
        two.unwrap();
        assert_eq!(get(&url, "/").await, "", "nobody is left to answer");
        bench.provisioner.stop(id).await.unwrap();
        assert!(!bench.provisioner.is_running(id).await.unwrap());
        assert!(bench.provisioner.volume_has_file(id, "kept.txt").await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn workloads_of_older_installations_are_recognised_by_name_and_label() {
    on_engine(async |bench| {
        use bollard::{models::ContainerCreateBody, query_parameters::CreateContainerOptionsBuilder};

        let runtime = bench.runtime().await;
        let id = bench.workspace();
        let name = format!("ws-{}", id.short());
        let make = async |managed: &str| {
            let body = ContainerCreateBody {
                image: Some(format!("workspace-template:{runtime}")),
                labels: Some([("molecule.platform.managed".to_owned(), managed.to_owned())].into()),
                network_disabled: Some(true),
                ..ContainerCreateBody::default()
            };
            let options = CreateContainerOptionsBuilder::new().name(&name).build();
            bench.docker.create_container(Some(options), body).await.unwrap();
            bench.docker.start_container(&name, None).await.unwrap();
        };

        make("true").await;
        assert!(bench.provisioner.is_running(id).await.unwrap());
        assert_eq!(bench.provisioner.observe(id).await.unwrap(), Workload::Running);
        assert!(bench.provisioner.logs(id, 5).await.is_ok());
        bench.provisioner.stop(id).await.unwrap();
        assert_eq!(bench.traces(id).await, [""; 0]);

        make("false").await;
        assert!(!bench.provisioner.is_running(id).await.unwrap());
        bench.provisioner.stop(id).await.unwrap();
        bench.provisioner.remove_volume(id).await.unwrap();
        assert_eq!(bench.traces(id).await, [format!("/{name}")], "somebody else's container stays");
        let force = bollard::query_parameters::RemoveContainerOptionsBuilder::new().force(true).build();
        bench.docker.remove_container(&name, Some(force)).await.unwrap();
    })
    .await;
}
