//! `bench graph`: goals 3 to 5 where they depend on the graph, and the writer's holds of goal 9.
//!
//! Measures a delta in a large store, a pull that finds little or nothing of what changed, and a
//! send among many conversations.
//! Uses no network. Invariant: both sides of a ratio run in turns in every round.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use bastion::Features;
use clap::Args;
use postern::op_context::Timestamp;
use postern::services::messages;
use postern::state_engine::{PullReply, PullRequest, StateEngine, View};
use postern::store::ReadStore;
use tempfile::TempDir;

use crate::holds;
use crate::holds_rights;
use crate::machine;
use crate::members;
use crate::nodes::{DOMAIN, Node, PairWriter, START};
use crate::report::{Goal, Report};
use crate::stopwatch::{Stopwatch, median};

/// Changed messages that the peer may read.
const READABLE: usize = 100;

/// Rounds of the longest hold of the writer.
const HOLD_ROUNDS: usize = 5;

/// Size of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Number of messages in the large store.
    #[arg(long, default_value_t = 100_000)]
    messages: usize,
    /// Number of rounds; every side runs once per round.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Smallest size of everything: shows that the benchmark runs, not for figures.
    #[arg(long)]
    tiny: bool,
    /// 1,000,000 messages in the large store, which takes minutes and gigabytes.
    #[arg(long, conflicts_with = "tiny")]
    large: bool,
    /// Measure the longest hold of the writer alone.
    #[arg(long)]
    holds: bool,
    /// Measure only the holds whose name contains this.
    #[arg(long, value_name = "TEXT", requires = "holds")]
    only: Option<String>,
    /// Folder for the databases, on the disk to measure.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// The resolved options, and the temporary folder.
pub(crate) struct Scale {
    messages: usize,
    pub(crate) rounds: usize,
    /// Conversations in the store with many.
    pub(crate) scopes: [usize; 2],
    folder: TempDir,
}

/// Runs all parts of the benchmark.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let folder = match &options.dir {
        Some(folder) => TempDir::new_in(folder),
        None => TempDir::new(),
    };
    let scale = Scale {
        messages: match (options.tiny, options.large) {
            (true, _) => 1000,
            (_, true) => 1_000_000,
            _ => options.messages,
        },
        rounds: if options.tiny { 3 } else { options.rounds },
        scopes: if options.tiny {
            [50, 100]
        } else {
            [10_000, 100_000]
        },
        folder: folder.context("no folder for the databases")?,
    };
    ensure!(scale.messages >= 1000, "at least 1,000 messages are needed");
    report.fact("messages", &scale.messages.to_string());
    report.fact("rounds", &scale.rounds.to_string());
    if !options.holds {
        selective(&scale, report)?;
        quiet(&scale, report)?;
        send(&scale, report)?;
        members::run(&scale, report)?;
    }
    let holds = holds::Scale {
        rounds: if options.tiny {
            1
        } else {
            scale.rounds.min(HOLD_ROUNDS)
        },
        messages: if options.tiny { 300 } else { 30_000 },
        lists: if options.tiny { 8 } else { 256 },
        packages: if options.tiny { 1 } else { 20 },
        crowd: if options.tiny { 200 } else { 5000 },
        only: options.only.as_deref(),
        folder: &scale.folder,
    };
    holds::run(&holds, report)?;
    holds_rights::run(&holds, report)?;
    report.fact("load after", &machine::load());
    Ok(())
}

/// Alice's store. Bob reads some of it, Carol the rest.
pub(crate) struct Graph {
    pub(crate) alice: Node,
    pub(crate) bob: Node,
    pub(crate) carol: Node,
    pub(crate) core: StateEngine,
    reader: ReadStore,
}

impl Graph {
    pub(crate) fn make(scale: &Scale, name: &str) -> Result<Self> {
        let (alice, bob, carol) = (Node::new(1)?, Node::new(2)?, Node::new(3)?);
        let open = |node: &Node, of: &str| {
            let file = format!("{name}-{of}.db");
            node.open_with(&scale.folder.path().join(file), 4096)
        };
        let mut core = open(&alice, "alice")?;
        alice.publish(&mut core)?;
        for (node, of) in [(&bob, "bob"), (&carol, "carol")] {
            let mut other = open(node, of)?;
            node.publish(&mut other)?;
            alice.meet(&mut core, node, &other)?;
        }
        Ok(Self {
            reader: core.reader()?,
            alice,
            bob,
            carol,
            core,
        })
    }

    fn head(&self) -> Result<u64> {
        Ok(self.core.view().head()?)
    }

    /// Seconds of Bob's pull after `last_seq`, and the objects that it brings.
    fn pull(&mut self, last_seq: u64) -> Result<(f64, usize)> {
        let request = PullRequest {
            peer: self.bob.peer_id(),
            domain: DOMAIN.to_owned(),
            last_seq,
            epoch: Some(self.core.context().epoch),
            again: None,
            features: Features::none(),
            whole_after: None,
        };
        let (context, mut watch) = (self.core.context(), Stopwatch::default());
        let reader = &mut self.reader;
        let reply = watch.run(|| {
            reader.snapshot(|rows| anyhow::Ok(View { rows, context }.build_package(&request)?))
        })?;
        let objects = match reply {
            PullReply::Package { objects, .. } => objects,
            PullReply::UpToDate { .. } => 0,
        };
        Ok((watch.seconds(), objects))
    }
}

