//! The span of a request in the log.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use super::ApiFixture;

/// The text of a log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn log_line_of_a_request_names_its_trace_id_and_route() {
    let api = ApiFixture::new().await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let peer = api.bobs_node.to_hex();
    api.post("/api/admission/ban", json!({ "peer_id": peer }))
        .await
        .ok();
    drop(guard);
    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    let line = text.lines().find(|line| line.contains("verdict")).unwrap();
    let (_, span) = line.split_once("request{trace=").unwrap();
    let (trace, fields) = span.split_at(16);
    assert!(trace.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
    assert!(
        fields.starts_with(" method=POST route=\"/api/admission/ban\"}"),
        "{line}"
    );
}
