//! The called side on a stream: one stranger, from its first byte to admission or a code.
//!
//! Never lets an error out to the stranger but as a code. Invariant: the slot is held until the stranger is admitted or
//! its stream is done with.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::{Decision, Gate, receive, send};
use crate::error::{HandshakeError, Internal, RefusalCode, Step};
use crate::frames::Session;
use crate::handshake::{Admitted, AwaitHello, Opening, Screened, Verified};
use crate::load::patience;
use crate::messages::{Message, Refused};

/// How long a refused stranger may take to read the code.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of it that are thrown away meanwhile.
const LINGER_BYTES_MAX: usize = 64 * 1024;

impl Gate {
    /// Admits one stranger, or tells it a code and returns why. Fails with `Busy` at once when no slot is free.
    pub async fn admit(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(Session, Admitted), HandshakeError> {
        let mut session = Session::new(stream, self.config().stranger_frame_bytes_max);
        let Ok(_slot) = self.0.slots.try_acquire() else {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            // Without a slot nothing may be waited for: what cannot be told at once is not told.
            let told = refused(RefusalCode::Busy);
            let _ = session.writer.write(&told).now_or_never();
            return Err(HandshakeError::Busy);
        };
        match self.handshake(&mut session).await {
            Ok(admitted) => {
                self.0.admitted.fetch_add(1, Ordering::Relaxed);
                session.set_max(self.config().frame_bytes_max);
                Ok((session, admitted))
            }
            Err(error) => {
                self.0.refused.fetch_add(1, Ordering::Relaxed);
                if let Some(code) = error.code() {
                    tell(&mut session, code).await;
                }
                Err(error)
            }
        }
    }

    async fn handshake(&self, session: &mut Session) -> Result<Admitted, HandshakeError> {
        let config = self.config();
        let pressure = self.load().pressure(config);
        let frame = receive(session, Step::Hello, patience(config.hello_deadline(), pressure)).await?;
        let screened = match self.open(&frame)? {
            Opening::Solution(screened) => *screened,
            Opening::Hello(challenge, next) => {
                send(session, &challenge, config.send_deadline()).await?;
                let frame = receive(session, Step::Solution, patience(config.solution_deadline(), pressure)).await?;
                next.receive(&frame, &self.desk().jar, self.now())?
            }
        };
        let (welcome, admitted) = timeout(config.decision_deadline(), self.judge(screened))
            .await
            .map_err(|_| HandshakeError::Timeout(Step::Decision))??;
        send(session, &welcome, config.send_deadline()).await?;
        Ok(admitted)
    }

    /// Hello or a solution: the effort that a challenge asks follows the load of this moment.
    fn open(&self, frame: &[u8]) -> Result<Opening, HandshakeError> {
        let (load, now) = (self.load(), self.now());
        let mut desk = self.desk();
        desk.effort = desk.effort.follow(&load, self.config(), now);
        let effort = desk.effort.value();
        AwaitHello::new(self.0.here.clone()).receive(frame, &mut desk.jar, effort, now, &mut rand::rng())
    }

    /// Verifies when a worker is free, then asks the gatekeeper.
    async fn judge(&self, screened: Screened) -> Result<(Vec<u8>, Admitted), HandshakeError> {
        let verified = self.verify(screened).await?;
        match self.0.gatekeeper.decide(verified.claims()).await {
            Decision::Refuse(code) => Err(HandshakeError::NotAdmitted(code)),
            Decision::Admit => {
                let profile = self.0.gatekeeper.profile().await.map_err(HandshakeError::Internal)?;
                Ok(verified.welcome(profile))
            }
        }
    }

    async fn verify(&self, screened: Screened) -> Result<Verified, HandshakeError> {
        let turn = self.0.queue.turn(screened.effort()).await?;
        let taken = screened.take(&mut self.desk().jar)?;
        // The turn goes with the work: a stranger that hangs up frees no worker before it is done.
        let verifying = tokio::task::spawn_blocking(move || {
            let verified = taken.verify();
            drop(turn);
            verified
        });
        let verified = verifying
            .await
            .map_err(|_| HandshakeError::Internal(Internal("the verifying thread ended".into())))?;
        if verified.is_err() {
            let now = self.now();
            let mut desk = self.desk();
            desk.failures = desk.failures.and_one(now);
        }
        verified
    }
}

fn refused(code: RefusalCode) -> Vec<u8> {
    Message::Refused(Refused { code }).encode()
}

/// Tells the code, and waits shortly for it to be read: over TCP, closing on unread bytes would destroy it.
async fn tell(session: &mut Session, code: RefusalCode) {
    let telling = async {
        session.writer.write(&refused(code)).await.ok()?;
        session.writer.close().await.ok()?;
        session.reader.drain(LINGER_BYTES_MAX).await;
        Some(())
    };
    let _ = timeout(LINGER, telling).await;
}
