//! The attackers: bogus messages at a steady rate on connections of their own, and a crowd that stalls at every step.
//!
//! Aimed at the victim or at the sink by command, and the same to both: it learns what it learns from the answers alone.
//! Never more connections than its places. Invariant: a message is counted when all of its bytes were handed over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bastion::Session;
use bastion::messages::Challenge;
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::bogus::{Forger, Kind, MIX, nonce, read_challenge};
use super::role::{commands, number, port, say, verb};
use super::stall;

/// How long a connection stays after its last word, if it is not hung up on before.
const HOLD: Duration = Duration::from_millis(250);
/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that speak at once, at most.
const PLACES: usize = 1500;
const TICK: Duration = Duration::from_millis(5);
pub(super) const FRAME_BYTES_MAX: usize = 8192;

/// What was done since the counters were last read.
#[derive(Default)]
pub(super) struct Counters {
    /// Messages handed over, by kind as in [`MIX`].
    kinds: [AtomicU64; 6],
    /// Hellos that only fetched a challenge for a bogus solution.
    fetching: AtomicU64,
    connections: AtomicU64,
    /// No connection, or hung up on before the message was out.
    lost: AtomicU64,
    /// Not begun because all places were taken.
    late: AtomicU64,
    pub(super) stalls: AtomicU64,
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) forger: Forger,
    /// The last challenge that was seen: its cookie is good for any number of solutions that fail before the work.
    seen: Mutex<Option<Challenge>>,
    pub(super) counters: Counters,
    /// For connections that speak.
    places: Arc<Semaphore>,
}

impl Shared {
    fn seen(&self) -> Option<Challenge> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn see(&self, challenge: Option<Challenge>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = challenge;
    }
}

/// Floods by command until the end of its input.
pub(super) async fn run(setting: &Value) -> Result<()> {
    let (rate, stallers) = (number(setting, "rate")?, number(setting, "stallers")?);
    let shared = Arc::new(Shared {
        forger: Forger::new()?,
        seen: Mutex::new(None),
        counters: Counters::default(),
        places: Arc::new(Semaphore::new(PLACES)),
    });
    // Port 0 is rest.
    let (aim, aimed) = watch::channel(0);
    for number in 0..stallers {
        tokio::spawn(stall::keep(number, shared.clone(), aimed.clone()));
    }
    tokio::spawn(pace(rate, shared.clone(), aimed));
    let mut since = Instant::now();
    say(&json!({}))?;
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        if verb(&command) == "aim" {
            shared.see(None);
            aim.send_replace(port(&command, "port")?);
        }
        let seconds = since.elapsed().as_secs_f64();
        since = Instant::now();
        let speaking = PLACES - shared.places.available_permits();
        say(&counted(&shared.counters, seconds, speaking))?;
    }
    Ok(())
}

fn counted(counters: &Counters, seconds: f64, speaking: usize) -> Value {
    let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
    let kinds: Vec<u64> = counters.kinds.iter().map(take).collect();
    json!({
        "seconds": seconds,
        "kinds": kinds,
        "fetching": take(&counters.fetching),
        "connections": take(&counters.connections),
        "lost": take(&counters.lost),
        "late": take(&counters.late),
        "stalls": take(&counters.stalls),
        "speaking": speaking,
    })
}

/// Begins connections at a steady rate.
async fn pace(rate: u64, shared: Arc<Shared>, aimed: watch::Receiver<u16>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut begun, mut due) = (Instant::now(), 0f64);
    loop {
        ticks.tick().await;
        let port = *aimed.borrow();
        // What could not be begun within a second is not made up for.
        due = (due + begun.elapsed().as_secs_f64() * rate as f64).min(rate as f64);
        begun = Instant::now();
        if port == 0 {
            due = 0.0;
        }
        while due >= 1.0 {
            due -= 1.0;
            let Ok(place) = shared.places.clone().try_acquire_owned() else {
                shared.counters.late.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let shared = shared.clone();
            tokio::spawn(async move {
                let (number, kind) = drawn();
                let done = timeout(PATIENCE, attack(&shared, number, kind, port)).await;
                if !matches!(done, Ok(Ok(()))) {
                    shared.counters.lost.fetch_add(1, Ordering::Relaxed);
                }
                drop(place);
            });
        }
    }
}

/// A kind and its place, as often as the mix says.
fn drawn() -> (usize, Kind) {
    let mut left = rand::rng().random_range(0..100);
    for (number, (kind, share)) in MIX.into_iter().enumerate() {
        if left < share {
            return (number, kind);
        }
        left -= share;
    }
    (0, Kind::Hello)
}

/// Reaches what is aimed at.
pub(super) async fn connect(shared: &Shared, port: u16) -> Result<Session> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    shared.counters.connections.fetch_add(1, Ordering::Relaxed);
    Ok(Session::new(stream, FRAME_BYTES_MAX))
}

/// Says hello and hears the challenge.
pub(super) async fn challenged(session: &mut Session, hello: &[u8]) -> Result<Challenge> {
    session.writer.write(hello).await?;
    let frame = session.reader.read().await?.context("hung up on")?;
    read_challenge(&frame)
}

/// One connection that ends badly.
async fn attack(shared: &Shared, number: usize, kind: Kind, port: u16) -> Result<()> {
    let mut session = connect(shared, port).await?;
    let forger = &shared.forger;
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    let sent = |kinds: &[AtomicU64; 6]| kinds.get(number).map(count);
    let frame = match kind {
        Kind::Hello | Kind::Ticket => {
            let hello = match kind {
                Kind::Hello => forger.hello().to_vec(),
                _ => forger.hello_with_ticket(),
            };
            session.writer.write(&hello).await?;
            sent(&shared.counters.kinds);
            if let Ok(Some(frame)) = session.reader.read().await
                && let Ok(challenge) = read_challenge(&frame)
            {
                shared.see(Some(challenge));
            }
            return hold(session).await;
        }
        Kind::Garbage => forger.garbage(),
        Kind::Forged | Kind::Inner => {
            let challenge = match shared.seen() {
                Some(challenge) => challenge,
                None => {
                    let challenge = challenged(&mut session, forger.hello()).await?;
                    count(&shared.counters.fetching);
                    challenge
                }
            };
            match kind {
                Kind::Forged => forger.forged(&challenge),
                _ => forger.solution(&challenge, nonce(&challenge, false)?),
            }
        }
        Kind::Work => {
            let challenge = challenged(&mut session, forger.hello()).await?;
            count(&shared.counters.fetching);
            forger.solution(&challenge, nonce(&challenge, true)?)
        }
    };
    session.writer.write(&frame).await?;
    sent(&shared.counters.kinds);
    hold(session).await
}

/// Stays a while, or until hung up on.
async fn hold(mut session: Session) -> Result<()> {
    let _ = timeout(HOLD, async { while let Ok(Some(_)) = session.reader.read().await {} }).await;
    Ok(())
}
