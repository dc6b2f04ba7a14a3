//! The messages of a session. Each message is one frame: a canonical CBOR map with one text key
//! (docs/PROTOCOL.md 4).
//!
//! Input and output are frames. Decoding checks the canonical form and the limits of the message
//! first. Invariant: a request carries an id of the requesting side, and its reply repeats the id.
//! Fuzzed by the target `session`.

use bastion::Feature;
use keys::protocol::{CODE_BYTES_MAX, NAME_BYTES_MAX, SCOPES_NAMED_MAX, SESSION_MESSAGE_BYTES_MAX};
use keys::{Epoch, Limits, Malformed, Oid, PeerId, Signature, SignedObject, codec};
use serde::{Deserialize, Serialize};

pub use self::fetch::{Fetch, FetchedBatch};
pub use self::introduce::{Introduce, Introduced};
pub use self::receipt::ReceiptMessage;
pub use self::watch::{DomainKey, Watch};
use crate::state_engine::PackageLimits;

mod fetch;
mod introduce;
mod receipt;
mod watch;

/// A message between admitted peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionMessage {
    /// Requests what changed since `last_seq` (docs/STORY.md 2.1 step 1).
    Pull(Pull),
    /// A package, as the reply to a pull.
    Package(PackageBody),
    /// The reply to a pull without changes.
    UpToDate(UpToDate),
    /// A package that was not requested (docs/STORY.md 5).
    Push(PackageBody),
    /// The reply to a push: the package is applied, now or earlier.
    Ack(UpToDate),
    /// The reply to a request that is refused.
    Refused(RequestRefusal),
    /// The epoch in which the sender's sequence numbers count; sent when a session starts.
    Epoch(EpochNote),
    /// An epoch that the receiver once signed as its own, so that it can detect a clone or a
    /// rollback.
    Heard(EpochNote),
    /// The reply to an epoch that was accepted, and to a receipt.
    Noted(IdOnly),
    /// Requests the sender's own objects, after a restore.
    Reclaim(ReclaimRequest),
    /// The reply to a reclaim: objects that the requesting side once sent.
    Reclaimed(ReclaimedBatch),
    /// Requests objects by their oids, or the records of their owners. Only with
    /// [`Feature::Relay`].
    Fetch(Fetch),
    /// The reply to a fetch.
    Fetched(FetchedBatch),
    /// Requests the address records of members of a scope. Only with [`Feature::Introduce`].
    Introduce(Introduce),
    /// The reply to such a request.
    Introduced(Introduced),
    /// Waits for what changes in any of several domains. Only with [`Feature::Watch`].
    Watch(Watch),
    /// States what its sender applied. Only with [`Feature::Receipts`].
    Receipt(ReceiptMessage),
    /// The reply to a watch without changes.
    Unchanged(IdOnly),
    /// Requests a [`SessionMessage::Pong`].
    Ping(IdOnly),
    /// The reply to a ping.
    Pong(IdOnly),
    /// Announces the end of the session.
    Bye(Bye),
}

/// Requests what changed in a domain since a sequence number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    /// Id of the request.
    pub id: u64,
    /// Scopes that are pulled again, sorted and different, at most 1,024; an empty list: the whole
    /// domain. None: what is new.
    pub again: Option<Vec<Oid>>,
    /// The epoch in which `last_seq` counts; none at the first pull.
    pub epoch: Option<Epoch>,
    /// The domain, which may be outside the intersection.
    pub domain: String,
    /// Seconds that the reply may wait for a change, at most 60.
    pub wait_s: u32,
    /// The requesting node; must be the session's peer.
    pub peer_id: PeerId,
    /// Highest sequence number that the requesting side holds.
    pub last_seq: u64,
}

/// A package, pulled or pushed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageBody {
    /// Id of the request.
    pub id: u64,
    /// The package as COSE_Sign1 (docs/PROTOCOL.md 5.1).
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl std::fmt::Debug for PackageBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "PackageBody {{ id: {}, {} bytes }}",
            self.id,
            self.body.len()
        )
    }
}

/// Up to where one side holds the changes of the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpToDate {
    /// Id of the request.
    pub id: u64,
    /// The epoch of the side that made the changes.
    pub epoch: Epoch,
    /// Highest sequence number that is held.
    pub last_seq: u64,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestRefusal {
    /// Id of the request.
    pub id: u64,
    /// A short code: `busy`, `quota`, `gap`, `peer_id`, `domain`, `internal`, or a package fault's.
    pub code: String,
    /// For `gap`: the sequence number behind which the sender has to start again.
    pub last_seq: Option<u64>,
}

/// An epoch, signed by its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochNote {
    /// Id of the request.
    pub id: u64,
    /// The last `change_seq` when it was signed.
    pub head: u64,
    /// The epoch that is signed.
    pub epoch: Epoch,
    /// Number of the node's key that signed.
    pub key_id: u32,
    /// Signature by that key over epoch and head.
    pub signature: Signature,
}

/// Requests a batch of the objects that the requesting side once sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReclaimRequest {
    /// Id of the request.
    pub id: u64,
    /// Last object of the previous batch; none at first.
    pub after: Option<Oid>,
    /// The domain of the objects.
    pub domain: String,
}

/// A batch of objects that the requesting side once sent, by ascending oid.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReclaimedBatch {
    /// Id of the request.
    pub id: u64,
    /// Canonical CBOR: an array of signed objects.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// Object after which the next batch starts; none if this is the last batch.
    pub next: Option<Oid>,
}

