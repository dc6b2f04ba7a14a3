//! The identity names of a pending request: the only decoder that reads objects before admission.
//!
//! Invariant: a name is returned only if its identity signed it and a home record binds that
//! identity to the requesting node. At most 8 names of at most 64 bytes are returned.

use std::sync::LazyLock;

use keys::{Genesis, HomeRecord, KeyChain, PeerId, SecretKey, SignedObject};
use postern::graph::{GraphLimits, new_identity_attrs};
use postern::object::{Object, OidProof};
use postern::services::verdicts::claimed_names;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use crate::flags::Flags;

/// Upper bounds of the returned names.
const NAMES_MAX: usize = 8;
const NAME_BYTES_MAX: usize = 64;
/// Names of the genuine records: a short one, none, one that is too long, one with control
/// characters.
const NAMES: [Option<&str>; 4] = [
    Some("Alice"),
    None,
    Some("a name that is much longer than the sixty-four bytes that a node returns for one name"),
    Some("\u{1b}[2J\u{202e}ecilA"),
];

struct Records {
    here: PeerId,
    elsewhere: PeerId,
    /// Signed records of identities whose home is `here`.
    genuine: Vec<SignedObject>,
}

static RECORDS: LazyLock<Records> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let secrets: Vec<_> = (0..20).map(|_| SecretKey::generate(&mut rng)).collect();
    let secret = |number: usize| &secrets[number];
    let chain = |number: usize| {
        KeyChain::new(Genesis::new(
            secret(number).public(),
            &secret(number + 1).public(),
        ))
    };
    let genuine = (10..).step_by(2).zip(NAMES).map(|(number, name)| {
        let own = chain(number);
        let home = HomeRecord::sign(own.oid(), (0, secret(number)), chain(1), secret(1), 1);
        let attrs = new_identity_attrs(&own, &own.verify().unwrap(), &home, name);
        let object = Object {
            app: "identities".into(),
            type_number: 1,
            oid: own.oid(),
            owner: own.oid(),
            rev: 1,
            proof: OidProof::Genesis,
            rights: None,
            attrs: Some(attrs),
        };
        SignedObject::sign(0, secret(number), object.to_bytes())
    });
    Records {
        here: secret(1).peer_id(),
        elsewhere: secret(3).peer_id(),
        genuine: genuine.collect(),
    }
});

/// Returns the bytes of a genuine record, for seeds.
pub(crate) fn genuine(number: usize) -> Vec<u8> {
    RECORDS.genuine[number].bytes().to_vec()
}

/// Reads the names of identity records; accepts the input when a name is returned.
///
/// The first byte holds flags. Bits 0 and 1 select a genuine record. Bit 2: another node presents
/// it. Bit 3: the following bytes replace its content under its signature. Bit 4: it is sent twenty
/// times.
pub fn names(data: &[u8]) -> bool {
    let Some((flags, bytes)) = Flags::split(data) else {
        return false;
    };
    let Records {
        here,
        elsewhere,
        genuine,
    } = &*RECORDS;
    let number = usize::from(flags.0 & 3);
    let mut record = genuine[number].clone();
    let is_changed = flags.has(8) && bytes != record.bytes();
    if flags.has(8) {
        record = SignedObject::from_parts(record.key_id(), bytes.to_vec(), *record.signature());
    }
    let peer = if flags.has(4) { elsewhere } else { here };
    let count = if flags.has(16) { 20 } else { 1 };
    let shown = claimed_names(peer, vec![record; count], &GraphLimits::default());
    assert!(shown.len() <= NAMES_MAX.min(count), "{} names", shown.len());
    assert!(
        shown.iter().all(|name| name.len() <= NAME_BYTES_MAX),
        "a name is too long"
    );
    if is_changed || flags.has(4) {
        assert!(shown.is_empty(), "a name without a valid signature");
    }
    if let (Some(name), Some(shown)) = (NAMES[number], shown.first()) {
        assert!(
            name.starts_with(shown.trim_end_matches('…')),
            "another name"
        );
    }
    !shown.is_empty()
}
