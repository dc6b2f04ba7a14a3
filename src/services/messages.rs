//! `MessagesService`: conversations and their messages (docs/STORY.md 2, 3).
//!
//! The first message between two identities founds their conversation, in the same change group.
//! `conversations` has the verbs for larger ones.
//! Invariants: a message belongs to exactly one conversation; an inbox contains only messages that
//! its reader sees (`store::Sight`). Tested in `tests/core/services.rs` and
//! `tests/core/conversations.rs`.

use keys::Oid;

use super::context::{is_local, local_context};
use super::people;
use crate::graph::{GraphManager, SaveError, Saved, WriteRequest};
use crate::object::{Attrs, Rights, RightsList, Value};
use crate::op_context::OpContext;
use crate::state_engine::View;
use crate::store::{
    AppTable, Apps, FeedCursor, Onlooker, ScopeId, SeenObject, SeqOrder, StoreError,
};

/// The app's slug, which is also its sync domain.
pub const APP: &str = "messages";
/// Type `messages.conversation`.
pub const CONVERSATION: u16 = 1;
/// Type `messages.message`.
pub const MESSAGE: u16 = 2;
/// Attribute `participant_identity_oids` of a conversation.
pub const PARTICIPANTS: u16 = 1;
/// Attribute `title` of a conversation.
pub const TITLE: u16 = 2;
/// Attribute `conversation_parent_oid` of a message.
pub const IN_CONVERSATION: u16 = 1;
/// Attribute `body` of a message.
pub const BODY: u16 = 2;
/// Attribute `sent_at` of a message.
pub const SENT_AT: u16 = 3;

/// Number of conversations of two identities among which `send` looks for one to use: those that
/// came to this node last. Bounds the work when the other one founds many and leaves them.
const CANDIDATES_MAX: usize = 64;

/// A message that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The oid of the message.
    pub oid: Oid,
    /// The oid of its conversation.
    pub conversation: Oid,
    /// The `change_seq` of the change group.
    pub change_seq: u64,
}

/// Why a message was not written.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The sender is not a local identity.
    #[error("the sender {} does not live on this node", .0.to_hex())]
    UnknownSender(Oid),
    /// The recipient is not known.
    #[error(
        "the recipient {} is not known: synchronise the identities domain with its node first",
        .0.to_hex()
    )]
    UnknownRecipient(Oid),
    /// The recipient is retired.
    #[error("the recipient {} is retired and does not read messages", .0.to_hex())]
    Retired(Oid),
    /// A conversation needs two identities.
    #[error("sender and recipient are the same identity")]
    Alone,
    /// The write failed.
    #[error(transparent)]
    Save(#[from] SaveError),
}

impl From<StoreError> for SendError {
    fn from(error: StoreError) -> Self {
        Self::Save(SaveError::Store(error))
    }
}

/// Sends a message from a local identity to a known one.
pub fn send(
    graph: &mut GraphManager<'_>,
    sender: Oid,
    recipient: Oid,
    body: &str,
) -> Result<Sent, SendError> {
    if sender == recipient {
        return Err(SendError::Alone);
    }
    if !is_local(graph, &sender)? {
        return Err(SendError::UnknownSender(sender));
    }
    match people::known(graph.tx(), &recipient)? {
        None => return Err(SendError::UnknownRecipient(recipient)),
        Some(row) if row.retired => return Err(SendError::Retired(recipient)),
        Some(_) => {}
    }
    let context = local_context(graph, &sender, APP)?;
    let conversation = match conversation_of_two(graph, &sender, &recipient)? {
        Some(oid) => oid,
        None => {
            check_message(graph, &sender, body)?;
            found(graph, &context, sender, &[sender, recipient], None)?.oid
        }
    };
    Ok(write(graph, &context, sender, conversation, body)?)
}

/// Writes a conversation.
pub(super) fn found(
    graph: &mut GraphManager<'_>,
    context: &OpContext,
    founder: Oid,
    participants: &[Oid],
    title: Option<&str>,
) -> Result<Saved, SaveError> {
    let mut attrs = Attrs::from([(PARTICIPANTS, participants.iter().map(Value::from).collect())]);
    if let Some(title) = title {
        attrs.insert(TITLE, vec![Value::from(title)]);
    }
    let request = WriteRequest {
        app: APP.into(),
        type_number: CONVERSATION,
        oid: None,
        owner: founder,
        attrs: Some(attrs),
    };
    graph.save_with_sync(context, request)
}

/// Writes a message into a conversation.
pub(super) fn write(
    graph: &mut GraphManager<'_>,
    context: &OpContext,
    sender: Oid,
    conversation: Oid,
    body: &str,
) -> Result<Sent, SaveError> {
    let request = WriteRequest {
        app: APP.into(),
        type_number: MESSAGE,
        oid: None,
        owner: sender,
        attrs: Some(message_attrs(graph, &conversation, body)),
    };
    let saved = graph.save_with_sync(context, request)?;
    Ok(Sent {
        oid: saved.oid,
        conversation,
        change_seq: saved.change_seq,
    })
}

