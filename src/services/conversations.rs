//! Conversations of two or more: founding, members, messages (docs/DECISIONS.md 4).
//!
//! The owner of a conversation adds and removes members. Each member can leave, except the owner. A
//! conversation that two founded stays one of two: adding a third founds a new one.
//! Invariant: this node acts only for identities that live on it. Tested in
//! `tests/core/conversations.rs`.

use keys::Oid;
use keys::protocol::RIGHTS_ENTRIES_MAX;

use super::context::{is_local, local_context};
use super::messages::{self, APP, CONVERSATION, Sent, TITLE};
use super::of_two::two_founders;
use super::rights::{RightsError, SharedScope, check_known, find_visible, list_in_force};
use crate::graph::{GraphManager, SaveError, Saved, load_object};
use crate::object::{Object, Rights, Value};
use crate::store::StoreError;
use crate::text::{BadName, check_name};

/// Largest number of founding members, as in `src/schema/apps/messages.toml`. More can be added.
pub const FOUNDERS_MAX: usize = 64;
/// Longest title in bytes, as in `src/schema/apps/messages.toml`.
const TITLE_BYTES_MAX: usize = 200;

/// Why an operation on a conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// Its owner lives elsewhere, or the rights were not changed.
    #[error(transparent)]
    Rights(#[from] RightsError),
    /// No identity of this node may read a conversation with this oid.
    #[error("no identity of this node may read a conversation with the oid {}", .0.to_hex())]
    NotFound(Oid),
    /// The title of a new conversation is not one line of text.
    #[error(
        "the title must be one line of at most {TITLE_BYTES_MAX} bytes, not blank, without outer \
         spaces and without control or invisible characters"
    )]
    BadTitle(#[source] BadName),
    /// The founder, sender or leaving identity does not live on this node.
    #[error("the identity {} does not live on this node", .0.to_hex())]
    NotHere(Oid),
    /// A conversation needs two identities.
    #[error("a conversation needs at least one other identity")]
    Alone,
    /// The conversation would have too many founding members.
    #[error("at most {FOUNDERS_MAX} identities can found a conversation; add the others later")]
    TooManyFounders,
    /// The identity is a member already.
    #[error("the identity {} is a member already", .0.to_hex())]
    AlreadyMember(Oid),
    /// The identity is named twice, or is the founder.
    #[error("the identity {} is named twice", .0.to_hex())]
    NamedTwice(Oid),
    /// The identity is not a member.
    #[error("the identity {} is not a member of the conversation", .0.to_hex())]
    NotMember(Oid),
    /// The member may only read.
    #[error("the identity {} may read the conversation and not write in it", .0.to_hex())]
    MayNotWrite(Oid),
}

impl From<SaveError> for ConversationError {
    fn from(error: SaveError) -> Self {
        Self::Rights(error.into())
    }
}

impl From<StoreError> for ConversationError {
    fn from(error: StoreError) -> Self {
        Self::Rights(error.into())
    }
}

/// The result of adding a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addition {
    /// The rights list that contains the new member.
    Added(Saved),
    /// A new conversation of all, because two founded the old one.
    Founded(Saved),
}

/// A visible conversation.
struct Conversation<'e> {
    scope: SharedScope<'e>,
    object: Object,
}

impl Conversation<'_> {
    fn title(&self) -> Option<&str> {
        self.object.first(TITLE).and_then(Value::as_text)
    }

    fn is_member(
        &self,
        graph: &GraphManager<'_>,
        identity: &Oid,
    ) -> Result<bool, ConversationError> {
        Ok(self.scope.is_reader(graph.tx(), identity)?)
    }

    fn rights_of(&self, identity: &Oid) -> Option<Rights> {
        self.scope.list.rights.of(identity)
    }
}

/// Founds a conversation of a local identity with others.
pub fn found(
    graph: &mut GraphManager<'_>,
    founder: Oid,
    others: &[Oid],
    title: Option<&str>,
) -> Result<Saved, ConversationError> {
    title.map_or(Ok(()), check_title)?;
    found_titled(graph, founder, others, title)
}

/// Checks a title that is made here. The titles of other nodes' conversations may be any text.
pub fn check_title(text: &str) -> Result<(), ConversationError> {
    check_name(text, TITLE_BYTES_MAX).map_err(ConversationError::BadTitle)
}

fn found_titled(
    graph: &mut GraphManager<'_>,
    founder: Oid,
    others: &[Oid],
    title: Option<&str>,
) -> Result<Saved, ConversationError> {
    if !is_local(graph, &founder)? {
        return Err(ConversationError::NotHere(founder));
    }
    if others.iter().all(|other| *other == founder) {
        return Err(ConversationError::Alone);
    }
    let mut members = vec![founder];
    for other in others {
        check_known(graph, other)?;
        if members.contains(other) {
            return Err(ConversationError::NamedTwice(*other));
        }
        if members.len() == FOUNDERS_MAX {
            return Err(ConversationError::TooManyFounders);
        }
        members.push(*other);
    }
    let context = local_context(graph, &founder, APP)?;
    Ok(messages::found(graph, &context, founder, &members, title)?)
}

