//! Invitations: listing, accepting and declining.

use serde_json::{Value, json};

use super::{ApiFixture, list};
use crate::graph::GraphManager;
use crate::store::{Invitation, InvitationState, StoreError};

/// A conversation of Alice, Bob and Carol to which Carol is invited as if Alice lived elsewhere.
async fn invited(api: &ApiFixture) -> String {
    let request = json!({
        "founder_identity_oid": api.alice.to_hex(),
        "participant_identity_oids": [api.bob.to_hex(), api.carol.to_hex()],
        "title": "Hiking",
    });
    let made = api.post("/api/v1/conversations", request).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let oid = made.body["oid"].as_str().unwrap().to_owned();
    let (carol, scope) = (api.carol, oid.parse().unwrap());
    api.engine
        .graph(move |graph: &mut GraphManager<'_>| {
            let app = graph.tx().apps().get("messages").unwrap();
            let scope = graph.tx().parent(app, &scope)?.unwrap().scope_id;
            graph.tx().put_invitation(&Invitation {
                identity: carol,
                scope,
                state: InvitationState::Open,
                from_seq: Some(0),
                at: graph.now(),
            })?;
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
    oid
}

async fn invitations(api: &ApiFixture, query: &str) -> Vec<Value> {
    let path = format!("/api/v1/invitations{query}");
    let page = api.get(&path).await.ok();
    assert_eq!(page["more"], false);
    list(&page, "invitations").clone()
}

#[tokio::test]
async fn invitation_shows_the_owner_the_members_and_the_title() {
    let api = ApiFixture::new().await;
    let oid = invited(&api).await;
    let found = invitations(&api, "").await;
    let [invitation] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(invitation["oid"], json!(oid));
    assert_eq!(
        (
            &invitation["app"],
            &invitation["title"],
            &invitation["state"]
        ),
        (&json!("messages"), &json!("Hiking"), &json!("open"))
    );
    let oid_of = |field: &str| invitation[field]["identity_oid"].clone();
    assert_eq!(oid_of("owner"), json!(api.alice.to_hex()));
    assert_eq!(oid_of("identity"), json!(api.carol.to_hex()));
    assert_eq!(invitation["member_count"], 3);
    assert_eq!(list(invitation, "members").len(), 3);
    let ending = format!("?app=messages&suffix={}", &oid[24..]);
    assert_eq!(invitations(&api, &ending).await.len(), 1);
    assert_eq!(invitations(&api, "?app=rides").await.len(), 0);
    assert_eq!(invitations(&api, "?suffix=zz").await.len(), 0);
    let inbox = format!("/api/messages/inbox?identity={}", api.carol.to_hex());
    assert_eq!(api.get(&inbox).await.ok()["messages"], json!([]));
}

#[tokio::test]
async fn declined_invitation_is_listed_apart_and_can_be_accepted() {
    let api = ApiFixture::new().await;
    let oid = invited(&api).await;
    let path = format!("/api/v1/rights/messages/{oid}");
    let declined = api.post(&format!("{path}/decline"), json!({})).await.ok();
    assert_eq!(declined["identity_oid"], json!(api.carol.to_hex()));
    assert_eq!(invitations(&api, "").await.len(), 0);
    let found = invitations(&api, "?declined=true").await;
    assert_eq!(found[0]["state"], "declined");
    let message = json!({ "sender_identity_oid": api.carol.to_hex(), "body": "hello" });
    let send = format!("/api/v1/conversations/{oid}/messages");
    let refused = api.post(&send, message.clone()).await;
    refused.refused(409, "not_accepted");
    assert!(refused.message().contains("conversation accept"));
    let accepted = api.post(&format!("{path}/accept"), json!({})).await.ok();
    assert!(accepted["change_seq"].is_u64(), "{accepted}");
    api.post(&send, message).await.ok();
    let again = api.post(&format!("{path}/accept"), json!({})).await.ok();
    assert_eq!(again["change_seq"], Value::Null);
    let shown = api.get(&format!("/api/v1/conversations/{oid}")).await.ok();
    for member in list(&shown, "members") {
        let is_bob = member["identity_oid"] == json!(api.bob.to_hex());
        assert_eq!(member["accepted"], json!(!is_bob), "{member}");
    }
}

#[tokio::test]
async fn decisions_on_what_nobody_was_invited_to_are_refused() {
    let api = ApiFixture::new().await;
    let oid = invited(&api).await;
    for verb in ["accept", "decline"] {
        let decide = |app: &str, oid: &str, body: Value| {
            let path = format!("/api/v1/rights/{app}/{oid}/{verb}");
            let api = &api;
            async move { api.post(&path, body).await }
        };
        let nowhere = api.bob.to_hex();
        let unknown = decide("messages", &nowhere, json!({})).await;
        unknown.refused(404, "not_invited");
        decide("nothing", &oid, json!({}))
            .await
            .refused(404, "unknown_app");
        let of_bob = json!({ "identity_oid": api.bob.to_hex() });
        decide("messages", &oid, of_bob)
            .await
            .refused(404, "not_here");
    }
    let path = format!("/api/v1/rights/messages/{oid}/decline");
    let of_alice = json!({ "identity_oid": api.alice.to_hex() });
    api.post(&path, of_alice).await.refused(409, "takes_part");
}
