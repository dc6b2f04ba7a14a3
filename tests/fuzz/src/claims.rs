//! Encoded claims: lists of names, key chain, onion address, and the signed objects of identities.
//!
//! The claims arrive in a welcome that Alice signs for Bob in any case, so that only the claims
//! decide. Invariant: the Bastion accepts exactly the claims that this module's second
//! implementation of the rules in docs/PROTOCOL.md accepts.

use std::collections::BTreeSet;

use bastion::messages::{HandshakeMessage, Welcome};
use bastion::{AppClaim, Features};
use keys::codec::{decode, encode};
use keys::{
    BootId, Context, Epoch, KeyChain, Limits, OnionAddr, SchemaDigest, Signature, SignedObject,
};
use serde::{Deserialize, Serialize};

use crate::fixture::fixture;
use crate::flags::Flags;

/// Inserts Alice's key chain, onion address and onion signature.
pub(crate) const PROVED: u8 = 1;
/// The input holds app names for Alice's claims, one per line.
pub(crate) const APPS: u8 = 2;
/// The input holds sync domains for Alice's claims, one per line.
pub(crate) const DOMAINS: u8 = 4;

/// Longest frame before admission, in bytes.
pub(crate) const FRAME_BYTES_MAX: usize = 8192;
const NAMES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 64;
const IDENTITIES_MAX: usize = 8;

/// The wire format of claims.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wire {
    pub(crate) apps: Vec<AppClaim>,
    pub(crate) node: KeyChain,
    pub(crate) epoch: Epoch,
    pub(crate) onion: OnionAddr,
    pub(crate) boot_id: BootId,
    pub(crate) features: Vec<String>,
    pub(crate) identities: Vec<SignedObject>,
    pub(crate) sync_domains: Vec<String>,
    pub(crate) onion_signature: Signature,
}

impl Wire {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let limits = Limits {
            bytes_max: FRAME_BYTES_MAX,
            depth_max: 4,
            items_max: 688,
        };
        decode(bytes, &limits).ok()
    }

    /// Returns whether the lists follow the rules of docs/PROTOCOL.md.
    pub(crate) fn is_well_formed(&self) -> bool {
        let slugs: Vec<_> = self.apps.iter().map(|app| app.slug.clone()).collect();
        are_names(&slugs, 1)
            && self
                .apps
                .iter()
                .all(|app| app.version != 0 && app.version != u32::MAX)
            && are_features(&self.features)
            && are_names(&self.sync_domains, 2)
            && self.identities.len() <= IDENTITIES_MAX
    }

    /// Returns whether key chain, onion address and onion signature equal those of `other`.
    fn is_of(&self, other: &Self) -> bool {
        (&self.node, self.onion, self.onion_signature)
            == (&other.node, other.onion, other.onion_signature)
    }
}

/// Returns whether at most 16 names of features are sorted and unique.
fn are_features(names: &[String]) -> bool {
    let in_order: Vec<_> = names.iter().collect::<BTreeSet<_>>().into_iter().collect();
    let is_name = |name: &String| {
        let rest = name.trim_start_matches(|c: char| c.is_ascii_lowercase());
        let is_rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        rest.len() < name.len() && name.len() <= 32 && rest.chars().all(is_rest)
    };
    names.len() <= 16 && names.iter().eq(in_order) && names.iter().all(is_name)
}

/// Returns whether the names are sorted and unique, with 1 to `slugs_max` slugs joined by dots.
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

/// Returns the intersection of the domains of both sides, sorted.
pub(crate) fn in_common(local: &[String], remote: &[String]) -> Vec<String> {
    let local: BTreeSet<_> = local.iter().collect();
    let remote: BTreeSet<_> = remote.iter().collect();
    local
        .intersection(&remote)
        .map(|name| (*name).clone())
        .collect()
}

/// Returns Alice's claims with the names of the input, so that mutations of a short input change
/// names.
fn named(flags: Flags, text: &[u8]) -> Vec<u8> {
    let mut wire = Wire::read(&fixture().alice_claims).unwrap();
    let text = String::from_utf8_lossy(text);
    let names: Vec<_> = text.split('\n').map(str::to_owned).collect();
    match flags.has(APPS) {
        true => {
            let claim = |slug| AppClaim::new(slug, 1, SchemaDigest::from_bytes([1; 16]));
            wire.apps = names.into_iter().map(claim).collect();
        }
        false => wire.sync_domains = names,
    }
    encode(&wire)
}

/// Decodes claims inside a welcome. The first byte holds the flags of this module.
pub fn claims(data: &[u8]) -> bool {
    let Some((flags, bytes)) = Flags::split(data) else {
        return false;
    };
    let fixture = fixture();
    let alice = Wire::read(&fixture.alice_claims).unwrap();
    let mut bytes = bytes.to_vec();
    if flags.has(APPS | DOMAINS) {
        bytes = named(flags, &bytes);
    }
    let mut wire = Wire::read(&bytes);
    if let Some(wire) = wire.as_mut().filter(|_| flags.has(PROVED)) {
        wire.node = alice.node.clone();
        wire.onion = alice.onion;
        wire.onion_signature = alice.onion_signature;
        bytes = encode(wire);
    }
    let remote = wire.as_ref().map_or(&[][..], |wire| &wire.sync_domains);
    let domains = in_common(&fixture.bob.profile.sync_domains, remote);
    // Bob offers no features.
    let features = Features::none();
    let signed: [&[u8]; 5] = [
        fixture.transcript.as_bytes(),
        &bytes,
        &encode(&domains),
        &features.encode(),
        &[],
    ];
    let signature = fixture
        .alice
        .context
        .keys
        .sign_as_node(Context::Welcome, &signed);
    let frame = HandshakeMessage::Welcome(Welcome {
        claims: bytes.clone().into(),
        ticket: None,
        domains: domains.clone(),
        features,
        signature,
    })
    .encode();

    let fits = bytes.len() <= FRAME_BYTES_MAX && frame.len() <= FRAME_BYTES_MAX;
    let good = wire.filter(|wire| fits && wire.is_well_formed() && wire.is_of(&alice));
    let admitted = fixture.await_welcome.clone().receive(&frame);
    assert_eq!(admitted.is_ok(), good.is_some(), "{:?}", admitted.err());
    let (Ok(admitted), Some(good)) = (admitted, good) else {
        return false;
    };
    let taken = admitted.claims();
    assert_eq!(taken.peer_id(), fixture.alice.peer_id());
    assert_eq!(
        (&taken.apps, &taken.sync_domains),
        (&good.apps, &good.sync_domains)
    );
    assert_eq!((taken.epoch, taken.boot_id), (good.epoch, good.boot_id));
    assert_eq!(Vec::from(taken.features.clone()), good.features);
    assert_eq!(
        (&taken.identities, taken.onion),
        (&good.identities, good.onion)
    );
    assert_eq!(admitted.domains(), domains);
    true
}
