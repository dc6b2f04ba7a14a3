//! A restored node asks its peers for a domain, also if it is shared only after the recovery.

use std::fs;
use std::path::Path;

use bastion::transport::memory::MemoryNet;
use harness::{LiveNode, Setup};
use keys::Oid;
use postern::graph::SaveError;
use postern::object::{Attrs, Value};
use postern::store::{self, EpochReason, WriteMode};
use tempfile::TempDir;

const NEWS: &str = r#"slug = "news"
version = 1

[[type]]
number = 1
name = "news.item"
visibility = "public"
attr = [{ number = 1, name = "text", kind = "text", bytes_max = 10 }]

[[domain]]
name = "news"
parent_types = ["news.item"]
mode = "allow_update"
"#;

/// The second version has one more type, with a domain of its own.
const POLLS: &str = r#"
[[type]]
number = 2
name = "news.poll"
visibility = "public"
attr = [{ number = 1, name = "text", kind = "text", bytes_max = 10 }]

[[domain]]
name = "news.polls"
parent_types = ["news.poll"]
mode = "allow_update"
"#;

const ITEM: u16 = 1;
const POLL: u16 = 2;
const WITH_NEWS: &[&str] = &["identities", "news"];
const WITHOUT_NEWS: &[&str] = &["identities"];

fn install(folder: &Path, version: u8) {
    let text = match version {
        1 => NEWS.to_owned(),
        _ => NEWS.replace("version = 1", "version = 2") + POLLS,
    };
    fs::write(folder.join("news.toml"), text).unwrap();
}

fn node(net: &MemoryNet, name: &str, seed: u64, schemas: &Path) -> LiveNode {
    let setup = Setup::seeded(name, seed).apps(WITH_NEWS);
    setup.schema_dir(schemas).live(net)
}

fn text(text: &str) -> Option<Attrs> {
    Some(Attrs::from([(1, vec![Value::Text(text.into())])]))
}

fn make(node: &LiveNode, type_number: u16) -> Oid {
    node.make("news", type_number, text("new").unwrap())
        .unwrap()
        .oid
}

fn change(node: &LiveNode, type_number: u16, oid: Oid) -> Result<u64, SaveError> {
    let saved = node.change("news", type_number, oid, text("changed"));
    saved.map(|saved| saved.rev)
}

fn revision(node: &LiveNode, oid: Oid) -> Option<u64> {
    node.parent("news", oid).map(|row| row.rev)
}

/// Stops a node, and prepares its start from a copy of its database.
async fn restored(alice: LiveNode, copy: &Path) -> Setup {
    let again = alice.stop().await.elsewhere();
    fs::rename(copy, again.database()).unwrap();
    again.new_epoch(EpochReason::Restored)
}

/// Asserts that a change of an object is refused until the peer was asked again, and then follows
/// the revision that the peer holds.
async fn assert_waits_for(alice: &LiveNode, bob: &LiveNode, (kind, oid): (u16, Oid), known: u64) {
    assert_eq!(alice.write_mode(), WriteMode::NewObjectsOnly);
    if revision(alice, oid).is_some() {
        let early = change(alice, kind, oid);
        assert!(matches!(early, Err(SaveError::Recovering)), "{early:?}");
    }
    alice.meet(bob).await;
    alice.wait_for(WriteMode::ReadWrite).await;
    assert_eq!(revision(alice, oid), Some(known));
    assert_eq!(change(alice, kind, oid).unwrap(), known + 1);
    bob.pull_everything(alice).await;
    assert_eq!(revision(bob, oid), Some(known + 1));
    assert!(bob.rejects().is_empty());
}

/// Alice and Bob; a copy of Alice's database; an object that Alice changed twice since, and one
/// that she made since. Bob has both.
async fn changed_since(net: &MemoryNet, folder: &TempDir) -> (LiveNode, LiveNode, Oid, Oid) {
    install(folder.path(), 1);
    let alice = node(net, "Alice", 1, folder.path());
    let bob = node(net, "Bob", 2, folder.path());
    bob.meet(&alice).await;
    let old = make(&alice, ITEM);
    bob.pull_everything(&alice).await;
    store::snapshot(&alice.database(), &folder.path().join("copy")).unwrap();
    for rev in 2..=3 {
        assert_eq!(change(&alice, ITEM, old).unwrap(), rev);
    }
    let late = make(&alice, ITEM);
    bob.pull_everything(&alice).await;
    assert_eq!(revision(&bob, old), Some(3));
    (alice, bob, old, late)
}

#[tokio::test]
async fn app_that_is_enabled_after_the_recovery_gets_its_objects_back() {
    let (net, folder) = (MemoryNet::new(), tempfile::tempdir().unwrap());
    let (alice, bob, old, late) = changed_since(&net, &folder).await;
    let alice = restored(alice, &folder.path().join("copy")).await;
    let alice = alice.apps(WITHOUT_NEWS).live(&net);
    alice.meet(&bob).await;
    alice.wait_for(WriteMode::ReadWrite).await;

    let alice = alice.stop().await.apps(WITH_NEWS).live(&net);
    assert_waits_for(&alice, &bob, (ITEM, old), 3).await;
    assert_eq!(revision(&alice, late), Some(1));
    let alice = alice.restart(&net).await;
    assert_eq!(alice.write_mode(), WriteMode::ReadWrite, "asked once");
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn domain_of_a_later_schema_is_asked_for_after_the_upgrade() {
    let (net, folder) = (MemoryNet::new(), tempfile::tempdir().unwrap());
    let (earlier, later) = (folder.path().join("1"), folder.path().join("2"));
    for (version, path) in [(1, &earlier), (2, &later)] {
        fs::create_dir(path).unwrap();
        install(path, version);
    }
    let alice = node(&net, "Alice", 1, &earlier);
    let bob = node(&net, "Bob", 2, &later);
    let copy = folder.path().join("copy");
    bob.meet(&alice).await;
    store::snapshot(&alice.database(), &copy).unwrap();
    let alice = alice.stop().await.schema_dir(&later).live(&net);
    bob.meet(&alice).await;
    let poll = make(&alice, POLL);
    assert_eq!(change(&alice, POLL, poll).unwrap(), 2);
    bob.pull_everything(&alice).await;
    assert_eq!(revision(&bob, poll), Some(2));

    let alice = restored(alice, &copy).await.schema_dir(&earlier).live(&net);
    alice.meet(&bob).await;
    alice.wait_for(WriteMode::ReadWrite).await;
    assert_eq!(revision(&alice, poll), None);
    let alice = alice.stop().await.schema_dir(&later).live(&net);
    assert_waits_for(&alice, &bob, (POLL, poll), 2).await;
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn peer_that_enables_an_app_later_is_asked_for_its_domains() {
    let (net, folder) = (MemoryNet::new(), tempfile::tempdir().unwrap());
    let (alice, bob, old, late) = changed_since(&net, &folder).await;
    let bob = bob.stop().await.apps(WITHOUT_NEWS).live(&net);
    let alice = restored(alice, &folder.path().join("copy"))
        .await
        .live(&net);
    alice.meet(&bob).await;
    alice.wait_for(WriteMode::ReadWrite).await;
    assert_eq!(revision(&alice, late), None);

    let bob = bob.stop().await.apps(WITH_NEWS).live(&net);
    alice.meet(&bob).await;
    while revision(&alice, late).is_none() || revision(&alice, old) != Some(3) {
        tokio::task::yield_now().await;
    }
    alice.stop().await;
    bob.stop().await;
}
