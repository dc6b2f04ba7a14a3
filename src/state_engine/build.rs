//! Packages out: the answer to "what changed since `last_seq`" (docs/STORY.md 2.1 steps 2-7, 4, 6.2, 7.1).
//!
//! Reads one committed state. Never includes a row that the peer may not read, and never says that one exists. A domain
//! outside the intersection is answered like an empty one. Invariant: change groups are whole; `to_seq` was scanned.

use keys::{Epoch, PeerId, SignedObject};

use super::engine::StateEngine;
use super::package::{Package, VERSION, Window};
use super::view::View;
use crate::graph::load_object;
use crate::op_context::Timestamp;
use crate::store::{Changed, Cursor, Direction, Selection, StoreError, SyncStateRow};

/// A stretch of changes of which the peer may read none is passed over by an empty package once it is this long;
/// shorter ones are scanned again, which costs less than a package.
const QUIET_STRETCH: u64 = 1024;

/// A pull, as asked (SEED: `peer_id`, `domain`, `last_seq`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// Who asks.
    pub peer: PeerId,
    /// The domain.
    pub domain: String,
    /// What the peer has, up to and including.
    pub last_seq: u64,
    /// The epoch in which `last_seq` counts; none at the first pull.
    pub epoch: Option<Epoch>,
}

/// The answer to a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullReply {
    /// Nothing new: the peer stays where it is.
    UpToDate {
        /// As asked.
        last_seq: u64,
        /// Whether the peer may sync this domain at all; it is told the same either way.
        in_intersection: bool,
    },
    /// A signed package.
    Package {
        /// Its window.
        window: Window,
        /// How many objects it holds.
        objects: usize,
        /// Whether a further window is ready.
        more: bool,
        /// COSE_Sign1, as sent.
        bytes: Vec<u8>,
    },
}

/// Why no package could be built. The operator's or our own fault, never the peer's.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One change group is larger than a package may be.
    #[error("the change group {change_seq} has {bytes} bytes and fits no package")]
    GroupTooLarge {
        /// The group.
        change_seq: u64,
        /// Its size.
        bytes: usize,
    },
}

#[derive(Default)]
struct Collected {
    objects: Vec<SignedObject>,
    bytes: usize,
    last_group: u64,
    full: bool,
}

impl View<'_> {
    /// Answers a pull, or makes what is to be pushed (docs/STORY.md 5: "build package since last_seq").
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
            version: VERSION,
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

    /// Adds a whole change group, or stops before it.
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
        let room = limits
            .bytes_max
            .saturating_sub(Package::EMPTY_BYTES_MAX + collected.bytes);
        if bytes > room || collected.objects.len() + objects.len() > limits.objects_max {
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
    /// Notes what the peer is known to hold, and what was sent to it (docs/STORY.md 2.1 step 7). Writes only what changes.
    pub fn record_sent(
        &mut self,
        now: Timestamp,
        request: &PullRequest,
        sent: Option<Window>,
    ) -> Result<(), StoreError> {
        let (peer, domain, ours) = (request.peer, request.domain.clone(), self.context.epoch);
        let cursor = Cursor {
            peer: &peer,
            domain: &domain,
            direction: Direction::Out,
        };
        let fresh = SyncStateRow {
            epoch: ours,
            last_seq: 0,
            acked_seq: 0,
        };
        let before = self
            .view()
            .rows
            .sync_state(cursor)?
            .filter(|state| state.epoch == ours);
        let mut state = before.unwrap_or(fresh);
        if request.epoch == Some(ours) {
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

    /// Notes that a peer acknowledged a push.
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
        };
        self.record_sent(now, &request, None)
    }
}
