//! Table `sync_outbox`: what has to be pushed at once to the peers that the operator configured.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use bastion::Tier;
use harness::dump::{Dump, dump};
use harness::pull::package_bytes;
use harness::{Setup, TestNode, manual_sync, meet, ride};
use keys::OnionAddr;
use parking_lot::Mutex;
use postern::config::SyncConfig;
use postern::graph::SaveError;
use postern::op_context::Timestamp;
use postern::services::messages;
use postern::state_engine::PullReply;
use postern::store::{Direction, PeerRow, StoreError};
use tempfile::TempDir;

const DOMAIN: &str = "messages";

/// A configuration with these domains for the peer at an address.
fn pushing(onion: OnionAddr, domains: &[&str]) -> SyncConfig {
    let domains = domains.iter().map(ToString::to_string).collect();
    SyncConfig {
        outbox: BTreeMap::from([(onion, domains)]),
        ..manual_sync()
    }
}

/// Alice, who pushes messages to Bob, and Bob. Nothing has to be pushed.
fn pair() -> (TestNode, TestNode) {
    let bob = TestNode::new("Bob", 0);
    let alice = Setup::new("Alice")
        .sync(pushing(bob.onion(), &[DOMAIN]))
        .node();
    meet(&alice, &bob);
    find_nothing(&alice, &bob);
    assert_eq!(rows(&alice), []);
    (alice, bob)
}

/// The number of the row of each domain, for any peer.
fn rows(node: &TestNode) -> Vec<(String, u64)> {
    let rows = node.read(|view| view.rows.outbox()).into_iter();
    rows.map(|row| (row.domain, row.change_seq)).collect()
}

fn row(change_seq: u64) -> Vec<(String, u64)> {
    vec![(DOMAIN.to_owned(), change_seq)]
}

/// A push that finds nothing, as a session makes it.
fn find_nothing(node: &TestNode, to: &TestNode) {
    let (peer, examined) = (to.peer_id(), node.read(|view| view.examined(DOMAIN)));
    assert!(matches!(node.push(to, DOMAIN), PullReply::UpToDate { .. }));
    node.write(move |core, now| core.clear_outbox(now, &peer, DOMAIN, examined))
        .unwrap();
}

#[test]
fn change_that_a_configured_peer_may_read_leaves_one_row() {
    let (alice, bob) = pair();
    alice.send(bob.identity, "Hi");
    assert_eq!(rows(&alice), row(alice.head()));
    assert_eq!(alice.rows("sync_outbox").len(), 1);
}

#[test]
fn change_that_it_may_not_read_leaves_none() {
    let (alice, bob) = pair();
    let carol = TestNode::new("Carol", 0);
    meet(&alice, &carol);
    assert_eq!(
        rows(&alice),
        [],
        "Carol has no address in the configuration"
    );
    alice.send(carol.identity, "Hi");
    alice.make("rides", 1, ride("Bern", 2)).unwrap();
    assert_eq!(rows(&alice), []);
    // A received row is not exported.
    bob.send(alice.identity, "Hi");
    alice.pull_everything(&bob);
    assert_eq!((alice.texts().len(), rows(&alice)), (2, vec![]));
}

#[test]
fn write_that_is_undone_leaves_none() {
    let (alice, bob) = pair();
    let (from, to) = (alice.identity, bob.identity);
    let undone = alice.graph(move |graph| {
        messages::send(graph, from, to, "Hi")?;
        Err::<(), _>(messages::SendError::Save(SaveError::Store(
            StoreError::Inconsistent("a test"),
        )))
    });
    assert!(undone.is_err());
    assert_eq!(rows(&alice), []);
}

#[test]
fn rows_stay_one_per_domain_after_1000_changes() {
    let (alice, bob) = pair();
    let (from, to) = (alice.identity, bob.identity);
    for _ in 0..10 {
        alice
            .graph(move |graph| {
                for _ in 0..100 {
                    graph.end_group();
                    messages::send(graph, from, to, "Hi")?;
                }
                Ok::<_, messages::SendError>(())
            })
            .unwrap();
    }
    assert!(alice.head() > 1000);
    assert_eq!(rows(&alice), row(alice.head()));
}

