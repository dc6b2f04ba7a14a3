//! Windows and cursors: the content of packages, and the cursors of both sides.

use bastion::Features;
use keys::Epoch;
use postern::state_engine::{PullReply, PullRequest};
use postern::store::Direction;

use harness::pull::{meet, package_bytes};
use harness::{NO_MARKET, Setup, TestNode, conversation, message, offer, ride};

fn pair() -> (TestNode, TestNode) {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 400));
    meet(&alice, &bob);
    (alice, bob)
}

#[test]
fn first_window_begins_at_zero_and_the_next_after_the_last() {
    let (alice, bob) = pair();
    alice.make("rides", 1, ride("Bern", 1)).unwrap();
    let n = alice.head();
    assert_eq!(bob.pull(&alice, "rides.offers").seqs(), Some((0, n)));
    assert_eq!(bob.pull(&alice, "rides.offers").seqs(), None);
    alice.make("rides", 1, ride("Basel", 1)).unwrap();
    alice.make("market", 1, offer("a bike")).unwrap();
    let m = alice.head();
    assert_eq!(m, n + 2);
    let pulled = bob.pull(&alice, "rides.offers");
    assert_eq!(
        (pulled.seqs(), pulled.objects),
        (Some((n + 1, m)), 1),
        "scanned to the head, including the quiet stretch"
    );
    let (sent, applied) = (
        alice.cursor(&bob, "rides.offers", Direction::Out),
        bob.cursor(&alice, "rides.offers", Direction::In),
    );
    assert_eq!((sent.unwrap().last_seq, applied.unwrap().last_seq), (m, m));
    assert_eq!(
        (sent.unwrap().epoch, applied.unwrap().epoch),
        (alice.epoch(), alice.epoch())
    );
    assert_eq!(
        sent.unwrap().acked_seq,
        n,
        "a request acknowledges its last_seq"
    );
    bob.pull(&alice, "rides.offers");
    assert_eq!(
        alice
            .cursor(&bob, "rides.offers", Direction::Out)
            .unwrap()
            .acked_seq,
        m
    );
}

#[test]
fn empty_package_is_sent_only_after_a_long_quiet_stretch() {
    let (alice, bob) = pair();
    alice.make("rides", 1, ride("Bern", 1)).unwrap();
    let n = bob.pull(&alice, "rides.offers").applied.last_seq;
    for _ in 0..1023 {
        alice
            .make("contacts", 1, harness::card(alice.identity, "me"))
            .unwrap();
    }
    assert_eq!(bob.pull(&alice, "rides.offers").seqs(), None);
    alice
        .make("contacts", 1, harness::card(alice.identity, "me"))
        .unwrap();
    let pulled = bob.pull(&alice, "rides.offers");
    assert_eq!(
        (pulled.seqs(), pulled.objects),
        (Some((n + 1, n + 1024)), 0),
        "an empty package moves the cursor"
    );
    assert_eq!(bob.pull(&alice, "rides.offers").seqs(), None);
}

#[test]
fn domain_outside_the_intersection_looks_empty_and_changes_nothing() {
    let (alice, bob) = (
        TestNode::new("alice", 0),
        Setup::new("bob").apps(&NO_MARKET).node(),
    );
    meet(&alice, &bob);
    alice.make("market", 1, offer("a bike")).unwrap();
    let before = alice.dump();
    for domain in ["market.public_offers", "no.such_domain", ""] {
        for last_seq in [0, 5, u64::MAX] {
            let request = PullRequest {
                again: None,
                peer: bob.peer_id(),
                domain: domain.into(),
                last_seq,
                epoch: None,
                features: Features::none(),
                whole_after: None,
            };
            assert_eq!(
                alice.answer(&request),
                PullReply::UpToDate {
                    last_seq,
                    in_intersection: false
                }
            );
        }
    }
    let empty = PullRequest {
        again: None,
        peer: bob.peer_id(),
        domain: "rides.offers".into(),
        last_seq: 5,
        epoch: None,
        features: Features::none(),
        whole_after: None,
    };
    let answer = alice
        .read(move |view| Ok(view.build_package(&empty)))
        .unwrap();
    assert!(
        matches!(
            answer,
            PullReply::UpToDate {
                last_seq: 5,
                in_intersection: true
            }
        ),
        "{answer:?}"
    );
    assert_eq!(alice.dump(), before);
    assert_eq!(alice.rows("sync_state"), Vec::<String>::new());
}

#[test]
fn unknown_peer_gets_the_reply_of_a_peer_without_domains() {
    let (alice, carol) = (TestNode::new("alice", 0), TestNode::new("carol", 0));
    alice.make("rides", 1, ride("Bern", 1)).unwrap();
    let before = alice.dump();
    assert!(matches!(
        alice.answer(&carol.request(&alice, "rides.offers")),
        PullReply::UpToDate {
            in_intersection: false,
            ..
        }
    ));
    assert_eq!(alice.dump(), before);
}

