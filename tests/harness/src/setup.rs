//! How a test node is started, and started again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keys::{BootId, Digest, KeyManager, Oid};
use postern::config::{AdmissionConfig, SyncConfig};
use postern::op_context::Timestamp;
use postern::schema::Schemas;
use postern::services::identities;
use postern::state_engine::{CoreLimits, StateEngine};
use postern::store::{EpochReason, StoreError};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::clock::ManualClock;

/// All apps that a node can have, sorted by name.
pub const ALL_APPS: [&str; 5] = ["contacts", "identities", "market", "messages", "rides"];
/// The apps of node B in docs/STORY.md.
pub const NO_MARKET: [&str; 4] = ["contacts", "identities", "messages", "rides"];

/// Builder of a node. Ends in `node` (core only) or `live` (with sessions).
///
/// A stopped node gives its `Setup` back, with its keys, clock and folder: started again, it is the
/// same node.
pub struct Setup {
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) keys: Arc<KeyManager>,
    pub(crate) identity: Oid,
    pub(crate) apps: Vec<String>,
    pub(crate) schema_dir: Option<PathBuf>,
    pub(crate) limits: CoreLimits,
    pub(crate) id_offset: i64,
    pub(crate) readers: usize,
    pub(crate) publishes: bool,
    pub(crate) sync: SyncConfig,
    pub(crate) admission: AdmissionConfig,
    pub(crate) clock: ManualClock,
    /// How often the node was started before.
    pub(crate) start: u64,
    pub(crate) new_epoch: Option<EpochReason>,
    pub(crate) commit_hook: Option<Box<dyn Fn() + Send + Sync>>,
    pub(crate) folder: TempDir,
}

/// Sync without timers. A node pulls news and pushes only when its test calls for it. A live node
/// still requests what has to come again.
pub fn manual_sync() -> SyncConfig {
    SyncConfig {
        pull_interval_s: 0,
        pull_wait_s: 0,
        push_interval_s: 0,
        backoff_s_min: 1,
        backoff_s_max: 2,
        ..SyncConfig::default()
    }
}

/// The boot id of a node's start.
pub fn boot_id(seed: u64, start: u64) -> BootId {
    BootId::from_bytes([(seed ^ (start << 4)) as u8; 16])
}

/// The seed that [`Setup::new`] makes from a name.
pub fn seed_of(name: &str) -> u64 {
    let digest = Digest::of(name.as_bytes());
    u64::from_be_bytes(*digest.as_bytes().first_chunk().unwrap())
}

fn names(apps: &[&str]) -> Vec<String> {
    apps.iter().map(ToString::to_string).collect()
}

/// Number of reading connections of a test's node, from the environment. 0, the default, runs the
/// engine inline, and so does a test without a runtime.
///
/// The connections must be more than the tasks that may wait for one. A test blocks its runtime
/// while it reads, and a task that is next in turn cannot run then.
fn readers_of_tests() -> usize {
    let readers = std::env::var("POSTERN_TEST_READERS");
    let readers = readers.map_or(0, |readers| readers.parse().unwrap());
    tokio::runtime::Handle::try_current().map_or(0, |_| readers)
}

impl Setup {
    /// A node whose seed is made from its name.
    pub fn new(name: &str) -> Self {
        Self::seeded(name, seed_of(name))
    }

