//! Sequence numbers over the ends of a node: a clean one, a crash, and a database that is older than what was given out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

#[path = "common/held.rs"]
mod held;
#[path = "common/live.rs"]
mod live;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bastion::transport::memory::MemoryNet;
use held::ride;
use keys::{Epoch, KeyManager, Oid};
use live::{ALL_APPS, HandClock, LiveNode, Setup, by_hand};
use postern::op_context::Timestamp;
use postern::schema::Schemas;
use postern::state_engine::{CoreLimits, StateEngine};
use postern::store::{EpochReason, ReserveError, StoreError, WriteMode, snapshot};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use tempfile::TempDir;

const RIDE: (&str, u16) = ("rides", 1);

/// Sequence numbers that are reserved at once.
const BLOCK: u64 = 4096;

/// What a node is without its folder.
struct Rest {
    keys: Arc<KeyManager>,
    identity: Oid,
    clock: HandClock,
    bob: LiveNode,
}

fn epoch(node: &LiveNode) -> Epoch {
    node.engine.ground().epoch
}

async fn head(node: &LiveNode) -> u64 {
    node.read(|view| view.head()).await
}

/// A node that has met another, with three rides.
async fn met(net: &MemoryNet) -> (LiveNode, Rest) {
    let alice = LiveNode::start(net, "Alice", 1, &ALL_APPS, by_hand()).await;
    let bob = LiveNode::start(net, "Bob", 2, &ALL_APPS, by_hand()).await;
    alice.meet(&bob).await;
    for origin in ["Bern", "Biel", "Basel"] {
        alice.save(RIDE, None, ride(origin)).await.unwrap();
    }
    let itself = Rest {
        keys: alice.keys.clone(),
        identity: alice.identity,
        clock: alice.clock.clone(),
        bob,
    };
    (alice, itself)
}

impl Rest {
    fn begin(&self, net: &MemoryNet, folder: TempDir, start: u8) -> LiveNode {
        let setup = Setup {
            start,
            folder,
            ..Setup::new(by_hand())
        };
        let node = (1, self.keys.clone(), self.identity);
        LiveNode::over(net, node, &ALL_APPS, (setup, self.clock.clone()), None)
    }

    fn open(&self, folder: &Path) -> Result<StateEngine, StoreError> {
        StateEngine::open(
            &folder.join("postern.db"),
            Arc::new(Schemas::load(&ALL_APPS.map(str::to_owned), None).unwrap()),
            self.keys.clone(),
            CoreLimits::default(),
            Box::new(ChaCha20Rng::seed_from_u64(77)),
            Timestamp(1_700_000_000_000),
        )
    }
}

