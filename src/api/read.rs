//! Extractors for request bodies, queries and ids. Errors name the field and do not quote the body.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use keys::{Oid, PeerId};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::config::ApiConfig;
use crate::store::{FeedCursor, NoFeedCursor};

/// Longest request body, in bytes. The router enforces it.
const BODY_BYTES_MAX: usize = ApiConfig::DEFAULT.body_bytes_max;

/// Extracts a JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                let status = rejection.status();
                if status == StatusCode::PAYLOAD_TOO_LARGE {
                    let why = format!("the body is longer than {BODY_BYTES_MAX} bytes");
                    ApiError::new(status, "too_long", why)
                } else {
                    ApiError::new(status, "bad_request", "the body cannot be read")
                }
            })?;
        // axum's error names the wrong field, and serde_json's alone does not.
        let read =
            Json::<T>::from_bytes(&bytes).map_err(|error| wrong("the body", &error.body_text()));
        read.map(|Json(body)| Self(body))
    }
}

/// Extracts the parameters of a query string.
pub(super) struct QueryParams<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query
            .map(|Query(params)| Self(params))
            .map_err(|error| wrong("the query", &error.body_text()))
    }
}

/// Drops the first part of axum's message, because it is about axum's own types.
fn wrong(part: &str, message: &str) -> ApiError {
    let cause = message.split_once(": ").map_or(message, |(_, cause)| cause);
    ApiError::bad_request(format!("{part}: {cause}"))
}

/// Parses an oid; the error names `field`.
pub(super) fn oid(field: &str, text: &str) -> Result<Oid, ApiError> {
    text.parse()
        .map_err(|error| ApiError::bad_field(field, &error))
}

/// Parses a peer id; the error names `field`.
pub(super) fn peer_id(field: &str, text: &str) -> Result<PeerId, ApiError> {
    text.parse()
        .map_err(|error| ApiError::bad_field(field, &error))
}

/// Parses the position after which a page begins; default: the begin.
pub(super) fn cursor(after: Option<&str>) -> Result<FeedCursor, ApiError> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|error: NoFeedCursor| ApiError::bad_field("after", &error))
    };
    after.map_or(Ok(FeedCursor::default()), parse)
}

/// Checks the number of rows of a page: 1 to 10,000, default 100.
pub(super) fn page(limit: Option<usize>) -> Result<usize, ApiError> {
    page_up_to(limit, 10_000)
}

/// Checks the number of rows of a page: 1 to `limit_max`, default 100.
pub(super) fn page_up_to(limit: Option<usize>, limit_max: usize) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(100);
    if (1..=limit_max).contains(&limit) {
        Ok(limit)
    } else {
        Err(ApiError::bad_request(format!(
            "limit: must be 1 to {limit_max}"
        )))
    }
}
