//! `AclManager`: decides who may write an object. Pure rules over facts, at the three points that
//! the story names (docs/STORY.md 6, docs/DECISIONS.md 4).
//!
//! `graph` gathers the facts, and this module loads nothing. `store::select` decides what a peer
//! may read, by the same readers. Invariant: a [`Granted`] comes from a rule that allowed the write
//! of the one object that it names. Every function that writes rows demands one. Tested in
//! `tests.rs` by tables.

mod moved;

use keys::Oid;

use crate::domain::Mode;
use crate::op_context::OpContext;

/// Permission to write one object, once.
#[derive(Debug)]
pub struct Granted {
    oid: Oid,
}

impl Granted {
    /// The object that may be written.
    pub fn oid(&self) -> Oid {
        self.oid
    }
}

/// The home of an object's owner, from the view of the node that applies the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// On this node.
    Local,
    /// On the sending node.
    Sender,
    /// On a third node.
    Elsewhere,
}

/// The right of the owner in the object's scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScopeRight {
    /// The scope has no participants, or the object names them itself: any owner may write.
    Open,
    /// The owner is a participant of the scope.
    Participant,
    /// The owner is not a participant of the scope.
    Outsider,
    /// The object is a rights list, and its author does not own the scope.
    OtherOwner,
    /// The object is a `leave` of the owner of the scope.
    ScopeOwner,
    /// The scope ended, because its Parent was deleted.
    Ended,
}

impl ScopeRight {
    /// Whether the right permits a write. A scope that ended is judged apart.
    fn permits(self) -> Result<(), Denied> {
        match self {
            Self::Open | Self::Participant | Self::Ended => Ok(()),
            Self::Outsider => Err(Denied::NotParticipant),
            Self::OtherOwner => Err(Denied::NotScopeOwner),
            Self::ScopeOwner => Err(Denied::ScopeOwnerStays),
        }
    }
}

/// How an object compares with the stored one. The order is the same in all modes
/// (docs/DECISIONS.md 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// The stored one is another object of that oid: its type, owner, salt or place differ. The oid
    /// covers them, so that someone found two preimages of one oid.
    Conflict,
    /// Both have the same bytes.
    Same,
    /// The stored object wins.
    Older,
    /// The object wins, by its key number, as a tombstone, or by its revision.
    Later,
    /// All are equal except the bytes: a fork.
    Fork {
        /// Whether the object's bytes have the lower SHA-256.
        wins: bool,
    },
}

/// Facts about the stored object that a local write would replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// Its owner.
    pub owner: Oid,
    /// Whether its owner deleted it.
    pub deleted: bool,
}

/// Facts about the stored object of the same oid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Existing {
    /// Whether it was made on this node.
    pub is_local: bool,
    /// How the object to be written compares with it.
    pub precedence: Precedence,
}

/// Facts for `check_access`: a local write.
#[derive(Debug, Clone, Copy)]
pub struct LocalFacts {
    /// Oid of the object.
    pub oid: Oid,
    /// Its owner.
    pub owner: Oid,
    /// The identity behind the requester's key.
    pub requester: Option<Oid>,
    /// Whether the owner's home is this node.
    pub owner_at_home: bool,
    /// Whether the owner is retired.
    pub owner_retired: bool,
    /// Whether the owner is frozen.
    pub owner_frozen: bool,
    /// The owner's right in the scope.
    pub scope_right: ScopeRight,
    /// Mode of the domain in which the type travels. `None`: the type is local.
    pub mode: Option<Mode>,
    /// The stored object that the write replaces, if there is one.
    pub replaces: Option<Replaced>,
}

/// Facts for `check_remote_write`: one object of a verified package.
#[derive(Debug, Clone, Copy)]
pub struct RemoteFacts {
    /// Oid of the object.
    pub oid: Oid,
    /// Its revision.
    pub rev: u64,
    /// Whether the object is a tombstone.
    pub deleted: bool,
    /// Mode of the package's domain. `None`: the domain does not contain the object's type.
    pub mode: Option<Mode>,
    /// The home of the owner.
    pub owner_home: Home,
    /// Whether it is public. A peer sends public objects of its own identities only.
    pub is_public: bool,
    /// The owner's right in the scope.
    pub scope_right: ScopeRight,
    /// The stored object, if there is one.
    pub existing: Option<Existing>,
}

