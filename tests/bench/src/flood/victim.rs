//! The flooded node: core, sessions and gate of a real node, on loopback or behind an onion
//! service.
//!
//! The gate has its default limits. A command can move its clock forward, so that the benchmark
//! does not wait for values that decay over minutes. Invariant: the node creates no objects while
//! it serves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use bastion::transport::TorWatch;
use bastion::{Gate, GateConfig, SecondsClock};
use keys::BootId;
use postern::admission::{ActivePolicy, NodeGatekeeper};
use postern::clock::SystemClock;
use postern::config::{AdmissionConfig, SyncConfig};
use postern::engine::CoreHandle;
use postern::peer::SyncService;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::access::{NetworkAccess, circuits};
use super::role::{commands, number, reply, verb};
use crate::nodes::{Node, Writer};

/// Seed of the victim's keys.
pub(super) const VICTIM: u64 = 1;
/// Seed of the keys of the pulling peer.
pub(super) const READER: u64 = 2;
/// The node's defaults.
const WRITE_QUEUE_MAX: usize = 256;
const READERS_MAX: usize = 4;

/// The system clock plus an offset in seconds.
#[derive(Default)]
struct GateClock(AtomicU64);

impl SecondsClock for GateClock {
    fn unix_seconds(&self) -> u64 {
        SystemClock.unix_seconds() + self.0.load(Ordering::Relaxed)
    }
}

/// Returns a configuration without automatic pulls and pushes, so that sessions only serve
/// requests.
fn answering() -> SyncConfig {
    SyncConfig {
        pull_interval_s: 0,
        pull_wait_s: 0,
        push_interval_s: 0,
        ..SyncConfig::default()
    }
}

/// Fills a database with messages for the reader, serves it, and executes commands.
pub(super) async fn run(setting: &Value) -> Result<()> {
    let folder = setting
        .get("folder")
        .and_then(Value::as_str)
        .context("no folder")?;
    let size = |name| anyhow::Ok(usize::try_from(number(setting, name)?)?);
    let (node, engine) = fill(Path::new(folder), size("messages")?, size("package")?)?;
    let stop = CancellationToken::new();
    let peers = SyncService::new(engine, answering(), stop.clone());
    let config = GateConfig::default();
    let gatekeeper = Arc::new(NodeGatekeeper {
        peers: peers.clone(),
        policy: ActivePolicy::new(AdmissionConfig::default()),
        boot_id: BootId::from_bytes([7; 16]),
    });
    let clock = Arc::new(GateClock::default());
    let gate = Gate::new(
        config,
        node.keys.clone(),
        gatekeeper.clone(),
        gatekeeper,
        clock.clone(),
    );
    let access = NetworkAccess::join(setting).await?;
    let service = access.listen(&node.keys).await?;
    let (serving, admitting) = (gate.clone(), peers.clone());
    tokio::spawn(async move {
        let admitted = move |session, admitted| admitting.admit_in_background(session, admitted);
        serving.serve(service.listener, admitted, stop).await;
    });
    access.reachable(&node.keys.onion()).await?;
    reply(&json!({ "port": service.port }))?;
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        if verb(&command) == "forward" {
            clock
                .0
                .fetch_add(number(&command, "seconds")?, Ordering::Relaxed);
        }
        reply(&status(&gate, &peers, service.watch.as_ref()))?;
    }
    Ok(())
}

fn fill(folder: &Path, messages: usize, package: usize) -> Result<(Node, CoreHandle)> {
    let (node, reader) = (Node::new(VICTIM)?, Node::new(READER)?);
    let mut core = node.open_with(&folder.join("victim.db"), package)?;
    let mut reader_core = reader.open(&folder.join("reader.db"))?;
    node.publish(&mut core)?;
    reader.publish(&mut reader_core)?;
    node.meet(&mut core, &reader, &reader_core)?;
    Writer::new(&node, &core, &reader)?.write(&mut core, messages)?;
    // The writer's thread ends with the process.
    let (engine, _) = CoreHandle::spawn(core, Arc::new(SystemClock), WRITE_QUEUE_MAX, READERS_MAX)?;
    Ok((node, engine))
}

fn status(gate: &Gate, peers: &SyncService, watch: Option<&TorWatch>) -> Value {
    let status = gate.status();
    json!({
        "effort": status.effort,
        "load_permille": status.load_permille,
        "awaiting_hello": status.handshakes.awaiting_hello,
        "challenged": status.handshakes.challenged,
        "verifying": status.handshakes.verifying,
        "with_ticket": status.handshakes.untrusted_ticket + status.handshakes.trusted_ticket,
        "verify_queue": status.queue,
        "verify_running": status.verifying,
        "failures": status.failures_per_minute,
        "admissions": status.admissions_per_minute,
        "cached_replies": status.cached_replies,
        "admitted": status.admitted_total,
        "by_ticket": status.by_ticket_total,
        "refused": status.refused_total,
        "busy": status.busy_total,
        "sessions": peers.registry().sessions().len(),
        "circuits": circuits(watch),
    })
}
