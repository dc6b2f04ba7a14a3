//! The limits of packages: how many bytes, objects and stubs each has.

use postern::graph::WriteRequest;
use postern::state_engine::{BuildError, CoreLimits, PackageLimits, PullReply};
use proptest::prelude::*;

use harness::pull::meet;
use harness::{Setup, TestNode, conversation, message, ride};
use keys::protocol::STUBS_MAX;

use crate::stubs::Chain;

/// A node with these package limits.
fn small(name: &str, bytes_max: usize, objects_max: usize) -> TestNode {
    let package = PackageLimits {
        bytes_max,
        objects_max,
    };
    let limits = CoreLimits {
        package,
        ..CoreLimits::default()
    };
    Setup::new(name).limits(limits).node()
}

#[test]
fn package_limits_cut_between_change_groups_and_set_more() {
    let (alice, bob) = (small("alice", 960 * 1024, 3), small("bob", 960 * 1024, 3));
    meet(&alice, &bob);
    // Two change groups of two objects each, then two of one.
    for name in ["one", "two"] {
        let (identity, other) = (alice.identity, bob.identity);
        let context = alice.context(identity, "messages");
        let name = name.to_owned();
        alice
            .graph(move |graph| {
                let request = |type_number, attrs| WriteRequest {
                    app: "messages".into(),
                    type_number,
                    oid: None,
                    owner: identity,
                    attrs: Some(attrs),
                };
                let group =
                    graph.save_with_sync(&context, request(1, conversation(&[identity, other])))?;
                graph.save_with_sync(&context, request(2, message(group.oid, &name)))
            })
            .unwrap();
    }
    let head = alice.head();
    let rounds = bob.pull_all(&alice, "messages");
    let windows: Vec<_> = rounds
        .iter()
        .map(|round| (round.seqs(), round.objects, round.more))
        .collect();
    assert_eq!(
        windows,
        [
            (Some((0, head - 1)), 2, true),
            (Some((head, head)), 2, false)
        ]
    );
    assert_eq!(bob.rejects(), Vec::<String>::new());
    assert_eq!(bob.texts().len(), 2);
}

#[test]
fn change_group_larger_than_a_package_is_an_error() {
    let (alice, bob) = (small("alice", 960 * 1024, 1), TestNode::new("bob", 0));
    meet(&alice, &bob);
    let sent = alice.send(bob.identity, "Hi");
    let request = bob.request(&alice, "messages");
    let built = alice.read(move |view| Ok(view.build_package(&request)));
    let Err(BuildError::GroupTooLarge { change_seq, .. }) = built else {
        panic!("{built:?}")
    };
    assert_eq!(change_seq, sent.change_seq);
}

#[test]
fn change_group_waits_for_the_next_package_if_its_stubs_do_not_fit() {
    let Chain {
        alice, bob, talk, ..
    } = Chain::new();
    let context = alice.context(alice.identity, "messages");
    for count in [STUBS_MAX - 1, 2] {
        let request = WriteRequest {
            app: "messages".into(),
            type_number: 2,
            oid: None,
            owner: alice.identity,
            attrs: Some(message(talk, "hello")),
        };
        let context = context.clone();
        alice
            .graph(move |graph| {
                let mut saves = (0..count).map(|_| graph.save_with_sync(&context, request.clone()));
                saves.try_for_each(|saved| saved.map(drop))
            })
            .unwrap();
    }
    let got = bob.relay(&alice, "messages");
    assert_eq!(got.applied.rejected, 0);
    assert_eq!(bob.texts().len(), STUBS_MAX + 1);
}

#[test]
fn objects_that_are_too_long_together_come_in_several_packages() {
    let (alice, bob) = (small("alice", 4000, 100), small("bob", 4000, 100));
    meet(&alice, &bob);
    for _ in 0..5 {
        let mut attrs = ride("Bern", 1);
        attrs.insert(6, vec!["x".repeat(1400).as_str().into()]);
        alice.make("rides", 1, attrs).unwrap();
    }
    let rounds = bob.pull_all(&alice, "rides.offers");
    let objects: Vec<_> = rounds.iter().map(|round| round.objects).collect();
    assert_eq!(objects, [2, 2, 1]);
}

#[test]
fn stubs_that_are_too_long_together_come_in_several_packages() {
    let alice = small("alice", 4000, 100);
    let (bob, carol) = (TestNode::new("bob", 300), TestNode::new("carol", 600));
    meet(&alice, &bob);
    meet(&alice, &carol);
    let people = [alice.identity, bob.identity, carol.identity];
    let talk = alice
        .make("messages", 1, conversation(&people))
        .unwrap()
        .oid;
    for _ in 0..130 {
        alice.make("messages", 2, message(talk, "hello")).unwrap();
    }
    let got = bob.relay(&alice, "messages");
    assert_eq!((got.whole, got.stubs.len()), (0, 131));
    assert!(
        got.packages.iter().all(|&length| length <= 4000),
        "{:?}",
        got.packages
    );
    // Each stub counts with a place and an owner.
    assert_eq!(got.packages.len(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Any limits that hold the largest change group give the same objects, in packages within the
    /// limits.
    #[test]
    fn package_limits_change_only_the_windows(
        (bytes_max, objects_max) in (3000..20_000usize, 1..9usize),
        notes in proptest::collection::vec(0..1500usize, 1..12),
    ) {
        let alice = small("alice", bytes_max, objects_max);
        let bob = small("bob", bytes_max, objects_max);
        meet(&alice, &bob);
        let mut made = Vec::new();
        for length in notes {
            let mut attrs = ride("Bern", 1);
            attrs.insert(6, vec!["x".repeat(length).as_str().into()]);
            made.push(alice.make("rides", 1, attrs).unwrap());
        }
        let (mut last_seq, mut objects) = (0, 0);
        loop {
            let request = bob.request(&alice, "rides.offers");
            let PullReply::Package { window, objects: count, more, bytes } =
                alice.answer(&request)
            else {
                panic!("ended early")
            };
            prop_assert!(bytes.len() <= bytes_max && count <= objects_max && count > 0);
            prop_assert_eq!(window.from_seq, if last_seq == 0 { 0 } else { last_seq + 1 });
            prop_assert_eq!(bob.take(&alice, &bytes).unwrap().written, count);
            (last_seq, objects) = (window.to_seq, objects + count);
            if !more {
                break;
            }
        }
        prop_assert_eq!((last_seq, objects), (alice.head(), made.len()));
        for saved in made {
            prop_assert_eq!(bob.object("rides", saved.oid), alice.object("rides", saved.oid));
        }
    }
}
