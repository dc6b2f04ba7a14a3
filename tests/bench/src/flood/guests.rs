//! The honest ones: a peer that pulls, peers with idle sessions, one with a ticket, and strangers who work.
//!
//! Never sends what it does not mean. Invariant: every stranger has keys that the victim never saw, and the limits of a
//! default client with one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use std::time::Duration;

use anyhow::{Context as _, Result};
use bastion::transport::Stream;
use bastion::{
    Admitted, Connector, DialError, GateConfig, HandshakeError, Internal, LocalProfile,
    NodeProfile, Progress, Session, Ticket, Transport,
};
use futures::future::BoxFuture;
use keys::{BootId, Epoch, KeyManager, OnionAddr};
use parking_lot::Mutex;
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::puller::{Puller, answer};
use super::reach::{self, Ground};
use super::role::{commands, say, verb};
use super::victim::READER;
use crate::nodes::Node;

/// Sessions that are open before the flood and do nothing.
pub(super) const IDLE: usize = 8;

/// The longest that one dial may take here: who is not in by then is counted as turned away.
pub(super) const DIAL: Duration = Duration::from_secs(90);

/// Says who it is, and admits nobody.
struct Visitor(NodeProfile);

impl LocalProfile for Visitor {
    fn profile(&self) -> BoxFuture<'_, Result<NodeProfile, Internal>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// A node that only dials.
struct Guest(Connector);

/// How the work of one dial went.
#[derive(Default)]
struct Working {
    /// As it was asked first.
    asked: u64,
    evaluations: u64,
    seconds: f64,
    dials: u32,
    waits: u32,
}

impl Guest {
    fn new(keys: Arc<KeyManager>) -> Self {
        let mut rng = rand::rng();
        let profile = NodeProfile {
            apps: ["identities", "messages"].map(str::to_owned).to_vec(),
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
        Self(Connector::new(config, keys, Arc::new(Visitor(profile))))
    }

    fn stranger() -> Self {
        Self::new(Arc::new(KeyManager::generate(&mut rand::rng())))
    }

    async fn dial(
        &self,
        place: &Place,
        ticket: Option<Ticket>,
    ) -> (Result<(Session, Admitted), HandshakeError>, Value) {
        let working = Mutex::new(Working::default());
        let begun = Instant::now();
        let progress = |progress| note(&working, progress);
        let transport = Timed::new(place.ground.dialler());
        let dial = self.0.dial(&transport, &place.onion, ticket, &progress);
        let late = Err(HandshakeError::Internal(Internal(
            "no end within the time of a dial".into(),
        )));
        let result = timeout(DIAL, dial).await.unwrap_or(late);
        let seconds = begun.elapsed().as_secs_f64();
        let mut working = working.into_inner();
        if let (0, Ok((_, admitted))) = (working.asked, &result) {
            // Solved before the first report.
            working.asked = admitted.effort();
        }
        let told = json!({
            "admitted": result.is_ok(),
            "error": result.as_ref().err().map(ToString::to_string),
            "seconds": seconds,
            "asked": working.asked,
            "worked": result.as_ref().map_or(0, |(_, admitted)| admitted.effort()),
            "evaluations": working.evaluations,
            "solving": working.seconds,
            "dials": working.dials,
            "waits": working.waits,
            "dialling": transport.spent(),
        });
        (result, told)
    }
}

fn note(working: &Mutex<Working>, progress: Progress) {
    let mut working = working.lock();
    match progress {
        Progress::Dialling => working.dials += 1,
        Progress::Waiting(_) => working.waits += 1,
        Progress::Solving {
            evaluations,
            effort,
            elapsed,
            ..
        } => {
            if working.asked == 0 {
                working.asked = effort;
            }
            working.evaluations = evaluations;
            working.seconds = elapsed.as_secs_f64();
        }
        Progress::Presenting => {}
    }
}

/// Where the victim is. Whoever dials it does so as somebody who never dialled before.
struct Place {
    ground: Ground,
    onion: OnionAddr,
}

/// A dialler that knows how long it took.
struct Timed {
    dialler: Arc<dyn Transport>,
    spent: Mutex<Duration>,
}

impl Timed {
    fn new(dialler: Arc<dyn Transport>) -> Self {
        Self {
            dialler,
            spent: Mutex::default(),
        }
    }

    /// In seconds, dials that succeeded and others.
    fn spent(&self) -> f64 {
        self.spent.lock().as_secs_f64()
    }
}

impl Transport for Timed {
    fn dial<'a>(&'a self, onion: &'a OnionAddr) -> BoxFuture<'a, Result<Stream, DialError>> {
        Box::pin(async {
            let begun = Instant::now();
            let stream = self.dialler.dial(onion).await;
            *self.spent.lock() += begun.elapsed();
            stream
        })
    }
}

/// Who was admitted before the flood.
#[derive(Default)]
struct Before {
    objects: Arc<AtomicU64>,
    /// Sessions that are still open.
    open: Arc<AtomicUsize>,
    /// Why one ended.
    ended: Arc<Mutex<Option<String>>>,
    known: Option<(Guest, Ticket)>,
}

/// Does what it is told until the end of its input.
pub(super) async fn run(setting: &Value) -> Result<()> {
    let place = Place {
        ground: Ground::join(setting).await?,
        onion: reach::victim()?,
    };
    // The strangers' own process knows nobody.
    let before = match setting.get("meets").and_then(Value::as_bool) {
        Some(true) => meet(&place).await?,
        _ => Before::default(),
    };
    let begun = Instant::now();
    say(&json!({}))?;
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        let told = match verb(&command) {
            "stranger" => Guest::stranger().dial(&place, None).await.1,
            "ticket" => match &before.known {
                Some((guest, ticket)) => guest.dial(&place, Some(ticket.clone())).await.1,
                None => json!({ "admitted": false, "error": "no ticket was given" }),
            },
            _ => json!({
                "objects": before.objects.load(Ordering::Relaxed),
                "seconds": begun.elapsed().as_secs_f64(),
                "open": before.open.load(Ordering::Relaxed),
                "ended": *before.ended.lock(),
            }),
        };
        say(&told)?;
    }
    Ok(())
}

/// Everybody who is there before the flood.
async fn meet(place: &Place) -> Result<Before> {
    let mut before = Before::default();
    let known = Guest::stranger();
    let (_, admitted) = known.dial(place, None).await.0?;
    let ticket = admitted.ticket().context("no ticket was given")?.clone();
    before.known = Some((known, ticket));
    for _ in 0..IDLE {
        let (session, _) = Guest::stranger().dial(place, None).await.0?;
        before.watch(idle(session));
    }
    let (session, _) = Guest::new(Node::new(READER)?.keys)
        .dial(place, None)
        .await
        .0?;
    before.watch(Puller::new(session)?.run(before.objects.clone()));
    Ok(before)
}

impl Before {
    /// Runs a session and notes its end.
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

/// Gives signs of life and nothing else.
async fn idle(mut session: Session) -> Result<()> {
    loop {
        let frame = session.reader.read().await?.context("the session ended")?;
        answer(&mut session, &frame).await?;
    }
}
