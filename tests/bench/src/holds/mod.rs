//! The longest hold of the writer under packages of hostile peers and under long local work
//! (goal 9).
//!
//! A hold is the time of one job, one portion or one checkpoint on the writer thread of a whole
//! core. Invariant: each measurement has a node of its own, and ends when nothing is left to be
//! settled.

mod aside;
mod local;
mod packages;
mod wiki;

pub(crate) use local::write_many;

use anyhow::{Context as _, Result, ensure};
use harness::forge::{object, salted, sign_with_later_key};
use harness::pull::meet;
use harness::{Setup, TestNode, conversation, message, ride};
use keys::SignedObject;
use postern::object::Object;
use postern::state_engine::StateEngine;
use postern::store::{SettlingTurn, StoreError};
use tempfile::TempDir;

use crate::report::{Goal, Report};
use crate::stopwatch::median;

/// Longest hold of the writer, in milliseconds.
pub(crate) const HOLD_MS_MAX: f64 = 50.0;

/// Sizes of the measurements.
pub(crate) struct Scale<'f> {
    /// Every measurement runs this often; the median of the longest holds counts.
    pub(crate) rounds: usize,
    /// Messages of a rotation and of an ended scope.
    pub(crate) messages: usize,
    /// Rights lists, or scopes with many readers.
    pub(crate) lists: usize,
    /// Packages of small objects, which fill the write-ahead log several times.
    pub(crate) packages: usize,
    /// Peers that the node knows.
    pub(crate) crowd: usize,
    /// Part of the names of the measurements to make; `None`: all.
    pub(crate) only: Option<&'f str>,
    pub(crate) folder: &'f TempDir,
}

