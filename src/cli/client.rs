//! The client of the running node's API: HTTP/1.1 over loopback, with the operator's token.
//!
//! Connects only to the node's own address, which must be loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use keys::{ApiToken, error_chain};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::failure::Failure;
use crate::config::Config;
use crate::data_dir::DataDir;

/// Longest reply, in bytes.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// First pause before a request is repeated because the node was busy.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest such pause. A request that waits for a message takes as long.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A text as a value in a query string: all bytes except letters and digits are escaped.
pub(super) fn query_value(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

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

    /// Sends a GET request of a command that follows the node. Repeats the request with growing
    /// pauses as long as the node is busy, because the places of others become free.
    pub(super) async fn get_patiently(&self, path: &str) -> Result<Value, Failure> {
        let mut pause = PAUSE_MIN;
        loop {
            match self.get(path).await {
                Err(failure) if failure.is_busy => sleep(pause).await,
                done => return done,
            }
            pause = PAUSE_MAX.min(pause * 2);
        }
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
        let code = value.pointer("/error/code").and_then(Value::as_str);
        Err(Failure {
            is_busy: code == Some("busy"),
            ..Failure::failed(said)
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    /// A node that gives these replies, one to each connection.
    async fn node_of(replies: Vec<(u16, &'static str)>) -> ApiClient {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for (status, body) in replies {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                let reply = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        let token = ApiToken::generate(&mut ChaCha20Rng::seed_from_u64(3));
        ApiClient { address, token }
    }

    const BUSY: (u16, &str) = (503, r#"{"error":{"code":"busy","message":"too many"}}"#);
    const STOPPING: (u16, &str) = (503, r#"{"error":{"code":"stopping","message":"over"}}"#);

    #[test]
    fn query_value_escapes_all_but_letters_and_digits() {
        assert_eq!(query_value("Bob 2&é"), "Bob%202%26%C3%A9");
    }

    #[tokio::test(start_paused = true)]
    async fn following_request_is_repeated_while_the_node_is_busy() {
        let mut replies = vec![BUSY; 8];
        replies.push((200, r#"{"after":"7"}"#));
        let (client, start) = (node_of(replies).await, Instant::now());
        let page = client.get_patiently("/api/x").await.unwrap();
        assert_eq!(page, serde_json::json!({ "after": "7" }));
        let pauses: u64 = [1, 2, 4, 8, 16, 30, 30, 30].iter().sum();
        assert_eq!(start.elapsed().as_secs(), pauses);
    }

    #[tokio::test(start_paused = true)]
    async fn following_request_ends_with_any_other_error() {
        let client = node_of(vec![BUSY, STOPPING]).await;
        let failure = client.get_patiently("/api/x").await.unwrap_err();
        assert_eq!(failure.message, "over");
        let client = node_of(vec![BUSY]).await;
        let failure = client.get("/api/x").await.unwrap_err();
        assert!(failure.is_busy, "a single request reports it");
    }
}
