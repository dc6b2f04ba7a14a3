//! Who gets in at all.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::Request;
use keys::ApiToken;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use serde_json::json;

use super::{HOST, Here};

fn with(header: Option<(&str, &str)>, host: &str, path: &str) -> Request<Body> {
    let mut request = Request::builder().uri(path).header("host", host);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn without_the_token_there_is_nothing() {
    let here = Here::new().await;
    let other = ApiToken::generate(&mut ChaCha20Rng::seed_from_u64(9));
    let (right, wrong) = (
        format!("Bearer {}", here.token),
        format!("Bearer {}", *other.to_text()),
    );
    let (bare, basic) = (here.token.clone(), format!("Basic {}", here.token));
    let refused = [
        None,
        Some(&wrong),
        Some(&bare),
        Some(&basic),
        Some(&"Bearer ".into()),
        Some(&"Bearer x".into()),
    ];
    for text in refused {
        let header = text.map(|text| ("authorization", text.as_str()));
        for path in ["/api/status", "/api/messages/inbox", "/api/nothing", "/"] {
            here.ask(with(header, HOST, path))
                .await
                .refused(401, "token");
        }
    }
    here.ask(with(Some(("authorization", &right)), HOST, "/api/status"))
        .await
        .ok();
    here.ask(with(None, HOST, "/healthz")).await.ok();
}

#[tokio::test]
async fn only_names_of_this_machine_are_answered() {
    let here = Here::new().await;
    for host in [
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost",
        "localhost:8470",
        "[::1]:8470",
        "[::1]",
    ] {
        here.ask(with(None, host, "/healthz")).await.ok();
    }
    for host in [
        "evil.example",
        "evil.example:8470",
        "localhost.evil.example",
        "10.0.0.1:8470",
        "127.0.0.1.nip.io",
        "",
    ] {
        here.ask(with(None, host, "/healthz"))
            .await
            .refused(403, "host");
    }
    let none = Request::builder()
        .uri("/healthz")
        .body(Body::empty())
        .unwrap();
    here.ask(none).await.refused(403, "host");
    let mut two = with(None, HOST, "/healthz");
    two.headers_mut()
        .append("host", "evil.example".parse().unwrap());
    here.ask(two).await.refused(403, "host");
    let absolute = Request::builder()
        .uri("http://evil.example/healthz")
        .header("host", HOST);
    here.ask(absolute.body(Body::empty()).unwrap())
        .await
        .refused(403, "host");
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_even_with_the_token() {
    let here = Here::new().await;
    for origin in ["https://evil.example", "null", "http://127.0.0.1:8470"] {
        let mut request = here.request("GET", "/api/status", "");
        request
            .headers_mut()
            .insert("origin", origin.parse().unwrap());
        here.ask(request).await.refused(403, "origin");
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_same_form() {
    let here = Here::new().await;
    here.get("/api/nothing").await.refused(404, "no_route");
    here.get("/api/messages/send").await.refused(405, "method");
}

#[tokio::test]
async fn places_deadline_and_body_have_limits() {
    let mut here = Here::new().await;
    here.config.body_bytes_max = 200;
    let long = "x".repeat(200);
    here.send(here.alice, here.bob, &long)
        .await
        .refused(413, "too_long");
    here.config.body_bytes_max = 1 << 20;
    here.config.request_deadline_s = 0;
    here.node.dials_hang.store(true, Ordering::Relaxed);
    let onion = here.node.onion.to_onion_string();
    here.post("/api/peers", json!({ "onion": onion }))
        .await
        .refused(504, "deadline");
    here.config.requests_max = 0;
    here.get("/api/status").await.refused(503, "busy");
}
