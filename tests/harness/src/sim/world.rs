//! The nodes of a simulation, and how they are started, ended, crashed and restored.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bastion::GateConfig;
use keys::Oid;
use parking_lot::Mutex;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use tempfile::TempDir;
use tokio::time::{Instant, sleep_until};

use super::club;
use super::hostile::{Mallory, gate};
use super::hostile_scopes::HostileScope;
use super::lister::Lister;
use super::memory::{Memory, Person};
use super::moves::MoveFile;
use super::net::SimNet;
use super::scenario::{Feature, Features, Scenario};
use super::versions::write_schemas;
use crate::clock::ManualClock;
use crate::live::{LiveNode, Wiring};
use crate::setup::Setup;

/// With [`Feature::Apart`]: chance that linked nodes meet only in the end.
const APART: f64 = 0.3;

/// A node that runs, or that can be started.
pub(super) enum NodeState {
    Up(Box<LiveNode>),
    Down(Box<Setup>),
    /// Being changed.
    Moving,
}

/// A state of a node to which it can be set back.
pub(super) struct Backup {
    pub(super) folder: TempDir,
    /// The revisions of its objects then.
    pub(super) revs: BTreeMap<Oid, u64>,
}

/// A node, whether it runs or not.
pub(super) struct SimNode {
    pub(super) state: NodeState,
    pub(super) onion: keys::OnionAddr,
    pub(super) apps: Vec<String>,
    /// Protocol features that it offers.
    pub(super) offered: bastion::Features,
    /// Version of its own app.
    pub(super) version: u8,
    pub(super) backups: Vec<Backup>,
    /// Nodes that it keeps dialling.
    keeps: Vec<usize>,
    crash: Arc<Mutex<CrashPlan>>,
}

/// When a node crashes, and what it leaves behind.
#[derive(Default)]
pub(super) struct CrashPlan {
    /// Commits until the crash.
    after: Option<u64>,
    /// The files at the crash.
    left: Option<TempDir>,
}

/// A folder in memory if there is one, because a run syncs thousands of small files.
pub(super) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Copies a node's files as they are, without the index of the WAL, as after a loss of power.
pub(super) fn copy_files(from: &Path) -> TempDir {
    let copy = folder();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if entry.file_type().unwrap().is_file() && !name.to_string_lossy().ends_with("-shm") {
            fs::copy(entry.path(), copy.path().join(name)).unwrap();
        }
    }
    copy
}

pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) rng: ChaCha20Rng,
    pub(super) net: SimNet,
    pub(super) clock: ManualClock,
    pub(super) nodes: Vec<SimNode>,
    /// Pairs of nodes that know each other, the smaller number first.
    pub(super) links: BTreeSet<(usize, usize)>,
    /// Links of which the nodes meet only in the end.
    pub(super) apart: BTreeSet<(usize, usize)>,
    pub(super) memory: Memory,
    /// Seeds of the nodes' first keys, by their first identities.
    pub(super) seeds: BTreeMap<Oid, u64>,
    /// Files of identities that moved or move.
    pub(super) files: Vec<MoveFile>,
    pub(super) mallory: Mallory,
    pub(super) hostile_scopes: Vec<HostileScope>,
    pub(super) lister: Option<Lister>,
    /// Nodes whose operators banned or removed peers.
    pub(super) purgers: BTreeSet<usize>,
    /// Peers that a node has stopped dialling: the node comes first.
    pub(super) left: BTreeSet<(usize, usize)>,
    pub(super) schemas: TempDir,
}

