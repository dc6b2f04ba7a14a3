//! The client of the running node's API: HTTP/1.1 over loopback, with the operator's token.
//!
//! Connects only to the node's own address, which must be loopback.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use keys::{ApiToken, error_chain};
use serde_json::Value;
use tokio::net::TcpStream;

use super::failure::Failure;
use crate::config::Config;
use crate::data_dir::DataDir;

/// Longest reply, in bytes.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// A running node's API address and token.
pub(super) struct ApiClient {
    address: SocketAddr,
    token: ApiToken,
}

impl ApiClient {
    /// Finds the node that runs with this configuration.
    pub(super) fn find(config: &Path) -> Result<Self, Failure> {
        let config = Config::load(config).map_err(|error| Failure::of_usage(&error))?;
        let data = DataDir::of(&config);
        let token = ApiToken::read(&data.token()).map_err(|error| Failure::of(&error))?;
        let not_running =
            || Failure::failed("the node is not running: start it with `postern run`");
        // After a crash another program may use the address, and must not get the token.
        if !data.is_running() {
            return Err(not_running());
        }
        let text = std::fs::read_to_string(data.api_address()).map_err(|_| {
            Failure::failed(
                "the node is starting or stopping, or another command uses its folder: try again",
            )
        })?;
        let address: SocketAddr = text.trim().parse().map_err(|_| not_running())?;
        if !address.ip().is_loopback() {
            return Err(Failure::failed(
                "the node's API address is not on this machine",
            ));
        }
        Ok(Self { address, token })
    }

    /// Sends a GET request.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Sends a POST request.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::POST, path, body.to_string().into()).await
    }

    /// Sends a PUT request.
    pub(super) async fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::PUT, path, body.to_string().into()).await
    }

    /// Sends a DELETE request.
    pub(super) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::DELETE, path, Bytes::new()).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Value, Failure> {
        let stream = TcpStream::connect(self.address).await.map_err(|_| {
            Failure::failed("the node does not reply: is it running? (`postern run`)")
        })?;
        let broken = |error: &(dyn std::error::Error + 'static)| {
            Failure::failed(format!("the node's API: {}", Failure::of(error).message))
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        // Ends with the sender; its error is also the reply's error.
        let driving = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(
                AUTHORIZATION,
                format!("Bearer {}", self.token.to_text().as_str()),
            )
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| broken(&error))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), REPLY_BYTES_MAX)
            .collect()
            .await;
        let bytes = body
            .map_err(|error| Failure::failed(format!("the node's API: {}", error_chain(&*error))))?
            .to_bytes();
        driving.abort();
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| broken(&error))?;
        if status.is_success() {
            return Ok(value);
        }
        let said = value
            .pointer("/error/message")
            .and_then(Value::as_str)
            .unwrap_or("the request failed");
        Err(Failure::failed(said))
    }
}
