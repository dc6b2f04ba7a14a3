//! The step of a waiting pull or watch between its first look and its wait.

use std::collections::BTreeMap;

use futures::FutureExt as _;

use super::*;
use crate::peer::message::{DomainKey, Watch};
use crate::peer::testing::{DOMAIN, TestCore, info, manual, pull, watching_info};
use crate::state_engine::StateEngine;

/// Polls the reply by hand: the commit comes after the first look, and before the reply waits.
fn commit_between_look_and_wait(request: impl FnOnce(PeerId) -> (SessionInfo, SessionMessage)) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let builder = builder.enable_all().start_paused(true);
    let runtime = builder.max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let (node, peer) = (TestCore::new(1), TestCore::new(2));
        node.meet(&peer, Tier::Untrusted).await;
        peer.meet(&node, Tier::Untrusted).await;
        let (node, thread) = node.threaded();
        let server = RequestServer::new(node.core.clone(), &manual());
        let (session, request) = request(peer.peer_id());
        let turns = ReplyTurns::default();
        let start = Instant::now();
        // The first look cannot run before the poll ends, because the only thread is taken.
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let taken = tokio::task::spawn_blocking(move || waits.recv());
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

#[test]
fn commit_between_look_and_wait_wakes_the_pull() {
    commit_between_look_and_wait(|peer| {
        let request = pull(7, peer, DOMAIN, 60);
        (info(peer, Tier::Untrusted), request)
    });
}

#[test]
fn commit_between_look_and_wait_wakes_the_watch() {
    commit_between_look_and_wait(|peer| {
        let request = Watch {
            id: 7,
            // Without an epoch no cursor is recorded, so that the first read is the look.
            epoch: None,
            wait_s: 60,
            cursors: BTreeMap::from([(DomainKey(DOMAIN.to_owned()), 0)]),
        };
        (watching_info(peer), SessionMessage::Watch(request))
    });
}
