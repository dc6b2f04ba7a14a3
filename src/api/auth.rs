//! Checks that apply to every request: origin, host, slot, deadline and token.
//!
//! A page of another origin can make a browser send requests to loopback, and can resolve its own
//! name to it. Therefore requests with an `Origin` header, or with a `Host` that is not loopback,
//! are refused before the token is checked. The error does not say in which way a token is wrong.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use keys::{ApiToken, TraceId};
use tokio::time::timeout;
use tracing::Instrument as _;

use super::error::ApiError;
use super::state::ApiState;

/// Longest accepted `Authorization` header, in bytes.
const HEADER_BYTES_MAX: usize = 256;

/// Runs before every route: checks origin and host, takes a request slot, and sets the deadline.
pub(super) async fn gate(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if request.headers().contains_key(header::ORIGIN) {
        let why = "requests from web pages of another origin are refused";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "origin", why));
    }
    if !is_for_this_machine(&request) {
        let why = "the Host header must name a loopback address";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "host", why));
    }
    let Ok(_slot) = state.slots.try_acquire() else {
        return Err(ApiError::busy(
            "too many requests at the same time; retry later",
        ));
    };
    let deadline_s = state.config.request_deadline_s;
    let late = |_| {
        ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "deadline",
            format!("the request took longer than {deadline_s} s"),
        )
    };
    let deadline = std::time::Duration::from_secs(deadline_s);
    let trace = TraceId(rand::random());
    request.extensions_mut().insert(trace);
    let span = request_span(&request, trace);
    timeout(deadline, next.run(request))
        .instrument(span)
        .await
        .map_err(late)
}

/// Creates the span of a request. The span has the route and not the path, because a path may
/// contain an identity's oid.
fn request_span(request: &Request, trace: TraceId) -> tracing::Span {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none", MatchedPath::as_str);
    tracing::info_span!("request", %trace, method = %request.method(), route)
}

/// Runs before every route except `/healthz`: checks the token.
pub(super) async fn token(
    State(state): State<ApiState>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let presented = bearer(request.headers()).and_then(|text| text.parse::<ApiToken>().ok());
    let known = match presented {
        None => false,
        Some(token) => {
            let hash = token.hash();
            state
                .engine
                .read(move |view| view.rows.has_token(&hash))
                .await
                .map_err(ApiError::from)?
        }
    };
    if known {
        return Ok(next.run(request).await);
    }
    let why = "send the header `Authorization: Bearer TOKEN`, with the text of the file api.token \
               in the node's folder";
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "token", why))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?;
    let text = value
        .to_str()
        .ok()
        .filter(|text| text.len() <= HEADER_BYTES_MAX)?;
    text.strip_prefix("Bearer ").map(str::trim)
}

/// Whether the request has exactly one `Host`, which is loopback, and its target names no other
/// host.
fn is_for_this_machine(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let target = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    host.to_str().is_ok_and(is_loopback) && target.is_none_or(is_loopback)
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
