//! Packages out: what changed since `last_seq` (docs/STORY.md 2.1 steps 2-7, 4, 6.2, 7.1).
//!
//! Reads one committed state. Invariants: a package contains and mentions only rows that the peer
//! may read. A domain outside the intersection looks like an empty one. Change groups are whole,
//! and every row up to `to_seq` was examined. Tested in `tests/core/windows.rs`.

use bastion::{Feature, Features};
use keys::protocol::PACKAGE_VERSION;
use keys::{Epoch, Oid, PeerId};

use super::collect::{BuildError, Collected};
use super::engine::StateEngine;
use super::late::Late;
use super::package::{Package, Window};
use super::select::{Selection, Selector, Wanted};
use super::view::View;
use crate::graph::Exported;
use crate::op_context::Timestamp;
use crate::store::{AppTable, Cursor, Direction, ScopeId, StoreError, SyncStateRow};

/// Length of a stretch of changes, none readable by the peer, from which an empty package moves the
/// cursor past it. Examining a shorter stretch again costs less than a package.
const QUIET_STRETCH: u64 = 1024;
/// Loading an object that is not sent costs as much as examining so many entries of an index.
pub(super) const LOAD_COST: usize = 64;

/// A pull request (docs/STORY.md 2.1: `peer_id`, `domain`, `last_seq`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// The requesting peer.
    pub peer: PeerId,
    /// The sync domain.
    pub domain: String,
    /// The last sequence number that the peer has applied.
    pub last_seq: u64,
    /// The epoch in which `last_seq` counts; `None` at the first pull.
    pub epoch: Option<Epoch>,
    /// The scopes to send again from the beginning; empty: the whole domain. `None`: an ordinary
    /// pull.
    pub again: Option<Vec<Oid>>,
    /// The features of the session, which the package's signature covers.
    pub features: Features,
    /// With the feature `relay`: the highest number when the session began. Objects of this node
    /// above it are sent whole, because the peer cannot have them from elsewhere. `None`: a push,
    /// in which all objects are whole. A push ends before the first received one, which the peer
    /// pulls.
    pub whole_after: Option<u64>,
}

/// The rows that a session with these features sends.
pub fn exported_in(features: &Features) -> Exported {
    match features.has(Feature::Relay) {
        true => Exported::All,
        false => Exported::Own,
    }
}

impl PullRequest {
    /// The number above which objects of this node are sent whole; `None`: all are.
    fn whole_after(&self) -> Option<u64> {
        self.whole_after
            .filter(|_| self.features.has(Feature::Relay))
    }
}

/// The reply to a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullReply {
    /// Nothing changed; the peer's cursor stays.
    UpToDate {
        /// The requested `last_seq`.
        last_seq: u64,
        /// Whether the peer may sync this domain. The reply on the wire is the same in both cases.
        in_intersection: bool,
    },
    /// A signed package.
    Package {
        /// The window of the package.
        window: Window,
        /// Number of objects in the package.
        objects: usize,
        /// Whether a further window is ready.
        more: bool,
        /// The COSE_Sign1 bytes to send.
        bytes: Vec<u8>,
    },
}

/// The result of a look at a domain.
pub(super) struct Look {
    /// Whether the peer may sync the domain.
    in_intersection: bool,
    /// The contents of a package; none if the peer is up to date.
    pub(super) found: Option<Answer>,
    /// Entries of the index that were examined.
    pub(super) examined: usize,
}

impl Look {
    fn nothing(in_intersection: bool, examined: usize) -> Self {
        Self {
            in_intersection,
            found: None,
            examined,
        }
    }
}

/// The part of a domain that one request examines.
pub(super) struct Answer {
    collected: Collected,
    /// The part begins behind this number.
    last_seq: u64,
    /// Every change up to here was examined.
    pub(super) to_seq: u64,
    pub(super) head: u64,
    named: Named,
    /// Whether a push ended before a received object.
    is_cut: bool,
}

impl Answer {
    /// Whether it holds objects or names scopes, and is no empty stretch.
    pub(super) fn has_news(&self) -> bool {
        !self.collected.is_empty() || !self.named.is_empty()
    }
}

/// The scopes of which a window tells that the peer has to pull them from the beginning.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Scopes(Vec<Oid>),
    /// One write made more readable than a package can name.
    WholeDomain,
}

impl Named {
    fn is_empty(&self) -> bool {
        *self == Self::Scopes(Vec::new())
    }
}

