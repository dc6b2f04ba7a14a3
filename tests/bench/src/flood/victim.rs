//! The node that is flooded: engine, sessions and gate as a node has them, on loopback or behind an onion service.
//!
//! Never told apart from a real one by its limits: the gate has its defaults. Only its clock can be put forward, so that
//! what fades over minutes need not be waited for. Invariant: it writes nothing on its own account once it serves.

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

use super::reach::{Ground, circuits};
use super::role::{commands, number, say, verb};
use crate::nodes::{Node, Writer};

/// Seed of the victim's keys.
pub(super) const VICTIM: u64 = 1;
/// Seed of the keys of the peer that pulls.
pub(super) const READER: u64 = 2;
/// As the node has them.
const WRITE_QUEUE_MAX: usize = 256;
const READERS_MAX: usize = 4;

/// The time of day, and what it was put forward.
#[derive(Default)]
struct GateClock(AtomicU64);

impl SecondsClock for GateClock {
    fn unix_seconds(&self) -> u64 {
        SystemClock.unix_seconds() + self.0.load(Ordering::Relaxed)
    }
}

/// Sessions that only answer: what is pulled is what the peer asks for.
fn answering() -> SyncConfig {
    SyncConfig {
        pull_interval_s: 0,
        pull_wait_s: 0,
        push_interval_s: 0,
        ..SyncConfig::default()
    }
}

/// Fills a database with messages that the reader may have, serves it, and answers commands.
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
    let ground = Ground::join(setting).await?;
    let served = ground.listen(&node.keys).await?;
    let (serving, admitting) = (gate.clone(), peers.clone());
    tokio::spawn(async move {
        let admitted = move |session, admitted| admitting.admit_in_background(session, admitted);
        serving.serve(served.listener, admitted, stop).await;
    });
    ground.reachable(&node.keys.onion()).await?;
    say(&json!({ "port": served.port }))?;
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        if verb(&command) == "forward" {
            clock
                .0
                .fetch_add(number(&command, "seconds")?, Ordering::Relaxed);
        }
        say(&status(&gate, &peers, served.watch.as_ref()))?;
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
        "pressure": status.load_permille,
        "silent": status.handshakes.awaiting_hello,
        "thinking": status.handshakes.challenged,
        "presenting": status.handshakes.verifying,
        "known": status.handshakes.untrusted_ticket + status.handshakes.trusted_ticket,
        "queue": status.queue,
        "verifying": status.verifying,
        "failures": status.failures_per_minute,
        "admissions": status.admissions_per_minute,
        "answers": status.cached_replies,
        "admitted": status.admitted_total,
        "by_ticket": status.by_ticket_total,
        "refused": status.refused_total,
        "busy": status.busy_total,
        "sessions": peers.registry().sessions().len(),
        "circuits": circuits(watch),
    })
}
