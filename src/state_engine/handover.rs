//! Taking the objects of an identity that moves to this node (docs/DECISIONS.md 10).
//!
//! Input: the objects of `handover_page.rs`, from the file that the old home wrote. Those of the
//! identity become objects of this node. Those of others are judged as if the old home had relayed
//! them. Invariant: a repeated object changes nothing. Tested in `tests/core/moves.rs`.

use std::collections::VecDeque;
use std::ops::AddAssign;

use keys::{KeyChain, Oid, PeerId, SignedObject, VerifiedChain};

use super::checked::{CheckedObject, known_keys};
use super::engine::StateEngine;
use super::source::PackageSource;
use super::view::View;
use crate::acl::Denied;
use crate::graph::{
    AccountRoom, Applied, ApplyError, DecodedObject, Fault, GraphLimits, GraphManager, KnownKeys,
    ObjectFault, TakenOver, VerifiedObject, decode_object, known_server_chain, owner_and_rev,
};
use crate::op_context::Timestamp;
use crate::schema::identities;
use crate::store::{IdentityRow, StoreError, Usage};

/// Most objects of one portion.
const PORTION_OBJECTS_MAX: usize = 64;
/// Most that a portion spends ([`GraphManager::spent`]), besides its last object.
const PORTION_SPENT_MAX: usize = 1024;

/// An identity that moves here, and its old home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveSource {
    /// The identity.
    pub identity: Oid,
    /// The node from which it moves.
    pub old_home: PeerId,
}

/// An object of the file, as far as it could be verified.
#[derive(Debug)]
pub enum MovedObject {
    /// Of the identity. Any key of its chain may have signed it.
    Own(Result<VerifiedObject, Fault>),
    /// Of another owner.
    Other(CheckedObject),
}

/// Why the objects of an identity cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum HandoverFault {
    /// The old home is no peer of this node.
    #[error(
        "the node from which the identity moves is no peer of this node: `postern peer add` on one \
         of the two"
    )]
    UnknownSource,
    /// Objects that the old home sent are being removed.
    #[error(
        "what the old home sent is being removed, so that nothing of it is stored: repeat the \
         command when that has ended"
    )]
    Purging,
    /// A later key or home of the identity is known.
    #[error("a later key or home of the identity is known, so that the file is obsolete")]
    Obsolete,
    /// The chain branches off from the known one.
    #[error("the key chain in the file does not continue the known one")]
    Forked,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Counts of the results for the objects of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HandedOver {
    /// Objects that were missing, or were received ones.
    pub written: usize,
    /// Objects that were here already.
    pub already_here: usize,
    /// Objects that this node cannot store yet, because it lacks an app or another object.
    pub left: usize,
    /// Code of the first one of them.
    pub first_left: Option<&'static str>,
}

impl AddAssign for HandedOver {
    fn add_assign(&mut self, other: Self) {
        self.written += other.written;
        self.already_here += other.already_here;
        self.left += other.left;
        self.first_left = self.first_left.or(other.first_left);
    }
}

impl HandedOver {
    fn leave(&mut self, fault: &Fault) {
        self.left += 1;
        self.first_left = self.first_left.or(Some(fault.code()));
    }
}

impl MovedObject {
    /// Verifies objects of a file. `chain` is the key chain of the identity in it, and `known` the
    /// keys of other owners. Pure.
    pub fn check(
        objects: Vec<SignedObject>,
        chain: &VerifiedChain,
        known: &KnownKeys,
        limits: &GraphLimits,
    ) -> Vec<Self> {
        let decoded = objects.into_iter().map(|it| decode_object(it, limits));
        let decoded: Vec<_> = decoded.collect();
        let mut known = known.clone();
        known.add_own_keys(decoded.iter().flatten());
        let check = |decoded: Result<DecodedObject, ObjectFault>| match decoded {
            Err(fault) => Self::Own(Err(Fault::Object(fault))),
            Ok(decoded) if decoded.owner() != chain.oid() => {
                Self::Other(CheckedObject::verify(decoded, &known))
            }
            Ok(decoded) => {
                let (mut own, key_id) = (KnownKeys::default(), decoded.key_id());
                match chain.key(key_id) {
                    Some(key) => own.insert(chain.oid(), key_id, key),
                    None => return Self::Own(Err(Fault::KeyNumber)),
                }
                Self::Own(decoded.verify(&own).map_err(|(fault, _)| fault))
            }
        };
        decoded.into_iter().map(check).collect()
    }
}

