//! The messages before admission, as they travel: one canonical CBOR map with the kind's name as its only key.
//!
//! Plain values and their limits; no rule of the protocol is checked here. Never decoded past its own size, depth and
//! number of items. Invariant: a message and its bytes stand for each other, so signatures may cover the bytes.

use keys::codec::{self, Limits, Malformed};
use keys::{OnionAddr, Signature};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use crate::error::RefusalCode;

/// The one version there is. Each context string of a signature names it too ("postern/1/…").
pub const VERSION: u64 = 1;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 16;
/// Longest sealed part of a challenge that is taken from another node, in bytes; ours has 44.
pub const SEALED_BYTES_MAX: usize = 256;
/// Most doublings of the effort beyond what was asked.
pub const MORE_MAX: u8 = 4;
/// Most versions that a hello may list.
pub const VERSIONS_MAX: usize = 16;

/// Any message before admission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Message {
    /// A to B: work on this.
    Challenge(Challenge),
    /// B to A: these versions are spoken.
    Hello(Hello),
    /// Either to the other, then the stream ends.
    Refused(Refused),
    /// B to A: here is the work, and who I am.
    Solution(Solution),
    /// A to B: admitted, and who I am.
    Welcome(Welcome),
}

/// The caller's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// A ticket of an earlier admission, at most [`TICKET_BYTES_MAX`](crate::ticket::TICKET_BYTES_MAX) bytes.
    pub ticket: Option<ByteBuf>,
    /// Protocol versions that the caller speaks, at most [`VERSIONS_MAX`].
    pub versions: Vec<u64>,
}

/// What to work on. Nothing is kept for it where it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// A [`Cookie`]'s bytes.
    pub cookie: ByteBuf,
    /// Only its maker can open it: the serial, authenticated together with the cookie.
    pub sealed: ByteBuf,
}

/// The readable part of a challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cookie {
    /// The onion service that asks for the work.
    pub onion: OnionAddr,
    /// Expected evaluations of the work function; 0 for a caller whose ticket holds, who need not work.
    pub effort: u64,
    /// Unix seconds by the maker's clock; a solution that comes later is refused.
    pub expiry: u64,
    /// Name of the work function.
    pub algorithm: String,
    /// Leading zero bits of the inner condition.
    pub inner_bits: u8,
}

/// The work and the caller's identity, signed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Solution {
    /// Doublings of the effort beyond what was asked, at most [`MORE_MAX`]; each also asks one more inner bit.
    pub more: u8,
    /// What solves the puzzle; any where a ticket stands in for the work.
    pub nonce: ByteArray<NONCE_BYTES>,
    /// The caller's claims, as signed.
    pub claims: ByteBuf,
    /// From the challenge, unchanged.
    pub cookie: ByteBuf,
    /// From the challenge, unchanged.
    pub sealed: ByteBuf,
    /// The ticket of the hello, where the challenge asks no work.
    pub ticket: Option<ByteBuf>,
    /// By the caller's node key, over all the other fields and the onion key of the node addressed.
    pub signature: Signature,
}

/// Admission, and the answering node's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// The answering node's claims, as signed.
    pub claims: ByteBuf,
    /// Spares the caller the work next time.
    pub ticket: Option<ByteBuf>,
    /// The sync domains of both, sorted.
    pub domains: Vec<String>,
    /// By the answering node's key, over the transcript's digest, claims, domains and ticket.
    pub signature: Signature,
}

/// The end of a handshake that did not lead to admission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Why.
    pub code: RefusalCode,
    /// Seconds after which to come again, with the same solution if there is one; only with `busy`.
    pub retry_s: Option<u32>,
}

impl Message {
    /// The bytes that travel.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a message of at most `bytes_max` bytes.
    pub fn decode(bytes: &[u8], bytes_max: usize) -> Result<Self, Malformed> {
        codec::decode(bytes, &limits(bytes_max))
    }

    /// The kind's name on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Challenge(_) => "challenge",
            Self::Hello(_) => "hello",
            Self::Refused(_) => "refused",
            Self::Solution(_) => "solution",
            Self::Welcome(_) => "welcome",
        }
    }
}

