//! Agents behind something that answers in their place.

use molecule_core::testing::{Operation, ScriptedProvisioner};

use super::{elsewhere::managed, *};

#[tokio::test]
async fn an_error_of_a_gateway_is_passed_on_unless_the_agent_behind_it_is_dead() {
    let backend = ScriptedProvisioner::new();
    let bench = Bench::new().await;
    let control_plane = ControlPlane::builder(bench.control_plane.store().clone())
        .config(config())
        .clock(Arc::new(bench.clock.clone()))
        .local_backend(Arc::new(backend.clone()))
        .build()
        .unwrap();
    let bench = Bench { control_plane, clock: bench.clock };
    let gateway = Agent::start([], Act::Answer(521, r#"{"error":"no upstream"}"#.to_owned())).await;
    let member = managed(&bench, &gateway).await;
    bench.beat(&member).await;
    let alive = bench.call(&member, Caller::Operator, &message("m")).await.unwrap();
    assert_eq!((alive.status, body(&alive)), (521, json!({"error": "no upstream"})));

    backend.end(member.id, None);
    let error = bench.call(&member, Caller::Operator, &message("n")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Unavailable, "workspace agent unreachable — container restart triggered")
    );
    assert_eq!(error.members(), [("restarting", json!(true)), ("retry_after", json!(15))]);
    backend.called(Operation::Start, 2).await;
    assert_eq!(gateway.seen().len(), 2);
    bench.down().await;
}
