//! What every backend promises, on this one.

use molecule_core::{
    id::WorkspaceId,
    provisioner::StartSpec,
    testing::provisioner_suite::{Fixture, run_suite},
};

use crate::bench::{Bench, on_engine};

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
