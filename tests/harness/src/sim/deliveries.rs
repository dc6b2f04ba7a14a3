//! The oracle of delivery states.
//!
//! Whenever a node says that a message was delivered, the home of the recipient holds it. In the
//! end it says so of every message that the home holds and that it sent there itself.
//! Exempt from the first are homes that were set back, and scopes that the home declined.
//! Exempt from the second are, besides:
//!
//! - homes without a session that has the protocol feature `receipts`
//! - identities that moved, and scopes of those and of the hostile peer
//! - recipients that do not read the scope any more
//! - messages that the home refused or waits for, and scopes that it still pulls again

use keys::Oid;
use postern::services::delivery::{self, DeliveryState, OwnMessage, RecipientState};

use super::memory::Made;
use super::world::World;
use crate::live::LiveNode;

const MESSAGES: &str = "messages";
const MESSAGE: u16 = 2;

fn own_message(node: &LiveNode, oid: Oid) -> Option<OwnMessage> {
    let now = node.clock.timestamp();
    node.read(move |view| delivery::of_message(&view, now, &oid))
}

fn is_delivered(recipient: &RecipientState) -> bool {
    matches!(recipient.state, DeliveryState::Delivered(_))
}

impl World {
    /// Every message that a running node calls delivered is at the recipient's home.
    pub(super) fn check_delivered(&self) -> Result<(), String> {
        self.for_each_recipient(|number, other, (oid, made), recipient| {
            let there = self.up(other).unwrap();
            let scope = made.scope.unwrap();
            if is_delivered(recipient)
                && there.parent(MESSAGES, oid).is_none()
                && !self.memory.set_back.contains(&other)
                && !self.purgers.contains(&other)
                && !self.unwanted(other).contains(&scope)
                && !self.is_moved(made, recipient)
            {
                return Err(format!(
                    "node {number} says that {oid:?} was delivered to {recipient:?} of node \
                     {other}, which lacks it: {made:?}"
                ));
            }
            Ok(())
        })
    }

    /// Every message that its author's home sent to the recipient's home is delivered.
    pub(super) fn check_deliveries(&self) -> Result<(), String> {
        self.check_delivered()?;
        self.for_each_recipient(|number, other, (oid, made), recipient| {
            let there = self.up(other).unwrap();
            let scope = made.scope.unwrap();
            if is_delivered(recipient)
                || there.parent(MESSAGES, oid).is_none()
                || !self.states_to(other, number)
                || self.is_moved(made, recipient)
                || !self
                    .up(number)
                    .unwrap()
                    .readers(MESSAGES, scope)
                    .contains(&recipient.identity)
            {
                return Ok(());
            }
            let receipt = there.next_receipt(self.up(number).unwrap(), MESSAGES);
            let refused = there.was_refused(oid);
            let is_excused = receipt.as_ref().is_none_or(|receipt| {
                receipt.behind.contains(&scope) || receipt.waiting.contains(&oid)
            });
            match is_excused || refused {
                true => Ok(()),
                false => Err(format!(
                    "node {number} does not know that {oid:?} was delivered to {recipient:?} of \
                     node {other}, which states {receipt:?}: {made:?}"
                )),
            }
        })
    }

    /// Whether a node tells another one what it applied.
    fn states_to(&self, number: usize, other: usize) -> bool {
        let offers = |number: usize| {
            let offered = &self.nodes[number].offered;
            offered.has(bastion::Feature::Receipts)
        };
        let link = (number.min(other), number.max(other));
        self.knows(number, other) && !self.apart.contains(&link) && offers(number) && offers(other)
    }

    fn is_moved(&self, made: &Made, recipient: &RecipientState) -> bool {
        let scope = made.scope.and_then(|scope| self.memory.made.get(&scope));
        // A scope that no honest node wrote is of the hostile peer.
        let Some(scope) = scope else {
            return true;
        };
        let people = [made.owner, recipient.identity, scope.owner];
        people.iter().any(|oid| self.memory.has_moved(oid))
    }

    /// Calls `check` with each message of a running node and each recipient at another one: the
    /// numbers of both nodes, the message and the recipient.
    fn for_each_recipient(
        &self,
        check: impl Fn(usize, usize, (Oid, &Made), &RecipientState) -> Result<(), String>,
    ) -> Result<(), String> {
        let made = self.memory.made.iter();
        let messages = made.filter(|(_, it)| it.app == MESSAGES && it.type_number == MESSAGE);
        for (oid, made) in messages {
            let Some(node) = self.up(made.home) else {
                continue;
            };
            let states = own_message(node, *oid).and_then(|message| message.delivery);
            for recipient in states.into_iter().flatten() {
                let home = |number: &usize| {
                    let peer = self.up(*number).map(|node| node.peer_id());
                    peer.is_some() && peer == recipient.home
                };
                let other = (0..self.nodes.len()).find(home);
                if let Some(other) = other.filter(|other| *other != made.home) {
                    check(made.home, other, (*oid, made), &recipient)?;
                }
            }
        }
        Ok(())
    }
}
