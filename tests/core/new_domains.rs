//! A new domain of a type that has rows: these rows get its bit, in portions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bastion::Features;
use harness::{Setup, TestNode, context_of};
use keys::{Oid, PeerId};
use parking_lot::Mutex;
use postern::graph::{GraphManager, SaveError, WriteRequest};
use postern::object::{Attrs, Rights, Value};
use postern::schema::identities;
use postern::state_engine::{PullReply, PullRequest, StateEngine};
use postern::store::StoreError;
use rand::SeedableRng as _;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::club::{NEWS, NOTE, ROOM, Versions, news, note, room, waiting};

/// Lets two nodes share only some domains.
fn share(one: &TestNode, other: &TestNode, domains: &[&str]) {
    let domains: Vec<_> = domains.iter().map(ToString::to_string).collect();
    one.note_peer(other, &domains);
    other.note_peer(one, &domains);
}

#[test]
fn new_domain_reaches_a_peer_that_shares_only_that_domain() {
    let versions = Versions::new();
    let (alice, bob) = versions.pair(2, 3);
    let mut made = vec![alice.make("club", NEWS, news("first")).unwrap().oid];
    let place = alice.make("club", ROOM, room(&[alice.identity, bob.identity]));
    let place = place.unwrap().oid;
    made.push(place);
    made.push(alice.make("club", NOTE, note(place, "Hi")).unwrap().oid);
    let alice = versions.upgrade(alice, 3, &bob);
    share(&alice, &bob, &["identities", "club.headlines"]);
    made.push(alice.make("club", NEWS, news("later")).unwrap().oid);
    bob.pull_all(&alice, "club.headlines");
    for oid in made {
        assert!(bob.parent("club", oid).is_some());
    }
    assert_eq!((waiting(&bob), bob.rejects().len()), (0, 0));
}

/// A rights list travels in the domains of its scope's Parent. Without it a new reader could not
/// judge what follows.
#[test]
fn rights_lists_follow_their_scope_into_the_new_domain() {
    let versions = Versions::new();
    let (alice, bob) = versions.pair(2, 3);
    let place = alice.make("club", ROOM, room(&[alice.identity]));
    let place = place.unwrap().oid;
    let added = [(bob.identity, Some(Rights::READ_WRITE))];
    let list = alice.set_rights("club", place, &added).unwrap().oid;
    let within = alice.make("club", NOTE, note(place, "Hi")).unwrap().oid;
    let alice = versions.upgrade(alice, 3, &bob);
    share(&alice, &bob, &["identities", "club.headlines"]);
    bob.pull_all(&alice, "club.headlines");
    for oid in [place, list, within] {
        assert!(bob.parent("club", oid).is_some());
    }
    assert_eq!((waiting(&bob), bob.rejects().len()), (0, 0));
}

/// Received rows are not exported, also not in a new domain.
#[test]
fn received_rows_get_no_bit() {
    let versions = Versions::new();
    let (alice, bob) = versions.pair(2, 2);
    let made = alice.make("club", NEWS, news("first")).unwrap().oid;
    bob.pull_everything(&alice);
    let bob = versions.upgrade(bob, 3, &alice);
    assert_eq!(bob.parent("club", made).unwrap().sync_flags, 0);
    let alice = versions.upgrade(alice, 3, &bob);
    let flags = alice.parent("club", made).unwrap().sync_flags;
    assert_eq!(flags.count_ones(), 2);
}

/// No file changes the app `identities`, so that its domain loses its bit and gets it again.
#[test]
fn unlisted_rows_get_no_bit() {
    let alice = TestNode::new("alice", 0);
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([5; 32]);
    let listed = alice.keys.add_identity(&mut rng).unwrap();
    alice
        .graph(move |graph| postern::services::identities::publish(graph, listed, Some("Anne")))
        .unwrap();
    let (object, _) = alice.object("identities", alice.identity).unwrap();
    let mut attrs = object.attrs.unwrap();
    attrs.insert(identities::LISTED, vec![Value::from(0)]);
    let kind = ("identities", identities::IDENTITY);
    let changed = alice.change(kind.0, kind.1, alice.identity, Some(attrs));
    changed.unwrap();
    let setup = alice.into_setup();
    let database = Connection::open(setup.database()).unwrap();
    let forget = "DELETE FROM domain_bit WHERE domain = 'identities'";
    assert_eq!(database.execute(forget, []).unwrap(), 1);
    drop(database);
    let alice = setup.node();
    assert_eq!(
        alice
            .parent("identities", alice.identity)
            .unwrap()
            .sync_flags,
        0
    );
    let mask = alice.read(|view| Ok(view.rows.apps().mask("identities")));
    let bits = alice.parent("identities", listed).unwrap().sync_flags;
    assert_eq!((mask.count_ones(), bits & mask), (1, mask));
    assert_eq!(alice.rows("settling").len(), 0);
}

