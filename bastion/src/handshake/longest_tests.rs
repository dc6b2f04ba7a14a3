//! The longest messages that this implementation makes: they fit the frame before admission.

use keys::protocol::{
    COOKIE_BYTES_MAX, KEY_EVENTS_MAX, OFFERED_FEATURES_BYTES_MAX, SCHEMA_VERSION_MAX,
    SEALED_BYTES_MAX, SOLUTION_NAMES_BYTES_MAX, TICKET_BYTES_MAX, UNADMITTED_FRAME_BYTES_MAX,
    WELCOME_NAMES_BYTES_MAX,
};
use keys::{SchemaDigest, codec};
use serde_bytes::ByteBuf;

use super::testing::{NOW, Side, easy};
use super::{AwaitChallenge, Work};
use crate::claims::{AppClaim, Claims};
use crate::features::{Feature, Features};
use crate::messages::{Challenge, Cookie, HandshakeMessage};
use crate::ticket::{Ticket, Tier};

/// Bytes of an app's claim beside its slug, if the slug is shorter than 24 bytes.
const CLAIM_BYTES: usize = 24;

/// Names whose list has exactly this many encoded bytes, if each entry has `overhead` more bytes
/// than its name.
fn names(first: char, bytes: usize, overhead: usize) -> Vec<String> {
    let lengths = (1..64).find_map(|count: usize| {
        let entries = bytes - if count < 24 { 1 } else { 2 };
        let (each, more) = (entries / count, entries % count);
        let is_short = (overhead + 4..overhead + 23).contains(&each);
        let length = move |at| each - overhead + usize::from(at < more);
        is_short.then(|| (0..count).map(length).collect::<Vec<_>>())
    });
    let name = |(at, length): (usize, usize)| format!("{first}{at:02}{}", "a".repeat(length - 3));
    lengths.unwrap().into_iter().enumerate().map(name).collect()
}

/// A node with the longest key chain, and names of these encoded lengths. Claimed identities are
/// left out where they do not fit.
fn longest(number: u64, (apps, domains): (usize, usize)) -> Side {
    let mut config = easy();
    let features = ["f".repeat(30), "g".repeat(29)].to_vec();
    config.features = Features::try_from(features).unwrap();
    assert_eq!(config.features.encode().len(), OFFERED_FEATURES_BYTES_MAX);
    let mut side = Side::new(number, &[], config);
    let digest = SchemaDigest::from_bytes([1; 16]);
    let claim = |slug| AppClaim::new(slug, SCHEMA_VERSION_MAX, digest);
    let slugs = names('a', apps, CLAIM_BYTES).into_iter();
    side.profile.apps = slugs.map(claim).collect();
    side.profile.sync_domains = names('d', domains, 1);
    assert_eq!(codec::encode(&side.profile.apps).len(), apps);
    assert_eq!(codec::encode(&side.profile.sync_domains).len(), domains);
    for _ in 0..KEY_EVENTS_MAX {
        let node = side.context.keys.server_oid();
        side.context.keys.rotate(node, &mut side.rng).unwrap();
    }
    side
}

/// Decodes a frame with `missing` bytes less than the longest one.
#[track_caller]
fn fits(frame: &[u8], missing: usize) -> HandshakeMessage {
    let bytes = frame.len() + missing;
    assert!(bytes <= UNADMITTED_FRAME_BYTES_MAX, "{bytes} bytes");
    HandshakeMessage::decode(frame, UNADMITTED_FRAME_BYTES_MAX).unwrap()
}

/// `src/schema/load.rs` refuses names beyond these borders.
#[test]
fn longest_chain_and_names_fit_every_handshake_message() {
    let corner = WELCOME_NAMES_BYTES_MAX - SOLUTION_NAMES_BYTES_MAX;
    for (apps, domains) in [
        (SOLUTION_NAMES_BYTES_MAX - 12, 12),
        (SOLUTION_NAMES_BYTES_MAX - corner, corner),
        (WELCOME_NAMES_BYTES_MAX - 2 * 950, 950),
    ] {
        let (mut alice, bob) = (longest(1, (apps, domains)), longest(2, (apps, domains)));
        let ticket = Ticket::from_bytes(&[7; TICKET_BYTES_MAX]).unwrap();
        let begin =
            || AwaitChallenge::begin(bob.context.clone(), alice.onion(), Some(ticket.clone()));
        fits(&begin().0, 0);

        // Another implementation may send a longer cookie and a longer sealed part.
        let cookie = Cookie {
            onion: alice.onion(),
            effort: 0,
            expiry: NOW,
            algorithm: "argon2id-1m".into(),
            inner_bits: 0,
        };
        let cookie = cookie.encode();
        let missing = COOKIE_BYTES_MAX - cookie.len();
        let challenge = HandshakeMessage::Challenge(Challenge {
            cookie: cookie.into(),
            sealed: ByteBuf::from([9; SEALED_BYTES_MAX]),
        });
        let solving = begin().1.receive(&challenge.encode()).unwrap();
        let (solution, _) = solving.solved(Work::NONE, bob.profile.clone(), Default::default());
        let HandshakeMessage::Solution(solution) = fits(&solution, missing) else {
            panic!("no solution");
        };
        let claims = Claims::decode(&solution.claims).unwrap();
        assert_eq!(claims.apps, bob.profile.apps);
        assert_eq!(claims.sync_domains, bob.profile.sync_domains);

        let challenge = alice.challenge();
        let (solution, awaiting) = bob.solve(&challenge, alice.onion());
        let verified = alice.verify_solution(&solution, NOW).unwrap();
        let ticket = Some(vec![7; TICKET_BYTES_MAX]);
        let (welcome, _) = verified.welcome(alice.profile.clone(), Tier::Trusted, ticket);
        fits(&welcome, 0);
        let admitted = awaiting.receive(&welcome).unwrap();
        assert_eq!(admitted.domains(), alice.profile.sync_domains);
    }
}

#[test]
fn offered_features_are_within_their_bytes() {
    let offered = Features::from_iter([Feature::Watch]);
    assert!(offered.encode().len() <= OFFERED_FEATURES_BYTES_MAX);
}
