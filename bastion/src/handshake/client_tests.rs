//! The handshake between honest nodes, and against a hostile server.

use keys::codec;
use keys::{Context, Digest, SchemaDigest, SecretKey, Signature, SignedObject};

use super::signed_parts::transcript;
use super::testing::{NOW, Side, alice_and_bob, check, easy, error};
use super::{AwaitChallenge, DialTerms};
use crate::claims::AppClaim;
use crate::config::GateConfig;
use crate::error::{HandshakeError, Incompatibility, Misbehaviour};
use crate::features::{Feature, Features};
use crate::messages::{Challenge, Cookie, HandshakeMessage, RefusalCode, Welcome};
use crate::puzzle::Algorithm;
use crate::ticket::Tier;

#[test]
fn both_sides_agree_on_claims_domains_and_effort() {
    let config = GateConfig {
        effort_base: 4,
        inner_bits: 4,
        ..GateConfig::default()
    };
    let (mut alice, bob) = (Side::alice(config.clone()), Side::bob(config));
    let challenge = alice.challenge();
    let (solution, awaiting) = bob.solve(&challenge, alice.onion());
    let verified = alice.verify_solution(&solution, NOW).unwrap();
    assert_eq!(verified.claims().peer_id(), bob.peer_id());
    assert_eq!(verified.claims().onion, bob.onion());
    let digest = SchemaDigest::from_bytes([1; 16]);
    assert_eq!(
        verified.claims().apps,
        ["identities", "messages"].map(|slug| AppClaim::new(slug, 1, digest))
    );
    let (welcome, at_alice) = alice.welcome(verified);
    let at_bob = awaiting.receive(&welcome).unwrap();
    assert_eq!(at_bob.claims().peer_id(), alice.peer_id());
    assert_eq!(at_bob.claims().epoch, alice.profile.epoch);
    assert_eq!(at_bob.domains(), ["messages", "rides.offers"]);
    assert_eq!(at_alice.domains(), at_bob.domains());
    assert_eq!((at_alice.we_dialled(), at_bob.we_dialled()), (false, true));
    assert_eq!((at_alice.effort(), at_bob.effort()), (4, 4));
}

#[test]
fn session_has_the_features_that_both_sides_offer() {
    let with = |features: &[Feature]| GateConfig {
        features: features.iter().copied().collect(),
        ..easy()
    };
    for (of_alice, of_bob, both) in [
        (&[Feature::Watch][..], &[Feature::Watch][..], true),
        (&[], &[Feature::Watch], false),
        (&[Feature::Watch], &[], false),
    ] {
        let (mut alice, bob) = (Side::alice(with(of_alice)), Side::bob(with(of_bob)));
        let challenge = alice.challenge();
        let (solution, awaiting) = bob.solve(&challenge, alice.onion());
        let verified = alice.verify_solution(&solution, NOW).unwrap();
        assert_eq!(verified.claims().features, of_bob.iter().copied().collect());
        let (welcome, at_alice) = alice.welcome(verified);
        let at_bob = awaiting.receive(&welcome).unwrap();
        assert_eq!(at_alice.features(), at_bob.features());
        assert_eq!(at_bob.features().has(Feature::Watch), both);
    }
}

