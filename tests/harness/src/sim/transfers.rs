//! Transfers: how often each version of an object travels to each node, in packages and replies to
//! fetches.
//!
//! Input is the bytes that a link passes in one direction. Output is [`Transfers`]. Bodies that a
//! link cut off are not counted. Identities of handshakes and reclaimed objects are not either.

use std::collections::BTreeMap;
use std::sync::Arc;

use keys::{Digest, Limits, OnionAddr, SignedObject, codec};
use parking_lot::Mutex;
use postern::peer::message::SessionMessage;
use postern::state_engine::Package;

/// Bodies of objects that arrived at nodes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Transfers {
    /// In packages.
    pub whole: u64,
    /// In replies to fetches.
    pub fetched: u64,
    /// Of these, bodies of a version that the same node had received before.
    pub needless: u64,
}

/// Counts the transfers of a network. Clones share one.
#[derive(Clone, Default)]
pub(super) struct Tally(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    sum: Transfers,
    /// Bodies by receiving node and version.
    bodies: BTreeMap<(OnionAddr, Digest), u64>,
}

/// Bytes of an envelope before the head of its payload, and behind the payload.
const ENVELOPE_BYTES: (usize, usize) = (6, 66);

impl Tally {
    pub(super) fn sum(&self) -> Transfers {
        self.0.lock().sum
    }

    /// Counts the objects of a message to a node.
    fn note(&self, to: OnionAddr, frame: &[u8]) {
        let (objects, is_fetched) = match SessionMessage::decode(frame) {
            Ok(SessionMessage::Package(body) | SessionMessage::Push(body)) => {
                (objects_of(&body.body), false)
            }
            Ok(SessionMessage::Fetched(batch)) => (batch.objects().ok(), true),
            _ => return,
        };
        let mut counts = self.0.lock();
        for object in objects.into_iter().flatten() {
            let sum = &mut counts.sum;
            match is_fetched {
                true => sum.fetched += 1,
                false => sum.whole += 1,
            }
            let version = Digest::of(&codec::encode(&object));
            let bodies = counts.bodies.entry((to, version)).or_default();
            *bodies += 1;
            counts.sum.needless += u64::from(*bodies > 1);
        }
    }
}

/// The objects of a package, whose signature is not looked at.
fn objects_of(package: &[u8]) -> Option<Vec<SignedObject>> {
    let (before, behind) = ENVELOPE_BYTES;
    let payload = package.get(before..package.len().checked_sub(behind)?)?;
    let head_bytes = match payload.first()? & 0x1f {
        24 => 2,
        25 => 3,
        26 => 5,
        _ => 1,
    };
    let payload = payload.get(head_bytes..)?;
    let limits = Limits {
        bytes_max: payload.len(),
        depth_max: 4,
        items_max: usize::MAX,
    };
    codec::decode(payload, &limits)
        .ok()
        .map(|it: Package| it.objects)
}

/// Reads the frames of one direction of a link.
pub(super) struct Tap {
    tally: Tally,
    to: OnionAddr,
    bytes: Vec<u8>,
}

impl Tap {
    pub(super) fn new(tally: &Tally, to: OnionAddr) -> Self {
        Self {
            tally: tally.clone(),
            to,
            bytes: Vec::new(),
        }
    }

    /// Takes bytes that pass, and counts the messages that are whole.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        while let Some((length, rest)) = self.bytes.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            let Some(frame) = rest.get(..length) else {
                return;
            };
            self.tally.note(self.to, frame);
            self.bytes.drain(..4 + length);
        }
    }
}