fn message_attrs(graph: &GraphManager<'_>, conversation: &Oid, body: &str) -> Attrs {
    let sent_at = i64::try_from(graph.now().0).unwrap_or(i64::MAX);
    Attrs::from([
        (IN_CONVERSATION, vec![Value::from(conversation)]),
        (BODY, vec![Value::from(body)]),
        (SENT_AT, vec![Value::from(sent_at)]),
    ])
}

/// Checks a message before its conversation is founded. Any oid stands for the conversation.
fn check_message(graph: &GraphManager<'_>, any: &Oid, body: &str) -> Result<(), SaveError> {
    let schema = graph.schemas().type_(APP, MESSAGE);
    let schema = schema.ok_or(SaveError::UnknownType)?;
    Ok(schema.check(&message_attrs(graph, any, body))?)
}

/// The conversation that exactly these two founded, and in which exactly these two still take part.
/// If there are several, as when both nodes founded one, the one with the lowest oid is used, so
/// that both nodes agree.
fn conversation_of_two(
    graph: &GraphManager<'_>,
    one: &Oid,
    other: &Oid,
) -> Result<Option<Oid>, StoreError> {
    let tx = graph.tx();
    let app = table(tx.apps())?.id;
    let mut scopes = tx.scopes_of_founders(app, &[*one, *other], CANDIDATES_MAX)?;
    scopes.sort_unstable_by_key(|(_, oid)| *oid);
    for (scope, oid) in scopes {
        if is_of_two(graph, scope, one, other)? {
            return Ok(Some(oid));
        }
    }
    Ok(None)
}

/// Whether these two read and write in a conversation, and no other identity may do either.
fn is_of_two(
    graph: &GraphManager<'_>,
    scope: ScopeId,
    one: &Oid,
    other: &Oid,
) -> Result<bool, StoreError> {
    let tx = graph.tx();
    let both: RightsList = [one, other]
        .map(|oid| (*oid, Rights::READ_WRITE))
        .into_iter()
        .collect();
    Ok(tx.rights(tx.list_in_force(scope)?.id)? == both
        && tx.is_reader(scope, one)?
        && tx.is_reader(scope, other)?)
}

/// The tables of the app.
pub(super) fn table(apps: &Apps) -> Result<&AppTable, StoreError> {
    apps.get(APP)
        .ok_or(StoreError::Inconsistent("an app without tables"))
}

/// A message as the API shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct InboxMessage {
    /// The oid of the message.
    pub oid: Oid,
    /// The oid of its conversation.
    pub conversation: Oid,
    /// The oid of its author.
    pub sender: Oid,
    /// The text.
    pub body: String,
    /// The time of writing that the author states, in milliseconds since 1970.
    pub sent_at: i64,
    /// The write by which the reader began to see the message, which orders the inbox: the message
    /// was stored, or the reader became a member. A rotation does not change it.
    pub change_seq: u64,
    /// Whether the message was written on this node.
    pub is_local: bool,
}

/// A part of the messages that an identity may read.
#[derive(Clone, PartialEq, Eq)]
pub struct Inbox {
    /// In the order in which the reader began to see them.
    pub messages: Vec<InboxMessage>,
    /// `after` for the next part.
    pub after: FeedCursor,
    /// Whether there may be a next part. The part can be empty then.
    pub more: bool,
}

/// Messages that `reader` began to see after `after`. Examines `limit` rows and the rest of the
/// last change group; the reader may see fewer.
pub fn inbox(
    view: &View<'_>,
    reader: &Oid,
    after: FeedCursor,
    limit: usize,
) -> Result<Inbox, StoreError> {
    let app = table(view.rows.apps())?;
    let mut sight = view.rows.sight(Onlooker::Identity(*reader));
    let feed = sight.feed(app, (MESSAGE, SeqOrder::Created), after, limit)?;
    let mut inbox = Inbox {
        messages: Vec::new(),
        after: feed.after,
        more: feed.more,
    };
    for SeenObject { row: parent, seq } in feed.objects {
        if parent.deleted {
            continue;
        }
        let (object, _) = crate::graph::load_object(&view.rows, app, &parent)?;
        let (conversation, body) = (object.first(IN_CONVERSATION), object.first(BODY));
        let (Some(conversation), Some(body)) = (
            conversation.and_then(Value::as_oid),
            body.and_then(Value::as_text),
        ) else {
            return Err(StoreError::Inconsistent(
                "a message without conversation or body",
            ));
        };
        inbox.messages.push(InboxMessage {
            oid: object.oid,
            conversation,
            sender: object.owner,
            body: body.to_owned(),
            sent_at: object
                .first(SENT_AT)
                .and_then(Value::as_integer)
                .unwrap_or_default(),
            change_seq: seq,
            is_local: parent.origin.is_none(),
        });
    }
    Ok(inbox)
}
