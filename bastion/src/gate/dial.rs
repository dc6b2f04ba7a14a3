//! The calling side on streams: dial, work or show a ticket, be admitted.
//!
//! A stream that was lost while working costs another dial, not the work, and who is told `busy` comes again with the
//! same solution; if that goes on, it works more. Never solves longer than `solve_deadline_s`, and stops when the future
//! is dropped. Invariant: at most two challenges, for each at most `attempts_max` dials to get it, and as many to
//! present its solution.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keys::OnionAddr;
use rand::Rng as _;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::{Gate, receive, send};
use crate::error::{HandshakeError, Internal, RefusalCode, Step};
use crate::frames::Session;
use crate::handshake::{Admitted, AwaitChallenge, AwaitWelcome, Solving, Work};
use crate::messages::NONCE_BYTES;
use crate::puzzle::{Attempt, Nonce, Puzzle, solve};
use crate::ticket::Ticket;
use crate::transport::Transport;

/// How often a long search reports.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// Times that `busy` answers a solution before more work is put into it.
const BUSY_BEFORE_MORE: u32 = 2;
/// Doublings that we go to by ourselves: with the hashing that each asks besides, two are some eleven times the work.
const MORE_BY_ITSELF_MAX: u8 = 2;

/// How far a dial is, for whoever waits in front of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Reaching the onion service, the first time or again.
    Dialling,
    /// Working.
    Solving {
        /// Evaluations of the work function so far.
        evaluations: u64,
        /// Evaluations that are expected in all. The search has no memory: having tried many brings the end no nearer.
        effort: u64,
        /// Time so far.
        elapsed: Duration,
        /// Time still expected at the rate so far; unknown before the first evaluations.
        expected: Option<Duration>,
    },
    /// The work is done, or a ticket stands for it; waiting to be admitted.
    Presenting,
    /// The other side is busy; it is dialled again after this time.
    Waiting(Duration),
}

/// Told how far a dial is.
type Report<'r> = &'r (dyn Fn(Progress) + Send + Sync);

/// Ends the search when nobody waits for it any more.
struct Searching(Arc<Attempt>);

impl Drop for Searching {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Where a dial goes.
#[derive(Clone, Copy)]
struct Target<'t> {
    transport: &'t dyn Transport,
    onion: &'t OnionAddr,
    progress: Report<'t>,
}

impl Gate {
    /// Dials an onion service, works or shows the ticket that it gave earlier, and is admitted by it, or not.
    pub async fn dial(
        &self,
        transport: &dyn Transport,
        onion: &OnionAddr,
        ticket: Option<Ticket>,
        progress: Report<'_>,
    ) -> Result<(Session, Admitted), HandshakeError> {
        if *onion == self.0.here.keys.onion() {
            return Err(HandshakeError::NotAdmitted(RefusalCode::OwnPeerId));
        }
        let target = Target {
            transport,
            onion,
            progress,
        };
        let (session, solving) = self.knock(&target, ticket.clone()).await?;
        let asks_work = solving.puzzle(0)?.is_some();
        match self.answer(&target, session, solving).await {
            // It became dearer while we worked, or that node started anew: its next challenge is as good as any first one.
            Err(HandshakeError::Refused {
                code: RefusalCode::Expired,
                ..
            }) if asks_work => {
                let (session, solving) = self.knock(&target, ticket).await?;
                self.answer(&target, session, solving).await
            }
            result => result,
        }
    }

    /// Works, where that is asked, and presents it until there is an answer that stands.
    async fn answer(
        &self,
        target: &Target<'_>,
        mut session: Session,
        solving: Solving,
    ) -> Result<(Session, Admitted), HandshakeError> {
        let progress = target.progress;
        let begun = Instant::now();
        let (mut solution, mut awaiting) = self.solve(&solving, 0, begun, progress).await?;
        let (mut more, mut busy) = (0, 0);
        for tried in 0..self.config().attempts_max.saturating_sub(1) {
            progress(Progress::Presenting);
            let refused = match self
                .present(&mut session, &solution, awaiting.clone())
                .await
            {
                Err(error) if may_come_again(&error) => error,
                result => return self.end(session, result),
            };
            if matches!(refused, HandshakeError::Refused { .. }) {
                busy += 1;
            }
            if busy >= BUSY_BEFORE_MORE
                && more < MORE_BY_ITSELF_MAX
                && solving
                    .puzzle(more + 1)
                    .is_ok_and(|puzzle| puzzle.is_some())
            {
                (more, busy) = (more + 1, 0);
                (solution, awaiting) = self.solve(&solving, more, begun, progress).await?;
            } else {
                self.pause(&refused, tried, progress).await;
            }
            session = self.reach(target).await?;
        }
        progress(Progress::Presenting);
        let result = self.present(&mut session, &solution, awaiting).await;
        self.end(session, result)
    }

    fn end(
        &self,
        mut session: Session,
        result: Result<Admitted, HandshakeError>,
    ) -> Result<(Session, Admitted), HandshakeError> {
        let admitted = result?;
        self.0.dialled.fetch_add(1, Ordering::Relaxed);
        session.set_max(self.config().frame_bytes_max);
        Ok((session, admitted))
    }

