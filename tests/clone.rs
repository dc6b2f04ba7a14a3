//! Two copies of one node: the one that its peers met later goes on, the other finds out and writes nothing more. Whoever
//! is not this node cannot bring that about.
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
#[path = "common/stranger.rs"]
mod stranger;

use std::sync::Arc;

use bastion::Session;
use bastion::transport::memory::MemoryNet;
use held::ride;
use keys::{Context, Epoch, KeyManager, Oid};
use live::{ALL_APPS, HandClock, LiveNode, Setup, by_hand};
use postern::graph::SaveError;
use postern::peer::message::{EpochNote, Message};
use postern::store::{EpochReason, WriteMode, snapshot};
use stranger::{Stranger, goodbye, hear, say};

const RIDE: (&str, u16) = ("rides", 1);

fn epoch(node: &LiveNode) -> Epoch {
    node.engine.ground().epoch
}

/// A node that was stopped, and what a second copy of it needs.
struct Stopped {
    old: tempfile::TempDir,
    copy: tempfile::TempDir,
    keys: Arc<KeyManager>,
    identity: Oid,
    clock: HandClock,
}

impl Stopped {
    /// After it has met the other.
    async fn after_meeting(net: &MemoryNet, bob: &LiveNode) -> Self {
        let alice = LiveNode::start(net, "Alice", 1, &ALL_APPS, by_hand()).await;
        alice.save(RIDE, None, ride("Bern")).await.unwrap();
        alice.meet(bob).await;
        heard_by(bob, &alice).await;
        let (keys, identity, clock) = (alice.keys.clone(), alice.identity, alice.clock.clone());
        let old = alice.stop_and_keep().await;
        let copy = tempfile::tempdir().unwrap();
        snapshot(
            &old.path().join("postern.db"),
            &copy.path().join("postern.db"),
        )
        .unwrap();
        Self {
            old,
            copy,
            keys,
            identity,
            clock,
        }
    }

    fn begin(
        &self,
        net: &MemoryNet,
        files: &tempfile::TempDir,
        start: u8,
        begins: Option<EpochReason>,
    ) -> LiveNode {
        let setup = Setup {
            start,
            ..Setup::new(by_hand())
        };
        for entry in std::fs::read_dir(files).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), setup.folder.path().join(entry.file_name())).unwrap();
        }
        let node = (1, self.keys.clone(), self.identity);
        LiveNode::over(net, node, &ALL_APPS, (setup, self.clock.clone()), begins)
    }

    /// The copy as `postern restore` leaves it, and the old node as it was.
    fn both(self, net: &MemoryNet) -> (LiveNode, LiveNode) {
        let restored = self.begin(net, &self.copy, 1, Some(EpochReason::Restored));
        let old = self.begin(net, &self.old, 2, None);
        assert_ne!(epoch(&restored), epoch(&old));
        (restored, old)
    }

    /// The same, the old node first: who listens last at an address has it.
    fn both_swapped(self, net: &MemoryNet) -> (LiveNode, LiveNode) {
        let old = self.begin(net, &self.old, 2, None);
        (
            old,
            self.begin(net, &self.copy, 1, Some(EpochReason::Restored)),
        )
    }
}

/// Waits until a node has heard the other's epoch from itself.
async fn heard_by(bob: &LiveNode, alice: &LiveNode) {
    let (us, epoch) = (alice.peer_id(), epoch(alice));
    let mut is_known = false;
    while !is_known {
        let heard = bob.read(move |view| view.rows.peer_epochs(&us)).await;
        is_known = heard.iter().any(|heard| heard.epoch == epoch);
        tokio::task::yield_now().await;
    }
}

async fn writes_nothing(node: &LiveNode) {
    assert_eq!(node.write_mode().await, WriteMode::ReadOnly);
    let made = node.save(RIDE, None, ride("Chur")).await;
    assert!(matches!(made, Err(SaveError::ReadOnly)), "{made:?}");
    let identity = node.identity;
    let renamed = node
        .write(move |core, now| core.write(now, |graph| graph.save_identity(identity, Some("Al"))));
    assert!(matches!(renamed.await, Err(SaveError::ReadOnly)));
    let signed =
        node.write(move |core, now| core.write(now, |graph| graph.sign_again(&identity, 1)));
    assert!(matches!(signed.await, Err(SaveError::ReadOnly)));
}

