//! Receipts: what a node applied of the objects of another one (docs/PROTOCOL.md 4.4,
//! docs/DECISIONS.md 10 "Delivery state").
//!
//! The receiving node states its cursor, and what is missing below it, from one snapshot. The
//! sending node stores what it may conclude. Invariant: an object of this node counts as applied
//! only if the peer applied it. Its `change_seq` may have risen above the cursor since, so that the
//! cursor alone proves nothing. Tested in `tests/core/receipts.rs`.

use std::collections::BTreeSet;

use keys::protocol::RECEIPT_OIDS_MAX;
use keys::{Epoch, Oid, PeerId};

use super::build::LOAD_COST;
use super::engine::StateEngine;
use super::late::Late;
use super::peer_scopes::PeerScopes;
use super::receipt_ledger::{Covered, Delivered, Ledger, SCOPES_MAX};
use super::select::{Selection, Selector, Wanted};
use super::view::View;
use crate::graph::Exported;
use crate::op_context::Timestamp;
use crate::store::{AppTable, Direction, ScopeId, StoreError};

/// A statement of a node on a domain of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The domain.
    pub domain: String,
    /// Epoch of the node that gets the receipt, in which `last_seq` counts.
    pub epoch: Epoch,
    /// Scopes of which objects of the node that gets the receipt are still pulled again, sorted.
    pub behind: Vec<Oid>,
    /// Objects that were refused, sorted. Each is named once.
    pub refused: Vec<Oid>,
    /// Objects that wait, sorted.
    pub waiting: Vec<Oid>,
    /// The cursor. `None`: further refused objects follow.
    pub last_seq: Option<u64>,
}

/// Why a receipt cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The receipt counts in another epoch.
    #[error("the receipt counts in another epoch")]
    Epoch,
    /// Stored objects are getting new numbers. The peer has to send it again later.
    #[error("objects of this node are signed or numbered again")]
    Busy,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A receipt, and what a snapshot said about it.
#[derive(Debug)]
pub struct CheckedReceipt {
    receipt: Receipt,
    /// The peer's epoch.
    peer_epoch: Epoch,
    /// The last `change_seq` of the snapshot.
    head: u64,
    /// Whether everything that was created up to the cursor had its number there.
    counts: bool,
    /// Scopes that a recovery closes, so that the cursor passes them.
    closed: Vec<Oid>,
    /// Scopes that the peer had to pull again since the receipt before.
    late: Vec<Oid>,
    /// Entries of the index that were examined.
    examined: usize,
}

impl CheckedReceipt {
    /// Entries of the index that were examined for the receipt.
    pub fn examined(&self) -> usize {
        self.examined
    }
}

