//! The honest clients: a pulling peer, peers with idle sessions, a peer with a ticket, and
//! unadmitted clients that solve puzzles.
//!
//! Invariant: each unadmitted client has new keys and the default limits, with one solving thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use std::time::Duration;

use anyhow::{Context as _, Result};
use bastion::transport::Stream;
use bastion::{
    Admitted, AppClaim, Connector, DialError, GateConfig, HandshakeError, Internal, LocalProfile,
    NodeProfile, Progress, Session, Ticket, Transport,
};
use futures::future::BoxFuture;
use keys::{BootId, Epoch, KeyManager, OnionAddr, SchemaDigest};
use parking_lot::Mutex;
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::access::{self, NetworkAccess};
use super::pull_client::{PullClient, reply_to_peer};
use super::role::{commands, reply, verb};
use super::victim::READER;
use crate::nodes::Node;

/// Number of idle sessions, opened before the flood.
pub(super) const IDLE_SESSIONS: usize = 8;

/// Time limit of a dial. A client that is not admitted by then counts as refused.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(90);

/// A constant profile.
struct StaticProfile(NodeProfile);

impl LocalProfile for StaticProfile {
    fn profile(&self) -> BoxFuture<'_, Result<NodeProfile, Internal>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// A client that only dials.
struct Client(Connector);

/// Statistics of one dial.
#[derive(Default)]
struct DialStats {
    /// Effort of the first challenge.
    effort: u64,
    evaluations: u64,
    seconds: f64,
    dials: u32,
    waits: u32,
}

impl Client {
    fn new(keys: Arc<KeyManager>) -> Self {
        let mut rng = rand::rng();
        let profile = NodeProfile {
            apps: ["identities", "messages"]
                .map(|slug| AppClaim::new(slug, 1, SchemaDigest::from_bytes([1; 16])))
                .to_vec(),
            sync_domains: ["identities", "messages"].map(str::to_owned).to_vec(),
            epoch: Epoch::from_bytes(rng.random()),
            boot_id: BootId::from_bytes(rng.random()),
            identities: Vec::new(),
        };
        let config = GateConfig {
            solver_threads: 1,
            verify_workers: 1,
            ..GateConfig::default()
        };
        Self(Connector::new(
            config,
            keys,
            Arc::new(StaticProfile(profile)),
        ))
    }

    fn with_new_keys() -> Self {
        Self::new(Arc::new(KeyManager::generate(&mut rand::rng())))
    }

    async fn dial(
        &self,
        victim: &Victim,
        ticket: Option<Ticket>,
    ) -> (Result<(Session, Admitted), HandshakeError>, Value) {
        let stats = Mutex::new(DialStats::default());
        let start = Instant::now();
        let progress = |progress| note(&stats, progress);
        let transport = TimedTransport::new(victim.access.dialler());
        let dial = self.0.dial(&transport, &victim.onion, ticket, &progress);
        let late = Err(HandshakeError::Internal(Internal(
            "the dial has timed out".into(),
        )));
        let result = timeout(DIAL_TIMEOUT, dial).await.unwrap_or(late);
        let seconds = start.elapsed().as_secs_f64();
        let mut stats = stats.into_inner();
        if let (0, Ok((_, admitted))) = (stats.effort, &result) {
            // The puzzle was solved before the first progress report.
            stats.effort = admitted.effort();
        }
        let outcome = json!({
            "admitted": result.is_ok(),
            "error": result.as_ref().err().map(ToString::to_string),
            "seconds": seconds,
            "effort": stats.effort,
            "solved_effort": result.as_ref().map_or(0, |(_, admitted)| admitted.effort()),
            "evaluations": stats.evaluations,
            "solving": stats.seconds,
            "dials": stats.dials,
            "waits": stats.waits,
            "dialling": transport.spent(),
        });
        (result, outcome)
    }
}

fn note(stats: &Mutex<DialStats>, progress: Progress) {
    let mut stats = stats.lock();
    match progress {
        Progress::Dialling => stats.dials += 1,
        Progress::Waiting(_) => stats.waits += 1,
        Progress::Solving {
            evaluations,
            effort,
            elapsed,
            ..
        } => {
            if stats.effort == 0 {
                stats.effort = effort;
            }
            stats.evaluations = evaluations;
            stats.seconds = elapsed.as_secs_f64();
        }
        Progress::Verifying => {}
    }
}

/// The victim's address, and the network access. Each dial uses a new, isolated dialler.
struct Victim {
    access: NetworkAccess,
    onion: OnionAddr,
}

/// A transport that measures the time of its dials.
struct TimedTransport {
    dialler: Arc<dyn Transport>,
    spent: Mutex<Duration>,
}

impl TimedTransport {
    fn new(dialler: Arc<dyn Transport>) -> Self {
        Self {
            dialler,
            spent: Mutex::default(),
        }
    }