/// A core of version 3 over 600 news of version 2. Its bits of the new domain are not set yet.
fn behind_its_flags(versions: &Versions, with_rooms: bool) -> (StateEngine, Setup, TestNode) {
    behind(versions, versions.pair(2, 3), with_rooms)
}

fn behind(
    versions: &Versions,
    (alice, bob): (TestNode, TestNode),
    with_rooms: bool,
) -> (StateEngine, Setup, TestNode) {
    let (one, other) = (alice.identity, bob.identity);
    let context = alice.context(one, "club");
    let many = move |graph: &mut GraphManager<'_>| {
        for number in 0..600 {
            graph.end_group();
            let attrs = match with_rooms && number % 100 > 0 {
                true => room(&[one]),
                false if with_rooms => room(&[one, other]),
                false => news(&number.to_string()),
            };
            let type_number = if with_rooms { ROOM } else { NEWS };
            graph.save_with_sync(&context, write_request(one, type_number, attrs))?;
        }
        Ok::<_, SaveError>(())
    };
    alice.graph(many).unwrap();
    share(&alice, &bob, &["identities", "club.headlines"]);
    let mut setup = alice.into_setup().schema_dir(&versions.folder(3));
    (setup.open(), setup, bob)
}

fn write_request(owner: Oid, type_number: u16, attrs: Attrs) -> WriteRequest {
    WriteRequest {
        app: "club".into(),
        type_number,
        oid: None,
        owner,
        attrs: Some(attrs),
    }
}

/// Pulls until the core has nothing more. Returns the number of objects and the new cursor.
fn pull_from(core: &StateEngine, peer: PeerId, mut last_seq: u64) -> (usize, u64) {
    let mut count = 0;
    loop {
        let request = PullRequest {
            peer,
            domain: "club.headlines".into(),
            last_seq,
            epoch: Some(core.context().epoch),
            again: None,
            features: Features::none(),
            whole_after: None,
        };
        let reply = core.view().build_package(&request).unwrap();
        let PullReply::Package {
            window, objects, ..
        } = reply
        else {
            return (count, last_seq);
        };
        (count, last_seq) = (count + objects, window.to_seq);
    }
}

/// A peer pulls between the portions, while more than a batch of new rows is written.
fn pulls_during_flag_work(with_rooms: bool) {
    let versions = Versions::new();
    let (mut core, setup, bob) = behind_its_flags(&versions, with_rooms);
    let (now, identity) = (setup.timestamp(), setup.identity());
    let (mut count, mut last_seq, mut portions) = (0, 0, 0);
    loop {
        let context = context_of(&core.view(), identity, "club").unwrap();
        core.write(now, |graph| {
            for _ in 0..70 {
                graph.end_group();
                graph.save_with_sync(&context, write_request(identity, NEWS, news("new")))?;
            }
            Ok::<_, SaveError>(())
        })
        .unwrap();
        let pulled = pull_from(&core, bob.peer_id(), last_seq);
        (count, last_seq) = (count + pulled.0, pulled.1);
        if !core.settle_step(now).unwrap() {
            break;
        }
        portions += 1;
    }
    let readable = if with_rooms { 6 } else { 600 };
    let pulled = pull_from(&core, bob.peer_id(), last_seq);
    assert_eq!(count + pulled.0, readable + 70 * (portions + 1));
    assert!(portions >= 3, "{portions}");
}

#[test]
fn flags_are_set_in_portions_and_no_cursor_passes_them() {
    pulls_during_flag_work(false);
    pulls_during_flag_work(true);
}

/// A push finds nothing in a domain of which rows lack the bit. The row of `sync_outbox` stays, and
/// the last portion wakes the push.
#[test]
fn push_that_finds_nothing_keeps_the_row_while_rows_lack_the_bit() {
    const DOMAIN: &str = "club.headlines";
    let versions = Versions::new();
    let (mut core, setup, bob) = behind_its_flags(&versions, false);
    let (now, peer) = (setup.timestamp(), bob.peer_id());
    let configured = BTreeMap::from([(bob.onion(), vec![DOMAIN.to_owned()])]);
    core.plan_outbox(now, &configured).unwrap();
    let context = context_of(&core.view(), setup.identity(), "club").unwrap();
    core.write(now, |graph| {
        graph.save_with_sync(&context, write_request(setup.identity(), NEWS, news("new")))
    })
    .unwrap();
    let row = |core: &StateEngine| core.view().rows.outbox_seq(&peer, DOMAIN).unwrap();
    let head = core.view().head().unwrap();
    let examined = core.view().examined(DOMAIN).unwrap();
    assert!(examined < head);
    core.clear_outbox(now, &peer, DOMAIN, examined).unwrap();
    assert_eq!(row(&core), Some(head));
    core.take_touched();
    while core.settle_step(now).unwrap() {}
    assert!(core.take_touched().is_everything());
    assert_eq!(core.view().examined(DOMAIN).unwrap(), head);
    assert_eq!(pull_from(&core, peer, 0).0, 601);
    core.record_ack(now, &peer, DOMAIN, head).unwrap();
    assert_eq!(row(&core), None);
}

