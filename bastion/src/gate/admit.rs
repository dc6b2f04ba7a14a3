//! The called side on a stream: one stranger, from its first byte to admission or a code.
//!
//! Never lets an error out to the stranger but as a code. A solution is judged to the end even where its stream is lost
//! meanwhile, so that its sender finds the answer when it comes again. Invariant: the place in the lobby is held until
//! the stranger is admitted or its stream is done with.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use keys::Digest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::answers::{Answer, Known};
use super::lobby::Place;
use super::{Applicant, Decision, Gate, receive, send};
use crate::error::{HandshakeError, Internal, Misbehaviour, RefusalCode, Step};
use crate::frames::Session;
use crate::handshake::{Admitted, AwaitHello, Opening, Screened, Verified};
use crate::load::{patience, retry_s};
use crate::messages::{Message, Refused};
use crate::puzzle::Serial;

/// How long a refused stranger may take to read the code.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of it that are thrown away meanwhile.
const LINGER_BYTES_MAX: usize = 64 * 1024;

/// How much dearer it may have become meanwhile for work still to count as load: what solving takes is two doublings' time.
const PRICE_SPAN: u64 = 4;

/// A welcome that was earned.
type Earned = Arc<(Vec<u8>, Admitted)>;

impl Gate {
    /// Admits one stranger, or tells it a code and returns why. Fails with `Busy` at once when there is no place.
    pub async fn admit(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(Session, Admitted), HandshakeError> {
        let mut session = Session::new(stream, self.config().unadmitted_frame_bytes_max);
        let Some(mut place) = self.0.lobby.enter() else {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            self.0.busy.fetch_add(1, Ordering::Relaxed);
            self.tell_at_once(&mut session, RefusalCode::Busy);
            return Err(HandshakeError::Busy);
        };
        let shed = place.shed().clone();
        let done = tokio::select! {
            biased;
            done = self.handshake(&mut session, &mut place) => done,
            () = shed.cancelled() => Err(HandshakeError::Shed),
        };
        match done {
            Ok(admitted) => {
                self.0.admitted.fetch_add(1, Ordering::Relaxed);
                session.set_max(self.config().frame_bytes_max);
                Ok((session, admitted))
            }
            Err(error) => {
                self.0.refused.fetch_add(1, Ordering::Relaxed);
                if error.code() == Some(RefusalCode::Busy) {
                    self.0.busy.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(code) = error.code() {
                    place.dismissed();
                    tokio::select! {
                        () = self.tell(&mut session, code) => (),
                        () = shed.cancelled() => (),
                    }
                }
                Err(error)
            }
        }
    }

    async fn handshake(
        &self,
        session: &mut Session,
        place: &mut Place,
    ) -> Result<Admitted, HandshakeError> {
        let config = self.config();
        let crowding = self.load().crowding(config);
        let frame = receive(
            session,
            Step::Hello,
            patience(config.hello_deadline(), crowding),
        )
        .await?;
        let earned = match self.open(&frame) {
            Ok(Opening::Solution(screened)) => self.presented(*screened, &frame, place).await?,
            Ok(Opening::Hello {
                challenge,
                known,
                next,
            }) => {
                place.challenged(known.as_ref());
                send(session, &challenge, config.send_deadline()).await?;
                let frame = receive(
                    session,
                    Step::Solution,
                    patience(config.solution_deadline(), crowding),
                )
                .await?;
                let effort = self.effort(&self.load());
                let screened = next.receive(&frame, &mut self.front().desk, effort, self.now());
                match screened {
                    Ok(screened) => self.presented(screened, &frame, place).await?,
                    Err(error) => self.perhaps_again(error, &frame, place).await?,
                }
            }
            Err(error) => self.perhaps_again(error, &frame, place).await?,
        };
        // Who does not read may lose the place to somebody else: the answer is kept for when it comes again.
        place.dismissed();
        send(session, &earned.0, config.send_deadline()).await?;
        Ok(earned.1.clone())
    }

    /// Hello or a solution: the effort that a challenge asks follows the load of this moment.
    fn open(&self, frame: &[u8]) -> Result<Opening, HandshakeError> {
        let effort = self.effort(&self.load());
        let here = self.0.here.clone();
        AwaitHello::new(here).receive(
            frame,
            &mut self.front().desk,
            effort,
            self.now(),
            &mut rand::rng(),
        )
    }

    /// A solution that passed what is cheap, up to its answer or the deadline.
    async fn presented(
        &self,
        screened: Screened,
        frame: &[u8],
        place: &mut Place,
    ) -> Result<Earned, HandshakeError> {
        place.presented(screened.known());
        let (gate, digest) = (self.clone(), Digest::of(frame));
        let judging = tokio::spawn(async move { gate.judge(screened, digest).await });
        match timeout(self.config().decision_deadline(), judging).await {
            // It waited on another stream too, which was faster: there it is judged.
            Ok(Ok(Err(error @ HandshakeError::PeerMisbehaved(Misbehaviour::CookieUsed)))) => {
                self.perhaps_again(error, frame, place).await
            }
            Ok(Ok(judged)) => judged,
            Ok(Err(_)) => Err(HandshakeError::Internal(Internal(
                "judging a solution failed".into(),
            ))),
            Err(_) => Err(HandshakeError::Timeout(Step::Decision)),
        }
    }

    /// A solution that was presented before gets the answer that it got then. Any other error stands.
    async fn perhaps_again(
        &self,
        error: HandshakeError,
        frame: &[u8],
        place: &mut Place,
    ) -> Result<Earned, HandshakeError> {
        if !matches!(
            error,
            HandshakeError::PeerMisbehaved(Misbehaviour::CookieUsed)
        ) {
            self.count_failure(&error);
            return Err(error);
        }
        let config = self.config();
        let known = self.front().answers.find(&Digest::of(frame), self.now());
        match known {
            None => Err(error),
            Some(Known::Working) => Err(HandshakeError::Busy),
            Some(Known::Answered(Answer::Refused(code))) => Err(HandshakeError::NotAdmitted(code)),
            Some(Known::Answered(Answer::Welcome(earned))) => {
                place.presented(None);
                let admitted = &earned.1;
                let applicant = Applicant {
                    claims: admitted.claims(),
                    effort: admitted.effort(),
                    ticket_issued: None,
                };
                // It may have been banned since, the policy may be another, or there is no room.
                let deciding = timeout(
                    config.decision_deadline(),
                    self.0.gatekeeper.decide(applicant),
                );
                match deciding
                    .await
                    .map_err(|_| HandshakeError::Timeout(Step::Decision))?
                {
                    Decision::Admit(tier) if tier == admitted.tier() => Ok(earned),
                    // The welcome promises what holds no longer.
                    Decision::Admit(_) => Err(error),
                    Decision::Refuse(RefusalCode::Busy) => Err(HandshakeError::Busy),
                    Decision::Refuse(code) => Err(HandshakeError::NotAdmitted(code)),
                }
            }
        }
    }

    /// Verifies when a worker is free, asks the gatekeeper, and remembers the answer.
    async fn judge(&self, screened: Screened, digest: Digest) -> Result<Earned, HandshakeError> {
        let verified = self.verify(screened, digest).await?;
        let (by_ticket, peer) = (verified.ticket().is_some(), verified.claims().peer_id());
        if !by_ticket {
            self.count_work(verified.serial(), verified.effort());
        }
        let applicant = Applicant {
            claims: verified.claims(),
            effort: verified.effort(),
            ticket_issued: verified.ticket().map(|standing| standing.issued),
        };
        let answer = match self.0.gatekeeper.decide(applicant).await {
            Decision::Refuse(RefusalCode::Busy) => {
                // There is no room now, and the work is as good as before.
                let mut front = self.front();
                front.desk.jar.give_back(verified.serial());
                front.answers.finish(&digest, None);
                return Err(HandshakeError::Busy);
            }
            Decision::Refuse(code) => Err(HandshakeError::NotAdmitted(code)),
            Decision::Admit(tier) => match self.0.gatekeeper.profile().await {
                Err(internal) => Err(HandshakeError::Internal(internal)),
                Ok(profile) => {
                    let now = self.now();
                    let ticket =
                        self.front()
                            .desk
                            .tickets
                            .issue(&peer, tier, now, &mut rand::rng());
                    if by_ticket {
                        self.0.by_ticket.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(Arc::new(verified.welcome(profile, tier, ticket)))
                }
            },
        };
        let remembered = match &answer {
            Ok(earned) => Answer::Welcome(earned.clone()),
            Err(error) => Answer::Refused(error.code().unwrap_or(RefusalCode::Internal)),
        };
        self.front().answers.finish(&digest, Some(remembered));
        answer
    }

    async fn verify(&self, screened: Screened, digest: Digest) -> Result<Verified, HandshakeError> {
        let gate = self.clone();
        let verified = self.0.pool.run(screened.effort(), move |memory| {
            let (peer, expiry) = (screened.peer_id(), screened.expiry());
            let taken = {
                let mut front = gate.front();
                let taken = screened.take(&mut front.desk.jar)?;
                front.answers.begin(digest, peer, expiry, gate.now());
                taken
            };
            let verified = taken.verify(memory);
            if let Err(error) = &verified {
                gate.count_failure(error);
                gate.front().answers.finish(&digest, None);
            }
            verified
        });
        verified.await?
    }

    /// Work that held weighs the same whatever comes of it: who is refused or has to wait for approval costs us as much as
    /// who is admitted. Once, however often it comes again; and not work for a price of long ago, or a heap of it would
    /// raise the price for all others and be none the dearer itself.
    fn count_work(&self, serial: Serial, effort: u64) {
        let (now, most, mut front) = (
            self.now(),
            self.config().admissions_per_minute_max,
            self.front(),
        );
        let is_todays = effort.saturating_mul(PRICE_SPAN) >= front.effort.value();
        if is_todays && !front.desk.jar.was_given_back(serial) {
            front.admissions = front.admissions.and_one(now, most);
        }
    }

    /// A solution that failed is a sign of an attack; one that is old or used may be an accident.
    fn count_failure(&self, error: &HandshakeError) {
        if error.is_abuse() {
            let now = self.now();
            let mut front = self.front();
            front.failures = front
                .failures
                .and_one(now, self.config().failures_per_minute_max);
        }
    }

    fn refused(&self, code: RefusalCode) -> Vec<u8> {
        let retry_s =
            (code == RefusalCode::Busy).then(|| retry_s(self.load().pressure(self.config())));
        Message::Refused(Refused { code, retry_s }).encode()
    }

    /// Without a place nothing may be waited for: what cannot be told at once is not told.
    fn tell_at_once(&self, session: &mut Session, code: RefusalCode) {
        let told = self.refused(code);
        let _ = session.writer.write(&told).now_or_never();
    }

    /// Tells the code, and waits shortly for it to be read: over TCP, closing on unread bytes would destroy it.
    async fn tell(&self, session: &mut Session, code: RefusalCode) {
        let told = self.refused(code);
        let telling = async {
            session.writer.write(&told).await.ok()?;
            session.writer.close().await.ok()?;
            session.reader.drain(LINGER_BYTES_MAX).await;
            Some(())
        };
        let _ = timeout(LINGER, telling).await;
    }
}
