//! Watching: the first of several domains in which a peer has news (docs/PROTOCOL.md 4).
//!
//! Reads one committed state. Invariants: news comes before the empty package of a quiet stretch. A
//! domain that cannot be built keeps no other from its news. All looks together examine the entries
//! of one pull, and a batch of each domain more.

use keys::PeerId;

use super::build::{PullReply, PullRequest};
use super::collect::BuildError;
use super::engine::StateEngine;
use super::view::View;
use crate::op_context::Timestamp;
use crate::store::{Direction, StoreError};

/// The result of one look at several domains.
#[derive(Debug, Default)]
pub struct WatchLook {
    /// The request of the domain that has something, and its package.
    pub package: Option<(PullRequest, PullReply)>,
    /// Domains whose package could not be built, each with the fault of this node.
    pub failed: Vec<(String, BuildError)>,
}

impl View<'_> {
    /// Looks at one domain after the other, and builds the package of the first that has news.
    pub fn look_at_all(&self, requests: Vec<PullRequest>) -> WatchLook {
        let mut entries_left = self.context.limits.entries_max;
        let (mut failed, mut quiet) = (Vec::new(), None);
        let mut news = None;
        for request in requests {
            let look = match self.look(&request, entries_left.max(1)) {
                Ok(look) => look,
                Err(error) => {
                    failed.push((request.domain, error));
                    continue;
                }
            };
            entries_left = entries_left.saturating_sub(look.examined);
            match look.found {
                Some(answer) if answer.has_news() => {
                    news = Some((request, answer));
                    break;
                }
                Some(answer) => {
                    quiet.get_or_insert((request, answer));
                }
                None => {}
            }
        }
        let package = news.or(quiet).map(|(request, answer)| {
            let package = self.reply(&request, answer);
            (request, package)
        });
        WatchLook { package, failed }
    }

    /// The requests of a peer whose cursor is another than the one that this node has recorded. All
    /// count in this node's epoch. None is of a domain outside the intersection.
    pub fn moved_cursors(
        &self,
        peer: &PeerId,
        requests: Vec<PullRequest>,
    ) -> Result<Vec<PullRequest>, StoreError> {
        let (epoch, head) = (self.context.epoch, self.head()?);
        let shared = self.rows.peer(peer)?.map(|peer| peer.domains);
        let shared = shared.unwrap_or_default();
        let mut moved = Vec::new();
        for request in requests {
            if !shared.contains(&request.domain) {
                continue;
            }
            let state = self.cursor(peer, &request.domain, Direction::Out)?;
            let state = state.filter(|state| state.epoch == epoch);
            let recorded = state.map_or(0, |state| state.acked_seq);
            if recorded != request.last_seq.min(head) {
                moved.push(request);
            }
        }
        Ok(moved)
    }
}

impl StateEngine {
    /// Records what a peer acknowledged of several domains.
    pub fn record_acks(
        &mut self,
        now: Timestamp,
        requests: &[PullRequest],
    ) -> Result<(), StoreError> {
        for request in requests {
            self.record_sent(now, request, None)?;
        }
        Ok(())
    }
}
