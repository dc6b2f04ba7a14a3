//! Nodes as processes that are connected over loopback.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::process::NodeProcess;
use serde_json::Value;
use tempfile::TempDir;

use crate::operating::json_of;

/// Time limit for an object to travel from one node to another.
const TRAVEL_DEADLINE: Duration = Duration::from_secs(60);

/// Nodes that reach each other.
pub(crate) struct Nodes {
    nodes: Vec<NodeProcess>,
    pub(crate) onions: Vec<String>,
    parent: TempDir,
}

impl Nodes {
    /// Starts a node for each name of an identity.
    pub(crate) fn start(names: &[&str]) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_postern"));
        let kind = "[transport]\nkind = \"loopback\"\n";
        let init = |name: &&str| NodeProcess::init(binary, parent.path(), name, kind);
        let mut nodes: Vec<_> = names.iter().map(init).collect();
        // All ports are different, because all are taken at one time.
        let listen = |_: &NodeProcess| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken: Vec<_> = nodes.iter().map(listen).collect();
        let ports = taken.iter().map(|it| it.local_addr().unwrap());
        let ports: Vec<_> = ports.collect();
        let onion = |node: &NodeProcess| {
            let (config, passphrase) = (node.config(), node.passphrase().display().to_string());
            let (config, list) = (config.display(), "keys list --json");
            let listed = json_of(&format!(
                "{list} --config {config} --passphrase-file {passphrase}"
            ));
            listed["onion"].as_str().unwrap().to_owned()
        };
        let onions: Vec<_> = nodes.iter().map(onion).collect();
        let entries = onions.iter().zip(&ports);
        let directory: String = entries
            .map(|(onion, port)| format!("\"{onion}\" = \"{port}\"\n"))
            .collect();
        for (node, port) in nodes.iter().zip(&ports) {
            let config = format!(
                "[api]\nlisten = \"127.0.0.1:0\"\n[sync]\npull_interval_s = 1\nbackoff_s_min = 1\n\
                 [transport]\nkind = \"loopback\"\nloopback_listen = \"{port}\"\n\
                 [transport.loopback_directory]\n{directory}"
            );
            fs::write(node.config(), config).unwrap();
        }
        drop(taken);
        nodes.iter_mut().for_each(NodeProcess::start);
        Self {
            nodes,
            onions,
            parent,
        }
    }

    pub(crate) fn ok(&self, node: usize, line: &str) -> String {
        self.nodes[node].ok(line)
    }

    pub(crate) fn json(&self, node: usize, line: &str) -> Value {
        self.nodes[node].json(line)
    }

    pub(crate) fn refused(&self, node: usize, line: &str, reason: &str) {
        let output = self.nodes[node].command(line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{line}");
        assert!(stderr.contains(reason), "{line}: {stderr}");
    }

    /// The file of a node's database.
    pub(crate) fn database(&self, node: usize) -> PathBuf {
        self.nodes[node].folder.join("postern.db")
    }

    /// Starts a node again. Its process ends itself at the crash point of this name.
    #[cfg(debug_assertions)]
    pub(crate) fn restart_crashing_at(&mut self, node: usize, crash_point: &str) {
        self.nodes[node].stop();
        self.nodes[node].start_crashing_at(crash_point);
    }

    /// Starts a node again that ended itself at a crash point.
    #[cfg(debug_assertions)]
    pub(crate) fn restart_crashed(&mut self, node: usize) {
        self.nodes[node].wait_for_crash();
        self.nodes[node].start();
    }

    /// The path of a file that is in no node's folder.
    pub(crate) fn at(&self, name: &str) -> String {
        self.parent.path().join(name).display().to_string()
    }

    /// The file with the passphrase of a node.
    pub(crate) fn passphrase(&self, node: usize) -> String {
        self.nodes[node].passphrase().display().to_string()
    }

    /// The oid of the first identity of a node.
    pub(crate) fn identity(&self, node: usize) -> String {
        let listed = self.json(node, "identity list");
        listed["identities"][0]["oid"].as_str().unwrap().to_owned()
    }

    /// Waits until what a command prints contains a text, and returns it.
    pub(crate) fn until(&mut self, node: usize, line: &str, text: &str) -> String {
        self.nodes[node].until_shown(line, text, TRAVEL_DEADLINE)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.nodes.iter_mut().for_each(NodeProcess::stop);
        }
    }
}
