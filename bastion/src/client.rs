//! [`Connector`]: the client side of handshakes on real streams.
//!
//! A dial requests a challenge, solves it or shows a ticket, and is admitted or refused. A lost
//! stream costs another dial but no work, because the server accepts a solution on any stream.
//! After `busy` the client sends the same solution again, and after repeated `busy` it does more
//! work.
//!
//! Invariant: a dial uses at most two challenges. For each challenge the client opens at most
//! `attempts_max` streams to request it and as many to present the solution. Solving ends after
//! `solve_deadline_s`, and when the future is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keys::protocol::{FRAME_BYTES_MAX, NONCE_BYTES, UNADMITTED_FRAME_BYTES_MAX};
use keys::{KeyManager, OnionAddr};
use rand::Rng as _;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::Instrument as _;

use crate::config::GateConfig;
use crate::error::{HandshakeError, HandshakeStep, Internal};
use crate::frames::Session;
use crate::handshake::{
    Admitted, AwaitChallenge, AwaitWelcome, DialTerms, HandshakeContext, Solving, Work,
};
use crate::messages::RefusalCode;
use crate::policy::LocalProfile;
use crate::puzzle::{Attempt, Nonce, Puzzle, solve};
use crate::ticket::Ticket;
use crate::timed_io::{receive, send};
use crate::transport::Transport;

/// How often a search for a nonce reports its progress.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// Replies of `busy` before the client does more work.
const BUSY_BEFORE_EXTRA_WORK: u32 = 2;
/// Most doublings that the client adds. With the inner bits that each doubling adds, two doublings
/// are some eleven times the work.
const VOLUNTARY_DOUBLINGS_MAX: u8 = 2;

/// The progress of a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The client opens a stream, for the first time or again.
    Dialling,
    /// The client searches for a nonce.
    Solving {
        /// Evaluations of the work function so far.
        evaluations: u64,
        /// Expected evaluations in all. The search has no memory: many evaluations so far do not
        /// bring the end nearer.
        effort: u64,
        /// Time so far.
        elapsed: Duration,
        /// Expected remaining time at the rate so far; none before the first evaluation.
        expected: Option<Duration>,
    },
    /// The server verifies the solution or the ticket, and the client waits for admission.
    Verifying,
    /// The server is busy. The client dials again after this time.
    Waiting(Duration),
}

/// Receives the progress of a dial.
type DialProgressFn<'p> = &'p (dyn Fn(Progress) + Send + Sync);

/// Cancels the search when the dial is dropped.
struct SearchGuard(Arc<Attempt>);

impl Drop for SearchGuard {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The parts of a dial that do not change.
#[derive(Clone, Copy)]
struct DialTarget<'t> {
    transport: &'t dyn Transport,
    onion: &'t OnionAddr,
    terms: DialTerms,
    progress: DialProgressFn<'t>,
}

/// Dials onion services and completes the client side of the handshake. Clones share one state.
#[derive(Clone)]
pub struct Connector(Arc<ConnectorState>);

struct ConnectorState {
    context: Arc<HandshakeContext>,
    profile: Arc<dyn LocalProfile>,
    admitted: AtomicU64,
}

impl Connector {
    /// Creates a connector.
    pub fn new(config: GateConfig, keys: Arc<KeyManager>, profile: Arc<dyn LocalProfile>) -> Self {
        Self(Arc::new(ConnectorState {
            context: Arc::new(HandshakeContext { config, keys }),
            profile,
            admitted: AtomicU64::new(0),
        }))
    }

    /// Returns how many dials ended in admission since the start.
    pub fn admitted_total(&self) -> u64 {
        self.0.admitted.load(Ordering::Relaxed)
    }

    /// The terms for a node that the operator chose.
    pub fn chosen_terms(&self) -> DialTerms {
        DialTerms::chosen(self.config())
    }

