//! The reply to a `receipt` (docs/PROTOCOL.md 4.4).

use super::{RequestServer, internal, refused};
use crate::engine::{DeliveryChange, EngineError};
use crate::peer::handle::SessionInfo;
use crate::peer::message::{IdOnly, ReceiptMessage, RequestRefusal, SessionMessage};
use crate::state_engine::{OBJECT_COST, ReceiptError};

impl RequestServer {
    /// Stores what the peer applied, and announces it. The lists are charged to the peer's
    /// processor time; without time left, and while objects get other numbers, the reply is `busy`.
    pub(super) async fn receipt(
        &self,
        session: &SessionInfo,
        message: ReceiptMessage,
    ) -> Result<SessionMessage, RequestRefusal> {
        let (id, peer) = (message.id, session.peer);
        let receipt = message.into_receipt();
        if !self.budget.has_time(&peer) {
            return Err(refused(id, "busy"));
        }
        let mut charge = self.budget.begin(&peer, session.tier, 0);
        let named = receipt.behind.len() + receipt.refused.len() + receipt.waiting.len();
        charge.set_objects(OBJECT_COST.saturating_mul(u32::try_from(named).unwrap_or(u32::MAX)));
        let checked = self
            .core
            .read(move |view| view.check_receipt(&peer, receipt))
            .await;
        let noted = SessionMessage::Noted(IdOnly { id });
        let Some(checked) = checked.map_err(|error| refusal(id, error))? else {
            return Ok(noted);
        };
        let recorded = self
            .core
            .write(move |core, now| core.record_receipt(now, &peer, &checked))
            .await;
        drop(charge);
        if let Some(delivered) = recorded.map_err(|error| refusal(id, error))? {
            self.core.announce(DeliveryChange { peer, delivered });
        }
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
