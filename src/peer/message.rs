//! What admitted peers say to each other. Each message is one frame: a canonical CBOR map with one text key.
//!
//! Never decoded without the scan, under limits of its kind. Invariant: requests carry an id that their answer repeats;
//! ids are the asking side's own.

use keys::{Epoch, Limits, Malformed, Oid, PeerId, Signature, SignedObject, codec};
use serde::{Deserialize, Serialize};

use crate::state_engine::PackageLimits;

/// A message between admitted peers (`docs/PROTOCOL.md`, "Sync").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// What changed since `last_seq`? (docs/STORY.md 2.1 step 1)
    Pull(Pull),
    /// A package, as the answer to a pull.
    Package(PackageBody),
    /// Nothing new.
    UpToDate(UpToDate),
    /// A package that was not asked for (docs/STORY.md 5).
    Push(PackageBody),
    /// A pushed package was applied, or had been.
    Ack(UpToDate),
    /// A request or a push is refused.
    Refused(Refused),
    /// "My sequence numbers count in this epoch": said at the begin of a session.
    Epoch(EpochNote),
    /// "You once signed this epoch as yours": shown to who comes with another one.
    Heard(EpochNote),
    /// One of these two was read.
    Noted(Id),
    /// What do you hold of mine? (After a restore.)
    Return(Return),
    /// Objects that the asking side once sent.
    Returned(Returned),
    /// A sign of life is asked for.
    Ping(Id),
    /// A sign of life.
    Pong(Id),
    /// The session ends.
    Bye(Bye),
}

/// A pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    /// Of the request.
    pub id: u64,
    /// The epoch in which `last_seq` counts; none at the first pull.
    pub epoch: Option<Epoch>,
    /// The domain.
    pub domain: String,
    /// Seconds that the answer may wait for something new, at most 60.
    pub wait_s: u32,
    /// Who asks: must be the session's peer.
    pub peer_id: PeerId,
    /// What the asking side has, up to and including.
    pub last_seq: u64,
}

/// A package in a message.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageBody {
    /// Of the request.
    pub id: u64,
    /// COSE_Sign1.
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

/// Where a cursor stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpToDate {
    /// Of the request.
    pub id: u64,
    /// The epoch of the side that made the changes.
    pub epoch: Epoch,
    /// Up to and including.
    pub last_seq: u64,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Of the request.
    pub id: u64,
    /// A short word: `busy`, `quota`, `gap`, `peer_id`, `domain`, `internal`, or a package fault's.
    pub code: String,
    /// For `gap`: where the sender is to start again.
    pub last_seq: Option<u64>,
}

/// An epoch that its node signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochNote {
    /// Of the request.
    pub id: u64,
    /// The last `change_seq` of then.
    pub head: u64,
    /// The epoch.
    pub epoch: Epoch,
    /// Number of the node's key that signed.
    pub key_id: u32,
    /// By that key, over epoch and head.
    pub signature: Signature,
}

/// Asks for what the asking side once sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Return {
    /// Of the request.
    pub id: u64,
    /// The last object that was given back; none at first.
    pub after: Option<Oid>,
    /// The domain.
    pub domain: String,
}

/// Objects that the asking side once sent, by oid.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Returned {
    /// Of the request.
    pub id: u64,
    /// Canonical CBOR: an array of signed objects.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// Where to go on; none: that was all.
    pub next: Option<Oid>,
}

impl std::fmt::Debug for Returned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Returned {{ id: {}, {} bytes }}",
            self.id,
            self.body.len()
        )
    }
}

impl Returned {
    /// The objects in it, which prove nothing yet.
    pub fn objects(&self) -> Result<Vec<SignedObject>, Malformed> {
        let limits = Limits {
            bytes_max: PackageLimits::PROTOCOL.bytes_max,
            depth_max: 2,
            items_max: 1 + 4 * PackageLimits::PROTOCOL.objects_max,
        };
        codec::decode(&self.body, &limits)
    }
}

/// An id alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Id {
    /// Of the request.
    pub id: u64,
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bye {
    /// A short word: `shutdown`, `busy`, `duplicate`, `refused`, `misbehaviour`, `silence`, `end`.
    pub code: String,
}

/// Longest text of a code or domain name, in bytes.
pub const WORD_BYTES_MAX: usize = 64;

