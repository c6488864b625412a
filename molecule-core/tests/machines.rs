//! What becomes of machines of another control plane whose starts go wrong.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use molecule_core::{
    ControlPlane,
    error::Result,
    id::WorkspaceId,
    provisioner::{ControlPlaneProvisioner, Instance, StartSpec},
    store::Store,
    testing::MockControlPlaneProvisioner,
    workspace::{CreateWorkspace, Status},
};
use tokio::sync::Semaphore;

const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a machine for each permit, and notes which it was given back.
#[derive(Debug)]
struct Slow {
    asked: Semaphore,
    may_start: Semaphore,
    given_back: Mutex<Vec<String>>,
    gave_back: Semaphore,
}

#[async_trait]
impl ControlPlaneProvisioner for Slow {
    async fn start(&self, _: &StartSpec) -> Result<Instance> {
        self.asked.add_permits(1);
        self.may_start.acquire().await.unwrap().forget();
        Ok(Instance { instance_id: "i-late".to_owned() })
    }

    async fn stop(&self, _: WorkspaceId, instance_id: &str) -> Result<()> {
        self.given_back.lock().unwrap().push(instance_id.to_owned());
        self.gave_back.add_permits(1);
        Ok(())
    }

    async fn is_running(&self, _: WorkspaceId, _: &str) -> Result<bool> {
        Ok(true)
    }

    async fn console_output(&self, _: WorkspaceId) -> Result<String> {
        Ok(String::new())
    }
}

async fn control_plane(backend: Arc<dyn ControlPlaneProvisioner>) -> ControlPlane {
    let store = Store::connect("sqlite::memory:").await.unwrap();
    ControlPlane::builder(store).control_plane_backend(backend).build().unwrap()
}

fn coder() -> CreateWorkspace {
    CreateWorkspace { name: "coder".to_owned(), ..CreateWorkspace::default() }
}

async fn soon(semaphore: &Semaphore) {
    tokio::time::timeout(PATIENCE, semaphore.acquire()).await.expect("it happens").unwrap().forget();
}

#[tokio::test]
async fn a_machine_that_comes_up_after_its_workspace_was_removed_is_given_back() {
    let machines = Arc::new(Slow {
        asked: Semaphore::new(0),
        may_start: Semaphore::new(0),
        given_back: Mutex::default(),
        gave_back: Semaphore::new(0),
    });
    let control_plane = control_plane(machines.clone()).await;
    let id = control_plane.create(coder()).await.unwrap().workspace.id;
    soon(&machines.asked).await;
    // Nobody waits for the machine any more, and nobody has heard its name.
    control_plane.delete(id, true, false).await.unwrap();
    assert!(machines.given_back.lock().unwrap().is_empty());
    machines.may_start.add_permits(1);
    soon(&machines.gave_back).await;
    assert!(control_plane.shut_down(PATIENCE).await);
    assert_eq!(*machines.given_back.lock().unwrap(), ["i-late"]);
    assert_eq!(control_plane.workspace(id).await.unwrap().unwrap().status, Status::Removed);
}

#[tokio::test]
async fn a_panic_in_the_call_for_a_machine_fails_the_try() {
    let mut machines = MockControlPlaneProvisioner::new();
    machines.expect_start().times(1).returning(|_| panic!("secret detail"));
    let control_plane = control_plane(Arc::new(machines)).await;
    let id = control_plane.create(coder()).await.unwrap().workspace.id;
    assert!(control_plane.shut_down(PATIENCE).await);
    let row = control_plane.workspace(id).await.unwrap().unwrap();
    assert_eq!(row.status, Status::Failed);
    let told = row.last_sample_error.expect("it says why");
    assert!(told.starts_with("provision panic") && !told.contains("secret"), "{told}");
}