/// Adds a member, who reads the whole history. If two founded the conversation, founds a new one of
/// its members and the new one, with the same title.
pub fn add(
    graph: &mut GraphManager<'_>,
    conversation: Oid,
    identity: Oid,
) -> Result<Addition, ConversationError> {
    let found_here = open(graph, conversation)?;
    if found_here.is_member(graph, &identity)? {
        return Err(ConversationError::AlreadyMember(identity));
    }
    let two = two_founders(&found_here.object);
    if two.is_some_and(|two| !two.contains(&identity)) {
        return found_larger(graph, &found_here, identity).map(Addition::Founded);
    }
    let change = [(identity, Some(Rights::READ_WRITE))];
    Ok(Addition::Added(change_rights(
        graph,
        conversation,
        &change,
    )?))
}

/// Founds a conversation of the members of another one and of a new member. The members keep their
/// rights, and retired ones are left out. The founder is the owner of the other one, else a member
/// of it that lives here.
fn found_larger(
    graph: &mut GraphManager<'_>,
    other: &Conversation<'_>,
    identity: Oid,
) -> Result<Saved, ConversationError> {
    let owner = other.object.owner;
    let mut members = Vec::new();
    for (member, rights) in other.scope.list.rights.iter() {
        let row = graph.tx().identity(member)?;
        let is_retired = row.is_some_and(|row| row.retired);
        if other.is_member(graph, member)? && !is_retired {
            members.push((*member, rights));
        }
    }
    members.sort_by_key(|(member, _)| *member != owner);
    let mut founder = None;
    for (member, _) in &members {
        if founder.is_none() && is_local(graph, member)? {
            founder = Some(*member);
        }
    }
    let founder = founder.ok_or(RightsError::NotOwner { owner })?;
    members.retain(|(member, _)| *member != founder);
    members.insert(0, (identity, Rights::READ_WRITE));
    if members.len() >= RIGHTS_ENTRIES_MAX {
        return Err(RightsError::TooMany.into());
    }
    // Founders have all rights, and their number is bounded. A list gives rights to the others.
    let mut founders = Vec::new();
    let mut others = Vec::new();
    for (member, rights) in members {
        if rights == Rights::READ_WRITE && founders.len() < FOUNDERS_MAX - 1 {
            founders.push(member);
        } else {
            others.push((member, Some(rights)));
        }
    }
    let founded = found_titled(graph, founder, &founders, other.title())?;
    if !others.is_empty() {
        // Not `rights::change`: two may found the new conversation, and the others take part in it
        // from its beginning.
        let context = local_context(graph, &founder, APP)?;
        graph.save_rights(&context, APP, &founded.oid, &others)?;
    }
    Ok(founded)
}

/// Removes a member, who keeps what it has received.
pub fn remove(
    graph: &mut GraphManager<'_>,
    conversation: Oid,
    identity: Oid,
) -> Result<Saved, ConversationError> {
    let found_here = open(graph, conversation)?;
    if found_here.rights_of(&identity).is_none() {
        return Err(ConversationError::NotMember(identity));
    }
    change_rights(graph, conversation, &[(identity, None)])
}

fn change_rights(
    graph: &mut GraphManager<'_>,
    conversation: Oid,
    changes: &[(Oid, Option<Rights>)],
) -> Result<Saved, ConversationError> {
    Ok(super::rights::change(graph, APP, conversation, changes)?.saved)
}

/// Ends the membership of a local identity, by its own decision.
pub fn leave(
    graph: &mut GraphManager<'_>,
    conversation: Oid,
    identity: Oid,
) -> Result<Saved, ConversationError> {
    open(graph, conversation)?;
    super::rights::leave(graph, APP, conversation, identity).map_err(|error| match error {
        RightsError::NotHere(identity) => ConversationError::NotHere(identity),
        RightsError::NotReader(identity) => ConversationError::NotMember(identity),
        error => error.into(),
    })
}

/// Sends a message of a local identity into a conversation. The right to write suffices: without
/// the right to read, as after a `leave`, the sender does not see its own message.
pub fn send(
    graph: &mut GraphManager<'_>,
    conversation: Oid,
    sender: Oid,
    body: &str,
) -> Result<Sent, ConversationError> {
    if !is_local(graph, &sender)? {
        return Err(ConversationError::NotHere(sender));
    }
    let found_here = open(graph, conversation)?;
    // The list by which the message will be judged. A sender that left may still write.
    let list = list_in_force(graph.tx(), found_here.scope.id())?;
    let rights = list.rights.of(&sender);
    let rights = rights.ok_or(ConversationError::NotMember(sender))?;
    if !rights.may_write() {
        return Err(ConversationError::MayNotWrite(sender));
    }
    let context = local_context(graph, &sender, APP)?;
    Ok(messages::write(
        graph,
        &context,
        sender,
        conversation,
        body,
    )?)
}

/// A visible conversation. An object of another type counts as none.
fn open<'e>(
    graph: &GraphManager<'e>,
    conversation: Oid,
) -> Result<Conversation<'e>, ConversationError> {
    let missing = || ConversationError::NotFound(conversation);
    let scope = find_visible(graph, APP, conversation).map_err(|error| match error {
        RightsError::NotFound(_) => missing(),
        error => error.into(),
    })?;
    if scope.parent.type_number != CONVERSATION {
        return Err(missing());
    }
    let (object, _) = load_object(graph.tx(), scope.app, &scope.parent)?;
    Ok(Conversation { scope, object })
}
