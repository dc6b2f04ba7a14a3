//! Two nodes without a network: Alice's identities write messages, Bob's identities read them.
//!
//! Performs the steps of a handshake and a session with the core's public functions. Randomness
//! comes from a seed, so every run has the same rows. Invariant: each node has stored the other
//! before a measurement starts.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use bastion::{Features, Tier};
use keys::{Epoch, KeyManager, Oid, PeerId, PublicKey, SignedObject, TraceId};
use postern::graph::{SaveError, WriteRequest, decode_object};
use postern::object::{Attrs, Value};
use postern::op_context::{OpContext, Timestamp};
use postern::schema::Schemas;
use postern::services::messages::{
    APP, BODY, CONVERSATION, IN_CONVERSATION, MESSAGE, PARTICIPANTS, SENT_AT,
};
use postern::services::{identities, messages};
use postern::state_engine::{
    CheckedObject, CoreLimits, Expected, PackageLimits, PullReply, PullRequest, StateEngine,
    VerifiedPackage, View, check_objects, known_keys,
};
use postern::store::{Cursor, Direction, PeerRow, StoreError};
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

/// The domain that is synced.
pub(crate) const DOMAIN: &str = "messages";
/// Messages per package, so that both sides of a comparison commit transactions of the same size.
pub(crate) const PACKAGE_MESSAGES: usize = 1000;
/// Average number of messages per conversation.
const CONVERSATION_MESSAGES: usize = 100;
/// Bytes of a message body; 200 on average.
const BODY_BYTES: std::ops::Range<usize> = 100..300;
/// Number of identities per node.
const IDENTITIES: usize = 8;
/// Time of the first message in milliseconds: 14 November 2023.
pub(crate) const START: u64 = 1_700_000_000_000;

/// A node's keys and identities. Its database is opened at a path.
pub(crate) struct Node {
    pub(crate) keys: Arc<KeyManager>,
    identity_oids: Vec<Oid>,
    schemas: Arc<Schemas>,
    seed: u64,
}

impl Node {
    /// Creates a node with keys from `seed`.
    pub(crate) fn new(seed: u64) -> Result<Self> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let keys = KeyManager::generate(&mut rng);
        let identity_oids = (0..IDENTITIES)
            .map(|_| keys.add_identity(&mut rng))
            .collect::<Result<_, _>>()?;
        let apps = ["identities", APP].map(str::to_owned);
        Ok(Self {
            keys: Arc::new(keys),
            identity_oids,
            schemas: Arc::new(Schemas::load(&apps, None)?),
            seed,
        })
    }

    /// Opens or creates the node's database.
    pub(crate) fn open(&self, path: &Path) -> Result<StateEngine> {
        self.open_with(path, PACKAGE_MESSAGES)
    }

    /// Opens or creates the node's database with at most `package` objects per package.
    pub(crate) fn open_with(&self, path: &Path, package: usize) -> Result<StateEngine> {
        let mut limits = CoreLimits::default();
        limits.package.objects_max = package;
        // The benchmark pulls without pauses, which the default quota does not allow.
        limits.quotas.trusted.requests_per_minute_max = u32::MAX;
        let rng = Box::new(ChaCha20Rng::seed_from_u64(self.seed + 1));
        let (schemas, keys) = (self.schemas.clone(), self.keys.clone());
        Ok(StateEngine::open(
            path,
            schemas,
            keys,
            limits,
            rng,
            Timestamp(START),
        )?)
    }

    /// Returns the key with which the node signs packages.
    pub(crate) fn package_key(&self) -> Result<PublicKey> {
        Ok(self.keys.node_chain().verify()?.current())
    }

    /// Returns the node's peer id.
    pub(crate) fn peer_id(&self) -> PeerId {
        self.keys.peer_id()
    }

    /// Writes the records of its identities.
    pub(crate) fn publish(&self, core: &mut StateEngine) -> Result<()> {
        for identity in &self.identity_oids {
            core.write(Timestamp(START), |graph| {
                identities::publish(graph, *identity, None)
            })?;
        }
        Ok(())
    }

    /// Stores another node and its identities, as a handshake does.
    pub(crate) fn meet(
        &self,
        core: &mut StateEngine,
        other: &Self,
        other_core: &StateEngine,
    ) -> Result<()> {
        let chain = other.keys.node_chain();
        let verified = chain.verify()?;
        let domains = vec![DOMAIN.to_owned(), "identities".to_owned()];
        let row = PeerRow {
            peer_id: other.keys.peer_id(),
            server_oid: other.keys.server_oid(),
            peer_apps: other_core.context().schemas.claims(),
            peer_sync_domains: domains.clone(),
            domains,
            onion: other.keys.onion(),
            epoch: other_core.context().epoch,
            tier: Tier::Trusted,
            last_contact: Timestamp(START),
            relays: false,
        };
        core.write(Timestamp(START), |graph| {
            graph.save_server(&chain, &verified)?;
            graph.tx().put_peer(&row)
        })?;
        let records = identities::for_handshake(&other_core.view(), IDENTITIES)?;
        let checked = check(core, records)?;
        let applied = core.apply_identities(Timestamp(START), row.peer_id, row.epoch, checked)?;
        expect(applied.written, IDENTITIES, "identities")
    }
}

