//! The terminal's client of the running node's API: HTTP/1.1 over loopback, with the operator's token.
//!
//! Never connects to another address than the node's own, which must be loopback.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use keys::ApiToken;
use serde_json::Value;
use tokio::net::TcpStream;

use super::Failure;
use crate::config::Config;
use crate::data_dir::DataDir;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The running node.
pub(super) struct Client {
    address: SocketAddr,
    token: ApiToken,
}

impl Client {
    /// Finds the node that runs with this config.
    pub(super) fn find(config: &Path) -> Result<Self, Failure> {
        let config = Config::load(config).map_err(|error| Failure {
            code: 2,
            ..Failure::of(&error)
        })?;
        let data = DataDir::of(&config);
        let token = ApiToken::read(&data.token()).map_err(|error| Failure::of(&error))?;
        let not_running =
            || Failure::failed("the node is not running: start it with `postern run`");
        // After a crash the address may lead to another program, which must not get the token.
        if !data.is_running() {
            return Err(not_running());
        }
        let text = std::fs::read_to_string(data.api_address()).map_err(|_| {
            Failure::failed("the node starts or ends just now, or another command works on its folder: try again")
        })?;
        let address: SocketAddr = text.trim().parse().map_err(|_| not_running())?;
        if !address.ip().is_loopback() {
            return Err(Failure::failed(
                "the node's API address is not on this machine",
            ));
        }
        Ok(Self { address, token })
    }

    /// Asks.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Tells.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::POST, path, body.to_string().into()).await
    }

    /// Sets.
    pub(super) async fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::PUT, path, body.to_string().into()).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Value, Failure> {
        let stream = TcpStream::connect(self.address).await.map_err(|_| {
            Failure::failed("the node does not answer: is it running? (`postern run`)")
        })?;
        let broken = |error: &(dyn std::error::Error + 'static)| {
            Failure::failed(format!("the node's API: {}", Failure::of(error).message))
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        // Ends with the sender; what it says is in the answer's error too.
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
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let bytes = body
            .map_err(|error| Failure::failed(format!("the node's API: {error}")))?
            .to_bytes();
        driving.abort();
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| broken(&error))?;
        if status.is_success() {
            return Ok(value);
        }
        let said = value
            .pointer("/error/message")
            .and_then(Value::as_str)
            .unwrap_or("it failed");
        Err(Failure::failed(said))
    }
}
