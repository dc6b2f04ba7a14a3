//! Long work is done in portions whose size follows from what they write.

use std::collections::VecDeque;

use harness::{START, TestNode, meet};
use keys::{Oid, SignedObject};
use postern::graph::{GraphManager, WriteRequest};
use postern::object::{Attrs, Object, OidParts, Place, Value};
use postern::state_engine::ReclaimSummary;
use postern::store::SettlingWork;

use crate::scopes::{FOLDER, SHEET, folder, writer};

/// Two members of one folder, which the first owns.
fn shared_folder() -> (TestNode, TestNode, Oid) {
    let (alice, bob) = (writer("alice", 0), writer("bob", 700));
    meet(&alice, &bob);
    let attrs = folder(&[&alice, &bob], "plans");
    let folder = alice.make("wiki", FOLDER, attrs).unwrap().oid;
    bob.pull_everything(&alice);
    (alice, bob, folder)
}

/// Sheets of as many values as an object may have: more than one portion of any work.
const SHEETS: usize = 24;

fn write_sheets(node: &TestNode, folder: Oid) -> Vec<Oid> {
    let (context, owner) = (node.context(node.identity, "wiki"), node.identity);
    // In one change group, which a portion may cut.
    let write = move |graph: &mut GraphManager<'_>| {
        let lines = vec![Value::from("line"); 255];
        let attrs = Attrs::from([(1, vec![Value::from(&folder)]), (2, lines)]);
        let sheet = |_| {
            let request = WriteRequest {
                app: "wiki".into(),
                type_number: SHEET,
                oid: None,
                owner,
                attrs: Some(attrs.clone()),
            };
            graph
                .save_with_sync(&context, request)
                .map(|saved| saved.oid)
        };
        (0..SHEETS).map(sheet).collect::<Result<Vec<_>, _>>()
    };
    node.graph(write).unwrap()
}

#[test]
fn objects_of_many_values_are_dropped_and_re_signed_in_small_portions() {
    let (alice, bob, folder) = shared_folder();
    let sheets = write_sheets(&bob, folder);
    alice.pull_everything(&bob);
    let identity = bob.identity;
    bob.keys.rotate(identity, &mut rand::rng()).unwrap();
    let mut steps = 0;
    while bob
        .write(move |core, now| core.rotation_step(now, identity))
        .unwrap()
    {
        steps += 1;
    }
    assert!(steps > 3, "{steps}");
    let key_of = |oid: &Oid| bob.parent("wiki", *oid).unwrap().key_id;
    assert!(sheets.iter().all(|oid| key_of(oid) == 1));
    alice.change("wiki", FOLDER, folder, None).unwrap();
    let mut steps = 0;
    while alice.write(|core, now| core.drop_ended_step(now)).unwrap() {
        steps += 1;
    }
    assert!(steps > 2, "{steps}");
    let rev_of = |oid: &Oid| alice.parent("wiki", *oid).unwrap().rev;
    assert!(sheets.iter().all(|oid| rev_of(oid) == 0));
}

#[test]
fn restamping_in_small_portions_forgets_no_object_of_a_change_group() {
    let (alice, _bob, folder) = shared_folder();
    let sheets = write_sheets(&alice, folder);
    let scope = alice.parent("wiki", folder).unwrap().scope_id;
    let before = alice.head();
    let note = move |graph: &mut GraphManager<'_>| {
        let app = graph.tx().apps().get("wiki").unwrap().id;
        graph
            .tx()
            .note_span(&SettlingWork::Restamp(app, scope), before)
    };
    alice.graph(note).unwrap();
    let seq_of = |oid: &Oid| alice.parent("wiki", *oid).unwrap().change_seq;
    assert!(sheets.iter().all(|oid| seq_of(oid) > before));
}

/// Sheets that a node signed and lost, with their oids.
fn lost_sheets(node: &TestNode, folder: Oid) -> (Vec<Oid>, Vec<SignedObject>) {
    let lines = vec![Value::from("line"); 255];
    let parts = OidParts {
        owner: &node.identity,
        app: "wiki",
        type_number: SHEET,
        place: &Place::In(folder),
    };
    let sheet = |number: u64| {
        let object = Object {
            attrs: Some(Attrs::from([
                (1, vec![Value::from(&folder)]),
                (2, lines.clone()),
            ])),
            ..Object::create(&parts, START, number.to_be_bytes())
        };
        (object.oid, node.sign(&object))
    };
    (0..SHEETS as u64).map(sheet).unzip()
}

#[test]
fn returned_objects_are_reclaimed_in_small_parts_that_may_be_repeated() {
    let (alice, bob, folder) = shared_folder();
    let (sheets, signed) = lost_sheets(&alice, folder);
    let peer = bob.peer_id();
    let some = |rest: VecDeque<SignedObject>| {
        let mut rest = rest;
        let reclaim = alice.write(move |core, now| {
            let taken = core.reclaim_some(now, peer, &mut rest)?;
            Ok::<_, postern::store::StoreError>((taken, rest))
        });
        reclaim.unwrap()
    };
    // The node stops after the first part, and asks for everything again.
    let (first, left) = some(signed.clone().into());
    assert_eq!(first.written, SHEETS - left.len());
    assert!((1..=8).contains(&first.written), "{first:?}");
    let (mut sum, mut rest, mut parts) = (ReclaimSummary::default(), signed.into(), 0);
    while !VecDeque::is_empty(&rest) {
        let (taken, left) = some(rest);
        assert!(taken.written <= 8, "{taken:?}");
        sum += taken;
        (rest, parts) = (left, parts + 1);
    }
    assert!(parts > 2, "{parts}");
    let expected = ReclaimSummary {
        written: SHEETS - first.written,
        already_stored: first.written,
        ..ReclaimSummary::default()
    };
    assert_eq!(sum, expected);
    let is_stored = |oid: &Oid| alice.parent("wiki", *oid).is_some();
    assert!(sheets.iter().all(is_stored));
}
