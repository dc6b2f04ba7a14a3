//! Nodes without a network: fixed keys, a clock that tests turn, chance from a seed, a database in a temporary folder.
//!
//! [`TestNode::meet`] and [`TestNode::pull`] do by hand what a handshake and a session do, so that what is tested is the
//! core alone. Local ids differ from node to node, so that one which leaks shows.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "shared by several test programs, each of which uses a part; helpers may fail like the tests themselves"
)]

pub mod dump;
pub mod forge;
pub mod sync;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt as _;
use keys::TraceId;
use keys::{Digest, KeyManager, Oid, PeerId};
use postern::engine::{Clock, Engine, EngineError};
use postern::graph::{Draft, SaveError, Saved, load_object};
use postern::object::{Attrs, Object, Value};
use postern::op_context::{OpContext, Timestamp};
use postern::schema::Schemas;
use postern::services::{identities, messages};
use postern::state_engine::{CoreLimits, StateEngine, View};
use postern::store::{ParentRow, StoreError};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use tempfile::TempDir;

/// What the clock of every node shows at first: 14 November 2023, 22:13:20 UTC.
pub const START: u64 = 1_700_000_000_000;
pub const ALL_APPS: [&str; 5] = ["contacts", "identities", "market", "messages", "rides"];
pub const NO_MARKET: [&str; 4] = ["contacts", "identities", "messages", "rides"];

/// A clock that only tests move.
#[derive(Debug)]
pub struct FixedClock(AtomicU64);

impl FixedClock {
    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::SeqCst);
    }

    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// How a node is set up.
pub struct Setup {
    pub apps: Vec<String>,
    pub id_offset: i64,
    pub limits: CoreLimits,
    pub schema_dir: Option<PathBuf>,
    /// 0: inline. Else a writer thread with so many reading connections.
    pub readers: usize,
    /// Whether the identity's record is in the graph from the start.
    pub published: bool,
}

impl Default for Setup {
    fn default() -> Self {
        let apps = ALL_APPS.map(str::to_owned).to_vec();
        Self {
            apps,
            id_offset: 0,
            limits: CoreLimits::default(),
            schema_dir: None,
            readers: 0,
            published: true,
        }
    }
}

/// A node with one identity.
pub struct TestNode {
    pub name: String,
    pub keys: Arc<KeyManager>,
    pub engine: Engine,
    pub clock: Arc<FixedClock>,
    pub identity: Oid,
    pub apps: Vec<String>,
    schemas: Arc<Schemas>,
    limits: CoreLimits,
    folder: TempDir,
}

/// Chance from a name: the same name gives the same keys, epoch and oids in every run.
fn chance(name: &str, what: &str) -> ChaCha20Rng {
    ChaCha20Rng::from_seed(*Digest::of(format!("{name}/{what}").as_bytes()).as_bytes())
}

impl TestNode {
    /// A node with all apps, whose local ids begin behind `id_offset`.
    pub fn new(name: &str, id_offset: i64) -> Self {
        Self::with(
            name,
            Setup {
                id_offset,
                ..Setup::default()
            },
        )
    }

    /// A node with these apps.
    pub fn with_apps(name: &str, id_offset: i64, apps: &[&str]) -> Self {
        let apps = apps.iter().map(ToString::to_string).collect();
        Self::with(
            name,
            Setup {
                id_offset,
                apps,
                ..Setup::default()
            },
        )
    }

    pub fn with(name: &str, setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = chance(name, "keys");
        let keys = Arc::new(KeyManager::generate(&mut rng));
        let identity = keys.add_identity(&mut rng).unwrap();
        let schemas = Arc::new(Schemas::load(&setup.apps, setup.schema_dir.as_deref()).unwrap());
        let clock = Arc::new(FixedClock(AtomicU64::new(START)));
        let path = folder.path().join("postern.db");
        let core = open(&path, &schemas, &keys, setup.limits, name);
        let core = if setup.id_offset == 0 {
            core
        } else {
            drop(core);
            dump::shift_ids(&path, &setup.apps, setup.id_offset);
            open(&path, &schemas, &keys, setup.limits, name)
        };
        let engine = match setup.readers {
            0 => Engine::inline(core, clock.clone()),
            // Threads outlive their handles for a moment only; tests that care for that moment spawn their own.
            readers => Engine::spawn(core, clock.clone(), 64, readers).unwrap().0,
        };
        let (name, apps, limits) = (name.to_owned(), setup.apps, setup.limits);
        let node = Self {
            name,
            keys,
            engine,
            clock,
            identity,
            apps,
            schemas,
            limits,
            folder,
        };
        if setup.published {
            let name = node.name.clone();
            node.write(move |core, now| {
                core.write(now, |graph| {
                    identities::publish(graph, identity, Some(&name))
                })
            })
            .unwrap();
        }
        node
    }