impl World {
    /// The nodes of a seed, which have not met.
    pub(super) fn new(seed: u64, permitted: &Features) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let scenario = Scenario::draw(permitted, &mut rng);
        let net = SimNet::new(rng.random(), scenario.width, scenario.weather);
        let schemas = folder();
        write_schemas(schemas.path());
        let clock = ManualClock::following();
        let mut world = Self {
            mallory: Mallory::new(&mut rng, &net, &clock, &scenario),
            hostile_scopes: Vec::new(),
            lister: None,
            purgers: BTreeSet::new(),
            left: BTreeSet::new(),
            rng,
            net,
            clock,
            nodes: Vec::new(),
            links: BTreeSet::new(),
            apart: BTreeSet::new(),
            memory: Memory::default(),
            seeds: BTreeMap::new(),
            files: Vec::new(),
            schemas,
            scenario,
        };
        for number in 0..world.scenario.nodes {
            world.add_node(number);
        }
        world.draw_links();
        world.keep_apart();
        world.draw_outbox();
        for number in 0..world.nodes.len() {
            world.start(number);
        }
        world.start_lister();
        world
    }

    fn add_node(&mut self, number: usize) {
        let mut apps = vec!["contacts", "identities", "messages", "rides"];
        if self.rng.random_bool(0.7) {
            apps.push("market");
        }
        if self.has(Feature::OwnApps) && self.rng.random_bool(0.8) {
            apps.push(club::APP);
        }
        apps.sort_unstable();
        let sync = self.scenario.sync(&mut self.rng);
        let offered = self.scenario.offered(&mut self.rng);
        let seed = self.rng.random();
        let version = self.first_version();
        let setup = Setup::seeded(&format!("node {number}"), seed)
            .apps(&apps)
            .schema_dir(&self.schema_folder(version))
            .limits(self.limits_of(number))
            .readers(0)
            .clock(self.clock.clone())
            .sync(sync)
            .folder(folder());
        let person = Person {
            home: number,
            old_home: None,
            moving: false,
            published: true,
        };
        self.memory.people.insert(setup.identity(), person);
        self.seeds.insert(setup.identity(), seed);
        self.nodes.push(SimNode {
            onion: setup.keys.onion(),
            state: NodeState::Down(Box::new(setup)),
            apps: apps.into_iter().map(str::to_owned).collect(),
            offered,
            version,
            backups: Vec::new(),
            keeps: Vec::new(),
            crash: Arc::default(),
        });
    }

    /// Draws which nodes know each other, and which side dials.
    fn draw_links(&mut self) {
        let count = self.nodes.len();
        for one in 0..count {
            for other in one + 1..count {
                let is_neighbour = other == one + 1 && self.rng.random_bool(0.9);
                if !is_neighbour && !self.rng.random_bool(self.scenario.density) {
                    continue;
                }
                self.links.insert((one, other));
                if self.has(Feature::Apart) && self.rng.random_bool(APART) {
                    self.apart.insert((one, other));
                }
                let (dialler, dialled) = if self.rng.random_bool(0.5) {
                    (one, other)
                } else {
                    (other, one)
                };
                self.nodes[dialler].keeps.push(dialled);
                if self.has(Feature::Duplicates) && self.rng.random_bool(0.4) {
                    self.nodes[dialled].keeps.push(dialler);
                }
            }
        }
    }

    /// Lets no nodes reach each other that meet only in the end.
    pub(super) fn keep_apart(&self) {
        for (one, other) in &self.apart {
            let (one, other) = (self.nodes[*one].onion, self.nodes[*other].onion);
            self.net.set_apart(one, other, true);
        }
    }

    pub(super) fn has(&self, feature: Feature) -> bool {
        self.scenario.features.has(feature)
    }

    pub(super) fn knows(&self, one: usize, other: usize) -> bool {
        self.links.contains(&(one.min(other), one.max(other)))
    }

    /// The node, if it runs.
    pub(super) fn up(&self, number: usize) -> Option<&LiveNode> {
        match &self.nodes[number].state {
            NodeState::Up(node) if !self.has_crashed(number) => Some(node),
            _ => None,
        }
    }

    /// Whether the node's files were taken: what it does from then on has no effect.
    pub(super) fn has_crashed(&self, number: usize) -> bool {
        self.nodes[number].crash.lock().left.is_some()
    }

    /// A random node that runs.
    pub(super) fn any_up(&mut self) -> Option<usize> {
        let up = (0..self.nodes.len()).filter(|number| self.up(*number).is_some());
        let up: Vec<_> = up.collect();
        up.choose(&mut self.rng).copied()
    }

    /// Lets time pass, in which the nodes work.
    pub(super) async fn pass(&mut self, time: Duration) {
        sleep_until(Instant::now() + time).await;
        for number in 0..self.nodes.len() {
            if self.has_crashed(number) {
                self.stop(number).await;
            }
        }
    }

    /// Moves the clock forward. Nodes that run do the maintenance that is due then.
    pub(super) async fn pass_at_once(&self, seconds: u64) {
        self.clock.advance_s(seconds);
        self.maintain().await;
    }

    /// Lets every node that runs do its maintenance.
    pub(super) async fn maintain(&self) {
        for number in 0..self.nodes.len() {
            if let Some(node) = self.up(number) {
                node.maintain().await;
            }
        }
    }

    /// Starts a node that does not run.
    pub(super) fn start(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let NodeState::Down(setup) = std::mem::replace(&mut node.state, NodeState::Moving) else {
            panic!("node {number} runs already");
        };
        *node.crash.lock() = CrashPlan::default();
        self.net.put_on(node.onion);
        let hook = crash_hook(setup.path(), node.onion, &self.net, &node.crash);
        let wiring = Wiring {
            net: self.net.memory.clone(),
            transport: Arc::new(self.net.transport(node.onion)),
            gate: GateConfig {
                features: node.offered.clone(),
                ..gate()
            },
        };
        let live = setup.on_commit(hook).live_over(wiring);
        live.keep_maintaining();
        let keeps = node.keeps.clone();
        for dialled in keeps {
            live.dialler.keep(self.nodes[dialled].onion);
        }
        if self.nodes[number].offered.has(bastion::Feature::Introduce) {
            live.dialler.keep_introducing(|| true);
        }
        self.nodes[number].state = NodeState::Up(Box::new(live));
    }

    /// Ends a node. Returns whether it ended in good order: a crash that is due meanwhile comes
    /// first.
    pub(super) async fn stop(&mut self, number: usize) -> bool {
        let node = &mut self.nodes[number];
        let NodeState::Up(live) = std::mem::replace(&mut node.state, NodeState::Moving) else {
            panic!("node {number} does not run");
        };
        let setup = live.stop().await;
        self.net.take_off(self.nodes[number].onion);
        let left = self.nodes[number].crash.lock().left.take();
        let in_good_order = left.is_none();
        let setup = match left {
            Some(left) => setup.folder(left),
            None => setup,
        };
        self.nodes[number].state = NodeState::Down(Box::new(setup));
        in_good_order
    }

    /// Lets a node crash after some more commits.
    pub(super) fn plan_crash(&mut self, number: usize) {
        let after = self.rng.random_range(0..12);
        let plan = &self.nodes[number].crash;
        plan.lock().after = Some(after);
    }

    /// Lets no node crash any more, and ends those that have crashed.
    pub(super) async fn end_crashes(&mut self) {
        for number in 0..self.nodes.len() {
            self.nodes[number].crash.lock().after = None;
            if self.has_crashed(number) {
                self.stop(number).await;
            }
        }
    }

    /// The settings that a stopped node will start with.
    pub(super) fn change_setup(&mut self, number: usize, change: impl FnOnce(Setup) -> Setup) {
        let node = &mut self.nodes[number];
        let NodeState::Down(setup) = std::mem::replace(&mut node.state, NodeState::Moving) else {
            panic!("node {number} runs");
        };
        node.state = NodeState::Down(Box::new(change(*setup)));
    }
}

/// Copies a node's files after the commit of its crash, and takes it off the network.
fn crash_hook(
    path: &Path,
    onion: keys::OnionAddr,
    net: &SimNet,
    plan: &Arc<Mutex<CrashPlan>>,
) -> Box<dyn Fn() + Send + Sync> {
    let (path, net, plan) = (path.to_owned(), net.clone(), plan.clone());
    Box::new(move || {
        let mut plan = plan.lock();
        match plan.after {
            Some(0) => {
                plan.after = None;
                plan.left = Some(copy_files(&path));
                net.take_off(onion);
            }
            Some(after) => plan.after = Some(after - 1),
            None => {}
        }
    })
}