#[test]
fn acknowledgement_of_a_pull_or_push_removes_the_row() {
    let (alice, bob) = pair();
    alice.send(bob.identity, "by a push");
    let head = alice.head();
    let package = package_bytes(alice.push(&bob, DOMAIN));
    assert_eq!(rows(&alice), row(head), "sent, and not acknowledged");
    let applied = bob.take(&alice, &package).unwrap();
    alice.acked_by(&bob, DOMAIN, applied.last_seq - 1);
    assert_eq!(rows(&alice), row(head), "a part is acknowledged");
    alice.acked_by(&bob, DOMAIN, applied.last_seq);
    assert_eq!(rows(&alice), []);
    alice.send(bob.identity, "by a pull");
    let head = alice.head();
    bob.pull(&alice, DOMAIN);
    assert_eq!(rows(&alice), row(head), "sent, and not acknowledged");
    bob.pull(&alice, DOMAIN);
    assert_eq!(rows(&alice), []);
    let cursor = alice.cursor(&bob, DOMAIN, Direction::Out).unwrap();
    assert_eq!(cursor.acked_seq, head);
}

/// The cursor does not move, so that nothing else is written.
#[test]
fn acknowledgement_that_is_known_removes_the_row_too() {
    let (alice, bob) = pair();
    alice.send(bob.identity, "Hi");
    bob.pull(&alice, DOMAIN);
    bob.pull(&alice, DOMAIN);
    let (peer, head) = (bob.peer_id(), alice.head());
    let note = |seq| {
        alice
            .graph(move |graph| graph.tx().put_outbox(&peer, DOMAIN, seq))
            .unwrap();
    };
    note(head);
    bob.pull(&alice, DOMAIN);
    assert_eq!(rows(&alice), []);
    note(head + 1);
    bob.pull(&alice, DOMAIN);
    assert_eq!(rows(&alice), row(head + 1));
}

#[test]
fn push_that_finds_nothing_removes_what_it_examined() {
    let (alice, bob) = pair();
    let (peer, head) = (bob.peer_id(), alice.head());
    for (seq, expected) in [(head, vec![]), (head + 1, row(head + 1))] {
        alice
            .graph(move |graph| graph.tx().put_outbox(&peer, DOMAIN, seq))
            .unwrap();
        find_nothing(&alice, &bob);
        assert_eq!(rows(&alice), expected);
    }
}

#[test]
fn domain_that_is_not_shared_any_more_has_no_row() {
    let (alice, bob) = pair();
    alice.send(bob.identity, "Hi");
    assert_eq!(rows(&alice), row(alice.head()));
    alice.note_peer(&bob, &["identities".to_owned()]);
    assert_eq!(rows(&alice), []);
    alice.send(bob.identity, "while the domain is not shared");
    assert_eq!(rows(&alice), []);
    alice.learn_of(&bob);
    alice.send(bob.identity, "Hi");
    assert_eq!(rows(&alice), row(alice.head()));
    alice.learn_of(&bob);
    assert_eq!(
        rows(&alice),
        row(alice.head()),
        "a new session keeps the row"
    );
}

/// A peer cannot enlarge the table with further peer ids at its address.
#[test]
fn peer_that_is_admitted_last_at_an_address_replaces_the_others() {
    let (alice, bob) = pair();
    let carol = TestNode::new("Carol", 0);
    meet(&alice, &carol);
    let peers = |node: &TestNode| -> Vec<_> {
        let rows = node.read(|view| view.rows.outbox());
        rows.into_iter().map(|row| row.peer).collect()
    };
    let admit = |row: PeerRow| {
        alice.graph(move |graph| graph.save_peer(&row)).unwrap();
        for identity in [bob.identity, carol.identity] {
            alice.send(identity, "Hi");
        }
        peers(&alice)
    };
    let at_bob = |row: PeerRow| PeerRow {
        onion: bob.onion(),
        ..row
    };
    for node in [&bob, &carol, &bob] {
        let row = alice.stored_peer(node).unwrap();
        assert_eq!(admit(at_bob(row)), [node.peer_id()]);
    }
}

