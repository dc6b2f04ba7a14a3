//! The messages of the handshake on the wire: one canonical CBOR map whose only key is the kind.
//!
//! Plain values with the limits that the decoder enforces; the protocol's rules are checked in
//! [`crate::handshake`]. Invariant: each message has exactly one encoding, so signatures may cover
//! the bytes. Tested below and by `tests/fuzz`.

use keys::codec::{self, Limits, Malformed};
use keys::protocol::{
    COOKIE_BYTES_MAX, EXTRA_DOUBLINGS_MAX, NONCE_BYTES, SEALED_BYTES_MAX, TICKET_BYTES_MAX,
    VERSIONS_MAX,
};
use keys::{OnionAddr, Signature};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use crate::features::Features;

/// A message of the handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandshakeMessage {
    /// Server to client: the puzzle to solve.
    Challenge(Challenge),
    /// Client to server: the supported versions and a ticket.
    Hello(Hello),
    /// Server to client: the handshake ends without admission, and so does the stream.
    Refused(Refusal),
    /// Client to server: the work and the client's claims.
    Solution(Solution),
    /// Server to client: admission and the server's claims.
    Welcome(Welcome),
}

/// The client's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// A ticket of an earlier admission, at most [`TICKET_BYTES_MAX`] bytes.
    pub ticket: Option<ByteBuf>,
    /// Features that the client offers. The server checks their form only, because the client's
    /// signed claims repeat them.
    pub features: Features,
    /// Protocol versions that the client supports, 1 to [`VERSIONS_MAX`] of them.
    pub versions: Vec<u64>,
}

/// The puzzle to solve. The server keeps nothing for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// The encoding of a [`Cookie`].
    pub cookie: ByteBuf,
    /// The serial number, which only the server can open. Authenticates the cookie.
    pub sealed: ByteBuf,
}

/// The readable part of a challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cookie {
    /// The server's onion service.
    pub onion: OnionAddr,
    /// Expected evaluations of the work function; 0 for a client whose ticket replaces the work.
    pub effort: u64,
    /// Unix seconds by the server's clock. The server rejects later solutions.
    pub expiry: u64,
    /// Name of the work function.
    pub algorithm: String,
    /// Leading zero bits of the inner condition.
    pub inner_bits: u8,
}

/// The client's work and claims, signed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Solution {
    /// Solves the puzzle; any value with a ticket.
    pub nonce: ByteArray<NONCE_BYTES>,
    /// The encoding of the client's claims, as signed.
    pub claims: ByteBuf,
    /// The challenge's cookie, unchanged.
    pub cookie: ByteBuf,
    /// The challenge's sealed part, unchanged.
    pub sealed: ByteBuf,
    /// The hello's ticket, if the challenge demands no work.
    pub ticket: Option<ByteBuf>,
    /// By the client's node key, over all other fields and the server's onion key.
    pub signature: Signature,
    /// Doublings of the effort above the cookie's, at most [`EXTRA_DOUBLINGS_MAX`]; 0 with a
    /// ticket. Each doubling also requires one more inner bit.
    pub extra_doublings: u8,
}

/// The admission, with the server's claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// The encoding of the server's claims, as signed.
    pub claims: ByteBuf,
    /// Replaces the work in the client's next handshake with this server.
    pub ticket: Option<ByteBuf>,
    /// The sync domains that both nodes have, sorted.
    pub domains: Vec<String>,
    /// The features that both nodes' claims list.
    pub features: Features,
    /// By the server's node key, over the transcript's digest, claims, domains, features and
    /// ticket.
    pub signature: Signature,
}

/// The end of a handshake without admission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The reason.
    pub code: RefusalCode,
    /// Seconds after which the client may retry, with the same solution if it has one. Only with
    /// `busy`.
    pub retry_s: Option<u32>,
    /// Protocol versions that the server supports, 1 to
    /// [`VERSIONS_MAX`]. Only with `version`.
    pub versions: Option<Vec<u64>>,
}

