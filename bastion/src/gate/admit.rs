//! The server side of one handshake on a stream, from its first byte to admission or refusal.
//!
//! The client learns nothing but a [`RefusalCode`]. A solution is verified and decided even when
//! its stream is lost, so that the client finds the reply when it returns. Invariant: the slot is
//! held until the peer is admitted or its stream is closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use keys::protocol::{FRAME_BYTES_MAX, PROTOCOL_VERSION, UNADMITTED_FRAME_BYTES_MAX};
use keys::{Digest, TraceId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::Instrument as _;

use super::reply_cache::{CachedReply, CachedWelcome, Lookup};
use super::shared::Gate;
use super::slots::SlotPermit;
use crate::error::{HandshakeError, HandshakeStep, Internal, Misbehaviour};
use crate::frames::Session;
use crate::handshake::{Admitted, AwaitHello, FirstMessage, PrecheckedSolution, Verified};
use crate::load::{retry_s, scaled_deadline};
use crate::messages::{HandshakeMessage, Refusal, RefusalCode};
use crate::policy::{Applicant, Decision};
use crate::puzzle::Serial;
use crate::timed_io::{receive, send};

/// How long a refused client may take to read the refusal.
const REFUSAL_READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that a refused client may still send meanwhile. They are discarded.
const REFUSAL_DRAIN_BYTES_MAX: usize = 64 * 1024;

/// A solution counts towards load only if its effort is at least 1/4 of the current effort (effort
/// can double twice while a client solves).
const STALE_EFFORT_FACTOR: u64 = 4;

impl Gate {
    /// Runs one handshake, with a trace id of its own. On failure the client receives a refusal
    /// code, and the reason is returned. Fails with `Busy` at once when no slot is free.
    pub async fn admit(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(Session, Admitted), HandshakeError> {
        self.admit_traced(TraceId(rand::random()), stream).await
    }

    /// [`Gate::admit`] with the trace id of the current span.
    pub(super) async fn admit_traced(
        &self,
        trace: TraceId,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(Session, Admitted), HandshakeError> {
        let mut session = Session::new(stream, UNADMITTED_FRAME_BYTES_MAX);
        let Some(mut permit) = self.0.slots.acquire() else {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            self.0.busy.fetch_add(1, Ordering::Relaxed);
            self.try_send_refusal(&mut session, RefusalCode::Busy);
            return Err(HandshakeError::Busy);
        };
        let evicted = permit.evicted().clone();
        let result = tokio::select! {
            biased;
            result = self.exchange_messages(trace, &mut session, &mut permit) => result,
            () = evicted.cancelled() => Err(HandshakeError::Evicted),
        };
        match result {
            Ok(admitted) => {
                self.0.admitted.fetch_add(1, Ordering::Relaxed);
                session.set_max(FRAME_BYTES_MAX);
                Ok((session, admitted))
            }
            Err(error) => {
                self.0.refused.fetch_add(1, Ordering::Relaxed);
                if error.code() == Some(RefusalCode::Busy) {
                    self.0.busy.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(code) = error.code() {
                    permit.mark_evictable();
                    tokio::select! {
                        () = self.send_refusal(&mut session, code) => (),
                        () = evicted.cancelled() => (),
                    }
                }
                Err(error)
            }
        }
    }

    async fn exchange_messages(
        &self,
        trace: TraceId,
        session: &mut Session,
        permit: &mut SlotPermit,
    ) -> Result<Admitted, HandshakeError> {
        let config = self.config();
        let utilisation = self.load().slot_utilisation(config);
        let deadline = scaled_deadline(config.hello_deadline(), utilisation);
        let frame = receive(session, HandshakeStep::Hello, deadline).await?;
        let welcome = match self.receive_first(&frame) {
            Ok(FirstMessage::Solution(prechecked)) => {
                self.handle_solution(trace, *prechecked, &frame, permit)
                    .await?
            }
            Ok(FirstMessage::Hello {
                challenge,
                ticket,
                next,
            }) => {
                permit.mark_challenged(ticket.as_ref());
                send(session, &challenge, config.send_deadline()).await?;
                let deadline = scaled_deadline(config.solution_deadline(), utilisation);
                let frame = receive(session, HandshakeStep::Solution, deadline).await?;
                let moment = self.moment();
                let prechecked = next.receive(&frame, &mut self.state().server, moment);
                match prechecked {
                    Ok(prechecked) => {
                        self.handle_solution(trace, prechecked, &frame, permit)
                            .await?
                    }
                    Err(error) => {
                        self.replay_cached_reply(trace, error, &frame, permit)
                            .await?
                    }
                }
            }
            Err(error) => {
                self.replay_cached_reply(trace, error, &frame, permit)
                    .await?
            }
        };
        // A client that does not read may be evicted. Its reply stays in the cache.
        permit.mark_evictable();
        send(session, &welcome.frame, config.send_deadline()).await?;
        Ok(welcome.admitted.clone())
    }

    /// Handles the first frame: a hello or a solution.
    fn receive_first(&self, frame: &[u8]) -> Result<FirstMessage, HandshakeError> {
        let moment = self.moment();
        AwaitHello::new(self.0.context.clone()).receive(
            frame,
            &mut self.state().server,
            moment,
            &mut rand::rng(),
        )
    }

    /// Verifies a prechecked solution and decides about it, within the decision deadline.
    async fn handle_solution(
        &self,
        trace: TraceId,
        prechecked: PrecheckedSolution,
        frame: &[u8],
        permit: &mut SlotPermit,
    ) -> Result<Arc<CachedWelcome>, HandshakeError> {
        permit.mark_verifying(prechecked.ticket());
        let (gate, digest) = (self.clone(), Digest::of(frame));
        // A task of its own, so that the solution is decided even when the stream is lost.
        let deciding = async move { gate.verify_and_decide(trace, prechecked, digest).await };
        let deciding = tokio::spawn(deciding.in_current_span());
        match timeout(self.config().decision_deadline(), deciding).await {
            // The same solution came on another stream, which reserved the serial first.
            Ok(Ok(Err(error @ HandshakeError::PeerMisbehaved(Misbehaviour::CookieUsed)))) => {
                self.replay_cached_reply(trace, error, frame, permit).await
            }
            Ok(Ok(decided)) => decided,
            Ok(Err(_)) => Err(HandshakeError::Internal(Internal(
                "the task that verifies a solution failed".into(),
            ))),
            Err(_) => Err(HandshakeError::Timeout(HandshakeStep::Decision)),
        }
    }

    /// Replays the cached reply to a solution whose cookie is used. Every other error is returned
    /// as it is.
    async fn replay_cached_reply(
        &self,
        trace: TraceId,
        error: HandshakeError,
        frame: &[u8],
        permit: &mut SlotPermit,
    ) -> Result<Arc<CachedWelcome>, HandshakeError> {
        if !matches!(
            error,
            HandshakeError::PeerMisbehaved(Misbehaviour::CookieUsed)
        ) {
            self.count_failure(&error);
            return Err(error);
        }
        let lookup = self.state().replies.find(&Digest::of(frame), self.now());
        match lookup {
            None => Err(error),
            Some(Lookup::InProgress) => Err(HandshakeError::Busy),
            Some(Lookup::Replied(CachedReply::Refused(code))) => {
                Err(HandshakeError::NotAdmitted(code))
            }
            Some(Lookup::Replied(CachedReply::Welcome(welcome))) => {
                permit.mark_verifying(None);
                match self.decide_again(trace, &welcome.admitted).await? {
                    Decision::Admit(tier) if tier == welcome.admitted.tier() => Ok(welcome),
                    // The cached welcome carries a ticket of another tier.
                    Decision::Admit(_) => Err(error),
                    Decision::Refuse(RefusalCode::Busy) => Err(HandshakeError::Busy),
                    Decision::Refuse(code) => Err(HandshakeError::NotAdmitted(code)),
                }
            }
        }
    }

    /// Asks the policy again about an admitted peer. Since the first decision the peer may have
    /// been banned, the policy may have changed, or the session slots may have been taken.
    async fn decide_again(
        &self,
        trace: TraceId,
        admitted: &Admitted,
    ) -> Result<Decision, HandshakeError> {
        let applicant = Applicant {
            claims: admitted.claims(),
            effort: admitted.effort(),
            ticket_issued: None,
            trace,
        };
        let deciding = self.0.policy.decide(applicant);
        timeout(self.config().decision_deadline(), deciding)
            .await
            .map_err(|_| HandshakeError::Timeout(HandshakeStep::Decision))
    }

    /// Verifies on a worker thread, asks the policy, and caches the reply.
    async fn verify_and_decide(
        &self,
        trace: TraceId,
        prechecked: PrecheckedSolution,
        digest: Digest,
    ) -> Result<Arc<CachedWelcome>, HandshakeError> {
        let verified = self.verify(prechecked, digest).await?;
        if verified.ticket().is_none() {
            self.count_work(verified.serial(), verified.effort());
        }
        let applicant = Applicant {
            claims: verified.claims(),
            effort: verified.effort(),
            ticket_issued: verified.ticket().map(|ticket| ticket.issued),
            trace,
        };
        let result = match self.0.policy.decide(applicant).await {
            Decision::Refuse(RefusalCode::Busy) => {
                // No session slot is free. The serial is released, so the solution stays valid.
                let mut state = self.state();
                state.server.sealer.release_serial(verified.serial());
                state.replies.finish(&digest, None);
                return Err(HandshakeError::Busy);
            }
            Decision::Refuse(code) => Err(HandshakeError::NotAdmitted(code)),
            Decision::Admit(tier) => match self.0.profile.profile().await {
                Err(internal) => Err(HandshakeError::Internal(internal)),
                Ok(profile) => {
                    let (now, peer) = (self.now(), verified.claims().peer_id());
                    let rng = &mut rand::rng();
                    let ticket = self.state().server.tickets.issue(&peer, tier, now, rng);
                    if verified.ticket().is_some() {
                        self.0.by_ticket.fetch_add(1, Ordering::Relaxed);
                    }
                    let (frame, admitted) = verified.welcome(profile, tier, ticket);
                    Ok(Arc::new(CachedWelcome { frame, admitted }))
                }
            },
        };
        let reply = match &result {
            Ok(welcome) => CachedReply::Welcome(welcome.clone()),
            Err(error) => CachedReply::Refused(error.code().unwrap_or(RefusalCode::Internal)),
        };
        self.state().replies.finish(&digest, Some(reply));
        result
    }

    async fn verify(
        &self,
        prechecked: PrecheckedSolution,
        digest: Digest,
    ) -> Result<Verified, HandshakeError> {
        let gate = self.clone();
        let verified = self.0.pool.run(prechecked.effort(), move |memory| {
            let (peer, expiry) = (prechecked.peer_id(), prechecked.expiry());
            let reserved = {
                let mut state = gate.state();
                let reserved = prechecked.reserve(&mut state.server.sealer)?;
                state.replies.begin(digest, peer, expiry, gate.now());
                reserved
            };
            let verified = reserved.verify(memory);
            if let Err(error) = &verified {
                gate.count_failure(error);
                gate.state().replies.finish(&digest, None);
            }
            verified
        });
        verified.await?
    }

    /// Counts each verified solution once, whether or not the peer is admitted. Ignores solutions
    /// made at a much lower effort; otherwise stockpiled cheap solutions would raise the effort for
    /// everyone.
    fn count_work(&self, serial: Serial, effort: u64) {
        let (now, max) = (self.now(), self.config().admissions_per_minute_max);
        let mut state = self.state();
        let is_current = effort.saturating_mul(STALE_EFFORT_FACTOR) >= state.effort.value();
        if is_current && !state.server.sealer.was_released(serial) {
            state.admissions = state.admissions.and_one(now, max);
        }
    }

    /// Counts a failure that is a sign of an attack. An expired or used cookie may be an accident.
    fn count_failure(&self, error: &HandshakeError) {
        if error.is_abuse() {
            let (now, max) = (self.now(), self.config().failures_per_minute_max);
            let mut state = self.state();
            state.failures = state.failures.and_one(now, max);
        }
    }

    fn refusal_frame(&self, code: RefusalCode) -> Vec<u8> {
        let retry_s =
            (code == RefusalCode::Busy).then(|| retry_s(self.load().load_permille(self.config())));
        let versions = (code == RefusalCode::Version).then(|| vec![PROTOCOL_VERSION]);
        let refusal = Refusal {
            code,
            retry_s,
            versions,
        };
        HandshakeMessage::Refused(refusal).encode()
    }

    /// Sends a refusal if the stream takes it at once. Without a slot the gate may not wait.
    fn try_send_refusal(&self, session: &mut Session, code: RefusalCode) {
        let refusal = self.refusal_frame(code);
        let _ = session.writer.write(&refusal).now_or_never();
    }

    /// Sends a refusal and waits shortly until the client has read it. Over TCP, closing a stream
    /// with unread incoming bytes would discard the refusal.
    async fn send_refusal(&self, session: &mut Session, code: RefusalCode) {
        let refusal = self.refusal_frame(code);
        let sending = async {
            session.writer.write(&refusal).await.ok()?;
            session.writer.close().await.ok()?;
            session.reader.drain(REFUSAL_DRAIN_BYTES_MAX).await;
            Some(())
        };
        let _ = timeout(REFUSAL_READ_TIMEOUT, sending).await;
    }
}
