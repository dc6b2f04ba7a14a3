//! AclManager: who may write what. Pure rules over facts, in the story's three places (docs/STORY.md 6, docs/DECISIONS.md 4).
//!
//! Never loads anything: `graph` gathers the facts. What a peer may read is decided where rows are selected
//! (`store::select`), by the same readers. Invariant: a [`Granted`] comes from a rule that said yes, names the one
//! object that it is for, and every function that writes rows demands one.

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

/// Where an object's owner lives, seen from an applying node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// On this node: "ours".
    Here,
    /// On the node that sends: "theirs".
    Sender,
    /// On a third node.
    Elsewhere,
}

/// What the owner may do in the object's scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScopeRight {
    /// The type has no readers' list, or names its own: nothing to be a member of.
    Open,
    /// The owner is among the scope's participants.
    Participant,
    /// The owner is not.
    Outsider,
}

/// What is known of an object that is here already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Existing {
    /// Its owner.
    pub owner: Oid,
    /// Its revision.
    pub rev: u64,
    /// Whether it was made on this node.
    pub made_here: bool,
    /// Whether its owner deleted it.
    pub deleted: bool,
    /// Whether it equals what is to be written, byte by byte.
    pub same: bool,
}

/// What `check_access` decides on: a local write.
#[derive(Debug, Clone, Copy)]
pub struct LocalFacts {
    /// The object.
    pub oid: Oid,
    /// Its owner.
    pub owner: Oid,
    /// The identity behind the requester's key.
    pub requester: Option<Oid>,
    /// Whether the owner lives here.
    pub owner_at_home: bool,
    /// Whether the owner writes no more.
    pub owner_retired: bool,
    /// Whether the owner is frozen until its key is rotated.
    pub owner_frozen: bool,
    /// The owner's right in the scope.
    pub scope_right: ScopeRight,
    /// The mode of the domain in which the type travels; none: it never leaves.
    pub mode: Option<Mode>,
    /// What is here already.
    pub existing: Option<Existing>,
}

/// What `check_remote_write` decides on: one object of a verified package.
#[derive(Debug, Clone, Copy)]
pub struct RemoteFacts {
    /// The object.
    pub oid: Oid,
    /// Its owner.
    pub owner: Oid,
    /// Its revision.
    pub rev: u64,
    /// Whether it is a deletion.
    pub deleted: bool,
    /// The domain's mode, where the domain holds the object's type.
    pub mode: Option<Mode>,
    /// Where the owner lives.
    pub owner_home: Home,
    /// The owner's right in the scope.
    pub scope_right: ScopeRight,
    /// Whether an identity at home here may read it.
    pub reader_here: bool,
    /// What is here already.
    pub existing: Option<Existing>,
}

/// What `check_returned` decides on: an object of our own that a peer gives back.
#[derive(Debug, Clone, Copy)]
pub struct ReturnedFacts {
    /// The object.
    pub oid: Oid,
    /// Its owner.
    pub owner: Oid,
    /// Its revision.
    pub rev: u64,
    /// Whether it is a deletion.
    pub deleted: bool,
    /// Whether this node holds the owner's key.
    pub owner_here: bool,
    /// Whether the key that signed was rotated away before the backup: what it signed and lives is in the backup, so this
    /// is a thief's.
    pub key_is_old: bool,
    /// Whether what is here is signed with a later key.
    pub existing_key_is_later: bool,
    /// The mode of the domain in which the type travels.
    pub mode: Option<Mode>,
    /// What is here already.
    pub existing: Option<Existing>,
}

/// Why a write is refused. The code is what is recorded and what a peer may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The operation came the wrong way in.
    #[error("a {0} operation is not allowed here")]
    WrongContext(&'static str),
    /// The domain does not hold objects of this type.
    #[error("the type does not belong to the domain")]
    TypeNotInDomain,
    /// A remote write on an object that was made here.
    #[error("a peer may not write an object that was made here")]
    LocalObject,
    /// The owner of an object never changes.
    #[error("the object has another owner")]
    OwnerChanged,
    /// Nobody writes in the name of somebody who does not live with them.
    #[error("the owner is not at home at the sender")]
    OwnerNotAtSender,
    /// The owner is not at home on this node.
    #[error("the owner is not at home here")]
    OwnerNotHere,
    /// The owner said that it writes no more.
    #[error("its owner is retired and writes no more")]
    OwnerRetired,
    /// Two homes were claimed for the owner.
    #[error("its owner is frozen: two homes were claimed for it; rotate its key")]
    OwnerFrozen,
    /// The requester is not the owner.
    #[error("only its owner may write the object")]
    NotOwner,
    /// The author is not a participant of the scope.
    #[error("the author is not a participant")]
    NotParticipant,
    /// Nobody here may read it, so there is no reason to keep it.
    #[error("nobody at home here may read the object")]
    NoReaderHere,
    /// The domain's mode forbids an update or a deletion.
    #[error("the domain's mode does not allow an update")]
    Mode,
    /// The key that signed was rotated away.
    #[error("it is signed with a key that was rotated away")]
    OldKey,
    /// What was deleted stays deleted.
    #[error("the object was deleted")]
    Deleted,
    /// Equal revision, different content: the owner resolves it with the next revision.
    #[error("the object forked: equal revision, different content")]
    Fork,
}

