//! The delivery state of messages that were written here, for each recipient (docs/DECISIONS.md 10
//! "Delivery state").
//!
//! Derived from receipts, readers and homes; nothing is stored for each message. Recipients are the
//! identities that could read the conversation when the message was written, except its author.
//! Invariant: a message is delivered to an identity only if its node applied or dropped the
//! message. Queries search indexes, and their number is bounded for each page. Tested in
//! `tests/core/delivery.rs`.

use std::collections::BTreeMap;
use std::rc::Rc;

use keys::{Oid, PeerId};

use super::messages::{APP, MESSAGE, SENT_AT, table};
use crate::object::Rights;
use crate::op_context::Timestamp;
use crate::state_engine::View;
use crate::store::{ParentRow, ReceiptRow, ScopeId, StoreError, UnappliedScope};

/// Number of messages and recipients that one reader examines.
const EXAMINED_MAX: usize = 20_000;
/// Number of the newest messages of a conversation that [`newest`] returns.
const NEWEST_MAX: usize = 20;
/// Number of rows of a conversation, the newest ones, among which they are looked for.
const NEWEST_EXAMINED_MAX: usize = 10_000;

/// How far a message is on its way to an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// This node knows no way to the identity's node.
    NoRoute,
    /// The identity's node did not state yet that it applied the message.
    Queued,
    /// The identity's node applied the message, since this time at the latest. Or a ban or a
    /// decision there dropped it.
    Delivered(Timestamp),
}

impl DeliveryState {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::Queued => "queued",
            Self::Delivered(_) => "delivered",
        }
    }
}

/// The state of a message for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecipientState {
    /// The recipient.
    pub identity: Oid,
    /// The state.
    pub state: DeliveryState,
    /// The recipient's node. `None`: not known.
    pub home: Option<PeerId>,
    /// When this node last had a session with that node. `None`: never, or the node is this one.
    pub last_reached: Option<Timestamp>,
}

/// A message that was written here, and its states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnMessage {
    /// The message.
    pub oid: Oid,
    /// Its author.
    pub sender: Oid,
    /// The time of writing, in milliseconds since 1970.
    pub sent_at: i64,
    /// The state for each recipient, sorted by oid. `None`: not examined, because the page has too
    /// many recipients.
    pub delivery: Option<Vec<RecipientState>>,
}

/// The newest messages of a conversation that were written here, newest first.
pub fn newest(
    view: &View<'_>,
    now: Timestamp,
    conversation: &Oid,
) -> Result<Vec<OwnMessage>, StoreError> {
    let app = table(view.rows.apps())?;
    let Some(parent) = view.rows.parent(app, conversation)? else {
        return Ok(Vec::new());
    };
    let of = (parent.scope_id, MESSAGE);
    let rows = view
        .rows
        .own_in_scope(app, of, NEWEST_EXAMINED_MAX, NEWEST_MAX)?;
    let mut reader = DeliveryReader::new(*view, now);
    rows.iter().map(|row| reader.message(row)).collect()
}

/// A message that was written here. `None`: there is none with that oid.
pub fn of_message(
    view: &View<'_>,
    now: Timestamp,
    message: &Oid,
) -> Result<Option<OwnMessage>, StoreError> {
    let row = view.rows.parent(table(view.rows.apps())?, message)?;
    let row = row.filter(|row| {
        row.type_number == MESSAGE && row.origin.is_none() && row.rev > 0 && !row.deleted
    });
    let mut reader = DeliveryReader::new(*view, now);
    row.map(|row| reader.message(&row)).transpose()
}

/// Facts on a node.
#[derive(Debug)]
struct NodeFacts {
    is_here: bool,
    is_banned: bool,
    /// Whether it is a peer that shares the domain.
    is_direct: bool,
    last_reached: Option<Timestamp>,
    receipts: Vec<ReceiptRow>,
    has_unapplied: bool,
}

/// The rights of a node to read a conversation.
#[derive(Debug, Default, Clone, Copy)]
struct NodeReading {
    /// The number above which the node gets messages by its cursors; none if no identity there may
    /// read now.
    since: Option<u64>,
    /// The last right that ended: its number, and that of the write that ended it.
    ended: Option<(u64, u64)>,
}

/// Derives the states of several messages, and reads each fact once.
pub struct DeliveryReader<'v> {
    view: View<'v>,
    now: Timestamp,
    examined: usize,
    lists: BTreeMap<(ScopeId, Option<i64>), Rc<Vec<Oid>>>,
    homes: BTreeMap<Oid, Option<PeerId>>,
    ends: BTreeMap<(ScopeId, Oid), Option<u64>>,
    nodes: BTreeMap<PeerId, Rc<NodeFacts>>,
    readings: BTreeMap<ScopeId, Rc<BTreeMap<PeerId, NodeReading>>>,
    unapplied: BTreeMap<(ScopeId, PeerId), Option<UnappliedScope>>,
    relays: BTreeMap<ScopeId, Rc<Vec<PeerId>>>,
}

