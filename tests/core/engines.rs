//! The two drivers of `CoreHandle`: equal results, durability before the reply, and an orderly end.

use std::sync::Arc;
use std::sync::mpsc::channel;

use futures::FutureExt as _;
use keys::{Oid, SignedObject};
use postern::engine::{CoreHandle, EngineError, WriterThread};
use postern::graph::WriteRequest;
use postern::services::messages;
use postern::state_engine::{PullReply, PullRequest};

use harness::dump::{Dump, dump};
use harness::forge::{object, oid, sign_with_unknown_key};
use harness::pull::meet;
use harness::{ManualClock, Setup, TestNode, context_of, ride};

/// A core on a writer thread, with the setup that keeps its folder.
fn spawned(queue_max: usize) -> (CoreHandle, WriterThread, Setup) {
    let mut setup = Setup::new("alice");
    let core = setup.open();
    let clock = Arc::new(ManualClock::default());
    let (engine, thread) = CoreHandle::spawn(core, clock, queue_max, 1).unwrap();
    (engine, thread, setup)
}

/// Two nodes write and synchronise. Returns their databases row by row, and the rejected oids.
fn write_and_sync(readers: usize) -> ((Dump, Dump), Vec<String>) {
    let node = |name: &str| Setup::new(name).readers(readers).node();
    let (alice, bob) = (node("alice"), node("bob"));
    meet(&alice, &bob);
    for number in 0..80 {
        alice.make("rides", 1, ride("Bern", number)).unwrap();
    }
    alice.send(bob.identity, "Hi");
    bob.pull_everything(&alice);
    bob.send(alice.identity, "Hi yourself");
    alice.pull_everything(&bob);
    // More objects than the limit for one thread, and every tenth with a wrong signature.
    let objects: Vec<SignedObject> = (1..=100)
        .map(|number| object("rides", 1, number, alice.identity, 1, Some(ride("Chur", 1))))
        .zip(1..)
        .map(|(object, number)| {
            if number % 10 == 0 {
                sign_with_unknown_key(&object)
            } else {
                alice.sign(&object)
            }
        })
        .collect();
    let applied = alice.force(&bob, "rides.offers", objects).unwrap();
    assert_eq!((applied.written, applied.rejected), (90, 10));
    let refused = bob.read(|view| view.rows.rejects(None, 100));
    let refused = refused
        .iter()
        .map(|reject| format!("{:?}", reject.oid))
        .collect();
    ((alice.dump(), bob.dump()), refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inline_and_threaded_drivers_give_equal_rows() {
    let threaded = tokio::task::spawn_blocking(|| write_and_sync(2))
        .await
        .unwrap();
    assert_eq!(threaded, write_and_sync(0));
}

#[tokio::test]
async fn write_is_on_disk_before_its_reply() {
    let (engine, thread, setup) = spawned(8);
    let identity = setup.identity();
    let copy = tempfile::tempdir().unwrap();
    for number in 0..5 {
        let saved = write_ride(&engine, identity, number).await;
        // A crash now would leave these files, including the write-ahead log.
        for file in std::fs::read_dir(setup.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        let rows = dump(&copy.path().join("postern.db"));
        assert!(
            rows["app_rides_parent"]
                .iter()
                .any(|row| row.contains(&saved.to_hex()))
        );
        let (seen, mut changes) = (
            engine.read(|view| view.head()).await.unwrap(),
            engine.changes(),
        );
        assert!(changes.wait_for(|head| *head == seen).await.is_ok());
    }
    drop(engine);
    thread.join();
}

fn ride_of(owner: Oid, number: i64) -> WriteRequest {
    WriteRequest {
        app: "rides".into(),
        type_number: 1,
        oid: None,
        owner,
        attrs: Some(ride("Bern", number)),
    }
}

async fn write_ride(engine: &CoreHandle, identity: Oid, number: i64) -> Oid {
    let context = engine
        .read(move |view| context_of(&view, identity, "rides"))
        .await
        .unwrap();
    let request = ride_of(identity, number);
    let saved = engine
        .write(move |core, now| core.write(now, |graph| graph.save_with_sync(&context, request)))
        .await;
    saved.unwrap().oid
}

#[tokio::test]
async fn writer_finishes_accepted_writes_and_ends_with_the_last_handle() {
    let (engine, thread, setup) = spawned(64);
    let identity = setup.identity();
    let handles: Vec<CoreHandle> = (0..4).map(|_| engine.clone()).collect();
    let writes = handles
        .iter()
        .zip(0..)
        .map(|(handle, number)| write_ride(handle, identity, number));
    let saved = futures::future::join_all(writes).await;
    // A write whose caller stops waiting is committed all the same.
    let (began, waits) = channel::<()>();
    let mut abandoned = Box::pin(engine.write(move |core, now| {
        waits.recv().ok();
        core.write(now, |graph| {
            graph.tx().put_token(&keys::Digest::of(b"x"), "late", now)
        })
    }));
    assert!(abandoned.as_mut().now_or_never().is_none());
    drop(abandoned);
    drop((handles, engine));
    began.send(()).unwrap();
    tokio::task::spawn_blocking(move || thread.join())
        .await
        .unwrap();
    let rows = dump(&setup.database());
    assert!(saved.iter().all(|oid| {
        rows["app_rides_parent"]
            .iter()
            .any(|row| row.contains(&oid.to_hex()))
    }));
    assert_eq!(rows["api_token"].len(), 1);
}

#[tokio::test]
async fn abandoned_read_keeps_its_connection_until_it_ends() {
    let (engine, thread, _setup) = spawned(8);
    let (go_on, waits) = channel::<()>();
    let mut abandoned = Box::pin(engine.read(move |view| {
        waits.recv().ok();
        view.head()
    }));
    assert!(abandoned.as_mut().now_or_never().is_none());
    drop(abandoned);
    let mut next = Box::pin(engine.read(|view| view.head()));
    assert!(
        next.as_mut().now_or_never().is_none(),
        "the only connection is in use"
    );
    go_on.send(()).unwrap();
    assert_eq!(next.await.unwrap(), 2);
    drop(engine);
    thread.join();
}

#[tokio::test]
async fn package_never_reaches_beyond_what_is_committed() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    meet(&alice, &bob);
    alice.make("rides", 1, ride("Bern", 1)).unwrap();
    let (request, identity) = (bob.request(&alice, "rides.offers"), alice.identity);
    let (head, mut setup) = (alice.head(), alice.into_setup());
    let clock = Arc::new(ManualClock::default());
    let (engine, thread) = CoreHandle::spawn(setup.open(), clock, 8, 1).unwrap();
    let context = engine.read(move |view| context_of(&view, identity, "rides"));
    let (context, second) = (context.await.unwrap(), ride_of(identity, 2));
    let ((wrote, has_written), (go_on, waits)) = (channel(), channel::<()>());
    let mut writing = Box::pin(engine.write(move |core, now| {
        core.write(now, |graph| {
            let saved = graph.save_with_sync(&context, second);
            wrote.send(()).unwrap();
            waits.recv().ok();
            saved
        })
    }));
    assert!(writing.as_mut().now_or_never().is_none());
    has_written.recv().unwrap();
    let before = package(&engine, request.clone()).await;
    assert_eq!(before, ((0, head), 1, false), "the write is not committed");
    go_on.send(()).unwrap();
    let saved = writing.await.unwrap();
    let rest = PullRequest {
        last_seq: head,
        ..request
    };
    let after = package(&engine, rest).await;
    assert_eq!(after, ((head + 1, saved.change_seq), 1, false));
    drop(engine);
    thread.join();
}

/// The window of the package that answers a request, the number of its objects, and whether more is
/// ready.
async fn package(engine: &CoreHandle, request: PullRequest) -> ((u64, u64), usize, bool) {
    let built = engine.read(move |view| view.build_package(&request));
    match built.await.unwrap() {
        PullReply::Package {
            window,
            objects,
            more,
            ..
        } => ((window.from_seq, window.to_seq), objects, more),
        other => panic!("no package: {other:?}"),
    }
}

#[tokio::test]
async fn failed_write_returns_its_error_and_changes_nothing() {
    let (engine, thread, setup) = spawned(8);
    let identity = setup.identity();
    let before = dump(&setup.database());
    let failed = engine
        .write(move |core, now| {
            core.write(now, |graph| {
                messages::send(graph, identity, oid(1), "to an unknown identity")
            })
        })
        .await;
    assert!(matches!(
        failed,
        Err(EngineError::Work(messages::SendError::UnknownRecipient(_)))
    ));
    assert_eq!(dump(&setup.database()), before);
    drop(engine);
    thread.join();
}