/// Facts for `check_reclaim`: an object of this node that a peer returns after a restore.
#[derive(Debug, Clone, Copy)]
pub struct ReclaimFacts {
    /// Oid of the object.
    pub oid: Oid,
    /// Its revision.
    pub rev: u64,
    /// Whether the object is a tombstone.
    pub deleted: bool,
    /// Whether this node holds the owner's key.
    pub owner_here: bool,
    /// Whether the key that signed was rotated before the backup. The backup contains every live
    /// object that such a key signed, so this object was signed with a stolen key.
    pub key_is_old: bool,
    /// Mode of the domain in which the type travels. `None`: the type is local.
    pub mode: Option<Mode>,
    /// The stored object, if there is one.
    pub existing: Option<Existing>,
}

/// Why a write is refused. [`Denied::code`] is recorded, and a peer may receive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// A local operation reached the rule for remote ones, or the reverse.
    #[error("the rule does not apply to a {0} operation")]
    WrongContext(&'static str),
    /// The domain does not contain objects of this type.
    #[error("the type does not belong to the domain")]
    TypeNotInDomain,
    /// A peer sent a change of an object that was made on this node.
    #[error("a peer may not change an object that was made on this node")]
    LocalObject,
    /// The object names another owner than the stored one. The owner of an object never changes.
    #[error("the object has another owner")]
    OwnerChanged,
    /// Another object with the same oid is stored.
    #[error("another object with the same oid is stored: their digests collide")]
    OidConflict,
    /// The object is public, and the sender is not the home of the owner.
    #[error("the sender is not the home of the owner")]
    OwnerNotAtSender,
    /// This node is not the home of the owner.
    #[error("this node is not the home of the owner")]
    OwnerNotHere,
    /// The owner is retired.
    #[error("its owner is retired and writes no more objects")]
    OwnerRetired,
    /// The owner is frozen.
    #[error("its owner is frozen because two homes claim it; rotate its key")]
    OwnerFrozen,
    /// The requester is not the owner.
    #[error("only its owner may write the object")]
    NotOwner,
    /// The author is not a participant of the scope.
    #[error("the author is not a participant")]
    NotParticipant,
    /// The author of a rights list does not own the scope.
    #[error("only the owner of a scope may write its rights lists")]
    NotScopeOwner,
    /// The owner of a scope cannot leave it, and keeps both rights.
    #[error("the owner of a scope cannot leave it; it can delete it")]
    ScopeOwnerStays,
    /// The mode of the domain does not allow an update or a deletion.
    #[error("the domain's mode does not allow an update")]
    Mode,
    /// The key that signed has been rotated.
    #[error("the key that signed the object has been rotated")]
    OldKey,
    /// The object was deleted. A deletion is final.
    #[error("the object was deleted")]
    Deleted,
    /// The scope of the object ended, because its Parent was deleted.
    #[error("the object's scope ended: its Parent was deleted")]
    ScopeEnded,
}

impl Denied {
    /// The stable code of the reason.
    pub fn code(self) -> &'static str {
        match self {
            Self::WrongContext(_) => "wrong_context",
            Self::TypeNotInDomain => "type_not_in_domain",
            Self::LocalObject => "local_object",
            Self::OwnerChanged => "owner_changed",
            Self::OidConflict => "oid_conflict",
            Self::OwnerNotAtSender => "owner_not_at_sender",
            Self::OwnerNotHere => "owner_not_here",
            Self::OwnerRetired => "owner_retired",
            Self::OwnerFrozen => "owner_frozen",
            Self::NotOwner => "not_owner",
            Self::NotParticipant => "not_participant",
            Self::NotScopeOwner => "not_scope_owner",
            Self::ScopeOwnerStays => "scope_owner_stays",
            Self::Mode => "mode",
            Self::OldKey => "old_key",
            Self::Deleted => "deleted",
            Self::ScopeEnded => "scope_ended",
        }
    }
}

