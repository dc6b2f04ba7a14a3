//! The delivery state of messages in replies, and `/api/v1/messages/{oid}/delivery`.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::extract::Path;
use keys::Oid;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::error::ApiError;
use super::people::named;
use super::read::oid;
use super::state::{ApiState, Traced};
use crate::op_context::Timestamp;
use crate::services::delivery::{self, DeliveryState, OwnMessage, RecipientState};
use crate::services::messages::Sent;
use crate::services::people::person;
use crate::state_engine::View;
use crate::store::StoreError;

/// Number of recipients that a list of messages shows of each.
pub(super) const LISTED_MAX: usize = 16;
/// Longest time that the reply to a send waits for the states.
const STATES_WAIT: Duration = Duration::from_secs(2);

/// The peers with an open session, and the time.
pub(super) struct Connected {
    peers: BTreeSet<String>,
    now: Timestamp,
}

impl Connected {
    /// The peers with which this node has a session now.
    pub(super) fn now(state: &ApiState) -> Self {
        let sessions = state.control.status().sessions.into_iter();
        Self {
            peers: sessions.map(|session| session.peer_id).collect(),
            now: state.engine.now(),
        }
    }

    /// The time.
    pub(super) fn time(&self) -> Timestamp {
        self.now
    }

    fn has(&self, recipient: &RecipientState) -> bool {
        let home = recipient.home.as_ref();
        home.is_some_and(|home| self.peers.contains(&home.to_hex()))
    }
}

/// Counts of the states of a message, and at most `listed_max` recipients, those first to which it
/// was not delivered. `null` if the states were not examined.
pub(super) fn show_states(
    view: &View<'_>,
    states: Option<&[RecipientState]>,
    connected: &Connected,
    listed_max: usize,
) -> Result<Value, StoreError> {
    let Some(states) = states else {
        return Ok(Value::Null);
    };
    let count = |word: &str| states.iter().filter(|it| it.state.as_str() == word).count();
    let mut sorted: Vec<_> = states.iter().collect();
    sorted.sort_by_key(|it| matches!(it.state, DeliveryState::Delivered(_)));
    let mut recipients = Vec::new();
    for recipient in sorted.into_iter().take(listed_max) {
        let at = match recipient.state {
            DeliveryState::Delivered(at) => Some(at.0),
            DeliveryState::Queued | DeliveryState::NoRoute => None,
        };
        let fields = json!({
            "identity_oid": recipient.identity.to_hex(),
            "state": recipient.state.as_str(),
            "at": at,
            "last_reached": recipient.last_reached.map(|at| at.0),
            "connected": connected.has(recipient),
        });
        let person = person(&view.rows, &recipient.identity)?;
        recipients.push(named(&person, fields));
    }
    Ok(json!({
        "now": connected.now.0,
        "delivered": count("delivered"),
        "queued": count("queued"),
        "no_route": count("no_route"),
        "more_recipients": states.len() > recipients.len(),
        "recipients": recipients,
    }))
}

/// A message that was written here.
pub(super) fn show_message(
    view: &View<'_>,
    message: &OwnMessage,
    connected: &Connected,
    listed_max: usize,
) -> Result<Value, StoreError> {
    let states = message.delivery.as_deref();
    let sender = person(&view.rows, &message.sender)?;
    Ok(json!({
        "oid": message.oid.to_hex(),
        "sender_identity_oid": message.sender.to_hex(),
        "sender_label": sender.label(),
        "sent_at": message.sent_at,
        "delivery": show_states(view, states, connected, listed_max)?,
    }))
}

/// The states of a message for all recipients.
pub(super) async fn of_message(state: &ApiState, message: Oid) -> Result<Value, ApiError> {
    let connected = Connected::now(state);
    let now = connected.time();
    let found = state.engine.read(move |view| {
        let message = delivery::of_message(&view, now, &message)?;
        let message = message.map(|it| show_message(&view, &it, &connected, usize::MAX));
        message.transpose()
    });
    let missing =
        || ApiError::not_found(format!("this node wrote no message {}", message.to_hex()));
    found.await?.ok_or_else(missing)
}

pub(super) async fn show(
    Traced(state): Traced,
    Path(message): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let message = oid("the path", &message)?;
    of_message(&state, message).await.map(Json)
}

/// The reply to a message that was sent. The states are `null` if they could not be read within
/// [`STATES_WAIT`], because an error would make the client send the message again.
pub(super) async fn sent(state: &ApiState, sent: Sent) -> Result<Json<Value>, ApiError> {
    let message = timeout(STATES_WAIT, of_message(state, sent.oid)).await;
    let message = message.ok().and_then(Result::ok);
    Ok(Json(json!({
        "oid": sent.oid.to_hex(),
        "conversation_oid": sent.conversation.to_hex(),
        "change_seq": sent.change_seq,
        "delivery": message.as_ref().and_then(|message| message.get("delivery")),
    })))
}