    /// Returns the time of all dials in seconds, including failed ones.
    fn spent(&self) -> f64 {
        self.spent.lock().as_secs_f64()
    }
}

impl Transport for TimedTransport {
    fn dial<'a>(&'a self, onion: &'a OnionAddr) -> BoxFuture<'a, Result<Stream, DialError>> {
        Box::pin(async {
            let start = Instant::now();
            let stream = self.dialler.dial(onion).await;
            *self.spent.lock() += start.elapsed();
            stream
        })
    }
}

/// The sessions that were opened before the flood.
#[derive(Default)]
struct EarlySessions {
    /// Objects that the pulling peer received.
    objects: Arc<AtomicU64>,
    /// Number of sessions that are still open.
    open: Arc<AtomicUsize>,
    /// The error of the session that ended last.
    ended: Arc<Mutex<Option<String>>>,
    ticket_holder: Option<(Client, Ticket)>,
}

/// Executes commands until standard input ends.
pub(super) async fn run(setting: &Value) -> Result<()> {
    let victim = Victim {
        access: NetworkAccess::join(setting).await?,
        onion: access::victim()?,
    };
    // The process of the unadmitted clients opens no sessions.
    let early = match setting.get("open_sessions").and_then(Value::as_bool) {
        Some(true) => open_sessions(&victim).await?,
        _ => EarlySessions::default(),
    };
    let start = Instant::now();
    reply(&json!({}))?;
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        let outcome = match verb(&command) {
            "dial" => Client::with_new_keys().dial(&victim, None).await.1,
            "ticket" => match &early.ticket_holder {
                Some((client, ticket)) => client.dial(&victim, Some(ticket.clone())).await.1,
                None => json!({ "admitted": false, "error": "no ticket was issued" }),
            },
            _ => json!({
                "objects": early.objects.load(Ordering::Relaxed),
                "seconds": start.elapsed().as_secs_f64(),
                "open": early.open.load(Ordering::Relaxed),
                "ended": *early.ended.lock(),
            }),
        };
        reply(&outcome)?;
    }
    Ok(())
}

/// Opens the sessions of all clients that are admitted before the flood.
async fn open_sessions(victim: &Victim) -> Result<EarlySessions> {
    let mut early = EarlySessions::default();
    let client = Client::with_new_keys();
    let (_, admitted) = client.dial(victim, None).await.0?;
    let ticket = admitted.ticket().context("no ticket was issued")?.clone();
    early.ticket_holder = Some((client, ticket));
    for _ in 0..IDLE_SESSIONS {
        let (session, _) = Client::with_new_keys().dial(victim, None).await.0?;
        early.watch(idle(session));
    }
    let (session, admitted) = Client::new(Node::new(READER)?.keys)
        .dial(victim, None)
        .await
        .0?;
    let client = PullClient::new(session, admitted.claims().epoch)?;
    early.watch(client.run(early.objects.clone()));
    Ok(early)
}

impl EarlySessions {
    /// Runs a session and records its end.
    fn watch(&self, session: impl Future<Output = Result<()>> + Send + 'static) {
        let (open, ended) = (self.open.clone(), self.ended.clone());
        open.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let end = session.await;
            open.fetch_sub(1, Ordering::Relaxed);
            let why = end.err().map(|error| format!("{error:#}"));
            *ended.lock() = why;
        });
    }
}

/// Keeps a session open without requests of its own.
async fn idle(mut session: Session) -> Result<()> {
    loop {
        let frame = session.reader.read().await?.context("the session ended")?;
        reply_to_peer(&mut session, &frame).await?;
    }
}