    /// Dials an onion service. Solves its challenge, or shows the `ticket` of an earlier admission.
    /// Fails when the server refuses, a step exceeds its deadline, or the challenge exceeds this
    /// client's limits.
    pub async fn dial(
        &self,
        transport: &dyn Transport,
        onion: &OnionAddr,
        ticket: Option<Ticket>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(Session, Admitted), HandshakeError> {
        let terms = self.chosen_terms();
        self.dial_under(transport, (onion, terms), ticket, progress)
            .await
    }

    /// [`Connector::dial`] under other terms than those of a node that the operator chose.
    pub async fn dial_under(
        &self,
        transport: &dyn Transport,
        (onion, terms): (&OnionAddr, DialTerms),
        ticket: Option<Ticket>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(Session, Admitted), HandshakeError> {
        let target = DialTarget {
            transport,
            onion,
            terms,
            progress,
        };
        self.dial_target(&target, ticket)
            .instrument(tracing::info_span!("handshake", side = "client"))
            .await
    }

    async fn dial_target(
        &self,
        target: &DialTarget<'_>,
        ticket: Option<Ticket>,
    ) -> Result<(Session, Admitted), HandshakeError> {
        if *target.onion == self.0.context.keys.onion() {
            return Err(HandshakeError::NotAdmitted(RefusalCode::OwnPeerId));
        }
        let (session, solving) = self.request_challenge(target, ticket.clone()).await?;
        let asks_work = solving.puzzle(0)?.is_some();
        match self.solve_and_present(target, session, solving).await {
            // The effort rose while the client solved, or the server restarted. Request a new
            // challenge once.
            Err(HandshakeError::Refused {
                code: RefusalCode::Expired,
                ..
            }) if asks_work => {
                let (session, solving) = self.request_challenge(target, ticket).await?;
                self.solve_and_present(target, session, solving).await
            }
            result => result,
        }
    }

    /// Solves the challenge if it demands work, and presents the solution until the server admits
    /// or refuses for good.
    async fn solve_and_present(
        &self,
        target: &DialTarget<'_>,
        mut session: Session,
        solving: Solving,
    ) -> Result<(Session, Admitted), HandshakeError> {
        let progress = target.progress;
        let started = Instant::now();
        let (mut solution, mut awaiting) = self.solve(&solving, 0, started, progress).await?;
        let (mut extra_doublings, mut busy) = (0, 0);
        for attempt in 0..self.config().attempts_max.saturating_sub(1) {
            progress(Progress::Verifying);
            let presented = self.present(&mut session, &solution, awaiting.clone());
            let error = match presented.await {
                Err(error) if is_retryable(&error) => error,
                result => return self.finish(session, result),
            };
            if matches!(error, HandshakeError::Refused { .. }) {
                busy += 1;
            }
            if busy >= BUSY_BEFORE_EXTRA_WORK && may_double(&solving, extra_doublings) {
                (extra_doublings, busy) = (extra_doublings + 1, 0);
                let solved = self.solve(&solving, extra_doublings, started, progress);
                (solution, awaiting) = solved.await?;
            } else {
                self.wait_before_retry(&error, attempt, progress).await;
            }
            session = self.connect(target).await?;
        }
        progress(Progress::Verifying);
        let result = self.present(&mut session, &solution, awaiting).await;
        self.finish(session, result)
    }

    fn finish(
        &self,
        mut session: Session,
        result: Result<Admitted, HandshakeError>,
    ) -> Result<(Session, Admitted), HandshakeError> {
        let admitted = result?;
        self.0.admitted.fetch_add(1, Ordering::Relaxed);
        session.set_max(FRAME_BYTES_MAX);
        Ok((session, admitted))
    }

    /// Sends hello on one stream after another until the server sends a challenge.
    async fn request_challenge(
        &self,
        target: &DialTarget<'_>,
        ticket: Option<Ticket>,
    ) -> Result<(Session, Solving), HandshakeError> {
        let mut attempt = 0;
        loop {
            let mut session = self.connect(target).await?;
            let context = self.0.context.clone();
            let (hello, next) = AwaitChallenge::begin(context, *target.onion, ticket.clone());
            let reply = self
                .request(&mut session, &hello, HandshakeStep::Challenge)
                .await;
            let next = next.under(target.terms);
            match reply.and_then(|challenge| next.receive(&challenge)) {
                Ok(solving) => return Ok((session, solving)),
                Err(error) if attempt + 1 < self.config().attempts_max && is_retryable(&error) => {
                    self.wait_before_retry(&error, attempt, target.progress)
                        .await;
                }
                Err(error) => return Err(error),
            }
            attempt += 1;
        }
    }

    /// Waits as long as the server asked for. When the server only closed the stream, most likely
    /// by eviction, the first retry is immediate and later ones wait longer and longer.
    async fn wait_before_retry(
        &self,
        error: &HandshakeError,
        attempt: u32,
        progress: DialProgressFn<'_>,
    ) {
        let wait = match error {
            HandshakeError::Refused { retry_s, .. } => self.config().retry_delay(*retry_s),
            _ if attempt == 0 => return,
            _ => self.config().retry_delay(Some(attempt)),
        };
        // Jitter: other clients received the same `retry_s`.
        let wait = if self.config().is_inline {
            wait
        } else {
            wait.mul_f64(rand::random_range(0.5..=1.0))
        };
        progress(Progress::Waiting(wait));
        sleep(wait).await;
    }

    async fn present(
        &self,
        session: &mut Session,
        solution: &[u8],
        awaiting: AwaitWelcome,
    ) -> Result<Admitted, HandshakeError> {
        let reply = self
            .request(session, solution, HandshakeStep::Welcome)
            .await?;
        awaiting.receive(&reply)
    }

    async fn connect(&self, target: &DialTarget<'_>) -> Result<Session, HandshakeError> {
        (target.progress)(Progress::Dialling);
        let dialling = target.transport.dial(target.onion);
        let stream = timeout(self.config().dial_deadline(), dialling)
            .await
            .map_err(|_| HandshakeError::Timeout(HandshakeStep::Dial))?
            .map_err(HandshakeError::Dial)?;
        Ok(Session::new(stream, UNADMITTED_FRAME_BYTES_MAX))
    }

    /// Sends a frame and reads the reply. When sending fails, a refusal may still be readable.
    async fn request(
        &self,
        session: &mut Session,
        frame: &[u8],
        step: HandshakeStep,
    ) -> Result<Vec<u8>, HandshakeError> {
        let send_error = match send(session, frame, self.config().send_deadline()).await {
            Ok(()) => None,
            Err(error @ HandshakeError::Io { .. }) => Some(error),
            Err(error) => return Err(error),
        };
        let reply = receive(session, step, self.config().reply_deadline()).await;
        reply.map_err(|error| send_error.unwrap_or(error))
    }

    /// Returns the solution with `extra_doublings` of the effort, and the next state.
    async fn solve(
        &self,
        solving: &Solving,
        extra_doublings: u8,
        started: Instant,
        progress: DialProgressFn<'_>,
    ) -> Result<(Vec<u8>, AwaitWelcome), HandshakeError> {
        let work = match solving.puzzle(extra_doublings)? {
            None => Work::NONE,
            Some(puzzle) => Work {
                nonce: self.search(puzzle, started, progress).await?,
                extra_doublings,
            },
        };
        let profile = self.0.profile.profile().await;
        let profile = profile.map_err(HandshakeError::Internal)?;
        Ok(solving.clone().solved(work, profile, started.elapsed()))
    }

    async fn search(
        &self,
        puzzle: Puzzle,
        started: Instant,
        progress: DialProgressFn<'_>,
    ) -> Result<Nonce, HandshakeError> {
        let threads = match self.config().solver_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let effort = puzzle.effort();
        let mut start = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut start);
        let search = SearchGuard(Arc::default());
        let attempt = search.0.clone();
        if self.config().is_inline {
            return solve(&puzzle, start, 1, &attempt).ok_or_else(search_ended);
        }
        let mut found =
            tokio::task::spawn_blocking(move || solve(&puzzle, start, threads, &attempt));

        let mut ticks = interval(REPORT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let deadline = self.config().solve_deadline();
        let search_started = Instant::now();
        let report = || {
            let (evaluations, elapsed) = (search.0.evaluations(), search_started.elapsed());
            progress(solving_progress(evaluations, effort, elapsed));
        };
        let nonce = timeout(deadline.saturating_sub(started.elapsed()), async {
            loop {
                tokio::select! {
                    nonce = &mut found => return nonce,
                    _ = ticks.tick() => report(),
                }
            }
        });
        match nonce.await {
            Ok(Ok(Some(nonce))) => Ok(nonce),
            Ok(_) => Err(search_ended()),
            Err(_) => Err(HandshakeError::Timeout(HandshakeStep::Solve)),
        }
    }

    fn config(&self) -> &GateConfig {
        &self.0.context.config
    }
}

fn search_ended() -> HandshakeError {
    HandshakeError::Internal(Internal("the thread that solves ended".into()))
}

/// Returns whether the same message may succeed a little later, on another stream.
fn is_retryable(error: &HandshakeError) -> bool {
    match error {
        HandshakeError::Refused { code, .. } => *code == RefusalCode::Busy,
        HandshakeError::HungUp(_) | HandshakeError::Io { .. } => true,
        _ => false,
    }
}

/// Returns whether one more doubling is within this client's limits.
fn may_double(solving: &Solving, extra_doublings: u8) -> bool {
    extra_doublings < VOLUNTARY_DOUBLINGS_MAX
        && solving
            .puzzle(extra_doublings + 1)
            .is_ok_and(|puzzle| puzzle.is_some())
}

fn solving_progress(evaluations: u64, effort: u64, elapsed: Duration) -> Progress {
    let expected = (evaluations > 0).then(|| elapsed.mul_f64(effort as f64 / evaluations as f64));
    Progress::Solving {
        evaluations,
        effort,
        elapsed,
        expected,
    }
}
