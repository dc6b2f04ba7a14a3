//! A node without a network: a core over a database in a temporary folder, used by hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use keys::{KeyManager, Oid, OnionAddr, PeerId, PublicKey, SignedObject, TraceId};
use postern::engine::{CoreHandle, EngineError, WriterThread};
use postern::graph::{GraphManager, SaveError, Saved, WriteRequest, load_object};
use postern::object::{Attrs, Object, RightsList};
use postern::op_context::{OpContext, Timestamp};
use postern::schema::Schemas;
use postern::services::{identities, messages};
use postern::state_engine::{CoreLimits, StateEngine, View};
use postern::store::{FeedCursor, ParentRow, PeerRow, StoreError, WriteMode};

use crate::clock::ManualClock;
use crate::setup::Setup;

/// A node with one identity.
///
/// Verbs take effect before they return: the engine runs inline, or the test waits for its thread.
pub struct TestNode {
    /// Keys of the node and of its identity.
    pub keys: Arc<KeyManager>,
    /// The handle to the core.
    pub engine: CoreHandle,
    /// The node's clock.
    pub clock: ManualClock,
    /// The node's identity.
    pub identity: Oid,
    pub(crate) setup: Setup,
    /// The thread of the engine, if it has one.
    writer: Option<WriterThread>,
}

/// Longest wait for the end of a thread of an engine of which a task still has a handle.
const WRITER_WAIT: Duration = Duration::from_secs(2);

/// Waits until a thread has closed its database, which the next start would meet open.
fn wait_for(writer: WriterThread) {
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        writer.join();
        ended.send(())
    });
    let _ = end.recv_timeout(WRITER_WAIT);
}

impl Setup {
    /// Starts the core.
    pub fn node(self) -> TestNode {
        TestNode::start(self)
    }
}

impl TestNode {
    /// A node with all apps, whose local ids begin behind `id_offset`.
    pub fn new(name: &str, id_offset: i64) -> Self {
        Setup::new(name).id_offset(id_offset).node()
    }

    pub(crate) fn start(mut setup: Setup) -> Self {
        let core = setup.open();
        let clock = Arc::new(setup.clock.clone());
        let (engine, writer) = match setup.readers {
            0 => (CoreHandle::inline(core, clock), None),
            readers => {
                let (engine, writer) = CoreHandle::spawn(core, clock, 64, readers).unwrap();
                (engine, Some(writer))
            }
        };
        Self {
            keys: setup.keys.clone(),
            engine,
            clock: setup.clock.clone(),
            identity: setup.identity,
            setup,
            writer,
        }
    }

    /// Closes the database, without the work of an orderly end.
    pub fn into_setup(self) -> Setup {
        let mut setup = self.setup;
        drop(self.engine);
        if let Some(writer) = self.writer {
            wait_for(writer);
        }
        setup.start += 1;
        setup
    }

    /// Starts the node again over the same database, as after a crash.
    pub fn restart(self) -> Self {
        self.into_setup().node()
    }

    /// The file of the database.
    pub fn database(&self) -> PathBuf {
        self.setup.database()
    }

    /// The names of the node's apps.
    pub fn apps(&self) -> &[String] {
        &self.setup.apps
    }

    /// The node's peer id.
    pub fn peer_id(&self) -> PeerId {
        self.keys.peer_id()
    }

    /// The node's onion address.
    pub fn onion(&self) -> OnionAddr {
        self.keys.onion()
    }

    /// The key with which the node signs packages.
    pub fn public_key(&self) -> PublicKey {
        self.keys.node_chain().verify().unwrap().current()
    }

    /// The schemas of the node's apps.
    pub fn schemas(&self) -> &Schemas {
        &self.engine.context().schemas
    }

    /// The node's limits.
    pub fn limits(&self) -> &CoreLimits {
        &self.setup.limits
    }