/// The decision on a remote object that is not refused.
#[derive(Debug)]
pub enum RemoteWrite {
    /// Write the object.
    Apply(Granted),
    /// The object is stored already. Only a later signature of it may be written.
    AlreadyHere(Granted),
    /// Acknowledge the object and write nothing: a later version is stored, the scope ended, or the
    /// object is this node's own.
    Acknowledge,
    /// Write the object, and record that it forked: the stored one has the same key and revision.
    ForkWon(Granted),
    /// Keep the stored object, and record the fork.
    ForkLost,
}

/// The decision by the stored object alone, in all modes.
fn decide(granted: Granted, precedence: Option<Precedence>) -> Result<RemoteWrite, Denied> {
    Ok(match precedence {
        Some(Precedence::Conflict) => return Err(Denied::OidConflict),
        Some(Precedence::Same) => RemoteWrite::AlreadyHere(granted),
        Some(Precedence::Older) => RemoteWrite::Acknowledge,
        Some(Precedence::Fork { wins: true }) => RemoteWrite::ForkWon(granted),
        Some(Precedence::Fork { wins: false }) => RemoteWrite::ForkLost,
        None | Some(Precedence::Later) => RemoteWrite::Apply(granted),
    })
}

/// Whether a mode has such a version at all. Does not consider the stored object, so that every
/// node judges alike whatever came first.
fn is_valid(mode: Mode, rev: u64, deleted: bool) -> bool {
    mode == Mode::AllowUpdate || (rev == 1 && !deleted)
}

/// The rules. Stateless: each decision depends on its arguments only.
#[doc(alias = "ACLManager")]
#[derive(Debug, Clone, Copy)]
pub struct AclManager;

impl AclManager {
    /// Decides on a local write (docs/STORY.md 6.1).
    ///
    /// The requester must be the owner, with its home on this node. Where the scope has
    /// participants, the owner must be one.
    pub fn check_access(context: &OpContext, facts: &LocalFacts) -> Result<Granted, Denied> {
        if context.is_remote() {
            return Err(Denied::WrongContext("remote"));
        }
        if facts.requester != Some(facts.owner) {
            return Err(Denied::NotOwner);
        }
        if !facts.owner_at_home {
            return Err(Denied::OwnerNotHere);
        }
        if facts.owner_retired {
            return Err(Denied::OwnerRetired);
        }
        if facts.owner_frozen {
            return Err(Denied::OwnerFrozen);
        }
        if facts.scope_right == ScopeRight::Ended {
            return Err(Denied::ScopeEnded);
        }
        facts.scope_right.permits()?;
        if let Some(replaced) = facts.replaces {
            if replaced.owner != facts.owner {
                return Err(Denied::OwnerChanged);
            }
            if replaced.deleted {
                return Err(Denied::Deleted);
            }
            // No peer would accept the change, so the nodes would differ permanently.
            if facts.mode.is_some_and(|mode| mode != Mode::AllowUpdate) {
                return Err(Denied::Mode);
            }
        }
        Ok(Granted { oid: facts.oid })
    }

