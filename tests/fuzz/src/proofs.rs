//! Key chains and tickets.
//!
//! The expected result is computed independently, because the target knows which keys made each
//! link. Invariant: a chain is valid exactly when every link reveals the key that the previous link
//! committed to. A ticket opens exactly when Alice sealed it and it has not expired.

use std::sync::LazyLock;

use bastion::ticket::{TICKET_BYTES, TicketClaims};
use bastion::{Ticket, Tier};
use keys::codec::{decode, encode};
use keys::protocol::{KEY_EVENTS_MAX, TICKET_BYTES_MAX};
use keys::signing::signing_input;
use keys::{Context, Genesis, KeyChain, Limits, PeerId, SecretKey};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use crate::fixture::{NOW, fixture};
use crate::flags::Flags;

/// Number of keys that [`chain`] uses.
const KEYS: u8 = 8;

static SECRETS: LazyLock<Vec<SecretKey>> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    (0..KEYS).map(|_| SecretKey::generate(&mut rng)).collect()
});

fn secret(number: u8) -> &'static SecretKey {
    SECRETS.get(usize::from(number % KEYS)).unwrap()
}

/// Verifies a key chain.
///
/// After an even first byte the input is an encoded chain. After an odd first byte each byte
/// describes a link: its low half is the revealed key, its high half the committed key. Bit 1 of
/// the first byte rotates the order of the links.
pub fn chain(data: &[u8]) -> bool {
    match Flags::split(data) {
        None => false,
        Some((flags, bytes)) if !flags.has(1) => chain_from_bytes(bytes),
        Some((flags, links)) => chain_from_links(flags, links),
    }
}

fn chain_from_bytes(bytes: &[u8]) -> bool {
    let limits = Limits {
        bytes_max: 8192,
        depth_max: 3,
        items_max: 512,
    };
    let Ok(chain) = decode::<KeyChain>(bytes, &limits) else {
        return false;
    };
    assert_eq!(encode(&chain), bytes, "a chain has two forms");
    assert!(chain.continues(&chain), "a chain does not continue itself");
    let Ok(verified) = chain.verify() else {
        return false;
    };
    assert!(
        chain.events.len() <= KEY_EVENTS_MAX,
        "the chain is too long"
    );
    assert_eq!(verified.oid(), chain.oid());
    assert_eq!(verified.key_id() as usize, chain.events.len());
    assert_eq!(verified.key(verified.key_id()), Some(verified.current()));
    assert_eq!(
        verified.peer_id(),
        PeerId::from_bytes(*chain.genesis.first.as_bytes())
    );
    true
}

fn chain_from_links(flags: Flags, links: &[u8]) -> bool {
    let (begin, links) = links
        .split_first()
        .map_or((0, links), |(begin, rest)| (*begin, rest));
    let (first, mut committed) = (secret(begin), (begin >> 4) % KEYS);
    let mut chain = KeyChain::new(Genesis::new(first.public(), &secret(committed).public()));
    let mut holds = true;
    for link in links.iter().take(KEY_EVENTS_MAX + 1) {
        chain.rotate(secret(*link), &secret(link >> 4).public());
        holds &= link % KEYS == committed;
        committed = (link >> 4) % KEYS;
    }
    if flags.has(2) && !chain.events.is_empty() {
        // Another order of two or more links is invalid, because each link commits to the next.
        let count = chain.events.len();
        chain.events.rotate_left(1);
        holds &= count == 1;
    }
    holds &= chain.events.len() <= KEY_EVENTS_MAX;
    let verified = chain.verify();
    assert_eq!(verified.is_ok(), holds, "{verified:?}");
    assert!(
        chain_from_bytes(&encode(&chain)) == holds,
        "encoding and decoding changed the chain"
    );
    holds
}

/// Opens a ticket: the input itself after an even first byte, or the input sealed by Alice after an
/// odd one.
pub fn ticket(data: &[u8]) -> bool {
    let Some((flags, bytes)) = Flags::split(data) else {
        return false;
    };
    let ticket = Ticket::from_bytes(bytes);
    assert_eq!(
        ticket.is_some(),
        !bytes.is_empty() && bytes.len() <= TICKET_BYTES_MAX
    );
    assert!(
        ticket.is_none_or(|ticket| ticket.as_bytes() == bytes),
        "a ticket was changed"
    );

    let fixture = fixture();
    let mut fresh = fixture.server();
    if !flags.has(1) {
        let claims = fresh.server.tickets.open(bytes, NOW);
        let is_genuine = bytes == fixture.ticket.as_bytes();
        assert_eq!(
            claims.is_some(),
            is_genuine,
            "a ticket that Alice did not seal"
        );
        return is_genuine;
    }
    let keys = &fixture.alice.context.keys;
    let readable = signing_input(Context::Ticket, &[keys.onion().public_key().as_bytes()]);
    let sealed = keys.ticket_key().seal(&readable, bytes, &mut fresh.rng);
    let claims = fresh.server.tickets.open(&sealed, NOW);
    assert_eq!(
        claims,
        claims_of(bytes),
        "{} bytes, {TICKET_BYTES} sealed",
        bytes.len()
    );
    claims.is_some()
}

/// Decodes a ticket's plaintext independently: tier, time of issue, expiry, peer.
fn claims_of(plain: &[u8]) -> Option<TicketClaims> {
    let plain: &[u8; 49] = plain.try_into().ok()?;
    let number = |from: usize| {
        plain
            .iter()
            .skip(from)
            .take(8)
            .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let (issued, until) = (number(1), number(9));
    let tier = match plain[0] {
        0 => Tier::Untrusted,
        1 => Tier::Trusted,
        _ => return None,
    };
    let peer = PeerId::from_slice(plain.get(17..)?)?;
    (issued..=until)
        .contains(&NOW)
        .then_some(TicketClaims { peer, tier, issued })
}