/// Copies the files of a node as they are.
fn files_of(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

async fn has_fallen_back(node: &LiveNode, before: Epoch) {
    assert_ne!(epoch(node), before, "it goes on in the old epoch");
    assert_eq!(node.write_mode().await, WriteMode::NewObjectsOnly);
    let row = node.read(|view| view.rows.write_mode()).await.unwrap();
    assert_eq!(row.reason, EpochReason::RolledBack.as_str());
}

#[tokio::test]
async fn a_clean_end_leaves_no_gap() {
    let net = MemoryNet::new();
    let (alice, itself) = met(&net).await;
    let (before, last) = (epoch(&alice), head(&alice).await);
    let alice = itself.begin(&net, alice.stop_and_keep().await, 1);
    assert_eq!(
        (epoch(&alice), alice.write_mode().await),
        (before, WriteMode::ReadWrite)
    );
    let saved = alice.save(RIDE, None, ride("Chur")).await.unwrap();
    assert_eq!(saved.change_seq, last + 1);
    alice.stop().await;
    itself.bob.stop().await;
}

#[tokio::test]
async fn a_crash_skips_what_was_reserved_and_is_no_falling_back() {
    let net = MemoryNet::new();
    let (alice, itself) = met(&net).await;
    let crashed = files_of(alice.database().parent().unwrap());
    let (before, last) = (epoch(&alice), head(&alice).await);
    alice.stop().await;
    let alice = itself.begin(&net, crashed, 1);
    assert_eq!(
        (epoch(&alice), alice.write_mode().await),
        (before, WriteMode::ReadWrite)
    );
    assert_eq!(head(&alice).await, last, "what was committed is there");
    let saved = alice.save(RIDE, None, ride("Chur")).await.unwrap();
    assert!(
        saved.change_seq > last + 1 && saved.change_seq <= last + BLOCK + 1,
        "{saved:?}"
    );
    alice.stop().await;
    itself.bob.stop().await;
}

#[tokio::test]
async fn an_older_database_beside_its_numbers_is_noticed() {
    let net = MemoryNet::new();
    let (alice, itself) = met(&net).await;
    let older = tempfile::tempdir().unwrap();
    let copy = older.path().join("copy");
    snapshot(&alice.database(), &copy).unwrap();
    // One change is enough to be behind.
    alice.save(RIDE, None, ride("Chur")).await.unwrap();
    let (before, last) = (epoch(&alice), head(&alice).await);
    let folder = alice.stop_and_keep().await;
    fs::rename(&copy, folder.path().join("postern.db")).unwrap();
    let alice = itself.begin(&net, folder, 1);
    has_fallen_back(&alice, before).await;
    let saved = alice.save(RIDE, None, ride("Davos")).await.unwrap();
    assert!(
        saved.change_seq > last,
        "a number that was given out stands for something else"
    );
    alice.meet(&itself.bob).await;
    alice.wait_for(WriteMode::ReadWrite).await;
    let (now, alice) = (epoch(&alice), alice.restart(&net).await);
    assert_eq!(
        (epoch(&alice), alice.write_mode().await),
        (now, WriteMode::ReadWrite),
        "once is enough"
    );
    alice.stop().await;
    itself.bob.stop().await;
}

#[tokio::test]
async fn numbers_that_are_gone_count_as_fallen_back() {
    let net = MemoryNet::new();
    let (alice, itself) = met(&net).await;
    let before = epoch(&alice);
    let folder = alice.stop_and_keep().await;
    fs::remove_file(folder.path().join("postern.seq")).unwrap();
    let alice = itself.begin(&net, folder, 1);
    has_fallen_back(&alice, before).await;
    alice.stop().await;
    itself.bob.stop().await;
}

#[tokio::test]
async fn a_database_from_before_an_epoch_is_noticed_too() {
    let net = MemoryNet::new();
    let (alice, itself) = met(&net).await;
    let before = epoch(&alice);
    let folder = alice.stop_and_keep().await;
    let older = files_of(folder.path());
    // Its numbers were lost, and it began an epoch; then the older database came back beside the newer numbers.
    fs::remove_file(folder.path().join("postern.seq")).unwrap();
    let alice = itself.begin(&net, folder, 1);
    let between = epoch(&alice);
    assert_ne!(between, before);
    let folder = alice.stop_and_keep().await;
    fs::copy(
        folder.path().join("postern.seq"),
        older.path().join("postern.seq"),
    )
    .unwrap();
    let alice = itself.begin(&net, older, 2);
    has_fallen_back(&alice, before).await;
    assert_ne!(epoch(&alice), between);
    alice.stop().await;
    itself.bob.stop().await;
}

#[tokio::test]
async fn numbers_that_cannot_be_read_stop_the_start_with_their_name() {
    let net = MemoryNet::new();
    let (alice, itself) = met(&net).await;
    let folder = alice.stop_and_keep().await;
    let path = folder.path().join("postern.seq");
    let whole = fs::read(&path).unwrap();
    let cut = whole[..whole.len() / 2].to_vec();
    for damaged in [
        Vec::new(),
        cut,
        vec![0xff; 40],
        b"postern sequence numbers, 2\n".to_vec(),
    ] {
        fs::write(&path, damaged).unwrap();
        let error = itself.open(folder.path()).err().unwrap();
        let StoreError::Reserve(ReserveError::Damaged(named)) = &error else {
            panic!("{error:?}");
        };
        assert_eq!(*named, path);
        assert!(error.to_string().contains("remove this file"), "{error}");
    }
    fs::write(&path, whole).unwrap();
    assert!(
        itself.open(folder.path()).is_ok(),
        "nothing was changed meanwhile"
    );
    itself.bob.stop().await;
}
