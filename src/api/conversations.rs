//! `/api/v1/conversations`: founds conversations, lists them, changes their members, and sends
//! messages into them.

use axum::Json;
use axum::extract::Path;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use keys::Oid;
use serde::Deserialize;
use serde_json::{Value, json};

use super::delivery::{self, Connected, LISTED_MAX, show_message};
use super::error::ApiError;
use super::people::{self, named};
use super::read::{Body, QueryParams, oid, page_up_to};
use super::rights::rights_word;
use super::state::Traced;
use crate::graph::Saved;
use crate::services::conversation_cards::{
    self, COUNTED_MAX, ConversationCard, ConversationLabel, ConversationPage, MemberCard,
};
use crate::services::conversations::{self, Addition};
use crate::services::delivery::newest;
use crate::store::{Onlooker, StoreError};

/// Largest number of conversations in a page.
const CONVERSATIONS_MAX: usize = 1000;

/// A reply with status 201 and the path of what was made.
type Created = (StatusCode, [(HeaderName, String); 1], Json<Value>);

fn created(conversation: Oid, body: Value) -> Created {
    let path = format!("/api/v1/conversations/{}", conversation.to_hex());
    let status = StatusCode::CREATED;
    (status, [(header::LOCATION, path)], Json(body))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct FoundRequest {
    founder_identity_oid: String,
    participant_identity_oids: Vec<String>,
    title: Option<String>,
}

pub(super) async fn found(
    Traced(state): Traced,
    Body(request): Body<FoundRequest>,
) -> Result<Created, ApiError> {
    let founder = oid("founder_identity_oid", &request.founder_identity_oid)?;
    let others = request.participant_identity_oids.iter();
    let others: Vec<Oid> = others
        .map(|text| oid("participant_identity_oids", text))
        .collect::<Result<_, _>>()?;
    let saved = state
        .engine
        .graph(move |graph| conversations::found(graph, founder, &others, request.title.as_deref()))
        .await?;
    let body = json!({ "oid": saved.oid.to_hex(), "change_seq": saved.change_seq });
    Ok(created(saved.oid, body))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct ConversationsQuery {
    /// Default: all identities of this node.
    identity: Option<String>,
    after: Option<i64>,
    limit: Option<usize>,
    /// The last digits of the oid.
    suffix: Option<String>,
}

pub(super) async fn list(
    Traced(state): Traced,
    QueryParams(query): QueryParams<ConversationsQuery>,
) -> Result<Json<Value>, ApiError> {
    let identity = query
        .identity
        .map(|text| oid("identity", &text))
        .transpose()?;
    let (after, limit) = (
        query.after.unwrap_or(0),
        page_up_to(query.limit, CONVERSATIONS_MAX)?,
    );
    let suffix = query.suffix.unwrap_or_default();
    let found = state.engine.read(move |view| {
        let this_node = view.this_node();
        let onlooker = match identity {
            None => Onlooker::AnyAt(this_node),
            Some(identity) => {
                let row = view.rows.identity(&identity)?;
                if row.is_none_or(|row| row.home != this_node) {
                    return Ok(Err(identity));
                }
                Onlooker::Identity(identity)
            }
        };
        conversation_cards::list(&view, onlooker, after, limit, &suffix).map(Ok)
    });
    let page = found
        .await?
        .map_err(|identity| ApiError::not_here(&identity))?;
    let ConversationPage { cards, after, more } = page;
    let cards: Vec<_> = cards.iter().map(show_card).collect();
    Ok(Json(
        json!({ "conversations": cards, "after": after, "more": more }),
    ))
}

pub(super) async fn show(
    Traced(state): Traced,
    Path(conversation): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let conversation = oid("the path", &conversation)?;
    let connected = Connected::now(&state);
    let now = connected.time();
    let found = state.engine.read(move |view| {
        let Some(card) = conversation_cards::show(&view, conversation)? else {
            return Ok(None);
        };
        let newest = newest(&view, now, &conversation)?.into_iter();
        let newest = newest.map(|it| show_message(&view, &it, &connected, LISTED_MAX));
        let newest = newest.collect::<Result<Vec<_>, StoreError>>()?;
        Ok::<_, StoreError>(Some((card, newest)))
    });
    let found = found.await?;
    let missing = || {
        ApiError::not_found(format!(
            "no identity of this node may read a conversation {}",
            conversation.to_hex()
        ))
    };
    let (card, newest) = found.ok_or_else(missing)?;
    let mut shown = show_card(&card);
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("own_messages".to_owned(), json!(newest));
    }
    Ok(Json(shown))
}

fn show_card(card: &ConversationCard) -> Value {
    json!({
        "oid": card.oid.to_hex(),
        "title": card.title,
        "owner_identity_oid": card.owner.to_hex(),
        "of_two": card.is_of_two,
        "members": card.members.iter().map(show_member).collect::<Vec<_>>(),
        "messages": card.messages,
        "messages_counted_of": card.has_uncounted.then_some(COUNTED_MAX),
        "newest_sent_at": card.newest_sent_at,
    })
}

fn show_member(member: &MemberCard) -> Value {
    let fields = json!({
        "identity_oid": member.person.oid.to_hex(),
        "rights": rights_word(member.rights),
        "standing": member.standing.as_str(),
        "accepted": member.has_accepted,
        "local": member.is_local,
    });
    named(&member.person, fields)
}

/// Title and members of a conversation, as an inbox shows them.
pub(super) fn show_label(label: &ConversationLabel) -> Value {
    let members: Vec<_> = label.members.iter().map(people::show).collect();
    json!({
        "oid": label.oid.to_hex(),
        "title": label.title,
        "of_two": label.is_of_two,
        "member_count": label.member_count,
        "members": members,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct MemberRequest {
    identity_oid: String,
}

/// Adds a member. With status 201, the reply is about a new conversation.
pub(super) async fn add(
    Traced(state): Traced,
    Path(conversation): Path<String>,
    Body(request): Body<MemberRequest>,
) -> Result<Response, ApiError> {
    let conversation = oid("the path", &conversation)?;
    let identity = oid("identity_oid", &request.identity_oid)?;
    let addition = state
        .engine
        .graph(move |graph| conversations::add(graph, conversation, identity))
        .await?;
    let (oid, saved) = match addition {
        Addition::Added(saved) => (conversation, saved),
        Addition::Founded(saved) => (saved.oid, saved),
    };
    let is_new = matches!(addition, Addition::Founded(_));
    let body = json!({
        "oid": oid.to_hex(),
        "identity_oid": identity.to_hex(),
        "change_seq": saved.change_seq,
        "founded_new": is_new,
    });
    Ok(if is_new {
        created(oid, body).into_response()
    } else {
        Json(body).into_response()
    })
}

pub(super) async fn remove(
    Traced(state): Traced,
    Path((conversation, identity)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let (conversation, identity) = (oid("the path", &conversation)?, oid("the path", &identity)?);
    let saved = state
        .engine
        .graph(move |graph| conversations::remove(graph, conversation, identity))
        .await?;
    Ok(changed(conversation, identity, saved))
}

pub(super) async fn leave(
    Traced(state): Traced,
    Path(conversation): Path<String>,
    Body(request): Body<MemberRequest>,
) -> Result<Json<Value>, ApiError> {
    let conversation = oid("the path", &conversation)?;
    let identity = oid("identity_oid", &request.identity_oid)?;
    let saved = state
        .engine
        .graph(move |graph| conversations::leave(graph, conversation, identity))
        .await?;
    Ok(changed(conversation, identity, saved))
}

fn changed(conversation: Oid, identity: Oid, saved: Saved) -> Json<Value> {
    Json(json!({
        "oid": conversation.to_hex(),
        "identity_oid": identity.to_hex(),
        "change_seq": saved.change_seq,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct MessageRequest {
    sender_identity_oid: String,
    body: String,
}

pub(super) async fn send(
    Traced(state): Traced,
    Path(conversation): Path<String>,
    Body(request): Body<MessageRequest>,
) -> Result<Json<Value>, ApiError> {
    let conversation = oid("the path", &conversation)?;
    let sender = oid("sender_identity_oid", &request.sender_identity_oid)?;
    let sent = state
        .engine
        .graph(move |graph| conversations::send(graph, conversation, sender, &request.body))
        .await?;
    delivery::sent(&state, sent).await
}
