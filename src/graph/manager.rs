//! [`GraphManager`]: one transaction on the graph, with its counters, cache and row writers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use keys::{KeyManager, Oid, PeerId, TraceId};
use rand::CryptoRng;

use super::cache::TxCache;
use super::counters::Counters;
use super::limits::GraphLimits;
use super::scope_memory::ScopeMemory;
use super::touched::{READERS_NOTED_MAX, Touched};
use super::version::Tombstone;
use crate::object::Rights;
use crate::op_context::{AppId, Timestamp};
use crate::schema::Schemas;
use crate::store::{
    AppTable, IdentityRow, ParentRow, ParentWriter, PeerRow, ScopeId, StoreError, WriteMode,
    WriteTx,
};

/// The inputs of a `GraphManager` besides its transaction.
pub struct Environment<'e> {
    /// The apps' schemas.
    pub schemas: &'e Schemas,
    /// The node's and its identities' keys.
    pub keys: &'e KeyManager,
    /// Limits of objects and key chains.
    pub limits: &'e GraphLimits,
    /// The writer's counters.
    pub counters: &'e mut Counters,
    /// Collects which peers this write touches.
    pub touched: &'e mut Touched,
    /// The newest changes, raised by this write.
    pub memory: &'e ScopeMemory,
    /// Whether this node may create and change its own objects.
    pub write_mode: WriteMode,
    /// Randomness for new oids.
    pub rng: &'e mut (dyn CryptoRng + Send),
    /// The time of this write.
    pub now: Timestamp,
    /// The id of the operation that this write belongs to, for the logs and for `OpContext`.
    pub trace: TraceId,
}

/// The single write path to objects, for the length of one transaction.
pub struct GraphManager<'e> {
    pub(super) tx: &'e WriteTx<'e>,
    pub(super) env: Environment<'e>,
    /// This node's peer identity: an object's owner is local if its home is this node.
    pub(super) this_node: PeerId,
    change_seq: Option<u64>,
    pub(super) cache: RefCell<TxCache>,
    writers: BTreeMap<AppId, ParentWriter<'e>>,
    /// The greatest tombstone of each object that was deleted while objects waited.
    pub(super) tombstones: BTreeMap<Oid, Tombstone>,
    /// The peer that this transaction admitted.
    pub(super) saved_peer: Option<PeerRow>,
}

impl<'e> GraphManager<'e> {
    /// Starts work in an open transaction.
    pub fn new(tx: &'e WriteTx<'e>, env: Environment<'e>) -> Self {
        let this_node = env.keys.peer_id();
        Self {
            tx,
            env,
            this_node,
            change_seq: None,
            cache: RefCell::default(),
            writers: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            saved_peer: None,
        }
    }

    /// The transaction, for reads and for rows that do not belong to objects.
    pub fn tx(&self) -> &'e WriteTx<'e> {
        self.tx
    }

    /// The time of this write.
    pub fn now(&self) -> Timestamp {
        self.env.now
    }

    /// Whether this node may change its objects, which it may not while it recovers.
    pub fn may_change(&self) -> bool {
        self.env.write_mode == WriteMode::ReadWrite
    }

    /// The id of the operation that this write belongs to.
    pub fn trace(&self) -> TraceId {
        self.env.trace
    }

    /// The node's and its identities' keys.
    pub fn keys(&self) -> &'e KeyManager {
        self.env.keys
    }

    /// Limits of objects and key chains.
    pub fn limits(&self) -> &'e GraphLimits {
        self.env.limits
    }

    /// The apps' schemas.
    pub fn schemas(&self) -> &'e Schemas {
        self.env.schemas
    }

    /// The peers that this write touches. A failed write before it may have touched some of them.
    pub fn touched(&self) -> &Touched {
        self.env.touched
    }

    /// The peer that this transaction admitted.
    pub fn saved_peer(&self) -> Option<&PeerRow> {
        self.saved_peer.as_ref()
    }

    /// Ends the change group: the next write takes the next `change_seq`.
    pub fn end_group(&mut self) {
        self.change_seq = None;
    }

    /// The `change_seq` of the change group; the group's first write takes it.
    pub(super) fn stamp(&mut self) -> u64 {
        let counters = &mut self.env.counters;
        *self.change_seq.get_or_insert_with(|| {
            counters.change_seq += 1;
            counters.change_seq
        })
    }

    /// The writer of an app's Parents, with its prepared statements.
    pub(super) fn parents(&mut self, app: &AppTable) -> Result<&mut ParentWriter<'e>, StoreError> {
        match self.writers.entry(app.id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => Ok(new.insert(self.tx.parents(app)?)),
        }
    }

    pub(super) fn table(&self, slug: &str) -> Result<&'e AppTable, StoreError> {
        let apps: &'e crate::store::Apps = self.tx.apps();
        apps.get(slug)
            .ok_or(StoreError::Inconsistent("an app without tables"))
    }
}

