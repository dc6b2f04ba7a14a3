//! One conversation of many members, of which only a few are online at a time.
//!
//! Every round draws the nodes that are online and lets them meet in pairs. The founder's node met
//! all others before the conversation, so that it knows their identities. The conversation and the
//! answers of its members spread by meetings too. Properties:
//!
//! - After a meeting both nodes have everything that either of them had.
//! - So a message reaches every member that a chain of meetings connects.
//! - Nodes that withhold records delay no other node: what they bring may wait for a record that
//!   another node has.
//!
//! [`Intermittent::transfers`] counts the bodies that travelled after the founding.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bastion::{Feature as Protocol, Features, GateConfig};
use keys::Oid;
use postern::config::SyncConfig;
use postern::graph::AcceptPolicy;
use postern::state_engine::CoreLimits;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use tokio::time::{Instant, sleep_until};

use super::hostile::gate;
use super::net::{SimNet, Weather};
use super::transfers::Transfers;
use super::world::folder;
use crate::clock::ManualClock;
use crate::live::{LiveNode, Wiring};
use crate::setup::Setup;

/// Width of the memory pipes, in bytes.
const PIPE_WIDTH: usize = 4096;
/// A meeting ends when both nodes have stored nothing for so long.
const QUIET: Duration = Duration::from_secs(100);
/// Longest meeting, in stretches of [`QUIET`].
const STRETCHES_MAX: usize = 20;
/// Chance that a node that is online writes a message.
const WRITES: f64 = 0.5;

/// How many members meet, and how often.
#[derive(Debug, Clone, Copy)]
pub struct IntermittentOptions {
    /// Members of the conversation, each with a node of its own.
    pub members: usize,
    /// Chance that a node is online in a round.
    pub online: f64,
    /// Number of rounds.
    pub rounds: usize,
    /// Members whose nodes withhold the records of identities. They are not the founder, and what
    /// they bring does not count.
    pub withholding: usize,
    /// Chance that a member that is online rotates its key. Its objects are signed again.
    pub rotates: f64,
}

/// Facts of a run without a violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intermittent {
    /// Meetings of two nodes.
    pub meetings: usize,
    /// Messages that were written.
    pub messages: usize,
    /// Messages that reached a member, summed over the members besides the author.
    pub reached: usize,
    /// Bodies of objects that arrived at nodes after the founding.
    pub transfers: Transfers,
}

impl Intermittent {
    /// Bodies that travelled for each body that a node needed.
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    pub fn ratio(&self) -> f64 {
        let sum = self.transfers.whole + self.transfers.fetched;
        let needed = sum - self.transfers.needless;
        sum as f64 / needed.max(1) as f64
    }
}

/// Runs a conversation whose members are rarely online. The error names the first violation.
pub fn intermittent(seed: u64, options: IntermittentOptions) -> Result<Intermittent, String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut square = Square::new(seed, options);
        square.found().await;
        for _ in 0..options.rounds {
            square.round().await?;
        }
        Ok(square.end())
    })
}

/// A member and what it must have.
struct Member {
    node: LiveNode,
    /// Messages that a chain of meetings brought.
    known: BTreeSet<Oid>,
    written: usize,
}

struct Square {
    rng: ChaCha20Rng,
    options: IntermittentOptions,
    net: SimNet,
    members: Vec<Member>,
    talk: Option<Oid>,
    before: Transfers,
    meetings: usize,
}

fn sync() -> SyncConfig {
    SyncConfig {
        pull_interval_s: 20,
        pull_wait_s: 45,
        push_interval_s: 0,
        backoff_s_min: 1,
        backoff_s_max: 20,
        has_jitter: false,
        ..SyncConfig::default()
    }
}

async fn pass(time: Duration) {
    sleep_until(Instant::now() + time).await;
}

