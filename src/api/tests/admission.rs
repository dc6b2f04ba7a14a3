//! The admission policy, pending requests, and the operator's verdicts.

use bastion::Tier;
use keys::{OnionAddr, PeerId, PublicKey};
use serde_json::{Value, json};

use super::{ApiFixture, NOW, list};
use crate::api::{SessionEffect, SessionRow};
use crate::op_context::Timestamp;
use crate::services::verdicts::REASON_BYTES_MAX;
use crate::store::{PendingBounds, PendingRequest, StoreError};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Stores a pending request of an unadmitted node, `days_ago` days before now.
async fn add_pending(api: &ApiFixture, number: u8, days_ago: u64) -> PeerId {
    let peer_id = PeerId::from_bytes([number; 32]);
    let request = PendingRequest {
        peer_id,
        onion: OnionAddr::from_public_key(PublicKey::from_bytes([number; 32])),
        apps: vec!["rides".into()],
        sync_domains: vec!["rides.offers".into()],
        names: vec!["Eve\u{1b}[2J\n\"".into()],
        effort: 64,
    };
    let bounds = PendingBounds {
        rows_max: 9,
        since: Timestamp(0),
    };
    let then = Timestamp(NOW.0 - days_ago * DAY_MS);
    let note = api
        .engine
        .graph(move |graph| graph.tx().put_pending(&request, then, &bounds));
    assert!(
        note.await
            .map_err(|error: crate::engine::EngineError<StoreError>| error)
            .unwrap()
    );
    peer_id
}

async fn tier(api: &ApiFixture, peer: PeerId) -> Option<Tier> {
    let read = api.engine.read(move |view| view.rows.peer(&peer));
    read.await.unwrap().map(|row| row.tier)
}

async fn ids(api: &ApiFixture, path: &str, field: &str) -> Vec<Value> {
    let reply = api.get(path).await.ok();
    list(&reply, field)
        .iter()
        .map(|row| row["peer_id"].clone())
        .collect()
}

#[tokio::test]
async fn policy_is_shown_and_overridden() {
    let api = ApiFixture::new().await;
    let shown = api.get("/api/admission").await.ok();
    let expected = json!({
        "policy": "open", "set_by": "config", "holds_until": null, "allow": 0,
        "pending": 0, "pending_max": 256, "approvals": 0, "refusals": 0, "bans": 0,
    });
    assert_eq!(shown, expected);
    let changed = api
        .put("/api/admission", json!({ "policy": "approve" }))
        .await
        .ok();
    assert_eq!(
        (&changed["policy"], &changed["set_by"]),
        (&json!("approve"), &json!("operator"))
    );
    assert!(changed["holds_until"].as_str().unwrap().contains("SIGHUP"));
    assert_eq!(api.get("/api/admission").await.ok(), changed);
    assert_eq!(api.get("/api/status").await.ok()["admission"], changed);
    for wrong in [
        json!({ "policy": "closed" }),
        json!({}),
        json!({ "policy": "open", "allow": [] }),
    ] {
        api.put("/api/admission", wrong)
            .await
            .refused(400, "bad_request");
    }
    api.post("/api/admission", json!({ "policy": "open" }))
        .await
        .refused(405, "method");
}

#[tokio::test]
async fn pending_requests_are_listed_with_their_claims_until_they_expire() {
    let api = ApiFixture::new().await;
    let (eve, _) = (
        add_pending(&api, 0xe1, 14).await,
        add_pending(&api, 0xe2, 15).await,
    );
    let reply = api.get("/api/admission/pending").await.ok();
    let [row] = list(&reply, "pending").as_slice() else {
        panic!("{reply}")
    };
    let at = NOW.0 - 14 * DAY_MS;
    let expected = json!({
        "peer_id": eve.to_hex(), "onion": row["onion"], "apps": ["rides"],
        "sync_domains": ["rides.offers"], "names": ["Eve\\u{1b}[2J\\n\""], "effort": 64,
        "first_seen": at, "last_seen": at, "attempts": 1,
    });
    assert_eq!(*row, expected);
    assert_eq!(api.get("/api/admission").await.ok()["pending"], 1);
}

#[tokio::test]
async fn approval_removes_the_pending_request_and_trusts_a_known_peer() {
    let api = ApiFixture::new().await;
    let eve = add_pending(&api, 0xe1, 0).await;
    let verdict = api
        .post("/api/admission/approve", json!({ "peer_id": eve.to_hex() }))
        .await
        .ok();
    assert_eq!(
        (&verdict["verdict"], &verdict["until"]),
        (&json!("approved"), &Value::Null)
    );
    assert!(
        ids(&api, "/api/admission/pending", "pending")
            .await
            .is_empty()
    );
    assert!(ids(&api, "/api/admission/bans", "bans").await.is_empty());
    assert_eq!(api.get("/api/admission").await.ok()["approvals"], 1);
    let bob = json!({ "peer_id": api.bobs_node.to_hex() });
    api.post("/api/admission/ban", bob.clone()).await.ok();
    api.post("/api/admission/unban", bob.clone()).await.ok();
    assert_eq!(tier(&api, api.bobs_node).await, Some(Tier::Untrusted));
    api.post("/api/admission/approve", bob).await.ok();
    assert_eq!(tier(&api, api.bobs_node).await, Some(Tier::Trusted));
    let applied = api.node.applied.lock().clone();
    let bob = api.bobs_node;
    assert_eq!(
        applied,
        [
            (eve, SessionEffect::Trust),
            (bob, SessionEffect::Close),
            (bob, SessionEffect::None),
            (bob, SessionEffect::Trust)
        ]
    );
}

