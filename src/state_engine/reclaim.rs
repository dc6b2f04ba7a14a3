//! Reclaiming after a restore, on both sides: a peer returns a node's objects, and the restored
//! node applies them (docs/DECISIONS.md 5).
//!
//! A peer returns exactly the objects that it received from the requesting node, with their owners'
//! signatures. Invariants: a reclaimed object was signed by a key that this node holds; no lower
//! revision replaces a higher one. Tested in `tests/net/restore.rs` and
//! `tests/net/hostile_restore.rs`.

use keys::{CaughtUp, Oid, PeerId, SignedObject, VaultError, error_chain};

use super::engine::StateEngine;
use super::package::Package;
use super::view::View;
use crate::acl::Denied;
use crate::graph::{
    ApplyError, DecodedObject, Fault, KnownKeys, ReclaimOutcome, VerifiedObject, decode_object,
    load_object,
};
use crate::op_context::Timestamp;
use crate::store::StoreError;

/// Largest number of rows that are read for one reply, so that a read ends soon.
const ROWS_PER_REPLY: usize = 4096;

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
    /// The objects as they were signed, in the order of their oids.
    pub objects: Vec<SignedObject>,
    /// `after` of the next request; `None` after the last batch.
    pub next: Option<Oid>,
}

/// Counts of the results for the objects that a peer returned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReclaimSummary {
    /// The object was missing or had a lower revision, and was written.
    pub written: usize,
    /// The same or a later revision was stored already.
    pub already_stored: usize,
    /// The object refers to one that is not stored yet.
    pub missing: usize,
    /// The object does not belong to this node, or contradicts the stored one.
    pub refused: usize,
}

impl std::ops::AddAssign for ReclaimSummary {
    fn add_assign(&mut self, other: Self) {
        self.written += other.written;
        self.already_stored += other.already_stored;
        self.missing += other.missing;
        self.refused += other.refused;
    }
}

impl ReclaimSummary {
    /// Counts a refused object. Logs the first one only, so that a reply causes at most one line.
    fn refuse(&mut self, fault: &Fault) {
        if self.refused == 0 {
            tracing::warn!(
                code = fault.code(),
                "refused an object that a peer returned; further ones are not logged"
            );
        }
        self.refused += 1;
    }
}

impl View<'_> {
    /// The next part of the objects that a peer sent in a domain. Empty for a domain that is not
    /// shared.
    pub fn recovery_batch(&self, request: &RecoveryRequest) -> Result<RecoveryBatch, StoreError> {
        let limits = &self.context.limits.package;
        let known = self.rows.peer(&request.peer)?;
        let shared = known.is_some_and(|known| known.domains.contains(&request.domain));
        let domain = self
            .context
            .schemas
            .domain(&request.domain)
            .filter(|_| shared);
        let (Some(domain), Some(origin)) = (domain, self.rows.peer_number(&request.peer)?) else {
            return Ok(RecoveryBatch::default());
        };
        let app = self.rows.apps().get(&domain.app);
        let app = app.ok_or(StoreError::Inconsistent("a domain without tables"))?;
        let rows = self.rows.by_oid(app, request.after, ROWS_PER_REPLY)?;
        let is_all = rows.len() < ROWS_PER_REPLY;
        let (mut given, mut bytes, mut last) = (RecoveryBatch::default(), 0, None);
        for row in rows {
            if row.origin == Some(origin) && domain.has_type(row.type_number) {
                let (_, signed) = load_object(&self.rows, app, &row)?;
                let bytes_max = limits.bytes_max.saturating_sub(Package::EMPTY_BYTES_MAX);
                bytes += Package::object_bytes(&signed);
                let is_full = bytes > bytes_max || given.objects.len() >= limits.objects_max;
                if is_full && !given.objects.is_empty() {
                    given.next = last;
                    return Ok(given);
                }
                given.objects.push(signed);
            }
            last = Some(row.oid);
        }
        given.next = last.filter(|_| !is_all);
        Ok(given)
    }
}

impl StateEngine {
    /// Reclaims objects of this node in one transaction. An object that refers to a missing one is
    /// counted as missing, and is requested again later.
    pub fn reclaim(
        &mut self,
        now: Timestamp,
        objects: Vec<SignedObject>,
    ) -> Result<ReclaimSummary, StoreError> {
        let mut taken = ReclaimSummary::default();
        let mut waiting = Vec::with_capacity(objects.len());
        for object in objects {
            match self.verify_own(object) {
                Ok(verified) => waiting.push(verified),
                Err(fault) => taken.refuse(&fault),
            }
        }
        self.write(now, |graph| {
            // An object that refers to another one of the same batch is applied in a later round.
            loop {
                let before = waiting.len();
                let mut again = Vec::new();
                for object in std::mem::take(&mut waiting) {
                    match graph.reclaim(&object) {
                        Ok(ReclaimOutcome::Written) => taken.written += 1,
                        Ok(ReclaimOutcome::AlreadyStored) => taken.already_stored += 1,
                        Err(ApplyError::Fault(Fault::Missing(_))) => again.push(object),
                        Err(ApplyError::Fault(fault)) => taken.refuse(&fault),
                        Err(ApplyError::Store(error)) => return Err(error),
                    }
                }
                waiting = again;
                if waiting.is_empty() || waiting.len() == before {
                    taken.missing = waiting.len();
                    return Ok(taken);
                }
            }
        })
    }

    /// Verifies that a local identity signed the object, with any key of its chain.
    fn verify_own(&mut self, object: SignedObject) -> Result<VerifiedObject, Fault> {
        let limits = self.context.limits.graph;
        let key_id = object.key_id();
        let decoded = decode_object(object, &limits)?;
        let owner = decoded.owner();
        self.catch_up(&decoded)?;
        let chain = self.context.keys.identity_chain(owner);
        let chain = chain.ok_or(Fault::Denied(Denied::OwnerNotHere))?;
        let chain = chain.verify().map_err(|_| Fault::OldKey)?;
        let key = chain.key(key_id).ok_or(Fault::OldKey)?;
        let mut known = KnownKeys::default();
        known.insert(owner, key_id, key);
        decoded.verify(&known).map_err(|(fault, _)| fault)
    }

    /// Updates the vault from an identity's record, which may contain a rotation that the restored
    /// vault does not know.
    fn catch_up(&mut self, decoded: &DecodedObject) -> Result<(), Fault> {
        let Some(chain) = decoded.own_chain() else {
            return Ok(());
        };
        let keys = self.context.keys.clone();
        match keys.catch_up(decoded.oid(), &chain, &mut *self.rng) {
            Ok(CaughtUp::Same) => Ok(()),
            Ok(CaughtUp::Adopted) => {
                tracing::warn!(
                    identity = %decoded.oid(),
                    "the key was rotated after the backup; the vault holds the new key, but the \
                     key after it is lost"
                );
                Ok(())
            }
            Ok(CaughtUp::Lost) => {
                tracing::error!(
                    identity = %decoded.oid(),
                    "the key was rotated after the backup, and the backup does not contain the \
                     new key; the identity can no longer sign"
                );
                Err(Fault::OldKey)
            }
            Err(VaultError::UnknownIdentity(_)) => {
                tracing::error!(
                    identity = %decoded.oid(),
                    "a peer returned an identity that was created after the backup; its keys are \
                     lost"
                );
                Err(Fault::Denied(Denied::OwnerNotHere))
            }
            Err(error) => {
                tracing::error!(
                    identity = %decoded.oid(),
                    error = %error_chain(&error),
                    "a peer returned an identity record with another key chain"
                );
                Err(Fault::ChainForked)
            }
        }
    }
}
