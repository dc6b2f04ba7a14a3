//! Identities that a node learns of late: their earlier history is named and sent again.

use keys::Oid;
use postern::object::Object;
use postern::services::{identities, messages};
use postern::state_engine::{PullReply, PullRequest};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use harness::pull::meet;
use harness::{Setup, TestNode, conversation, message};

use crate::scopes::{FOLDER, PAGE, folder, page, writer_of_two_domains};

/// A package as its recipient sees it.
#[derive(Debug, PartialEq, Eq)]
struct Opened {
    seqs: (u64, u64),
    more: bool,
    /// The scopes to ask for again.
    scopes: Option<Vec<Oid>>,
    objects: Vec<Oid>,
}

/// The reply to a pull, as its recipient sees it; none if nothing is new.
fn ask(from: &TestNode, request: &PullRequest, by: &TestNode) -> Option<Opened> {
    let PullReply::Package { bytes, .. } = from.answer(request) else {
        return None;
    };
    let limits = by.limits();
    let mut package = by.verify(from, &bytes).unwrap();
    let objects = package.take_objects();
    let objects = objects.iter().map(|object| {
        Object::from_bytes(object.bytes(), &limits.graph.object)
            .unwrap()
            .oid
    });
    Some(Opened {
        seqs: (package.window().from_seq, package.window().to_seq),
        more: package.more(),
        scopes: package.scopes().map(<[Oid]>::to_vec),
        objects: objects.collect(),
    })
}

/// Another identity of a node, which other nodes do not know yet.
fn second_identity(node: &TestNode) -> Oid {
    let identity = node
        .keys
        .add_identity(&mut ChaCha20Rng::seed_from_u64(77))
        .unwrap();
    node.graph(move |graph| identities::publish(graph, identity, Some("Second")))
        .unwrap();
    identity
}

/// A conversation of the node's identity with others, and its messages.
fn converse(node: &TestNode, with: &[Oid], texts: &[&str]) -> Vec<Oid> {
    let participants: Vec<Oid> = [&[node.identity], with].concat();
    let founded = node
        .make("messages", 1, conversation(&participants))
        .unwrap();
    let messages = texts.iter().map(|text| {
        let saved = node.make("messages", 2, message(founded.oid, text));
        saved.unwrap().oid
    });
    std::iter::once(founded.oid).chain(messages).collect()
}

/// Sends messages in one transaction, each in a change group of its own.
fn send_many(node: &TestNode, to: Oid, count: usize) {
    let sender = node.identity;
    node.graph(move |graph| {
        for _ in 0..count {
            graph.end_group();
            messages::send(graph, sender, to, "x")?;
        }
        Ok::<_, messages::SendError>(())
    })
    .unwrap();
}

fn pair() -> (TestNode, TestNode) {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 400));
    meet(&alice, &bob);
    (alice, bob)
}

fn again(bob: &TestNode, alice: &TestNode, scopes: &[Oid], last_seq: u64) -> PullRequest {
    PullRequest {
        last_seq,
        again: Some(scopes.to_vec()),
        ..bob.request(alice, "messages")
    }
}

#[test]
fn a_late_identity_has_its_scope_named_and_gets_it_from_the_beginning() {
    let (alice, bob) = pair();
    let late = second_identity(&bob);
    let history = converse(&alice, &[late], &["one", "two"]);
    alice.send(bob.identity, "for the known identity");
    assert_eq!(bob.pull_all(&alice, "messages").len(), 1);
    let cursor = bob.request(&alice, "messages").last_seq;
    assert_eq!(cursor, alice.head(), "the cursor has passed the history");
    bob.pull(&alice, "messages");
    alice.pull_all(&bob, "identities");

    let request = bob.request(&alice, "messages");
    let named = ask(&alice, &request, &bob).unwrap();
    let expected = Opened {
        seqs: (cursor + 1, alice.head()),
        more: false,
        scopes: Some(vec![history[0]]),
        objects: vec![],
    };
    assert_eq!(named, expected, "a package without objects names the scope");
    let state = alice.cursor(&bob, "messages", postern::store::Direction::Out);
    let whole = ask(&alice, &again(&bob, &alice, &[history[0]], 0), &bob).unwrap();
    let expected = Opened {
        seqs: (0, alice.head()),
        more: false,
        scopes: Some(vec![]),
        objects: history.clone(),
    };
    assert_eq!(whole, expected);
    assert_eq!(
        alice.cursor(&bob, "messages", postern::store::Direction::Out),
        state,
        "what is asked for again says nothing about the cursor"
    );
    let done = ask(
        &alice,
        &again(&bob, &alice, &[history[0]], alice.head()),
        &bob,
    );
    assert_eq!(done, None);

    // Later messages come as usual, and nothing is sent again.
    let later = alice
        .make("messages", 2, message(history[0], "three"))
        .unwrap();
    let request = PullRequest {
        last_seq: named.seqs.1,
        ..request
    };
    let news = ask(&alice, &request, &bob).unwrap();
    assert_eq!((news.scopes, news.objects), (Some(vec![]), vec![later.oid]));
}

