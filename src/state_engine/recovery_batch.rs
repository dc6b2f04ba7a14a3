//! Returning a restored node's objects: the other side of `reclaim.rs` (docs/DECISIONS.md 5).
//!
//! A peer returns exactly the received objects whose owners live on the requesting node, with their
//! owners' signatures. The node that had sent them does not matter. Objects that still wait are
//! returned too: they would be applied here later, and be missing at their home. Invariant: all
//! versions of one object are in one batch. Tested in `tests/core/arrival.rs` and
//! `tests/core/returned.rs`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use keys::{Oid, PeerId, SignedObject};

use super::checked::OBJECT_COST;
use super::package::Package;
use super::view::View;
use crate::graph::{load_object, owner_and_rev, travel_type};
use crate::store::{Account, AppTable, ParentRow, StoreError};

/// Largest number of rows that are read for one reply, so that a read ends soon.
const ROWS_PER_REPLY: usize = 4096;
/// Largest number of objects whose waiting versions are read for one reply. They are decoded.
const WAITING_PER_REPLY: usize = 256;
/// Most waiting versions of one object that are compared, the oldest first.
const VERSIONS_MAX: usize = 16;
/// Processor time of a row that is read.
const ROW_COST: Duration = Duration::from_micros(5);

/// The processor time of so many rows.
fn rows_cost(rows: usize) -> Duration {
    ROW_COST.saturating_mul(u32::try_from(rows).unwrap_or(u32::MAX))
}

/// A restored node's request for the objects that it once sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryRequest {
    /// The requesting peer.
    pub peer: PeerId,
    /// The sync domain.
    pub domain: String,
    /// The last object of the previous batch; `None` at first.
    pub after: Option<Oid>,
}

/// A part of the objects that a node reclaims.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveryBatch {
    /// The objects as they were signed, in the order of their oids. Of one object there may be the
    /// stored version and then a waiting one.
    pub objects: Vec<SignedObject>,
    /// `after` of the next request; `None` after the last batch.
    pub next: Option<Oid>,
    /// The processor time of making it, roughly.
    pub cost: Duration,
}

/// The stored and the waiting versions of one object.
#[derive(Default)]
struct Held {
    row: Option<ParentRow>,
    /// Whether versions of it wait.
    waits: bool,
}

/// Looks up the homes of identities, each of them once.
struct Residents<'v> {
    view: &'v View<'v>,
    node: PeerId,
    known: BTreeMap<Oid, bool>,
}

impl Residents<'_> {
    /// Whether the home of an identity is the node.
    fn contain(&mut self, identity: Oid) -> Result<bool, StoreError> {
        Ok(match self.known.entry(identity) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let row = self.view.rows.identity(&identity)?;
                *new.insert(row.is_some_and(|row| row.home == self.node))
            }
        })
    }
}

