//! Receipts: what they state, which of them count, and what hostile ones may do
//! (docs/PROTOCOL.md 4.4).

use harness::pull::meet;
use harness::{Setup, TestNode};
use keys::{Epoch, Oid};
use postern::graph::{IdentityProfile, SaveError};
use postern::object::Object;
use postern::state_engine::{Receipt, ReceiptError};
use postern::store::{EpochReason, SettlingWork, StoreError, UNAPPLIED_MAX, UnappliedObject};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::club::{NOTE, ROOM, Versions, note, room, waiting};
use crate::stubs::{Chain, MESSAGES};
use crate::thieves::rotate;

fn pair() -> (TestNode, TestNode) {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 400));
    meet(&alice, &bob);
    (alice, bob)
}

/// A receipt of a node that applied all up to a number.
fn up_to(of: &TestNode, last_seq: u64) -> Receipt {
    Receipt {
        domain: MESSAGES.into(),
        epoch: of.epoch(),
        behind: Vec::new(),
        refused: Vec::new(),
        waiting: Vec::new(),
        last_seq: Some(last_seq),
    }
}

/// Bob refuses a later revision of one of Alice's messages.
fn refuse(alice: &TestNode, bob: &TestNode, message: Oid) {
    let (object, _) = alice.object(MESSAGES, message).unwrap();
    let later = Object { rev: 2, ..object };
    let code = alice.force_one(bob, MESSAGES, alice.sign(&later));
    assert_eq!(code.as_deref(), Some("mode"));
}

#[test]
fn nothing_is_stated_before_the_first_package() {
    let (alice, bob) = pair();
    assert_eq!(bob.next_receipt(&alice, MESSAGES), None);
    alice.send(bob.identity, "hello");
    bob.pull_everything(&alice);
    assert_eq!(
        bob.next_receipt(&alice, MESSAGES),
        Some(up_to(&alice, alice.head()))
    );
}

/// The undone write had a number above all that are stored.
#[test]
fn receipt_counts_after_a_write_that_was_undone() {
    let (alice, bob) = pair();
    let sent = alice.send(bob.identity, "hello").oid;
    bob.pull_everything(&alice);
    let (identity, profile) = (alice.identity, IdentityProfile::named(Some("Alice")));
    let undone = alice.graph(move |graph| {
        graph.save_profile(identity, &profile)?;
        Err::<(), SaveError>(StoreError::Inconsistent("an undone write").into())
    });
    assert!(undone.is_err());
    bob.send_receipts(&alice, MESSAGES);
    assert!(alice.is_delivered(sent, bob.identity));
}

#[test]
fn refused_object_is_named_once_and_stays_queued() {
    let (alice, bob) = pair();
    alice.send(bob.identity, "first");
    bob.pull_everything(&alice);
    let sent = alice.send(bob.identity, "second").oid;
    refuse(&alice, &bob, sent);
    let receipt = bob.next_receipt(&alice, MESSAGES).unwrap();
    assert_eq!(receipt.refused, [sent]);
    bob.pull_everything(&alice);
    bob.send_receipts(&alice, MESSAGES);
    assert_eq!(bob.next_receipt(&alice, MESSAGES).unwrap().refused, []);
    assert!(!alice.is_delivered(sent, bob.identity));
    let later = alice.send(bob.identity, "third").oid;
    bob.pull_everything(&alice);
    bob.send_receipts(&alice, MESSAGES);
    assert!(alice.is_delivered(later, bob.identity));
    assert!(!alice.is_delivered(sent, bob.identity));
}

/// As many rows of refused objects of one node as another one keeps, none of them real.
fn fill_refused(node: &TestNode, of: &TestNode, rows: u16) {
    let (peer, epoch) = (of.peer_id(), of.epoch());
    let oid = |number: u16| {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        Oid::from_bytes(bytes)
    };
    let oids: Vec<_> = (1..=rows).map(oid).collect();
    let max = usize::from(rows);
    let put = node.graph(move |graph| {
        let key = (&peer, MESSAGES);
        graph.tx().put_refused_objects(key, &epoch, &oids, max)
    });
    assert_eq!(put.unwrap(), max);
}