    /// Decides on a write by a peer (docs/STORY.md 6.3). Considers the mode of the domain, and the
    /// owner's right in the scope. Whether an identity here may read the object does not matter,
    /// because it may become a reader later.
    ///
    /// Any admitted peer may send an object in a scope, because the owner's signature and the
    /// rights list say all. Objects of this node are an exception: it wrote them itself, and
    /// reclaims them after a restore ([`AclManager::check_reclaim`]).
    pub fn check_remote_write(
        context: &OpContext,
        facts: &RemoteFacts,
    ) -> Result<RemoteWrite, Denied> {
        if !context.is_remote() {
            return Err(Denied::WrongContext("local"));
        }
        let mode = facts.mode.ok_or(Denied::TypeNotInDomain)?;
        let granted = Granted { oid: facts.oid };
        let precedence = facts.existing.map(|existing| existing.precedence);
        if precedence == Some(Precedence::Conflict) {
            return Err(Denied::OidConflict);
        }
        let is_older = matches!(precedence, Some(Precedence::Same | Precedence::Older));
        if facts.existing.is_some_and(|existing| existing.is_local) {
            return if is_older {
                Ok(RemoteWrite::Acknowledge)
            } else {
                Err(Denied::LocalObject)
            };
        }
        if !is_valid(mode, facts.rev, facts.deleted) {
            return Err(Denied::Mode);
        }
        if is_older {
            // A waiting form of what is stored would wait for nothing.
            return decide(granted, precedence);
        }
        if facts.is_public && facts.owner_home != Home::Sender {
            return Err(Denied::OwnerNotAtSender);
        }
        match facts.scope_right {
            ScopeRight::Ended => return Ok(RemoteWrite::Acknowledge),
            right => right.permits()?,
        }
        if precedence.is_none() && facts.owner_home == Home::Local {
            return Ok(RemoteWrite::Acknowledge);
        }
        decide(granted, precedence)
    }

    /// Decides on an object of this node that a peer returns after a restore (docs/DECISIONS.md 5).
    ///
    /// Refuses objects that a rotated key signed. The stored object is compared as in a remote
    /// write.
    pub fn check_reclaim(facts: &ReclaimFacts) -> Result<RemoteWrite, Denied> {
        if !facts.owner_here {
            return Err(Denied::OwnerNotHere);
        }
        let mode = facts.mode.ok_or(Denied::TypeNotInDomain)?;
        let precedence = facts.existing.map(|existing| existing.precedence);
        if facts.key_is_old && precedence != Some(Precedence::Same) {
            return Err(Denied::OldKey);
        }
        if !is_valid(mode, facts.rev, facts.deleted) {
            return Err(Denied::Mode);
        }
        decide(Granted { oid: facts.oid }, precedence)
    }

    /// Decides on re-signing an object of this node after a key rotation. Its content must not
    /// change.
    pub fn check_resign(
        oid: Oid,
        owner_at_home: bool,
        existing: &Existing,
    ) -> Result<Granted, Denied> {
        if !owner_at_home {
            return Err(Denied::OwnerNotHere);
        }
        if !existing.is_local || existing.precedence != Precedence::Same {
            return Err(Denied::OwnerChanged);
        }
        Ok(Granted { oid })
    }

    /// Grants a new `change_seq` of a stored object of a peer. Content, key number and signature
    /// stay, so that no right is needed.
    pub fn check_renumber(oid: Oid) -> Granted {
        Granted { oid }
    }

    /// Decides on a rights list that only merges others of its owner, or leaves out identities that
    /// left. The owner and these identities signed what it repeats, so that one of a retired or
    /// frozen owner is written too.
    pub fn check_merge(oid: Oid, owner_at_home: bool) -> Result<Granted, Denied> {
        if owner_at_home {
            Ok(Granted { oid })
        } else {
            Err(Denied::OwnerNotHere)
        }
    }

    /// Decides on dropping the values of an object of a peer. Only the end of its scope permits
    /// that, or that no identity here takes part in the scope.
    pub fn check_drop(oid: Oid, is_permitted: bool) -> Result<Granted, Denied> {
        match is_permitted {
            true => Ok(Granted { oid }),
            false => Err(Denied::NotOwner),
        }
    }

    /// Grants the write of the record of a server or an identity by itself (docs/DECISIONS.md 5).
    ///
    /// The oid of such a record is the digest of the genesis in its key chain. So a verified chain
    /// proves the right to write the record with that oid, and no other.
    pub fn check_self_certified(chain: &keys::VerifiedChain) -> Granted {
        Granted { oid: chain.oid() }
    }
}

#[cfg(test)]
mod tests;