impl<'v> DeliveryReader<'v> {
    /// A reader of one committed state. `now` decides which bans hold.
    pub fn new(view: View<'v>, now: Timestamp) -> Self {
        Self {
            view,
            now,
            examined: 0,
            lists: BTreeMap::new(),
            homes: BTreeMap::new(),
            ends: BTreeMap::new(),
            nodes: BTreeMap::new(),
            readings: BTreeMap::new(),
            unapplied: BTreeMap::new(),
            relays: BTreeMap::new(),
        }
    }

    /// A message that was written here.
    pub fn message(&mut self, row: &ParentRow) -> Result<OwnMessage, StoreError> {
        let app = table(self.view.rows.apps())?;
        let attrs = self.view.rows.attrs(app, row.id)?;
        let sent_at = attrs.iter().find(|(number, _)| *number == SENT_AT);
        let sent_at = sent_at.and_then(|(_, value)| value.as_integer());
        let sent_at = sent_at.unwrap_or_default();
        Ok(OwnMessage {
            oid: row.oid,
            sender: row.owner,
            sent_at,
            delivery: self.states(row, sent_at)?,
        })
    }

    /// The states of the message with this oid, which was written here at `sent_at`.
    pub fn of(
        &mut self,
        message: &Oid,
        sent_at: i64,
    ) -> Result<Option<Vec<RecipientState>>, StoreError> {
        let app = table(self.view.rows.apps())?;
        match self.view.rows.parent(app, message)? {
            Some(row) => self.states(&row, sent_at),
            None => Ok(None),
        }
    }

    /// The states of a message that was written here at `sent_at`, for each recipient.
    pub fn states(
        &mut self,
        row: &ParentRow,
        sent_at: i64,
    ) -> Result<Option<Vec<RecipientState>>, StoreError> {
        let readers = self.readers(row)?;
        self.examined += 1 + readers.len();
        if self.examined > EXAMINED_MAX {
            return Ok(None);
        }
        let mut states = Vec::with_capacity(readers.len());
        for identity in readers.iter().filter(|identity| **identity != row.owner) {
            let end = self.end_of(row.scope_id, identity)?;
            if end.is_none_or(|end| end >= row.created_seq) {
                states.push(self.state(row, sent_at, *identity)?);
            }
        }
        Ok(Some(states))
    }

    /// The readers in the list that a message names.
    fn readers(&mut self, row: &ParentRow) -> Result<Rc<Vec<Oid>>, StoreError> {
        let key = (row.scope_id, row.rights_id);
        if let Some(known) = self.lists.get(&key) {
            return Ok(known.clone());
        }
        let rows = &self.view.rows;
        let list = match row.rights_id {
            Some(list) => list,
            None => rows.founding_list(row.scope_id)?.id,
        };
        let rights = rows.rights(list)?;
        let readers = rights
            .iter()
            .filter(|(_, rights)| Rights::may_read(*rights));
        let readers = Rc::new(readers.map(|(oid, _)| *oid).collect::<Vec<_>>());
        self.lists.insert(key, readers.clone());
        Ok(readers)
    }

    fn end_of(&mut self, scope: ScopeId, identity: &Oid) -> Result<Option<u64>, StoreError> {
        if let Some(known) = self.ends.get(&(scope, *identity)) {
            return Ok(*known);
        }
        let end = self.view.rows.reader_until(scope, identity)?;
        self.ends.insert((scope, *identity), end);
        Ok(end)
    }

    fn home(&mut self, identity: &Oid) -> Result<Option<PeerId>, StoreError> {
        if let Some(known) = self.homes.get(identity) {
            return Ok(*known);
        }
        let home = self.view.rows.identity(identity)?.map(|row| row.home);
        self.homes.insert(*identity, home);
        Ok(home)
    }

    fn node(&mut self, node: &PeerId) -> Result<Rc<NodeFacts>, StoreError> {
        if let Some(known) = self.nodes.get(node) {
            return Ok(known.clone());
        }
        let rows = &self.view.rows;
        let peer = rows.peer(node)?;
        let shares = |domains: &[String]| domains.iter().any(|domain| domain == APP);
        let facts = Rc::new(NodeFacts {
            is_here: *node == self.view.this_node(),
            is_banned: rows.is_banned(node, self.now)?,
            is_direct: peer.as_ref().is_some_and(|peer| shares(&peer.domains)),
            last_reached: peer.map(|peer| peer.last_contact),
            receipts: rows.receipts(node, APP)?,
            has_unapplied: rows.has_unapplied_object(node, APP)?,
        });
        self.nodes.insert(*node, facts.clone());
        Ok(facts)
    }

    fn reading(&mut self, scope: ScopeId, node: &PeerId) -> Result<NodeReading, StoreError> {
        let known = match self.readings.get(&scope) {
            Some(known) => known.clone(),
            None => {
                let read = Rc::new(self.read_rights(scope)?);
                self.readings.insert(scope, read.clone());
                read
            }
        };
        Ok(known.get(node).copied().unwrap_or_default())
    }

