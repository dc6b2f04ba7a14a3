//! What travels, before anybody asks what it means: frames, the canonical form, messages, cookies.
//!
//! Never a signature or a seal. Invariant: what is accepted has one form, and a stream means the same however it is cut.

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

/// Gives its bytes in pieces of the sizes asked for, over and over; a piece of none makes the reader wait.
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
        // Never twice in a row: there would be no end to it.
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

/// How a stream of frames ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Clean,
    Truncated,
    Empty,
    TooLong(usize),
}

/// The frames of a stream and its end, read off all the bytes at once.
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

/// A stream of frames that comes in pieces. The first byte says how many bytes of sizes follow, the next two how long a
/// first and a later frame may be. Frames must be those that are there when all is read at once, no byte more or less.
pub fn frames(data: &[u8]) -> bool {
    let Some(([count, first, later], rest)) = data.split_first_chunk::<3>() else {
        return false;
    };
    let Some((sizes, bytes)) = rest.split_at_checked(usize::from(*count % 16)) else {
        return false;
    };
    // Up to 65 KB: longer than what is asked of a stream at once.
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
        // A read that waits is dropped and begun again, as a `select!` does.
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
            Err(FrameError::Io(error)) => panic!("memory does not fail: {error}"),
        }
        reader.set_max(limits[1]);
    };
    assert!(
        found == expected && found_end == end,
        "{found_end:?}, expected {end:?}"
    );
    found_end == End::Clean && !found.is_empty()
}

/// A message before admission, of any kind: it has one form, and no shorter one.
pub fn message(data: &[u8]) -> bool {
    let Ok(message) = HandshakeMessage::decode(data, 8192) else {
        return false;
    };
    assert_eq!(message.encode(), data, "{} has two forms", message.kind());
    assert!(
        HandshakeMessage::decode(data, data.len() - 1).is_err(),
        "the limit does not hold"
    );
    true
}

/// A cookie's readable part.
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

/// The scan that stands before every decoder, beside another reading of the same bytes; and every kind of value decoded
/// behind it. The first byte gives the limits.
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
        "scanned and read differ"
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
        assert!(scanned, "decoded what the scan refuses");
        assert_eq!(encode(&value), bytes, "another form of the same value");
    }
}