    /// Says hello until there is a challenge.
    async fn knock(
        &self,
        target: &Target<'_>,
        ticket: Option<Ticket>,
    ) -> Result<(Session, Solving), HandshakeError> {
        let mut tried = 0;
        loop {
            let mut session = self.reach(target).await?;
            let (hello, next) =
                AwaitChallenge::begin(self.0.here.clone(), *target.onion, ticket.clone());
            let asked = self.ask(&mut session, &hello, Step::Challenge).await;
            match asked.and_then(|challenge| next.receive(&challenge)) {
                Ok(solving) => return Ok((session, solving)),
                Err(error) if tried + 1 < self.config().attempts_max && may_come_again(&error) => {
                    self.pause(&error, tried, target.progress).await;
                }
                Err(error) => return Err(error),
            }
            tried += 1;
        }
    }

    /// What the other side asked for before we come again. Where it only hung up, most likely to free the place, we come
    /// at once the first time, then later and later.
    async fn pause(&self, error: &HandshakeError, tried: u32, progress: Report<'_>) {
        let wait = match error {
            HandshakeError::Refused { retry_s, .. } => self.config().retry_delay(*retry_s),
            _ if tried == 0 => return,
            _ => self.config().retry_delay(Some(tried)),
        };
        // Not all at once with the others who were told the same.
        let wait = wait.mul_f64(rand::random_range(0.5..=1.0));
        progress(Progress::Waiting(wait));
        sleep(wait).await;
    }

    async fn present(
        &self,
        session: &mut Session,
        solution: &[u8],
        awaiting: AwaitWelcome,
    ) -> Result<Admitted, HandshakeError> {
        let answer = self.ask(session, solution, Step::Welcome).await?;
        awaiting.receive(&answer)
    }

    async fn reach(&self, target: &Target<'_>) -> Result<Session, HandshakeError> {
        (target.progress)(Progress::Dialling);
        let stream = timeout(
            self.config().dial_deadline(),
            target.transport.dial(target.onion),
        )
        .await
        .map_err(|_| HandshakeError::Timeout(Step::Dial))?
        .map_err(HandshakeError::Dial)?;
        Ok(Session::new(
            stream,
            self.config().unadmitted_frame_bytes_max,
        ))
    }

    /// Sends a frame and awaits the answer. Where sending fails, a refusal may still be there to be read.
    async fn ask(
        &self,
        session: &mut Session,
        frame: &[u8],
        step: Step,
    ) -> Result<Vec<u8>, HandshakeError> {
        let failed = match send(session, frame, self.config().send_deadline()).await {
            Ok(()) => None,
            Err(error @ HandshakeError::Io { .. }) => Some(error),
            Err(error) => return Err(error),
        };
        let answer = receive(session, step, self.config().reply_deadline()).await;
        answer.map_err(|lost| failed.unwrap_or(lost))
    }

    /// The solution of a challenge with `more` doublings of the effort asked.
    async fn solve(
        &self,
        solving: &Solving,
        more: u8,
        begun: Instant,
        progress: Report<'_>,
    ) -> Result<(Vec<u8>, AwaitWelcome), HandshakeError> {
        let work = match solving.puzzle(more)? {
            None => Work::NONE,
            Some(puzzle) => {
                let nonce = self.search(puzzle, begun, progress).await?;
                Work { nonce, more }
            }
        };
        let profile = self
            .0
            .gatekeeper
            .profile()
            .await
            .map_err(HandshakeError::Internal)?;
        Ok(solving.clone().solved(work, profile, begun.elapsed()))
    }

    async fn search(
        &self,
        puzzle: Puzzle,
        begun: Instant,
        progress: Report<'_>,
    ) -> Result<Nonce, HandshakeError> {
        let threads = match self.config().solver_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let effort = puzzle.effort();
        let mut start = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut start);
        let searching = Searching(Arc::default());
        let attempt = searching.0.clone();
        let mut found =
            tokio::task::spawn_blocking(move || solve(&puzzle, start, threads, &attempt));

        let mut reports = interval(REPORT_EVERY);
        reports.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let left = self
            .config()
            .solve_deadline()
            .saturating_sub(begun.elapsed());
        let started = Instant::now();
        let nonce = timeout(left, async {
            loop {
                tokio::select! {
                    nonce = &mut found => return nonce,
                    _ = reports.tick() => progress(report(searching.0.evaluations(), effort, started.elapsed())),
                }
            }
        });
        match nonce.await {
            Ok(Ok(Some(nonce))) => Ok(nonce),
            Ok(_) => Err(HandshakeError::Internal(Internal(
                "the solving thread ended".into(),
            ))),
            Err(_) => Err(HandshakeError::Timeout(Step::Solve)),
        }
    }
}

/// Whether the same words may be better received a little later, on another stream.
fn may_come_again(error: &HandshakeError) -> bool {
    match error {
        HandshakeError::Refused { code, .. } => *code == RefusalCode::Busy,
        HandshakeError::HungUp(_) | HandshakeError::Io { .. } => true,
        _ => false,
    }
}

fn report(evaluations: u64, effort: u64, elapsed: Duration) -> Progress {
    let expected = (evaluations > 0).then(|| elapsed.mul_f64(effort as f64 / evaluations as f64));
    Progress::Solving {
        evaluations,
        effort,
        elapsed,
        expected,
    }
}
