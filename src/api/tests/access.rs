//! Checks of every request: token, host, origin and limits.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::Request;
use keys::ApiToken;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use serde_json::json;

use super::{ApiFixture, HOST};

fn with(header: Option<(&str, &str)>, host: &str, path: &str) -> Request<Body> {
    let mut request = Request::builder().uri(path).header("host", host);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn every_route_but_healthz_requires_the_token() {
    let api = ApiFixture::new().await;
    let other = ApiToken::generate(&mut ChaCha20Rng::seed_from_u64(9));
    let (right, wrong) = (
        format!("Bearer {}", api.token),
        format!("Bearer {}", *other.to_text()),
    );
    let (bare, basic) = (api.token.clone(), format!("Basic {}", api.token));
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
            api.ask(with(header, HOST, path))
                .await
                .refused(401, "token");
        }
    }
    api.ask(with(Some(("authorization", &right)), HOST, "/api/status"))
        .await
        .ok();
    api.ask(with(None, HOST, "/healthz")).await.ok();
}

#[tokio::test]
async fn only_loopback_hosts_are_accepted() {
    let api = ApiFixture::new().await;
    for host in [
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost",
        "localhost:8470",
        "[::1]:8470",
        "[::1]",
    ] {
        api.ask(with(None, host, "/healthz")).await.ok();
    }
    for host in [
        "evil.example",
        "evil.example:8470",
        "localhost.evil.example",
        "10.0.0.1:8470",
        "127.0.0.1.nip.io",
        "",
    ] {
        api.ask(with(None, host, "/healthz"))
            .await
            .refused(403, "host");
    }
    let none = Request::builder()
        .uri("/healthz")
        .body(Body::empty())
        .unwrap();
    api.ask(none).await.refused(403, "host");
    let mut two = with(None, HOST, "/healthz");
    two.headers_mut()
        .append("host", "evil.example".parse().unwrap());
    api.ask(two).await.refused(403, "host");
    let absolute = Request::builder()
        .uri("http://evil.example/healthz")
        .header("host", HOST);
    api.ask(absolute.body(Body::empty()).unwrap())
        .await
        .refused(403, "host");
}

#[tokio::test]
async fn requests_with_an_origin_are_refused_even_with_the_token() {
    let api = ApiFixture::new().await;
    for origin in ["https://evil.example", "null", "http://127.0.0.1:8470"] {
        let mut request = api.request("GET", "/api/status", "");
        request
            .headers_mut()
            .insert("origin", origin.parse().unwrap());
        api.ask(request).await.refused(403, "origin");
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_return_error_bodies() {
    let api = ApiFixture::new().await;
    api.get("/api/nothing").await.refused(404, "no_route");
    api.get("/api/messages/send").await.refused(405, "method");
}

#[tokio::test]
async fn slots_deadline_and_body_are_limited() {
    let mut api = ApiFixture::new().await;
    api.config.body_bytes_max = 200;
    let long = "x".repeat(200);
    api.send(api.alice, api.bob, &long)
        .await
        .refused(413, "too_long");
    api.config.body_bytes_max = 1 << 20;
    api.config.request_deadline_s = 0;
    api.node.dials_hang.store(true, Ordering::Relaxed);
    let onion = api.node.onion.to_onion_string();
    api.post("/api/peers", json!({ "onion": onion }))
        .await
        .refused(504, "deadline");
    api.config.requests_max = 0;
    api.get("/api/status").await.refused(503, "busy");
}

#[tokio::test]
async fn refusal_of_a_wrong_body_names_no_type_of_the_program() {
    let api = ApiFixture::new().await;
    let paths = [
        "/api/messages/send",
        "/api/peers",
        "/api/sync",
        "/api/backup",
        "/api/objects",
        "/api/identities",
        "/api/admission/ban",
    ];
    for path in paths {
        let reply = api.post(path, json!(5)).await;
        let message = reply.refused(400, "bad_request").message();
        assert!(message.contains("an object"), "{path}: {message}");
        assert!(!message.contains("struct"), "{path}: {message}");
    }
}