    /// A node with all apps. Its seed decides its keys, epoch and object ids.
    pub fn seeded(name: &str, seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let keys = Arc::new(KeyManager::generate(&mut rng));
        let identity = keys.add_identity(&mut rng).unwrap();
        Self {
            name: name.to_owned(),
            seed,
            keys,
            identity,
            apps: names(&ALL_APPS),
            schema_dir: None,
            limits: CoreLimits::default(),
            id_offset: 0,
            readers: readers_of_tests(),
            publishes: true,
            sync: manual_sync(),
            admission: AdmissionConfig::default(),
            clock: ManualClock::default(),
            start: 0,
            new_epoch: None,
            commit_hook: None,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Sets the apps.
    pub fn apps(mut self, apps: &[&str]) -> Self {
        self.apps = names(apps);
        self
    }

    /// Enables `identities` and one own app, whose schema file is written into the node's folder.
    pub fn own_app(self, slug: &str, schema: &str) -> Self {
        let folder = self.path().join("apps");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{slug}.toml")), schema).unwrap();
        self.apps(&["identities", slug]).schema_dir(&folder)
    }

    /// Reads further schemas from a folder.
    pub fn schema_dir(mut self, folder: &Path) -> Self {
        self.schema_dir = Some(folder.to_owned());
        self
    }

    /// Sets limits and quotas.
    pub fn limits(mut self, limits: CoreLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Lets local ids begin behind an offset, so that a local id that leaks is seen at another
    /// node.
    pub fn id_offset(mut self, offset: i64) -> Self {
        self.id_offset = offset;
        self
    }

    /// Runs the core on a writer thread with this many reading connections, instead of inline.
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// Uses another clock.
    pub fn clock(mut self, clock: ManualClock) -> Self {
        self.clock = clock;
        self
    }

    /// Runs `hook` after every commit of the next start.
    pub fn on_commit(mut self, hook: Box<dyn Fn() + Send + Sync>) -> Self {
        self.commit_hook = Some(hook);
        self
    }

    /// Starts without the record of the node's identity in its database.
    pub fn unpublished(mut self) -> Self {
        self.publishes = false;
        self
    }

    /// Sets timers and session limits.
    pub fn sync(mut self, sync: SyncConfig) -> Self {
        self.sync = sync;
        self
    }

    /// Sets the admission policy.
    pub fn admission(mut self, admission: AdmissionConfig) -> Self {
        self.admission = admission;
        self
    }

    /// Says how often this node was started before; decides the boot id and the object ids.
    pub fn start_number(mut self, start: u64) -> Self {
        self.start = start;
        self
    }

    /// Starts an epoch before the node runs, as `postern restore` does.
    pub fn new_epoch(mut self, reason: EpochReason) -> Self {
        self.new_epoch = Some(reason);
        self
    }

    /// Uses the files of another folder.
    pub fn folder(mut self, folder: TempDir) -> Self {
        self.folder = folder;
        self
    }

    /// The next start of the same node over an empty folder.
    pub fn elsewhere(&self) -> Self {
        Self {
            name: self.name.clone(),
            keys: self.keys.clone(),
            apps: self.apps.clone(),
            schema_dir: self.schema_dir.clone(),
            sync: self.sync.clone(),
            admission: self.admission.clone(),
            clock: self.clock.clone(),
            folder: tempfile::tempdir().unwrap(),
            start: self.start + 1,
            commit_hook: None,
            ..*self
        }
    }

    /// The node's identity.
    pub fn identity(&self) -> Oid {
        self.identity
    }

    /// The time of the node's clock.
    pub fn timestamp(&self) -> Timestamp {
        self.clock.timestamp()
    }

    /// The node's folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The file of the database.
    pub fn database(&self) -> PathBuf {
        self.path().join("postern.db")
    }

    /// The core alone, for tests that start engines themselves. Publishes the identity at the first
    /// start.
    pub fn open(&mut self) -> StateEngine {
        let mut core = self.try_open().unwrap();
        if self.id_offset != 0 {
            drop(core);
            self.shift_ids();
            self.id_offset = 0;
            core = self.try_open().unwrap();
        }
        let now = self.clock.timestamp();
        if let Some(reason) = self.new_epoch.take() {
            core.start_recovery(reason, now).unwrap();
            // `postern restore` ends here; the node is started later.
            drop(core);
            core = self.try_open().unwrap();
        }
        if self.publishes {
            let (identity, name) = (self.identity, self.name.clone());
            core.write(now, |graph| {
                identities::publish(graph, identity, Some(&name))
            })
            .unwrap();
            self.publishes = false;
        }
        core.plan_outbox(now, &self.sync.outbox).unwrap();
        if let Some(hook) = self.commit_hook.take() {
            core.on_commit(hook);
        }
        core
    }

    /// Opens the database.
    pub fn try_open(&self) -> Result<StateEngine, StoreError> {
        let mut rng = ChaCha20Rng::seed_from_u64(self.seed.wrapping_add(1000));
        rng.set_stream(self.start);
        let schemas = Schemas::load(&self.apps, self.schema_dir.as_deref()).unwrap();
        StateEngine::open(
            &self.database(),
            Arc::new(schemas),
            self.keys.clone(),
            self.limits,
            Box::new(rng),
            self.clock.timestamp(),
        )
    }

    /// Moves the next local ids of Parents and peers behind the offset, as if other rows had been
    /// deleted.
    fn shift_ids(&self) {
        let (connection, offset) = (Connection::open(self.database()).unwrap(), self.id_offset);
        for app in &self.apps {
            let mut oid = [0xee; 16];
            oid[8..].copy_from_slice(&offset.to_be_bytes());
            let sql = format!(
                "INSERT INTO app_{app}_parent (id, oid, type, owner_oid, scope_id, rev, deleted, \
                   key_id, signature, created_seq, change_seq, sync_flags) \
                 VALUES (?1, ?2, 60000, ?2, 0, 1, 1, 0, zeroblob(64), 0, 0, 0)"
            );
            connection.execute(&sql, (offset, oid)).unwrap();
        }
        for sql in [
            "UPDATE sqlite_sequence SET seq = seq + ?1",
            "INSERT OR IGNORE INTO sqlite_sequence (name, seq) VALUES ('peers', ?1)",
        ] {
            connection.execute(sql, [offset]).unwrap();
        }
    }
}
