//! Reclaiming after a restore: a restored node applies its objects that a peer returned
//! (docs/DECISIONS.md 5).
//!
//! Invariants: a reclaimed object was signed by a key that this node holds; no lower version
//! replaces a higher one. Tested in `tests/net/restore.rs`, `tests/net/hostile_restore.rs` and
//! `tests/core/returned.rs`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use keys::{
    CaughtUp, Epoch, KeyManager, Oid, PeerId, PublicKey, SignedObject, VaultError, VerifiedChain,
    error_chain,
};

use super::engine::StateEngine;
use crate::acl::Denied;
use crate::graph::{
    ApplyError, Fault, GraphManager, KnownKeys, ReclaimOutcome, Trial, VerifiedObject,
    decode_object,
};
use crate::op_context::Timestamp;
use crate::store::{Account, Cause, StoreError, WaitingRow};

/// Most that one transaction spends on returned objects ([`GraphManager::spent`]), besides the
/// last one.
const RECLAIMED_SPENT_MAX: usize = 1024;

/// Counts of the results for the objects that a peer returned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReclaimSummary {
    /// The object was missing or had a lower revision, and was written.
    pub written: usize,
    /// The same or a later revision was stored already.
    pub already_stored: usize,
    /// The object waits for another one.
    pub waiting: usize,
    /// The object needs another one, and the peer has the largest number of waiting objects.
    pub missing: usize,
    /// The object needs a later schema than this node has, and was not kept.
    pub later_schema: usize,
    /// The object does not belong to this node, or contradicts the stored one.
    pub refused: usize,
    /// Code of the first refused object.
    pub first_refused: Option<&'static str>,
    /// Records among the refused ones of identities of this node whose present keys it lacks.
    pub lost: usize,
    /// The identity of the first such record.
    pub first_lost: Option<Oid>,
}

impl std::ops::AddAssign for ReclaimSummary {
    fn add_assign(&mut self, other: Self) {
        self.written += other.written;
        self.already_stored += other.already_stored;
        self.waiting += other.waiting;
        self.missing += other.missing;
        self.later_schema += other.later_schema;
        self.refused += other.refused;
        self.first_refused = self.first_refused.or(other.first_refused);
        self.lost += other.lost;
        self.first_lost = self.first_lost.or(other.first_lost);
    }
}

impl ReclaimSummary {
    fn refuse(&mut self, fault: &Fault) {
        self.refused += 1;
        self.first_refused = self.first_refused.or(Some(fault.code()));
    }

    fn lose(&mut self, identity: Oid) {
        self.lost += 1;
        self.first_lost = self.first_lost.or(Some(identity));
    }

    /// Logs what was refused in at most one line, because a peer decides how many objects it
    /// returns.
    pub fn log_refused(&self) {
        let (refused, code) = (self.refused, self.first_refused);
        if let Some(identity) = self.first_lost {
            tracing::error!(
                records = self.lost,
                identity = identity.short(),
                refused,
                "a peer returned records of identities that were created after the backup, or \
                 whose keys were rotated after it; these keys are lost, and the identities can no \
                 longer sign"
            );
        } else if refused > 0 {
            tracing::warn!(refused, code, "refused objects that a peer returned");
        }
    }
}

/// The verified key chains of local identities, so that a batch verifies each once.
#[derive(Debug, Default)]
pub(super) struct OwnChains(BTreeMap<Oid, VerifiedChain>);

impl OwnChains {
    /// The key of a local identity with this number.
    fn key(&mut self, keys: &KeyManager, owner: Oid, key_id: u32) -> Result<PublicKey, Fault> {
        let chain = match self.0.entry(owner) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let chain = keys.identity_chain(owner);
                let chain = chain.ok_or(Fault::Denied(Denied::OwnerNotHere))?;
                new.insert(chain.verify().map_err(|_| Fault::OldKey)?)
            }
        };
        chain.key(key_id).ok_or(Fault::OldKey)
    }
}

/// An object that was not reclaimed, with its oid if its signature is valid.
type NotReclaimed = (Fault, Option<(Oid, SignedObject)>);

/// Reclaims one object that a local identity signed with any key of its chain.
pub(super) fn reclaim_one(
    graph: &mut GraphManager<'_>,
    chains: &mut OwnChains,
    object: SignedObject,
    from: (&PeerId, Trial),
) -> Result<Result<ReclaimOutcome, NotReclaimed>, StoreError> {
    let verified = match verify_own(graph, chains, object) {
        Ok(verified) => verified,
        Err(fault) => return Ok(Err((fault, None))),
    };
    match graph.reclaim(&verified, from) {
        Ok(outcome) => Ok(Ok(outcome)),
        Err(ApplyError::Store(error)) => Err(error),
        Err(ApplyError::Fault(fault)) => {
            let oid = verified.object().oid;
            Ok(Err((fault, Some((oid, verified.into_signed())))))
        }
    }
}