/// A measurement: prepares, and returns the longest hold of what follows in milliseconds.
pub(crate) type Measurement = fn(&Scale<'_>) -> Result<f64>;

/// Measures everything.
pub(crate) fn run(scale: &Scale<'_>, report: &mut Report) -> Result<()> {
    report.heading("Longest hold of the writer (goal 9)");
    // The threads of reads belong to it.
    let runtime = tokio::runtime::Runtime::new()?;
    let _entered = runtime.enter();
    let all: [(&str, Measurement); 29] = [
        ("1,000 revisions, 64 objects wait", packages::later_key),
        ("100 revisions, nine helpers", packages::helpers),
        ("4,096 forged objects", packages::forged),
        ("4,096 objects against the schema", packages::faulty),
        ("full package of wrong key chains", packages::wrong_chains),
        ("full package of long key chains", packages::long_chains),
        ("packages of 4,096 small objects", packages::small_objects),
        ("package of the largest objects", packages::largest_objects),
        ("package of objects of 256 values", local::many_values),
        ("package of conversations of 64", packages::conversations),
        ("1,000 objects wait for one", packages::arrival),
        ("package that names 1,024 scopes", packages::named_scopes),
        ("key rotation of many messages", local::rotation),
        (
            "key rotation of the largest objects",
            local::largest_rotation,
        ),
        ("restamping of the largest objects", local::restamp_sheets),
        ("restamping of the largest values", local::restamp_scrolls),
        ("bit of a new domain in many objects", local::flag_pages),
        ("bit in the largest objects", local::flag_sheets),
        ("drop of an ended scope", local::ended_scope),
        ("drop of the largest objects", local::largest_ended),
        ("returned objects of 256 values", local::returned),
        ("4,096 tombstones, 64 versions wait", aside::tombstones),
        ("256 tombstones, 64 versions wait each", aside::deletions),
        ("4,096 objects without room", aside::no_room),
        ("1,000 objects wait, 250 scopes again", aside::release),
        ("100 peers released, 256 scopes each", aside::crowd_released),
        ("100 peers expired, 256 scopes each", aside::expired),
        ("overruled deletion, 5,000 peers", aside::overruled),
        ("forgetting of 25 full peers", aside::forgotten),
    ];
    measure(scale, report, &all)
}

/// Runs measurements, and reports the median of the longest holds of each.
pub(crate) fn measure(
    scale: &Scale<'_>,
    report: &mut Report,
    all: &[(&str, Measurement)],
) -> Result<()> {
    let is_chosen = |name: &str| scale.only.is_none_or(|only| name.contains(only));
    for (name, measure) in all.iter().filter(|(name, _)| is_chosen(name)) {
        eprintln!("{name}");
        let holds = (0..scale.rounds).map(|_| measure(scale));
        let holds = holds.collect::<Result<Vec<_>>>()?;
        report.goal(name, median(holds), "ms", Goal::AtMost(HOLD_MS_MAX));
    }
    Ok(())
}

/// The node that is measured, and a peer that it has met.
pub(crate) struct Pair {
    pub(crate) node: TestNode,
    pub(crate) peer: TestNode,
}

impl Pair {
    fn new(scale: &Scale<'_>) -> Result<Self> {
        Self::with(scale, |setup| setup)
    }

    /// A pair of nodes that are set up alike.
    pub(crate) fn with(scale: &Scale<'_>, change: impl Fn(Setup) -> Setup) -> Result<Self> {
        let folder = TempDir::new_in(scale.folder.path())?;
        let setup = Setup::new("node").readers(2).folder(folder);
        let (node, peer) = (change(setup).node(), change(Setup::new("peer")).node());
        meet(&node, &peer);
        Ok(Self { node, peer })
    }

    /// Sends objects to the node.
    pub(crate) fn push(&self, domain: &str, objects: Vec<SignedObject>) -> Result<()> {
        let count = objects.len();
        let applied = self.peer.force(&self.node, domain, objects);
        let applied = applied.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        ensure!(applied.objects == count, "{applied:?}");
        Ok(())
    }

    /// Milliseconds of the longest hold during `work` and until nothing is left to be settled.
    pub(crate) fn hold(&self, work: impl FnOnce(&Self) -> Result<()>) -> Result<f64> {
        self.settle();
        self.node.engine.holds().take_longest();
        work(self)?;
        self.settle();
        Ok(1e3 * self.node.engine.holds().take_longest().as_secs_f64())
    }

    pub(crate) fn settle(&self) {
        while self
            .node
            .read(|view| view.rows.next_settling(SettlingTurn::Others))
            .is_some()
        {}
        // A checkpoint may follow the last job.
        let nothing = |_: &mut StateEngine, _| Ok::<_, StoreError>(());
        let done = self.node.write(nothing);
        debug_assert!(done.is_ok(), "a job that does nothing");
    }

    /// Ride `number` of the peer.
    fn ride(&self, number: usize) -> Object {
        let salt = (number as u64).to_be_bytes();
        let attrs = Some(ride("Bern", 1));
        salted(("rides", 1), salt, self.peer.identity, 1, attrs)
    }

    /// Rides that no known key of the peer's identity signed.
    fn rides_under_a_later_key(&self, count: usize) -> Vec<SignedObject> {
        let sign = |number| sign_with_later_key(&self.ride(number));
        (0..count).map(sign).collect()
    }

    /// Revisions of the peer's identity.
    fn revisions(&self, count: usize) -> Result<Vec<SignedObject>> {
        let stored = self.peer.object("identities", self.peer.identity);
        let (record, _) = stored.context("no record")?;
        let revision = |number: usize| {
            self.peer.sign(&Object {
                rev: record.rev + 1 + number as u64,
                ..record.clone()
            })
        };
        Ok((0..count).map(revision).collect())
    }
}

/// A conversation of the peer with the node, and one message in it for each body.
fn talk(pair: &Pair, bodies: impl Iterator<Item = String>) -> (SignedObject, Vec<SignedObject>) {
    let owner = pair.peer.identity;
    let people = conversation(&[owner, pair.node.identity]);
    let talk = object("messages", 1, 7, owner, 1, Some(people));
    let message = |(number, body): (usize, String)| {
        let (salt, attrs) = ((number as u64).to_be_bytes(), message(talk.oid, &body));
        let message = salted(("messages", 2), salt, owner, 1, Some(attrs));
        pair.peer.sign(&message)
    };
    let messages = bodies.enumerate().map(message).collect();
    (pair.peer.sign(&talk), messages)
}
