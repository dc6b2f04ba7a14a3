//! Encodings without their meaning: frames, canonical CBOR, handshake messages, cookies.
//!
//! Signatures and seals are not verified. Invariant: every accepted input is canonical, and frames
//! do not depend on the pieces in which a stream arrives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bastion::frames::{FrameError, FrameReader};
use bastion::messages::{Cookie, HandshakeMessage};
use futures::FutureExt as _;
use keys::codec::{decode, encode};
use keys::{HomeRecord, KeyChain, Limits, SignedObject, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use tokio::io::{AsyncRead, ReadBuf};

use crate::items::is_canonical;

/// Returns its bytes in pieces of the given sizes, repeated cyclically. A size of 0 makes a read
/// pending.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    sizes: Vec<u8>,
    turn: usize,
    waited: bool,
}

impl AsyncRead for Pieces {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let size = this
            .sizes
            .get(this.turn % this.sizes.len().max(1))
            .copied()
            .unwrap_or(1);
        this.turn += 1;
        // Not pending twice in a row, because the loop would not end.
        this.waited = size == 0 && !this.waited;
        if this.waited {
            return Poll::Pending;
        }
        let rest = this.bytes.get(this.at..).unwrap_or_default();
        let count = usize::from(size)
            .max(1)
            .min(rest.len())
            .min(into.remaining());
        into.put_slice(rest.get(..count).unwrap_or_default());
        this.at += count;
        Poll::Ready(Ok(()))
    }
}

/// The end of a stream of frames.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Clean,
    Truncated,
    Empty,
    TooLong(usize),
}

/// Splits the complete bytes of a stream into its frames and its end.
fn frames_of(mut bytes: &[u8], limits: [usize; 2]) -> (Vec<Vec<u8>>, End) {
    let mut frames = Vec::new();
    loop {
        let limit = limits[usize::from(!frames.is_empty())];
        if bytes.is_empty() {
            return (frames, End::Clean);
        }
        let Some((head, rest)) = bytes.split_first_chunk::<4>() else {
            return (frames, End::Truncated);
        };
        match u32::from_be_bytes(*head) as usize {
            declared if declared > limit => return (frames, End::TooLong(declared)),
            0 => return (frames, End::Empty),
            declared => match rest.split_at_checked(declared) {
                Some((frame, rest)) => {
                    frames.push(frame.to_vec());
                    bytes = rest;
                }
                None => return (frames, End::Truncated),
            },
        }
    }
}

/// Reads a stream of frames that arrives in pieces; the frames must equal those of a single read.
///
/// The first byte is the number of piece sizes that follow, modulo 16. The next two bytes are the
/// limits of the first frame and of later frames, in units of 256 bytes.
pub fn frames(data: &[u8]) -> bool {
    let Some(([count, first, later], rest)) = data.split_first_chunk::<3>() else {
        return false;
    };
    let Some((sizes, bytes)) = rest.split_at_checked(usize::from(*count % 16)) else {
        return false;
    };
    // Up to 65 KB, which is longer than one read of the reader.
    let limits = [usize::from(*first) * 256 + 8, usize::from(*later) * 256 + 8];
    let (expected, end) = frames_of(bytes, limits);
    let pieces = Pieces {
        bytes: bytes.to_vec(),
        at: 0,
        sizes: sizes.to_vec(),
        turn: 0,
        waited: false,
    };
    let mut reader = FrameReader::new(pieces, limits[0]);
    let mut found = Vec::new();
    let found_end = loop {
        // A pending read is dropped and started again, as in a `select!`.
        let Some(result) = reader.read().now_or_never() else {
            continue;
        };
        match result {
            Ok(Some(frame)) => found.push(frame),
            Ok(None) => break End::Clean,
            Err(FrameError::Truncated) => break End::Truncated,
            Err(FrameError::Empty) => break End::Empty,
            Err(FrameError::TooLong { declared, limit }) => {
                assert!(declared > limit, "{declared} is not above {limit}");
                break End::TooLong(declared);
            }
            Err(FrameError::Io(error)) => panic!("I/O error of an in-memory reader: {error}"),
        }
        reader.set_max(limits[1]);
    };
    assert!(
        found == expected && found_end == end,
        "{found_end:?}, expected {end:?}"
    );
    found_end == End::Clean && !found.is_empty()
}

/// Decodes a handshake message; it must be canonical and longer than a limit of one byte less.
pub fn message(data: &[u8]) -> bool {
    let Ok(message) = HandshakeMessage::decode(data, 8192) else {
        return false;
    };
    assert_eq!(message.encode(), data, "{} has two forms", message.kind());
    assert!(
        HandshakeMessage::decode(data, data.len() - 1).is_err(),
        "the limit was not applied"
    );
    true
}

/// Decodes the readable part of a cookie.
pub fn cookie(data: &[u8]) -> bool {
    let Ok(cookie) = Cookie::decode(data) else {
        return false;
    };
    assert_eq!(cookie.encode(), data, "a cookie has two forms");
    assert!(
        data.len() <= keys::protocol::COOKIE_BYTES_MAX,
        "a cookie is too long"
    );
    true
}

/// Compares `codec::scan`, which runs before every decoder, with [`is_canonical`], and decodes the
/// bytes as every kind of value. The first byte selects the limits.
pub fn scan(data: &[u8]) -> bool {
    let Some((selector, bytes)) = data.split_first() else {
        return false;
    };
    let limits = match selector % 3 {
        0 => Limits::small(4096),
        1 => Limits {
            bytes_max: 64,
            depth_max: 2,
            items_max: 8,
        },
        _ => Limits {
            bytes_max: 4096,
            depth_max: 16,
            items_max: 1024,
        },
    };
    let accepted = codec::scan(bytes, &limits).is_ok();
    assert_eq!(
        accepted,
        is_canonical(bytes, &limits),
        "the two readers differ"
    );
    has_one_form::<(u64, String)>(bytes, &limits, accepted);
    has_one_form::<Vec<Option<i64>>>(bytes, &limits, accepted);
    has_one_form::<(bool, ByteBuf)>(bytes, &limits, accepted);
    has_one_form::<Vec<String>>(bytes, &limits, accepted);
    has_one_form::<SignedObject>(bytes, &limits, accepted);
    has_one_form::<KeyChain>(bytes, &limits, accepted);
    has_one_form::<HomeRecord>(bytes, &limits, accepted);
    has_one_form::<HandshakeMessage>(bytes, &limits, accepted);
    accepted
}

fn has_one_form<T: Serialize + DeserializeOwned>(bytes: &[u8], limits: &Limits, scanned: bool) {
    if let Ok(value) = decode::<T>(bytes, limits) {
        assert!(scanned, "decoded bytes that the scan refuses");
        assert_eq!(encode(&value), bytes, "another form of the same value");
    }
}
