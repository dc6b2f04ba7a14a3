//! Refused objects of peers.

use keys::{Epoch, Oid, PeerId};
use serde_json::json;

use super::ApiFixture;
use crate::op_context::Timestamp;
use crate::store::{RejectRow, StoreError};

const ROUTE: &str = "/api/v1/rejects";

fn reject(peer: PeerId, seq: u64, type_name: Option<&str>) -> RejectRow {
    RejectRow {
        peer: Some(peer),
        domain: "messages".into(),
        epoch: Epoch::from_bytes([7; 16]),
        seq,
        oid: type_name.map(|_| Oid::from_bytes([9; 16])),
        type_name: type_name.map(str::to_owned),
        code: "not_participant".into(),
        at: Timestamp(seq * 1000),
    }
}

#[tokio::test]
async fn rejects_are_shown_in_groups_and_one_by_one() {
    let api = ApiFixture::new().await;
    let none = json!({ "groups": [], "rejects": [] });
    assert_eq!(api.get(ROUTE).await.ok(), none);
    let peer = api.bobs_node;
    api.engine
        .graph::<_, StoreError>(move |graph| {
            let named = Some("messages.message");
            let rows = [(1, named), (2, None), (3, named)];
            let rows = rows.map(|(seq, name)| reject(peer, seq, name));
            graph.tx().put_rejects(Some(&peer), &rows, 10)
        })
        .await
        .unwrap();
    let id = peer.to_hex();
    let group = |name, count, newest_at| {
        json!({
            "peer_id": id, "code": "not_participant", "type": name, "count": count,
            "newest_at": newest_at,
        })
    };
    let newest = json!({
        "peer_id": id, "domain": "messages", "epoch": "07".repeat(16), "seq": 3,
        "oid": "09".repeat(16), "type": "messages.message", "code": "not_participant", "at": 3000,
    });
    let shown = api.get(ROUTE).await.ok();
    let groups = json!([
        group(json!("messages.message"), 2, 3000),
        group(json!(null), 1, 2000),
    ]);
    assert_eq!(shown["groups"], groups);
    assert_eq!(shown["rejects"][0], newest);
    assert_eq!(shown["rejects"][1]["oid"], json!(null));
    let one = format!("{ROUTE}?peer={}&limit=1", &id[..8]);
    let expected = json!({ "groups": [groups[0]], "rejects": [newest] });
    assert_eq!(api.get(&one).await.ok(), expected);
    let other = format!("{ROUTE}?peer={}", PeerId::from_bytes([8; 32]).to_hex());
    assert_eq!(api.get(&other).await.ok(), none);
    let status = api.get("/api/status").await.ok();
    assert_eq!(status["peers"][0]["rejects"], 3);
}

#[tokio::test]
async fn rejects_of_a_wrong_peer_are_refused() {
    let api = ApiFixture::new().await;
    for (query, status, code) in [
        ("peer=x", 400, "bad_request"),
        ("peer=0123", 400, "bad_request"),
        ("peer=0123456789", 404, "not_found"),
        ("limit=0", 400, "bad_request"),
        ("colour=1", 400, "bad_request"),
    ] {
        let reply = api.get(&format!("{ROUTE}?{query}")).await;
        let field = query.split('=').next().unwrap();
        assert!(reply.refused(status, code).message().contains(field));
    }
    api.post(ROUTE, json!({})).await.refused(405, "method");
}
