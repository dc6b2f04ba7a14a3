//! Transfers: how often each version of an object travels to each node, in packages and replies to
//! fetches. [`Censor`] withholds records from some of them.
//!
//! Input is the bytes that a link passes in one direction. Output is [`Transfers`]. Bodies that a
//! link cut off are not counted. Identities of handshakes and reclaimed objects are not either.

use std::collections::BTreeMap;
use std::sync::Arc;

use keys::{Digest, Limits, OnionAddr, SignedObject, codec};
use parking_lot::Mutex;
use postern::object::{Object, ObjectLimits};
use postern::peer::message::{FetchedBatch, SessionMessage};
use postern::schema::identities;
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

impl std::ops::Sub for Transfers {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            whole: self.whole - before.whole,
            fetched: self.fetched - before.fetched,
            needless: self.needless - before.needless,
        }
    }
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
        while let Some(frame) = next_frame(&mut self.bytes) {
            self.tally.note(self.to, &frame);
        }
    }
}

/// Takes the first frame, if it is whole.
fn next_frame(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    let frame = rest.get(..length)?.to_vec();
    bytes.drain(..4 + length);
    Some(frame)
}

/// Changes the frames of one direction of a link: replies to fetches lose the records of
/// identities, as if their sender could not read them.
#[derive(Default)]
pub(super) struct Censor {
    bytes: Vec<u8>,
}

impl Censor {
    /// Takes bytes that arrive. Returns those that go on: whole frames.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.bytes.extend_from_slice(bytes);
        let mut passed = Vec::new();
        while let Some(frame) = next_frame(&mut self.bytes) {
            let frame = without_records(&frame).unwrap_or(frame);
            passed.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            passed.extend_from_slice(&frame);
        }
        passed
    }
}

/// A reply to a fetch without the records in it. `None`: another message.
fn without_records(frame: &[u8]) -> Option<Vec<u8>> {
    let Ok(SessionMessage::Fetched(batch)) = SessionMessage::decode(frame) else {
        return None;
    };
    let mut objects = batch.objects().ok()?;
    objects.retain(|signed| {
        let object = Object::from_bytes(signed.bytes(), &ObjectLimits::default());
        object.is_ok_and(|object| object.app != identities::APP)
    });
    let body = codec::encode(&objects);
    Some(SessionMessage::Fetched(FetchedBatch { body, ..batch }).encode())
}
