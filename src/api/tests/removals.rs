//! Removing peers and what they sent; identities of untrusted peers.

use bastion::Tier;
use serde_json::json;

use super::{ApiFixture, list};
use crate::api::SessionEffect;
use crate::store::StoreError;

async fn distrust(api: &ApiFixture) {
    let bob = api.bobs_node;
    api.engine
        .graph::<_, StoreError>(move |graph| graph.tx().set_tier(&bob, Tier::Untrusted))
        .await
        .unwrap();
}

#[tokio::test]
async fn identities_of_untrusted_peers_are_listed_apart_in_pages() {
    let api = ApiFixture::new().await;
    let all = api.get("/api/identities").await.ok();
    assert_eq!(list(&all, "identities").len(), 3);
    assert_eq!(
        (list(&all, "untrusted").len(), &all["untrusted_count"]),
        (0, &json!(0))
    );
    distrust(&api).await;
    let all = api.get("/api/identities").await.ok();
    assert_eq!(list(&all, "identities").len(), 2);
    assert_eq!(all["untrusted_count"], 1);
    assert_eq!(all["untrusted"][0]["oid"], api.bob.to_hex());
    let path = "/api/v1/identities/untrusted?limit=1";
    let page = api.get(path).await.ok();
    assert_eq!(page["identities"], all["untrusted"]);
    let after = page["after"].as_str().unwrap();
    assert_eq!((&page["more"], after), (&json!(false), &*api.bob.to_hex()));
    let page = api.get(&format!("{path}&after={after}")).await.ok();
    assert_eq!(list(&page, "identities").len(), 0);
    api.get("/api/v1/identities/untrusted?after=x")
        .await
        .refused(400, "bad_request");
}

#[tokio::test]
async fn removal_ends_session_and_dials_and_shows_what_was_removed() {
    let api = ApiFixture::new().await;
    let bob = json!({ "peer_id": api.bobs_node.to_hex(), "purge": true });
    let none = json!({ "purges": [], "done_permille": null, "waits_for_recovery": false });
    assert_eq!(api.get("/api/v1/purges").await.ok(), none);
    let peers = api.get("/api/peers").await.ok();
    let onion: keys::OnionAddr = peers["peers"][0]["onion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    api.node.configured.lock().push(onion);
    let refused = api.post("/api/v1/peers/remove", bob.clone()).await;
    refused.refused(409, "configured");
    api.node.configured.lock().clear();
    let removed = api.post("/api/v1/peers/remove", bob.clone()).await.ok();
    assert_eq!(
        (&removed["purge"], &removed["peer_id"]),
        (&json!(true), &bob["peer_id"])
    );
    assert_eq!(*api.node.left.lock(), [onion]);
    let applied = api.node.applied.lock().clone();
    assert_eq!(applied, [(api.bobs_node, SessionEffect::Close)]);
    let purges = api.get("/api/v1/purges").await.ok();
    let purge = &purges["purges"][0];
    assert_eq!(
        (
            &purge["state"],
            &purge["forgotten_identities"],
            &purge["remembered"]
        ),
        (&json!("done"), &json!(1), &json!(1))
    );
    assert_eq!(api.get("/api/status").await.ok()["removals"], purges);
    assert_eq!(list(&api.get("/api/peers").await.ok(), "peers").len(), 0);
    let unknown = json!({ "peer_id": api.bobs_node.to_hex() });
    let again = api.post("/api/v1/peers/remove", unknown).await;
    again.refused(404, "not_found");
}

#[tokio::test]
async fn ban_with_purge_removes_what_the_peer_sent() {
    let api = ApiFixture::new().await;
    let bob = json!({ "peer_id": api.bobs_node.to_hex(), "purge": true });
    let banned = api.post("/api/admission/ban", bob).await.ok();
    assert_eq!(banned["verdict"], "banned");
    let purges = api.get("/api/v1/purges").await.ok();
    assert_eq!(purges["purges"][0]["removed_objects"], 1);
    let refused = json!({ "peer_id": api.bobs_node.to_hex(), "purge": true });
    let refused = api.post("/api/admission/refuse", refused).await;
    refused.refused(400, "bad_request");
}
