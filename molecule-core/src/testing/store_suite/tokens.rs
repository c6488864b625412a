//! Tokens of workspaces and of the organisation.

use super::{StoreCase, at, attempt, cases, event, insert, renew, token, workspace};
use futures_util::future::join_all;
use secrecy::ExposeSecret;
use serde_json::json;
use uuid::Uuid;

use crate::{
    clock::SystemEntropy,
    id::{TokenId, WorkspaceId},
    identity::{self, NewOrgToken, NewToken},
    secrets::Cipher,
    store::{Added, NewWorkspace, Registration, Store},
    workspace::{DeliveryMode, Status},
};

cases! {
    /// Of register calls that race for the first token, exactly one gets it
    async fn one_first_token(store: Store) {
        let new = NewWorkspace { status: Status::Online, ..workspace() };
        insert(&store, &new).await;
        let card = json!({"name": "x"});
        let tries = join_all((0..8).map(|n| {
            let (store, card) = (store.clone(), card.clone());
            async move {
                let registration = Registration {
                    id: new.id,
                    from: Status::Online,
                    to: Status::Online,
                    url: None,
                    agent_card: &card,
                    delivery_mode: DeliveryMode::Push,
                    at: at(n),
                };
                store.register(&registration, Some(&token(new.id)), &event(new.id, n)).await.unwrap()
            }
        }));
        let kept: Vec<Option<bool>> = tries.await;
        assert_eq!(kept.iter().filter(|kept| **kept == Some(true)).count(), 1, "{kept:?}");
        assert_eq!(store.workspace(new.id).await.unwrap().unwrap().agent_card, Some(card));
    }

    /// A token names its owner until it is revoked, replaced, or its workspace is removed
    async fn token_owners(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let (first, second) = (token(new.id), token(new.id));
        assert!(store.token_owner(&first.hash, at(0)).await.unwrap().is_none());
        assert!(!store.any_live_token().await.unwrap());
        let attempt = new.provision_attempt.unwrap();
        assert!(renew(&store, new.id, attempt, Some(&first)).await);
        let owner = store.token_owner(&first.hash, at(0)).await.unwrap().unwrap();
        assert_eq!((owner.id, owner.workspace_id), (first.id, new.id));
        assert!(store.any_live_token().await.unwrap());
        assert!(renew(&store, new.id, attempt, Some(&second)).await);
        assert!(store.token_owner(&first.hash, at(0)).await.unwrap().is_none());
        assert!(store.token_owner(&second.hash, at(0)).await.unwrap().is_some());
        assert!(renew(&store, new.id, attempt, None).await);
        assert!(store.token_owner(&second.hash, at(0)).await.unwrap().is_none());
        let third = token(new.id);
        assert!(renew(&store, new.id, attempt, Some(&third)).await);
        let gone = Status::Provisioning.to(Status::Removed).unwrap();
        assert!(store.remove(&[(new.id, gone, event(new.id, 2))], None).await.unwrap());
        assert!(store.token_owner(&third.hash, at(0)).await.unwrap().is_none());
        assert!(!store.any_live_token().await.unwrap());
    }

    /// Credentials are renewed only for the try that is under way, all of them
    async fn tokens_are_of_the_current_try(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let (earlier, current) = (attempt(), new.provision_attempt.unwrap());
        let of = |attempt| NewToken { provision_attempt: Some(attempt), ..token(new.id) };
        let live = of(current);
        assert!(renew(&store, new.id, current, Some(&live)).await);
        let secret = store.inbound_secret(new.id, &Cipher::default(), at(1)).await.unwrap();
        assert_eq!(secret.map(|secret| secret.expose_secret().to_owned()).as_deref(), Some("s"));
        let late = of(earlier);
        assert!(!renew(&store, new.id, earlier, Some(&late)).await);
        assert!(!renew(&store, new.id, earlier, None).await);
        assert!(store.token_owner(&live.hash, at(1)).await.unwrap().is_some());
        assert!(store.token_owner(&late.hash, at(1)).await.unwrap().is_none());
        assert!(!store.begin_start(new.id, earlier, at(2)).await.unwrap());
        assert!(store.begin_start(new.id, current, at(2)).await.unwrap());
        let failed = Status::Provisioning.to(Status::Failed).unwrap();
        assert!(store.fail_attempt(new.id, failed, current, "why", None, &event(new.id, 3)).await.unwrap());
        assert!(!renew(&store, new.id, current, Some(&of(current))).await, "it has ended");
        assert!(!store.begin_start(new.id, current, at(4)).await.unwrap());
    }

    /// Tokens are added up to the limit, however many at once, and revoked one by one
    async fn adds_and_revokes_tokens(store: Store) {
        let (new, other) = (workspace(), workspace());
        insert(&store, &new).await;
        assert_eq!(store.add_token(&token(other.id), 3).await.unwrap(), Added::NoWorkspace);
        let tokens: Vec<NewToken> = (0..6).map(|_| token(new.id)).collect();
        let added = join_all(tokens.iter().map(|token| store.add_token(token, 3))).await;
        let kept: Vec<bool> = added.into_iter().map(|added| added.unwrap() == Added::Kept).collect();
        assert_eq!(kept.iter().filter(|kept| **kept).count(), 3);
        let live = store.live_tokens(new.id, 10, 0).await.unwrap();
        assert_eq!(live.len(), 3);
        assert_eq!(store.live_tokens(new.id, 1, 2).await.unwrap(), live[2..]);
        let first = tokens.iter().find(|token| token.id == live[0].id).unwrap();
        assert_eq!((&live[0].prefix, live[0].created_at, live[0].last_used_at), (&first.prefix, at(0), None));

        assert!(store.token_owner(&first.hash, at(1)).await.unwrap().is_some());
        insert(&store, &other).await;
        assert!(!store.revoke_token(other.id, first.id, at(2)).await.unwrap(), "it is another workspace's");
        assert!(store.revoke_token(new.id, first.id, at(2)).await.unwrap());
        assert!(!store.revoke_token(new.id, first.id, at(3)).await.unwrap());
        assert!(store.token_owner(&first.hash, at(3)).await.unwrap().is_none());
        assert_eq!(store.live_tokens(new.id, 10, 0).await.unwrap(), live[1..]);
        assert_eq!(store.add_token(first, 2).await.unwrap(), Added::Full);
        let gone = Status::Provisioning.to(Status::Removed).unwrap();
        assert!(store.remove(&[(new.id, gone, event(new.id, 4))], None).await.unwrap());
        assert_eq!(store.add_token(&token(new.id), 3).await.unwrap(), Added::NoWorkspace);
    }

    /// A token that is stale is revoked where its agent has no excuse, and only as long as it is stale
    async fn revokes_stale_tokens(store: Store) {
        let mut stale = Vec::new();
        for (status, runtime) in Status::ALL.map(|status| (status, "hermes")).into_iter().chain([(Status::Online, "external")]) {
            let new = NewWorkspace { status, runtime: runtime.to_owned(), ..workspace() };
            insert(&store, &new).await;
            store.add_token(&token(new.id), 1).await.unwrap();
            let excused = runtime == "external"
                || !matches!(status, Status::Online | Status::Degraded | Status::Offline | Status::Failed);
            if !excused {
                stale.push(new.id);
            }
            if status != Status::Removed {
                assert_eq!(store.revoke_stale_tokens(new.id, at(-1), at(9)).await.unwrap(), 0, "{status}: it is fresh");
                assert!(store.has_live_token(new.id).await.unwrap());
            }
        }
        stale.sort();
        assert!(store.with_stale_tokens(at(0)).await.unwrap().is_empty(), "issued at that very moment");
        let mut found = store.with_stale_tokens(at(1)).await.unwrap();
        found.sort();
        assert_eq!(found, stale);
        for id in found {
            assert_eq!(store.revoke_stale_tokens(id, at(1), at(9)).await.unwrap(), 1);
            assert_eq!(store.revoke_stale_tokens(id, at(1), at(9)).await.unwrap(), 0);
        }
        assert!(store.with_stale_tokens(at(1)).await.unwrap().is_empty());
        for excused in store.workspaces().await.unwrap().into_iter().filter(|row| !stale.contains(&row.id)) {
            assert_eq!(store.revoke_stale_tokens(excused.id, at(1), at(9)).await.unwrap(), 0, "{}", excused.status);
        }
    }

    /// Tokens of the organisation are found until they are revoked, and listed without their text
    async fn org_tokens(store: Store) {
        store.memory().set_trusted(true);
        let tokens: Vec<NewOrgToken> = (0..3).map(|n| org_token(n, None)).collect();
        for token in &tokens {
            store.add_org_token(token).await.unwrap();
        }
        assert!(store.any_live_token().await.unwrap());
        for _ in 0..2 {
            for token in &tokens {
                let owner = store.org_token_owner(&token.hash, at(7)).await.unwrap().unwrap();
                assert_eq!((owner.id, owner.org_id), (token.id, None));
            }
        }
        assert!(store.known_org_token(&tokens[0].hash, at(8)).is_some());
        assert!(store.org_token_owner(&[0; 32], at(7)).await.unwrap().is_none());
        store.save_telemetry(at(8)).await.unwrap();
        let listed = store.live_org_tokens(2).await.unwrap();
        let ids: Vec<_> = listed.iter().map(|token| token.id).collect();
        assert_eq!(ids, [tokens[2].id, tokens[1].id], "the newest come first");
        assert_eq!((listed[0].name.as_deref(), listed[0].created_by.as_deref()), (Some("näme"), Some("session")));
        assert_eq!((listed[0].created_at, listed[0].last_used_at), (at(2), Some(at(7))));
        assert_eq!(store.org_token_prefix(tokens[0].id).await.unwrap().as_ref(), Some(&tokens[0].prefix));
        assert!(store.revoke_org_token(tokens[2].id, at(9)).await.unwrap());
        assert!(!store.revoke_org_token(tokens[2].id, at(9)).await.unwrap());
        assert!(!store.revoke_org_token(TokenId::from_uuid(Uuid::nil()), at(9)).await.unwrap());
        assert!(store.known_org_token(&tokens[2].hash, at(9)).is_none());
        assert!(store.org_token_owner(&tokens[2].hash, at(9)).await.unwrap().is_none());
        assert!(store.org_token_owner(&tokens[1].hash, at(9)).await.unwrap().is_some());
        assert_eq!(store.live_org_tokens(500).await.unwrap().len(), 2);
        for token in &tokens {
            store.revoke_org_token(token.id, at(9)).await.unwrap();
        }
        assert!(!store.any_live_token().await.unwrap());
    }

    /// A token of the organisation is bound to it as long as its topmost workspace is there
    async fn bound_org_tokens(store: Store) {
        store.memory().set_trusted(true);
        let top = NewWorkspace { status: Status::Removed, ..workspace() };
        insert(&store, &top).await;
        let token = org_token(0, Some(top.id));
        store.add_org_token(&token).await.unwrap();
        let bound_to = async || store.org_token_owner(&token.hash, at(1)).await.unwrap().unwrap().org_id;
        assert_eq!((bound_to().await, bound_to().await), (Some(top.id), Some(top.id)));
        store.purge(&[top.id]).await.unwrap();
        assert_eq!(bound_to().await, None);
    }
}

pub(super) fn org_token(seconds: i64, org_id: Option<WorkspaceId>) -> NewOrgToken {
    let (name, by) = (Some("näme".to_owned()), Some("session".to_owned()));
    let (kept, issued) = identity::issue_for_org(name, by, org_id, &SystemEntropy, at(seconds));
    debug_assert_eq!(kept.hash, identity::hash(issued.token.expose_secret()));
    kept
}