    /// A core of its own over a fresh database, for tests that start engines themselves.
    pub fn core(name: &str, clock: Timestamp) -> (StateEngine, TempDir, Arc<KeyManager>, Oid) {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = chance(name, "keys");
        let keys = Arc::new(KeyManager::generate(&mut rng));
        let identity = keys.add_identity(&mut rng).unwrap();
        let schemas = Arc::new(Schemas::load(&ALL_APPS.map(str::to_owned), None).unwrap());
        let mut core = open(
            &folder.path().join("postern.db"),
            &schemas,
            &keys,
            CoreLimits::default(),
            name,
        );
        core.write(clock, |graph| {
            identities::publish(graph, identity, Some(name))
        })
        .unwrap();
        (core, folder, keys, identity)
    }

    /// Starts the node again over the same database, as after a crash: nothing is said goodbye to.
    pub fn restart(self) -> Self {
        let life = format!("{} after {}", self.name, self.head());
        let Self {
            name,
            keys,
            engine,
            clock,
            identity,
            apps,
            schemas,
            limits,
            folder,
        } = self;
        drop(engine);
        let core = open(
            &folder.path().join("postern.db"),
            &schemas,
            &keys,
            limits,
            &life,
        );
        let engine = Engine::inline(core, clock.clone());
        Self {
            name,
            keys,
            engine,
            clock,
            identity,
            apps,
            schemas,
            limits,
            folder,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("postern.db")
    }

    pub fn peer_id(&self) -> PeerId {
        self.keys.peer_id()
    }

    pub fn schemas(&self) -> &Schemas {
        &self.schemas
    }

    pub fn limits(&self) -> &CoreLimits {
        &self.limits
    }

    /// Names of the domains that this node supports, as it would claim them.
    pub fn sync_domains(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .schemas
            .sync_domains()
            .map(|domain| domain.name.clone())
            .collect();
        names.sort();
        names
    }

    pub fn write<R: Send + 'static, E: std::error::Error + Send + 'static>(
        &self,
        work: impl FnOnce(&mut StateEngine, Timestamp) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E> {
        finish(self.engine.write(work)).map_err(own_error)
    }

    pub fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(View<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> R {
        finish(self.engine.read(work)).unwrap()
    }

    /// The file of the database.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("postern.db")
    }

    /// The last `change_seq` that was committed.
    pub fn head(&self) -> u64 {
        self.read(|view| view.head())
    }

    /// The context of a person of this node, in an app.
    pub fn context(&self, identity: Oid, app: &str) -> OpContext {
        let app = app.to_owned();
        self.read(move |view| context_of(&view, identity, &app))
    }

    /// Saves a draft as its owner would.
    pub fn save(&self, draft: Draft) -> Result<Saved, SaveError> {
        let context = self.context(self.identity, &draft.app);
        self.save_as(context, draft)
    }

    pub fn save_as(&self, context: OpContext, draft: Draft) -> Result<Saved, SaveError> {
        self.write(move |core, now| core.write(now, |graph| graph.save_with_sync(&context, draft)))
    }

    /// A new object of this node's identity.
    pub fn make(&self, app: &str, type_number: u16, attrs: Attrs) -> Result<Saved, SaveError> {
        self.save(Draft {
            app: app.into(),
            type_number,
            oid: None,
            owner: self.identity,
            attrs: Some(attrs),
        })
    }

    /// A change to an object; no values delete it.
    pub fn change(
        &self,
        app: &str,
        type_number: u16,
        oid: Oid,
        attrs: Option<Attrs>,
    ) -> Result<Saved, SaveError> {
        self.save(Draft {
            app: app.into(),
            type_number,
            oid: Some(oid),
            owner: self.identity,
            attrs,
        })
    }

    /// Says something to somebody, as the apps do.
    pub fn send(&self, recipient: Oid, body: &str) -> Result<messages::Sent, messages::SendError> {
        let (sender, body) = (self.identity, body.to_owned());
        self.write(move |core, now| {
            core.write(now, |graph| messages::send(graph, sender, recipient, &body))
        })
    }

    /// What this node's identity can read, oldest first: author and words.
    pub fn inbox(&self) -> Vec<(Oid, String)> {
        let reader = self.identity;
        let inbox = self.read(move |view| messages::inbox(&view, &reader, 0, 10_000));
        inbox
            .messages
            .into_iter()
            .map(|message| (message.sender, message.body))
            .collect()
    }

    pub fn parent(&self, app: &str, oid: Oid) -> Option<ParentRow> {
        let app = app.to_owned();
        self.read(move |view| view.rows.parent(view.rows.apps().get(&app).unwrap(), &oid))
    }

    /// An object as stored, with the bytes that its owner signed.
    pub fn object(&self, app: &str, oid: Oid) -> Option<(Object, keys::SignedObject)> {
        let app = app.to_owned();
        self.read(move |view| {
            let app = view.rows.apps().get(&app).unwrap();
            let parent = view.rows.parent(app, &oid)?;
            parent
                .map(|parent| load_object(&view.rows, app, &parent))
                .transpose()
        })
    }

    /// The codes of what was refused here, newest first.
    pub fn rejects(&self) -> Vec<String> {
        self.read(|view| view.rows.rejects(None, 10_000))
            .into_iter()
            .map(|reject| reject.code)
            .collect()
    }
}

fn open(
    path: &std::path::Path,
    schemas: &Arc<Schemas>,
    keys: &Arc<KeyManager>,
    limits: CoreLimits,
    life: &str,
) -> StateEngine {
    let rng = Box::new(chance(life, "core"));
    StateEngine::open(
        path,
        schemas.clone(),
        keys.clone(),
        limits,
        rng,
        Timestamp(START),
    )
    .unwrap()
}

/// The context of a person of this node, in an app.
pub fn context_of(view: &View<'_>, identity: Oid, app: &str) -> Result<OpContext, StoreError> {
    let row = view
        .rows
        .identity(&identity)?
        .ok_or(StoreError::Inconsistent("no such identity"))?;
    let app_id = view
        .rows
        .apps()
        .get(app)
        .ok_or(StoreError::Inconsistent("no such app"))?
        .id;
    Ok(OpContext::Local {
        requester_pubkey_attr_id: row.pubkey_attr_id,
        app_id,
        trace_id: TraceId(1),
    })
}

/// The result of an engine's work: inline it is there at once.
fn finish<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    match work.as_mut().now_or_never() {
        Some(result) => result,
        None => futures::executor::block_on(work),
    }
}

fn own_error<E: std::error::Error>(error: EngineError<E>) -> E {
    match error {
        EngineError::Work(error) => error,
        EngineError::Stopped(_) => panic!("the engine has stopped"),
    }
}

/// A ride's values.
pub fn ride(origin: &str, seats: i64) -> Attrs {
    Attrs::from([
        (1, vec![Value::from(origin)]),
        (2, vec![Value::from("the sea")]),
        (3, vec![Value::from(1_800_000_000_000)]),
        (4, vec![Value::from(seats)]),
    ])
}

/// A market offer's values.
pub fn offer(title: &str) -> Attrs {
    Attrs::from([
        (1, vec![Value::from(title)]),
        (2, vec![Value::from("as new")]),
        (3, vec![Value::from("5 EUR")]),
    ])
}

/// A contact card's values.
pub fn card(subject: Oid, name: &str) -> Attrs {
    Attrs::from([
        (1, vec![Value::from(&subject)]),
        (2, vec![Value::from(name)]),
    ])
}

/// A conversation's values.
pub fn conversation(participants: &[Oid]) -> Attrs {
    Attrs::from([(1, participants.iter().map(Value::from).collect())])
}

/// A message's values.
pub fn message(conversation: Oid, body: &str) -> Attrs {
    Attrs::from([
        (1, vec![Value::from(&conversation)]),
        (2, vec![Value::from(body)]),
        (3, vec![Value::from(START as i64)]),
    ])
}
