//! The step of a waiting pull between its first look and its wait.

use futures::FutureExt as _;

use super::*;
use crate::peer::testing::{DOMAIN, TestCore, info, manual, pull};
use crate::state_engine::StateEngine;

/// Polls the reply by hand: the commit comes after the first look, and before the reply waits.
#[test]
fn commit_between_look_and_wait_wakes_the_pull() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let builder = builder.enable_all().start_paused(true);
    let runtime = builder.max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let (node, peer) = (TestCore::new(1), TestCore::new(2));
        node.meet(&peer, Tier::Untrusted).await;
        peer.meet(&node, Tier::Untrusted).await;
        let (node, thread) = node.threaded();
        let server = RequestServer::new(node.core.clone(), &manual());
        let session = info(peer.peer_id(), Tier::Untrusted);
        let turns = ReplyTurns::default();
        let start = Instant::now();
        // The first look cannot run before the poll ends, because the only thread is taken.
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let taken = tokio::task::spawn_blocking(move || waits.recv());
        let request = pull(7, peer.peer_id(), DOMAIN, 60);
        let mut reply = Box::pin(server.reply(&session, request, &turns));
        assert!(reply.as_mut().now_or_never().is_none());
        go_on.send(()).unwrap();
        taken.await.unwrap().unwrap();
        // The only connection is free again after the first look.
        node.core.read(|view| view.head()).await.unwrap();
        node.send_message(&peer, "hello").await;
        // The writer tells of a commit before it begins the next job.
        let next_job = |core: &mut StateEngine, _| Ok::<_, StoreError>(core.change_seq());
        node.core.write(next_job).await.unwrap();
        let answer = reply.await;
        assert!(matches!(answer.message, SessionMessage::Package(_)));
        assert_eq!(start.elapsed().as_secs(), 0, "it waited for nothing");
        drop((answer, server, node));
        thread.join();
    });
}
