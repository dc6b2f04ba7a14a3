//! Invitations of this node's identities to scopes of any app: listing, accepting, declining.
//!
//! Invariants: an `accept` is written only for an identity of this node that reads the scope and
//! does not own it. A decision to decline writes no object. Tested in `tests/core/consent.rs`.

use keys::Oid;

use super::context::{is_local, local_context};
use super::messages;
use super::people::{Person, person};
use crate::graph::{GraphManager, SaveError, Saved, load_object};
use crate::object::Value;
use crate::state_engine::View;
use crate::store::{AppTable, Invitation, InvitationState, ParentRow, Rows, ScopeId, StoreError};
use crate::text::escape;

/// Number of names in an invitation.
const NAMES_MAX: usize = 8;
/// Number of invitations of one identity that a page examines.
const EXAMINED_MAX: usize = 10_000;
/// Number of invitations that are read at once.
const PAGE: usize = 256;

/// Why an invitation was neither accepted nor declined.
#[derive(Debug, thiserror::Error)]
pub enum InvitationError {
    /// No enabled app has this slug.
    #[error("this node has no app {0:?} enabled")]
    UnknownApp(String),
    /// No identity of this node was invited to a scope with this oid.
    #[error("no identity of this node has an invitation to {}", .0.to_hex())]
    NotInvited(Oid),
    /// Several identities of this node were invited.
    #[error(
        "several identities of this node have an invitation to {}: name one (`--as`)",
        .0.to_hex()
    )]
    Several(Oid),
    /// The identity does not live on this node.
    #[error("the identity {} does not live on this node", .0.to_hex())]
    NotHere(Oid),
    /// The identity takes part already.
    #[error("the identity {} takes part already: it can leave", .0.to_hex())]
    TakesPart(Oid),
    /// The write failed.
    #[error(transparent)]
    Save(#[from] SaveError),
}

impl From<StoreError> for InvitationError {
    fn from(error: StoreError) -> Self {
        Self::Save(error.into())
    }
}

/// An invitation, as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationCard {
    /// The oid of the scope.
    pub oid: Oid,
    /// The app's slug.
    pub app: String,
    /// The title of a conversation on one line, with hidden characters escaped.
    pub title: Option<String>,
    /// The owner of the scope.
    pub owner: Person,
    /// The invited identity.
    pub identity: Person,
    /// The number of identities that the list in force names.
    pub member_count: usize,
    /// The first of them by oid.
    pub members: Vec<Person>,
    /// Whether it was declined.
    pub is_declined: bool,
    /// Time of the invitation or the decision, in milliseconds since 1970.
    pub at: u64,
}

/// Which invitations to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationFilter {
    /// Those that were declined, instead of those that are open.
    pub is_declined: bool,
    /// Only those of this app.
    pub app: Option<String>,
    /// Only those whose oid in hex ends in this.
    pub suffix: String,
}

/// A part of the invitations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationPage {
    /// The invitations, in the order in which this node stored the scopes.
    pub cards: Vec<InvitationCard>,
    /// `after` of the next part.
    pub after: i64,
    /// Whether there may be a next part.
    pub more: bool,
}

/// Invitations that wait for a decision, or were declined: those after the position `after`, at
/// most `limit` scopes.
pub fn list(
    view: &View<'_>,
    filter: &InvitationFilter,
    after: i64,
    limit: usize,
) -> Result<InvitationPage, StoreError> {
    let state = match filter.is_declined {
        true => InvitationState::Declined,
        false => InvitationState::Open,
    };
    let (mut found, mut end) = (Vec::new(), None);
    for identity in view.rows.identities_at(&view.this_node())? {
        let (mut position, mut examined) = (ScopeId(after), 0);
        loop {
            let part = view
                .rows
                .invitations((&identity.oid, state), position, PAGE)?;
            examined += part.len();
            let is_last = part.len() < PAGE;
            position = part.last().map_or(position, |last| last.scope);
            found.extend(part);
            if is_last {
                break;
            }
            if examined >= EXAMINED_MAX {
                end = Some(end.map_or(position, |end: ScopeId| end.min(position)));
                break;
            }
        }
    }
    found.sort_by_key(|it| (it.scope, it.identity));
    found.retain(|it| end.is_none_or(|end| it.scope <= end));
    let mut page = InvitationPage {
        cards: Vec::new(),
        after: end.map_or(after, |end| end.0),
        more: end.is_some(),
    };
    for invitation in found {
        if page.cards.len() >= limit && ScopeId(page.after) < invitation.scope {
            page.more = true;
            return Ok(page);
        }
        if let Some(card) = card(view, filter, &invitation)? {
            page.after = invitation.scope.0;
            page.cards.push(card);
        }
    }
    page.after = end.map_or(page.after, |end| end.0);
    Ok(page)
}