#[tokio::test]
async fn the_old_copy_that_comes_after_the_restored_one_writes_nothing_until_that_is_resolved() {
    let net = MemoryNet::new();
    let bob = LiveNode::start(&net, "Bob", 2, &ALL_APPS, by_hand()).await;
    let (restored, old) = Stopped::after_meeting(&net, &bob).await.both(&net);
    restored.meet(&bob).await;
    heard_by(&bob, &restored).await;
    restored.wait_for(WriteMode::ReadWrite).await;
    restored.save(RIDE, None, ride("Davos")).await.unwrap();
    bob.pull_everything(&restored).await;
    let (theirs, kept) = (epoch(&restored), held::held(&restored).await.len());
    restored.stop().await;

    assert_eq!(
        old.write_mode().await,
        WriteMode::ReadWrite,
        "it cannot know yet"
    );
    old.meet(&bob).await;
    old.wait_for(WriteMode::ReadOnly).await;
    writes_nothing(&old).await;
    let row = old.read(|view| view.rows.write_mode()).await.unwrap();
    assert_eq!(
        (row.foreign_epoch, row.reason),
        (Some(theirs), bob.peer_id().to_string())
    );
    let old = old.restart(&net).await;
    writes_nothing(&old).await;
    assert!(old.write(|core, _| Ok(core.resolve()?)).await.unwrap());
    writes_nothing(&old).await;
    let before = epoch(&old);
    let old = old.restart(&net).await;
    assert!(
        epoch(&old) != before && epoch(&old) != theirs,
        "a third epoch"
    );
    assert_eq!(old.write_mode().await, WriteMode::NewObjectsOnly);
    old.meet(&bob).await;
    old.wait_for(WriteMode::ReadWrite).await;
    // What the other copy wrote has come here, and its epoch is no stranger's any more.
    assert_eq!(held::held(&old).await.len(), kept);
    old.save(RIDE, None, ride("Arosa")).await.unwrap();
    let old = old.restart(&net).await;
    old.meet(&bob).await;
    heard_by(&bob, &old).await;
    old.pull(&bob, "identities").await;
    assert_eq!(old.write_mode().await, WriteMode::ReadWrite);
    old.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn the_old_copy_that_comes_before_and_again_after_the_restored_one_writes_nothing() {
    let net = MemoryNet::new();
    let bob = LiveNode::start(&net, "Bob", 2, &ALL_APPS, by_hand()).await;
    let (restored, old) = Stopped::after_meeting(&net, &bob).await.both(&net);
    old.meet(&bob).await;
    old.save(RIDE, None, ride("Davos")).await.unwrap();
    bob.pull_everything(&old).await;
    let (_, over) = old.peers.session_at(&bob.onion()).unwrap();
    // Bob keeps one session with a peer, and the later start has it.
    restored.meet(&bob).await;
    restored.wait_for(WriteMode::ReadWrite).await;
    heard_by(&bob, &restored).await;
    over.cancelled().await;
    assert_eq!(
        restored.write_mode().await,
        WriteMode::ReadWrite,
        "the old epoch is its own too"
    );
    assert_eq!(old.write_mode().await, WriteMode::ReadWrite);
    old.meet(&bob).await;
    old.wait_for(WriteMode::ReadOnly).await;
    writes_nothing(&old).await;
    assert_eq!(
        held::held(&restored).await.len(),
        held::held(&old).await.len()
    );
    old.stop().await;
    restored.stop().await;
    bob.stop().await;
}

fn note(id: u64, epoch: Epoch, by: &KeyManager) -> EpochNote {
    let head = 1u64;
    let (key_id, signature) =
        by.sign_as_node_numbered(Context::Epoch, &[epoch.as_bytes(), &head.to_be_bytes()]);
    EpochNote {
        id,
        head,
        epoch,
        key_id,
        signature,
    }
}

async fn answer(session: &mut Session, message: &Message) -> Message {
    say(session, message).await;
    let id = match message {
        Message::Heard(note) | Message::Epoch(note) => note.id,
        other => panic!("{other:?}"),
    };
    loop {
        let heard = hear(session).await.unwrap();
        if heard.answers() == Some(id) {
            return heard;
        }
    }
}

#[tokio::test]
async fn nobody_else_can_make_a_node_write_nothing() {
    let net = MemoryNet::new();
    let alice = LiveNode::start(&net, "Alice", 1, &ALL_APPS, by_hand()).await;
    let mallory = Stranger::new(9);
    let mut session = mallory.dial(&net, &alice).await.unwrap();
    let foreign = Epoch::from_bytes([3; 16]);
    let true_one = note(1000, foreign, &alice.keys);
    let lies = [
        note(1001, foreign, &mallory.keys),
        // Her signature, over another epoch than the one that is shown.
        EpochNote {
            id: 1002,
            epoch: Epoch::from_bytes([4; 16]),
            ..true_one.clone()
        },
        EpochNote {
            id: 1003,
            key_id: 1,
            ..true_one.clone()
        },
        EpochNote {
            id: 1004,
            signature: keys::Signature::from_bytes([0x55; 64]),
            ..true_one.clone()
        },
    ];
    for lie in lies {
        let said = answer(&mut session, &Message::Heard(lie)).await;
        assert!(
            matches!(&said, Message::Refused(refused) if refused.code == "epoch"),
            "{said:?}"
        );
    }
    let own = note(1005, epoch(&alice), &alice.keys);
    let said = answer(&mut session, &Message::Heard(own)).await;
    assert!(matches!(said, Message::Noted(_)), "{said:?}");
    assert_eq!(alice.write_mode().await, WriteMode::ReadWrite);
    alice.save(RIDE, None, ride("Bern")).await.unwrap();
    // An epoch of Mallory's own is Mallory's, and no other than the one it came with.
    let other = note(1006, foreign, &mallory.keys);
    let said = answer(&mut session, &Message::Epoch(other)).await;
    assert!(
        matches!(&said, Message::Refused(refused) if refused.code == "epoch"),
        "{said:?}"
    );
    // With her key it would have been true.
    let said = answer(&mut session, &Message::Heard(true_one)).await;
    assert!(matches!(said, Message::Noted(_)), "{said:?}");
    writes_nothing(&alice).await;
    alice.stop().await;
}

#[tokio::test]
async fn an_earlier_epoch_of_a_restored_node_is_its_own() {
    let net = MemoryNet::new();
    let bob = LiveNode::start(&net, "Bob", 2, &ALL_APPS, by_hand()).await;
    let (old, restored) = Stopped::after_meeting(&net, &bob).await.both_swapped(&net);
    let earlier = epoch(&old);
    old.stop().await;
    let mallory = Stranger::new(9);
    let mut session = mallory.dial(&net, &restored).await.unwrap();
    let said = answer(
        &mut session,
        &Message::Heard(note(1000, earlier, &restored.keys)),
    )
    .await;
    assert!(matches!(said, Message::Noted(_)), "{said:?}");
    assert_eq!(restored.write_mode().await, WriteMode::NewObjectsOnly);
    restored.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn who_speaks_of_epochs_without_end_is_let_go() {
    let net = MemoryNet::new();
    let alice = LiveNode::start(&net, "Alice", 1, &ALL_APPS, by_hand()).await;
    let mallory = Stranger::new(9);
    let mut session = mallory.dial(&net, &alice).await.unwrap();
    for id in 1000..1032 {
        let said = answer(
            &mut session,
            &Message::Heard(note(id, epoch(&alice), &alice.keys)),
        )
        .await;
        assert!(matches!(said, Message::Noted(_)), "{said:?}");
    }
    let one_more = note(1032, epoch(&alice), &alice.keys);
    say(&mut session, &Message::Heard(one_more)).await;
    assert_eq!(goodbye(&mut session).await, "misbehaviour");
    alice.stop().await;
}
