//! Real connections: those that say nothing, and those that are open when the node stops.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::poll;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Here, NOW, StoppedClock, core};
use crate::api::SessionEffect;
use crate::api::server::{Patience, check_loopback, serve_with};
use crate::engine::CoreHandle;
use crate::store::StoreError;

const LONG: Duration = Duration::from_secs(3600);

async fn listen() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn patience() -> Patience {
    Patience {
        head: LONG,
        farewell: LONG,
        connections_max: 8,
    }
}

async fn healthz(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn half_a_request_cannot_keep_the_node_from_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let (core, keys, oids) = core(folder.path(), 1, &["Alice", "Carol"]);
    let (engine, writer) = CoreHandle::spawn(core, Arc::new(StoppedClock), 8, 2).unwrap();
    let here = Here::over(engine, &keys, &oids, folder).await;
    let (listener, address) = listen().await;
    let brief = Patience {
        farewell: Duration::from_millis(1),
        ..patience()
    };
    let serving = tokio::spawn(serve_with(listener, here.state(), brief));
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /healthz HT").await.unwrap();
    // The half one was accepted before this one, which is answered.
    assert!(healthz(address).await.starts_with("HTTP/1.1 200"));
    here.stop.cancel();
    serving.await.unwrap().unwrap();
    assert_eq!(
        half.read(&mut [0; 1]).await.unwrap_or(0),
        0,
        "it is cut off"
    );
    let Here { engine, .. } = here;
    drop(engine);
    // Ends only where nothing of the API holds the engine any more.
    tokio::task::spawn_blocking(move || writer.join())
        .await
        .unwrap();
}

#[tokio::test]
async fn who_connects_and_says_nothing_makes_place_for_others() {
    let here = Here::new().await;
    let (listener, address) = listen().await;
    let brief = Patience {
        head: Duration::from_millis(10),
        connections_max: 1,
        ..patience()
    };
    let serving = tokio::spawn(serve_with(listener, here.state(), brief));
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert!(healthz(address).await.starts_with("HTTP/1.1 200"));
    let mut said = Vec::new();
    // It may be told that it was too slow, or only be hung up on.
    let _ = silent.read_to_end(&mut said).await;
    here.stop.cancel();
    serving.await.unwrap().unwrap();
}

#[test]
fn other_machines_are_not_listened_to() {
    for (address, is_here) in [
        ("127.0.0.1:1", true),
        ("[::1]:1", true),
        ("0.0.0.0:1", false),
        ("10.0.0.1:1", false),
    ] {
        assert_eq!(
            check_loopback(address.parse().unwrap()).is_ok(),
            is_here,
            "{address}"
        );
    }
}

#[tokio::test]
async fn applies_a_ban_although_its_request_was_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let (core, keys, oids) = core(folder.path(), 1, &["Alice", "Carol"]);
    let (engine, _writer) = CoreHandle::spawn(core, Arc::new(StoppedClock), 8, 2).unwrap();
    let here = Here::over(engine, &keys, &oids, folder).await;
    let bob = here.bobs_node;
    // Whether the word has reached the busy writer cannot be seen from here: given up later and later, at last it has.
    for patience in 1.. {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let holding = here.engine.write(move |_, _| {
            let _ = held.recv();
            Ok::<_, StoreError>(())
        });
        let mut holding = pin!(holding);
        assert!(poll!(&mut holding).is_pending());
        let mut banning =
            Box::pin(here.post("/api/admission/ban", json!({ "peer_id": bob.to_hex() })));
        for _ in 0..patience {
            assert!(poll!(&mut banning).is_pending());
            tokio::task::yield_now().await;
        }
        drop((banning, release));
        holding.await.unwrap();
        here.engine
            .write(|_, _| Ok::<_, StoreError>(()))
            .await
            .unwrap();
        if here
            .engine
            .read(move |view| view.rows.is_banned(&bob, NOW))
            .await
            .unwrap()
        {
            break;
        }
    }
    assert_eq!(*here.node.applied.lock(), [(bob, SessionEffect::Close)]);
}
