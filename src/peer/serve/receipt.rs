//! The reply to a `receipt` (docs/PROTOCOL.md 4.4).

use std::time::Duration;

use tokio::sync::Semaphore;

use super::{RequestServer, internal, refused};
use crate::engine::{DeliveryChange, EngineError};
use crate::peer::handle::SessionInfo;
use crate::peer::message::{IdOnly, ReceiptMessage, RequestRefusal, SessionMessage};
use crate::state_engine::{OBJECT_COST, ReceiptError};

/// Time that examining an entry of an index takes.
const ENTRY_COST: Duration = Duration::from_nanos(100);

impl RequestServer {
    /// Stores what the peer applied, and announces it in the same job, so that an end of the
    /// session loses no change. The lists and what is examined are charged to the peer's processor
    /// time. Without time left, and while objects get other numbers, the reply is `busy`. One
    /// receipt of a session is checked at a time, because the check selects like a pull.
    pub(super) async fn receipt(
        &self,
        session: &SessionInfo,
        message: ReceiptMessage,
        build_permit: &Semaphore,
    ) -> Result<SessionMessage, RequestRefusal> {
        let (id, peer) = (message.id, session.peer);
        let receipt = message.into_receipt();
        let permit = build_permit.acquire().await;
        let _permit = permit.map_err(|_| refused(id, "internal"))?;
        if !self.budget.has_time(&peer) {
            return Err(refused(id, "busy"));
        }
        let mut charge = self.budget.begin(&peer, session.tier, 0);
        let named = receipt.behind.len() + receipt.refused.len() + receipt.waiting.len();
        let named = OBJECT_COST.saturating_mul(u32::try_from(named).unwrap_or(u32::MAX));
        charge.set_objects(named);
        let checked = self
            .core
            .read(move |view| view.check_receipt(&peer, receipt))
            .await;
        let noted = SessionMessage::Noted(IdOnly { id });
        let Some(checked) = checked.map_err(|error| refusal(id, error))? else {
            return Ok(noted);
        };
        let examined = u32::try_from(checked.examined()).unwrap_or(u32::MAX);
        charge.set_objects(named + ENTRY_COST.saturating_mul(examined));
        let announcer = self.core.clone();
        let recorded = self.core.write(move |core, now| {
            if let Some(delivered) = core.record_receipt(now, &peer, &checked)? {
                announcer.announce(DeliveryChange { peer, delivered });
            }
            Ok(())
        });
        recorded.await.map_err(|error| refusal(id, error))?;
        Ok(noted)
    }
}

/// A receipt of another epoch, and one that has to come again, are no faults of this node.
fn refusal(id: u64, error: EngineError<ReceiptError>) -> RequestRefusal {
    match error {
        EngineError::Work(ReceiptError::Epoch) => refused(id, "epoch"),
        EngineError::Work(ReceiptError::Busy) => refused(id, "busy"),
        error => internal(id, &error),
    }
}