#[test]
fn client_rejects_challenges_above_its_limits() {
    let high_effort = GateConfig {
        effort_base: 131_073,
        ..GateConfig::default()
    };
    let (mut alice, bob) = (Side::alice(high_effort), Side::bob(easy()));
    let challenge = alice.challenge();
    let error_of = |challenge: &[u8]| error(bob.accept(challenge, Side::alice(easy()).onion()));
    assert!(matches!(
        error_of(&challenge),
        HandshakeError::PeerIncompatible(Incompatibility::Effort {
            asked: 131_073,
            limit: 131_072
        })
    ));
    let change = |change: fn(&mut Cookie)| {
        let HandshakeMessage::Challenge(Challenge { cookie, sealed }) =
            HandshakeMessage::decode(&challenge, 8192).unwrap()
        else {
            panic!()
        };
        let mut cookie = Cookie::decode(&cookie).unwrap();
        change(&mut cookie);
        let cookie = cookie.encode().into();
        HandshakeMessage::Challenge(Challenge { cookie, sealed }).encode()
    };
    let hard = change(|cookie| (cookie.effort, cookie.inner_bits) = (1, 17));
    assert!(matches!(
        error_of(&hard),
        HandshakeError::PeerIncompatible(Incompatibility::InnerBits {
            asked: 17,
            limit: 16
        })
    ));
    let excessive =
        change(|cookie| (cookie.effort, cookie.inner_bits) = (i64::MAX as u64, u8::MAX));
    assert!(matches!(
        error_of(&excessive),
        HandshakeError::PeerIncompatible(Incompatibility::Effort { .. })
    ));
    let unknown = change(|cookie| (cookie.effort, cookie.algorithm) = (1, "sha1".into()));
    assert!(matches!(
        error_of(&unknown),
        HandshakeError::PeerIncompatible(Incompatibility::Algorithm)
    ));
    let free = change(|cookie| cookie.effort = 0);
    assert!(matches!(
        error_of(&free),
        HandshakeError::PeerMisbehaved(Misbehaviour::InvalidChallenge)
    ));
}

#[test]
fn client_accepts_only_a_welcome_signed_over_its_solution() {
    type Edit = fn(&mut Welcome);
    let sign = |welcome: &mut Welcome, by: &Side, context: Context, transcript: &Digest| {
        let (domains, features) = (codec::encode(&welcome.domains), welcome.features.encode());
        let signed: [&[u8]; 5] = [
            transcript.as_bytes(),
            &welcome.claims,
            &domains,
            &features,
            &[],
        ];
        welcome.signature = by.context.keys.sign_as_node(context, &signed);
    };
    // Each edit breaks the signature, except the last two, which are signed again.
    let edits: [(Edit, Misbehaviour); 6] = [
        (
            |welcome| welcome.features = Features::from_iter([Feature::Watch]),
            Misbehaviour::Signature,
        ),
        (
            |welcome| drop(welcome.domains.pop()),
            Misbehaviour::Signature,
        ),
        (
            |welcome| welcome.ticket = Some(vec![7; 89].into()),
            Misbehaviour::Signature,
        ),
        (
            |welcome| welcome.signature = Signature::from_bytes([1; 64]),
            Misbehaviour::Signature,
        ),
        (
            |welcome| drop(welcome.domains.pop()),
            Misbehaviour::DomainsDiffer,
        ),
        (
            |welcome| welcome.features = Features::from_iter([Feature::Watch]),
            Misbehaviour::FeaturesDiffer,
        ),
    ];
    for (edit, expected) in edits {
        let (mut alice, _, solution, awaiting) = alice_and_bob();
        let verified = alice.verify_solution(&solution, NOW).unwrap();
        let (frame, _) = alice.welcome(verified);
        let HandshakeMessage::Welcome(mut welcome) =
            HandshakeMessage::decode(&frame, 8192).unwrap()
        else {
            panic!()
        };
        edit(&mut welcome);
        let differs = [Misbehaviour::DomainsDiffer, Misbehaviour::FeaturesDiffer];
        if differs.contains(&expected) {
            sign(&mut welcome, &alice, Context::Welcome, &awaiting.transcript);
        }
        let result = awaiting.receive(&HandshakeMessage::Welcome(welcome).encode());
        assert!(matches!(error(result), HandshakeError::PeerMisbehaved(what) if what == expected));
    }
    for (context, other_transcript) in [(Context::Solution, false), (Context::Welcome, true)] {
        let (mut alice, _, solution, awaiting) = alice_and_bob();
        let verified = alice.verify_solution(&solution, NOW).unwrap();
        let (frame, _) = alice.welcome(verified);
        let HandshakeMessage::Welcome(mut welcome) =
            HandshakeMessage::decode(&frame, 8192).unwrap()
        else {
            panic!()
        };
        let transcript = match other_transcript {
            true => transcript(b"another challenge", &solution),
            false => awaiting.transcript,
        };
        sign(&mut welcome, &alice, context, &transcript);
        check(
            awaiting.receive(&HandshakeMessage::Welcome(welcome).encode()),
            Misbehaviour::Signature,
            RefusalCode::Signature,
        );
    }
}

