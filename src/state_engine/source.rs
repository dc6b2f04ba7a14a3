//! [`PackageSource`]: the peer, domain and position from which objects come.

use keys::{Epoch, PeerId};

use crate::graph::{AccountRoom, Arrival, GraphManager, Trial};
use crate::op_context::{AppId, OpContext};
use crate::store::StoreError;

/// The origin of a package, for each of its objects.
pub(super) struct PackageSource<'s> {
    pub(super) context: OpContext,
    pub(super) peer: PeerId,
    /// The peer's local number.
    pub(super) origin: i64,
    pub(super) domain: &'s str,
    pub(super) epoch: Epoch,
    pub(super) seq: u64,
    /// Whether the domain is pulled again.
    pub(super) is_again: bool,
    trial: Trial,
}

impl<'s> PackageSource<'s> {
    /// Returns `None` if the peer is not known, or if what it sent is being removed.
    pub(super) fn find(
        graph: &GraphManager<'_>,
        peer: PeerId,
        domain: &'s str,
        epoch: Epoch,
        seq: u64,
    ) -> Result<Option<Self>, StoreError> {
        let tx = graph.tx();
        let Some(known) = tx.peer(&peer)? else {
            return Ok(None);
        };
        if tx.is_purging(&peer)? {
            return Ok(None);
        }
        let (server, number) = (tx.identity(&known.server_oid)?, tx.peer_number(&peer)?);
        let app = graph
            .schemas()
            .domain(domain)
            .and_then(|domain| tx.apps().get(&domain.app));
        Ok(server.zip(number).map(|(server, origin)| Self {
            context: OpContext::Remote {
                requester_pubkey_attr_id: server.pubkey_attr_id,
                app_id: app.map_or(AppId(0), |app| app.id),
                trace_id: graph.trace(),
                peer,
                sync_domain: domain.to_owned(),
            },
            peer,
            origin,
            domain,
            epoch,
            seq,
            is_again: false,
            trial: Trial::Arrived,
        }))
    }

    /// The same source, of a package that was pulled again.
    pub(super) fn again(self, is_again: bool) -> Self {
        Self { is_again, ..self }
    }

    /// The same source, of objects that were fetched for stubs.
    pub(super) fn fetched(self) -> Self {
        Self {
            trial: Trial::Fetched,
            ..self
        }
    }

    /// The same source, of the records of identities that may live elsewhere.
    pub(super) fn relayed(self) -> Self {
        Self {
            trial: Trial::Relayed,
            ..self
        }
    }

    /// The same source, of an object that waited.
    pub(super) fn retried(self) -> Self {
        Self {
            trial: Trial::Retried,
            ..self
        }
    }

    /// The peer, and how its objects came to be judged.
    pub(super) fn from(&self) -> (&PeerId, Trial) {
        (&self.peer, self.trial)
    }

    /// Whether an object for which the sender has no room is passed and pulled again. Otherwise it
    /// ends the package. A fetched one never does, because other objects of the window may have
    /// other authors.
    pub(super) fn passes_without_room(&self) -> bool {
        matches!(self.trial, Trial::Fetched | Trial::Relayed)
    }

    /// Whether its objects are records of identities that may live elsewhere.
    pub(super) fn is_record(&self) -> bool {
        self.trial == Trial::Relayed
    }

    /// Whether its object waited before.
    pub(super) fn is_retried(&self) -> bool {
        self.trial == Trial::Retried
    }

    /// How an object arrived for which the sender's accounts have this room.
    pub(super) fn arrival(&self, room: AccountRoom) -> Arrival {
        Arrival {
            origin: self.origin,
            trial: self.trial,
            room,
        }
    }
}