impl View<'_> {
    /// Builds the reply to a pull, or the package to push (docs/STORY.md 5: "build package since
    /// last_seq").
    pub fn build_package(&self, request: &PullRequest) -> Result<PullReply, BuildError> {
        let look = self.look(request, self.context.limits.entries_max)?;
        Ok(match look.found {
            Some(answer) => self.reply(request, answer),
            None => PullReply::UpToDate {
                last_seq: request.last_seq,
                in_intersection: look.in_intersection,
            },
        })
    }

    /// Looks for what a package would hold. Examines at most `entries_max` entries, which is not
    /// 0, and one batch more.
    pub(super) fn look(
        &self,
        request: &PullRequest,
        entries_max: usize,
    ) -> Result<Look, BuildError> {
        let last_seq = match request.epoch {
            Some(epoch) if epoch != self.context.epoch => 0,
            _ => request.last_seq,
        };
        let shared = self.rows.peer(&request.peer)?.map(|peer| peer.domains);
        let shared = shared.filter(|shared| shared.contains(&request.domain));
        let is_known = self.context.schemas.domain(&request.domain).is_some();
        let in_intersection = shared.is_some();
        let Some(shared) = shared.filter(|_| is_known) else {
            return Ok(Look::nothing(in_intersection, 0));
        };
        let newest = self.head()?;
        let head = self.head_of(&request.domain, newest)?;
        if head <= last_seq {
            return Ok(Look::nothing(in_intersection, 0));
        }
        let heads = (head, newest);
        let (answer, examined) = self.answer(request, &shared, last_seq, heads, entries_max)?;
        let is_short = answer.to_seq == head && head - last_seq < QUIET_STRETCH;
        let is_empty = answer.is_cut || is_short && request.again.is_none();
        if !answer.has_news() && is_empty {
            return Ok(Look::nothing(in_intersection, examined));
        }
        Ok(Look {
            in_intersection,
            found: Some(answer),
            examined,
        })
    }

    /// Signs the answer as a package.
    pub(super) fn reply(&self, request: &PullRequest, answer: Answer) -> PullReply {
        let window = Window {
            from_seq: match answer.last_seq {
                0 => 0,
                last_seq => last_seq + 1,
            },
            to_seq: answer.to_seq,
        };
        let stubs = answer.collected.stubs.finish();
        let package = Package {
            more: answer.to_seq < answer.head,
            epoch: self.context.epoch,
            stubs: (!stubs.is_empty()).then_some(stubs),
            domain: request.domain.clone(),
            scopes: match answer.named {
                Named::Scopes(scopes) => Some(scopes),
                Named::WholeDomain => None,
            },
            sender: self.this_node(),
            to_seq: answer.to_seq,
            objects: answer.collected.objects,
            version: PACKAGE_VERSION,
            from_seq: window.from_seq,
            recipient: request.peer,
        };
        PullReply::Package {
            window,
            objects: package.objects.len(),
            more: package.more,
            bytes: package.sign(&self.context.keys, &request.features),
        }
    }

    /// Selects and loads what the peer may read of a domain in which it shares. Returns the number
    /// of examined entries too.
    fn answer(
        &self,
        request: &PullRequest,
        shared: &[String],
        last_seq: u64,
        (head, newest): (u64, u64),
        entries_max: usize,
    ) -> Result<(Answer, usize), BuildError> {
        let without_tables = StoreError::Inconsistent("a domain without tables");
        let (apps, schemas) = (self.rows.apps(), &self.context.schemas);
        let table = apps.domain(&request.domain);
        let app = schemas.domain(&request.domain);
        let app = app.and_then(|domain| apps.get(&domain.app));
        let (Some(app), Some(table)) = (app, table) else {
            return Err(without_tables.into());
        };
        let memory = &self.context.memory;
        let scopes = memory
            .peers
            .get(&self.rows, &memory.scopes, &request.peer, newest)?;
        let again = self.scopes_again(app, request)?;
        let exported = exported_in(&request.features);
        let late = match &again {
            None => {
                let known = (&memory.scopes, exported);
                Late::find(app.id, &scopes, known, (last_seq, head))
            }
            Some(_) => Late {
                until: head,
                ..Late::default()
            },
        };
        let mut selector = Selector::new(Selection {
            rows: self.rows,
            app: app.id,
            domain: table,
            memory: &memory.scopes,
            scopes: &scopes,
            wanted: match &again {
                None => Wanted::News,
                Some(scopes) if scopes.is_empty() => Wanted::Whole,
                Some(scopes) => Wanted::Scopes(scopes),
            },
            exported,
            after: last_seq,
            end: late.until,
            entries_max,
        });
        let hidden = self.hidden_types(&request.domain, shared);
        let mut collected = Collected {
            bytes: late.scopes.len() * Package::NAME_BYTES,
            ..Collected::default()
        };
        let mut cut_at = None;
        while !collected.is_full
            && cut_at.is_none()
            && let Some(batch) = selector.next_batch()?
        {
            for group in batch.chunk_by(|one, other| one.change_seq == other.change_seq) {
                let rows = self.load_group(app, group, &hidden)?;
                selector.charge(LOAD_COST * (group.len() - rows.len()));
                if let Some(row) = rows.iter().find(|row| row.origin.is_some())
                    && request.whole_after.is_none()
                {
                    cut_at = Some(row.change_seq);
                    break;
                }
                self.collect(app, &rows, request.whole_after(), &mut collected)?;
                if collected.is_full {
                    break;
                }
            }
        }
        let to_seq = match cut_at {
            Some(change_seq) => change_seq - 1,
            None if collected.is_full => collected.last_group,
            None => selector.reached(),
        };
        debug_assert!(to_seq <= head, "rows above the head may lack the bit");
        let answer = Answer {
            collected,
            last_seq,
            to_seq,
            head,
            named: self.named(&late, to_seq)?,
            is_cut: cut_at.is_some(),
        };
        Ok((answer, selector.examined()))
    }

    /// The scopes that a peer asks for again, sorted. Empty: all of them.
    fn scopes_again(
        &self,
        app: &AppTable,
        request: &PullRequest,
    ) -> Result<Option<Vec<ScopeId>>, StoreError> {
        let Some(oids) = &request.again else {
            return Ok(None);
        };
        let mut scopes = Vec::with_capacity(oids.len());
        for oid in oids {
            let scope = self.rows.parent(app, oid)?.map(|parent| parent.scope_id);
            // A scope that does not exist is asked for like one without changes.
            scopes.push(scope.unwrap_or(ScopeId::LOCAL));
        }
        scopes.sort_unstable();
        scopes.dedup();
        Ok(Some(scopes))
    }

    /// Types of which the peer receives nothing: the Parents that are their scopes travel in a
    /// domain that both nodes do not share.
    pub(super) fn hidden_types(&self, domain: &str, shared: &[String]) -> Vec<u16> {
        let schemas = &self.context.schemas;
        let domain = schemas.domain(domain);
        let schema = domain.and_then(|domain| schemas.app(&domain.app));
        let (Some(domain), Some(schema)) = (domain, schema) else {
            return Vec::new();
        };
        let is_shared = |number| {
            let mut domains = schema.domains_of(number);
            domains.any(|domain| shared.contains(&domain.name))
        };
        let hidden = schema.types.iter().filter(|it| {
            domain.has_type(it.number)
                && schema
                    .scope_type(it.number)
                    .is_some_and(|scope| !is_shared(scope))
        });
        hidden.map(|it| it.number).collect()
    }

    /// The scopes that become readable in a window, so that the peer pulls their earlier changes.
    fn named(&self, late: &Late, to_seq: u64) -> Result<Named, StoreError> {
        if late.too_many.is_some_and(|since| since <= to_seq) {
            return Ok(Named::WholeDomain);
        }
        let mut named = Vec::new();
        for (_, id) in late.scopes.iter().filter(|(since, _)| *since <= to_seq) {
            named.extend(self.rows.scope(*id)?.map(|scope| scope.oid));
        }
        Ok(Named::Scopes(named))
    }
}

