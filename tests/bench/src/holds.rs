//! The longest hold of the writer under packages of hostile peers and under long local work
//! (goal 9).
//!
//! A hold is the time of one job, one portion or one checkpoint on the writer thread of a whole
//! core. Invariant: each measurement has a node of its own, and ends when nothing is left to be
//! settled.

use anyhow::{Context as _, Result, ensure};
use harness::forge::{long_record, object, salted, sign_with_later_key, sign_with_unknown_key};
use harness::pull::meet;
use harness::{START, Setup, TestNode, conversation, message, ride};
use keys::protocol::SCOPES_NAMED_MAX;
use keys::{Oid, SignedObject};
use postern::graph::{SaveError, WriteRequest};
use postern::object::{Attrs, Object, OidParts, Place, Value};
use postern::state_engine::{Package, StateEngine};
use postern::store::StoreError;
use tempfile::TempDir;

use crate::report::{Goal, Report};
use crate::stopwatch::median;

/// Longest hold of the writer, in milliseconds.
pub(crate) const HOLD_MS_MAX: f64 = 50.0;
/// Objects of a full package.
const PACKAGE: usize = 4096;
/// Identity records with the longest key chains that fit into a package.
const RECORDS: u8 = 90;

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
    /// A part of the names of the measurements to run. `None`: all.
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
    let all: [(&str, Measurement); 13] = [
        ("1,000 revisions, 64 objects wait", later_key),
        ("100 revisions, nine helpers", helpers),
        ("4,096 forged objects", forged),
        ("4,096 objects against the schema", faulty),
        ("full package of wrong key chains", wrong_chains),
        ("full package of long key chains", long_chains),
        ("key rotation of many messages", rotation),
        ("drop of an ended scope", ended_scope),
        ("packages of 4,096 small objects", small_objects),
        ("package of the largest objects", largest_objects),
        ("package of conversations of 64", conversations),
        ("1,000 objects wait for one", arrival),
        ("package that names 1,024 scopes", named_scopes),
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
        while self.node.read(|view| view.rows.next_settling()).is_some() {}
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

/// One peer makes objects wait for a later key of its identity, then sends revisions of it.
fn later_key(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    pair.push("rides.offers", pair.rides_under_a_later_key(1000))?;
    let revisions = pair.revisions(1000)?;
    pair.hold(|pair| pair.push("identities", revisions))
}

/// Nine more peers make objects of one identity wait. Its revisions follow, and then the key.
fn helpers(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let waiting = pair.rides_under_a_later_key(1000);
    pair.push("rides.offers", waiting.clone())?;
    for number in 0..9 {
        let helper = TestNode::new(&format!("helper {number}"), 0);
        meet(&pair.node, &helper);
        let sent = helper.force(&pair.node, "rides.offers", waiting.clone());
        sent.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    }
    let revisions = pair.revisions(100)?;
    let (keys, identity) = (pair.peer.keys.clone(), pair.peer.identity);
    pair.hold(|pair| {
        pair.push("identities", revisions)?;
        keys.rotate(identity, &mut rand::rng())?;
        while pair
            .peer
            .write(move |core, now| core.rotation_step(now, identity))?
        {}
        pair.push("identities", pair.revisions(1)?)
    })
}

fn forged(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let forge = |number| sign_with_unknown_key(&pair.ride(number));
    let objects = (0..PACKAGE).map(forge).collect();
    pair.hold(|pair| pair.push("rides.offers", objects))
}

fn faulty(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let object = |number| {
        let object = pair.ride(number);
        pair.peer.sign(&Object {
            attrs: Some(Attrs::new()),
            ..object
        })
    };
    let objects = (0..PACKAGE).map(object).collect();
    pair.hold(|pair| pair.push("rides.offers", objects))
}

fn wrong_chains(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let records = (0..RECORDS)
        .map(|number| long_record(number, false))
        .collect();
    pair.hold(|pair| pair.push("identities", records))
}

fn long_chains(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let records = (0..RECORDS)
        .map(|number| long_record(number, true))
        .collect();
    pair.hold(|pair| pair.push("identities", records))
}

/// Writes objects of the node's identity, each as a change group of its own.
pub(crate) fn write_many(
    pair: &Pair,
    count: usize,
    (app, type_number): (&'static str, u16),
    attrs: impl Fn(usize) -> Attrs + Clone + Send + 'static,
) -> Result<()> {
    let (context, owner) = (
        pair.node.context(pair.node.identity, app),
        pair.node.identity,
    );
    for start in (0..count).step_by(1000) {
        let (context, attrs) = (context.clone(), attrs.clone());
        pair.node.graph(move |graph| {
            for number in start..count.min(start + 1000) {
                let request = WriteRequest {
                    app: app.into(),
                    type_number,
                    oid: None,
                    owner,
                    attrs: Some(attrs(number)),
                };
                graph.save_with_sync(&context, request)?;
                graph.end_group();
            }
            Ok::<_, SaveError>(())
        })?;
    }
    Ok(())
}

fn rotation(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let people = [pair.node.identity, pair.peer.identity];
    let talk = pair.node.make("messages", 1, conversation(&people))?.oid;
    let text = move |number| message(talk, &format!("message {number}"));
    write_many(&pair, scale.messages, ("messages", 2), text)?;
    let identity = pair.node.identity;
    pair.node.keys.rotate(identity, &mut rand::rng())?;
    pair.hold(|pair| {
        while pair
            .node
            .write(move |core, now| core.rotation_step(now, identity))?
        {}
        Ok(())
    })
}

/// An app with folders that can be deleted, and pages in a folder.
const WIKI: &str = r#"
slug = "wiki"
version = 1
[[type]]
number = 1
name = "wiki.folder"
visibility = { participants_here = "members" }
  [[type.attr]]
  number = 1
  name = "members"
  kind = "identity"
  min = 1
  max = 8
[[type]]
number = 2
name = "wiki.page"
visibility = { participants = "folder" }
  [[type.attr]]
  number = 1
  name = "folder"
  kind = { parent = "wiki.folder" }
  [[type.attr]]
  number = 2
  name = "text"
  kind = "text"
  bytes_max = 1000
[[domain]]
name = "wiki"
parent_types = ["wiki.folder", "wiki.page"]
mode = "allow_update"
"#;

/// Drops what the peer sent of a folder.
fn ended_scope(scale: &Scale<'_>) -> Result<f64> {
    let schemas = TempDir::new()?;
    std::fs::write(schemas.path().join("wiki.toml"), WIKI)?;
    let setup = |setup: Setup| {
        setup
            .apps(&["identities", "wiki"])
            .schema_dir(schemas.path())
    };
    let pair = Pair::with(scale, setup)?;
    let owner = pair.peer.identity;
    let members = [owner, pair.node.identity];
    let members = Attrs::from([(1, members.iter().map(Value::from).collect())]);
    let folder = pair.node.make("wiki", 1, members)?.oid;
    let place = Place::In(folder);
    let parts = OidParts {
        owner: &owner,
        app: "wiki",
        type_number: 2,
        place: &place,
    };
    let page = |number: usize| {
        let salt = (number as u64).to_be_bytes();
        let values = [
            (1, vec![Value::from(&folder)]),
            (2, vec![Value::from("page")]),
        ];
        pair.peer.sign(&Object {
            rev: 1,
            attrs: Some(Attrs::from(values)),
            ..Object::create(&parts, START, salt)
        })
    };
    for start in (0..scale.messages).step_by(2000) {
        let end = scale.messages.min(start + 2000);
        pair.push("wiki", (start..end).map(page).collect())?;
    }
    pair.hold(|pair| {
        pair.node.change("wiki", 1, folder, None)?;
        while pair.node.write(|core, now| core.drop_ended_step(now))? {}
        Ok(())
    })
}

/// Fills the write-ahead log several times, so that checkpoints fall into the measurement.
fn small_objects(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let package = |number: usize| {
        let rides = number * PACKAGE..(number + 1) * PACKAGE;
        let sign = |number| pair.peer.sign(&pair.ride(number));
        rides.map(sign).collect::<Vec<_>>()
    };
    let packages: Vec<_> = (0..scale.packages).map(package).collect();
    pair.hold(|pair| {
        let push = |package| pair.push("rides.offers", package);
        packages.into_iter().try_for_each(push)
    })
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

fn largest_objects(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let (talk, messages) = talk(&pair, (0..58).map(|_| "x".repeat(16_384)));
    pair.push("messages", vec![talk])?;
    pair.hold(|pair| pair.push("messages", messages))
}

fn conversations(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let owner = pair.peer.identity;
    let others = (0..62).map(|number| Oid::from_bytes([number; 16]));
    let people: Vec<_> = [owner, pair.node.identity]
        .into_iter()
        .chain(others)
        .collect();
    let make = |number: u64| {
        let (salt, attrs) = (number.to_be_bytes(), conversation(&people));
        let talk = salted(("messages", 1), salt, owner, 1, Some(attrs));
        pair.peer.sign(&talk)
    };
    let objects = (0..700).map(make).collect();
    pair.hold(|pair| pair.push("messages", objects))
}

fn arrival(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let (talk, messages) = talk(&pair, (0..1000).map(|number| format!("message {number}")));
    pair.push("messages", messages)?;
    pair.hold(|pair| pair.push("messages", vec![talk]))
}

/// A package that names as many scopes as it may.
fn named_scopes(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let name = |number: usize| {
        let mut oid = [7; 16];
        oid[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Oid::from_bytes(oid)
    };
    let scopes = (0..SCOPES_NAMED_MAX).map(name).collect();
    let package = Package {
        scopes: Some(scopes),
        ..pair
            .peer
            .package(&pair.node, "messages", (0, 1), Vec::new())
    };
    let bytes = package.sign(&pair.peer.keys);
    pair.hold(|pair| {
        let taken = pair.node.take(&pair.peer, &bytes);
        taken.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        Ok(())
    })
}
