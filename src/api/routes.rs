//! The table of all routes.

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router, middleware};
use serde_json::{Value, json};

use super::error::ApiError;
use super::state::ApiState;
use super::{
    admission, auth, backups, contacts, conversations, delivery, identities, invitations, messages,
    moves, node, objects, recovery, rejects, removals, rights,
};

/// Creates the router: all routes and the checks of [`auth`].
pub fn router(state: ApiState) -> Router {
    let guarded = Router::new()
        .route("/api/messages/send", post(messages::send))
        .route("/api/messages/inbox", get(messages::inbox))
        .route(
            "/api/identities",
            get(identities::list).post(identities::create),
        )
        .route("/api/identities/{oid}/name", put(identities::rename))
        .route("/api/identities/{oid}/retire", post(identities::retire))
        .route("/api/identities/{oid}/rotate", post(identities::rotate))
        .route("/api/identities/{oid}/unfreeze", post(identities::unfreeze))
        .route(
            "/api/v1/identities/{oid}/confirm-home",
            post(identities::confirm_home),
        )
        .route("/api/v1/identities/{oid}/move", post(moves::start))
        .route("/api/v1/identities/{oid}/move/done", post(moves::finish))
        .route("/api/v1/identities/receive", post(moves::receive))
        .route("/api/v1/identities/moves", get(moves::show))
        .route("/api/keys/rotate-node", post(identities::rotate_node))
        .route("/api/recovery", get(recovery::show))
        .route("/api/recovery/finish", post(recovery::finish))
        .route("/api/recovery/resolve", post(recovery::resolve))
        .route("/api/status", get(node::status))
        .route("/api/dials", get(node::dials))
        .route("/api/peers", get(node::peers).post(node::dial))
        .route("/api/sync", post(node::sync))
        .route(
            "/api/admission",
            get(admission::show).put(admission::change),
        )
        .route("/api/admission/pending", get(admission::pending))
        .route("/api/admission/bans", get(admission::bans))
        .route("/api/admission/approve", post(admission::approve))
        .route("/api/admission/refuse", post(admission::refuse))
        .route("/api/admission/ban", post(admission::ban))
        .route("/api/admission/unban", post(admission::unban))
        .route("/api/backup", get(backups::show).post(backups::start))
        .route("/api/objects", get(objects::list).post(objects::save))
        .route("/api/objects/{app}/{oid}", delete(objects::delete))
        .route("/api/v1/rejects", get(rejects::list))
        .route("/api/v1/peers/remove", post(removals::remove))
        .route("/api/v1/purges", get(removals::list))
        .route("/api/v1/identities/untrusted", get(identities::untrusted))
        .route("/api/v1/identities/find", get(identities::find))
        .route("/api/v1/contacts", get(contacts::list).post(contacts::add))
        .route(
            "/api/v1/contacts/{oid}",
            put(contacts::change).delete(contacts::remove),
        )
        .route(
            "/api/v1/conversations",
            get(conversations::list).post(conversations::found),
        )
        .route("/api/v1/messages/{oid}/delivery", get(delivery::show))
        .route("/api/v1/conversations/{oid}", get(conversations::show))
        .route(
            "/api/v1/conversations/{oid}/members",
            post(conversations::add),
        )
        .route(
            "/api/v1/conversations/{oid}/members/{identity}",
            delete(conversations::remove),
        )
        .route(
            "/api/v1/conversations/{oid}/leave",
            post(conversations::leave),
        )
        .route(
            "/api/v1/conversations/{oid}/messages",
            post(conversations::send),
        )
        .route(
            "/api/v1/rights/{app}/{oid}",
            get(rights::show).patch(rights::change),
        )
        .route("/api/v1/rights/{app}/{oid}/leave", post(rights::leave))
        .route("/api/v1/invitations", get(invitations::list))
        .route(
            "/api/v1/rights/{app}/{oid}/accept",
            post(invitations::accept),
        )
        .route(
            "/api/v1/rights/{app}/{oid}/decline",
            post(invitations::decline),
        )
        .fallback(unknown_route)
        .method_not_allowed_fallback(unsupported_method)
        .layer(middleware::from_fn_with_state(state.clone(), auth::token));
    Router::new()
        .route("/healthz", get(healthz))
        .merge(guarded)
        .layer(DefaultBodyLimit::max(state.config.body_bytes_max))
        .layer(middleware::from_fn_with_state(state.clone(), auth::gate))
        .with_state(state)
}

async fn healthz() -> Json<Value> {
    Json(json!({ "ok": true }))
}

async fn unsupported_method() -> ApiError {
    let why = "the route does not support this method";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method", why)
}

async fn unknown_route() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "no_route",
        "the route does not exist",
    )
}
