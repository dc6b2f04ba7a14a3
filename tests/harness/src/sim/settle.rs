//! The end of a run: the links are healthy, every node runs, and nothing changes any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postern::store::WriteMode;

use super::net::Weather;
use super::scenario::Feature;
use super::world::{NodeState, World};

/// Virtual time without a change after which nothing is expected to change: longer than every
/// timer of a session.
const STILL: Duration = Duration::from_secs(100);
/// Most periods of [`STILL`] until nothing changes.
const PERIODS_MAX: usize = 60;
/// Most days for which a recovery may wait for a peer, and one more.
const RECOVERY_DAYS_MAX: usize = 4;
/// Most days until a day changes nothing.
const DAYS_MAX: usize = 12;
/// The last change of a node, and the number of rows in each table.
type State = (u64, BTreeMap<String, usize>);

/// Seconds after which every object that waits has expired: 31 days and an hour.
pub(super) const EXPIRY_S: u64 = (31 * 24 + 1) * 3600;

impl World {
    /// Heals everything and waits until nothing changes, also not on the next day.
    pub(super) async fn settle(&mut self) -> Result<(), String> {
        self.end_crashes().await;
        self.net.reset_all(Weather::CALM);
        self.keep_apart();
        self.upgrade_all().await;
        for number in 0..self.nodes.len() {
            if matches!(self.nodes[number].state, NodeState::Down(_)) {
                self.start(number);
            }
        }
        self.end_verdicts();
        self.become_still().await?;
        self.end_apart().await?;
        while self.resolve_read_only().await {
            self.become_still().await?;
        }
        self.end_recoveries().await?;
        self.end_moves();
        self.write_lost_identities();
        self.become_still().await?;
        for number in 0..self.nodes.len() {
            let mode = self.up(number).unwrap().write_mode();
            if mode != WriteMode::ReadWrite {
                return Err(format!("node {number} is {mode:?} in the end"));
            }
        }
        if self.has(Feature::LongQuiet) {
            self.pass_days(EXPIRY_S).await?;
        }
        self.pass_days(25 * 3600).await
    }

    /// Lets the nodes meet that were apart. The objects that other nodes relay must have arrived
    /// before, if nothing needs days.
    async fn end_apart(&mut self) -> Result<(), String> {
        let needs_days = [
            Feature::Restores,
            Feature::Rollbacks,
            Feature::SmallRoom,
            Feature::Purges,
        ];
        if !needs_days.into_iter().any(|feature| self.has(feature)) {
            self.check_all_relayed()?;
        }
        if self.apart.is_empty() {
            return Ok(());
        }
        self.apart.clear();
        self.net.reset_all(Weather::CALM);
        self.become_still().await
    }

    /// Lets days pass until no node recovers. A recovery waits some days for a peer that never
    /// comes back, such as the hostile one.
    async fn end_recoveries(&mut self) -> Result<(), String> {
        for _ in 0..RECOVERY_DAYS_MAX {
            let nodes = 0..self.nodes.len();
            let mut modes = nodes.map(|number| self.up(number).unwrap().write_mode());
            if modes.all(|mode| mode == WriteMode::ReadWrite) {
                break;
            }
            self.pass_at_once(25 * 3600).await;
            self.net.reset_all(Weather::CALM);
            self.become_still().await?;
        }
        Ok(())
    }

    /// Lets days pass without links, and then one after another, with some work after each, until
    /// a day changes nothing.
    async fn pass_days(&mut self, first_s: u64) -> Result<(), String> {
        let mut before = Vec::new();
        for day in 0..DAYS_MAX {
            before = self.state();
            let seconds = if day == 0 { first_s } else { 25 * 3600 };
            self.pass_at_once(seconds).await;
            self.net.reset_all(Weather::CALM);
            self.become_still().await?;
            if self.state() == before {
                return Ok(());
            }
        }
        let mut change = String::new();
        for (number, (before, after)) in before.iter().zip(self.state()).enumerate() {
            if *before != after {
                change = format!("node {number} from {before:?} to {after:?}");
            }
        }
        Err(format!(
            "the nodes still change after {DAYS_MAX} days: {change}"
        ))
    }

    /// Waits until all links have sessions and nothing changes.
    async fn become_still(&mut self) -> Result<(), String> {
        let mut before = None;
        for _ in 0..PERIODS_MAX {
            // The longest interval of maintenance is an hour, in which nothing else happens.
            self.maintain().await;
            self.pass(STILL).await;
            let state = (self.state(), self.without_session());
            if state.1.is_empty() && before.as_ref() == Some(&state) {
                return Ok(());
            }
            before = Some(state);
        }
        let missing = self.without_session();
        Err(format!(
            "the nodes do not become still; links without a session: {missing:?}"
        ))
    }

    /// Linked nodes that meet, without a session.
    fn without_session(&self) -> BTreeSet<(usize, usize)> {
        let has_session = |(one, other): &&(usize, usize)| {
            let (one, other) = (self.up(*one).unwrap(), self.up(*other).unwrap());
            one.has_session(&other.peer_id()) && other.has_session(&one.peer_id())
        };
        let links = self.links.difference(&self.apart);
        links.filter(|link| !has_session(link)).copied().collect()
    }

    /// For each node its last change and the number of rows in each table.
    fn state(&self) -> Vec<State> {
        let nodes = 0..self.nodes.len();
        nodes
            .map(|number| {
                let node = self.up(number).unwrap();
                let rows = node
                    .dump()
                    .into_iter()
                    .map(|(name, rows)| (name, rows.len()));
                (node.head(), rows.collect())
            })
            .collect()
    }

    /// The operator of each read-only node says that no other copy of it runs. Returns whether
    /// there was one.
    async fn resolve_read_only(&mut self) -> bool {
        let mut is_any = false;
        for number in 0..self.nodes.len() {
            let node = self.up(number).unwrap();
            if node.write(|core, _| core.resolve_read_only()).unwrap() {
                is_any = true;
                self.stop(number).await;
                self.start(number);
            }
        }
        is_any
    }

    /// Writes the records of identities again that a restore has lost for good.
    fn write_lost_identities(&mut self) {
        if !self.has(Feature::Restores) && !self.has(Feature::Rollbacks) {
            return;
        }
        for number in 0..self.nodes.len() {
            for identity in self.memory.people_at(number) {
                let node = self.up(number).unwrap();
                if node.home_of(identity) != Some(node.peer_id()) {
                    let person = self.memory.people.get_mut(&identity).unwrap();
                    person.published = false;
                    self.publish_identity(number, identity);
                }
            }
        }
    }
}
