//! The attackers: bogus messages, each on its own connection, and connections that stall at each
//! step.
//!
//! On loopback attacks start at a constant rate. Over Tor a number of attackers repeat their
//! attacks, because the rate that a network carries is unknown. A command aims the flood at the
//! victim or at the sink; the attack is the same for both. At most [`SLOTS`] attacks run at once.
//! Invariant: a message is counted when all of its bytes were written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bastion::messages::Challenge;
use bastion::{Session, Transport};
use keys::OnionAddr;
use keys::protocol::UNADMITTED_FRAME_BYTES_MAX;
use parking_lot::Mutex;
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::access::{self, NetworkAccess};
use super::bogus::{Forger, Kind, MIX, nonce, read_challenge};
use super::role::{commands, number, reply, verb};
use super::stall;

/// Time that a connection stays open after its last message, unless the other side closes it first.
const HOLD: Duration = Duration::from_millis(250);
/// Consecutive streams per circuit of every second attacker over Tor; the others open one stream
/// per circuit. The victim's limit is 30 streams per minute.
pub(super) const STREAMS_PER_CIRCUIT: u32 = 24;
/// Pause of an attacker over Tor after a failure.
const PAUSE: Duration = Duration::from_millis(250);
/// Maximum number of concurrent attacks, without stalled connections.
const SLOTS: usize = 1500;
const TICK: Duration = Duration::from_millis(5);

/// Counters since they were last read.
#[derive(Default)]
pub(super) struct Counters {
    /// Messages written, by kind as in [`MIX`].
    kinds: [AtomicU64; 6],
    /// Hellos that only fetched a challenge for a bogus solution.
    fetching: AtomicU64,
    /// Attacks started.
    attempts: AtomicU64,
    connections: AtomicU64,
    /// Attacks without a connection, or closed by the other side before the message was written.
    lost: AtomicU64,
    /// Attacks not started because all slots were in use.
    skipped: AtomicU64,
    pub(super) stalls: AtomicU64,
}

/// State that all connections share.
pub(super) struct Shared {
    pub(super) forger: Forger,
    /// The most recent challenge. Its cookie is accepted any number of times until a solution
    /// passes the inner condition.
    last_challenge: Mutex<Option<Challenge>>,
    pub(super) counters: Counters,
    /// Limits the number of concurrent attacks to [`SLOTS`].
    slots: Arc<Semaphore>,
    pub(super) access: NetworkAccess,
    /// Time limit of an attack, and of a stalled connection's dial.
    pub(super) attack_timeout: Duration,
}

/// The target of the flood, and the number of active attackers over Tor.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Aim {
    /// `None` pauses the flood.
    pub(super) at: Option<OnionAddr>,
    attackers: u64,
}

impl Shared {
    fn last_challenge(&self) -> Option<Challenge> {
        self.last_challenge.lock().clone()
    }

    fn set_last_challenge(&self, challenge: Option<Challenge>) {
        *self.last_challenge.lock() = challenge;
    }
}

/// Runs the flood as commanded until standard input ends.
pub(super) async fn run(setting: &Value) -> Result<()> {
    let stallers = number(setting, "stallers")?;
    let access = NetworkAccess::join(setting).await?;
    let shared = Arc::new(Shared {
        forger: Forger::new()?,
        last_challenge: Mutex::new(None),
        counters: Counters::default(),
        slots: Arc::new(Semaphore::new(SLOTS)),
        attack_timeout: access.attack_timeout(),
        access,
    });
    let (aim, aimed) = watch::channel(Aim::default());
    for number in 0..stallers {
        tokio::spawn(stall::stall_repeatedly(
            number,
            shared.clone(),
            aimed.clone(),
        ));
    }
    match setting.get("rate") {
        Some(_) => {
            let rate = number(setting, "rate")?;
            tokio::spawn(attack_at_rate(rate, shared.clone(), aimed));
        }
        None => {
            for number in 0..number(setting, "attackers")? {
                tokio::spawn(attack_repeatedly(number, shared.clone(), aimed.clone()));
            }
        }
    }
    let mut since = Instant::now();
    reply(&json!({}))?;
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        if verb(&command) == "aim" {
            shared.set_last_challenge(None);
            aim.send_replace(Aim {
                at: match command.get("at").and_then(Value::as_str) {
                    Some("victim") => Some(access::victim()?),
                    Some("sink") => Some(access::sink()?),
                    _ => None,
                },
                attackers: number(&command, "attackers")?,
            });
        }
        let seconds = since.elapsed().as_secs_f64();
        since = Instant::now();
        let active = SLOTS - shared.slots.available_permits();
        reply(&counted(&shared.counters, seconds, active))?;
    }
    Ok(())
}