/// Writes messages into Alice's database, each as its own change group, and creates the
/// conversations.
pub(crate) struct Writer {
    rng: ChaCha20Rng,
    authors: Vec<(Oid, OpContext)>,
    readers: Vec<Oid>,
    conversations: Vec<(usize, Oid)>,
    written: usize,
}

impl Writer {
    /// Creates a writer of messages from Alice's identities to Bob's.
    pub(crate) fn new(alice: &Node, core: &StateEngine, bob: &Node) -> Result<Self> {
        let authors = alice
            .identity_oids
            .iter()
            .map(|identity| Ok((*identity, context(&core.view(), identity)?)));
        Ok(Self {
            rng: ChaCha20Rng::seed_from_u64(3),
            authors: authors.collect::<Result<_>>()?,
            readers: bob.identity_oids.clone(),
            conversations: Vec::new(),
            written: 0,
        })
    }

    /// Writes `count` messages, at most 1,000 per transaction. Each message advances the nodes'
    /// time by 10 ms.
    pub(crate) fn write(&mut self, core: &mut StateEngine, count: usize) -> Result<()> {
        let end = self.written + count;
        while self.written < end {
            let until = end.min(self.written + 1000);
            let now = Timestamp(START + 10 * self.written as u64);
            core.write(now, |graph| {
                while self.written < until {
                    if self.written.is_multiple_of(CONVERSATION_MESSAGES)
                        || self.conversations.is_empty()
                    {
                        let author = self.rng.random_range(0..self.authors.len());
                        let draft = self.conversation(author);
                        let saved = graph.save_with_sync(&self.author(author)?.1, draft)?;
                        graph.end_group();
                        self.conversations.push((author, saved.oid));
                    }
                    let index = self.rng.random_range(0..self.conversations.len());
                    let Some((author, conversation)) = self.conversations.get(index).copied()
                    else {
                        continue;
                    };
                    let draft = self.message(author, conversation, now);
                    graph.save_with_sync(&self.author(author)?.1, draft)?;
                    graph.end_group();
                    self.written += 1;
                }
                Ok::<_, SaveError>(())
            })?;
            core.bound_log()?;
        }
        Ok(())
    }

    fn author(&self, index: usize) -> Result<&(Oid, OpContext), StoreError> {
        self.authors
            .get(index)
            .ok_or(StoreError::Inconsistent("no such author"))
    }

    fn draft(&self, author: usize, type_number: u16, attrs: Attrs) -> WriteRequest {
        WriteRequest {
            app: APP.into(),
            type_number,
            oid: None,
            owner: self
                .authors
                .get(author)
                .map_or(Oid::from_bytes([0; 16]), |author| author.0),
            attrs: Some(attrs),
        }
    }