/// Depth 3 (message, fields, list) and the longest list, a welcome's domains, with room to spare.
fn limits(bytes_max: usize) -> Limits {
    Limits {
        bytes_max,
        depth_max: 3,
        items_max: 160,
    }
}

impl Cookie {
    /// Longest encoding accepted, in bytes.
    pub const BYTES_MAX: usize = 192;

    /// Reads a cookie's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        codec::decode(
            bytes,
            &Limits {
                bytes_max: Self::BYTES_MAX,
                depth_max: 1,
                items_max: 11,
            },
        )
    }

    /// The bytes that travel, are sealed over and are worked on.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::PublicKey;

    fn round_trip(message: Message) {
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes, 8192).unwrap(), message);
        for cut in 0..bytes.len() {
            assert!(
                Message::decode(&bytes[..cut], 8192).is_err(),
                "{} cut at {cut}",
                message.kind()
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Message::decode(&longer, 8192), Err(Malformed::Trailing));
        assert_eq!(
            Message::decode(&bytes, bytes.len() - 1),
            Err(Malformed::TooLong(bytes.len()))
        );
    }

    #[test]
    fn every_kind_has_one_canonical_form() {
        round_trip(Message::Hello(Hello {
            ticket: None,
            versions: vec![1],
        }));
        round_trip(Message::Challenge(Challenge {
            cookie: ByteBuf::from([1; 90]),
            sealed: ByteBuf::from([2; 48]),
        }));
        round_trip(Message::Solution(Solution {
            more: 4,
            nonce: ByteArray::new([3; 16]),
            claims: ByteBuf::from([4; 400]),
            cookie: ByteBuf::from([5; 90]),
            sealed: ByteBuf::from([6; 48]),
            ticket: Some(ByteBuf::from([6; 89])),
            signature: Signature::from_bytes([7; 64]),
        }));
        round_trip(Message::Welcome(Welcome {
            claims: ByteBuf::from([8; 400]),
            ticket: None,
            domains: (10..74).map(|number| format!("domain{number}")).collect(),
            signature: Signature::from_bytes([9; 64]),
        }));
        round_trip(Message::Refused(Refused {
            code: RefusalCode::OwnPeerId,
            retry_s: None,
        }));
    }

    #[test]
    fn the_bytes_of_hello_and_refused_are_as_the_protocol_page_says() {
        let hello = Message::Hello(Hello {
            ticket: None,
            versions: vec![1],
        })
        .encode();
        assert_eq!(
            hello,
            b"\xa1\x65hello\xa2\x66ticket\xf6\x68versions\x81\x01"
        );
        let refused = Message::Refused(Refused {
            code: RefusalCode::Busy,
            retry_s: Some(3),
        });
        assert_eq!(
            refused.encode(),
            b"\xa1\x67refused\xa2\x64code\x64busy\x67retry_s\x03"
        );
    }

    #[test]
    fn unknown_kinds_fields_and_codes_are_refused() {
        for bytes in [
            &b"\xa1\x65hullo\xa2\x66ticket\xf6\x68versions\x81\x01"[..],
            b"\xa1\x65hello\xa1\x68versions\x81\x01",
            b"\xa1\x65hello\xa3\x65extra\x01\x66ticket\xf6\x68versions\x81\x01",
            b"\xa1\x67refused\xa2\x64code\x67because\x67retry_s\xf6",
            b"\xa0",
            b"\x65hello",
        ] {
            assert!(Message::decode(bytes, 8192).is_err());
        }
    }

    #[test]
    fn a_cookie_round_trips() {
        let cookie = Cookie {
            onion: OnionAddr::from_public_key(PublicKey::from_bytes([1; 32])),
            effort: u64::MAX,
            expiry: u64::MAX,
            algorithm: "argon2id-1m".into(),
            inner_bits: 255,
        };
        assert_eq!(Cookie::decode(&cookie.encode()).unwrap(), cookie);
    }
}
