//! The calling side on streams: dial, work, be admitted.
//!
//! A stream that was lost while working costs a second dial, not the work. Never solves longer than
//! `solve_deadline_s`, and stops when the future is dropped. Invariant: at most two dials per call.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keys::OnionAddr;
use rand::Rng as _;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Gate, receive, send};
use crate::error::{HandshakeError, Internal, RefusalCode, Step};
use crate::frames::Session;
use crate::handshake::{Admitted, AwaitChallenge};
use crate::messages::NONCE_BYTES;
use crate::puzzle::{Attempt, Nonce, Puzzle, solve};
use crate::transport::Transport;

/// How often a long search reports.
const REPORT_EVERY: Duration = Duration::from_millis(250);

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
    /// The work is done; waiting to be admitted.
    Presenting,
}

/// Ends the search when nobody waits for it any more.
struct Searching(Arc<Attempt>);

impl Drop for Searching {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Gate {
    /// Dials an onion service, works, and is admitted by it, or not.
    pub async fn dial(
        &self,
        transport: &dyn Transport,
        onion: &OnionAddr,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(Session, Admitted), HandshakeError> {
        if *onion == self.0.here.keys.onion() {
            return Err(HandshakeError::NotAdmitted(RefusalCode::OwnPeerId));
        }
        let config = self.config();
        let mut session = self.reach(transport, onion, progress).await?;
        let (hello, next) = AwaitChallenge::begin(self.0.here.clone(), *onion);
        let challenge = self.ask(&mut session, &hello, Step::Challenge).await?;
        let solving = next.receive(&challenge)?;

        let begun = Instant::now();
        let nonce = self.search(solving.puzzle().clone(), begun, progress).await?;
        let profile = self.0.gatekeeper.profile().await.map_err(HandshakeError::Internal)?;
        let (solution, next) = solving.solved(nonce, profile, begun.elapsed());

        progress(Progress::Presenting);
        let answer = match self.ask(&mut session, &solution, Step::Welcome).await {
            // Hung up on while working, most likely to free the slot: the work is good on any stream.
            Err(HandshakeError::HungUp(_) | HandshakeError::Io { .. }) => {
                session = self.reach(transport, onion, progress).await?;
                progress(Progress::Presenting);
                self.ask(&mut session, &solution, Step::Welcome).await?
            }
            answer => answer?,
        };
        let admitted = next.receive(&answer)?;
        self.0.dialled.fetch_add(1, Ordering::Relaxed);
        session.set_max(config.frame_bytes_max);
        Ok((session, admitted))
    }

    async fn reach(
        &self,
        transport: &dyn Transport,
        onion: &OnionAddr,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Session, HandshakeError> {
        progress(Progress::Dialling);
        let stream = timeout(self.config().dial_deadline(), transport.dial(onion))
            .await
            .map_err(|_| HandshakeError::Timeout(Step::Dial))?
            .map_err(HandshakeError::Dial)?;
        Ok(Session::new(stream, self.config().stranger_frame_bytes_max))
    }

    /// Sends a frame and awaits the answer. Where sending fails, a refusal may still be there to be read.
    async fn ask(&self, session: &mut Session, frame: &[u8], step: Step) -> Result<Vec<u8>, HandshakeError> {
        let failed = match send(session, frame, self.config().send_deadline()).await {
            Ok(()) => None,
            Err(error @ HandshakeError::Io { .. }) => Some(error),
            Err(error) => return Err(error),
        };
        let answer = receive(session, step, self.config().answer_deadline()).await;
        answer.map_err(|lost| failed.unwrap_or(lost))
    }

    async fn search(
        &self,
        puzzle: Puzzle,
        begun: Instant,
        progress: &(dyn Fn(Progress) + Send + Sync),
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
        let mut found = tokio::task::spawn_blocking(move || solve(&puzzle, start, threads, &attempt));

        let mut reports = interval(REPORT_EVERY);
        reports.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let nonce = timeout(self.config().solve_deadline(), async {
            loop {
                tokio::select! {
                    nonce = &mut found => return nonce,
                    _ = reports.tick() => progress(report(searching.0.evaluations(), effort, begun.elapsed())),
                }
            }
        });
        match nonce.await {
            Ok(Ok(Some(nonce))) => Ok(nonce),
            Ok(_) => Err(HandshakeError::Internal(Internal("the solving thread ended".into()))),
            Err(_) => Err(HandshakeError::Timeout(Step::Solve)),
        }
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
