//! Packages in: one transaction applies the objects and moves the cursor (docs/STORY.md 2.1 step 8,
//! docs/DECISIONS.md 7).
//!
//! A fault of the package undoes everything. A fault of one object rejects it or makes it wait, and
//! the others are applied. Invariants: no window is applied twice or over a gap; the inbound cursor
//! is the last sequence number whose objects are committed. Tested in `tests/core/packages.rs`.

use keys::{Epoch, Oid, PeerId, SignedObject};

use super::checked::{CheckedObject, check_objects, known_keys};
use super::engine::StateEngine;
use super::limits::CoreLimits;
use super::package::{VerifiedPackage, Window};
use super::quota::{QuotaFault, QuotaLedger};
use crate::graph::{
    Applied, ApplyError, DecodedObject, Fault, GraphManager, KnownKeys, decode_object,
};
use crate::op_context::{AppId, OpContext, Timestamp};
use crate::schema::identities;
use crate::store::{Cursor, Direction, Parked, RejectRow, StoreError, SyncStateRow, Usage};

/// The result of applying a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppliedPackage {
    /// The cursor after the package.
    pub last_seq: u64,
    /// Objects in the package.
    pub objects: usize,
    /// Objects written, including waiting ones that this package released.
    pub written: usize,
    /// Objects that were stored already, in this or a later revision.
    pub already_stored: usize,
    /// Objects that wait for another one.
    pub parked: usize,
    /// Objects rejected.
    pub rejected: usize,
}

/// Why a window cannot follow the applied ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowFault {
    /// The window begins after `last_seq + 1`. The sender starts again at `last_seq`.
    #[error("the window leaves a gap after {last_seq}")]
    Gap {
        /// The cursor.
        last_seq: u64,
    },
}