#[test]
fn challenge_names_the_work_function_of_this_version() {
    let mut alice = Side::alice(easy());
    let HandshakeMessage::Challenge(challenge) =
        HandshakeMessage::decode(&alice.challenge(), 8192).unwrap()
    else {
        panic!()
    };
    let cookie = Cookie::decode(&challenge.cookie).unwrap();
    assert_eq!(cookie.algorithm, Algorithm::Argon2id1m.name());
    assert_eq!(
        (cookie.onion, cookie.effort, cookie.expiry),
        (alice.onion(), 1, NOW + 600)
    );
}

#[test]
fn claims_leave_out_identities_that_do_not_fit_a_frame() {
    let (mut alice, mut bob) = (Side::alice(easy()), Side::bob(easy()));
    for (side, bytes) in [(&mut alice, 1200), (&mut bob, 1190)] {
        let key = SecretKey::from_seed(&[1; 32]);
        side.profile.identities = vec![SignedObject::sign(0, &key, vec![7; bytes]); 8];
    }
    let challenge = alice.challenge();
    let (solution, awaiting) = bob.solve(&challenge, alice.onion());
    let verified = alice.verify_solution(&solution, NOW).unwrap();
    let at_alice = verified.claims().identities.len();
    let (welcome, _) = alice.welcome(verified);
    let at_bob = awaiting
        .receive(&welcome)
        .unwrap()
        .claims()
        .identities
        .len();
    assert!(solution.len() <= 8192 && welcome.len() <= 8192);
    // As many as fit in the frame.
    assert_eq!((at_alice, at_bob), (5, 6));
}

#[test]
fn terms_limit_the_effort_the_tier_and_the_node_that_answers() {
    let config = GateConfig {
        effort_base: 8,
        inner_bits: 4,
        ..GateConfig::default()
    };
    let (mut alice, bob) = (Side::alice(config.clone()), Side::bob(config));
    let (challenge, onion, alices) = (alice.challenge(), alice.onion(), alice.peer_id());
    let terms = |effort_max, peer| DialTerms {
        tier: Tier::Untrusted,
        effort_max,
        peer: Some(peer),
    };
    let begin = |terms| {
        let (_, next) = AwaitChallenge::begin(bob.context.clone(), onion, None);
        next.under(terms).receive(&challenge)
    };
    assert!(matches!(
        error(begin(terms(7, alices))),
        HandshakeError::PeerIncompatible(Incompatibility::Effort { asked: 8, limit: 7 })
    ));
    let mut welcomed = |peer| {
        let solving = begin(terms(8, peer)).unwrap();
        let (solution, awaiting) = bob.finish(solving, 0);
        let verified = alice.verify_solution(&solution, NOW).unwrap();
        awaiting.receive(&alice.welcome(verified).0)
    };
    assert!(matches!(
        error(welcomed(bob.peer_id())),
        HandshakeError::AnotherNode
    ));
}

#[test]
fn node_that_is_dialled_under_terms_has_their_tier() {
    let (mut alice, bob) = (Side::alice(easy()), Side::bob(easy()));
    let terms = DialTerms {
        tier: Tier::Untrusted,
        effort_max: 1 << 20,
        peer: Some(alice.peer_id()),
    };
    let challenge = alice.challenge();
    let (_, next) = AwaitChallenge::begin(bob.context.clone(), alice.onion(), None);
    let solving = next.under(terms).receive(&challenge).unwrap();
    let (solution, awaiting) = bob.finish(solving, 0);
    let verified = alice.verify_solution(&solution, NOW).unwrap();
    let admitted = awaiting.receive(&alice.welcome(verified).0).unwrap();
    assert_eq!(admitted.tier(), Tier::Untrusted);
}
