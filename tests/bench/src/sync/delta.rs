//! Goal 3: the cost of a pull of 100 new messages in a small store and in a large store.
//!
//! Writing the new messages on Alice's side is not measured. Invariant: every round uses both
//! stores, one after the other.

use std::path::Path;

use anyhow::{Result, bail};
use keys::PublicKey;
use postern::op_context::Timestamp;
use postern::state_engine::{PullReply, StateEngine, View};
use postern::store::ReadStore;

use super::{Setting, quiet};
use crate::nodes::{self, Node, Writer};
use crate::report::{Goal, Report};
use crate::stopwatch::{Stopwatch, median};

const SMALL: usize = 10_000;
const LARGE: usize = 1_000_000;
/// The larger store without `--large`.
const MIDDLE: usize = 100_000;
const CHANGED: usize = 100;
/// Number of rounds; a pull takes milliseconds.
const ROUNDS: usize = 31;
const GOAL: Goal = Goal::AtMost(1.2);

/// The cost of one pull, in seconds.
struct Cost {
    build: f64,
    note: f64,
    check: f64,
    apply: f64,
}

impl Cost {
    fn pull(&self) -> f64 {
        self.build + self.note + self.check + self.apply
    }
}

/// Two nodes with the same messages.
struct NodePair {
    alice: Node,
    bob: Node,
    alice_core: StateEngine,
    alice_reader: ReadStore,
    bob_core: StateEngine,
    key: PublicKey,
    writer: Writer,
}

pub(super) fn run(setting: &Setting, report: &mut Report) -> Result<()> {
    let size = match (setting.large, setting.messages < MIDDLE) {
        (true, _) => LARGE,
        (false, false) => MIDDLE,
        (false, true) => setting.messages,
    };
    let small_size = SMALL.min(setting.messages / 2);
    let mut small = NodePair::make(setting.folder.path(), small_size)?;
    let mut large = NodePair::make(setting.folder.path(), size)?;
    let mut costs = Vec::new();
    for _ in 0..ROUNDS {
        costs.push((small.pull()?, large.pull()?));
    }
    report.heading(&format!(
        "Pull {CHANGED} new messages, {small_size} and {size} in the store before (goal 3)"
    ));
    let middle = |side: fn(&(Cost, Cost)) -> f64| median(costs.iter().map(side));
    let ratio = |part: fn(&Cost) -> f64| {
        median(costs.iter().map(|(small, large)| part(large) / part(small)))
    };
    report.value(
        "pull, small store",
        1e3 * middle(|(small, _)| small.pull()),
        "ms",
    );
    report.value(
        "pull, large store",
        1e3 * middle(|(_, large)| large.pull()),
        "ms",
    );
    report.value(
        "  of it: select, build, sign",
        1e3 * middle(|(_, large)| large.build),
        "ms",
    );
    report.value(
        "  of it: record the sent window, durably",
        1e3 * middle(|(_, large)| large.note),
        "ms",
    );
    report.value(
        "  of it: verify, one thread",
        1e3 * middle(|(_, large)| large.check),
        "ms",
    );
    report.value(
        "  of it: apply, durably",
        1e3 * middle(|(_, large)| large.apply),
        "ms",
    );
    report.goal("pull, large / small", ratio(Cost::pull), "", GOAL);
    report.goal(
        "select, build, sign, large / small",
        ratio(|cost| cost.build),
        "",
        GOAL,
    );
    report.goal("apply, large / small", ratio(|cost| cost.apply), "", GOAL);
    let NodePair {
        alice,
        bob,
        alice_core,
        bob_core,
        ..
    } = large;
    let request = nodes::request(&bob, &bob_core, &alice)?;
    quiet::run(alice_core, &request, report)
}

impl NodePair {
    fn make(folder: &Path, size: usize) -> Result<Self> {
        eprintln!("two stores of {size} messages");
        let (alice, bob) = (Node::new(1)?, Node::new(2)?);
        let mut alice_core = alice.open(&folder.join(format!("delta-{size}-alice.db")))?;
        let mut bob_core = bob.open(&folder.join(format!("delta-{size}-bob.db")))?;
        alice.publish(&mut alice_core)?;
        bob.publish(&mut bob_core)?;
        alice.meet(&mut alice_core, &bob, &bob_core)?;
        bob.meet(&mut bob_core, &alice, &alice_core)?;
        let mut writer = Writer::new(&alice, &alice_core, &bob)?;
        writer.write(&mut alice_core, size)?;
        let key = alice.package_key()?;
        let epoch = alice_core.context().epoch;
        let request = nodes::request(&bob, &bob_core, &alice)?;
        nodes::pull_all(&alice_core.view(), request, |bytes| {
            let mut package = nodes::verify(&bytes, (&alice, epoch), &key, &bob)?;
            let checked = nodes::check(&bob_core, package.take_objects())?;
            nodes::apply(&mut bob_core, &package, checked)
        })?;
        Ok(Self {
            alice_reader: alice_core.reader()?,
            alice,
            bob,
            alice_core,
            bob_core,
            key,
            writer,
        })
    }

    /// Writes new messages without measuring, and measures their pull.
    fn pull(&mut self) -> Result<Cost> {
        self.writer.write(&mut self.alice_core, CHANGED)?;
        let (mut build, mut note) = (Stopwatch::default(), Stopwatch::default());
        let (mut check, mut apply) = (Stopwatch::default(), Stopwatch::default());
        let request = nodes::request(&self.bob, &self.bob_core, &self.alice)?;
        let context = self.alice_core.context();
        let epoch = context.epoch;
        let answer = build.run(|| {
            self.alice_reader
                .snapshot(|rows| anyhow::Ok(View { rows, context }.build_package(&request)?))
        })?;
        let PullReply::Package { window, bytes, .. } = answer else {
            bail!("nothing was new");
        };
        note.run(|| {
            self.alice_core
                .record_sent(Timestamp(0), &request, Some(window))
        })?;
        let (package, checked) = check.run(|| {
            let mut package = nodes::verify(&bytes, (&self.alice, epoch), &self.key, &self.bob)?;
            let checked = nodes::check(&self.bob_core, package.take_objects())?;
            anyhow::Ok((package, checked))
        })?;
        apply.run(|| nodes::apply(&mut self.bob_core, &package, checked))?;
        Ok(Cost {
            build: build.seconds(),
            note: note.seconds(),
            check: check.seconds(),
            apply: apply.seconds(),
        })
    }
}
