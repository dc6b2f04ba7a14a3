//! What proves itself: key chains and tickets.
//!
//! Never believes the code under test: a chain's links are known from the order that made them. Invariant: a chain
//! holds exactly where every link is one that its maker could make; a ticket says what was sealed, in time.

use std::sync::LazyLock;

use bastion::ticket::{TICKET_BYTES, TicketClaims};
use bastion::{Ticket, Tier};
use keys::codec::{decode, encode};
use keys::protocol::{KEY_EVENTS_MAX, TICKET_BYTES_MAX};
use keys::signing::signing_input;
use keys::{Context, Genesis, KeyChain, Limits, PeerId, SecretKey};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use crate::Orders;
use crate::stage::{NOW, stage};

/// Keys of [`chain`].
const KEYS: u8 = 8;

static SECRETS: LazyLock<Vec<SecretKey>> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    (0..KEYS).map(|_| SecretKey::generate(&mut rng)).collect()
});

fn secret(number: u8) -> &'static SecretKey {
    SECRETS.get(usize::from(number % KEYS)).unwrap()
}

/// An even first byte: a key chain as it travels. An odd one: a chain made here, link by link, in which each byte names
/// the key that is revealed (low half) and the one that is committed to (high half), and the last one may bend a byte.
pub fn chain(data: &[u8]) -> bool {
    match Orders::split(data) {
        None => false,
        Some((orders, bytes)) if !orders.has(1) => chain_from_bytes(bytes),
        Some((orders, links)) => chain_from_links(orders, links),
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
    assert!(chain.events.len() <= KEY_EVENTS_MAX, "too long a chain");
    assert_eq!(verified.oid(), chain.oid());
    assert_eq!(verified.key_id() as usize, chain.events.len());
    assert_eq!(verified.key(verified.key_id()), Some(verified.current()));
    assert_eq!(
        verified.peer_id(),
        PeerId::from_bytes(*chain.genesis.first.as_bytes())
    );
    true
}

fn chain_from_links(orders: Orders, links: &[u8]) -> bool {
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
    if orders.has(2) && !chain.events.is_empty() {
        // The links in another order, or one of them left out: no link fits another's place.
        let count = chain.events.len();
        chain.events.rotate_left(1);
        holds &= count == 1;
    }
    holds &= chain.events.len() <= KEY_EVENTS_MAX;
    let verified = chain.verify();
    assert_eq!(verified.is_ok(), holds, "{verified:?}");
    assert!(
        chain_from_bytes(&encode(&chain)) == holds,
        "what travels is another chain"
    );
    holds
}

/// A ticket as a stranger shows it (even first byte), or as it would be, had Alice sealed that (odd).
pub fn ticket(data: &[u8]) -> bool {
    let Some((orders, bytes)) = Orders::split(data) else {
        return false;
    };
    let kept = Ticket::from_bytes(bytes);
    assert_eq!(
        kept.is_some(),
        !bytes.is_empty() && bytes.len() <= TICKET_BYTES_MAX
    );
    assert!(
        kept.is_none_or(|kept| kept.as_bytes() == bytes),
        "a ticket was changed"
    );

    let stage = stage();
    let mut fresh = stage.server();
    if !orders.has(1) {
        let standing = fresh.server.tickets.open(bytes, NOW);
        let is_genuine = bytes == stage.ticket.as_bytes();
        assert_eq!(standing.is_some(), is_genuine, "a ticket out of nothing");
        return is_genuine;
    }
    let keys = &stage.alice.context.keys;
    let readable = signing_input(Context::Ticket, &[keys.onion().public_key().as_bytes()]);
    let sealed = keys.ticket_key().seal(&readable, bytes, &mut fresh.rng);
    let standing = fresh.server.tickets.open(&sealed, NOW);
    assert_eq!(
        standing,
        standing_of(bytes),
        "{} bytes, {TICKET_BYTES} sealed",
        bytes.len()
    );
    standing.is_some()
}

/// A ticket's plaintext: tier, issued, until when, whose.
fn standing_of(plain: &[u8]) -> Option<TicketClaims> {
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