impl View<'_> {
    /// The part of a peer's domain that this node applied. `None`: nothing yet, or it cannot be
    /// listed.
    pub fn receipt(&self, peer: &PeerId, domain: &str) -> Result<Option<Receipt>, StoreError> {
        let epoch = self.rows.peer(peer)?.map(|row| row.epoch);
        let cursor = self.cursor(peer, domain, Direction::In)?;
        let Some(cursor) = cursor.filter(|cursor| Some(cursor.epoch) == epoch) else {
            return Ok(None);
        };
        let Some(behind) = self.rows.unfinished_again(peer, domain)? else {
            return Ok(None);
        };
        let mut refused = self.rows.refused_objects(peer, domain, &cursor.epoch)?;
        let waiting = self.rows.waiting_in(peer, domain)?;
        let others = behind.len() + waiting.len();
        if others > RECEIPT_OIDS_MAX {
            return Ok(None);
        }
        let (domain, epoch) = (domain.to_owned(), cursor.epoch);
        if others + refused.len() > RECEIPT_OIDS_MAX {
            refused.truncate(RECEIPT_OIDS_MAX);
            return Ok(Some(Receipt {
                domain,
                epoch,
                behind: Vec::new(),
                refused,
                waiting: Vec::new(),
                last_seq: None,
            }));
        }
        Ok(Some(Receipt {
            domain,
            epoch,
            behind,
            refused,
            waiting,
            last_seq: Some(cursor.last_seq),
        }))
    }

    /// Checks a receipt of a peer against this snapshot. `None`: it says nothing, because the
    /// domain is not shared.
    pub fn check_receipt(
        &self,
        peer: &PeerId,
        receipt: Receipt,
    ) -> Result<Option<CheckedReceipt>, ReceiptError> {
        if receipt.epoch != self.context.epoch {
            return Err(ReceiptError::Epoch);
        }
        let Some(row) = self.rows.peer(peer)? else {
            return Ok(None);
        };
        let domain = receipt.domain.clone();
        let is_shared = row.domains.contains(&domain);
        let Some(app) = self.app_of(&domain).filter(|_| is_shared) else {
            return Ok(None);
        };
        let head = self.head()?;
        let mut checked = CheckedReceipt {
            peer_epoch: row.epoch,
            head,
            counts: false,
            closed: Vec::new(),
            late: Vec::new(),
            examined: 0,
            receipt,
        };
        let before = self.rows.receipted_seq(peer, &domain)?;
        let last_seq = checked.receipt.last_seq;
        let Some(last_seq) = last_seq.filter(|last_seq| *last_seq >= before) else {
            return Ok(Some(checked));
        };
        if self.is_renumbering(app)? {
            return Err(ReceiptError::Busy);
        }
        let memory = &self.context.memory;
        let scopes = memory.peers.get(&self.rows, &memory.scopes, peer, head)?;
        checked.counts = true;
        if memory.scopes.restamped() > last_seq {
            let shared = (domain.as_str(), row.domains.as_slice());
            let (has_more, examined) = self.has_own_after(app, shared, &scopes, last_seq)?;
            (checked.counts, checked.examined) = (!has_more, examined);
        }
        if checked.counts {
            checked.closed = self.closed_for(peer)?;
            checked.late = self.late_since(app, &scopes, (before, last_seq.min(head)))?;
        }
        Ok(Some(checked))
    }

    fn app_of(&self, domain: &str) -> Option<&AppTable> {
        let domain = self.context.schemas.domain(domain)?;
        self.rows.apps().get(&domain.app)
    }

    /// Whether objects of this node have yet to get a later signature or another number.
    fn is_renumbering(&self, app: &AppTable) -> Result<bool, StoreError> {
        if self.rows.is_restamp_pending()? {
            return Ok(true);
        }
        for own in self.rows.identities_at(&self.this_node())? {
            let earlier = self.rows.signed_before(app, &own.oid, own.key_id, 1)?;
            if !earlier.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a peer may still receive an object of this node above a number. Ends at the first
    /// one. Returns the number of examined entries too.
    fn has_own_after(
        &self,
        app: &AppTable,
        (domain, shared): (&str, &[String]),
        scopes: &PeerScopes,
        last_seq: u64,
    ) -> Result<(bool, usize), StoreError> {
        let head = self.head_of(domain, self.head()?)?;
        let Some(table) = self.rows.apps().domain(domain).filter(|_| head > last_seq) else {
            return Ok((false, 0));
        };
        let (memory, exported) = (&self.context.memory.scopes, Exported::Own);
        let late = Late::find(app.id, scopes, (memory, exported), (last_seq, head));
        if !late.scopes.is_empty() || late.until < head || late.too_many.is_some() {
            return Ok((true, 0));
        }
        let mut selector = Selector::new(Selection {
            rows: self.rows,
            app: app.id,
            domain: table,
            memory,
            scopes,
            wanted: Wanted::News,
            exported,
            after: last_seq,
            end: head,
            entries_max: self.context.limits.entries_max,
        });
        let hidden = self.hidden_types(domain, shared);
        while let Some(batch) = selector.next_batch()? {
            for group in batch.chunk_by(|one, other| one.change_seq == other.change_seq) {
                if !self.load_group(app, group, &hidden)?.is_empty() {
                    return Ok((true, selector.examined()));
                }
                selector.charge(LOAD_COST * group.len());
            }
        }
        Ok((selector.reached() < head, selector.examined()))
    }

    /// The oids of scopes of which a peer had to pull the history again, because it may read them
    /// since a number in a window. At most one more than an announcement names.
    fn late_since(
        &self,
        app: &AppTable,
        scopes: &PeerScopes,
        (after, to): (u64, u64),
    ) -> Result<Vec<Oid>, StoreError> {
        let late: Vec<ScopeId> = {
            let newest = self.context.memory.scopes.newest();
            let own = |scope: &ScopeId| newest.of(app.id, *scope, Exported::Own) > 0;
            let late = scopes.late_in(after, to).map(|(_, scope)| scope);
            late.filter(own).take(SCOPES_MAX + 1).collect()
        };
        let mut oids = Vec::with_capacity(late.len());
        for scope in late {
            oids.extend(self.rows.scope(scope)?.map(|scope| scope.oid));
        }
        Ok(oids)
    }

    /// The closed scopes that a peer reads.
    fn closed_for(&self, peer: &PeerId) -> Result<Vec<Oid>, ReceiptError> {
        let closed = self.rows.closed_scopes()?;
        if closed.is_empty() {
            return Ok(Vec::new());
        }
        let mut read = BTreeSet::new();
        self.rows.readers_at(peer, |reader| {
            if closed.contains(&reader.scope) {
                read.insert(reader.scope);
            }
        })?;
        if read.len() > RECEIPT_OIDS_MAX {
            return Err(ReceiptError::Busy);
        }
        let mut oids = Vec::with_capacity(read.len());
        for scope in read {
            oids.extend(self.rows.scope(scope)?.map(|scope| scope.oid));
        }
        Ok(oids)
    }
}

impl StateEngine {
    /// Stores what a checked receipt states. Returns what the peer applied since the last one.
    pub fn record_receipt(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        checked: &CheckedReceipt,
    ) -> Result<Option<Delivered>, ReceiptError> {
        // Numbers of undone writes are above all that are stored.
        let restamped = self.context.memory.scopes.restamped();
        if checked.counts && restamped.min(self.view().head()?) > checked.head {
            return Err(ReceiptError::Busy);
        }
        let domain = &checked.receipt.domain;
        let Some(app) = self.view().app_of(domain).map(|app| app.id) else {
            return Ok(None);
        };
        let head = self.counters.change_seq;
        self.write(now, |graph| {
            let tx = graph.tx();
            let apps = tx.apps();
            let Some(app) = apps.iter().find(|table| table.id == app) else {
                return Ok(None);
            };
            // The peer may have lost since what it stated.
            if tx.peer(peer)?.map(|row| row.epoch) != Some(checked.peer_epoch) {
                return Ok(None);
            }
            let mut ledger = Ledger::new(tx, app, (peer, domain), now)?;
            if !ledger.note_refused(&checked.receipt.refused)? || !checked.counts {
                return Ok(None);
            }
            let receipt = &checked.receipt;
            let seq = receipt.last_seq.unwrap_or(0).min(head);
            let behind = receipt.behind.iter().chain(&checked.closed);
            let covered = Covered {
                seq,
                head,
                waiting: &receipt.waiting,
                behind: behind.copied().collect(),
                late: &checked.late,
            };
            Ok(ledger.settle(&covered)?)
        })
    }

    /// Forgets refused objects that the peer has noted.
    pub fn forget_refused(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        receipt: &Receipt,
    ) -> Result<(), StoreError> {
        self.write(now, |graph| {
            let key = (peer, receipt.domain.as_str());
            graph.tx().remove_refused_objects(key, &receipt.refused)
        })
    }
}
