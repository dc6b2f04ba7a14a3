//! Members that left a scope and were added again: the owner's next list looks at a bounded number
//! of lists.

use harness::rights::list_object;
use keys::Oid;
use postern::graph::GraphManager;
use postern::object::{Object, Rights};
use postern::store::{ScopeId, StoreError};

use crate::rights::{BOTH, READ, Scene};
use crate::rights_merge::{DORA, EMIL, in_force};

/// Identities that live on no node here.
fn leavers() -> Vec<Oid> {
    let member = |number: u8| {
        let mut bytes = [0xb0; 16];
        bytes[1] = number;
        Oid::from_bytes(bytes)
    };
    (0..=240).map(member).collect()
}

/// A scene in which all leavers left under an early list. A late one is without
/// them, and the one in force has them again.
fn scene() -> (Scene, ScopeId) {
    let scene = Scene::new();
    let all = leavers();
    let with = |rights| all.iter().map(|it| (*it, rights)).collect::<Vec<_>>();
    scene.set(&with(READ));
    let scope = scene.alice.parent("messages", scene.talk).unwrap().scope_id;
    let left = all.clone();
    scene
        .alice
        .graph(move |graph| {
            let list = graph.tx().list_in_force(scope)?.id;
            for identity in &left {
                assert!(graph.tx().put_leave(scope, identity, list)?);
            }
            Ok::<_, StoreError>(())
        })
        .unwrap();
    // The owner's node would leave out all that left.
    for version in 2..22u8 {
        let others: Vec<_> = all.iter().map(|it| (*it, Rights::READ)).collect();
        write(&scene, version, &others);
    }
    scene.set(&with(None));
    scene.set(&with(READ));
    assert_eq!(members(&scene), all.len());
    (scene, scope)
}

/// Alice's node stores a list that replaces the one in force.
fn write(scene: &Scene, version: u8, others: &[(Oid, Rights)]) {
    let owner = (scene.alice.identity, others);
    let list = Object {
        rights: Some(in_force(&scene.alice, scene.talk)),
        ..list_object("messages", version, scene.talk, version.into(), owner)
    };
    let (peer, list) = (scene.bob.peer_id(), scene.alice.sign(&list));
    let taken = scene
        .alice
        .write(move |core, now| core.reclaim(now, peer, vec![list]));
    assert_eq!(taken.unwrap().written, 1);
}

/// The number of the leavers that may read.
fn members(scene: &Scene) -> usize {
    let readers = scene.readers(&scene.alice);
    leavers().iter().filter(|it| readers.contains(it)).count()
}

/// The number of the leavers in the next list of a scope, and what making it spends.
fn next(graph: &mut GraphManager<'_>, scope: ScopeId) -> Result<(usize, usize), StoreError> {
    let list = graph.next_list(scope)?;
    let kept = leavers().iter().filter(|it| list.of(it).is_some()).count();
    Ok((kept, graph.spent()))
}

#[test]
fn next_list_looks_at_a_bounded_number_of_lists() {
    let (scene, scope) = scene();
    let (kept, spent) = scene.alice.graph(move |graph| next(graph, scope)).unwrap();
    let all = leavers().len();
    assert!(kept > 0 && kept < all, "{kept} of {all}");
    assert!((4096..4096 + 4 * all).contains(&spent), "{spent}");
    scene.set(&[(EMIL, BOTH)]);
    assert_eq!(members(&scene), kept, "the others count as left");
}

#[test]
fn merge_looks_at_a_bounded_number_of_lists() {
    let (scene, scope) = scene();
    let base = in_force(&scene.alice, scene.talk);
    scene.set(&[(EMIL, READ)]);
    let others: Vec<_> = leavers().iter().map(|it| (*it, Rights::READ)).collect();
    let others = [&others[..], &[(DORA, Rights::READ)]].concat();
    let owner = (scene.alice.identity, &others[..]);
    let lost = Object {
        rights: Some(base),
        ..list_object("messages", 99, scene.talk, 99, owner)
    };
    let (peer, lost) = (scene.bob.peer_id(), scene.alice.sign(&lost));
    let merged = scene.alice.write(move |core, now| {
        core.reclaim(now, peer, vec![lost])?;
        core.write(now, |graph| next(graph, scope))
    });
    let (kept, spent) = merged.map_err(|error: StoreError| error).unwrap();
    assert_eq!(kept, 0, "beyond the bound all count as left");
    assert!(spent < 8192, "{spent}");
    assert!(scene.readers(&scene.alice).contains(&scene.alice.identity));
}
