//! Status, identities, dials, syncs and backups.

use bastion::transport::{CircuitCounts, OptionalFeature};
use bastion::{Hardening, TorStatus};
use keys::PeerId;
use serde_json::{Value, json};

use super::{ApiFixture, list};
use crate::api::SessionRow;

fn session(peer: PeerId, domains: &[&str]) -> SessionRow {
    let domains = domains.iter().map(ToString::to_string).collect();
    SessionRow {
        peer_id: peer.to_hex(),
        domains,
        we_dialled: true,
        tier: "trusted",
    }
}

#[tokio::test]
async fn status_shows_node_peers_and_usage() {
    let api = ApiFixture::new().await;
    api.node
        .sessions
        .lock()
        .push(session(api.bobs_node, &["identities", "messages"]));
    let status = api.get("/api/status").await.ok();
    assert_eq!(status["peer_id"], api.node.peer.to_hex());
    assert_eq!(status["onion"], api.node.onion.to_onion_string());
    assert_eq!(
        (&status["network"], &status["admission"]["policy"]),
        (&json!("reachable"), &json!("open"))
    );
    let gate = json!({
        "effort": 1, "load_permille": 2, "open_handshakes": 12,
        "handshakes": {
            "awaiting_hello": 3, "challenged": 4, "verifying": 5,
            "untrusted_ticket": 6, "trusted_ticket": 7,
        },
        "queue": 8, "verifying": 9, "failures_per_minute": 10, "admissions_per_minute": 11,
        "cached_replies": 12,
        "admitted_total": 13, "by_ticket_total": 14, "refused_total": 15, "busy_total": 16,
    });
    assert_eq!(
        (&status["gate"], &status["dialled_total"]),
        (&gate, &json!(17))
    );
    assert!(list(&status, "apps").contains(&json!("rides")));
    assert!(list(&status, "sync_domains").contains(&json!("rides.offers")));
    let [peer] = list(&status, "peers").as_slice() else {
        panic!("{status}")
    };
    assert_eq!(
        (&peer["peer_id"], &peer["tier"]),
        (&json!(api.bobs_node.to_hex()), &json!("trusted"))
    );
    assert_eq!(peer["domains"], json!(["identities", "messages"]));
    let causes = json!({ "object": 0, "key": 0, "unfreezing": 0, "home": 0, "rights_list": 0,
        "schema": 0 });
    assert_eq!(peer["waiting_for"], causes);
    let causes = json!({ "no_room": 0, "expired": 0, "named": 0 });
    assert_eq!(
        (&peer["pull_again"], &peer["rejects"]),
        (&causes, &json!(0))
    );
    assert_eq!(status["sessions"][0]["peer_id"], api.bobs_node.to_hex());
    assert_eq!(status["sessions"][0]["tier"], "trusted");
    let (stored, all) = (&peer["stored_bytes"], &status["tiers"]["trusted"]);
    assert!(stored.as_u64().unwrap() > 0 && peer["stored_objects"] == 1);
    assert_eq!(
        (&all["stored_bytes"], &all["stored_objects"]),
        (stored, &json!(1))
    );
    let quota = crate::state_engine::Quotas::default().trusted;
    assert_eq!(all["total_objects_max"], quota.total_objects_max);
    assert_eq!(status["tiers"]["untrusted"]["stored_bytes"], 0);
    assert_eq!(api.get("/api/peers").await.ok()["peers"], status["peers"]);
}

#[tokio::test]
async fn status_shows_the_onion_service_only_over_tor() {
    let api = ApiFixture::new().await;
    assert_eq!(api.get("/api/status").await.ok()["tor"], Value::Null);
    *api.node.tor.lock() = Some(TorStatus {
        hardening: Hardening::DEFAULT,
        streams_per_circuit_max: 8,
        circuits_max: 640,
        accepts_max: 16,
        circuits: CircuitCounts {
            open: 1,
            building: 2,
            waiting: 3,
            built_total: 4,
            failed_total: 5,
            evicted_total: 6,
            refused_total: 7,
            abused_total: 8,
        },
        pow: OptionalFeature {
            built_in: true,
            on: false,
        },
        bridges: OptionalFeature {
            built_in: false,
            on: false,
        },
    });
    let expected = json!({
        "intro_points": 3, "intro_rate_per_s": 10, "intro_burst": 100, "vanguards": "lite",
        "streams_per_circuit_max": 8, "circuits": 1, "circuits_max": 640, "building": 2,
        "accepts_max": 16, "waiting": 3, "built_total": 4, "failed_total": 5, "evicted_total": 6,
        "refused_total": 7, "abused_total": 8,
        "pow": { "built_in": true, "on": false }, "bridges": { "built_in": false, "on": false },
    });
    assert_eq!(api.get("/api/status").await.ok()["tor"], expected);
}

