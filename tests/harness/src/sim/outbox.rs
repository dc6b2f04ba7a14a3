//! Changes that are pushed at once. The seed draws for each direction of a link which domains are,
//! beside pulls and pushes at intervals.
//!
//! A peer gets many changes twice then, and a crash may come between a commit and its push. The
//! oracle demands that in the end no node has anything left to push.

use rand::RngExt as _;

use super::scenario::Feature;
use super::world::World;

/// Domains of which a change may be pushed at once.
const DOMAINS: [&str; 4] = ["contacts", "identities", "messages", "rides.offers"];

impl World {
    /// Draws which nodes push what at once. None of them runs.
    pub(super) fn draw_outbox(&mut self) {
        if !self.has(Feature::Outbox) {
            return;
        }
        let links = self.links.clone().into_iter();
        for (from, to) in links.flat_map(|(one, other)| [(one, other), (other, one)]) {
            let mut domains = DOMAINS.map(str::to_owned).to_vec();
            domains.retain(|_| self.rng.random_bool(0.4));
            let onion = self.nodes[to].onion;
            self.change_setup(from, |mut setup| {
                setup.sync.outbox.insert(onion, domains);
                setup
            });
        }
    }

    /// A node has pushed everything that it had to push at once.
    pub(super) fn check_outbox(&self, number: usize) -> Result<(), String> {
        let rows = self.up(number).unwrap().rows("sync_outbox");
        match rows.first() {
            None => Ok(()),
            Some(row) => Err(format!("node {number} still has to push {row}")),
        }
    }
}