    fn conversation(&mut self, author: usize) -> WriteRequest {
        let reader = self.rng.random_range(0..self.readers.len());
        let both = self.authors.get(author).map(|author| author.0);
        let both = both.into_iter().chain(self.readers.get(reader).copied());
        let attrs = Attrs::from([(PARTICIPANTS, both.map(|oid| Value::from(&oid)).collect())]);
        self.draft(author, CONVERSATION, attrs)
    }

    fn message(&mut self, author: usize, conversation: Oid, now: Timestamp) -> WriteRequest {
        let length = self.rng.random_range(BODY_BYTES);
        let mut bytes = vec![0; length];
        self.rng.fill_bytes(&mut bytes);
        let body: String = bytes
            .iter()
            .map(|byte| char::from(b'a' + byte % 26))
            .collect();
        let attrs = Attrs::from([
            (IN_CONVERSATION, vec![Value::from(&conversation)]),
            (BODY, vec![Value::from(&*body)]),
            (
                SENT_AT,
                vec![Value::from(i64::try_from(now.0).unwrap_or_default())],
            ),
        ]);
        self.draft(author, MESSAGE, attrs)
    }
}

/// Writes messages from Alice's first identity to another node's first one, each as its own change
/// group, to their conversations in turn.
pub(crate) struct PairWriter {
    author: Oid,
    reader: Oid,
    context: OpContext,
    conversations: Vec<Oid>,
    written: usize,
}

impl PairWriter {
    /// Creates a writer without conversations.
    pub(crate) fn new(alice: &Node, other: &Node, core: &StateEngine) -> Result<Self> {
        let first = |node: &Node| node.identity_oids.first().copied();
        let (author, reader) = first(alice).zip(first(other)).context("no identities")?;
        Ok(Self {
            author,
            reader,
            context: context(&core.view(), &author)?,
            conversations: Vec::new(),
            written: 0,
        })
    }

    /// Returns author and reader.
    pub(crate) fn pair(&self) -> (Oid, Oid) {
        (self.author, self.reader)
    }

    /// Starts conversations.
    pub(crate) fn converse(&mut self, core: &mut StateEngine, count: usize) -> Result<()> {
        let participants = [self.author, self.reader];
        let participants: Vec<Value> = participants.iter().map(Value::from).collect();
        for start in (0..count).step_by(PACKAGE_MESSAGES) {
            let made = self.save_all(core, PACKAGE_MESSAGES.min(count - start), |_| {
                (
                    CONVERSATION,
                    Attrs::from([(PARTICIPANTS, participants.clone())]),
                )
            })?;
            self.conversations.extend(made);
        }
        Ok(())
    }

    /// Writes messages of 200 bytes.
    pub(crate) fn write(&mut self, core: &mut StateEngine, count: usize) -> Result<()> {
        for start in (0..count).step_by(PACKAGE_MESSAGES) {
            let first = self.written;
            let made = self.save_all(core, PACKAGE_MESSAGES.min(count - start), |number| {
                let index = (first + number) % self.conversations.len().max(1);
                let conversation = self.conversations.get(index).map(Value::from);
                let attrs = Attrs::from([
                    (IN_CONVERSATION, conversation.into_iter().collect()),
                    (BODY, vec![Value::from(&*"x".repeat(200))]),
                    (SENT_AT, vec![Value::from(0)]),
                ]);
                (MESSAGE, attrs)
            })?;
            self.written += made.len();
        }
        Ok(())
    }

    /// Saves objects in one transaction and returns their oids.
    fn save_all(
        &self,
        core: &mut StateEngine,
        count: usize,
        attrs: impl Fn(usize) -> (u16, Attrs),
    ) -> Result<Vec<Oid>> {
        core.bound_log()?;
        Ok(core.write(Timestamp(START), |graph| {
            let objects = (0..count).map(|number| {
                let (type_number, attrs) = attrs(number);
                graph.end_group();
                let request = WriteRequest {
                    app: APP.into(),
                    type_number,
                    oid: None,
                    owner: self.author,
                    attrs: Some(attrs),
                };
                Ok(graph.save_with_sync(&self.context, request)?.oid)
            });
            objects.collect::<Result<Vec<_>, SaveError>>()
        })?)
    }
}

