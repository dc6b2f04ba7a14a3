//! Sequence numbers after a clean end, a crash and a rollback of the database.

use std::fs;
use std::path::Path;

use bastion::transport::memory::MemoryNet;
use harness::{LiveNode, Setup, ride};
use keys::Epoch;
use postern::store::{EpochReason, ReserveError, StoreError, WriteMode, snapshot};
use tempfile::TempDir;

/// Sequence numbers that are reserved at once.
const BLOCK: u64 = 4096;

/// A node that has met another and made three rides. Both run inline, so that a stop is a crash.
async fn met(net: &MemoryNet) -> (LiveNode, LiveNode) {
    let (alice, bob) = (
        Setup::seeded("Alice", 1).readers(0).live(net),
        Setup::seeded("Bob", 2).readers(0).live(net),
    );
    alice.meet(&bob).await;
    for origin in ["Bern", "Biel", "Basel"] {
        alice.make("rides", 1, ride(origin, 2)).unwrap();
    }
    (alice, bob)
}

/// A copy of the files of a running or stopped node.
fn files_of(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// Makes one more change, stops the node, and puts a database in place that lacks this change.
async fn stopped_with_older_database(node: LiveNode) -> Setup {
    let older = tempfile::tempdir().unwrap();
    let copy = older.path().join("copy");
    snapshot(&node.database(), &copy).unwrap();
    let saved = node.make("rides", 1, ride("Chur", 2)).unwrap();
    assert_eq!(saved.change_seq, node.head());
    let stopped = node.stop().await;
    fs::rename(&copy, stopped.database()).unwrap();
    stopped
}

fn assert_rolled_back(node: &LiveNode, before: Epoch) {
    assert_ne!(node.epoch(), before, "a rollback starts an epoch");
    assert_eq!(node.write_mode(), WriteMode::NewObjectsOnly);
    let row = node.read(|view| view.rows.write_mode()).unwrap();
    assert_eq!(row.reason, EpochReason::RolledBack.as_str());
}

#[tokio::test]
async fn clean_end_leaves_no_gap() {
    let net = MemoryNet::new();
    let (alice, bob) = met(&net).await;
    let (before, last) = (alice.epoch(), alice.head());
    let alice = alice.restart(&net).await;
    assert_eq!(
        (alice.epoch(), alice.write_mode()),
        (before, WriteMode::ReadWrite)
    );
    let saved = alice.make("rides", 1, ride("Chur", 2)).unwrap();
    assert_eq!(saved.change_seq, last + 1);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn crash_skips_reserved_numbers_and_is_no_rollback() {
    let net = MemoryNet::new();
    let (alice, bob) = met(&net).await;
    let crashed = files_of(alice.database().parent().unwrap());
    let (before, last) = (alice.epoch(), alice.head());
    let alice = alice.stop().await.folder(crashed).live(&net);
    assert_eq!(
        (alice.epoch(), alice.write_mode()),
        (before, WriteMode::ReadWrite)
    );
    assert_eq!(alice.head(), last, "committed writes are kept");
    let saved = alice.make("rides", 1, ride("Chur", 2)).unwrap();
    assert!(
        saved.change_seq > last + 1 && saved.change_seq <= last + BLOCK + 1,
        "{saved:?}"
    );
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn older_database_with_newer_numbers_is_a_rollback() {
    let net = MemoryNet::new();
    let (alice, bob) = met(&net).await;
    let (before, last) = (alice.epoch(), alice.head() + 1);
    let alice = stopped_with_older_database(alice).await.live(&net);
    assert_rolled_back(&alice, before);
    let saved = alice.make("rides", 1, ride("Davos", 2)).unwrap();
    assert!(saved.change_seq > last, "a sequence number is used twice");
    alice.meet(&bob).await;
    alice.wait_for(WriteMode::ReadWrite).await;
    let (now, alice) = (alice.epoch(), alice.restart(&net).await);
    assert_eq!(
        (alice.epoch(), alice.write_mode()),
        (now, WriteMode::ReadWrite),
        "a further start is no rollback"
    );
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn crash_before_the_number_file_is_written_hides_no_rollback() {
    let net = MemoryNet::new();
    let (alice, bob) = met(&net).await;
    let before = alice.epoch();
    let stopped = stopped_with_older_database(alice).await;
    let file = stopped.path().join("postern.seq");
    let numbers = fs::read(&file).unwrap();
    let alice = stopped.live(&net);
    assert_rolled_back(&alice, before);
    let now = alice.epoch();
    let stopped = alice.stop().await;
    fs::write(&file, numbers).unwrap();
    let alice = stopped.live(&net);
    assert_rolled_back(&alice, before);
    assert_eq!(alice.epoch(), now);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn missing_number_file_counts_as_a_rollback() {
    let net = MemoryNet::new();
    let (alice, bob) = met(&net).await;
    let before = alice.epoch();
    let stopped = alice.stop().await;
    fs::remove_file(stopped.path().join("postern.seq")).unwrap();
    let alice = stopped.live(&net);
    assert_rolled_back(&alice, before);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn database_of_an_earlier_epoch_is_a_rollback() {
    let net = MemoryNet::new();
    let (alice, bob) = met(&net).await;
    let before = alice.epoch();
    let stopped = alice.stop().await;
    let older = files_of(stopped.path());
    // The number file is lost and the node starts an epoch. Then the older database returns with
    // the newer number file.
    fs::remove_file(stopped.path().join("postern.seq")).unwrap();
    let alice = stopped.live(&net);
    let between = alice.epoch();
    assert_ne!(between, before);
    let stopped = alice.stop().await;
    fs::copy(
        stopped.path().join("postern.seq"),
        older.path().join("postern.seq"),
    )
    .unwrap();
    let alice = stopped.folder(older).live(&net);
    assert_rolled_back(&alice, before);
    assert_ne!(alice.epoch(), between);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn damaged_number_file_refuses_the_start_and_is_named() {
    let net = MemoryNet::new();
    let (alice, bob) = met(&net).await;
    let stopped = alice.stop().await;
    let path = stopped.path().join("postern.seq");
    let whole = fs::read(&path).unwrap();
    let cut = whole[..whole.len() / 2].to_vec();
    for damaged in [
        Vec::new(),
        cut,
        vec![0xff; 40],
        b"postern sequence numbers, 2\n".to_vec(),
    ] {
        fs::write(&path, damaged).unwrap();
        let error = stopped.try_open().err().unwrap();
        let StoreError::Reserve(ReserveError::Damaged(named)) = &error else {
            panic!("{error:?}");
        };
        assert_eq!(*named, path);
        assert!(error.to_string().contains("remove this file"), "{error}");
    }
    fs::write(&path, whole).unwrap();
    assert!(
        stopped.try_open().is_ok(),
        "a refused start changes nothing"
    );
    bob.stop().await;
}