#[tokio::test]
async fn identities_list_starts_with_local_ones() {
    let api = ApiFixture::new().await;
    let known = api.get("/api/identities").await.ok();
    let homes: Vec<_> = list(&known, "identities")
        .iter()
        .map(|card| card["local"].as_bool().unwrap())
        .collect();
    assert_eq!(homes, [true, true, false]);
    let bob = &list(&known, "identities")[2];
    assert_eq!(
        (&bob["oid"], &bob["claim"], &bob["petname"]),
        (&json!(api.bob.to_hex()), &json!("Bob"), &json!(null))
    );
    let made = api
        .post("/api/identities", json!({ "name": "Carol" }))
        .await
        .ok();
    assert_eq!(made["oid"], api.carol.to_hex());
    api.post("/api/identities", json!({ "nom": "Carol" }))
        .await
        .refused(400, "bad_request");
}

#[tokio::test]
async fn dial_reports_its_cost_and_refuses_an_invalid_address() {
    let api = ApiFixture::new().await;
    let onion = api.node.onion.to_onion_string();
    let dialled = api.post("/api/peers", json!({ "onion": onion })).await.ok();
    assert_eq!(
        (&dialled["effort"], &dialled["solving_ms"]),
        (&json!(1024), &json!(700))
    );
    let mistyped = if onion.starts_with('a') {
        onion.replacen('a', "b", 1)
    } else {
        format!("a{}", &onion[1..])
    };
    let reply = api.post("/api/peers", json!({ "onion": mistyped })).await;
    assert!(
        reply
            .refused(400, "bad_request")
            .message()
            .contains("checksum"),
        "{}",
        reply.message()
    );
}

#[tokio::test]
async fn sync_reports_failures_beside_successes() {
    let api = ApiFixture::new().await;
    let silent = PeerId::from_bytes([7; 32]);
    api.node.silent.lock().push(silent);
    let sessions = [
        session(silent, &["messages"]),
        session(api.bobs_node, &["identities", "messages"]),
    ];
    api.node.sessions.lock().extend(sessions);
    let all = api.post("/api/sync", json!({})).await.ok();
    let shown = |report: &Value| {
        (
            report["peer"].clone(),
            report["domain"].clone(),
            report["outcome"].clone(),
        )
    };
    let bob = json!(api.bobs_node.to_hex());
    let expected = [
        (json!(silent.to_hex()), json!("messages"), json!("failed")),
        (bob.clone(), json!("identities"), json!("applied")),
        (bob.clone(), json!("messages"), json!("applied")),
    ];
    assert_eq!(
        list(&all, "reports").iter().map(shown).collect::<Vec<_>>(),
        expected
    );
    assert!(
        list(&all, "reports")[0]["error"]
            .as_str()
            .unwrap()
            .contains("no session")
    );
    let one = api
        .post(
            "/api/sync",
            json!({ "peer": bob, "domain": "messages", "direction": "push" }),
        )
        .await
        .ok();
    let [report] = list(&one, "reports").as_slice() else {
        panic!("{one}")
    };
    assert_eq!(
        (&report["window"], &report["outcome"], &report["direction"]),
        (&json!([0, 7]), &json!("acknowledged"), &json!("push"))
    );
    // With peer and domain given, the failure is the reply.
    let alone = json!({ "peer": silent.to_hex(), "domain": "messages" });
    api.post("/api/sync", alone)
        .await
        .refused(409, "no_session");
    api.post(
        "/api/sync",
        json!({ "peer": PeerId::from_bytes([8; 32]).to_hex() }),
    )
    .await
    .refused(409, "no_session");
    api.post("/api/sync", json!({ "direction": "sideways" }))
        .await
        .refused(400, "bad_request");
}

#[tokio::test]
async fn backup_starts_once_and_shows_its_progress() {
    let api = ApiFixture::new().await;
    assert_eq!(api.get("/api/backup").await.ok(), json!({ "backup": null }));
    api.post("/api/backup", json!({ "path": "backup" }))
        .await
        .refused(400, "bad_request");
    let started = api
        .post("/api/backup", json!({ "path": "/safe/backup" }))
        .await
        .ok();
    assert_eq!(
        (&started["id"], &started["state"]),
        (&json!(1), &json!("running"))
    );
    assert_eq!(api.get("/api/backup").await.ok()["backup"], started);
    api.post("/api/backup", json!({ "path": "/safe/other" }))
        .await
        .refused(409, "underway");
}