pub(crate) fn context(view: &View<'_>, identity: &Oid) -> Result<OpContext> {
    let row = view
        .rows
        .identity(identity)?
        .context("an author without a record")?;
    let app = view.rows.apps().get(messages::APP).context("no messages")?;
    Ok(OpContext::Local {
        requester_pubkey_attr_id: row.pubkey_attr_id,
        app_id: app.id,
        trace_id: TraceId(0),
    })
}

/// Returns Bob's next pull request to Alice.
pub(crate) fn request(bob: &Node, bob_core: &StateEngine, alice: &Node) -> Result<PullRequest> {
    let cursor = Cursor {
        peer: &alice.keys.peer_id(),
        domain: DOMAIN,
        direction: Direction::In,
    };
    let state = bob_core.view().rows.sync_state(cursor)?;
    Ok(PullRequest {
        again: None,
        peer: bob.keys.peer_id(),
        domain: DOMAIN.to_owned(),
        last_seq: state.map_or(0, |state| state.last_seq),
        epoch: state.map(|state| state.epoch),
        features: Features::none(),
        whole_after: None,
    })
}

/// Calls `take` with every package from the position of `request`, and returns the number of
/// objects.
pub(crate) fn pull_all(
    view: &View<'_>,
    mut request: PullRequest,
    mut take: impl FnMut(Vec<u8>) -> Result<()>,
) -> Result<usize> {
    let mut count = 0;
    while let PullReply::Package {
        window,
        objects,
        more,
        bytes,
    } = view.build_package(&request)?
    {
        count += objects;
        take(bytes)?;
        (request.last_seq, request.epoch) = (window.to_seq, Some(view.context.epoch));
        if !more {
            break;
        }
    }
    Ok(count)
}

/// Verifies a package as Bob's session does, without its objects.
pub(crate) fn verify(
    bytes: &[u8],
    (alice, epoch): (&Node, Epoch),
    key: &PublicKey,
    bob: &Node,
) -> Result<VerifiedPackage> {
    let expected = Expected {
        sender: &alice.keys.peer_id(),
        key,
        recipient: &bob.keys.peer_id(),
        epoch,
        features: &Features::none(),
    };
    let limits = PackageLimits::PROTOCOL;
    Ok(VerifiedPackage::verify(bytes, &limits, &expected)?)
}

/// Decodes and verifies objects in this thread.
pub(crate) fn check(core: &StateEngine, objects: Vec<SignedObject>) -> Result<Vec<CheckedObject>> {
    let limits = core.context().limits.graph;
    let decoded: Vec<_> = objects
        .into_iter()
        .map(|object| decode_object(object, &limits))
        .collect();
    let owners = decoded.iter().flatten().map(|object| object.owner());
    let mut owners: Vec<Oid> = owners.collect();
    owners.sort();
    owners.dedup();
    let mut known = known_keys(&core.view().rows, &owners)?;
    known.add_own_keys(decoded.iter().flatten());
    Ok(check_objects(decoded, &known))
}

/// Applies a package with verified objects; every object must be written.
pub(crate) fn apply(
    core: &mut StateEngine,
    package: &VerifiedPackage,
    checked: Vec<CheckedObject>,
) -> Result<()> {
    let count = checked.len();
    let applied = core.apply_package(Timestamp(START), package, checked)?;
    expect(applied.written, count, "objects of a package")
}

/// Returns an error unless all of the work was done.
pub(crate) fn expect(done: usize, awaited: usize, what: &str) -> Result<()> {
    if done == awaited {
        Ok(())
    } else {
        Err(anyhow!("{done} {what} instead of {awaited}"))
    }
}