impl StateEngine {
    /// Records what the peer acknowledged and what was sent to it (docs/STORY.md 2.1 step 7).
    /// Deletes the row of `sync_outbox` that is acknowledged. Writes only if one of them changes.
    /// Returns whether the window reaches beyond all that was sent before in this epoch.
    pub fn record_sent(
        &mut self,
        now: Timestamp,
        request: &PullRequest,
        sent: Option<Window>,
    ) -> Result<bool, StoreError> {
        if request.again.is_some() {
            // The peer's position in what is new does not move.
            return Ok(false);
        }
        let (peer, domain, epoch) = (request.peer, request.domain.clone(), self.context.epoch);
        let cursor = Cursor {
            peer: &peer,
            domain: &domain,
            direction: Direction::Out,
        };
        let fresh = SyncStateRow {
            epoch,
            last_seq: 0,
            acked_seq: 0,
        };
        let before = self
            .view()
            .rows
            .sync_state(cursor)?
            .filter(|state| state.epoch == epoch);
        let mut state = before.unwrap_or(fresh);
        if request.epoch == Some(epoch) {
            state.acked_seq = request.last_seq.min(self.counters.change_seq);
            state.last_seq = state.last_seq.max(state.acked_seq);
        }
        let sent_before = state.last_seq;
        if let Some(window) = sent {
            state.last_seq = window.to_seq;
        }
        let is_news = sent.is_some_and(|window| window.to_seq > sent_before);
        let is_same = before == Some(state) || (before.is_none() && state == fresh);
        let is_done = self.is_done(&peer, &domain, state.acked_seq)?;
        if is_same && !is_done {
            return Ok(is_news);
        }
        self.write(now, |graph| {
            if is_done {
                let tx = graph.tx();
                tx.remove_outbox(&peer, &domain, state.acked_seq)?;
            }
            graph.tx().put_sync_state(cursor, &state)
        })?;
        Ok(is_news)
    }

    /// Records that a peer acknowledged a push.
    pub fn record_ack(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        domain: &str,
        last_seq: u64,
    ) -> Result<(), StoreError> {
        let request = PullRequest {
            peer: *peer,
            domain: domain.to_owned(),
            last_seq,
            epoch: Some(self.context.epoch),
            again: None,
            features: Features::none(),
            whole_after: None,
        };
        self.record_sent(now, &request, None).map(|_| ())
    }
}
