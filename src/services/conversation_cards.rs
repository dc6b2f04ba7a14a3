//! Conversations as the API shows them: cards with members and counts, and short labels.
//!
//! Only reads. A page examines a bounded number of rows, whatever peers have sent. Tested in
//! `tests/core/conversations.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use keys::Oid;

use super::messages::{APP, CONVERSATION, MESSAGE, SENT_AT, TITLE, table};
use super::of_two::two_founders;
use super::people::{Person, person};
use super::rights::{self, SharedScope};
use crate::graph::load_object;
use crate::object::{Object, Rights, Value};
use crate::state_engine::View;
use crate::store::{MemberAnswer, Onlooker, ScopeId, StoreError};
use crate::text::escape;

/// Number of rows of a conversation, the newest ones, among which its messages are counted.
pub const COUNTED_MAX: usize = 10_000;
/// Number of rows and members that a page examines before it ends.
const PAGE_WORK_MAX: usize = 20_000;
/// Number of scopes of an identity that a page examines, those of other apps included.
const SCOPES_MAX: usize = 10_000;
/// Number of former members that a card shows.
const FORMER_MAX: usize = 256;
/// Number of names in a label.
const LABEL_NAMES_MAX: usize = 8;

/// Whether an identity takes part in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A member, and the owner.
    Owner,
    /// A member.
    Member,
    /// Left by its own decision.
    Left,
    /// Removed by the owner.
    Removed,
}

impl Standing {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Member => "member",
            Self::Left => "left",
            Self::Removed => "removed",
        }
    }
}

/// A member of a conversation, or a former one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberCard {
    /// The identity.
    pub person: Person,
    /// Its rights in the list in force.
    pub rights: Option<Rights>,
    /// Whether it takes part.
    pub standing: Standing,
    /// Whether it founded the conversation, or stated that it takes part.
    pub has_accepted: bool,
    /// Whether it lives on this node.
    pub is_local: bool,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationCard {
    /// Its oid.
    pub oid: Oid,
    /// Its title on one line, with hidden characters escaped.
    pub title: Option<String>,
    /// Its owner.
    pub owner: Oid,
    /// Whether two founded it and no other identity has rights in it.
    pub is_of_two: bool,
    /// The members sorted by oid, then the former ones.
    pub members: Vec<MemberCard>,
    /// The number of messages among the newest [`COUNTED_MAX`] objects.
    pub messages: u64,
    /// Whether there are older objects, which were not counted.
    pub has_uncounted: bool,
    /// The time that the author of the newest message states, in milliseconds since 1970.
    pub newest_sent_at: Option<i64>,
}

/// A part of the conversations of some identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationPage {
    /// The conversations, in the order in which this node stored them.
    pub cards: Vec<ConversationCard>,
    /// `after` of the next part.
    pub after: i64,
    /// Whether there may be a next part.
    pub more: bool,
}

/// Title and members of a conversation, as a reader of its messages knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationLabel {
    /// Its oid.
    pub oid: Oid,
    /// Its title.
    pub title: Option<String>,
    /// Whether two founded it and no other identity has rights in it.
    pub is_of_two: bool,
    /// The number of members.
    pub member_count: usize,
    /// The first members by oid.
    pub members: Vec<Person>,
}

/// A conversation that an identity of this node may read.
pub fn show(view: &View<'_>, conversation: Oid) -> Result<Option<ConversationCard>, StoreError> {
    let onlooker = Onlooker::AnyAt(view.this_node());
    Ok(card(view, onlooker, &conversation)?.map(|(card, _)| card))
}

/// Conversations that the onlooker sees, after the position `after`, at most `limit`. Only those
/// whose oid in hex ends in `suffix`.
pub fn list(
    view: &View<'_>,
    onlooker: Onlooker,
    after: i64,
    limit: usize,
    suffix: &str,
) -> Result<ConversationPage, StoreError> {
    let identities = match onlooker {
        Onlooker::Identity(identity) => vec![identity],
        Onlooker::AnyAt(node) => {
            let rows = view.rows.identities_at(&node)?.into_iter();
            rows.map(|row| row.oid).collect()
        }
    };
    let found = scopes_of(view, &identities, ScopeId(after), limit, suffix)?;
    let mut page = ConversationPage {
        cards: Vec::new(),
        after,
        more: true,
    };
    let mut work = 0;
    for (id, oid) in found.scopes {
        if page.cards.len() >= limit || work > PAGE_WORK_MAX {
            return Ok(page);
        }
        page.after = id.0;
        if let Some((card, examined)) = card(view, onlooker, &oid)? {
            work += examined;
            page.cards.push(card);
        }
    }
    (page.after, page.more) = (found.reached.0, found.more);
    Ok(page)
}

/// Scopes of the app that identities read.
struct FoundScopes {
    /// The scopes with the oids of their Parents, by id.
    scopes: BTreeMap<ScopeId, Oid>,
    /// All scopes up to this one were examined.
    reached: ScopeId,
    /// Whether further scopes follow.
    more: bool,
}