/// Everything that a refused client learns. Encoded as lower-case text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "lowercase")]
pub enum RefusalCode {
    /// The peer id is banned.
    #[error("banned")]
    Banned,
    /// No slot is free, or the verification queue is full. The client retries after `retry_s`.
    #[error("busy")]
    Busy,
    /// The cookie or ticket is no longer accepted. The client requests a new challenge.
    #[error("expired")]
    Expired,
    /// The server failed. The client retries much later.
    #[error("internal")]
    Internal,
    /// The frame is not a message, not the expected message, or breaks a protocol rule.
    #[error("malformed")]
    Malformed,
    /// The claimed onion address is not proved.
    #[error("onion")]
    Onion,
    /// The server's operator has to approve the peer first. The client retries much later.
    #[error("pending")]
    Pending,
    /// The server's policy does not admit the peer.
    #[error("policy")]
    Policy,
    /// The peer id is the server's own.
    #[serde(rename = "self")]
    #[error("self")]
    OwnPeerId,
    /// A signature or key chain does not verify.
    #[error("signature")]
    Signature,
    /// A solution of this challenge was accepted before.
    #[error("used")]
    Used,
    /// The client supports no protocol version that the server supports.
    #[error("version")]
    Version,
    /// The nonce does not solve the puzzle.
    #[error("work")]
    Work,
}

impl HandshakeMessage {
    /// Returns the canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes a message of at most `bytes_max` bytes.
    pub fn decode(bytes: &[u8], bytes_max: usize) -> Result<Self, Malformed> {
        let message: Self = codec::decode(bytes, &limits(bytes_max))?;
        match message.broken_limit() {
            Some(limit) => Err(Malformed::Unexpected(limit.into())),
            None => Ok(message),
        }
    }

    /// Returns the first limit of the grammar that the message breaks.
    fn broken_limit(&self) -> Option<&'static str> {
        let is_long = |bytes: &Option<ByteBuf>, bytes_max| {
            bytes.as_ref().is_some_and(|bytes| bytes.len() > bytes_max)
        };
        let (ticket, versions) = match self {
            Self::Hello(hello) => (&hello.ticket, Some(&hello.versions)),
            Self::Challenge(challenge) => {
                let is_long = challenge.sealed.len() > SEALED_BYTES_MAX;
                return is_long.then_some("too long a sealed part");
            }
            Self::Solution(solution) if solution.extra_doublings > EXTRA_DOUBLINGS_MAX => {
                return Some("too many doublings of the effort");
            }
            Self::Solution(solution) => (&solution.ticket, None),
            Self::Welcome(welcome) => (&welcome.ticket, None),
            Self::Refused(refusal) => (&None, refusal.versions.as_ref()),
        };
        let is_count = |versions: &Vec<u64>| (1..=VERSIONS_MAX).contains(&versions.len());
        if is_long(ticket, TICKET_BYTES_MAX) {
            Some("too long a ticket")
        } else if !versions.is_none_or(is_count) {
            Some("no or too many versions")
        } else {
            None
        }
    }

    /// Returns the name of the kind on the wire.
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

/// Depth 3 is message, fields, list. The item limit exceeds the longest list, a welcome's domains.
fn limits(bytes_max: usize) -> Limits {
    Limits {
        bytes_max,
        depth_max: 3,
        items_max: 160,
    }
}

