//! Refused objects, for the next receipt of their senders (docs/PROTOCOL.md 4.4).
//!
//! Invariant: an object of the peer itself that this node refused is named in a receipt, or its
//! scope is pulled again. Objects that the peer relayed are named only as long as there is room,
//! because their authors decide how many there are. Tested in `tests/core/receipts.rs`.

use keys::Oid;

use super::ingest::PartIngest;
use super::source::PackageSource;
use crate::store::{PullAgainCause, PullAgainNote, REFUSED_MAX, StoreError};

impl PartIngest<'_, '_> {
    /// Notes an object and its scope for the next receipt of its sender. Bytes that are no object
    /// have no oid. An object that a ban or a decision dropped is not noted, because its sender
    /// would learn it.
    pub(super) fn note_refused(
        &mut self,
        source: &PackageSource<'_>,
        (oid, scope): (Option<Oid>, Option<Oid>),
        is_relayed: bool,
    ) {
        let is_meant = !source.is_record() && self.graph.schemas().has_scopes(source.domain);
        let Some(oid) = oid.filter(|_| is_meant) else {
            return;
        };
        let key = (source.peer, source.domain.to_owned(), source.epoch);
        let refused = self.refused_now.entry(key).or_default();
        match is_relayed {
            true => refused.relayed.push(oid),
            false => refused.own.push((oid, scope)),
        }
        refused.seq = refused.seq.max(source.seq);
        refused.is_again |= source.is_again;
    }

    /// Writes the objects that were refused.
    pub(super) fn write_refused(&mut self) -> Result<(), StoreError> {
        let tx = self.graph.tx();
        for ((peer, domain, epoch), refused) in std::mem::take(&mut self.refused_now) {
            // Those of an earlier epoch come again.
            if tx.peer(&peer)?.is_none_or(|row| row.epoch != epoch) {
                continue;
            }
            let key = (&peer, domain.as_str());
            let own: Vec<Oid> = refused.own.iter().map(|(oid, _)| *oid).collect();
            let noted = tx.put_refused_objects(key, &epoch, &own, REFUSED_MAX)?;
            tx.put_refused_objects(key, &epoch, &refused.relayed, REFUSED_MAX / 2)?;
            let mut scopes: Vec<_> = refused.own.iter().skip(noted).collect();
            scopes.sort_unstable_by_key(|(_, scope)| *scope);
            scopes.dedup_by_key(|(_, scope)| *scope);
            for (_, scope) in scopes {
                let note = PullAgainNote {
                    peer: &peer,
                    domain: &domain,
                    scope: *scope,
                    epoch,
                    until_seq: refused.seq,
                    cause: PullAgainCause::NoRoom,
                    is_again: refused.is_again,
                    is_own: true,
                };
                self.note_again(note, epoch)?;
            }
        }
        Ok(())
    }
}