impl View<'_> {
    /// The next part of the objects in a domain whose owners live on a peer. Empty for a domain
    /// that is not shared.
    pub fn recovery_batch(&self, request: &RecoveryRequest) -> Result<RecoveryBatch, StoreError> {
        let limits = &self.context.limits.package;
        let known = self.rows.peer(&request.peer)?;
        let shared = known.is_some_and(|known| known.domains.contains(&request.domain));
        let domain = self
            .context
            .schemas
            .domain(&request.domain)
            .filter(|_| shared);
        let Some(domain) = domain else {
            return Ok(RecoveryBatch::default());
        };
        let app = self.rows.apps().get(&domain.app);
        let app = app.ok_or(StoreError::Inconsistent("a domain without tables"))?;
        let rows = self.rows.by_oid(app, request.after, ROWS_PER_REPLY)?;
        let waiting = self.rows.waiting_oids(request.after, WAITING_PER_REPLY)?;
        // Beyond the end of either list, the other one may lack objects.
        let rows_end = rows.last().filter(|_| rows.len() == ROWS_PER_REPLY);
        let waiting_end = waiting
            .last()
            .filter(|_| waiting.len() == WAITING_PER_REPLY);
        let ends = [rows_end.map(|row| row.oid), waiting_end.copied()];
        let end = ends.into_iter().flatten().min();
        let cost = rows_cost(rows.len() + waiting.len());
        let mut held: BTreeMap<Oid, Held> = BTreeMap::new();
        for oid in waiting {
            held.entry(oid).or_default().waits = true;
        }
        for row in rows {
            let oid = row.oid;
            held.entry(oid).or_default().row = Some(row);
        }
        let mut residents = Residents {
            view: self,
            node: request.peer,
            known: BTreeMap::new(),
        };
        let bytes_max = limits.bytes_max.saturating_sub(Package::EMPTY_BYTES_MAX);
        let (mut bytes, mut last) = (0, None);
        let mut given = RecoveryBatch {
            cost,
            ..RecoveryBatch::default()
        };
        for (oid, of_oid) in held {
            if end.is_some_and(|end| oid > end) {
                break;
            }
            let received = of_oid.row.filter(|row| row.origin.is_some());
            let stored = match &received {
                Some(row) if domain.has_type(travel_type(&self.rows, app, row)?) => {
                    given.cost += OBJECT_COST;
                    self.stored_of(&mut residents, app, row)?
                }
                _ => None,
            };
            let waiting = match of_oid.waits {
                true => {
                    let (highest, cost) = self.waiting_of(&mut residents, &domain.name, &oid)?;
                    given.cost += cost;
                    highest
                }
                false => None,
            };
            let versions: Vec<SignedObject> = stored.into_iter().chain(waiting).collect();
            bytes += versions.iter().map(Package::object_bytes).sum::<usize>();
            let is_full =
                bytes > bytes_max || given.objects.len() + versions.len() > limits.objects_max;
            if is_full && !given.objects.is_empty() {
                given.next = last;
                return Ok(given);
            }
            given.objects.extend(versions);
            last = Some(oid);
        }
        given.next = end;
        Ok(given)
    }

    /// A received object, if its owner lives on the requesting node.
    fn stored_of(
        &self,
        residents: &mut Residents<'_>,
        app: &AppTable,
        row: &ParentRow,
    ) -> Result<Option<SignedObject>, StoreError> {
        if !residents.contain(row.owner)? {
            return Ok(None);
        }
        let (_, signed) = load_object(&self.rows, app, row)?;
        Ok(Some(signed))
    }

    /// The highest waiting version of an object, if its owner lives on the requesting node or that
    /// node sent it, and the processor time. A version of another sender that no key verified is
    /// left out, because its owner may not have made it. The others were verified before they began
    /// to wait.
    fn waiting_of(
        &self,
        residents: &mut Residents<'_>,
        domain: &str,
        oid: &Oid,
    ) -> Result<(Option<SignedObject>, Duration), StoreError> {
        let mut highest: Option<(_, SignedObject)> = None;
        let mut cost = Duration::ZERO;
        for id in self.rows.waiting_of(oid, u32::MAX, VERSIONS_MAX)? {
            let waiting = self
                .rows
                .waiting(id)?
                .filter(|it| it.domain == domain && !it.is_reclaimed);
            let Some(waiting) = waiting else { continue };
            // The owner may have moved to that node, and its record may wait too.
            let is_of_sender =
                waiting.peer == residents.node && matches!(waiting.account, Account::Own);
            if waiting.cause.is_unverified() && !is_of_sender {
                continue;
            }
            let signed = waiting.object;
            cost += OBJECT_COST;
            let Some((owner, rev)) = owner_and_rev(&signed, &self.context.limits.graph) else {
                continue;
            };
            let version = (signed.key_id(), rev);
            let is_highest = highest.as_ref().is_none_or(|(known, _)| version > *known);
            if is_highest && (is_of_sender || residents.contain(owner)?) {
                highest = Some((version, signed));
            }
        }
        Ok((highest.map(|(_, signed)| signed), cost))
    }
}