    fn read_rights(&mut self, scope: ScopeId) -> Result<BTreeMap<PeerId, NodeReading>, StoreError> {
        let mut readings = BTreeMap::<PeerId, NodeReading>::new();
        let rights = self.view.rows.rights_in(scope)?;
        self.examined += rights.len();
        for (node, right) in rights {
            let (reading, since) = (readings.entry(node).or_default(), right.since_seq);
            match right.until_seq {
                None => reading.since = Some(reading.since.map_or(since, |it| it.min(since))),
                Some(until) if reading.ended.is_none_or(|(_, last)| last < until) => {
                    reading.ended = Some((since, until));
                }
                Some(_) => {}
            }
        }
        Ok(readings)
    }

    fn unapplied(
        &mut self,
        scope: ScopeId,
        node: &PeerId,
    ) -> Result<Option<UnappliedScope>, StoreError> {
        if let Some(known) = self.unapplied.get(&(scope, *node)) {
            return Ok(*known);
        }
        let rows = &self.view.rows;
        let unapplied = match rows.scope(scope)? {
            Some(row) => rows.unapplied_scope((node, APP), &row.oid)?,
            None => None,
        };
        self.unapplied.insert((scope, *node), unapplied);
        Ok(unapplied)
    }

    /// The peers, not banned, that send on what they receive in a conversation.
    fn relays(&mut self, scope: ScopeId) -> Result<Rc<Vec<PeerId>>, StoreError> {
        if let Some(known) = self.relays.get(&scope) {
            return Ok(known.clone());
        }
        let mut relays = Vec::new();
        for peer in self.view.rows.relays_of(scope, APP)? {
            if !self.node(&peer)?.is_banned {
                relays.push(peer);
            }
        }
        let relays = Rc::new(relays);
        self.relays.insert(scope, relays.clone());
        Ok(relays)
    }

    fn state(
        &mut self,
        row: &ParentRow,
        sent_at: i64,
        identity: Oid,
    ) -> Result<RecipientState, StoreError> {
        let of = |state, home, last_reached| RecipientState {
            identity,
            state,
            home,
            last_reached,
        };
        let Some(home) = self.home(&identity)? else {
            let is_reader = self.end_of(row.scope_id, &identity)?.is_none();
            let has_relay = is_reader && !self.relays(row.scope_id)?.is_empty();
            return Ok(match has_relay {
                true => of(DeliveryState::Queued, None, None),
                false => of(DeliveryState::NoRoute, None, None),
            });
        };
        let node = self.node(&home)?;
        if node.is_here {
            let at = Timestamp(u64::try_from(sent_at).unwrap_or(0));
            return Ok(of(DeliveryState::Delivered(at), Some(home), None));
        }
        let reading = self.reading(row.scope_id, &home)?;
        let of = |state| of(state, Some(home), node.last_reached);
        if let Some(at) = self.delivered_at(row, &home, &node, reading)? {
            return Ok(of(DeliveryState::Delivered(at)));
        }
        // A node of former readers gets nothing more.
        let is_served = reading.since.is_some() && !node.is_banned;
        let has_route = is_served
            && (node.is_direct || {
                let relays = self.relays(row.scope_id)?;
                relays.iter().any(|relay| *relay != home)
            });
        Ok(of(match has_route {
            true => DeliveryState::Queued,
            false => DeliveryState::NoRoute,
        }))
    }

    /// When a node stated that it applied a message.
    fn delivered_at(
        &mut self,
        row: &ParentRow,
        home: &PeerId,
        node: &NodeFacts,
        reading: NodeReading,
    ) -> Result<Option<Timestamp>, StoreError> {
        let created = row.created_seq;
        let since = match (reading.since, reading.ended) {
            (Some(since), _) | (None, Some((since, _))) => since,
            (None, None) => return Ok(None),
        };
        // Up to `since` the node asks for the conversation, after its cursor has passed `since`.
        let is_named = created <= since;
        let is_open = reading.since.is_some();
        let ended = reading.ended.map_or(0, |(_, until)| until);
        let states = |receipt: &&ReceiptRow| {
            receipt.seq >= created.max(since) && (is_open || !is_named && receipt.head < ended)
        };
        let Some(receipt) = node.receipts.iter().find(states) else {
            return Ok(None);
        };
        let mut at = receipt.at;
        // Up to `after_seq` the node had all, also what it had pulled again by then.
        if let Some(scope) = self.unapplied(row.scope_id, home)?
            && (is_named && scope.after_seq < since || created > scope.after_seq)
        {
            match scope.applied_at {
                None => return Ok(None),
                Some(applied_at) => at = at.max(applied_at),
            }
        }
        if node.has_unapplied
            && let Some(object) = self.view.rows.unapplied_object((home, APP), &row.oid)?
        {
            match object.applied_at {
                None => return Ok(None),
                Some(applied_at) => at = at.max(applied_at),
            }
        }
        Ok(Some(at))
    }
}