/// Why a package was not applied. Neither rows nor cursor changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyPackageError {
    /// The window does not follow the applied ones.
    #[error(transparent)]
    Window(#[from] WindowFault),
    /// The peer was never admitted.
    #[error("the sender is not a known peer")]
    UnknownPeer,
    /// The peer's key chain does not continue the known one: it uses an old key or a forked chain.
    #[error("the peer's key chain does not continue the known one")]
    StaleKeys,
    /// The peer, or its whole tier, would store more than its quota.
    #[error(transparent)]
    Quota(#[from] QuotaFault),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The origin of a package, for each of its objects.
struct PackageSource<'s> {
    context: OpContext,
    peer: PeerId,
    /// The peer's local number.
    origin: i64,
    domain: &'s str,
    epoch: Epoch,
    seq: u64,
}

impl<'s> PackageSource<'s> {
    /// Returns `None` if the peer is not known.
    fn find(
        graph: &GraphManager<'_>,
        peer: PeerId,
        domain: &'s str,
        epoch: Epoch,
        seq: u64,
    ) -> Result<Option<Self>, StoreError> {
        let tx = graph.tx();
        let Some(known) = tx.peer(&peer)? else {
            return Ok(None);
        };
        let (server, number) = (tx.identity(&known.server_oid)?, tx.peer_number(&peer)?);
        let app = graph
            .schemas()
            .domain(domain)
            .and_then(|domain| tx.apps().get(&domain.app));
        Ok(server.zip(number).map(|(server, origin)| Self {
            context: OpContext::Remote {
                requester_pubkey_attr_id: server.pubkey_attr_id,
                app_id: app.map_or(AppId(0), |app| app.id),
                trace_id: graph.trace(),
                peer,
                sync_domain: domain.to_owned(),
            },
            peer,
            origin,
            domain,
            epoch,
            seq,
        }))
    }
}

impl StateEngine {
    /// Applies a package whose objects were verified. A window that was applied before is only
    /// acknowledged.
    pub fn apply_package(
        &mut self,
        now: Timestamp,
        package: &VerifiedPackage,
        objects: Vec<CheckedObject>,
    ) -> Result<AppliedPackage, ApplyPackageError> {
        let peer = package.sender();
        let cursor = Cursor {
            peer: &peer,
            domain: package.domain(),
            direction: Direction::In,
        };
        let Window { from_seq, to_seq } = package.window();
        let state = self
            .view()
            .rows
            .sync_state(cursor)?
            .filter(|state| state.epoch == package.epoch());
        let last_seq = state.map_or(0, |state| state.last_seq);
        if to_seq <= last_seq {
            return Ok(AppliedPackage {
                last_seq,
                objects: objects.len(),
                already_stored: objects.len(),
                ..AppliedPackage::default()
            });
        }
        if from_seq > last_seq + 1 {
            return Err(WindowFault::Gap { last_seq }.into());
        }
        let count = objects.len();
        let limits = self.context.limits;
        self.write(now, |graph| {
            let source =
                PackageSource::find(graph, peer, package.domain(), package.epoch(), to_seq)?;
            let source = source.ok_or(ApplyPackageError::UnknownPeer)?;
            let tx = graph.tx();
            let done = PackageIngest::new(graph, limits)?.apply_all(&source, objects)?;
            tx.put_sync_state(
                cursor,
                &SyncStateRow {
                    epoch: package.epoch(),
                    last_seq: to_seq,
                    acked_seq: to_seq,
                },
            )?;
            Ok(AppliedPackage {
                last_seq: to_seq,
                objects: count,
                ..done
            })
        })
    }

    /// Applies identity objects that arrived in a handshake, before the first pull brings the same
    /// ones (docs/DECISIONS.md 6).
    pub fn apply_identities(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        epoch: Epoch,
        objects: Vec<CheckedObject>,
    ) -> Result<AppliedPackage, ApplyPackageError> {
        let limits = self.context.limits;
        self.write(now, |graph| {
            let source = PackageSource::find(graph, peer, identities::DOMAIN, epoch, 0)?;
            let source = source.ok_or(ApplyPackageError::UnknownPeer)?;
            PackageIngest::new(graph, limits)?.apply_all(&source, objects)
        })
    }
}

/// Applies the objects of one transaction one after the other.
struct PackageIngest<'a, 'g> {
    graph: &'a mut GraphManager<'g>,
    limits: CoreLimits,
    quotas: QuotaLedger,
    done: AppliedPackage,
    /// Written objects for which others may wait.
    arrived: Vec<Oid>,
    /// Whether any object waits; `false` saves the lookups.
    waiting: bool,
}

impl<'a, 'g> PackageIngest<'a, 'g> {
    fn new(graph: &'a mut GraphManager<'g>, limits: CoreLimits) -> Result<Self, StoreError> {
        let waiting = graph.tx().is_any_parked()?;
        Ok(Self {
            graph,
            limits,
            quotas: QuotaLedger::new(limits.quotas),
            done: AppliedPackage::default(),
            arrived: Vec::new(),
            waiting,
        })
    }

    /// Applies all objects of one package and charges the quotas.
    fn apply_all(
        mut self,
        source: &PackageSource<'_>,
        objects: Vec<CheckedObject>,
    ) -> Result<AppliedPackage, ApplyPackageError> {
        for object in objects {
            let stored = self.apply_one(source, object)?;
            self.quotas
                .count(self.graph.tx(), &source.peer, &stored)??;
            self.apply_waiting()?;
        }
        self.quotas.settle(self.graph.tx())?;
        Ok(self.done)
    }

    /// Writes one object, makes it wait or rejects it. Returns the change of the stored bytes and
    /// objects.
    fn apply_one(
        &mut self,
        source: &PackageSource<'_>,
        object: CheckedObject,
    ) -> Result<Usage, StoreError> {
        let (oid, fault, signed) = match self.verify_again(object)? {
            CheckedObject::Verified(verified) => {
                let applied = self
                    .graph
                    .apply_message(&source.context, &verified, source.origin);
                if let Some(code) = applied.as_ref().ok().and_then(Applied::code) {
                    self.record(source, Some(verified.object().oid), code)?;
                }
                match applied {
                    Ok(Applied::Written { replaced, .. }) => {
                        self.done.written += 1;
                        if self.waiting {
                            self.arrived.push(verified.object().oid);
                        }
                        let mut stored = Usage::one(verified.signed_len());
                        if let Some(bytes) = replaced {
                            stored += -Usage::one(bytes);
                        }
                        return Ok(stored);
                    }
                    Ok(Applied::AlreadyStored | Applied::Older | Applied::Forked) => {
                        self.done.already_stored += 1;
                        return Ok(Usage::default());
                    }
                    Err(ApplyError::Store(error)) => return Err(error),
                    Err(ApplyError::Fault(fault)) => (
                        Some(verified.object().oid),
                        fault,
                        Some(verified.into_signed()),
                    ),
                }
            }
            CheckedObject::Failed {
                oid,
                fault,
                decoded,
            } => (oid, fault, decoded.map(DecodedObject::into_signed)),
        };
        match (fault, oid, signed) {
            (Fault::Missing(missing), Some(oid), Some(object)) => {
                self.park(source, oid, missing, object)
            }
            (fault, oid, _) => self.reject(source, oid, &fault).map(|()| Usage::default()),
        }
    }

    /// Verifies an object again whose owner or owner's key was missing. The missing one may have
    /// been written since the first verification, and nothing would release an object that waits
    /// for it.
    fn verify_again(&self, object: CheckedObject) -> Result<CheckedObject, StoreError> {
        match object {
            CheckedObject::Failed {
                fault: Fault::Missing(_) | Fault::OldKey,
                decoded: Some(decoded),
                ..
            } => {
                let known = self.keys_of(&[decoded.owner()])?;
                Ok(CheckedObject::verify(decoded, &known))
            }
            object => Ok(object),
        }
    }

    /// Makes an object wait. Waiting objects count as stored at once, so that no quota can block
    /// their release.
    fn park(
        &mut self,
        source: &PackageSource<'_>,
        oid: Oid,
        missing: Oid,
        object: SignedObject,
    ) -> Result<Usage, StoreError> {
        if self.graph.tx().parked_count(&source.peer)? >= self.limits.aside.parked_per_peer_max {
            self.reject(source, Some(oid), &Fault::NoRoom)?;
            return Ok(Usage::default());
        }
        let (peer, domain) = (source.peer, source.domain.to_owned());
        let parked = Parked {
            id: 0,
            peer,
            domain,
            epoch: source.epoch,
            seq: source.seq,
            oid,
            missing,
            object,
        };
        self.done.parked += 1;
        self.waiting = true;
        let is_new = self.graph.tx().park(&parked, self.graph.now())?;
        Ok(if is_new {
            Usage::one(parked.object.bytes().len())
        } else {
            Usage::default()
        })
    }

    /// Records a rejected object.
    fn reject(
        &mut self,
        source: &PackageSource<'_>,
        oid: Option<Oid>,
        fault: &Fault,
    ) -> Result<(), StoreError> {
        self.done.rejected += 1;
        self.record(source, oid, fault.code())
    }

    /// Records a rejected object, or one that forked.
    fn record(
        &self,
        source: &PackageSource<'_>,
        oid: Option<Oid>,
        code: &str,
    ) -> Result<(), StoreError> {
        tracing::debug!(
            app_id = source.context.app_id().0,
            trace_id = %source.context.trace_id(),
            domain = source.domain,
            oid = oid.map(tracing::field::display),
            code,
            "recorded an object of a package as rejected or forked"
        );
        let reject = RejectRow {
            peer: source.peer,
            domain: source.domain.to_owned(),
            epoch: source.epoch,
            seq: source.seq,
            oid,
            code: code.to_owned(),
            at: self.graph.now(),
        };
        self.graph
            .tx()
            .put_reject(&reject, self.limits.aside.rejects_per_peer_max)
    }

    /// Applies objects that waited for written ones. Each of them may release others in turn. They
    /// were charged when they began to wait, so no quota can make this package fail, in particular
    /// not another peer's.
    fn apply_waiting(&mut self) -> Result<(), ApplyPackageError> {
        while let Some(arrived) = self.arrived.pop() {
            // Loaded one at a time, because together they may be as large as all waiting objects.
            for id in self.graph.tx().parked_for(&arrived)? {
                let Some(parked) = self.graph.tx().parked(id)? else {
                    continue;
                };
                self.graph.tx().unpark(id)?;
                let mut stored = -Usage::one(parked.object.bytes().len());
                let peer = parked.peer;
                let source = PackageSource::find(
                    self.graph,
                    parked.peer,
                    &parked.domain,
                    parked.epoch,
                    parked.seq,
                )?;
                let Some(source) = source else { continue };
                let decoded = decode_object(parked.object, self.graph.limits());
                let owner = decoded.as_ref().ok().map(DecodedObject::owner);
                let known = self.keys_of(owner.as_slice())?;
                for object in check_objects(vec![decoded], &known) {
                    stored += self.apply_one(&source, object)?;
                }
                self.quotas.count(self.graph.tx(), &peer, &stored)??;
            }
        }
        Ok(())
    }

    fn keys_of(&self, owners: &[Oid]) -> Result<KnownKeys, StoreError> {
        known_keys(self.graph.tx(), owners)
    }
}
