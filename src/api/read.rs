//! Reading what a request says: its body and its query, with errors that name what is wrong and quote nothing.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use keys::{Oid, PeerId};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                let status = rejection.status();
                let code = if status == StatusCode::PAYLOAD_TOO_LARGE {
                    "too_long"
                } else {
                    "bad_request"
                };
                ApiError::new(
                    status,
                    code,
                    "the body cannot be read, or is longer than api.body_bytes_max",
                )
            })?;
        // Unlike serde_json alone, axum says in which field a value is wrong.
        let read =
            Json::<T>::from_bytes(&bytes).map_err(|error| wrong("the body", &error.body_text()));
        read.map(|Json(said)| Self(said))
    }
}

/// A query string.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query
            .map(|Query(asked)| Self(asked))
            .map_err(|error| wrong("the query", &error.body_text()))
    }
}

/// axum begins with a sentence about its own types, which helps nobody who asked.
fn wrong(what: &str, said: &str) -> ApiError {
    let said = said.split_once(": ").map_or(said, |(_, why)| why);
    ApiError::bad_request(format!("{what}: {said}"))
}

/// An oid in a request.
pub(super) fn oid(field: &str, text: &str) -> Result<Oid, ApiError> {
    text.parse()
        .map_err(|error| ApiError::bad_request(format!("{field}: {error}")))
}

/// A peer id in a request.
pub(super) fn peer_id(field: &str, text: &str) -> Result<PeerId, ApiError> {
    text.parse()
        .map_err(|error| ApiError::bad_request(format!("{field}: {error}")))
}

/// How many rows a page may have.
pub(super) fn page(limit: Option<usize>) -> Result<usize, ApiError> {
    const PAGE_MAX: usize = 10_000;
    match limit.unwrap_or(100) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => Err(ApiError::bad_request(format!(
            "limit: must be 1 to {PAGE_MAX}"
        ))),
    }
}