#[test]
fn cursor_of_another_epoch_is_ignored() {
    let (alice, bob) = pair();
    alice.make("rides", 1, ride("Bern", 1)).unwrap();
    let n = bob.pull(&alice, "rides.offers").applied.last_seq;
    let old = PullRequest {
        epoch: Some(Epoch::from_bytes([9; 16])),
        ..bob.request(&alice, "rides.offers")
    };
    let PullReply::Package { window, .. } = alice.answer(&old) else {
        panic!("no package was sent")
    };
    assert_eq!((window.from_seq, window.to_seq), (0, n));

    // After a restore Alice's node has another epoch, whose numbers begin again.
    let restored = Epoch::from_bytes([8; 16]);
    let mut package = alice.package(&bob, "rides.offers", (0, 2), Vec::new());
    package.epoch = restored;
    assert_eq!(
        bob.take(&alice, &package.sign(&alice.keys, &Features::none()))
            .unwrap()
            .last_seq,
        2
    );
    assert_eq!(
        bob.cursor(&alice, "rides.offers", Direction::In)
            .unwrap()
            .epoch,
        restored
    );
    (package.epoch, package.from_seq, package.to_seq) = (Epoch::from_bytes([7; 16]), 3, 4);
    assert!(
        bob.take(&alice, &package.sign(&alice.keys, &Features::none()))
            .is_err(),
        "a window of a new epoch must begin at 0"
    );
}

#[test]
fn request_beyond_the_head_acknowledges_only_the_head() {
    let (alice, bob) = pair();
    alice.make("rides", 1, ride("Bern", 1)).unwrap();
    let (domain, epoch) = ("rides.offers".to_owned(), Some(alice.epoch()));
    let ahead = PullRequest {
        again: None,
        peer: bob.peer_id(),
        domain,
        last_seq: u64::MAX,
        epoch,
        features: Features::none(),
        whole_after: None,
    };
    assert!(matches!(
        alice.answer(&ahead),
        PullReply::UpToDate {
            last_seq: u64::MAX,
            ..
        }
    ));
    assert_eq!(
        alice
            .cursor(&bob, "rides.offers", Direction::Out)
            .unwrap()
            .acked_seq,
        alice.head()
    );
}

#[test]
fn push_repeats_unacknowledged_objects_and_mixes_with_pull() {
    let (alice, bob) = pair();
    alice.make("rides", 1, ride("Bern", 1)).unwrap();
    let lost = package_bytes(alice.push(&bob, "rides.offers"));
    alice.make("rides", 1, ride("Basel", 1)).unwrap();
    let second = package_bytes(alice.push(&bob, "rides.offers"));
    let applied = bob.take(&alice, &second).unwrap();
    assert_eq!(applied.written, 2, "the lost push is in the next one");
    alice.acked_by(&bob, "rides.offers", applied.last_seq);
    assert!(matches!(
        alice.push(&bob, "rides.offers"),
        PullReply::UpToDate { .. }
    ));
    assert_eq!(bob.pull(&alice, "rides.offers").seqs(), None);
    let late = bob.take(&alice, &lost).unwrap();
    assert_eq!(
        (late.written, late.last_seq),
        (0, applied.last_seq),
        "the late package is acknowledged at the cursor"
    );
}

#[test]
fn restart_keeps_cursors_and_reuses_no_change_seq() {
    let (alice, bob) = pair();
    alice.make("rides", 1, ride("Bern", 1)).unwrap();
    bob.pull_everything(&alice);
    let (head, epoch) = (alice.head(), alice.epoch());
    let (alice, bob) = (alice.restart(), bob.restart());
    assert_eq!((alice.head(), alice.epoch()), (head, epoch));
    assert_eq!(bob.pull(&alice, "rides.offers").seqs(), None);
    let next = alice.make("rides", 1, ride("Basel", 1)).unwrap();
    assert_eq!(next.change_seq, head + 1);
    assert_eq!(
        bob.pull(&alice, "rides.offers").seqs(),
        Some((head + 1, head + 1))
    );
}

#[test]
fn package_contains_only_readable_objects() {
    let (alice, bob, carol) = (
        TestNode::new("alice", 0),
        TestNode::new("bob", 10),
        TestNode::new("carol", 20),
    );
    for (one, other) in [(&alice, &bob), (&alice, &carol), (&bob, &carol)] {
        meet(one, other);
    }
    alice.send(bob.identity, "for Bob only");
    let begun = alice
        .make(
            "messages",
            1,
            conversation(&[alice.identity, carol.identity]),
        )
        .unwrap();
    alice
        .make("messages", 2, message(begun.oid, "for Carol only"))
        .unwrap();
    alice
        .make("contacts", 1, harness::card(bob.identity, "my friend Bob"))
        .unwrap();
    for domain in alice.sync_domains() {
        let rounds = carol.pull_all(&alice, &domain);
        let expected = if domain == "messages" {
            2
        } else if domain == "identities" {
            1
        } else {
            0
        };
        assert_eq!(
            rounds.iter().map(|round| round.objects).sum::<usize>(),
            expected,
            "{domain}"
        );
    }
    bob.pull_everything(&alice);
    assert_eq!(bob.texts(), [(alice.identity, "for Bob only".to_owned())]);
    assert_eq!(
        carol.texts(),
        [(alice.identity, "for Carol only".to_owned())]
    );
    assert!(!format!("{:?}", carol.dump()).contains("Bob only"));
    // Bob does not send on Alice's objects, even to a reader.
    assert_eq!(carol.pull_everything(&bob), 0);
}