#[test]
fn row_that_is_resigned_meanwhile_keeps_every_domain() {
    let versions = Versions::new();
    let (mut core, setup, bob) = behind_its_flags(&versions, false);
    let (now, identity) = (setup.timestamp(), setup.identity());
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([3; 32]);
    core.context().keys.rotate(identity, &mut rng).unwrap();
    while core.rotation_step(now, identity).unwrap() {}
    while core.settle_step(now).unwrap() {}
    let (count, _) = pull_from(&core, bob.peer_id(), 0);
    assert_eq!(count, 600);
}

/// A rotation signs the rows of every app again.
#[test]
fn row_that_is_resigned_while_its_app_is_disabled_keeps_every_domain() {
    let versions = Versions::new();
    let (core, setup, bob) = behind_its_flags(&versions, false);
    drop(core);
    let mut setup = setup.apps(&["identities"]);
    let mut core = setup.open();
    let (now, identity) = (setup.timestamp(), setup.identity());
    assert!(core.settle_step(now).unwrap(), "a portion is set before");
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([3; 32]);
    core.context().keys.rotate(identity, &mut rng).unwrap();
    while core.rotation_step(now, identity).unwrap() {}
    drop(core);
    let mut setup = setup.apps(&["identities", "club"]);
    let mut core = setup.open();
    while core.settle_step(now).unwrap() {}
    let (count, _) = pull_from(&core, bob.peer_id(), 0);
    assert_eq!(count, 600);
}

/// The files of a node as they are, without the index of the WAL, as after a loss of power.
fn copied(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if !name.to_string_lossy().ends_with("-shm") {
            fs::copy(entry.path(), copy.path().join(name)).unwrap();
        }
    }
    copy
}

#[test]
fn flags_are_complete_after_a_crash_at_any_commit() {
    let versions = Versions::new();
    let (mut core, setup, bob) = behind_its_flags(&versions, false);
    let (now, bob) = (setup.timestamp(), bob.peer_id());
    let crashes = Arc::new(Mutex::new(vec![copied(setup.path())]));
    let (folder, taken) = (setup.path().to_owned(), crashes.clone());
    core.on_commit(Box::new(move || {
        taken.lock().push(copied(&folder));
    }));
    while core.settle_step(now).unwrap() {}
    drop(core);
    let crashes = std::mem::take(&mut *crashes.lock());
    let mut reached = Vec::new();
    for crash in crashes {
        let setup = setup.elsewhere().folder(crash);
        let core = setup.try_open().unwrap();
        reached.push(pull_from(&core, bob, 0).0);
        drop(core);
        let all = setup
            .node()
            .write(move |core, _| Ok::<_, StoreError>(pull_from(core, bob, 0).0));
        assert_eq!(all.unwrap(), 600, "after {reached:?}");
    }
    assert!(reached.is_sorted() && reached.len() > 3, "{reached:?}");
    assert_eq!((reached[0], reached.last()), (0, Some(&600)));
}

/// Bits of a million rows take minutes. Neither they nor what waits holds up the other.
#[test]
fn waiting_objects_are_settled_during_flag_work() {
    let versions = Versions::new();
    let (alice, bob) = versions.pair(2, 3);
    let mut later = news("later");
    later.insert(3, vec![Value::Integer(7)]);
    for _ in 0..300 {
        bob.make("club", NEWS, later.clone()).unwrap();
    }
    alice.pull_everything(&bob);
    assert_eq!(waiting(&alice), 300);
    let (mut core, setup, bob) = behind(&versions, (alice, bob), false);
    let database = Connection::open(setup.database()).unwrap();
    let left = || -> (i64, bool) {
        let sql = "SELECT (SELECT count(*) FROM waiting),
                     EXISTS (SELECT 1 FROM settling WHERE needs_kind = 68)";
        let left = database.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        left.unwrap()
    };
    assert_eq!(left(), (300, true), "the start does none of both");
    let (mut waited, mut flagged) = (Vec::new(), Vec::new());
    while core.settle_step(setup.timestamp()).unwrap() {
        waited.push(left().0);
        flagged.push(pull_from(&core, bob.peer_id(), 0).0);
    }
    // Of the first four portions one sets bits, and the others settle 64 objects each at most.
    assert_eq!(waited[3], 300 - 3 * 64);
    assert!(flagged[3] > 0 && flagged[3] < 600, "{flagged:?}");
    assert_eq!((left(), flagged.last()), ((0, false), Some(&600)));
}