fn scopes_of(
    view: &View<'_>,
    identities: &[Oid],
    after: ScopeId,
    limit: usize,
    suffix: &str,
) -> Result<FoundScopes, StoreError> {
    let app = table(view.rows.apps())?.id;
    let mut found = FoundScopes {
        scopes: BTreeMap::new(),
        reached: after,
        more: false,
    };
    let mut end: Option<ScopeId> = None;
    for identity in identities {
        let (mut examined, mut matching, mut last) = (0, 0, after);
        view.rows.scopes_read_by(identity, after, |scope| {
            if matching == limit || examined == SCOPES_MAX {
                end = Some(end.map_or(last, |end| end.min(last)));
                return ControlFlow::Break(());
            }
            (examined, last) = (examined + 1, scope.id);
            if scope.app == app && scope.oid.to_hex().ends_with(suffix) {
                matching += 1;
                found.scopes.insert(scope.id, scope.oid);
            }
            ControlFlow::Continue(())
        })?;
        found.reached = found.reached.max(last);
    }
    if let Some(end) = end {
        found.scopes.retain(|id, _| *id <= end);
        (found.reached, found.more) = (end, true);
    }
    Ok(found)
}

/// The card of a conversation that the onlooker sees, and the number of rows behind it.
fn card(
    view: &View<'_>,
    onlooker: Onlooker,
    conversation: &Oid,
) -> Result<Option<(ConversationCard, usize)>, StoreError> {
    let scope = rights::find(&view.rows, onlooker, APP, conversation)?;
    let Some(scope) = scope.filter(|scope| scope.parent.type_number == CONVERSATION) else {
        return Ok(None);
    };
    let (object, _) = load_object(&view.rows, scope.app, &scope.parent)?;
    let (id, until_seq) = (scope.id(), scope.until_seq);
    let counted = view
        .rows
        .count_in_scope(scope.app, id, MESSAGE, until_seq, COUNTED_MAX)?;
    let newest_sent_at = match counted.newest {
        None => None,
        Some(id) => {
            let attrs = view.rows.attrs(scope.app, id)?;
            let sent_at = attrs.iter().find(|(number, _)| *number == SENT_AT);
            sent_at.and_then(|(_, value)| value.as_integer())
        }
    };
    let members = members(view, &scope)?;
    let work = counted.examined + members.len();
    let card = ConversationCard {
        oid: object.oid,
        title: title_of(&object),
        owner: object.owner,
        is_of_two: is_of_two(&object, scope.list.rights.iter().map(|(oid, _)| oid)),
        members,
        messages: counted.count,
        has_uncounted: counted.examined == COUNTED_MAX,
        newest_sent_at,
    };
    Ok(Some((card, work)))
}

fn title_of(conversation: &Object) -> Option<String> {
    let title = conversation.first(TITLE).and_then(Value::as_text);
    title.map(escape)
}

/// Whether two founded a conversation and no other identity is one of `others`.
fn is_of_two<'o>(conversation: &Object, mut others: impl Iterator<Item = &'o Oid>) -> bool {
    let two = two_founders(conversation);
    two.is_some_and(|two| others.all(|oid| two.contains(oid)))
}

fn members(view: &View<'_>, scope: &SharedScope<'_>) -> Result<Vec<MemberCard>, StoreError> {
    let mut members = Vec::new();
    for (oid, rights) in scope.list.rights.iter() {
        let standing = if *oid == scope.parent.owner {
            Standing::Owner
        } else if scope.has_left(&view.rows, oid)? {
            Standing::Left
        } else {
            Standing::Member
        };
        members.push(member(view, scope, *oid, (Some(rights), standing))?);
    }
    for oid in view
        .rows
        .former_readers(scope.id(), scope.until_seq, FORMER_MAX)?
    {
        if scope.list.rights.of(&oid).is_none() {
            let standing = if view
                .rows
                .answered(MemberAnswer::Leave, scope.id(), &oid)?
                .0
                .is_some()
            {
                Standing::Left
            } else {
                Standing::Removed
            };
            members.push(member(view, scope, oid, (None, standing))?);
        }
    }
    Ok(members)
}

fn member(
    view: &View<'_>,
    scope: &SharedScope<'_>,
    oid: Oid,
    (rights, standing): (Option<Rights>, Standing),
) -> Result<MemberCard, StoreError> {
    let row = view.rows.identity(&oid)?;
    Ok(MemberCard {
        person: person(&view.rows, &oid)?,
        rights,
        standing,
        has_accepted: standing == Standing::Owner || view.rows.has_accepted(scope.id(), &oid)?,
        is_local: row.is_some_and(|row| row.home == view.this_node()),
    })
}

/// The labels of the conversations whose messages `reader` sees, each once, sorted by oid. A former
/// member sees the members of the time when it was one.
pub fn labels(
    view: &View<'_>,
    reader: &Oid,
    conversations: impl Iterator<Item = Oid>,
) -> Result<Vec<ConversationLabel>, StoreError> {
    let onlooker = Onlooker::Identity(*reader);
    let mut labels = Vec::new();
    for oid in conversations.collect::<BTreeSet<_>>() {
        let Some(scope) = rights::find(&view.rows, onlooker, APP, &oid)? else {
            continue;
        };
        let (object, _) = load_object(&view.rows, scope.app, &scope.parent)?;
        let mut members = Vec::new();
        for member in scope.list.rights.readers() {
            if !scope.has_left(&view.rows, member)? {
                members.push(*member);
            }
        }
        let mut label = ConversationLabel {
            oid,
            title: title_of(&object),
            is_of_two: is_of_two(&object, scope.list.rights.iter().map(|(oid, _)| oid)),
            member_count: members.len(),
            members: Vec::new(),
        };
        for member in members.iter().take(LABEL_NAMES_MAX) {
            label.members.push(person(&view.rows, member)?);
        }
        labels.push(label);
    }
    Ok(labels)
}