impl Message {
    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a frame. Only the two package messages may be long.
    pub fn decode(frame: &[u8]) -> Result<Self, Malformed> {
        let limits = Limits {
            bytes_max: PackageLimits::PROTOCOL.bytes_max + 64,
            depth_max: 2,
            items_max: 16,
        };
        let message = codec::decode(frame, &limits)?;
        let word = match &message {
            Self::Pull(pull) => &pull.domain,
            Self::Return(ask) => &ask.domain,
            Self::Refused(refused) => &refused.code,
            Self::Bye(bye) => &bye.code,
            _ => return Ok(message),
        };
        if word.len() <= WORD_BYTES_MAX && word.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(message)
        } else {
            Err(Malformed::Unexpected(
                "a word that is too long or not plain".into(),
            ))
        }
    }

    /// The id of the request that this answers, if it is an answer.
    pub fn answers(&self) -> Option<u64> {
        match self {
            Self::Package(PackageBody { id, .. })
            | Self::UpToDate(UpToDate { id, .. })
            | Self::Ack(UpToDate { id, .. })
            | Self::Refused(Refused { id, .. })
            | Self::Noted(Id { id })
            | Self::Returned(Returned { id, .. })
            | Self::Pong(Id { id }) => Some(*id),
            Self::Pull(_)
            | Self::Push(_)
            | Self::Epoch(_)
            | Self::Heard(_)
            | Self::Return(_)
            | Self::Ping(_)
            | Self::Bye(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(message: Message) {
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn every_message_is_canonical_and_comes_back() {
        let (epoch, peer_id) = (Epoch::from_bytes([1; 16]), PeerId::from_bytes([2; 32]));
        let pull = Pull {
            id: 1,
            epoch: Some(epoch),
            domain: "messages".into(),
            wait_s: 30,
            peer_id,
            last_seq: 1432,
        };
        check(Message::Pull(Pull {
            epoch: None,
            ..pull.clone()
        }));
        check(Message::Pull(pull));
        check(Message::Package(PackageBody {
            id: 1,
            body: vec![1, 2, 3],
        }));
        check(Message::UpToDate(UpToDate {
            id: 1,
            epoch,
            last_seq: 7,
        }));
        check(Message::Push(PackageBody {
            id: 1,
            body: vec![],
        }));
        check(Message::Ack(UpToDate {
            id: 1,
            epoch,
            last_seq: 7,
        }));
        check(Message::Refused(Refused {
            id: 1,
            code: "gap".into(),
            last_seq: Some(9),
        }));
        let note = EpochNote {
            id: 1,
            head: 9,
            epoch,
            key_id: 3,
            signature: Signature::from_bytes([4; 64]),
        };
        check(Message::Epoch(note.clone()));
        check(Message::Heard(note));
        check(Message::Noted(Id { id: 1 }));
        for oid in [None, Some(Oid::from_bytes([5; 16]))] {
            check(Message::Return(Return {
                id: 1,
                after: oid,
                domain: "messages".into(),
            }));
            let object = SignedObject::from_parts(2, vec![0x80], Signature::from_bytes([4; 64]));
            let returned = Returned {
                id: 1,
                body: codec::encode(&vec![object.clone(), object.clone()]),
                next: oid,
            };
            assert_eq!(returned.objects().unwrap(), [object.clone(), object]);
            check(Message::Returned(returned));
        }
        check(Message::Ping(Id { id: 1 }));
        check(Message::Pong(Id { id: 1 }));
        check(Message::Bye(Bye {
            code: "shutdown".into(),
        }));
    }

    #[test]
    fn long_words_and_long_frames_are_refused() {
        let bye = |code: &str| Message::Bye(Bye { code: code.into() }).encode();
        assert!(Message::decode(&bye(&"x".repeat(65))).is_err());
        assert!(Message::decode(&bye("new\nline")).is_err());
        let package = Message::Package(PackageBody {
            id: 1,
            body: vec![0; PackageLimits::PROTOCOL.bytes_max + 65],
        })
        .encode();
        assert!(matches!(
            Message::decode(&package),
            Err(Malformed::TooLong(_))
        ));
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_panic(frame: Vec<u8>) {
            let _ = Message::decode(&frame);
        }
    }
}
