//! Helpers for the replies of a node's local API.

use std::time::{Duration, Instant};

use harness::process::NodeProcess;
use serde_json::Value;

use crate::print::detail;

/// Time limit for a node to become reachable, which takes minutes on the public network.
const REACHABLE_DEADLINE: Duration = Duration::from_secs(600);
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not text: {value}"))
        .to_owned()
}

pub(crate) fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("not a number: {value}"))
}

pub(crate) fn short(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

pub(crate) fn find_peer(node: &NodeProcess, peer: &str) -> Option<Value> {
    let status = node.get("/api/status");
    status["peers"]
        .as_array()?
        .iter()
        .find(|row| row["peer_id"] == peer)
        .cloned()
}

pub(crate) fn wait_until_reachable(node: &mut NodeProcess) {
    let started = Instant::now();
    node.until(
        "its onion service is reachable",
        REACHABLE_DEADLINE,
        |node| (node.get("/api/status")["network"] == "reachable").then_some(()),
    );
    detail(&format!(
        "{} is reachable after {:.1} s",
        node.name,
        started.elapsed().as_secs_f64()
    ));
}
