//! Secrets that agents are given, and those that they are called with.

use super::{StoreCase, at, beat, cases, event, id, insert, workspace};
use futures_util::future::join_all;
use secrecy::ExposeSecret;

use crate::{
    secrets::{Cipher, Sealed},
    store::{NewSecret, NewWorkspace, Store, suite_access as gate},
    workspace::Status,
};

cases! {
    /// Secrets are kept, replaced and deleted by name, and go with their workspace
    async fn keeps_secrets(store: Store) {
        let secret = |key: &str, value: &str| NewSecret {
            key: key.to_owned(),
            sealed: Sealed { encrypted_value: value.into(), encryption_version: 1, key_id: Some("k".to_owned()) },
        };
        let new = NewWorkspace { secrets: vec![secret("B", "1"), secret("A", "2")], ..workspace() };
        insert(&store, &new).await;
        let kept = store.workspace_secrets(new.id).await.unwrap();
        assert_eq!(kept.iter().map(|secret| secret.key.as_str()).collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!((kept[1].created_at, kept[1].updated_at), (new.created_at, new.created_at));
        let plain = Sealed { encrypted_value: vec![0, 255], encryption_version: 0, key_id: None };
        let renewed = NewSecret { key: "B".to_owned(), sealed: plain.clone() };
        store.set_workspace_secret(new.id, &renewed, at(5)).await.unwrap();
        let kept = store.workspace_secret(new.id, "B").await.unwrap().unwrap();
        assert_eq!((kept.sealed, kept.created_at, kept.updated_at), (plain, new.created_at, at(5)));
        assert!(store.set_workspace_secret(id(), &renewed, at(5)).await.is_err(), "nobody's secret is kept");

        store.set_global_secret(&secret("B", "3"), at(6)).await.unwrap();
        store.set_global_secret(&secret("B", "4"), at(7)).await.unwrap();
        let global = store.global_secrets().await.unwrap();
        assert_eq!((global.len(), global[0].sealed.encrypted_value.as_slice()), (1, &b"4"[..]));
        assert_eq!((global[0].created_at, global[0].updated_at), (at(6), at(7)));

        assert!(store.delete_workspace_secret(new.id, "A").await.unwrap());
        assert!(!store.delete_workspace_secret(new.id, "A").await.unwrap());
        assert!(store.delete_global_secret("B").await.unwrap());
        assert!(!store.delete_global_secret("B").await.unwrap());
        let gone = Status::Provisioning.to(Status::Removed).unwrap();
        assert!(store.remove(&[(new.id, gone, event(new.id, 8))], None).await.unwrap());
        assert_eq!(store.workspace_secrets(new.id).await.unwrap().len(), 1);
        store.purge(&[new.id]).await.unwrap();
        assert!(store.workspace_secrets(new.id).await.unwrap().is_empty());
    }

    /// A global secret concerns the managed workspaces that have none of their own by its name
    async fn who_is_given_a_global_secret(store: Store) {
        let sealed = Sealed { encrypted_value: vec![1], encryption_version: 0, key_id: None };
        let own = NewSecret { key: "A".to_owned(), sealed };
        let (with, without) = (NewWorkspace { secrets: vec![own], ..workspace() }, workspace());
        let removed = NewWorkspace { status: Status::Removed, ..workspace() };
        let external = NewWorkspace { runtime: "external".to_owned(), ..workspace() };
        for new in [&with, &without, &removed, &external] {
            insert(&store, new).await;
        }
        assert_eq!(store.workspaces_without_secret("A").await.unwrap(), [without.id]);
        assert_eq!(store.workspaces_without_secret("B").await.unwrap().len(), 2);
    }

    /// Of callers who mint an inbound secret at once, all are given the same, and a workspace that is not there none
    async fn one_secret_is_minted(store: Store) {
        let (new, gone) = (workspace(), NewWorkspace { status: Status::Removed, ..workspace() });
        insert(&store, &new).await;
        insert(&store, &gone).await;
        for nothing in [None, Some("")] {
            gate::set_inbound_secret(&store, new.id, nothing).await;
            assert!(store.inbound_secret(new.id, &Cipher::default(), at(0)).await.unwrap().is_none(), "{nothing:?}");
            let tries = join_all((0..8).map(async |n| {
                let kept = format!("{nothing:?} {n}");
                store.mint_inbound_secret(new.id, &kept, &Cipher::default(), at(0)).await.unwrap().unwrap().expose_secret().to_owned()
            }));
            let minted: std::collections::BTreeSet<String> = tries.await.into_iter().collect();
            assert_eq!(minted.len(), 1, "{minted:?}");
            let kept = store.inbound_secret(new.id, &Cipher::default(), at(0)).await.unwrap().unwrap();
            assert!(minted.contains(kept.expose_secret()));
            store.memory().forget_inbound_secrets();
        }
        for absent in [gone.id, id()] {
            assert!(store.mint_inbound_secret(absent, "s", &Cipher::default(), at(0)).await.unwrap().is_none());
            assert!(!store.replace_inbound_secret(absent, &"s".into(), "s", at(0)).await.unwrap());
            assert!(store.inbound_secret(absent, &Cipher::default(), at(0)).await.unwrap().is_none());
        }
    }

    /// An inbound secret is read once in five minutes, what is written is known at once, and absence is not remembered
    async fn remembers_secrets(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let reads = || store.statements().reads;
        let secret = async |seconds| {
            let secret = store.inbound_secret(new.id, &Cipher::default(), at(seconds)).await.unwrap();
            secret.map(|secret| secret.expose_secret().to_owned())
        };
        let before = reads();
        assert_eq!((secret(0).await, secret(0).await), (None, None));
        assert_eq!(reads() - before, 2, "absence is looked up each time");
        assert!(store.replace_inbound_secret(new.id, &"one".into(), "one", at(0)).await.unwrap());
        let before = reads();
        assert_eq!((secret(0).await.as_deref(), secret(299).await.as_deref()), (Some("one"), Some("one")));
        assert_eq!(reads(), before);
        // By somebody whom this process does not hear.
        gate::set_inbound_secret(&store, new.id, Some("two")).await;
        assert_eq!(secret(299).await.as_deref(), Some("one"));
        assert_eq!(secret(300).await.as_deref(), Some("two"));
        assert_eq!(secret(300 + 299).await.as_deref(), Some("two"));
        assert_eq!(reads() - before, 1);
        assert!(store.replace_inbound_secret(new.id, &"three".into(), "three", at(600)).await.unwrap());
        assert_eq!(secret(600).await.as_deref(), Some("three"));
        let gone = Status::Provisioning.to(Status::Removed).unwrap();
        assert!(store.remove(&[(new.id, gone, event(new.id, 601))], None).await.unwrap());
        assert_eq!(secret(601).await, None);
    }

    /// Saving the conditions of those who beat keeps their secrets known, and finds out which were rotated
    async fn saving_sees_secrets(store: Store) {
        let (same, rotated) = (workspace(), workspace());
        for new in [&same, &rotated] {
            let new = NewWorkspace { status: Status::Online, ..NewWorkspace { id: new.id, ..workspace() } };
            insert(&store, &new).await;
            assert!(store.replace_inbound_secret(new.id, &"one".into(), "one", at(0)).await.unwrap());
            store.memory().track(new.id, store.memory().epoch(new.id), Status::Online, beat(1));
            assert!(store.memory().beat(new.id, beat(200), |_, _| true));
        }
        gate::set_inbound_secret(&store, rotated.id, Some("two")).await;
        store.save_telemetry(at(100)).await.unwrap();
        let known = |id| store.memory().inbound_secret(id, at(499)).map(|secret| secret.expose_secret().to_owned());
        assert_eq!(known(same.id).as_deref(), Some("one"));
        assert_eq!(known(rotated.id), None);
    }
}