    /// Names of the domains that this node supports, sorted.
    pub fn sync_domains(&self) -> Vec<String> {
        let domains = self.schemas().sync_domains();
        let mut names: Vec<_> = domains.map(|domain| domain.name.clone()).collect();
        names.sort();
        names
    }

    /// Runs work on the writer.
    pub fn write<R: Send + 'static, E: std::error::Error + Send + 'static>(
        &self,
        work: impl FnOnce(&mut StateEngine, Timestamp) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E> {
        let done = finish(self.engine.write(work)).map_err(|error| match error {
            EngineError::Work(error) => error,
            EngineError::Stopped(_) => panic!("the engine has stopped"),
        });
        self.settle();
        done
    }

    /// Waits until nothing is left to settle. A thread settles after it has replied; an inline
    /// engine does before.
    pub fn settle(&self) {
        let is_threaded = self.writer.is_some();
        while is_threaded && finish(self.engine.write(|core, now| core.settle_step(now))).unwrap() {
        }
    }

    /// The operator confirms that an identity moved to another node.
    pub fn confirm_home(&self, identity: Oid, home: &Self) {
        let home = home.peer_id();
        self.graph(move |graph| identities::confirm_home(graph, identity, home))
            .unwrap();
    }

    /// Runs one transaction.
    pub fn graph<R: Send + 'static, E: std::error::Error + From<StoreError> + Send + 'static>(
        &self,
        work: impl FnOnce(&mut GraphManager<'_>) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E> {
        self.write(move |core, now| core.write(now, work))
    }

    /// Reads one committed state.
    pub fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(View<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> R {
        finish(self.engine.read(work)).unwrap()
    }

    /// The last `change_seq` that was committed.
    pub fn head(&self) -> u64 {
        self.read(|view| view.head())
    }

    /// The current write mode of the node.
    pub fn write_mode(&self) -> WriteMode {
        self.write(|core, now| Ok::<_, StoreError>(core.write_mode_at(now)))
            .unwrap()
    }

    /// The context of a local identity in an app.
    pub fn context(&self, identity: Oid, app: &str) -> OpContext {
        let app = app.to_owned();
        self.read(move |view| context_of(&view, identity, &app))
    }

    /// Saves a draft in the name of the node's identity.
    pub fn save(&self, draft: WriteRequest) -> Result<Saved, SaveError> {
        let context = self.context(self.identity, &draft.app);
        self.save_as(context, draft)
    }

    /// Saves a draft in a given context.
    pub fn save_as(&self, context: OpContext, draft: WriteRequest) -> Result<Saved, SaveError> {
        self.graph(move |graph| graph.save_with_sync(&context, draft))
    }

    /// Saves a new object of the node's identity.
    pub fn make(&self, app: &str, type_number: u16, attrs: Attrs) -> Result<Saved, SaveError> {
        self.save(WriteRequest {
            app: app.into(),
            type_number,
            oid: None,
            owner: self.identity,
            attrs: Some(attrs),
        })
    }

    /// Changes an object; without attributes, deletes it.
    pub fn change(
        &self,
        app: &str,
        type_number: u16,
        oid: Oid,
        attrs: Option<Attrs>,
    ) -> Result<Saved, SaveError> {
        self.save(WriteRequest {
            app: app.into(),
            type_number,
            oid: Some(oid),
            owner: self.identity,
            attrs,
        })
    }

    /// Sends a message to an identity.
    pub fn send(&self, recipient: Oid, body: &str) -> messages::Sent {
        self.try_send(recipient, body).unwrap()
    }

    /// Sends a message to an identity, or returns why it was refused.
    pub fn try_send(
        &self,
        recipient: Oid,
        body: &str,
    ) -> Result<messages::Sent, messages::SendError> {
        self.try_send_as(self.identity, recipient, body)
    }

    /// [`TestNode::try_send`] in the name of another local identity.
    pub fn try_send_as(
        &self,
        sender: Oid,
        recipient: Oid,
        body: &str,
    ) -> Result<messages::Sent, messages::SendError> {
        let body = body.to_owned();
        self.graph(move |graph| messages::send(graph, sender, recipient, &body))
    }

    /// Messages that the node's identity can read, oldest first.
    pub fn inbox(&self) -> Vec<messages::InboxMessage> {
        let reader = self.identity;
        self.read(move |view| messages::inbox(&view, &reader, FeedCursor::default(), 100_000))
            .messages
    }

    /// Sender and text of the messages that the node's identity can read, oldest first.
    pub fn texts(&self) -> Vec<(Oid, String)> {
        let messages = self.inbox().into_iter();
        messages
            .map(|message| (message.sender, message.body))
            .collect()
    }

    /// The row of an object; none also where the node does not have the app.
    pub fn parent(&self, app: &str, oid: Oid) -> Option<ParentRow> {
        let app = app.to_owned();
        self.read(move |view| {
            let table = view.rows.apps().get(&app);
            table.map_or(Ok(None), |table| view.rows.parent(table, &oid))
        })
    }

    /// An object as stored, with the bytes that its owner signed.
    pub fn object(&self, app: &str, oid: Oid) -> Option<(Object, SignedObject)> {
        let app = app.to_owned();
        self.read(move |view| {
            let app = view.rows.apps().get(&app).unwrap();
            let parent = view.rows.parent(app, &oid)?;
            parent
                .map(|parent| load_object(&view.rows, app, &parent))
                .transpose()
        })
    }

    /// The stored row of another node as a peer.
    pub fn stored_peer(&self, other: &TestNode) -> Option<PeerRow> {
        let peer = other.peer_id();
        self.read(move |view| view.rows.peer(&peer))
    }

    /// The current public key of an identity or a server, as the node knows it.
    pub fn public_key_of(&self, oid: Oid) -> Option<PublicKey> {
        self.read(move |view| view.rows.identity(&oid))
            .map(|row| row.public_key)
    }

    /// The node at which an identity or a server lives, as the node knows it.
    pub fn home_of(&self, oid: Oid) -> Option<PeerId> {
        self.read(move |view| view.rows.identity(&oid))
            .map(|row| row.home)
    }

    /// The identities that may read the objects of a scope, such as a conversation.
    pub fn readers(&self, app: &str, scope: Oid) -> Vec<Oid> {
        let app = app.to_owned();
        self.read(move |view| {
            let app = view.rows.apps().get(&app).unwrap();
            let scope = view.rows.parent(app, &scope)?.unwrap();
            view.rows.readers(scope.scope_id)
        })
    }

    /// Version and entries of the rights list in force in a scope. `None`: the node lacks the
    /// scope, or its Parent was deleted.
    pub fn list_in_force(&self, app: &str, scope: Oid) -> Option<(u64, RightsList)> {
        let app = app.to_owned();
        self.read(move |view| {
            let table = view.rows.apps().get(&app);
            let parent = table.map_or(Ok(None), |table| view.rows.parent(table, &scope))?;
            let Some(parent) = parent.filter(|parent| !parent.deleted) else {
                return Ok(None);
            };
            let list = view.rows.list_in_force(parent.scope_id)?;
            Ok(Some((list.version, view.rows.rights(list.id)?)))
        })
    }

    /// The codes of the objects that the node refused, newest first.
    pub fn rejects(&self) -> Vec<String> {
        let rejects = self.read(|view| view.rows.rejects(None, 10_000));
        rejects.into_iter().map(|reject| reject.code).collect()
    }
}

/// The context of a local identity in an app.
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

/// Runs a future to its end; one of an inline engine is ready at once.
pub(crate) fn finish<T>(work: impl Future<Output = T>) -> T {
    // Without tokio's budget, which only a task that yields to its runtime gets back.
    let mut work = std::pin::pin!(tokio::task::unconstrained(work));
    match work.as_mut().now_or_never() {
        Some(result) => result,
        None => futures::executor::block_on(work),
    }
}