impl GraphManager<'_> {
    /// The row of an identity or server, by oid.
    pub(super) fn identity(&self, oid: &Oid) -> Result<Option<IdentityRow>, StoreError> {
        if let Some(known) = self.cache.borrow().identities.get(oid) {
            return Ok(Some(*known));
        }
        let row = self.tx.identity(oid)?;
        if let Some(row) = row {
            self.cache.borrow_mut().identities.insert(*oid, row);
        }
        Ok(row)
    }

    /// Whether an identity is local.
    pub fn is_local(&self, owner: &Oid) -> Result<bool, StoreError> {
        Ok(self
            .identity(owner)?
            .is_some_and(|owner| owner.home == self.this_node))
    }

    /// Notes which peers may read a row that was just written.
    pub(super) fn touch(&mut self, app: &AppTable, row: &ParentRow) -> Result<(), StoreError> {
        if row.sync_flags == 0 {
            return Ok(());
        }
        let memory = self.env.memory;
        let is_own = row.sync_flags > 0;
        let is_first = memory.raise(app.id, row.scope_id, row.change_seq, is_own);
        if row.scope_id == ScopeId::PUBLIC {
            self.env.touched.add_public(app.id);
        }
        if !row.scope_id.has_readers() {
            return Ok(());
        }
        self.touch_former(app, row)?;
        let touched = (row.scope_id, row.origin);
        if !self.cache.borrow_mut().touched.insert(touched) {
            return Ok(());
        }
        let readers = self.tx.readers(row.scope_id)?;
        let sender = self.sender_of(row)?;
        self.look_at(readers.len());
        for reader in &readers {
            let Some(home) = self.identity(reader)?.map(|reader| reader.home) else {
                continue;
            };
            if home != self.this_node {
                self.touch_scope_of(app, home, sender);
                // A scope without an exported row is in no peer's way.
                if is_first {
                    memory.raise_readers(home, row.change_seq);
                }
            }
        }
        Ok(())
    }

    /// The peer that sent a received row; a forgotten one too. `None`: the row was made here.
    fn sender_of(&self, row: &ParentRow) -> Result<Option<PeerId>, StoreError> {
        let Some(origin) = row.origin else {
            return Ok(None);
        };
        let sender = self.tx.peer_by_number(origin)?;
        let sender = sender.ok_or(StoreError::Inconsistent("a row without its sender"))?;
        Ok(Some(sender))
    }

    /// Notes that a node may read a row. Its sender has it.
    fn touch_scope_of(&mut self, app: &AppTable, home: PeerId, sender: Option<PeerId>) {
        match sender {
            None => self.env.touched.add_scope_of(app.id, home),
            Some(sender) if sender == home => {}
            Some(_) => self.env.touched.add_received_of(app.id, home),
        }
    }

    /// Notes which former readers may read a row that was just written. One that this write closed
    /// is noted already.
    fn touch_former(&mut self, app: &AppTable, row: &ParentRow) -> Result<(), StoreError> {
        let (scope, since) = (row.scope_id, row.created_seq);
        if !row.reaches_former_readers() || since == row.change_seq {
            return Ok(());
        }
        let touched = (scope, row.origin);
        let known = self.cache.borrow().touched_former.get(&touched).copied();
        if known.is_some_and(|known| known <= since) {
            return Ok(());
        }
        self.cache
            .borrow_mut()
            .touched_former
            .insert(touched, since);
        let former = self.tx.readers_until(scope, since, READERS_NOTED_MAX)?;
        self.look_at(former.len());
        if former.len() == READERS_NOTED_MAX {
            self.env.touched.add_everything();
            return Ok(());
        }
        let sender = self.sender_of(row)?;
        for reader in &former {
            let home = self.identity(reader)?.map(|reader| reader.home);
            if let Some(home) = home.filter(|home| *home != self.this_node) {
                self.touch_scope_of(app, home, sender);
            }
        }
        Ok(())
    }

    /// Notes that a node reads other scopes since `change_seq`.
    pub(super) fn touch_readers_of(&mut self, home: PeerId, change_seq: u64) {
        if home != self.this_node {
            self.env.touched.add_readers_of(home);
            self.env.memory.raise_readers(home, change_seq);
        }
    }

    /// Notes that every node may read other scopes since `change_seq`.
    pub(super) fn touch_all_readers(&mut self, change_seq: u64) {
        self.env.touched.add_everything();
        self.env.memory.raise_all_readers(change_seq);
    }

    /// The rights of an identity by the list with a local id in a scope; `None`: the founding list.
    pub(super) fn rights_of(
        &self,
        scope: ScopeId,
        list: Option<i64>,
        identity: &Oid,
    ) -> Result<Option<Rights>, StoreError> {
        let key = (scope, list, *identity);
        if let Some(known) = self.cache.borrow().rights.get(&key) {
            return Ok(*known);
        }
        let list = match list {
            Some(list) => list,
            None => self.tx.founding_list(scope)?.id,
        };
        let rights = self.tx.rights_of(list, identity)?;
        self.cache.borrow_mut().rights.insert(key, rights);
        Ok(rights)
    }

    /// Counts searches and rows that were read: of readers, rights lists, and stored objects.
    pub(super) fn look_at(&self, count: usize) {
        self.cache.borrow_mut().looked_at += count;
    }

    /// How much this transaction did: its changes ([`WriteTx::spent`]), and the readers, rights
    /// lists and stored objects that it read. Most take some microseconds.
    pub fn spent(&self) -> usize {
        self.tx.spent() + self.cache.borrow().looked_at
    }

    /// The row of a Parent that another object refers to.
    pub(super) fn referenced(
        &self,
        app: &AppTable,
        oid: &Oid,
    ) -> Result<Option<ParentRow>, StoreError> {
        let key = (app.id, *oid);
        if let Some(known) = self.cache.borrow().referenced.get(&key) {
            return Ok(Some(known.clone()));
        }
        let row = self.tx.parent(app, oid)?;
        if let Some(row) = &row {
            self.cache.borrow_mut().referenced.insert(key, row.clone());
        }
        Ok(row)
    }
}