/// The card of an invitation. `None`: the filter excludes it, or the identity does not read the
/// scope any more.
fn card(
    view: &View<'_>,
    filter: &InvitationFilter,
    invitation: &Invitation,
) -> Result<Option<InvitationCard>, StoreError> {
    let rows = &view.rows;
    let Some(scope) = rows.scope(invitation.scope)? else {
        return Ok(None);
    };
    let app = rows.apps().iter().find(|app| app.id == scope.app);
    let app = app.ok_or(StoreError::Inconsistent("an app without tables"))?;
    let is_wanted = filter.app.as_ref().is_none_or(|slug| *slug == app.slug)
        && scope.oid.to_hex().ends_with(&filter.suffix)
        && rows.is_reader(scope.id, &invitation.identity)?;
    let parent = rows.parent_by_id(app, scope.parent_id)?;
    let Some(parent) = parent.filter(|parent| is_wanted && !parent.deleted) else {
        return Ok(None);
    };
    let list = rows.rights(rows.list_in_force(scope.id)?.id)?;
    let members = list.iter().take(NAMES_MAX);
    let members = members.map(|(identity, _)| person(rows, identity));
    Ok(Some(InvitationCard {
        oid: scope.oid,
        app: app.slug.clone(),
        title: title(rows, app, &parent)?,
        owner: person(rows, &parent.owner)?,
        identity: person(rows, &invitation.identity)?,
        member_count: list.entries(),
        members: members.collect::<Result<_, _>>()?,
        is_declined: invitation.state == InvitationState::Declined,
        at: invitation.at.0,
    }))
}

/// The title of a conversation.
fn title(
    rows: &Rows<'_>,
    app: &AppTable,
    parent: &ParentRow,
) -> Result<Option<String>, StoreError> {
    if (app.slug.as_str(), parent.type_number) != (messages::APP, messages::CONVERSATION) {
        return Ok(None);
    }
    let (object, _) = load_object(rows, app, parent)?;
    Ok(object
        .first(messages::TITLE)
        .and_then(Value::as_text)
        .map(escape))
}

/// The result of accepting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acceptance {
    /// The identity that takes part.
    pub identity: Oid,
    /// The `accept` that was written. `None`: the identity had accepted already.
    pub saved: Option<Saved>,
}

/// Lets an identity of this node take part in a scope that it reads. Without `identity`, the only
/// one with an invitation.
pub fn accept(
    graph: &mut GraphManager<'_>,
    app: &str,
    scope: Oid,
    identity: Option<Oid>,
) -> Result<Acceptance, InvitationError> {
    let parent = live_scope(graph, app, scope)?;
    let identity = chosen(graph, &parent, identity)?;
    let invitation = graph.tx().invitation(parent.scope_id, &identity)?;
    let is_hidden = invitation.is_some_and(|it| it.state.is_hidden());
    let has_accepted = graph.tx().has_accepted(parent.scope_id, &identity)?;
    if identity == parent.owner || (has_accepted && !is_hidden) {
        let saved = None;
        return Ok(Acceptance { identity, saved });
    }
    if !graph.tx().is_reader(parent.scope_id, &identity)? {
        return Err(InvitationError::NotInvited(scope));
    }
    let context = local_context(graph, &identity, app)?;
    let saved = Some(graph.save_accept(&context, app, &scope, identity)?);
    Ok(Acceptance { identity, saved })
}

/// Declines an invitation of an identity of this node, which is returned. Without `identity`, of
/// the only one with an invitation. Nothing changes if it was declined already.
pub fn decline(
    graph: &mut GraphManager<'_>,
    app: &str,
    scope: Oid,
    identity: Option<Oid>,
) -> Result<Oid, InvitationError> {
    let parent = live_scope(graph, app, scope)?;
    let identity = chosen(graph, &parent, identity)?;
    let invitation = graph.tx().invitation(parent.scope_id, &identity)?;
    match invitation.filter(|it| it.state.is_hidden()) {
        Some(it) if it.state == InvitationState::Open => graph.decline(&it)?,
        Some(_) => {}
        None if graph.tx().is_reader(parent.scope_id, &identity)? => {
            return Err(InvitationError::TakesPart(identity));
        }
        None => return Err(InvitationError::NotInvited(scope)),
    }
    Ok(identity)
}

/// The live Parent that is a scope.
fn live_scope(
    graph: &GraphManager<'_>,
    app: &str,
    scope: Oid,
) -> Result<ParentRow, InvitationError> {
    let tx = graph.tx();
    let table = tx.apps().get(app);
    let table = table.ok_or_else(|| InvitationError::UnknownApp(app.to_owned()))?;
    let missing = InvitationError::NotInvited(scope);
    let parent = tx.parent(table, &scope)?.filter(|parent| !parent.deleted);
    let parent = parent.ok_or(missing)?;
    match tx.scope(parent.scope_id)? {
        Some(row) if row.oid == scope => Ok(parent),
        _ => Err(InvitationError::NotInvited(scope)),
    }
}

/// The identity that decides: the given one, or the only one whose invitation is hidden. If all
/// accepted, the only one with an invitation.
fn chosen(
    graph: &GraphManager<'_>,
    parent: &ParentRow,
    identity: Option<Oid>,
) -> Result<Oid, InvitationError> {
    if let Some(identity) = identity {
        return match is_local(graph, &identity)? {
            true => Ok(identity),
            false => Err(InvitationError::NotHere(identity)),
        };
    }
    let (mut undecided, mut invited) = (Vec::new(), Vec::new());
    for row in graph.tx().identities_at(&graph.keys().peer_id())? {
        let invitation = graph.tx().invitation(parent.scope_id, &row.oid)?;
        if let Some(invitation) = invitation
            && graph.tx().is_reader(parent.scope_id, &row.oid)?
        {
            invited.push(row.oid);
            undecided.extend(invitation.state.is_hidden().then_some(row.oid));
        }
    }
    let chosen = if undecided.is_empty() {
        invited
    } else {
        undecided
    };
    match chosen.as_slice() {
        [one] => Ok(*one),
        [] => Err(InvitationError::NotInvited(parent.oid)),
        _ => Err(InvitationError::Several(parent.oid)),
    }
}