impl Cookie {
    /// Decodes a cookie.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        codec::decode(
            bytes,
            &Limits {
                bytes_max: COOKIE_BYTES_MAX,
                depth_max: 1,
                items_max: 11,
            },
        )
    }

    /// Returns the canonical encoding, which the seal and the puzzle cover.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Feature;
    use keys::PublicKey;

    fn round_trip(message: HandshakeMessage) {
        let bytes = message.encode();
        assert_eq!(HandshakeMessage::decode(&bytes, 8192).unwrap(), message);
        for cut in 0..bytes.len() {
            assert!(
                HandshakeMessage::decode(&bytes[..cut], 8192).is_err(),
                "{} cut at {cut}",
                message.kind()
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(
            HandshakeMessage::decode(&longer, 8192),
            Err(Malformed::Trailing)
        );
        assert_eq!(
            HandshakeMessage::decode(&bytes, bytes.len() - 1),
            Err(Malformed::TooLong(bytes.len()))
        );
    }

    #[test]
    fn every_kind_has_one_canonical_form() {
        round_trip(HandshakeMessage::Hello(Hello {
            ticket: None,
            features: Features::from_iter([Feature::Watch]),
            versions: vec![1],
        }));
        round_trip(HandshakeMessage::Challenge(Challenge {
            cookie: ByteBuf::from([1; 90]),
            sealed: ByteBuf::from([2; 48]),
        }));
        round_trip(HandshakeMessage::Solution(Solution {
            nonce: ByteArray::new([3; 16]),
            claims: ByteBuf::from([4; 400]),
            cookie: ByteBuf::from([5; 90]),
            sealed: ByteBuf::from([6; 48]),
            ticket: Some(ByteBuf::from([6; 89])),
            signature: Signature::from_bytes([7; 64]),
            extra_doublings: 4,
        }));
        round_trip(HandshakeMessage::Welcome(Welcome {
            claims: ByteBuf::from([8; 400]),
            ticket: None,
            domains: (10..74).map(|number| format!("domain{number}")).collect(),
            features: (10..26)
                .map(|number| format!("f-{number}"))
                .collect::<Vec<_>>()
                .try_into()
                .unwrap(),
            signature: Signature::from_bytes([9; 64]),
        }));
        round_trip(HandshakeMessage::Refused(Refusal {
            code: RefusalCode::OwnPeerId,
            retry_s: None,
            versions: None,
        }));
        round_trip(HandshakeMessage::Refused(Refusal {
            code: RefusalCode::Version,
            retry_s: None,
            versions: Some((1..=16).collect()),
        }));
    }

    #[test]
    fn hello_and_refused_encode_as_documented() {
        let hello = HandshakeMessage::Hello(Hello {
            ticket: None,
            features: Features::from_iter([Feature::Watch]),
            versions: vec![1],
        })
        .encode();
        assert_eq!(
            hello,
            b"\xa1\x65hello\xa3\x66ticket\xf6\x68features\x81\x65watch\x68versions\x81\x01"
        );
        let refused = HandshakeMessage::Refused(Refusal {
            code: RefusalCode::Busy,
            retry_s: Some(3),
            versions: None,
        });
        assert_eq!(
            refused.encode(),
            b"\xa1\x67refused\xa3\x64code\x64busy\x67retry_s\x03\x68versions\xf6"
        );
    }

    #[test]
    fn rejects_unknown_kinds_fields_and_codes() {
        for bytes in [
            &b"\xa1\x65hullo\xa3\x66ticket\xf6\x68features\x80\x68versions\x81\x01"[..],
            b"\xa1\x65hello\xa2\x66ticket\xf6\x68versions\x81\x01",
            b"\xa1\x65hello\xa4\x65extra\x01\x66ticket\xf6\x68features\x80\x68versions\x81\x01",
            b"\xa1\x67refused\xa3\x64code\x67because\x67retry_s\xf6\x68versions\xf6",
            b"\xa0",
            b"\x65hello",
        ] {
            assert!(HandshakeMessage::decode(bytes, 8192).is_err());
        }
    }

    #[test]
    fn rejects_invalid_features_and_no_or_too_many_versions() {
        for bytes in [
            &b"\xa1\x65hello\xa3\x66ticket\xf6\x68features\x81\x61A\x68versions\x81\x01"[..],
            b"\xa1\x65hello\xa3\x66ticket\xf6\x68features\x82\x61a\x61a\x68versions\x81\x01",
        ] {
            assert!(HandshakeMessage::decode(bytes, 8192).is_err());
        }
        for count in [0, 17] {
            let refused = HandshakeMessage::Refused(Refusal {
                code: RefusalCode::Version,
                retry_s: None,
                versions: Some((0..count).collect()),
            });
            assert!(HandshakeMessage::decode(&refused.encode(), 8192).is_err());
        }
    }

    #[test]
    fn cookie_round_trips() {
        let cookie = Cookie {
            onion: OnionAddr::from_public_key(PublicKey::from_bytes([1; 32])),
            effort: i64::MAX as u64,
            expiry: i64::MAX as u64,
            algorithm: "argon2id-1m".into(),
            inner_bits: 255,
        };
        assert_eq!(Cookie::decode(&cookie.encode()).unwrap(), cookie);
    }
}
