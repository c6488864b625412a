//! The files of a workspace, on a real engine: in its container, and in its volumes once it has none.

use bollard::query_parameters::UploadToContainerOptionsBuilder;
use molecule_core::{
    error::ErrorKind,
    provisioner::{ConfigFile, FilePath, FileRoot, LocalProvisioner, WorkspaceFiles},
};

use crate::bench::{Bench, on_engine};

fn public(path: &str, contents: &str) -> ConfigFile {
    ConfigFile { path: path.to_owned(), contents: contents.into(), private: false }
}

fn path(text: &str) -> FilePath {
    FilePath::parse(text).unwrap()
}

/// Puts a link, and what it leads to, where an agent could put them.
async fn plant(bench: &Bench, container: &str) {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, target) in [("configs/link", "/etc"), ("configs/file-link", "/etc/passwd"), ("configs/up", "..")] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, name, target).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(3);
    archive.append_data(&mut header, "workspace/notes", "abc".as_bytes()).unwrap();
    let options = UploadToContainerOptionsBuilder::new().path("/").build();
    let packed = bollard::body_full(archive.into_inner().unwrap().into());
    bench.docker.upload_to_container(container, Some(options), packed).await.unwrap();
}

#[tokio::test]
async fn no_link_leads_out_of_a_root() {
    on_engine(async |bench| {
        let runtime = bench.runtime().await;
        let id = bench.workspace();
        let mut spec = bench.spec(id, &runtime);
        spec.files = vec![public("config.yaml", "name: x")];
        let backend = &bench.provisioner;
        backend.start(&spec).await.unwrap();
        plant(&bench, &format!("ws-{id}")).await;
        for running in [true, false] {
            if !running {
                backend.stop(id).await.unwrap();
            }
            for text in ["link/passwd", "file-link", "up/etc/passwd"] {
                let read = backend.read_file(id, FileRoot::Configs, &path(text)).await.unwrap_err();
                assert_eq!(read.kind(), ErrorKind::InvalidInput, "{text}, running: {running}");
                let written = backend.write_files(id, &[public("fine", ""), public(text, "x")]).await.unwrap_err();
                assert_eq!(written.kind(), ErrorKind::InvalidInput, "{text}, running: {running}");
            }
            for text in ["link", "up"] {
                let listed = backend.list_files(id, FileRoot::Configs, Some(&path(text)), 1).await.unwrap_err();
                assert_eq!(listed.kind(), ErrorKind::InvalidInput, "{text}, running: {running}");
            }
            let listed = backend.list_files(id, FileRoot::Configs, None, 5).await.unwrap().unwrap();
            let names: Vec<_> = listed.iter().map(|entry| entry.path.as_str()).collect();
            assert_eq!(names, ["config.yaml"], "running: {running}");
            // The folder it works in is looked at as well, and what only a container has is not there without one.
            let notes = backend.read_file(id, FileRoot::Workspace, &path("notes")).await.unwrap();
            assert_eq!(notes.as_deref(), Some(b"abc".as_slice()), "running: {running}");
            assert_eq!(backend.list_files(id, FileRoot::Home, None, 1).await.unwrap(), None);
        }
        assert!(bench.traces(id).await.iter().all(|name| !name.starts_with('/')), "no helper is left");
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_is_another_user_can_change_what_was_written() {
    on_engine(async |bench| {
        let runtime = bench.runtime_with(&["USER agent"]).await;
        let id = bench.workspace();
        let backend = &bench.provisioner;
        backend.start(&bench.spec_with(id, &runtime, &[])).await.unwrap();
        backend.write_files(id, &[public("skills/new.md", "new")]).await.unwrap();
        let again = bench.spec_with(id, &runtime, &[("MOLECULE_TEST_SHOW", "skills/new.md")]);
        backend.start(&again).await.unwrap();
        let archive = bench.stat(&format!("ws-{id}"), "/configs/skills/new.md").await;
        assert_eq!(archive, (1000, 1001, 0o644));
        // Whoever the image runs as, deleting goes through.
        backend.delete_file(id, &path("skills/new.md")).await.unwrap();
        let gone = backend.read_file(id, FileRoot::Configs, &path("skills/new.md")).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    })
    .await;
}

#[tokio::test]
async fn an_image_without_rm_says_that_nothing_can_be_deleted() {
    on_engine(async |bench| {
        let runtime = bench.runtime_with(&["ENV PATH=/nowhere"]).await;
        let id = bench.workspace();
        let backend = &bench.provisioner;
        let mut spec = bench.spec(id, &runtime);
        spec.files = vec![public("a", "x")];
        backend.start(&spec).await.unwrap();
        let refused = backend.delete_file(id, &path("a")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{}", refused.detail());
        assert_eq!(backend.read_file(id, FileRoot::Configs, &path("a")).await.unwrap().unwrap(), b"x");
        assert_eq!(bench.traces(id).await.iter().filter(|name| name.starts_with('/')).count(), 1, "no helper is left");
    })
    .await;
}
