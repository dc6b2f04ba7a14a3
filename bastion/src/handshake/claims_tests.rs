//! The server against clients whose claims break a rule.

use keys::{Context, SchemaDigest, SecretKey, SignedObject};

use super::testing::{NOW, Side, alice_and_bob, check, easy, edit_claims};
use crate::claims::{AppClaim, Claims};
use crate::error::Misbehaviour;
use crate::messages::RefusalCode;

fn app(slug: &str, version: u32) -> AppClaim {
    AppClaim::new(slug, version, SchemaDigest::from_bytes([1; 16]))
}

fn apps<const N: usize>(slugs: [&str; N]) -> Vec<AppClaim> {
    slugs.map(|slug| app(slug, 1)).to_vec()
}

#[test]
fn rejects_claims_that_break_a_rule() {
    type Change = fn(&mut Claims);
    let rules: [(Change, &str); 8] = [
        (
            |claims| claims.apps = apps(["b", "a"]),
            "names are not sorted, or repeat",
        ),
        (
            |claims| claims.apps = vec![app("a", 1), app("a", 2)],
            "names are not sorted, or repeat",
        ),
        (
            |claims| claims.apps = apps(["Not A Slug"]),
            "a name breaks the grammar",
        ),
        (
            |claims| claims.apps = vec![app("a", 0)],
            "a schema has no valid version",
        ),
        (
            |claims| claims.apps = vec![app("a", u32::MAX)],
            "a schema has no valid version",
        ),
        (
            |claims| claims.sync_domains = vec!["a.b.c".into()],
            "a name breaks the grammar",
        ),
        (
            |claims| {
                claims.apps = (10..75)
                    .map(|number| app(&format!("a{number}"), 1))
                    .collect()
            },
            "too many names",
        ),
        (
            |claims| {
                let key = SecretKey::from_seed(&[1; 32]);
                claims.identities = vec![SignedObject::sign(0, &key, vec![0x80]); 9];
            },
            "too many identities",
        ),
    ];
    for (change, why) in rules {
        let (mut alice, bob, solution, _) = alice_and_bob();
        let edited = edit_claims(&solution, &bob, &alice, change);
        check(
            alice.verify_solution(&edited, NOW),
            Misbehaviour::Claims(why),
            RefusalCode::Malformed,
        );
    }
}

#[test]
fn onion_address_needs_its_own_signature_over_the_peer_id() {
    let carol = Side::new(4000, &[], easy());
    let stolen = |claims: &mut Claims| claims.onion = carol.onion();
    let (mut alice, bob, solution, _) = alice_and_bob();
    let edited = edit_claims(&solution, &bob, &alice, stolen);
    check(
        alice.verify_solution(&edited, NOW),
        Misbehaviour::OnionUnproved,
        RefusalCode::Onion,
    );
    // Carol's onion key signed Carol's peer id, not Bob's.
    let (mut alice, bob, solution, _) = alice_and_bob();
    let edited = edit_claims(&solution, &bob, &alice, |claims| {
        claims.onion = carol.onion();
        claims.onion_signature = carol
            .context
            .keys
            .sign_as_onion(Context::OnionBinding, &[carol.peer_id().as_bytes()]);
    });
    check(
        alice.verify_solution(&edited, NOW),
        Misbehaviour::OnionUnproved,
        RefusalCode::Onion,
    );
}
