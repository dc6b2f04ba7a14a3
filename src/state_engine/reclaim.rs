//! Giving a node back what it once sent, and taking back what peers hold of this one (docs/DECISIONS.md 5).
//!
//! A peer gives back exactly the objects that came from the node that asks, with their owners' signatures. Never trusts a
//! peer with more: what is taken back was signed by a key that this node holds. Invariant: no lower revision wins.

use keys::{CaughtUp, Oid, PeerId, SignedObject, VaultError};

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

/// Rows that are looked at for one answer at most.
const ROWS_AT_ONCE: usize = 4096;

/// A node asks for what it once sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryRequest {
    /// Who asks.
    pub peer: PeerId,
    /// The domain.
    pub domain: String,
    /// The last object that it was given; none at first.
    pub after: Option<Oid>,
}

/// What a node is given back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveryBatch {
    /// The objects as they were signed, by oid.
    pub objects: Vec<SignedObject>,
    /// Where to go on; none: that was all.
    pub next: Option<Oid>,
}

/// What became of objects that a peer gave back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReclaimSummary {
    /// Missing here or older here; written.
    pub written: usize,
    /// Here already.
    pub here: usize,
    /// Deletions that wait for what they delete.
    pub kept: usize,
    /// They refer to objects that are not here (yet).
    pub missing: usize,
    /// Not ours, not signed by us, or contradicting what is here.
    pub refused: usize,
}

impl std::ops::AddAssign for ReclaimSummary {
    fn add_assign(&mut self, other: Self) {
        self.written += other.written;
        self.here += other.here;
        self.kept += other.kept;
        self.missing += other.missing;
        self.refused += other.refused;
    }
}

impl ReclaimSummary {
    /// One line of log for an answer at most, whatever is in it.
    fn refuse(&mut self, fault: &Fault) {
        if self.refused == 0 {
            tracing::warn!(
                code = fault.code(),
                "refused objects that a peer gave back; the first is"
            );
        }
        self.refused += 1;
    }
}

impl View<'_> {
    /// What that peer once sent in a domain, a part at a time. Empty for a domain that is not shared.
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
        let rows = self.rows.by_oid(app, request.after, ROWS_AT_ONCE)?;
        let is_all = rows.len() < ROWS_AT_ONCE;
        let (mut given, mut bytes, mut last) = (RecoveryBatch::default(), 0, None);
        for row in rows {
            if row.origin == Some(origin) && domain.has_type(row.type_number) {
                let (_, signed) = load_object(&self.rows, app, &row)?;
                let room = limits.bytes_max.saturating_sub(Package::EMPTY_BYTES_MAX);
                bytes += Package::object_bytes(&signed);
                let is_full = bytes > room || given.objects.len() >= limits.objects_max;
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
    /// Takes back objects of this node's own, in one transaction. What refers to objects that are not here is counted as
    /// missing: it is asked for again when those have come.
    pub fn reclaim(
        &mut self,
        now: Timestamp,
        objects: Vec<SignedObject>,
    ) -> Result<ReclaimSummary, StoreError> {
        let mut taken = ReclaimSummary::default();
        let mut waiting = Vec::with_capacity(objects.len());
        for object in objects {
            match self.check_own(object) {
                Ok(verified) => waiting.push(verified),
                Err(fault) => taken.refuse(&fault),
            }
        }
        self.write(now, |graph| {
            // What refers to others of the same answer finds them in the next round.
            loop {
                let before = waiting.len();
                let mut again = Vec::new();
                for object in std::mem::take(&mut waiting) {
                    match graph.reclaim(&object) {
                        Ok(ReclaimOutcome::Written) => taken.written += 1,
                        Ok(ReclaimOutcome::AlreadyStored) => taken.here += 1,
                        Ok(ReclaimOutcome::TombstoneKept) => taken.kept += 1,
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

    /// An object that an identity signed whose key is held here, whatever the number of that key.
    fn check_own(&mut self, object: SignedObject) -> Result<VerifiedObject, Fault> {
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

    /// An identity's own record may know of a rotation that the restored vault does not.
    fn catch_up(&mut self, decoded: &DecodedObject) -> Result<(), Fault> {
        let Some(chain) = decoded.own_chain() else {
            return Ok(());
        };
        let keys = self.context.keys.clone();
        match keys.catch_up(decoded.oid(), &chain, &mut *self.rng) {
            Ok(CaughtUp::Same) => Ok(()),
            Ok(CaughtUp::Adopted) => {
                let why = "its key was rotated after the backup: the vault had that key, the one after it is lost";
                tracing::warn!(identity = %decoded.oid(), why);
                Ok(())
            }
            Ok(CaughtUp::Lost) => {
                let why = "its key was rotated after the backup, and that key is not in it: it cannot sign any more";
                tracing::error!(identity = %decoded.oid(), why);
                Err(Fault::OldKey)
            }
            Err(VaultError::UnknownIdentity(_)) => {
                let why = "an identity of this node's that is not in its vault: it was made after the backup, and its keys are lost";
                tracing::error!(identity = %decoded.oid(), why);
                Err(Fault::Denied(Denied::OwnerNotHere))
            }
            Err(error) => {
                tracing::error!(identity = %decoded.oid(), %error, "a peer gave back a record with another key chain");
                Err(Fault::ChainForked)
            }
        }
    }
}
