//! Receipts and delivery states between two [`TestNode`]s, called by hand.

use keys::Oid;
use postern::services::delivery::{self, DeliveryState};
use postern::state_engine::{CheckedReceipt, Delivered, Receipt, ReceiptError};

use crate::TestNode;
use crate::node::finish;

impl TestNode {
    /// The next receipt of this node on another one's domain.
    pub fn next_receipt(&self, of: &TestNode, domain: &str) -> Option<Receipt> {
        let (peer, domain) = (of.peer_id(), domain.to_owned());
        self.read(move |view| view.receipt(&peer, &domain))
    }

    /// Checks a receipt of another node against a snapshot.
    pub fn check_receipt(
        &self,
        from: &TestNode,
        receipt: Receipt,
    ) -> Result<Option<CheckedReceipt>, ReceiptError> {
        let peer = from.peer_id();
        let checked = finish(
            self.engine
                .read(move |view| view.check_receipt(&peer, receipt)),
        );
        match checked {
            Err(postern::engine::EngineError::Work(error)) => Err(error),
            checked => Ok(checked.unwrap()),
        }
    }

    /// Takes a receipt of another node, as a session does.
    pub fn take_receipt(
        &self,
        from: &TestNode,
        receipt: Receipt,
    ) -> Result<Option<Delivered>, ReceiptError> {
        let peer = from.peer_id();
        let checked = self.check_receipt(from, receipt)?;
        match checked {
            None => Ok(None),
            Some(checked) => self.write(move |core, now| core.record_receipt(now, &peer, &checked)),
        }
    }

    /// Sends another node receipts of a domain until all is stated. Returns the last result.
    pub fn send_receipts(&self, to: &TestNode, domain: &str) -> Option<Delivered> {
        loop {
            let receipt = self.next_receipt(to, domain)?;
            let is_last = receipt.last_seq.is_some();
            let delivered = to.take_receipt(self, receipt.clone()).unwrap();
            let peer = to.peer_id();
            self.write(move |core, now| core.forget_refused(now, &peer, &receipt))
                .unwrap();
            if is_last {
                return delivered;
            }
        }
    }

    /// Whether this node refused an object, or a version of it.
    pub fn was_refused(&self, oid: Oid) -> bool {
        let rejects = self.read(|view| view.rows.rejects(None, 10_000));
        rejects.iter().any(|reject| reject.oid == Some(oid))
    }

    /// The delivery state of a message of this node for each recipient, sorted by oid.
    pub fn delivery(&self, message: Oid) -> Vec<(Oid, DeliveryState)> {
        let now = self.clock.timestamp();
        let found = self.read(move |view| delivery::of_message(&view, now, &message));
        let states = found.unwrap().delivery.unwrap().into_iter();
        states.map(|it| (it.identity, it.state)).collect()
    }

    /// The state for one recipient.
    pub fn delivery_to(&self, message: Oid, recipient: Oid) -> DeliveryState {
        let states = self.delivery(message).into_iter();
        let mut states = states.filter(|(identity, _)| *identity == recipient);
        states.next().unwrap().1
    }

    /// Whether a message of this node was delivered to a recipient.
    pub fn is_delivered(&self, message: Oid, recipient: Oid) -> bool {
        let state = self.delivery_to(message, recipient);
        matches!(state, DeliveryState::Delivered(_))
    }
}
