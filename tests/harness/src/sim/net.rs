//! A network of memory pipes that delays, cuts and freezes its links, by chance from a seed.
//!
//! Each dialled stream goes through two tasks, one per direction, which forward the bytes. Input is
//! the [`Weather`]; output is streams that end in the middle of a frame, or fall silent. Invariant:
//! equal seeds give equal delays and cuts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bastion::transport::memory::{MemoryNet, MemoryTransport};
use bastion::transport::{BoxFuture, DialError, Stream, Transport};
use keys::OnionAddr;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::lister::DeadDials;
use super::transfers::{Censor, Tally, Tap};

/// Bytes that a link forwards at once.
const CHUNK: usize = 2048;

/// How the links behave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// Longest delay of a chunk, in milliseconds.
    pub(super) delay_ms_max: u64,
    /// Most bytes after which a link breaks; none if links last.
    pub(super) bytes_max: Option<u64>,
    /// Chance that a link that breaks falls silent and is not reset.
    pub(super) silent: f64,
}

impl Weather {
    /// Links that last, with short delays.
    pub(super) const CALM: Self = Self {
        delay_ms_max: 3,
        bytes_max: None,
        silent: 0.0,
    };
}

/// The network. Clones share one.
#[derive(Clone)]
pub(super) struct SimNet {
    pub(super) memory: MemoryNet,
    /// The transfers that the links have passed.
    pub(super) tally: Tally,
    /// The dials to nodes that nothing serves.
    pub(super) dead_dials: DeadDials,
    state: Arc<Mutex<NetState>>,
}

struct NetState {
    rng: ChaCha20Rng,
    weather: Weather,
    /// Pairs that cannot reach each other.
    apart: BTreeSet<[OnionAddr; 2]>,
    /// Nodes without any connection.
    alone: BTreeSet<OnionAddr>,
    wires: Vec<Arc<Wire>>,
    /// Pairs that had a connection.
    met: BTreeSet<[OnionAddr; 2]>,
    /// Nodes that withhold the records of identities.
    withholding: BTreeSet<OnionAddr>,
}

/// One connection.
struct Wire {
    ends: [OnionAddr; 2],
    delay: Duration,
    bytes_left: AtomicU64,
    is_silent: bool,
    frozen: CancellationToken,
    reset: CancellationToken,
}

fn pair(one: OnionAddr, other: OnionAddr) -> [OnionAddr; 2] {
    if one < other {
        [one, other]
    } else {
        [other, one]
    }
}

impl SimNet {
    pub(super) fn new(seed: u64, width: usize, weather: Weather) -> Self {
        Self {
            memory: MemoryNet::with_width(width),
            tally: Tally::default(),
            dead_dials: DeadDials::default(),
            state: Arc::new(Mutex::new(NetState {
                rng: ChaCha20Rng::seed_from_u64(seed),
                weather,
                apart: BTreeSet::new(),
                alone: BTreeSet::new(),
                wires: Vec::new(),
                met: BTreeSet::new(),
                withholding: BTreeSet::new(),
            })),
        }
    }

    pub(super) fn transport(&self, of: OnionAddr) -> SimTransport {
        SimTransport {
            net: self.clone(),
            memory: self.memory.transport(),
            of,
        }
    }

    /// Lets a node reply without records when others fetch the records of identities.
    pub(super) fn withhold_records(&self, node: OnionAddr) {
        self.state.lock().withholding.insert(node);
    }

    fn censor(&self, from: OnionAddr) -> Option<Censor> {
        let is_withholding = self.state.lock().withholding.contains(&from);
        is_withholding.then(Censor::default)
    }

    /// Breaks every link between two nodes.
    pub(super) fn cut(&self, one: OnionAddr, other: OnionAddr, is_silent: bool) {
        self.break_wires(|wire| wire.ends == pair(one, other), is_silent);
    }

    /// Lets two nodes reach each other, or not.
    pub(super) fn set_apart(&self, one: OnionAddr, other: OnionAddr, apart: bool) {
        let mut state = self.state.lock();
        if apart {
            state.apart.insert(pair(one, other));
        } else {
            state.apart.remove(&pair(one, other));
        }
        drop(state);
        if apart {
            self.cut(one, other, false);
        }
    }

    /// Takes a node off the network, as its end does.
    pub(super) fn take_off(&self, node: OnionAddr) {
        self.state.lock().alone.insert(node);
        self.break_wires(|wire| wire.ends.contains(&node), false);
    }

    /// Whether two nodes ever had a connection.
    pub(super) fn has_met(&self, one: OnionAddr, other: OnionAddr) -> bool {
        self.state.lock().met.contains(&pair(one, other))
    }

    /// Puts a node on the network again.
    pub(super) fn put_on(&self, node: OnionAddr) {
        self.state.lock().alone.remove(&node);
    }

    /// Whether a node is off the network.
    pub(super) fn is_off(&self, node: OnionAddr) -> bool {
        self.state.lock().alone.contains(&node)
    }

    /// Breaks every link. Afterwards every node reaches every other one, in this weather.
    pub(super) fn reset_all(&self, weather: Weather) {
        self.break_wires(|_| true, false);
        let mut state = self.state.lock();
        state.weather = weather;
        state.apart.clear();
        state.alone.clear();
    }