impl Denied {
    /// A short stable word for records and peers.
    pub fn code(self) -> &'static str {
        match self {
            Self::WrongContext(_) => "wrong_context",
            Self::TypeNotInDomain => "type_not_in_domain",
            Self::LocalObject => "local_object",
            Self::OwnerChanged => "owner_changed",
            Self::OwnerNotAtSender => "owner_not_at_sender",
            Self::OwnerNotHere => "owner_not_here",
            Self::OwnerRetired => "owner_retired",
            Self::OwnerFrozen => "owner_frozen",
            Self::NotOwner => "not_owner",
            Self::NotParticipant => "not_participant",
            Self::NoReaderHere => "no_reader_here",
            Self::Mode => "mode",
            Self::OldKey => "old_key",
            Self::Deleted => "deleted",
            Self::Fork => "fork",
        }
    }
}

/// What to do with an object of a package that is not refused.
#[derive(Debug)]
pub enum RemoteWrite {
    /// Write it.
    Apply(Granted),
    /// It is here already, or was deleted before it ever came: nothing to do.
    AlreadyHere,
    /// A later revision is here.
    Older,
}

/// The rules. Holds nothing: all that a decision needs is in its arguments.
#[doc(alias = "ACLManager")]
#[derive(Debug, Clone, Copy)]
pub struct AclManager;

impl AclManager {
    /// A local write (docs/STORY.md 6.1): by the owner, who lives here and, where the scope has participants, is one.
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
        if facts.scope_right == ScopeRight::Outsider {
            return Err(Denied::NotParticipant);
        }
        if let Some(existing) = facts.existing {
            if existing.owner != facts.owner {
                return Err(Denied::OwnerChanged);
            }
            if existing.deleted {
                return Err(Denied::Deleted);
            }
            // What no peer would take must not be said here either: the nodes would differ for good.
            if facts.mode.is_some_and(|mode| mode != Mode::AllowUpdate) {
                return Err(Denied::Mode);
            }
        }
        Ok(Granted { oid: facts.oid })
    }

    /// A write by a peer (docs/STORY.md 6.3): the domain's mode, the owner's home, the author's membership.
    pub fn check_remote_write(
        context: &OpContext,
        facts: &RemoteFacts,
    ) -> Result<RemoteWrite, Denied> {
        if !context.is_remote() {
            return Err(Denied::WrongContext("local"));
        }
        let mode = facts.mode.ok_or(Denied::TypeNotInDomain)?;
        if let Some(existing) = facts.existing {
            if existing.made_here && !existing.same {
                return Err(Denied::LocalObject);
            }
            if existing.owner != facts.owner {
                return Err(Denied::OwnerChanged);
            }
        }
        if facts.owner_home != Home::Sender {
            return Err(Denied::OwnerNotAtSender);
        }
        match facts.existing {
            None if facts.deleted => {
                return if mode == Mode::AllowUpdate {
                    Ok(RemoteWrite::AlreadyHere)
                } else {
                    Err(Denied::Mode)
                };
            }
            Some(existing) if existing.same => return Ok(RemoteWrite::AlreadyHere),
            Some(existing) if facts.rev < existing.rev => return Ok(RemoteWrite::Older),
            Some(existing) if facts.rev == existing.rev => return Err(Denied::Fork),
            Some(_) if mode != Mode::AllowUpdate => return Err(Denied::Mode),
            Some(existing) if existing.deleted => return Err(Denied::Deleted),
            _ => {}
        }
        if facts.scope_right == ScopeRight::Outsider {
            return Err(Denied::NotParticipant);
        }
        if !facts.reader_here {
            return Err(Denied::NoReaderHere);
        }
        Ok(RemoteWrite::Apply(Granted { oid: facts.oid }))
    }

    /// An object of this node's own, signed before by a key that is held here, that a peer gives back after a restore
    /// (docs/DECISIONS.md 5). No lower revision wins, and nothing that a key signed which is worth nothing any more.
    pub fn check_returned(facts: &ReturnedFacts) -> Result<RemoteWrite, Denied> {
        if !facts.owner_here {
            return Err(Denied::OwnerNotHere);
        }
        if facts.key_is_old && facts.existing.is_none_or(|existing| !existing.same) {
            return Err(Denied::OldKey);
        }
        match facts.existing {
            None if facts.deleted => Ok(RemoteWrite::AlreadyHere),
            None => Ok(RemoteWrite::Apply(Granted { oid: facts.oid })),
            Some(existing) if existing.owner != facts.owner => Err(Denied::OwnerChanged),
            Some(existing) if existing.same => Ok(RemoteWrite::AlreadyHere),
            Some(existing) if facts.rev < existing.rev => Ok(RemoteWrite::Older),
            Some(existing) if facts.rev == existing.rev => Err(Denied::Fork),
            Some(_) if facts.existing_key_is_later => Err(Denied::OldKey),
            Some(_) if facts.mode != Some(Mode::AllowUpdate) => Err(Denied::Mode),
            Some(existing) if existing.deleted => Err(Denied::Deleted),
            Some(_) => Ok(RemoteWrite::Apply(Granted { oid: facts.oid })),
        }
    }

    /// An object of this node's own that is signed again, after its owner's key was rotated: nothing of it changes.
    pub fn check_signed_again(
        oid: Oid,
        owner_at_home: bool,
        existing: &Existing,
    ) -> Result<Granted, Denied> {
        if !owner_at_home {
            return Err(Denied::OwnerNotHere);
        }
        if !existing.made_here || !existing.same {
            return Err(Denied::OwnerChanged);
        }
        Ok(Granted { oid })
    }

    /// A server's or an identity's own record written by this node: its oid is the digest of its genesis, so a record
    /// whose verified chain gives that oid can speak for nobody else (docs/DECISIONS.md 5).
    pub fn check_self_certified(chain: &keys::VerifiedChain) -> Granted {
        Granted { oid: chain.oid() }
    }
}

#[cfg(test)]
mod tests;