impl Square {
    fn new(seed: u64, options: IntermittentOptions) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let net = SimNet::new(rng.random(), PIPE_WIDTH, Weather::CALM);
        let clock = ManualClock::following();
        let offered = [Protocol::Watch, Protocol::Relay, Protocol::Receipts];
        let offered: Features = offered.into_iter().collect();
        let mut limits = CoreLimits::default();
        limits.graph.accept = AcceptPolicy::All;
        let member = |number| {
            let setup = Setup::seeded(&format!("member {number}"), rng.random())
                .apps(&["identities", "messages"])
                .limits(limits)
                .readers(0)
                .clock(clock.clone())
                .sync(sync())
                .folder(folder());
            let wiring = Wiring {
                net: net.memory.clone(),
                transport: Arc::new(net.transport(setup.keys.onion())),
                gate: GateConfig {
                    features: offered.clone(),
                    ..gate()
                },
            };
            Member {
                node: setup.live_over(wiring),
                known: BTreeSet::new(),
                written: 0,
            }
        };
        let members: Vec<Member> = (0..options.members).map(member).collect();
        for member in &members {
            net.take_off(member.node.onion());
        }
        for member in members.iter().rev().take(options.withholding) {
            net.withhold_records(member.node.onion());
        }
        Self {
            rng,
            options,
            net,
            members,
            talk: None,
            before: Transfers::default(),
            meetings: 0,
        }
    }

    /// The founder's node meets all others, then founds the conversation.
    async fn found(&mut self) {
        for other in 1..self.members.len() {
            self.connect(0, other).await;
            self.disconnect(0, other).await;
        }
        let others = self.members[1..].iter().map(|it| it.node.identity);
        let others: Vec<Oid> = others.collect();
        let founder = &mut self.members[0];
        let talk = founder.node.found(&others, "all of us");
        founder.known.insert(talk);
        self.talk = Some(talk);
        self.before = self.net.tally.sum();
    }

    async fn connect(&self, one: usize, other: usize) {
        let (one, other) = (&self.members[one].node, &self.members[other].node);
        self.net.put_on(one.onion());
        self.net.put_on(other.onion());
        one.meet(other).await;
        let heads = || {
            one.settle();
            other.settle();
            (one.head(), other.head())
        };
        let mut before = None;
        for _ in 0..STRETCHES_MAX {
            let now = heads();
            if before.replace(now) == Some(now) {
                return;
            }
            pass(QUIET).await;
        }
    }

    async fn disconnect(&self, one: usize, other: usize) {
        let (one, other) = (&self.members[one].node, &self.members[other].node);
        self.net.take_off(one.onion());
        self.net.take_off(other.onion());
        one.wait_for_session_end(&other.peer_id()).await;
        other.wait_for_session_end(&one.peer_id()).await;
    }

    async fn round(&mut self) -> Result<(), String> {
        let mut online: Vec<usize> = (0..self.members.len())
            .filter(|_| self.rng.random_bool(self.options.online))
            .collect();
        online.shuffle(&mut self.rng);
        for number in online.iter().copied() {
            if self.rng.random_bool(WRITES) {
                self.write(number);
            }
            if self.rng.random_bool(self.options.rotates) {
                let node = &self.members[number].node;
                node.rotate_with(node.identity, &mut self.rng).unwrap();
            }
        }
        for pair in online.chunks_exact(2) {
            self.meeting(pair[0], pair[1]).await?;
        }
        // The others are offline for some hours.
        pass(Duration::from_secs(3 * 60 * 60)).await;
        Ok(())
    }

    /// A member writes, if it has the conversation.
    fn write(&mut self, number: usize) {
        let member = &mut self.members[number];
        let Some(talk) = self.talk.filter(|talk| member.known.contains(talk)) else {
            return;
        };
        let body = format!("{} of member {number}", member.written);
        let oid = member.node.say(talk, &body).unwrap();
        member.written += 1;
        member.known.insert(oid);
    }

    async fn meeting(&mut self, one: usize, other: usize) -> Result<(), String> {
        self.connect(one, other).await;
        let before = [one, other].map(|number| self.members[number].known.clone());
        let first_withholding = self.members.len() - self.options.withholding;
        for (number, from, theirs) in [(one, other, &before[1]), (other, one, &before[0])] {
            let member = &mut self.members[number];
            if from < first_withholding {
                member.known.extend(theirs);
            }
            let known = &member.known;
            let has = |oid: &Oid| {
                let row = member.node.parent("messages", *oid);
                row.is_some_and(|row| row.rev > 0)
            };
            if let Some(missing) = known.iter().find(|oid| !has(oid)) {
                return Err(format!(
                    "member {number} lacks {missing:?} after meeting {} of {one} and {other}: {:?}",
                    self.meetings,
                    member.node.rejects()
                ));
            }
        }
        self.meetings += 1;
        self.disconnect(one, other).await;
        Ok(())
    }

    fn end(&self) -> Intermittent {
        let known = self.members.iter().map(|it| it.known.len());
        let written: usize = self.members.iter().map(|it| it.written).sum();
        let has_talk = self.members.iter().filter(|it| !it.known.is_empty());
        Intermittent {
            meetings: self.meetings,
            messages: written,
            reached: known.sum::<usize>() - written - has_talk.count(),
            transfers: self.net.tally.sum() - self.before,
        }
    }
}
