//! Moves of identities between two [`TestNode`]s: the steps of the node's operations, by hand.

use std::collections::VecDeque;

use keys::{AddressRecord, Handover, Oid, SignedObject, VaultError};
use postern::services::identities;
use postern::state_engine::{HandedOver, HandoverCursor, HandoverFault, MoveSource, MovedObject};
use postern::store::ScopeId;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::TestNode;

fn source_of(handover: &Handover) -> MoveSource {
    MoveSource {
        identity: handover.identity(),
        old_home: handover.source(),
    }
}

impl TestNode {
    /// The vault reveals the next key of an identity, and signs nothing for it from then on.
    pub fn begin_move(&self, identity: Oid, to: &TestNode) -> Result<(), VaultError> {
        let known = self.read(move |view| view.rows.identity(&identity));
        let counter = known.unwrap().home_counter + 1;
        let mut rng = ChaCha20Rng::from_seed([41; 32]);
        let target = (to.peer_id(), counter);
        self.keys.begin_move(identity, target, &mut rng)
    }

    /// The objects of the file that moves an identity.
    pub fn handed_over(&self, identity: Oid) -> Vec<SignedObject> {
        let (mut objects, mut next) = (Vec::new(), Some(HandoverCursor::default()));
        while let Some(cursor) = next {
            let page = self.read(move |view| view.handover_page(&identity, cursor));
            objects.extend(page.objects);
            next = page.next;
        }
        objects
    }

    /// Takes the objects of an identity that moves here, but not its keys.
    pub fn take_objects(
        &self,
        handover: &Handover,
        objects: Vec<SignedObject>,
    ) -> Result<HandedOver, HandoverFault> {
        let (source, chain) = (source_of(handover), handover.chain().clone());
        let counter = handover.counter();
        self.write(move |core, _| core.view().check_handover(&source, (&chain, counter)))?;
        let taken = self.take_unchecked(handover, objects);
        let identity = handover.identity();
        self.graph(move |graph| identities::adopt_name(graph, identity))
            .unwrap();
        Ok(taken)
    }

    /// Stores objects of a file, after the checks of [`TestNode::take_objects`].
    pub fn take_unchecked(&self, handover: &Handover, objects: Vec<SignedObject>) -> HandedOver {
        let source = source_of(handover);
        let verified = handover.chain().verify().unwrap();
        let mut taken = HandedOver::default();
        for part in objects.chunks(16) {
            let part = part.to_vec();
            let known = self.read({
                let part = part.clone();
                move |view| view.keys_of(&part)
            });
            let limits = self.engine.context().limits.graph;
            let mut rest = VecDeque::from(MovedObject::check(part, &verified, &known, &limits));
            while !rest.is_empty() {
                let (done, left) = self
                    .write(move |core, now| {
                        let done = core.take_moved(now, &source, &mut rest)?;
                        Ok::<_, postern::store::StoreError>((done, rest))
                    })
                    .unwrap();
                taken += done;
                rest = left;
            }
        }
        taken
    }

    /// Takes the keys of an identity that moves here.
    pub fn take_keys(&self, handover: &Handover) -> Result<(), VaultError> {
        let mut rng = ChaCha20Rng::from_seed([42; 32]);
        self.keys.take_over(handover, &mut rng)
    }

    /// Publishes the new home and signs the objects, as far as that is left.
    pub fn complete_move(&self, identity: Oid) {
        while self
            .write(move |core, now| core.rotation_step(now, identity))
            .unwrap()
        {}
    }

    /// Moves an identity from another node to this one.
    pub fn receive(&self, from: &TestNode, identity: Oid) -> HandedOver {
        from.begin_move(identity, self).unwrap();
        let handover = from.keys.hand_over(identity).unwrap();
        let taken = self.take_objects(&handover, from.handed_over(identity));
        self.take_keys(&handover).unwrap();
        let addresses = from.moved_addresses(identity);
        self.complete_move(identity);
        for (scope, records) in addresses {
            let records: Vec<_> = records.into_iter().map(|it| it.verify().unwrap()).collect();
            self.write(move |core, now| core.take_moved_addresses(now, &scope, &records))
                .unwrap();
        }
        taken.unwrap()
    }

    /// The address records of the file that moves an identity.
    pub fn moved_addresses(&self, identity: Oid) -> Vec<(Oid, Vec<AddressRecord>)> {
        let (mut scopes, mut next) = (Vec::new(), Some(ScopeId(0)));
        while let Some(after) = next {
            let page = self.read(move |view| view.moved_addresses(&identity, after));
            scopes.extend(page.scopes);
            next = page.last;
        }
        scopes
    }
}