#[test]
fn scope_of_a_refused_object_that_cannot_be_kept_is_pulled_again() {
    let (alice, bob) = pair();
    alice.send(bob.identity, "first");
    bob.pull_everything(&alice);
    let sent = alice.send(bob.identity, "second");
    fill_refused(&bob, &alice, 1000);
    refuse(&alice, &bob, sent.oid);
    bob.pull_everything(&alice);
    let receipt = bob.next_receipt(&alice, MESSAGES).unwrap();
    assert_eq!((receipt.refused.len(), receipt.behind.len()), (1000, 1));
    assert_eq!(receipt.behind, [sent.conversation]);
    bob.send_receipts(&alice, MESSAGES);
    assert!(!alice.is_delivered(sent.oid, bob.identity));
    // The object is refused again, and named now.
    bob.clock.advance_ms(24 * 60 * 60 * 1000 + 1);
    let again = bob.next_again(&alice, MESSAGES).unwrap();
    assert_eq!(again.scopes, [sent.conversation]);
    refuse(&alice, &bob, sent.oid);
    bob.pull_everything(&alice);
    assert_eq!(bob.next_receipt(&alice, MESSAGES).unwrap().behind, []);
    bob.send_receipts(&alice, MESSAGES);
    assert!(!alice.is_delivered(sent.oid, bob.identity));
    let later = alice.send(bob.identity, "third").oid;
    bob.pull_everything(&alice);
    bob.send_receipts(&alice, MESSAGES);
    assert!(alice.is_delivered(later, bob.identity));
}

#[test]
fn refused_relayed_objects_use_half_of_the_room_and_stop_no_receipt() {
    let chain = Chain::new();
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    let said = chain.say(alice, "hello");
    bob.relay(alice, MESSAGES);
    carol.relay(bob, MESSAGES);
    let (object, _) = alice.object(MESSAGES, said).unwrap();
    let refused = |rev| {
        let later = alice.sign(&Object {
            rev,
            ..object.clone()
        });
        let code = bob.force_one(carol, MESSAGES, later);
        assert_eq!(code.as_deref(), Some("mode"));
        carol.next_receipt(bob, MESSAGES).unwrap()
    };
    assert_eq!(refused(2).refused, [said]);
    carol.send_receipts(bob, MESSAGES);
    fill_refused(carol, bob, 500);
    let receipt = refused(3);
    assert_eq!((receipt.refused.len(), receipt.behind.len()), (500, 0));
    let own = chain.say(bob, "of Bob");
    carol.relay(bob, MESSAGES);
    carol.send_receipts(bob, MESSAGES);
    assert!(bob.is_delivered(own, carol.identity));
}

#[test]
fn object_that_needs_a_later_schema_is_stated_after_the_upgrade() {
    let versions = Versions::new();
    let (alice, bob) = versions.pair(2, 1);
    let scope = alice.make("club", ROOM, room(&[alice.identity, bob.identity]));
    let scope = scope.unwrap().oid;
    let made = alice.make("club", NOTE, note(scope, "hello")).unwrap().oid;
    bob.pull_everything(&alice);
    let domain = "club";
    let before = bob.next_receipt(&alice, domain).unwrap();
    if waiting(&bob) > 0 {
        assert!(before.waiting.contains(&made) || before.waiting.contains(&scope));
    }
    let bob = versions.upgrade(bob, 2, &alice);
    bob.settle();
    assert_eq!(waiting(&bob), 0);
    let after = bob.next_receipt(&alice, domain).unwrap();
    assert_eq!((after.waiting.len(), after.refused.len()), (0, 0));
}

#[test]
fn receipt_of_another_epoch_is_refused_and_one_above_the_head_says_no_more() {
    let (alice, bob) = pair();
    let sent = alice.send(bob.identity, "hello").oid;
    let epoch = Epoch::from_bytes([9; 16]);
    let foreign = Receipt {
        epoch,
        ..up_to(&alice, alice.head())
    };
    let refused = alice.take_receipt(&bob, foreign);
    assert!(matches!(refused, Err(ReceiptError::Epoch)));
    alice
        .take_receipt(&bob, up_to(&alice, u64::MAX >> 1))
        .unwrap();
    assert!(alice.is_delivered(sent, bob.identity), "that is Bob's word");
    let later = alice.send(bob.identity, "later").oid;
    assert!(!alice.is_delivered(later, bob.identity));
}

#[test]
fn earlier_receipt_that_comes_late_changes_nothing() {
    let (alice, bob) = pair();
    let sent = alice.send(bob.identity, "one").oid;
    let early = up_to(&alice, alice.head());
    let waits = alice.send(bob.identity, "two").oid;
    let late = Receipt {
        waiting: vec![waits],
        ..up_to(&alice, alice.head())
    };
    alice.take_receipt(&bob, late).unwrap();
    alice.take_receipt(&bob, early).unwrap();
    let states = [sent, waits].map(|oid| alice.is_delivered(oid, bob.identity));
    assert_eq!(states, [true, false]);
}

