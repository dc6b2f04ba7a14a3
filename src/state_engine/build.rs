//! Packages out: what changed since `last_seq` (docs/STORY.md 2.1 steps 2-7, 4, 6.2, 7.1).
//!
//! Reads one committed state. Invariants: a package contains and mentions only rows that the peer
//! may read. A domain outside the intersection looks like an empty one. Change groups are whole,
//! and every row up to `to_seq` was scanned. Tested in `tests/core/windows.rs`.

use keys::protocol::PACKAGE_VERSION;
use keys::{Epoch, Oid, PeerId, SignedObject};

use super::engine::StateEngine;
use super::package::{Package, Window};
use super::view::View;
use crate::graph::load_object;
use crate::op_context::Timestamp;
use crate::store::{Changed, Cursor, Direction, Selection, StoreError, SyncStateRow};

/// Length of a stretch of changes, none readable by the peer, from which an empty package moves the
/// cursor past it. Scanning a shorter stretch again costs less than a package.
const QUIET_STRETCH: u64 = 1024;

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
    /// Scopes that the peer pulls again; an empty list: the whole domain. `None`: what is new.
    pub again: Option<Vec<Oid>>,
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

/// Why no package could be built. The cause is always this node, not the peer.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One change group is larger than the limits of a package.
    #[error("the change group {change_seq} has {bytes} bytes and fits no package")]
    GroupTooLarge {
        /// The `change_seq` of the group.
        change_seq: u64,
        /// Encoded bytes of the group.
        bytes: usize,
    },
}

/// The objects of a package under construction.
#[derive(Default)]
struct Collected {
    objects: Vec<SignedObject>,
    bytes: usize,
    last_group: u64,
    full: bool,
}

impl View<'_> {
    /// Builds the reply to a pull, or the package to push (docs/STORY.md 5: "build package since
    /// last_seq").
    pub fn build_package(&self, request: &PullRequest) -> Result<PullReply, BuildError> {
        let last_seq = match request.epoch {
            Some(epoch) if epoch != self.context.epoch => 0,
            _ => request.last_seq,
        };
        let peer = self.rows.peer(&request.peer)?;
        let in_intersection = peer.is_some_and(|peer| peer.domains.contains(&request.domain));
        let domain = self
            .context
            .schemas
            .domain(&request.domain)
            .filter(|_| in_intersection);
        let up_to_date = PullReply::UpToDate {
            last_seq: request.last_seq,
            in_intersection,
        };
        let Some(domain) = domain else {
            return Ok(up_to_date);
        };
        let head = self.head()?;
        if head <= last_seq {
            return Ok(up_to_date);
        }
        let app = self
            .rows
            .apps()
            .get(&domain.app)
            .ok_or(StoreError::Inconsistent("a domain without tables"))?;
        let selection = Selection {
            mask: self.rows.apps().mask(&domain.name),
            peer: &request.peer,
            after: last_seq,
        };
        let mut collected = Collected::default();
        let scanned = self.rows.walk_changed(app, selection, head, |group| {
            self.collect(app, group, &mut collected)
        })?;
        let to_seq = if collected.full {
            collected.last_group
        } else {
            scanned
        };
        if collected.objects.is_empty() && to_seq - last_seq < QUIET_STRETCH {
            return Ok(up_to_date);
        }
        let window = Window {
            from_seq: if last_seq == 0 { 0 } else { last_seq + 1 },
            to_seq,
        };
        let package = Package {
            more: to_seq < scanned || collected.full || scanned < head,
            epoch: self.context.epoch,
            domain: domain.name.clone(),
            sender: self.this_node(),
            to_seq,
            objects: collected.objects,
            version: PACKAGE_VERSION,
            from_seq: window.from_seq,
            recipient: request.peer,
        };
        let (objects, more) = (package.objects.len(), package.more);
        Ok(PullReply::Package {
            window,
            objects,
            more,
            bytes: package.sign(&self.context.keys),
        })
    }

    /// Adds a whole change group, or stops before it if it does not fit.
    fn collect(
        &self,
        app: &crate::store::AppTable,
        group: &[crate::store::ParentRow],
        collected: &mut Collected,
    ) -> Result<Changed, BuildError> {
        let limits = &self.context.limits.package;
        let mut objects = Vec::with_capacity(group.len());
        let mut bytes = 0;
        for parent in group {
            let (_, signed) = load_object(&self.rows, app, parent)?;
            bytes += Package::object_bytes(&signed);
            objects.push(signed);
        }
        let change_seq = group.first().map_or(0, |parent| parent.change_seq);
        let bytes_left = limits
            .bytes_max
            .saturating_sub(Package::EMPTY_BYTES_MAX + collected.bytes);
        if bytes > bytes_left || collected.objects.len() + objects.len() > limits.objects_max {
            if collected.objects.is_empty() {
                return Err(BuildError::GroupTooLarge { change_seq, bytes });
            }
            collected.full = true;
            return Ok(Changed::Enough);
        }
        collected.bytes += bytes;
        collected.objects.append(&mut objects);
        collected.last_group = change_seq;
        let is_full = collected.objects.len() == limits.objects_max;
        Ok(if is_full {
            Changed::Enough
        } else {
            Changed::More
        })
    }
}

impl StateEngine {
    /// Records what the peer acknowledged and what was sent to it (docs/STORY.md 2.1 step 7).
    /// Writes only if one of them changed.
    pub fn record_sent(
        &mut self,
        now: Timestamp,
        request: &PullRequest,
        sent: Option<Window>,
    ) -> Result<(), StoreError> {
        if request.again.is_some() {
            // The peer's position in what is new does not move.
            return Ok(());
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
        if let Some(window) = sent {
            state.last_seq = window.to_seq;
        }
        if before == Some(state) || (before.is_none() && state == fresh) {
            return Ok(());
        }
        self.write(now, |graph| graph.tx().put_sync_state(cursor, &state))
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
        };
        self.record_sent(now, &request, None)
    }
}