/// Goals 3 and 4: Bob may read 100 of all changed messages, in 100 conversations.
fn selective(scale: &Scale, report: &mut Report) -> Result<()> {
    let store = |name: &str, others: usize| {
        eprintln!("a store of {others} messages");
        let mut graph = Graph::make(scale, name)?;
        let mut bobs = PairWriter::new(&graph.alice, &graph.bob, &graph.core)?;
        let mut carols = PairWriter::new(&graph.alice, &graph.carol, &graph.core)?;
        bobs.converse(&mut graph.core, READABLE)?;
        carols.converse(&mut graph.core, (others / 100).max(1))?;
        let before = graph.head()?;
        for _ in 0..READABLE {
            carols.write(&mut graph.core, others / READABLE)?;
            bobs.write(&mut graph.core, 1)?;
        }
        // A delta at the end: of Bob's messages alone.
        let middle = graph.head()?;
        bobs.write(&mut graph.core, READABLE)?;
        anyhow::Ok((graph, before, middle))
    };
    let (mut alone, alone_before, alone_middle) = store("alone", 0)?;
    let (mut mixed, mixed_before, mixed_middle) = store("mixed", scale.messages)?;
    let mut costs = Vec::new();
    for _ in 0..scale.rounds {
        let delta = (alone.pull(alone_middle)?, mixed.pull(mixed_middle)?);
        let all = (alone.pull(alone_before)?, mixed.pull(mixed_before)?);
        ensure!(
            delta.0.1 == READABLE && delta.1.1 == READABLE,
            "{delta:?} instead of {READABLE} objects"
        );
        ensure!(
            all.0.1 == all.1.1,
            "{all:?}: both stores hold the same for Bob"
        );
        costs.push((delta, all));
    }
    report.heading(&format!(
        "Build a pull of {READABLE} and {} of {} changed messages (goals 3 and 4)",
        2 * READABLE,
        scale.messages
    ));
    let at = |pick: fn(&Costs) -> f64| 1e3 * median(costs.iter().map(pick));
    report.value("the last 100, alone", at(|(delta, _)| delta.0.0), "ms");
    report.value(
        "the last 100, after all others",
        at(|(delta, _)| delta.1.0),
        "ms",
    );
    report.value("200 alone", at(|(_, all)| all.0.0), "ms");
    report.value("200 among all others", at(|(_, all)| all.1.0), "ms");
    let ratio = |pick: fn(&Costs) -> f64| median(costs.iter().map(pick));
    let delta = ratio(|(delta, _)| delta.1.0 / delta.0.0);
    report.goal("delta, large / small store", delta, "", Goal::AtMost(1.2));
    let selective = ratio(|(_, all)| all.1.0 / all.0.0);
    report.goal("selective delta / alone", selective, "", Goal::AtMost(1.5));
    Ok(())
}

/// Seconds and objects of a pull, in the store without and with other messages.
type Sides = ((f64, usize), (f64, usize));
/// The delta at the end, and everything that Bob may read.
type Costs = (Sides, Sides);

/// Goal 4: nothing new for a reader of many scopes, and for one who may read nothing.
fn quiet(scale: &Scale, report: &mut Report) -> Result<()> {
    report.heading("Build a pull that finds nothing, after 10,000 changes (goal 4)");
    let changes = 10_000.min(scale.messages);
    for (scopes, goal) in scale.scopes.into_iter().zip([0.1, 0.3]) {
        eprintln!("a store of {scopes} conversations");
        let mut graph = Graph::make(scale, &format!("quiet-{scopes}"))?;
        let mut bobs = PairWriter::new(&graph.alice, &graph.bob, &graph.core)?;
        let mut carols = PairWriter::new(&graph.alice, &graph.carol, &graph.core)?;
        bobs.converse(&mut graph.core, scopes)?;
        carols.converse(&mut graph.core, 100)?;
        let before = graph.head()?;
        carols.write(&mut graph.core, changes)?;
        let costs = (0..scale.rounds).map(|_| {
            let (seconds, objects) = graph.pull(before)?;
            ensure!(objects == 0, "{objects} objects, but nothing is readable");
            Ok(seconds)
        });
        let costs = costs.collect::<Result<Vec<_>>>()?;
        let name = format!("reader of {scopes} scopes");
        report.goal(&name, 1e3 * median(costs), "ms", Goal::AtMost(goal));
    }
    Ok(())
}

/// Goal 5: a durable send among many conversations of the same two identities.
fn send(scale: &Scale, report: &mut Report) -> Result<()> {
    let store = |name: &str, conversations: usize| {
        eprintln!("a store of {conversations} conversations of two");
        let mut graph = Graph::make(scale, name)?;
        let mut writer = PairWriter::new(&graph.alice, &graph.bob, &graph.core)?;
        writer.converse(&mut graph.core, conversations)?;
        anyhow::Ok((graph, writer.pair()))
    };
    let many = scale.scopes[0];
    let (mut few, pair) = store("send-few", 10)?;
    let (mut lots, _) = store("send-many", many)?;
    let mut costs = Vec::new();
    for _ in 0..scale.rounds {
        let once = |graph: &mut Graph| {
            let mut watch = Stopwatch::default();
            for _ in 0..32 {
                watch.run(|| {
                    graph.core.write(Timestamp(START), |graph| {
                        messages::send(graph, pair.0, pair.1, "a message of some words")
                    })
                })?;
            }
            anyhow::Ok(watch.seconds() / 32.0)
        };
        costs.push((once(&mut few)?, once(&mut lots)?));
    }
    report.heading(&format!(
        "Send durably among {many} conversations of the same two, and among 10 (goal 5)"
    ));
    report.value("among 10", 1e6 * median(costs.iter().map(|it| it.0)), "us");
    report.value(
        "among many",
        1e6 * median(costs.iter().map(|it| it.1)),
        "us",
    );
    let ratio = median(costs.iter().map(|it| it.1 / it.0));
    report.goal("send, many / few", ratio, "", Goal::AtMost(1.2));
    Ok(())
}