impl View<'_> {
    /// The present keys of the owners of objects, as far as they are known.
    pub fn keys_of(&self, objects: &[SignedObject]) -> Result<KnownKeys, StoreError> {
        let limits = &self.context.limits.graph;
        let owners = objects.iter().filter_map(|it| owner_and_rev(it, limits));
        let mut owners: Vec<Oid> = owners.map(|(owner, _)| owner).collect();
        owners.sort();
        owners.dedup();
        known_keys(&self.rows, &owners)
    }

    /// Checks what this node knows of an identity that moves here, and of its old home. `counter`
    /// is that of the new home in the file.
    pub fn check_handover(
        &self,
        source: &MoveSource,
        (chain, counter): (&KeyChain, u64),
    ) -> Result<(), HandoverFault> {
        let is_own = source.old_home == self.this_node();
        if !is_own && self.rows.peer_number(&source.old_home)?.is_none() {
            return Err(HandoverFault::UnknownSource);
        }
        if self.rows.is_purging(&source.old_home)? {
            return Err(HandoverFault::Purging);
        }
        let Some(known) = known_server_chain(&self.rows, &source.identity)? else {
            return Ok(());
        };
        let here = self.rows.identity(&source.identity)?;
        let is_here = here.is_some_and(|known| known.home == self.this_node());
        if chain.continues(&known) {
            let is_later = |known: &IdentityRow| {
                known.key_id as usize == chain.events.len() && known.home_counter >= counter
            };
            match here.as_ref().is_some_and(is_later) && !is_here {
                true => Err(HandoverFault::Obsolete),
                false => Ok(()),
            }
        } else if known.continues(chain) {
            // Only this node may have rotated the key since.
            match is_here {
                true => Ok(()),
                false => Err(HandoverFault::Obsolete),
            }
        } else {
            Err(HandoverFault::Forked)
        }
    }
}

impl StateEngine {
    /// Takes some of the objects of an identity that moves here, in one transaction; those that are
    /// left stay in `rest`.
    pub fn take_moved(
        &mut self,
        now: Timestamp,
        source: &MoveSource,
        rest: &mut VecDeque<MovedObject>,
    ) -> Result<HandedOver, StoreError> {
        self.write(now, |graph| {
            let origin = graph.tx().peer_number(&source.old_home)?.unwrap_or(0);
            let (mut taken, mut count) = (HandedOver::default(), 0);
            while let Some(object) = rest.pop_front() {
                let result = match object {
                    MovedObject::Own(Ok(verified)) => {
                        let from = (&source.old_home, origin);
                        graph.take_over(&verified, &source.identity, from)
                    }
                    MovedObject::Own(Err(fault))
                    | MovedObject::Other(CheckedObject::Failed { fault, .. }) => Err(fault.into()),
                    MovedObject::Other(CheckedObject::Verified(verified)) => {
                        take_other(graph, source.old_home, &verified)
                    }
                };
                match result {
                    Ok(TakenOver::Written) => taken.written += 1,
                    Ok(TakenOver::AlreadyHere) => taken.already_here += 1,
                    // A later form is here, or follows.
                    Err(ApplyError::Fault(Fault::OldKey | Fault::OldHome)) => {
                        taken.already_here += 1;
                    }
                    Err(ApplyError::Fault(fault)) => taken.leave(&fault),
                    Err(ApplyError::Store(error)) => return Err(error),
                }
                count += 1;
                if count == PORTION_OBJECTS_MAX || graph.spent() > PORTION_SPENT_MAX {
                    break;
                }
            }
            Ok(taken)
        })
    }
}

/// Applies an object of another owner as if the old home had relayed it.
fn take_other(
    graph: &mut GraphManager<'_>,
    old_home: PeerId,
    verified: &VerifiedObject,
) -> Result<TakenOver, ApplyError> {
    let domain = match verified.record() {
        Some(_) => identities::DOMAIN.to_owned(),
        None => domain_of(graph, verified)?.ok_or(Fault::UnknownType)?,
    };
    let epoch = keys::Epoch::from_bytes([0; keys::Epoch::LEN]);
    let source = PackageSource::find(graph, old_home, &domain, epoch, 0)?;
    let source = match source {
        Some(source) => source,
        // The identity moves back to the node that it leaves.
        None if old_home == graph.keys().peer_id() => return Ok(TakenOver::AlreadyHere),
        // The operator removed the old home meanwhile.
        None => return Err(Fault::Denied(Denied::OwnerNotAtSender).into()),
    };
    let source = match verified.record() {
        Some(_) => source.relayed(),
        None => source.fetched(),
    };
    let arrival = source.arrival(AccountRoom::UNLIMITED);
    match graph.apply_message(&source.context, verified, arrival)? {
        Applied::Written {
            replaced, account, ..
        } => {
            let usage = Usage::one(verified.charged_bytes());
            graph.charge(source.origin, account, &usage)?;
            if let Some(freed) = replaced {
                graph.charge(freed.origin, freed.account, &-Usage::one(freed.bytes))?;
            }
            Ok(TakenOver::Written)
        }
        Applied::Forked {
            kept: Some(account),
        } => {
            let usage = Usage::one(verified.charged_bytes());
            graph.charge(source.origin, account, &usage)?;
            Ok(TakenOver::Written)
        }
        Applied::AlreadyStored | Applied::NoRoom | Applied::Forked { kept: None } => {
            Ok(TakenOver::AlreadyHere)
        }
    }
}

/// A domain in which an object travels. `None`: no app has its type.
fn domain_of(
    graph: &GraphManager<'_>,
    verified: &VerifiedObject,
) -> Result<Option<String>, StoreError> {
    let object = verified.object();
    let Some(app) = graph.tx().apps().get(&object.app) else {
        return Ok(None);
    };
    let type_number = graph.travel_type(app, object)?;
    let domain = graph.schemas().domain_of(&object.app, type_number);
    Ok(domain.map(|domain| domain.name.clone()))
}
