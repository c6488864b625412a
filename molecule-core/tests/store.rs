//! The store suite on Postgres. On SQLite it runs beside its cases.

mod support;

use molecule_core::{store::Store, testing::store_suite::all};

#[tokio::test]
async fn postgres_passes_the_suite() {
    for case in all() {
        let Some(database) = support::postgres_database().await else { return };
        let store = Store::connect(database.url()).await.unwrap();
        (case.run)(store.clone()).await;
        store.close().await;
    }
}

#[tokio::test]
async fn several_replicas_may_bring_one_schema_up_to_date() {
    let Some(database) = support::postgres_database().await else { return };
    let replicas = (0..4).map(|_| Store::connect(database.url()));
    for store in futures_util::future::join_all(replicas).await {
        store.unwrap().close().await;
    }
}

#[tokio::test]
async fn a_bad_database_is_named_in_one_line() {
    let unreachable = "postgres://molecule:hunter2@127.0.0.1:1/none";
    for (url, said) in [
        ("mysql://x", "the database URL must begin with sqlite: or postgres://"),
        ("", "the database URL must begin with sqlite: or postgres://"),
        ("sqlite:/nowhere/at/all.db", "the SQLite file cannot be opened"),
        (unreachable, "the Postgres database at 127.0.0.1:1 cannot be opened: connection refused"),
    ] {
        let error = Store::connect(url).await.unwrap_err();
        assert!(error.message().starts_with(said), "{url}: {error}");
        assert!(!error.detail().contains("hunter2") && !error.message().contains('\n'), "{}", error.detail());
    }
}

#[tokio::test]
async fn a_claim_is_held_through_connections_that_break_until_another_has_it() {
    let Some(database) = support::postgres_database().await else { return };
    let (one, other) = (Store::connect(database.url()).await.unwrap(), Store::connect(database.url()).await.unwrap());
    let mut claim = one.claim().await.unwrap().unwrap();
    database.cut_connections().await;
    let lost = tokio::time::timeout(std::time::Duration::from_secs(10), claim.lost()).await;
    assert!(lost.is_err(), "it is claimed again");
    assert!(other.claim().await.unwrap().is_none());
    // Whoever is quicker has it.
    database.cut_connections().await;
    let taken = other.claim().await.unwrap();
    assert!(taken.is_some());
    let lost = tokio::time::timeout(std::time::Duration::from_secs(20), claim.lost()).await;
    lost.expect("it is noticed that another has it");
}

#[tokio::test]
async fn a_claim_keeps_others_off_until_it_is_dropped() {
    let Some(database) = support::postgres_database().await else { return };
    let (one, other) = (Store::connect(database.url()).await.unwrap(), Store::connect(database.url()).await.unwrap());
    let claim = one.claim().await.unwrap();
    assert!(claim.is_some());
    assert!(other.claim().await.unwrap().is_none());
    drop(claim);
    let freed = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while other.claim().await.unwrap().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    freed.await.expect("the claim ends with its value");
}