#[test]
fn receipt_is_put_off_while_objects_are_signed_again() {
    let (alice, bob) = pair();
    alice.send(bob.identity, "hello");
    bob.pull_everything(&alice);
    let identity = alice.identity;
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    alice.keys.rotate(identity, &mut rng).unwrap();
    let step = || alice.write(move |core, now| core.rotation_step(now, identity));
    assert!(step().unwrap(), "the record");
    let receipt = bob.next_receipt(&alice, MESSAGES).unwrap();
    let taken = alice.take_receipt(&bob, receipt.clone());
    assert!(matches!(taken, Err(ReceiptError::Busy)));
    while step().unwrap() {}
    alice.take_receipt(&bob, receipt).unwrap();
    assert_eq!(alice.rows("receipt").len(), 0, "Bob has yet to get them");
    bob.pull_everything(&alice);
    bob.send_receipts(&alice, MESSAGES);
    assert_eq!(alice.rows("receipt").len(), 1);
}

#[test]
fn receipt_is_put_off_while_the_objects_of_a_scope_get_other_numbers() {
    let (alice, bob) = pair();
    let sent = alice.send(bob.identity, "hello");
    bob.pull_everything(&alice);
    let receipt = bob.next_receipt(&alice, MESSAGES).unwrap();
    let (peer, head) = (bob.peer_id(), alice.head());
    let scope = alice.parent(MESSAGES, sent.conversation).unwrap().scope_id;
    let checked = alice.write(move |core, now| {
        core.write(now, |graph| {
            let app = graph.tx().scope(scope)?.unwrap().app;
            let work = SettlingWork::Restamp(app, scope);
            graph.tx().note_span(&work, head)
        })?;
        Ok::<_, StoreError>(core.view().check_receipt(&peer, receipt))
    });
    assert!(matches!(checked.unwrap(), Err(ReceiptError::Busy)));
    bob.pull_everything(&alice);
    bob.send_receipts(&alice, MESSAGES);
    assert!(alice.is_delivered(sent.oid, bob.identity));
}

#[test]
fn objects_that_are_not_of_this_node_leave_no_rows() {
    let (alice, bob) = pair();
    let own = alice.send(bob.identity, "mine").oid;
    let theirs = bob.send(alice.identity, "yours").oid;
    alice.pull_everything(&bob);
    let mut named = vec![own, theirs, Oid::from_bytes([7; 16])];
    named.sort_unstable();
    let receipt = Receipt {
        behind: named.clone(),
        refused: named.clone(),
        waiting: named,
        ..up_to(&alice, alice.head())
    };
    alice.take_receipt(&bob, receipt).unwrap();
    assert_eq!(alice.rows("unapplied_object").len(), 1);
    assert!(!alice.is_delivered(own, bob.identity));
}

#[test]
fn domain_that_is_not_shared_and_forgotten_peers_leave_no_rows() {
    let alice = TestNode::new("alice", 0);
    let bob = Setup::new("bob").apps(&["identities"]).node();
    meet(&alice, &bob);
    alice
        .take_receipt(&bob, up_to(&alice, alice.head()))
        .unwrap();
    assert_eq!(alice.rows("receipt").len(), 0);
}

#[test]
fn message_that_waited_and_was_refused_then_stays_queued() {
    let (alice, bob) = pair();
    let sent = alice.send(bob.identity, "waits").oid;
    let waits = Receipt {
        waiting: vec![sent],
        ..up_to(&alice, alice.head())
    };
    alice.take_receipt(&bob, waits).unwrap();
    let refused = Receipt {
        refused: vec![sent],
        ..up_to(&alice, alice.head())
    };
    alice.take_receipt(&bob, refused).unwrap();
    let settled = up_to(&alice, alice.head());
    alice.take_receipt(&bob, settled).unwrap();
    assert!(!alice.is_delivered(sent, bob.identity));
}

