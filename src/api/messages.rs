//! `/api/messages`: sends messages and lists an identity's inbox (`docs/STORY.md` 3).

use std::time::Duration;

use axum::Json;
use keys::Oid;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::conversations::show_label;
use super::delivery::{self, Connected, LISTED_MAX, show_states};
use super::error::ApiError;
use super::read::{Body, QueryParams, cursor, oid, page};
use super::state::{ApiState, Traced};
use crate::services::conversation_cards;
use crate::services::delivery::DeliveryReader;
use crate::services::messages::{self, Inbox};
use crate::services::people::person;
use crate::store::{FeedCursor, StoreError};

/// Longest wait for a new message, in seconds. Longer values are lowered to it.
const WAIT_S_MAX: u64 = 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct SendRequest {
    sender_identity_oid: String,
    recipient_identity_oid: String,
    body: String,
}

pub(super) async fn send(
    Traced(state): Traced,
    Body(request): Body<SendRequest>,
) -> Result<Json<Value>, ApiError> {
    let sender = oid("sender_identity_oid", &request.sender_identity_oid)?;
    let recipient = oid("recipient_identity_oid", &request.recipient_identity_oid)?;
    let sent = state
        .engine
        .graph(move |graph| messages::send(graph, sender, recipient, &request.body))
        .await?;
    delivery::sent(&state, sent).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct InboxQuery {
    identity: String,
    after: Option<String>,
    limit: Option<usize>,
    wait_s: Option<u64>,
}

pub(super) async fn inbox(
    Traced(state): Traced,
    QueryParams(query): QueryParams<InboxQuery>,
) -> Result<Json<Value>, ApiError> {
    let reader = oid("identity", &query.identity)?;
    let (after, limit) = (cursor(query.after.as_deref())?, page(query.limit)?);
    // The wait ends 2 s before the request's deadline, so that an empty inbox is not an error.
    let wait_s = query
        .wait_s
        .unwrap_or(0)
        .min(WAIT_S_MAX)
        .min(state.config.request_deadline_s.saturating_sub(2));
    let until = Instant::now() + Duration::from_secs(wait_s);
    let mut changes = state.engine.changes();
    // Kept until the reply, so that a request that began to wait is not refused later.
    let mut place = None;
    loop {
        changes.mark_unchanged();
        let inbox = read_inbox(&state, reader, after, limit).await?;
        let changed = async {
            tokio::select! {
                biased;
                () = state.stop.cancelled() => false,
                changed = timeout_at(until, changes.changed()) => matches!(changed, Ok(Ok(()))),
            }
        };
        let has_more = inbox.get("more") == Some(&Value::Bool(true));
        let is_empty = !has_more
            && inbox
                .get("messages")
                .and_then(Value::as_array)
                .is_none_or(Vec::is_empty);
        if !is_empty || wait_s == 0 {
            return Ok(Json(inbox));
        }
        if place.is_none() {
            let why = "too many inboxes wait at the same time; retry later, or without `wait_s`";
            let taken = state.waiting.try_acquire();
            place = Some(taken.map_err(|_| ApiError::busy(why))?);
        }
        if !changed.await {
            return Ok(Json(inbox));
        }
    }
}

async fn read_inbox(
    state: &ApiState,
    reader: Oid,
    after: FeedCursor,
    limit: usize,
) -> Result<Value, ApiError> {
    let local = state.engine.context().keys.peer_id();
    let connected = Connected::now(state);
    let now = connected.time();
    let found = state
        .engine
        .read(move |view| {
            if view
                .rows
                .identity(&reader)?
                .is_none_or(|row| row.home != local)
            {
                return Ok(None);
            }
            let Inbox {
                messages,
                after,
                more,
            } = messages::inbox(&view, &reader, after, limit)?;
            let conversations = messages.iter().map(|message| message.conversation);
            let labels = conversation_cards::labels(&view, &reader, conversations)?;
            let labels: Vec<_> = labels.iter().map(show_label).collect();
            let mut shown = Vec::with_capacity(messages.len());
            let mut deliveries = DeliveryReader::new(view, now);
            for message in messages {
                let states = match message.is_local {
                    true => deliveries.of(&message.oid, message.sent_at)?,
                    false => None,
                };
                let sender = person(&view.rows, &message.sender)?;
                shown.push(json!({
                    "oid": message.oid.to_hex(),
                    "conversation_oid": message.conversation.to_hex(),
                    "sender_identity_oid": message.sender.to_hex(),
                    "sender_petname": sender.petname,
                    "sender_claim": sender.shown_claim(),
                    "sender_label": sender.label(),
                    "body": message.body,
                    "sent_at": message.sent_at,
                    "change_seq": message.change_seq,
                    "local": message.is_local,
                    "delivery": show_states(&view, states.as_deref(), &connected, LISTED_MAX)?,
                }));
            }
            Ok::<_, StoreError>(Some(json!({
                "epoch": view.context.epoch.to_hex(),
                "messages": shown,
                "conversations": labels,
                "after": after.to_string(),
                "more": more,
            })))
        })
        .await?;
    found.ok_or_else(|| ApiError::not_here(&reader))
}
