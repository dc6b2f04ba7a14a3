//! The server against clients whose claims break a rule.

use keys::{Context, SecretKey, SignedObject};

use super::testing::{NOW, Side, alice_and_bob, check, easy, edit_claims};
use crate::claims::Claims;
use crate::error::Misbehaviour;
use crate::messages::RefusalCode;

#[test]
fn rejects_claims_that_break_a_rule() {
    type Change = fn(&mut Claims);
    let rules: [(Change, &str); 6] = [
        (
            |claims| claims.apps = vec!["b".into(), "a".into()],
            "names are not sorted, or repeat",
        ),
        (
            |claims| claims.apps = vec!["a".into(), "a".into()],
            "names are not sorted, or repeat",
        ),
        (
            |claims| claims.apps = vec!["Not A Slug".into()],
            "a name breaks the grammar",
        ),
        (
            |claims| claims.sync_domains = vec!["a.b.c".into()],
            "a name breaks the grammar",
        ),
        (
            |claims| claims.apps = (10..75).map(|number| format!("a{number}")).collect(),
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