/// Alice has rows of messages that Bob did not apply, as many as she keeps.
fn fill_unapplied(alice: &TestNode, bob: &TestNode, scope: Oid, is_refused: bool) {
    let peer = bob.peer_id();
    alice
        .graph(move |graph| {
            for number in 0..UNAPPLIED_MAX {
                let mut bytes = [0xee; 16];
                bytes[..8].copy_from_slice(&number.to_be_bytes());
                let object = UnappliedObject {
                    oid: Oid::from_bytes(bytes),
                    scope,
                    is_refused,
                    applied_at: None,
                };
                graph
                    .tx()
                    .put_unapplied_object((&peer, MESSAGES), &object)?;
            }
            Ok::<_, postern::store::StoreError>(())
        })
        .unwrap();
}

#[test]
fn no_receipt_counts_after_more_was_refused_than_is_kept() {
    let (alice, bob) = pair();
    let sent = alice.send(bob.identity, "refused");
    fill_unapplied(&alice, &bob, sent.conversation, true);
    let refused = Receipt {
        refused: vec![sent.oid],
        ..up_to(&alice, alice.head())
    };
    alice.take_receipt(&bob, refused).unwrap();
    for _ in 0..2 {
        let settled = up_to(&alice, alice.head());
        alice.take_receipt(&bob, settled).unwrap();
        assert!(!alice.is_delivered(sent.oid, bob.identity));
    }
    assert_eq!(alice.rows("unapplied_object").len(), UNAPPLIED_MAX);
}

#[test]
fn waiting_messages_that_are_too_many_to_keep_are_queued() {
    let (alice, bob) = pair();
    let first = alice.send(bob.identity, "first");
    let scope = first.conversation;
    let behind = Receipt {
        behind: vec![scope],
        ..up_to(&alice, 0)
    };
    alice.take_receipt(&bob, behind).unwrap();
    fill_unapplied(&alice, &bob, scope, false);
    let sent = alice.send(bob.identity, "second").oid;
    let waits = Receipt {
        behind: vec![scope],
        waiting: vec![sent],
        ..up_to(&alice, alice.head())
    };
    alice.take_receipt(&bob, waits).unwrap();
    assert_eq!(alice.rows("unapplied_object").len(), UNAPPLIED_MAX);
    let again = Receipt {
        waiting: vec![sent],
        ..up_to(&alice, alice.head())
    };
    alice.take_receipt(&bob, again).unwrap();
    assert!(!alice.is_delivered(sent, bob.identity));
    let settled = up_to(&alice, alice.head());
    alice.take_receipt(&bob, settled).unwrap();
    assert!(alice.is_delivered(sent, bob.identity));
}

#[test]
fn scope_that_the_peer_does_not_read_is_not_noted_as_behind() {
    let (alice, bob) = pair();
    let other = alice.another("Other", 7);
    let hidden = alice.try_send_as(other, alice.identity, "at home").unwrap();
    let sent = alice.send(bob.identity, "hello");
    let mut behind = vec![hidden.conversation, sent.oid];
    behind.sort_unstable();
    let receipt = Receipt {
        behind,
        ..up_to(&alice, alice.head())
    };
    alice.take_receipt(&bob, receipt).unwrap();
    assert_eq!(alice.rows("unapplied_scope").len(), 0);
    let delivered = alice.take_receipt(&bob, up_to(&alice, alice.head()));
    assert_eq!(delivered.unwrap(), None);
}

#[test]
fn receipt_of_an_earlier_epoch_of_its_sender_says_nothing() {
    let (alice, bob) = pair();
    let sent = alice.send(bob.identity, "hello").oid;
    let (peer, receipt) = (bob.peer_id(), up_to(&alice, alice.head()));
    let checked = alice.check_receipt(&bob, receipt).unwrap().unwrap();
    let bob = bob.into_setup().new_epoch(EpochReason::Restored).node();
    meet(&alice, &bob);
    let recorded = alice.write(move |core, now| core.record_receipt(now, &peer, &checked));
    assert_eq!(recorded.unwrap(), None);
    assert!(!alice.is_delivered(sent, bob.identity));
}

#[test]
fn check_of_a_receipt_ends_at_the_first_object_that_its_sender_lacks() {
    let (alice, bob) = pair();
    for number in 0..300 {
        alice.send(bob.identity, &format!("{number}"));
    }
    rotate(&alice, alice.identity);
    let checked = alice.check_receipt(&bob, up_to(&alice, 1)).unwrap();
    let examined = checked.unwrap().examined();
    assert!(examined < 300, "{examined}");
    alice.take_receipt(&bob, up_to(&alice, 1)).unwrap();
    assert_eq!(alice.rows("receipt").len(), 0);
}
