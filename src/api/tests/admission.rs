//! Who is let in, who waits, and the operator's word on them.

use bastion::Tier;
use keys::{OnionAddr, PeerId, PublicKey};
use serde_json::{Value, json};

use super::{Here, NOW, list};
use crate::api::{SessionEffect, SessionRow};
use crate::op_context::Timestamp;
use crate::services::verdicts::REASON_BYTES_MAX;
use crate::store::{PendingBounds, PendingRequest, StoreError};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A stranger knocks, so many days before now.
async fn knock(here: &Here, number: u8, days_ago: u64) -> PeerId {
    let peer_id = PeerId::from_bytes([number; 32]);
    let knock = PendingRequest {
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
    let note = here
        .engine
        .graph(move |graph| graph.tx().put_pending(&knock, then, &bounds));
    assert!(
        note.await
            .map_err(|error: crate::engine::EngineError<StoreError>| error)
            .unwrap()
    );
    peer_id
}

async fn tier(here: &Here, peer: PeerId) -> Option<Tier> {
    let read = here.engine.read(move |view| view.rows.peer(&peer));
    read.await.unwrap().map(|row| row.tier)
}

async fn ids(here: &Here, path: &str, field: &str) -> Vec<Value> {
    let answer = here.get(path).await.ok();
    list(&answer, field)
        .iter()
        .map(|row| row["peer_id"].clone())
        .collect()
}

#[tokio::test]
async fn the_policy_is_shown_and_changed_until_the_file_is_read_again() {
    let here = Here::new().await;
    let shown = here.get("/api/admission").await.ok();
    let expected = json!({
        "policy": "open", "set_by": "config", "holds_until": null, "allow": 0,
        "pending": 0, "pending_max": 256, "approvals": 0, "refusals": 0, "bans": 0,
    });
    assert_eq!(shown, expected);
    let changed = here
        .put("/api/admission", json!({ "policy": "approve" }))
        .await
        .ok();
    assert_eq!(
        (&changed["policy"], &changed["set_by"]),
        (&json!("approve"), &json!("operator"))
    );
    assert!(changed["holds_until"].as_str().unwrap().contains("SIGHUP"));
    assert_eq!(here.get("/api/admission").await.ok(), changed);
    assert_eq!(here.get("/api/status").await.ok()["admission"], changed);
    for wrong in [
        json!({ "policy": "closed" }),
        json!({}),
        json!({ "policy": "open", "allow": [] }),
    ] {
        here.put("/api/admission", wrong)
            .await
            .refused(400, "bad_request");
    }
    here.post("/api/admission", json!({ "policy": "open" }))
        .await
        .refused(405, "method");
}

#[tokio::test]
async fn strangers_that_wait_are_listed_with_what_they_claim_until_their_time_is_over() {
    let here = Here::new().await;
    let (eve, _) = (knock(&here, 0xe1, 14).await, knock(&here, 0xe2, 15).await);
    let answer = here.get("/api/admission/pending").await.ok();
    let [row] = list(&answer, "pending").as_slice() else {
        panic!("{answer}")
    };
    let at = NOW.0 - 14 * DAY_MS;
    let expected = json!({
        "peer_id": eve.to_hex(), "onion": row["onion"], "apps": ["rides"], "sync_domains": ["rides.offers"],
        "names": ["Eve\u{1b}[2J\n\""], "effort": 64, "first_seen": at, "last_seen": at, "attempts": 1,
    });
    assert_eq!(*row, expected);
    assert!(
        !answer.to_string().contains('\u{1b}'),
        "JSON escapes what is claimed"
    );
    assert_eq!(here.get("/api/admission").await.ok()["pending"], 1);
}

#[tokio::test]
async fn an_approved_stranger_waits_no_longer_and_a_known_peer_is_trusted() {
    let here = Here::new().await;
    let eve = knock(&here, 0xe1, 0).await;
    let said = here
        .post("/api/admission/approve", json!({ "peer_id": eve.to_hex() }))
        .await
        .ok();
    assert_eq!(
        (&said["verdict"], &said["until"]),
        (&json!("approved"), &Value::Null)
    );
    assert!(
        ids(&here, "/api/admission/pending", "pending")
            .await
            .is_empty()
    );
    assert!(ids(&here, "/api/admission/bans", "bans").await.is_empty());
    assert_eq!(here.get("/api/admission").await.ok()["approvals"], 1);
    let bob = json!({ "peer_id": here.bobs_node.to_hex() });
    here.post("/api/admission/ban", bob.clone()).await.ok();
    here.post("/api/admission/unban", bob.clone()).await.ok();
    assert_eq!(tier(&here, here.bobs_node).await, Some(Tier::Untrusted));
    here.post("/api/admission/approve", bob).await.ok();
    assert_eq!(tier(&here, here.bobs_node).await, Some(Tier::Trusted));
    let applied = here.node.applied.lock().clone();
    let bob = here.bobs_node;
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
async fn a_refused_stranger_is_listed_with_reason_and_end() {
    let here = Here::new().await;
    let (eve, mallory) = (knock(&here, 0xe1, 0).await, knock(&here, 0xe2, 0).await);
    let request = json!({ "peer_id": eve.to_hex(), "reason": "never heard of", "for_s": 60 });
    let said = here.post("/api/admission/refuse", request).await.ok();
    let expected = json!({
        "peer_id": eve.to_hex(), "verdict": "refused", "reason": "never heard of",
        "at": NOW.0, "until": NOW.0 + 60_000, "session_ended": false,
    });
    assert_eq!(said, expected);
    let said = here
        .post(
            "/api/admission/refuse",
            json!({ "peer_id": mallory.to_hex() }),
        )
        .await
        .ok();
    assert_eq!(said["until"], NOW.0 + 30 * DAY_MS);
    assert!(
        ids(&here, "/api/admission/pending", "pending")
            .await
            .is_empty()
    );
    assert_eq!(ids(&here, "/api/admission/bans", "bans").await.len(), 2);
    // Whom the operator trusts, a refusal would not keep out.
    let bob = json!({ "peer_id": here.bobs_node.to_hex() });
    here.post("/api/admission/refuse", bob)
        .await
        .refused(409, "trusted");
    here.post("/api/admission/unban", json!({ "peer_id": eve.to_hex() }))
        .await
        .ok();
    assert_eq!(
        ids(&here, "/api/admission/bans", "bans").await,
        [json!(mallory.to_hex())]
    );
}

#[tokio::test]
async fn a_ban_ends_the_session_and_only_unban_lifts_it() {
    let here = Here::new().await;
    let bob = here.bobs_node;
    here.node.sessions.lock().push(SessionRow {
        peer_id: bob.to_hex(),
        domains: Vec::new(),
        we_dialled: false,
        tier: "untrusted",
    });
    let named = json!({ "peer_id": bob.to_hex() });
    let said = here
        .post(
            "/api/admission/ban",
            json!({ "peer_id": bob.to_hex(), "reason": "spam" }),
        )
        .await
        .ok();
    assert_eq!(
        (&said["until"], &said["session_ended"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(tier(&here, bob).await, Some(Tier::Untrusted));
    let verdict = here
        .engine
        .read(move |view| view.rows.verdict(&bob))
        .await
        .unwrap();
    assert_eq!(verdict.unwrap().tickets_void_until, NOW.0 / 1000);
    for verb in ["approve", "refuse"] {
        let answer = here
            .post(&format!("/api/admission/{verb}"), named.clone())
            .await;
        answer.refused(409, "banned");
    }
    let bans = here.get("/api/admission/bans").await.ok();
    assert_eq!(
        (&bans["bans"][0]["reason"], &bans["bans"][0]["verdict"]),
        (&json!("spam"), &json!("banned"))
    );
    here.post("/api/admission/unban", named.clone()).await.ok();
    here.post("/api/admission/unban", named)
        .await
        .refused(404, "not_found");
    let verdict = here
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
    assert!(ids(&here, "/api/admission/bans", "bans").await.is_empty());
}

#[tokio::test]
async fn a_peer_may_be_named_by_the_start_of_its_id_where_that_is_clear() {
    let here = Here::new().await;
    let ban = |id: String| here.post("/api/admission/ban", json!({ "peer_id": id }));
    let (eve, bob) = (
        knock(&here, 0xe1, 0).await.to_hex(),
        here.bobs_node.to_hex(),
    );
    for id in [&eve[..8], &bob.to_uppercase()[..9]] {
        ban(id.to_owned()).await.ok();
    }
    let mut banned = ids(&here, "/api/admission/bans", "bans").await;
    banned.sort_by_key(Value::to_string);
    let mut expected = [json!(eve), json!(bob)];
    expected.sort_by_key(Value::to_string);
    assert_eq!(banned, expected);
    ban(eve[..7].to_owned()).await.refused(400, "bad_request");
    ban("e1e1e1e_".to_owned()).await.refused(400, "bad_request");
    ban("00000000".to_owned()).await.refused(404, "not_found");
    // A whole id may be of one that is not known yet; then its start is one of two.
    let near = format!("e1e1e1e1{}", "07".repeat(28));
    ban(near).await.ok();
    ban("e1e1e1e1".to_owned()).await.refused(409, "ambiguous");
    ban("e1e1e1e107".to_owned()).await.ok();
    ban(here.node.peer.to_hex()).await.refused(422, "self");
}

#[tokio::test]
async fn reasons_and_times_have_bounds() {
    let here = Here::new().await;
    let id = "07".repeat(32);
    for wrong in [
        json!({ "peer_id": id, "reason": "x".repeat(REASON_BYTES_MAX + 1) }),
        json!({ "peer_id": id, "reason": "two\nlines" }),
        json!({ "peer_id": id, "for_s": 0 }),
        json!({ "peer_id": id, "for_s": u64::MAX }),
        json!({ "peer_id": id, "fors": 1 }),
    ] {
        for verb in ["ban", "refuse"] {
            let answer = here
                .post(&format!("/api/admission/{verb}"), wrong.clone())
                .await;
            answer.refused(400, "bad_request");
        }
    }
    assert!(here.node.applied.lock().is_empty());
}