    fn break_wires(&self, is_meant: impl Fn(&Wire) -> bool, is_silent: bool) {
        let mut state = self.state.lock();
        state.wires.retain(|wire| !wire.reset.is_cancelled());
        for wire in state.wires.iter().filter(|wire| is_meant(wire)) {
            if is_silent {
                wire.frozen.cancel();
            } else {
                wire.reset.cancel();
            }
        }
    }

    /// A new connection; none if the two cannot reach each other.
    fn wire(&self, from: OnionAddr, to: OnionAddr) -> Option<Arc<Wire>> {
        let mut state = self.state.lock();
        let ends = pair(from, to);
        if state.apart.contains(&ends) || ends.iter().any(|end| state.alone.contains(end)) {
            return None;
        }
        let weather = state.weather;
        let delay = state.rng.random_range(0..=weather.delay_ms_max);
        let is_silent = state.rng.random_bool(weather.silent);
        // Small budgets are as likely as large ones, so that handshakes are cut too.
        let most = weather.bytes_max.map_or(u64::MAX, |most| {
            let most = state.rng.random_range(100..=most);
            state.rng.random_range(50..=most)
        });
        let wire = Arc::new(Wire {
            ends,
            delay: Duration::from_millis(delay),
            bytes_left: AtomicU64::new(most),
            is_silent,
            frozen: CancellationToken::new(),
            reset: CancellationToken::new(),
        });
        state.wires.push(wire.clone());
        state.met.insert(ends);
        Some(wire)
    }
}

/// Dials in a [`SimNet`] as one node.
pub(super) struct SimTransport {
    net: SimNet,
    memory: MemoryTransport,
    of: OnionAddr,
}

impl Transport for SimTransport {
    fn dial<'a>(&'a self, onion: &'a OnionAddr) -> BoxFuture<'a, Result<Stream, DialError>> {
        Box::pin(async {
            let wire = self.net.wire(self.of, *onion);
            let wire = wire.ok_or(DialError::Unreachable)?;
            self.net.dead_dials.note(self.of, *onion);
            sleep_until(Instant::now() + wire.delay).await;
            if wire.reset.is_cancelled() {
                return Err(DialError::Unreachable);
            }
            let far = self.memory.dial(onion).await?;
            let (near, end) = tokio::io::duplex(CHUNK);
            let taps = [*onion, self.of].map(|to| Tap::new(&self.net.tally, to));
            let censors = [self.of, *onion].map(|from| self.net.censor(from));
            spawn_pumps(&wire, end, far, (taps, censors));
            Ok(Box::new(near) as Stream)
        })
    }
}

/// Forwards in both directions. The taps and censors are those to the far node, and to the near
/// one.
fn spawn_pumps(
    wire: &Arc<Wire>,
    near: DuplexStream,
    far: Stream,
    (taps, censors): ([Tap; 2], [Option<Censor>; 2]),
) {
    let (near_in, near_out) = tokio::io::split(near);
    let (far_in, far_out) = tokio::io::split(far);
    let ([to_far, to_near], [censor_far, censor_near]) = (taps, censors);
    tokio::spawn(wire.clone().pump(near_in, far_out, (to_far, censor_far)));
    tokio::spawn(wire.clone().pump(far_in, near_out, (to_near, censor_near)));
}

impl Wire {
    /// Forwards bytes until either end closes or the link breaks.
    async fn pump<A: tokio::io::AsyncRead, B: tokio::io::AsyncWrite>(
        self: Arc<Self>,
        from: ReadHalf<A>,
        to: WriteHalf<B>,
        through: (Tap, Option<Censor>),
    ) {
        let reset = self.reset.clone();
        tokio::select! {
            biased;
            () = reset.cancelled() => {}
            () = self.forward(from, to, through) => {}
        }
    }

    async fn forward<A: tokio::io::AsyncRead, B: tokio::io::AsyncWrite>(
        &self,
        mut from: ReadHalf<A>,
        mut to: WriteHalf<B>,
        (mut tap, mut censor): (Tap, Option<Censor>),
    ) {
        let mut chunk = [0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            let censored = censor.as_mut().map(|censor| censor.pass(&chunk[..count]));
            let bytes = censored.as_deref().unwrap_or(&chunk[..count]);
            if !self.delay.is_zero() {
                sleep_until(Instant::now() + self.delay).await;
            }
            let passes = self.take(bytes.len() as u64);
            if self.frozen.is_cancelled() {
                std::future::pending::<()>().await;
            }
            if to.write_all(&bytes[..passes as usize]).await.is_err() {
                break;
            }
            tap.pass(&bytes[..passes as usize]);
            if passes < bytes.len() as u64 {
                if self.is_silent {
                    self.frozen.cancel();
                    std::future::pending::<()>().await;
                }
                // The far end has time to read what passed.
                self.reset.cancel();
                return;
            }
        }
        // Best effort: the other end may be gone.
        let _ = to.shutdown().await;
    }

    /// Takes bytes from the budget. Returns how many of them pass.
    fn take(&self, count: u64) -> u64 {
        let left = self.bytes_left.load(Ordering::Relaxed);
        self.bytes_left
            .store(left.saturating_sub(count), Ordering::Relaxed);
        left.min(count)
    }
}