#[tokio::test]
async fn refusal_is_listed_with_reason_and_end() {
    let api = ApiFixture::new().await;
    let (eve, mallory) = (
        add_pending(&api, 0xe1, 0).await,
        add_pending(&api, 0xe2, 0).await,
    );
    let request = json!({ "peer_id": eve.to_hex(), "reason": "never heard of", "for_s": 60 });
    let verdict = api.post("/api/admission/refuse", request).await.ok();
    let expected = json!({
        "peer_id": eve.to_hex(), "verdict": "refused", "reason": "never heard of",
        "at": NOW.0, "until": NOW.0 + 60_000, "session_ended": false,
    });
    assert_eq!(verdict, expected);
    let verdict = api
        .post(
            "/api/admission/refuse",
            json!({ "peer_id": mallory.to_hex() }),
        )
        .await
        .ok();
    assert_eq!(verdict["until"], NOW.0 + 30 * DAY_MS);
    assert!(
        ids(&api, "/api/admission/pending", "pending")
            .await
            .is_empty()
    );
    assert_eq!(ids(&api, "/api/admission/bans", "bans").await.len(), 2);
    // A refusal has no effect on a trusted peer.
    let bob = json!({ "peer_id": api.bobs_node.to_hex() });
    api.post("/api/admission/refuse", bob)
        .await
        .refused(409, "trusted");
    api.post("/api/admission/unban", json!({ "peer_id": eve.to_hex() }))
        .await
        .ok();
    assert_eq!(
        ids(&api, "/api/admission/bans", "bans").await,
        [json!(mallory.to_hex())]
    );
}

#[tokio::test]
async fn ban_ends_the_session_until_unban() {
    let api = ApiFixture::new().await;
    let bob = api.bobs_node;
    api.node.sessions.lock().push(SessionRow {
        peer_id: bob.to_hex(),
        domains: Vec::new(),
        we_dialled: false,
        tier: "untrusted",
    });
    let named = json!({ "peer_id": bob.to_hex() });
    let verdict = api
        .post(
            "/api/admission/ban",
            json!({ "peer_id": bob.to_hex(), "reason": "spam" }),
        )
        .await
        .ok();
    assert_eq!(
        (&verdict["until"], &verdict["session_ended"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(tier(&api, bob).await, Some(Tier::Untrusted));
    let verdict = api
        .engine
        .read(move |view| view.rows.verdict(&bob))
        .await
        .unwrap();
    assert_eq!(verdict.unwrap().tickets_void_until, NOW.0 / 1000);
    for verb in ["approve", "refuse"] {
        let reply = api
            .post(&format!("/api/admission/{verb}"), named.clone())
            .await;
        reply.refused(409, "banned");
    }
    let bans = api.get("/api/admission/bans").await.ok();
    assert_eq!(
        (&bans["bans"][0]["reason"], &bans["bans"][0]["verdict"]),
        (&json!("spam"), &json!("banned"))
    );
    api.post("/api/admission/unban", named.clone()).await.ok();
    api.post("/api/admission/unban", named)
        .await
        .refused(404, "not_found");
    let verdict = api
        .engine
        .read(move |view| view.rows.verdict(&bob))
        .await
        .unwrap()
        .unwrap();
    assert!(!verdict.holds(NOW));
    assert_eq!(
        verdict.tickets_void_until,
        NOW.0 / 1000,
        "tickets stay void"
    );
    assert!(ids(&api, "/api/admission/bans", "bans").await.is_empty());
}

#[tokio::test]
async fn verdict_accepts_a_unique_prefix_of_a_known_peer_id() {
    let api = ApiFixture::new().await;
    let ban = |id: String| api.post("/api/admission/ban", json!({ "peer_id": id }));
    let (eve, bob) = (
        add_pending(&api, 0xe1, 0).await.to_hex(),
        api.bobs_node.to_hex(),
    );
    for id in [&eve[..8], &bob.to_uppercase()[..9]] {
        ban(id.to_owned()).await.ok();
    }
    let mut banned = ids(&api, "/api/admission/bans", "bans").await;
    banned.sort_by_key(Value::to_string);
    let mut expected = [json!(eve), json!(bob)];
    expected.sort_by_key(Value::to_string);
    assert_eq!(banned, expected);
    ban(eve[..7].to_owned()).await.refused(400, "bad_request");
    ban("e1e1e1e_".to_owned()).await.refused(400, "bad_request");
    ban("00000000".to_owned()).await.refused(404, "not_found");
    // A whole id may be unknown so far. Its verdict makes the prefix ambiguous.
    let near = format!("e1e1e1e1{}", "07".repeat(28));
    ban(near).await.ok();
    ban("e1e1e1e1".to_owned()).await.refused(409, "ambiguous");
    ban("e1e1e1e107".to_owned()).await.ok();
    ban(api.node.peer.to_hex()).await.refused(422, "self");
}

#[tokio::test]
async fn verdict_refuses_invalid_reasons_and_durations() {
    let api = ApiFixture::new().await;
    let id = "07".repeat(32);
    for wrong in [
        json!({ "peer_id": id, "reason": "x".repeat(REASON_BYTES_MAX + 1) }),
        json!({ "peer_id": id, "reason": "two\nlines" }),
        json!({ "peer_id": id, "for_s": 0 }),
        json!({ "peer_id": id, "for_s": u64::MAX }),
        json!({ "peer_id": id, "fors": 1 }),
    ] {
        for verb in ["ban", "refuse"] {
            let reply = api
                .post(&format!("/api/admission/{verb}"), wrong.clone())
                .await;
            reply.refused(400, "bad_request");
        }
    }
    assert!(api.node.applied.lock().is_empty());
}
