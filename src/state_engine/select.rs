//! [`Selector`]: the changes of a domain that a peer receives, in batches (docs/DECISIONS.md 7).
//!
//! Two plans return the same rows. A scan takes the changes of all scopes in order, and is best
//! while the peer reads many of them. A search takes the changes of the peer's scopes that have
//! some, and is best while it reads few. Invariants: batches hold whole change groups, in order; a
//! request examines at most [`Selection::entries_max`] entries and one batch more.

use crate::graph::{Exported, ScopeMemory};
use crate::op_context::AppId;
use crate::store::{ChangeEntry, ChangePart, DomainTable, Rows, ScopeId, StoreError};

use super::peer_scopes::{PeerScopes, Reading};

/// Entries of the first batch of a scan, and of each later one.
const BATCH: (usize, usize) = (64, 256);
/// A scan continues while at least one of so many entries is for the peer.
const DENSE: usize = 8;
/// A search replaces a scan at once if at most so many scopes have changes.
const FEW_SCOPES: usize = 128;
/// A search is possible if at most so many scopes have changes.
const SCOPES_MAX: usize = 4096;
/// A search of one scope costs as much as scanning so many entries.
const SEARCH_COST: usize = 16;

/// The scopes of a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'s> {
    /// Everything that the peer reads, above its bounds: an ordinary pull.
    News,
    /// Everything that the peer reads, from the beginning.
    Whole,
    /// These scopes, sorted, of those that the peer reads; from the beginning.
    Scopes(&'s [ScopeId]),
}

/// The parameters of a selection.
pub(super) struct Selection<'s> {
    pub(super) rows: Rows<'s>,
    pub(super) app: AppId,
    pub(super) domain: &'s DomainTable,
    pub(super) memory: &'s ScopeMemory,
    pub(super) scopes: &'s PeerScopes,
    pub(super) wanted: Wanted<'s>,
    pub(super) exported: Exported,
    /// Selects changes above this number.
    pub(super) after: u64,
    /// Selects changes up to this number.
    pub(super) end: u64,
    /// Entries of the index that the request examines, at some 0.1 us each.
    pub(super) entries_max: usize,
}

/// Selects the changes of one domain for one peer.
pub(super) struct Selector<'s> {
    selection: Selection<'s>,
    /// Every change up to here was examined.
    reached: u64,
    examined: usize,
    /// Entries of the scan since the peer's scopes turned out to be few of them.
    sparse: usize,
    is_dense: bool,
    /// Scopes that had changes when a scan first turned out sparse. `None`: more than
    /// [`SCOPES_MAX`].
    changed: Option<Option<Vec<ScopeId>>>,
}

/// A selected object, which the caller loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Selected {
    pub(super) change_seq: u64,
    /// Local id of the Parent.
    pub(super) id: i64,
    /// Only if it is a deletion or a rights list of an object created up to this number.
    pub(super) until: Option<u64>,
}

impl<'s> Selector<'s> {
    pub(super) fn new(selection: Selection<'s>) -> Self {
        Self {
            reached: selection.after,
            is_dense: !matches!(selection.wanted, Wanted::Scopes(_)),
            selection,
            examined: 0,
            sparse: 0,
            changed: None,
        }
    }

    /// The number up to which every change was examined.
    pub(super) fn reached(&self) -> u64 {
        self.reached
    }

    /// The entries that were examined, and what was charged like them.
    pub(super) fn examined(&self) -> usize {
        self.examined
    }

    /// Charges the request for objects that it loads in vain.
    pub(super) fn charge(&mut self, entries: usize) {
        self.examined += entries;
    }

    /// The next batch, which may be empty; `None` at the end or when the request has examined its
    /// share.
    pub(super) fn next_batch(&mut self) -> Result<Option<Vec<Selected>>, StoreError> {
        if self.reached >= self.selection.end || self.examined >= self.selection.entries_max {
            return Ok(None);
        }
        let part = if self.is_dense {
            self.scan()?
        } else {
            match self.scopes_with_changes() {
                Some(scopes) if scopes.is_empty() => {
                    self.reached = self.selection.end;
                    return Ok(None);
                }
                Some(scopes)
                    if scopes.len() <= FEW_SCOPES || self.sparse >= SEARCH_COST * scopes.len() =>
                {
                    self.search(&scopes)?
                }
                _ => self.scan()?,
            }
        };
        // The queries have no upper bound.
        let end = self.selection.end;
        self.reached = part.reached.map_or(end, |reached| reached.min(end));
        let selected: Vec<Selected> = part
            .entries
            .iter()
            .filter(|entry| entry.change_seq <= end)
            .filter_map(|entry| self.select(entry))
            .collect();
        self.is_dense = self.is_dense && selected.len() * DENSE >= part.entries.len();
        Ok(Some(selected))
    }

