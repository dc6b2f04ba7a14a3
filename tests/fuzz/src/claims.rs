//! Claims as they travel: lists, names, chain, onion address, and the signed objects of identities.
//!
//! They come inside a welcome that Alice signs for Bob, whatever they say: what is judged is the claims alone.
//! Invariant: the Bastion takes exactly the claims that the rules of docs/PROTOCOL.md take when written down again here.

use std::collections::BTreeSet;

use bastion::messages::{HandshakeMessage, Welcome};
use keys::codec::{decode, encode};
use keys::{BootId, Context, Epoch, KeyChain, Limits, OnionAddr, Signature, SignedObject};
use serde::{Deserialize, Serialize};

use crate::Orders;
use crate::stage::stage;

/// Puts in who Alice is and that her onion service says so.
pub(crate) const PROVED: u8 = 1;
/// The rest is not claims, but names for Alice's: apps or sync domains, one a line.
pub(crate) const APPS: u8 = 2;
pub(crate) const DOMAINS: u8 = 4;

/// Longest frame before admission, by the config's default.
pub(crate) const FRAME_BYTES_MAX: usize = 8192;
const NAMES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 64;
const IDENTITIES_MAX: usize = 8;

/// Claims, field by field.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wire {
    pub(crate) apps: Vec<String>,
    pub(crate) node: KeyChain,
    pub(crate) epoch: Epoch,
    pub(crate) onion: OnionAddr,
    pub(crate) boot_id: BootId,
    pub(crate) identities: Vec<SignedObject>,
    pub(crate) sync_domains: Vec<String>,
    pub(crate) onion_signature: Signature,
}

impl Wire {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let limits = Limits {
            bytes_max: FRAME_BYTES_MAX,
            depth_max: 4,
            items_max: 480,
        };
        decode(bytes, &limits).ok()
    }

    /// Whether the lists follow the rules.
    pub(crate) fn is_well_formed(&self) -> bool {
        are_names(&self.apps, 1)
            && are_names(&self.sync_domains, 2)
            && self.identities.len() <= IDENTITIES_MAX
    }

    /// Whether another says the same of who speaks.
    fn is_of(&self, other: &Self) -> bool {
        (&self.node, self.onion, self.onion_signature)
            == (&other.node, other.onion, other.onion_signature)
    }
}

/// Sorted, each once, each of one slug up to that many, joined by dots.
fn are_names(names: &[String], slugs_max: usize) -> bool {
    let in_order: Vec<_> = names.iter().collect::<BTreeSet<_>>().into_iter().collect();
    let is_slug = |slug: &str| match slug.as_bytes() {
        [b'a'..=b'z', rest @ ..] => rest
            .iter()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
        _ => false,
    };
    let is_name = |name: &String| {
        let slugs: Vec<_> = name.split('.').collect();
        name.len() <= NAME_BYTES_MAX && slugs.len() <= slugs_max && slugs.into_iter().all(is_slug)
    };
    names.len() <= NAMES_MAX && names.iter().eq(in_order) && names.iter().all(is_name)
}

/// The domains of both sides, sorted.
pub(crate) fn in_common(ours: &[String], theirs: &[String]) -> Vec<String> {
    let ours: BTreeSet<_> = ours.iter().collect();
    let theirs: BTreeSet<_> = theirs.iter().collect();
    ours.intersection(&theirs)
        .map(|name| (*name).clone())
        .collect()
}

/// Alice's claims with other names: short inputs, in which a mutation hits a name.
fn named(orders: Orders, text: &[u8]) -> Vec<u8> {
    let mut wire = Wire::read(&stage().alice_claims).unwrap();
    let text = String::from_utf8_lossy(text);
    let names: Vec<_> = text.split('\n').map(str::to_owned).collect();
    match orders.has(APPS) {
        true => wire.apps = names,
        false => wire.sync_domains = names,
    }
    encode(&wire)
}

/// Claims in a welcome. With the first byte's lowest bit, the parts that prove who speaks are put in.
pub fn claims(data: &[u8]) -> bool {
    let Some((orders, bytes)) = Orders::split(data) else {
        return false;
    };
    let stage = stage();
    let alice = Wire::read(&stage.alice_claims).unwrap();
    let mut bytes = bytes.to_vec();
    if orders.has(APPS | DOMAINS) {
        bytes = named(orders, &bytes);
    }
    let mut wire = Wire::read(&bytes);
    if let Some(wire) = wire.as_mut().filter(|_| orders.has(PROVED)) {
        wire.node = alice.node.clone();
        wire.onion = alice.onion;
        wire.onion_signature = alice.onion_signature;
        bytes = encode(wire);
    }
    let theirs = wire.as_ref().map_or(&[][..], |wire| &wire.sync_domains);
    let domains = in_common(&stage.bob.profile.sync_domains, theirs);
    let signed: [&[u8]; 4] = [stage.transcript.as_bytes(), &bytes, &encode(&domains), &[]];
    let signature = stage
        .alice
        .context
        .keys
        .sign_as_node(Context::Welcome, &signed);
    let frame = HandshakeMessage::Welcome(Welcome {
        claims: bytes.clone().into(),
        ticket: None,
        domains: domains.clone(),
        signature,
    })
    .encode();

    let fits = bytes.len() <= FRAME_BYTES_MAX && frame.len() <= FRAME_BYTES_MAX;
    let good = wire.filter(|wire| fits && wire.is_well_formed() && wire.is_of(&alice));
    let admitted = stage.await_welcome.clone().receive(&frame);
    assert_eq!(admitted.is_ok(), good.is_some(), "{:?}", admitted.err());
    let (Ok(admitted), Some(good)) = (admitted, good) else {
        return false;
    };
    let taken = admitted.claims();
    assert_eq!(taken.peer_id(), stage.alice.peer_id());
    assert_eq!(
        (&taken.apps, &taken.sync_domains),
        (&good.apps, &good.sync_domains)
    );
    assert_eq!((taken.epoch, taken.boot_id), (good.epoch, good.boot_id));
    assert_eq!(
        (&taken.identities, taken.onion),
        (&good.identities, good.onion)
    );
    assert_eq!(admitted.domains(), domains);
    true
}
