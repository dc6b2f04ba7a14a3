//! Receipts: tells a peer what this node applied of its objects (docs/PROTOCOL.md 4.4).
//!
//! Input is what the core applied, waits for or refused; output is a `receipt` for each domain in
//! which that changed. A session with the feature `receipts` has one task. The task looks at the
//! start, after each package of the peer, and every half minute. While something is missing, it
//! looks after commits too.
//! Invariant: refused objects are forgotten only after the peer has noted them.

use std::collections::BTreeMap;
use std::time::Duration;

use bastion::Feature;
use keys::error_chain;

use super::backoff::Backoff;
use super::context::SessionContext;
use super::handle::SessionError;
use super::message::{ReceiptMessage, SessionMessage};
use super::sync_error::SyncError;
use crate::state_engine::Receipt;

/// Longest time until a change that nothing announces is seen.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Shortest time between two rounds. Packages that come together share one receipt.
const ROUND_PAUSE: Duration = Duration::from_secs(2);

/// Sends receipts until the session ends.
pub(super) async fn keep_receipting(session: &SessionContext) {
    if !session.handle.features().has(Feature::Receipts) {
        return;
    }
    let schemas = &session.core.context().schemas;
    let domains = session.domains.iter();
    let mut sender = ReceiptSender {
        session,
        domains: domains.filter(|name| schemas.has_scopes(name)).collect(),
        sent: BTreeMap::new(),
    };
    if !sender.domains.is_empty() {
        // Ends with the session, and not before.
        let _ = sender.run().await;
    }
}

/// The task that sends receipts.
struct ReceiptSender<'s> {
    session: &'s SessionContext,
    domains: Vec<&'s String>,
    /// The last receipt of each domain that the peer has noted in this session.
    sent: BTreeMap<&'s String, Receipt>,
}

impl ReceiptSender<'_> {
    async fn run(&mut self) -> Result<(), SessionError> {
        let mut packages = self.session.handle.packages();
        let mut changes = self.session.core.changes();
        let mut backoff = Backoff::new(&self.session.config);
        loop {
            packages.mark_unchanged();
            changes.mark_unchanged();
            let pause = match self.send_all().await {
                Ok(()) => {
                    backoff.reset();
                    LOOK_INTERVAL
                }
                Err(SyncError::Session(SessionError::Over)) => return Err(SessionError::Over),
                Err(SyncError::Refused(code)) => {
                    tracing::debug!(code, "the peer did not take a receipt");
                    backoff.next()
                }
                Err(error) => {
                    tracing::warn!(error = %error_chain(&error), "could not send a receipt");
                    backoff.next()
                }
            };
            self.session.pause(ROUND_PAUSE.min(pause)).await?;
            let is_missing = |it: &Receipt| !it.waiting.is_empty() || !it.behind.is_empty();
            let may_settle = self.sent.values().any(is_missing);
            tokio::select! {
                biased;
                paused = self.session.pause(pause) => paused?,
                Ok(()) = packages.changed() => {}
                Ok(()) = changes.changed(), if may_settle => {}
            }
        }
    }

    /// Sends a receipt of each domain in which something changed.
    async fn send_all(&mut self) -> Result<(), SyncError> {
        for domain in self.domains.clone() {
            while let Some(receipt) = self.next(domain).await? {
                self.send(&receipt).await?;
                let is_last = receipt.last_seq.is_some();
                let sent = Receipt {
                    refused: Vec::new(),
                    ..receipt
                };
                self.sent.insert(domain, sent);
                if is_last {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The receipt of a domain; `None` if the peer has noted the same.
    async fn next(&self, domain: &str) -> Result<Option<Receipt>, SyncError> {
        let (peer, name) = (*self.session.handle.peer(), domain.to_owned());
        let core = &self.session.core;
        let receipt = core.read(move |view| view.receipt(&peer, &name)).await?;
        Ok(receipt.filter(|receipt| self.sent.get(&receipt.domain) != Some(receipt)))
    }

    async fn send(&self, receipt: &Receipt) -> Result<(), SyncError> {
        let message = |id| SessionMessage::Receipt(ReceiptMessage::new(id, receipt.clone()));
        let handle = &self.session.handle;
        match handle.request(Duration::ZERO, message).await? {
            SessionMessage::Noted(_) => {}
            SessionMessage::Refused(refusal) => return Err(SyncError::Refused(refusal.code)),
            _ => {
                let text = "a reply of a wrong kind to a receipt";
                return Err(SessionError::Misbehaved(text).into());
            }
        }
        if !receipt.refused.is_empty() {
            let (peer, noted) = (*handle.peer(), receipt.clone());
            self.session
                .core
                .write(move |core, now| core.forget_refused(now, &peer, &noted))
                .await?;
        }
        Ok(())
    }
}