impl std::fmt::Debug for ReclaimedBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "ReclaimedBatch {{ id: {}, {} bytes }}",
            self.id,
            self.body.len()
        )
    }
}

impl ReclaimedBatch {
    /// Decodes the objects; their signatures are not verified yet.
    pub fn objects(&self) -> Result<Vec<SignedObject>, Malformed> {
        let limits = Limits {
            bytes_max: PackageLimits::PROTOCOL.bytes_max,
            depth_max: 2,
            items_max: 1 + 4 * PackageLimits::PROTOCOL.objects_max,
        };
        codec::decode(&self.body, &limits)
    }
}

/// The body of a message that has an id and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdOnly {
    /// Id of the request.
    pub id: u64,
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bye {
    /// A short code: `shutdown`, `busy`, `duplicate`, `refused`, `rotated`, `misbehaviour`,
    /// `silence`, `end`.
    pub code: String,
}

impl SessionMessage {
    /// Encodes the message as a frame.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The feature that a session must have for this message.
    pub fn feature(&self) -> Option<Feature> {
        match self {
            Self::Fetch(_) | Self::Fetched(_) => Some(Feature::Relay),
            Self::Introduce(_) | Self::Introduced(_) => Some(Feature::Introduce),
            Self::Receipt(_) => Some(Feature::Receipts),
            Self::Watch(_) | Self::Unchanged(_) => Some(Feature::Watch),
            _ => None,
        }
    }

    /// Returns the check whether a message is of a kind that answers this request. Nothing answers
    /// a reply.
    pub fn answers(&self) -> fn(&Self) -> bool {
        match self {
            Self::Pull(_) => {
                |it| matches!(it, Self::Package(_) | Self::UpToDate(_) | Self::Refused(_))
            }
            Self::Push(_) => |it| matches!(it, Self::Ack(_) | Self::Refused(_)),
            Self::Epoch(_) | Self::Heard(_) | Self::Receipt(_) => {
                |it| matches!(it, Self::Noted(_) | Self::Refused(_))
            }
            Self::Reclaim(_) => |it| matches!(it, Self::Reclaimed(_) | Self::Refused(_)),
            Self::Fetch(_) => |it| matches!(it, Self::Fetched(_) | Self::Refused(_)),
            Self::Introduce(_) => |it| matches!(it, Self::Introduced(_) | Self::Refused(_)),
            Self::Watch(_) => {
                |it| matches!(it, Self::Package(_) | Self::Unchanged(_) | Self::Refused(_))
            }
            Self::Ping(_) => |it| matches!(it, Self::Pong(_)),
            Self::Package(_)
            | Self::UpToDate(_)
            | Self::Ack(_)
            | Self::Refused(_)
            | Self::Noted(_)
            | Self::Reclaimed(_)
            | Self::Fetched(_)
            | Self::Introduced(_)
            | Self::Unchanged(_)
            | Self::Pong(_)
            | Self::Bye(_) => |_| false,
        }
    }

    /// Decodes a frame of at most the longest package plus 64 bytes.
    pub fn decode(frame: &[u8]) -> Result<Self, Malformed> {
        let limits = Limits {
            bytes_max: SESSION_MESSAGE_BYTES_MAX,
            depth_max: 3,
            items_max: 18 + SCOPES_NAMED_MAX,
        };
        let message = codec::decode(frame, &limits)?;
        if let Self::Pull(Pull {
            again: Some(scopes),
            ..
        }) = &message
            && (scopes.len() > SCOPES_NAMED_MAX || !scopes.is_sorted_by(|one, next| one < next))
        {
            let why = "scopes that are too many or not in ascending order";
            return Err(Malformed::Unexpected(why.into()));
        }
        let is_name = |text: &str, bytes_max| {
            text.len() <= bytes_max && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if let Self::Watch(watch) = &message {
            let is_valid = watch.has_valid_cursors(|name| is_name(name, NAME_BYTES_MAX));
            return is_valid.then_some(message).ok_or_else(|| {
                Malformed::Unexpected("no or too many cursors, or a wrong name".into())
            });
        }
        let has_valid_oids = match &message {
            Self::Fetch(fetch) => fetch.has_valid_oids(),
            Self::Receipt(receipt) => receipt.has_valid_lists(),
            _ => true,
        };
        if !has_valid_oids {
            return Err(Malformed::Unexpected("wrong oids".into()));
        }
        let (text, bytes_max) = match &message {
            Self::Fetch(fetch) => (&fetch.domain, NAME_BYTES_MAX),
            Self::Introduce(introduce) => (&introduce.domain, NAME_BYTES_MAX),
            Self::Pull(pull) => (&pull.domain, NAME_BYTES_MAX),
            Self::Receipt(receipt) => (&receipt.domain, NAME_BYTES_MAX),
            Self::Reclaim(request) => (&request.domain, NAME_BYTES_MAX),
            Self::Refused(refused) => (&refused.code, CODE_BYTES_MAX),
            Self::Bye(bye) => (&bye.code, CODE_BYTES_MAX),
            _ => return Ok(message),
        };
        if is_name(text, bytes_max) {
            Ok(message)
        } else {
            Err(Malformed::Unexpected(
                "a code or name that is too long or not printable ASCII".into(),
            ))
        }
    }
}

#[cfg(test)]
mod tests;
