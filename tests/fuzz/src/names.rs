//! What a stranger that waits for approval shows of its identities: the one decoder that reads objects before admission.
//!
//! Never a name that its owner did not sign for the node that shows it. Invariant: names are few and short, and each is
//! one that was signed here, of an identity that lives at the node in question.

use std::sync::LazyLock;

use keys::{Genesis, HomeRecord, KeyChain, PeerId, SecretKey, SignedObject};
use postern::graph::{GraphLimits, new_identity_attrs};
use postern::object::Object;
use postern::services::verdicts::claimed_names;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use crate::Orders;

/// As many and as long as are ever shown.
const NAMES_MAX: usize = 8;
const NAME_BYTES_MAX: usize = 64;
/// Names of the genuine records, in order: short, none, too long, hostile.
const NAMES: [Option<&str>; 4] = [
    Some("Alice"),
    None,
    Some("a name that goes on and on and on, well beyond what anybody would care to read through"),
    Some("\u{1b}[2J\u{202e}ecilA"),
];

struct Records {
    here: PeerId,
    elsewhere: PeerId,
    /// Live at `here`.
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

/// The bytes of a genuine record, for seeds.
pub(crate) fn genuine(number: usize) -> Vec<u8> {
    RECORDS.genuine[number].bytes().to_vec()
}

/// The first byte orders: bits 0 and 1 which genuine record, bit 2 shown by another node, bit 3 the bytes that follow in
/// its place under its signature, bit 4 up to twenty of it. Accepted where a name is shown.
pub fn names(data: &[u8]) -> bool {
    let Some((orders, bytes)) = Orders::split(data) else {
        return false;
    };
    let Records {
        here,
        elsewhere,
        genuine,
    } = &*RECORDS;
    let number = usize::from(orders.0 & 3);
    let mut record = genuine[number].clone();
    let is_changed = orders.has(8) && bytes != record.bytes();
    if orders.has(8) {
        record = SignedObject::from_parts(record.key_id(), bytes.to_vec(), *record.signature());
    }
    let peer = if orders.has(4) { elsewhere } else { here };
    let count = if orders.has(16) { 20 } else { 1 };
    let shown = claimed_names(peer, vec![record; count], &GraphLimits::default());
    assert!(shown.len() <= NAMES_MAX.min(count), "{} names", shown.len());
    assert!(
        shown.iter().all(|name| name.len() <= NAME_BYTES_MAX),
        "too long a name"
    );
    if is_changed || orders.has(4) {
        assert!(shown.is_empty(), "a name that nobody signed for this node");
    }
    if let (Some(name), Some(shown)) = (NAMES[number], shown.first()) {
        assert!(
            name.starts_with(shown.trim_end_matches('…')),
            "another name"
        );
    }
    !shown.is_empty()
}