    fn scan(&mut self) -> Result<ChangePart, StoreError> {
        let Selection { rows, domain, .. } = &self.selection;
        let most = if self.examined == 0 { BATCH.0 } else { BATCH.1 };
        let part = rows.changes_in_order(domain, self.reached, most)?;
        self.examined += part.entries.len();
        if !self.is_dense {
            self.sparse += part.entries.len();
        }
        Ok(part)
    }

    fn search(&mut self, scopes: &[(ScopeId, u64)]) -> Result<ChangePart, StoreError> {
        let Selection { rows, domain, .. } = &self.selection;
        let most = (SCOPES_MAX / scopes.len()).max(SEARCH_COST);
        let part = rows.changes_by_scope(domain, scopes, most)?;
        self.examined += scopes.len() + part.entries.len();
        Ok(part)
    }

    /// The peer's scopes with changes that it has not got, each with the number above which the
    /// search begins. `None`: more than a search may take.
    fn scopes_with_changes(&mut self) -> Option<Vec<(ScopeId, u64)>> {
        let known = match self.changed.take() {
            Some(known) => known,
            None => self.all_with_changes(),
        };
        self.changed = Some(known);
        let known = self.changed.as_ref()?.as_ref()?;
        let newest = self.selection.memory.newest();
        let starts = known.iter().filter_map(|scope| {
            let start = match self.reading(*scope)? {
                Reading::After(since) => since.max(self.reached),
                Reading::Until(_) => self.reached,
            };
            let Selection { app, exported, .. } = self.selection;
            (newest.of(app, *scope, exported) > start).then_some((*scope, start))
        });
        Some(starts.collect())
    }

    fn all_with_changes(&self) -> Option<Vec<ScopeId>> {
        let Selection {
            app,
            memory,
            scopes,
            wanted,
            exported,
            ..
        } = &self.selection;
        let newest = memory.newest();
        let has_changes = |scope: &ScopeId| newest.of(*app, *scope, *exported) > self.reached;
        let changed: Vec<ScopeId> = match wanted {
            Wanted::Scopes(wanted) => wanted.iter().copied().filter(has_changes).collect(),
            Wanted::News | Wanted::Whole => {
                let all = std::iter::once(ScopeId::PUBLIC).chain(scopes.ids());
                all.filter(has_changes).take(SCOPES_MAX + 1).collect()
            }
        };
        (changed.len() <= SCOPES_MAX).then_some(changed)
    }

    /// The part of a scope that this request may return.
    fn reading(&self, scope: ScopeId) -> Option<Reading> {
        let Selection { scopes, wanted, .. } = &self.selection;
        let is_wanted = match wanted {
            Wanted::Scopes(wanted) => wanted.binary_search(&scope).is_ok(),
            Wanted::News | Wanted::Whole => true,
        };
        let reading = match scope {
            _ if !is_wanted => return None,
            ScopeId::PUBLIC => Reading::After(0),
            scope => scopes.reading(scope)?,
        };
        Some(match (wanted, reading) {
            (Wanted::Whole | Wanted::Scopes(_), Reading::After(_)) => Reading::After(0),
            (_, reading) => reading,
        })
    }

    fn select(&self, entry: &ChangeEntry) -> Option<Selected> {
        let is_own = entry.sync_flags >= 0;
        let is_exported = is_own || self.selection.exported == Exported::All;
        if !is_exported || entry.sync_flags & self.selection.domain.mask == 0 {
            return None;
        }
        let until = match self.reading(entry.scope)? {
            Reading::After(since) if entry.change_seq <= since => return None,
            Reading::After(_) => None,
            Reading::Until(until) => Some(until),
        };
        Some(Selected {
            change_seq: entry.change_seq,
            id: entry.id,
            until,
        })
    }
}
