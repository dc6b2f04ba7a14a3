//! The attackers: bogus messages on connections of their own, and a crowd that stalls at every step.
//!
//! On loopback at a steady rate; over Tor by so many attackers, each of whom begins again when done: who knows what rate
//! a network carries must find out how many it takes.
//! Aimed at the victim or at the sink by command, and the same to both: it learns what it learns from the answers alone.
//! Never more connections than its places. Invariant: a message is counted when all of its bytes were handed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bastion::messages::Challenge;
use bastion::{Session, Transport};
use keys::OnionAddr;
use parking_lot::Mutex;
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::bogus::{Forger, Kind, MIX, nonce, read_challenge};
use super::reach::{self, Ground};
use super::role::{commands, number, say, verb};
use super::stall;

/// How long a connection stays after its last word, if it is not hung up on before.
const HOLD: Duration = Duration::from_millis(250);
/// Streams that every second attacker over Tor opens on one circuit, one after the other, before it builds another; the
/// others open one. The victim's limit is 30 within a minute.
pub(super) const STREAMS_A_CIRCUIT: u32 = 24;
/// Before an attacker over Tor tries again after a failure.
const PAUSE: Duration = Duration::from_millis(250);
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
    /// Connections that were wanted.
    attempts: AtomicU64,
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
    pub(super) ground: Ground,
    /// How long anything may take but the wait for being hung up on.
    pub(super) patience: Duration,
}

/// What is attacked, and by how many of those who begin again when done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Aim {
    /// Nothing: rest.
    pub(super) at: Option<OnionAddr>,
    attackers: u64,
}

impl Shared {
    fn seen(&self) -> Option<Challenge> {
        self.seen.lock().clone()
    }

    fn see(&self, challenge: Option<Challenge>) {
        *self.seen.lock() = challenge;
    }
}

/// Floods by command until the end of its input.
pub(super) async fn run(setting: &Value) -> Result<()> {
    let stallers = number(setting, "stallers")?;
    let ground = Ground::join(setting).await?;
    let shared = Arc::new(Shared {
        forger: Forger::new()?,
        seen: Mutex::new(None),
        counters: Counters::default(),
        places: Arc::new(Semaphore::new(PLACES)),
        patience: ground.patience(),
        ground,
    });
    let (aim, aimed) = watch::channel(Aim::default());
    for number in 0..stallers {
        tokio::spawn(stall::keep(number, shared.clone(), aimed.clone()));
    }
    match setting.get("rate") {
        Some(_) => {
            tokio::spawn(pace(number(setting, "rate")?, shared.clone(), aimed));
        }
        None => {
            for number in 0..number(setting, "attackers")? {
                tokio::spawn(press(number, shared.clone(), aimed.clone()));
            }
        }
    }
    let mut since = Instant::now();
    say(&json!({}))?;
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        if verb(&command) == "aim" {
            shared.see(None);
            aim.send_replace(Aim {
                at: match command.get("at").and_then(Value::as_str) {
                    Some("victim") => Some(reach::victim()?),
                    Some("sink") => Some(reach::sink()?),
                    _ => None,
                },
                attackers: number(&command, "attackers")?,
            });
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
        "attempts": take(&counters.attempts),
        "connections": take(&counters.connections),
        "lost": take(&counters.lost),
        "late": take(&counters.late),
        "stalls": take(&counters.stalls),
        "speaking": speaking,
    })
}

/// Begins connections at a steady rate.
async fn pace(rate: u64, shared: Arc<Shared>, aimed: watch::Receiver<Aim>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut begun, mut due) = (Instant::now(), 0f64);
    loop {
        ticks.tick().await;
        let at = aimed.borrow().at;
        // What could not be begun within a second is not made up for.
        due = (due + begun.elapsed().as_secs_f64() * rate as f64).min(rate as f64);
        begun = Instant::now();
        let Some(at) = at else {
            due = 0.0;
            continue;
        };
        while due >= 1.0 {
            due -= 1.0;
            let Ok(place) = shared.places.clone().try_acquire_owned() else {
                shared.counters.late.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let shared = shared.clone();
            tokio::spawn(async move {
                once(&shared, &*shared.ground.dialler(), &at).await;
                drop(place);
            });
        }
    }
}

/// Attacks without end: one stream after the other, on circuits of its own. Rests while fewer attackers are wanted.
async fn press(number: u64, shared: Arc<Shared>, mut aimed: watch::Receiver<Aim>) {
    let streams = if number.is_multiple_of(2) {
        1
    } else {
        STREAMS_A_CIRCUIT
    };
    loop {
        let aim = *aimed.borrow_and_update();
        let attack = async {
            let Some(at) = aim.at.filter(|_| number < aim.attackers) else {
                return std::future::pending().await;
            };
            loop {
                let dialler = shared.ground.dialler();
                for _ in 0..streams {
                    let place = shared.places.acquire().await;
                    let done = once(&shared, &*dialler, &at).await;
                    drop(place);
                    if !done {
                        sleep(PAUSE).await;
                        break;
                    }
                }
            }
        };
        tokio::select! {
            changed = aimed.changed() => if changed.is_err() { return },
            () = attack => {}
        }
    }
}

/// One attack of a kind that is drawn, and whether its message was handed over.
async fn once(shared: &Shared, dialler: &dyn Transport, at: &OnionAddr) -> bool {
    let (number, kind) = drawn();
    shared.counters.attempts.fetch_add(1, Ordering::Relaxed);
    let done = timeout(shared.patience, attack(shared, number, kind, dialler, at)).await;
    let is_done = matches!(done, Ok(Ok(())));
    if !is_done {
        shared.counters.lost.fetch_add(1, Ordering::Relaxed);
    }
    is_done
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
async fn connect(shared: &Shared, dialler: &dyn Transport, at: &OnionAddr) -> Result<Session> {
    let stream = dialler.dial(at).await?;
    shared.counters.connections.fetch_add(1, Ordering::Relaxed);
    Ok(Session::new(stream, FRAME_BYTES_MAX))
}

/// Says hello and hears the challenge.
async fn challenged(session: &mut Session, hello: &[u8]) -> Result<Challenge> {
    session.writer.write(hello).await?;
    let frame = session.reader.read().await?.context("hung up on")?;
    read_challenge(&frame)
}

/// One connection that ends badly.
async fn attack(
    shared: &Shared,
    number: usize,
    kind: Kind,
    dialler: &dyn Transport,
    at: &OnionAddr,
) -> Result<()> {
    let mut session = connect(shared, dialler, at).await?;
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
    let _ = timeout(HOLD, async {
        while let Ok(Some(_)) = session.reader.read().await {}
    })
    .await;
    Ok(())
}