/// Reads and resets the counters.
fn counted(counters: &Counters, seconds: f64, active: usize) -> Value {
    let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
    let kinds: Vec<u64> = counters.kinds.iter().map(take).collect();
    json!({
        "seconds": seconds,
        "kinds": kinds,
        "fetching": take(&counters.fetching),
        "attempts": take(&counters.attempts),
        "connections": take(&counters.connections),
        "lost": take(&counters.lost),
        "skipped": take(&counters.skipped),
        "stalls": take(&counters.stalls),
        "active": active,
    })
}

/// Starts `rate` attacks per second.
async fn attack_at_rate(rate: u64, shared: Arc<Shared>, aimed: watch::Receiver<Aim>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut last, mut due) = (Instant::now(), 0f64);
    loop {
        ticks.tick().await;
        let at = aimed.borrow().at;
        // At most the attacks of one second are made up for after a delay.
        due = (due + last.elapsed().as_secs_f64() * rate as f64).min(rate as f64);
        last = Instant::now();
        let Some(at) = at else {
            due = 0.0;
            continue;
        };
        while due >= 1.0 {
            due -= 1.0;
            let Ok(permit) = shared.slots.clone().try_acquire_owned() else {
                shared.counters.skipped.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let shared = shared.clone();
            tokio::spawn(async move {
                run_attack(&shared, &*shared.access.dialler(), &at).await;
                drop(permit);
            });
        }
    }
}

/// Attacks without end, one stream after the other, on circuits of its own. Pauses while `number`
/// is not below the number of active attackers.
async fn attack_repeatedly(number: u64, shared: Arc<Shared>, mut aimed: watch::Receiver<Aim>) {
    let streams = if number.is_multiple_of(2) {
        1
    } else {
        STREAMS_PER_CIRCUIT
    };
    loop {
        let aim = *aimed.borrow_and_update();
        let attack = async {
            let Some(at) = aim.at.filter(|_| number < aim.attackers) else {
                return std::future::pending().await;
            };
            loop {
                let dialler = shared.access.dialler();
                for _ in 0..streams {
                    let permit = shared.slots.acquire().await;
                    let done = run_attack(&shared, &*dialler, &at).await;
                    drop(permit);
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

/// Runs one attack of a random kind. Returns whether its message was written.
async fn run_attack(shared: &Shared, dialler: &dyn Transport, at: &OnionAddr) -> bool {
    let (number, kind) = drawn();
    shared.counters.attempts.fetch_add(1, Ordering::Relaxed);
    let attack = attack(shared, number, kind, dialler, at);
    let done = timeout(shared.attack_timeout, attack).await;
    let is_done = matches!(done, Ok(Ok(())));
    if !is_done {
        shared.counters.lost.fetch_add(1, Ordering::Relaxed);
    }
    is_done
}

/// Draws a kind and its index with the probabilities of [`MIX`].
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

/// Connects to the target.
async fn connect(shared: &Shared, dialler: &dyn Transport, at: &OnionAddr) -> Result<Session> {
    let stream = dialler.dial(at).await?;
    shared.counters.connections.fetch_add(1, Ordering::Relaxed);
    Ok(Session::new(stream, UNADMITTED_FRAME_BYTES_MAX))
}

/// Sends a hello and receives the challenge.
async fn challenged(session: &mut Session, hello: &[u8]) -> Result<Challenge> {
    session.writer.write(hello).await?;
    let frame = session
        .reader
        .read()
        .await?
        .context("the target closed the connection")?;
    read_challenge(&frame)
}

/// Opens one connection and sends a message of the kind.
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
                shared.set_last_challenge(Some(challenge));
            }
            return hold(session).await;
        }
        Kind::Garbage => forger.garbage(),
        Kind::Forged | Kind::Inner => {
            let challenge = match shared.last_challenge() {
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

/// Keeps the connection open for [`HOLD`], or until the other side closes it.
async fn hold(mut session: Session) -> Result<()> {
    let _ = timeout(HOLD, async {
        while let Ok(Some(_)) = session.reader.read().await {}
    })
    .await;
    Ok(())
}