/// How many of these objects a node has.
fn count_of(node: &TestNode, oids: &[Oid]) -> usize {
    let has = |oid: &&Oid| node.parent("messages", **oid).is_some();
    oids.iter().filter(has).count()
}

#[test]
fn a_late_identity_gets_everything_by_ordinary_pulls() {
    let (alice, bob) = pair();
    let late = second_identity(&bob);
    let history = converse(&alice, &[late], &["one", "two"]);
    bob.pull_all(&alice, "messages");
    alice.pull_all(&bob, "identities");
    let later = alice
        .make("messages", 2, message(history[0], "three"))
        .unwrap();
    bob.pull_all(&alice, "messages");
    assert_eq!(count_of(&bob, &history), history.len());
    assert_eq!(count_of(&bob, &[later.oid]), 1);
    assert_eq!(bob.again_count(&alice), 0);
    let last = bob.pull_all(&alice, "messages");
    assert_eq!(last.iter().map(|it| it.objects).sum::<usize>(), 0);
}

#[test]
fn a_late_identity_gets_everything_by_a_push_and_a_pull() {
    let (alice, bob) = pair();
    let late = second_identity(&bob);
    let history = converse(&alice, &[late], &["one"]);
    bob.pull_all(&alice, "messages");
    alice.pull_all(&bob, "identities");
    let pushed = harness::pull::package_bytes(alice.push(&bob, "messages"));
    bob.take(&alice, &pushed).unwrap();
    assert_eq!(bob.again_count(&alice), 1, "the pushed package names it");
    bob.pull_all(&alice, "messages");
    assert_eq!(count_of(&bob, &history), history.len());
}

#[test]
fn scopes_made_after_a_home_was_known_are_not_named() {
    let (alice, bob) = pair();
    let late = second_identity(&bob);
    alice.pull_all(&bob, "identities");
    let history = converse(&alice, &[late], &["one"]);
    let package = ask(&alice, &bob.request(&alice, "messages"), &bob).unwrap();
    assert_eq!((package.scopes, package.objects), (Some(vec![]), history));
}

#[test]
fn an_identity_known_before_the_first_session_is_not_named() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 400));
    let history = converse(&alice, &[bob.identity], &["one"]);
    meet(&alice, &bob);
    let package = ask(&alice, &bob.request(&alice, "messages"), &bob).unwrap();
    let missing = package.scopes.unwrap();
    assert!(
        package.objects == history || missing == [history[0]],
        "the history is sent or named"
    );
}

#[test]
fn many_late_scopes_name_the_whole_domain() {
    let (alice, bob) = pair();
    let late = second_identity(&bob);
    let context = alice.context(alice.identity, "messages");
    let (owner, count) = (alice.identity, 1025);
    alice
        .graph(move |graph| {
            for _ in 0..count {
                graph.end_group();
                let request = postern::graph::WriteRequest {
                    app: "messages".into(),
                    type_number: 1,
                    oid: None,
                    owner,
                    attrs: Some(conversation(&[owner, late])),
                };
                graph.save_with_sync(&context, request)?;
            }
            Ok::<_, postern::graph::SaveError>(())
        })
        .unwrap();
    bob.pull_all(&alice, "messages");
    alice.pull_all(&bob, "identities");
    let named = ask(&alice, &bob.request(&alice, "messages"), &bob).unwrap();
    assert_eq!((named.scopes, named.objects), (None, vec![]));
    let whole = ask(&alice, &again(&bob, &alice, &[], 0), &bob).unwrap();
    assert_eq!(whole.objects.len(), count);
    let rounds = bob.pull_all(&alice, "messages");
    let written = rounds.iter().map(|round| round.applied.written);
    assert_eq!(written.sum::<usize>(), count, "the whole domain came again");
}

#[test]
fn a_pull_of_scopes_returns_only_what_the_peer_reads_of_them() {
    let (alice, bob) = pair();
    let carol = TestNode::new("carol", 800);
    meet(&alice, &carol);
    let own = converse(&alice, &[bob.identity], &["for Bob"]);
    let other = converse(&alice, &[carol.identity], &["for Carol"]);
    let unknown = Oid::from_bytes([1; 16]);
    let asked = [own[0], other[0], unknown, own[1]];
    let package = ask(&alice, &again(&bob, &alice, &asked, 0), &bob).unwrap();
    assert_eq!(package.objects, own);
    let nothing = ask(&alice, &again(&bob, &alice, &[other[0]], 0), &bob).unwrap();
    assert_eq!((nothing.objects, nothing.more), (vec![], false));
    assert_eq!(
        nothing.seqs,
        (0, alice.head()),
        "the whole range was examined"
    );
}

#[test]
fn a_new_epoch_forgets_what_was_late() {
    let (alice, bob) = pair();
    let late = second_identity(&bob);
    let history = converse(&alice, &[late], &["one"]);
    bob.pull_all(&alice, "messages");
    alice.pull_all(&bob, "identities");
    alice
        .write(|core, now| core.start_recovery(postern::store::EpochReason::Restored, now))
        .unwrap();
    let (alice, asked) = (alice.restart(), bob.peer_id());
    let asked = alice.write(move |core, now| core.note_reclaimed_from(now, &asked, &[]));
    assert!(asked.unwrap());
    let package = ask(&alice, &bob.request(&alice, "messages"), &bob).unwrap();
    assert_eq!((package.scopes, package.objects), (Some(vec![]), history));
}

