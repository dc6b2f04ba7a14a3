//! Real connections: silent ones, and ones that are open when the node stops.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::poll;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{ApiFixture, NOW, core};
use crate::api::SessionEffect;
use crate::api::server::{HttpLimits, check_loopback, serve_with};
use crate::engine::{CoreHandle, TestClock};
use crate::store::StoreError;

const LONG: Duration = Duration::from_secs(3600);

async fn listen() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn server_limits() -> HttpLimits {
    HttpLimits {
        head_timeout: LONG,
        shutdown_timeout: LONG,
        connections_max: 8,
    }
}

async fn healthz(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test]
async fn serve_ends_although_a_request_is_incomplete() {
    let folder = tempfile::tempdir().unwrap();
    let (core, keys, oids) = core(folder.path(), 1, &["Alice", "Carol"]);
    let (engine, writer) = CoreHandle::spawn(core, Arc::new(TestClock::at(NOW.0)), 8, 2).unwrap();
    let api = ApiFixture::over(engine, &keys, &oids, folder).await;
    let (listener, address) = listen().await;
    let brief = HttpLimits {
        shutdown_timeout: Duration::from_millis(1),
        ..server_limits()
    };
    let serving = tokio::spawn(serve_with(listener, api.state(), brief));
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /healthz HT").await.unwrap();
    // The incomplete request was accepted before this one.
    assert!(healthz(address).await.starts_with("HTTP/1.1 200"));
    api.stop.cancel();
    serving.await.unwrap().unwrap();
    assert_eq!(
        half.read(&mut [0; 1]).await.unwrap_or(0),
        0,
        "the connection is closed"
    );
    let ApiFixture { engine, .. } = api;
    drop(engine);
    // Ends only if no task of the API holds the `CoreHandle`.
    tokio::task::spawn_blocking(move || writer.join())
        .await
        .unwrap();
}

#[tokio::test]
async fn silent_connection_is_closed_and_frees_its_slot() {
    let api = ApiFixture::new().await;
    let (listener, address) = listen().await;
    let brief = HttpLimits {
        head_timeout: Duration::from_millis(10),
        connections_max: 1,
        ..server_limits()
    };
    let serving = tokio::spawn(serve_with(listener, api.state(), brief));
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert!(healthz(address).await.starts_with("HTTP/1.1 200"));
    let mut received = Vec::new();
    // The server may send an error before it closes the connection.
    let _ = silent.read_to_end(&mut received).await;
    api.stop.cancel();
    serving.await.unwrap().unwrap();
}

#[test]
fn check_loopback_refuses_other_addresses() {
    for (address, is_loopback) in [
        ("127.0.0.1:1", true),
        ("[::1]:1", true),
        ("0.0.0.0:1", false),
        ("10.0.0.1:1", false),
    ] {
        assert_eq!(
            check_loopback(address.parse().unwrap()).is_ok(),
            is_loopback,
            "{address}"
        );
    }
}

#[tokio::test]
async fn ban_is_applied_although_its_request_was_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let (core, keys, oids) = core(folder.path(), 1, &["Alice", "Carol"]);
    let (engine, _writer) = CoreHandle::spawn(core, Arc::new(TestClock::at(NOW.0)), 8, 2).unwrap();
    let api = ApiFixture::over(engine, &keys, &oids, folder).await;
    let bob = api.bobs_node;
    // The test cannot see whether the write has reached the busy writer. Each round
    // polls once more before it cancels the request, until the write was queued.
    for polls in 1.. {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let holding = api.engine.write(move |_, _| {
            let _ = held.recv();
            Ok::<_, StoreError>(())
        });
        let mut holding = pin!(holding);
        assert!(poll!(&mut holding).is_pending());
        let mut banning =
            Box::pin(api.post("/api/admission/ban", json!({ "peer_id": bob.to_hex() })));
        for _ in 0..polls {
            assert!(poll!(&mut banning).is_pending());
            tokio::task::yield_now().await;
        }
        drop((banning, release));
        holding.await.unwrap();
        api.engine
            .write(|_, _| Ok::<_, StoreError>(()))
            .await
            .unwrap();
        if api
            .engine
            .read(move |view| view.rows.is_banned(&bob, NOW))
            .await
            .unwrap()
        {
            break;
        }
    }
    assert_eq!(*api.node.applied.lock(), [(bob, SessionEffect::Close)]);
}