fn verify_own(
    graph: &GraphManager<'_>,
    chains: &mut OwnChains,
    object: SignedObject,
) -> Result<VerifiedObject, Fault> {
    let key_id = object.key_id();
    let decoded = decode_object(object, graph.limits())?;
    let owner = decoded.owner();
    let mut known = KnownKeys::default();
    known.insert(owner, key_id, chains.key(graph.keys(), owner, key_id)?);
    decoded.verify(&known).map_err(|(fault, _)| fault)
}

impl StateEngine {
    /// Reclaims objects of this node that a peer returned, part after part. A session reclaims each
    /// part in a job of its own instead ([`StateEngine::reclaim_some`]).
    pub fn reclaim(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        objects: Vec<SignedObject>,
    ) -> Result<ReclaimSummary, StoreError> {
        let (mut taken, mut rest) = (ReclaimSummary::default(), VecDeque::from(objects));
        while !rest.is_empty() {
            taken += self.reclaim_some(now, peer, &mut rest)?;
            self.bound_log()?;
        }
        Ok(taken)
    }

    /// Reclaims objects of this node that a peer returned, in one transaction, until it has done
    /// enough; those that are left stay in `rest`. The caller passes few at a time, because the
    /// signatures of all are verified. An object that refers to a missing one waits for it, as far
    /// as the peer has room.
    pub fn reclaim_some(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        rest: &mut VecDeque<SignedObject>,
    ) -> Result<ReclaimSummary, StoreError> {
        let mut taken = ReclaimSummary::default();
        rest.retain(|object| match self.catch_up(object, &mut taken) {
            Ok(()) => true,
            Err(fault) => {
                taken.refuse(&fault);
                false
            }
        });
        let waiting_max = self.context.limits.aside.waiting_per_peer_max;
        self.write(now, |graph| {
            let (mut chains, tx) = (OwnChains::default(), graph.tx());
            let mut room = waiting_max.saturating_sub(tx.waiting_count(&peer)?.reclaimed);
            while let Some(object) = rest.pop_front() {
                match reclaim_one(graph, &mut chains, object, (&peer, Trial::Arrived))? {
                    Ok(ReclaimOutcome::Written) => taken.written += 1,
                    Ok(ReclaimOutcome::AlreadyStored) => taken.already_stored += 1,
                    // The peer keeps it, and is asked again after this node's upgrade.
                    Err((Fault::Waits(Cause::Schema(..)), _)) => taken.later_schema += 1,
                    Err((Fault::Waits(cause), Some((oid, object)))) => {
                        let waiting = WaitingRow {
                            id: 0,
                            peer,
                            domain: String::new(),
                            epoch: Epoch::from_bytes([0; 16]),
                            seq: 0,
                            oid,
                            cause,
                            is_reclaimed: true,
                            account: Account::Own,
                            object,
                        };
                        if !tx.is_waiting(&waiting)? {
                            if room == 0 {
                                taken.missing += 1;
                                continue;
                            }
                            graph.put_waiting(&waiting)?;
                            room -= 1;
                        }
                        taken.waiting += 1;
                    }
                    Err((fault, _)) => taken.refuse(&fault),
                }
                if graph.spent() > RECLAIMED_SPENT_MAX {
                    break;
                }
            }
            Ok(taken)
        })
    }

    /// Updates the vault from an identity's record, which may contain a rotation that the restored
    /// vault does not know.
    fn catch_up(&mut self, object: &SignedObject, taken: &mut ReclaimSummary) -> Result<(), Fault> {
        let decoded = decode_object(object.clone(), &self.context.limits.graph)?;
        let Some(chain) = decoded.own_chain() else {
            return Ok(());
        };
        let keys = self.context.keys.clone();
        match keys.catch_up(decoded.oid(), &chain, &mut *self.rng) {
            Ok(CaughtUp::Same) => Ok(()),
            Ok(CaughtUp::Adopted) => {
                tracing::warn!(
                    identity = decoded.oid().short(),
                    "the key was rotated after the backup; the vault holds the new key, but the \
                     key after it is lost"
                );
                Ok(())
            }
            Ok(CaughtUp::Lost) => {
                taken.lose(decoded.oid());
                Err(Fault::OldKey)
            }
            Err(VaultError::UnknownIdentity(_)) => {
                // A record that names this node as its home proves it: this node signed it too.
                if decoded.home() == Some(keys.peer_id()) {
                    taken.lose(decoded.oid());
                }
                Err(Fault::Denied(Denied::OwnerNotHere))
            }
            Err(error) => {
                tracing::debug!(
                    identity = decoded.oid().short(),
                    error = %error_chain(&error),
                    "a peer returned an identity record with another key chain"
                );
                Err(Fault::ChainForked)
            }
        }
    }
}