#[test]
fn a_node_reads_the_history_of_an_identity_that_moved_to_it_after_a_restart() {
    let (alice, bob) = pair();
    let late = second_identity(&bob);
    let history = converse(&alice, &[late], &["one"]);
    bob.pull_all(&alice, "messages");
    alice.pull_all(&bob, "identities");
    let alice = alice.restart();
    let named = ask(&alice, &bob.request(&alice, "messages"), &bob).unwrap();
    assert_eq!(named.scopes, Some(vec![history[0]]), "it is on the disk");
}

#[test]
fn few_objects_among_many_are_found_by_their_scopes() {
    let (alice, bob) = pair();
    let carol = TestNode::new("carol", 800);
    meet(&alice, &carol);
    let mut expected = Vec::new();
    for _ in 0..3 {
        send_many(&alice, carol.identity, 90);
        expected.extend(converse(&alice, &[bob.identity], &["a", "b"]));
        expected.push(alice.send(bob.identity, "c").oid);
    }
    send_many(&alice, carol.identity, 90);
    let package = ask(&alice, &bob.request(&alice, "messages"), &bob).unwrap();
    assert_eq!(package.objects, expected);
    assert_eq!((package.seqs, package.more), ((0, alice.head()), false));
    let request = PullRequest {
        last_seq: alice.head() - 200,
        epoch: Some(alice.epoch()),
        ..bob.request(&alice, "messages")
    };
    let package = ask(&alice, &request, &bob).unwrap();
    let after = expected.iter().copied().filter(|oid| {
        let row = alice.parent("messages", *oid).unwrap();
        row.change_seq > alice.head() - 200
    });
    assert_eq!(package.objects, after.collect::<Vec<_>>());
}

#[test]
fn a_request_examines_a_bounded_number_of_changes_and_says_how_far_it_got() {
    let limits = postern::state_engine::CoreLimits {
        entries_max: 100,
        ..Default::default()
    };
    let alice = Setup::new("alice").limits(limits).node();
    let (bob, carol) = (TestNode::new("bob", 400), TestNode::new("carol", 800));
    meet(&alice, &bob);
    meet(&alice, &carol);
    let mut expected = Vec::new();
    for _ in 0..140 {
        // More scopes than are searched at once, and few objects in each.
        send_many(&alice, carol.identity, 8);
        expected.extend(converse(&alice, &[bob.identity], &[]));
    }
    let (mut last_seq, mut objects, mut rounds) = (0, Vec::new(), 0);
    loop {
        let request = PullRequest {
            last_seq,
            ..bob.request(&alice, "messages")
        };
        let package = ask(&alice, &request, &bob).unwrap();
        assert!(package.seqs.1 > last_seq, "every request gets further");
        assert!(package.objects.len() <= 400);
        last_seq = package.seqs.1;
        objects.extend(package.objects);
        rounds += 1;
        if !package.more {
            break;
        }
    }
    assert_eq!(last_seq, alice.head());
    assert_eq!(objects, expected);
    assert!((2..=20).contains(&rounds), "{rounds} requests");
}

#[test]
fn a_domain_starts_again_when_that_of_its_scopes_is_shared() {
    let [alice, bob] = ["alice", "bob"].map(|name| writer_of_two_domains(name, 0));
    meet(&alice, &bob);
    let only = |domains: &[&str]| {
        let domains: Vec<String> = domains.iter().map(|name| (*name).to_owned()).collect();
        alice.note_peer(&bob, &domains);
        bob.note_peer(&alice, &domains);
    };
    only(&["identities", "wiki.pages"]);
    let attrs = folder(&[&alice, &bob], "both");
    let plans = alice.make("wiki", FOLDER, attrs).unwrap().oid;
    let first = alice.make("wiki", PAGE, page(plans, "text")).unwrap().oid;
    assert_eq!(
        bob.pull(&alice, "wiki.pages").objects,
        0,
        "its folder is not shared"
    );
    for _ in 0..1100 {
        let attrs = folder(&[&alice], "own");
        alice.make("wiki", FOLDER, attrs).unwrap();
    }
    assert_eq!(bob.pull(&alice, "wiki.pages").objects, 0);
    assert!(
        bob.request(&alice, "wiki.pages").last_seq > 1000,
        "the cursor has passed it"
    );
    only(&["identities", "wiki.folders", "wiki.pages"]);
    assert_eq!(bob.request(&alice, "wiki.pages").last_seq, 0);
    bob.pull_all(&alice, "wiki.folders");
    bob.pull_all(&alice, "wiki.pages");
    assert!(bob.parent("wiki", first).is_some());
    // Sharing the same domains again changes nothing.
    let cursor = bob.request(&alice, "wiki.pages").last_seq;
    only(&["identities", "wiki.folders", "wiki.pages"]);
    assert_eq!(bob.request(&alice, "wiki.pages").last_seq, cursor);
}