#[test]
fn row_outside_the_configuration_is_deleted_at_the_start() {
    let (alice, bob) = pair();
    alice.send(bob.identity, "Hi");
    let kept = row(alice.head());
    let alice = alice.restart();
    assert_eq!(rows(&alice), kept);
    let other = pushing(bob.onion(), &["identities", "unknown"]);
    let alice = alice.into_setup().sync(other).node();
    assert_eq!(rows(&alice), []);
    let alice = alice.into_setup().sync(pushing(bob.onion(), &[DOMAIN]));
    let alice = alice.node();
    alice.send(bob.identity, "Hi");
    assert_eq!(rows(&alice), row(alice.head()));
    let alice = alice.into_setup().sync(manual_sync()).node();
    assert_eq!(rows(&alice), []);
    alice.send(bob.identity, "Hi");
    assert_eq!(rows(&alice), []);
}

/// The files of a node after each of its commits.
#[derive(Clone, Default)]
struct Copies(Arc<Mutex<Vec<TempDir>>>);

impl Copies {
    fn hook(&self, setup: &Setup) -> Box<dyn Fn() + Send + Sync> {
        let (copies, folder) = (self.0.clone(), setup.path().to_owned());
        Box::new(move || {
            let copy = tempfile::tempdir().unwrap();
            for file in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
                fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
            }
            copies.lock().push(copy);
        })
    }

    fn dumps(&self) -> Vec<Dump> {
        let copies = self.0.lock();
        let files = copies.iter().map(|copy| copy.path().join("postern.db"));
        files.map(|file| dump(&file)).collect()
    }
}

/// A crash after any commit leaves the change with its row, or neither.
#[test]
fn crash_between_commit_and_push_keeps_the_row() {
    let (alice, bob) = pair();
    let (setup, copies) = (alice.into_setup(), Copies::default());
    let hook = copies.hook(&setup);
    let alice = setup.on_commit(hook).node();
    let objects = |dump: &Dump| dump["app_messages_parent"].len();
    let before = objects(&dump(&alice.database()));
    copies.0.lock().clear();
    alice.send(bob.identity, "Hi");
    let package = package_bytes(alice.push(&bob, DOMAIN));
    let count = copies.dumps().len();
    assert!(count >= 2, "the message, and what was sent");
    for dump in copies.dumps() {
        let has_change = objects(&dump) > before;
        assert_eq!(dump["sync_outbox"].len(), usize::from(has_change));
    }
    let applied = bob.take(&alice, &package).unwrap();
    alice.acked_by(&bob, DOMAIN, applied.last_seq);
    let last = copies.dumps().pop().unwrap();
    assert_eq!(last["sync_outbox"], Vec::<String>::new());
    // The node starts again with the files that the push left, and pushes the change.
    let crashed = copies.0.lock().swap_remove(count - 1);
    let alice = alice.into_setup().folder(crashed).node();
    assert_eq!(rows(&alice).len(), 1);
    assert!(matches!(
        alice.push(&bob, DOMAIN),
        PullReply::Package { .. }
    ));
}

#[test]
fn row_of_a_forgotten_peer_is_deleted() {
    let (alice, bob) = pair();
    alice.send(bob.identity, "Hi");
    assert_eq!(rows(&alice).len(), 1);
    let peer = bob.peer_id();
    let later = Timestamp(alice.clock.timestamp().0 + 1);
    let forgotten = alice.graph(move |graph| {
        graph.tx().set_tier(&peer, Tier::Untrusted)?;
        graph.tx().forget_untrusted_peers(later, 10)
    });
    assert_eq!((forgotten.unwrap(), rows(&alice)), (1, vec![]));
}
