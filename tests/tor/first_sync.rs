//! A first sync over onion services in which each of both processes is killed once, at a moment at
//! which it has work left. Both databases are compared row by row afterwards.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::compare;
use harness::process::NodeProcess;
use keys::{KeyManager, Oid, Passphrase};
use postern::config::Config;
use postern::data_dir::DataDir;
use postern::op_context::Timestamp;
use postern::schema::Schemas;
use postern::services::messages::{self, SendError};
use postern::state_engine::{CoreLimits, StateEngine};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use serde_json::json;

use super::{Two, knows_untrusted, pulled, reachable, start_network};

/// Each message is a row, and its three values are one each.
const MESSAGES: usize = 25_000;
const ROWS_MIN: usize = 100_000;
const BODY_BYTES: usize = 600;
/// Messages that one transaction writes.
const BATCH: usize = 250;
const SYNC_DEADLINE: Duration = Duration::from_secs(240);

/// Writes all messages into the database of a stopped node. Returns the last sequence number.
fn fill(node: &NodeProcess, sender: Oid, recipient: Oid) -> u64 {
    let config = Config::load(&node.config()).unwrap();
    let data = DataDir::of(&config);
    let word = std::fs::read_to_string(node.passphrase()).unwrap();
    let passphrase = Passphrase::from_string(word.trim_end().to_owned());
    let keys = Arc::new(KeyManager::open(&data.keys(), &passphrase).unwrap());
    let schemas = Schemas::load(&config.node.apps, config.schema_dir().as_deref()).unwrap();
    let rng = Box::new(ChaCha20Rng::from_seed([7; 32]));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = Timestamp(u64::try_from(since.as_millis()).unwrap());
    let (database, schemas, limits) = (data.database(), Arc::new(schemas), CoreLimits::default());
    let mut core = StateEngine::open(&database, schemas, keys, limits, rng, now).unwrap();
    for batch in 0..MESSAGES / BATCH {
        let sent = core.write(now, |graph| {
            for number in 0..BATCH {
                graph.end_group();
                let number = batch * BATCH + number;
                let body = format!("{number:0BODY_BYTES$}");
                messages::send(graph, sender, recipient, &body)?;
            }
            Ok::<_, SendError>(())
        });
        sent.unwrap();
        core.bound_log().unwrap();
    }
    core.change_seq()
}

fn database(node: &NodeProcess) -> std::path::PathBuf {
    DataDir::at(&node.folder).database()
}

/// The number of objects and values of messages.
fn message_rows(database: &Path) -> usize {
    let rows = compare::portable_rows(database);
    rows.iter()
        .filter(|row| row.starts_with("\"messages\""))
        .count()
}

fn parse(oid: &str) -> Oid {
    oid.parse().unwrap()
}

/// Waits until a node has pulled beyond `after`. Returns how far, which must not be the end.
fn pulled_beyond(node: &mut NodeProcess, after: u64, last: u64) -> u64 {
    let reached = node.until("the sync goes on", SYNC_DEADLINE, |node| {
        let reached = pulled(node, "messages");
        (reached > after).then_some(reached)
    });
    assert!(
        reached < last,
        "the sync ended before the process was killed"
    );
    reached
}

#[test]
fn first_sync_of_100_000_rows_survives_sigkill_of_either_process() {
    let (_runtime, _network, tor) = start_network();
    let folder = tempfile::tempdir().unwrap();
    let sync = json!({ "pull_interval_s": 1, "pull_wait_s": 30 });
    let mut two = Two::start(folder.path(), &tor, &sync);
    // A must know B's identity to write to it.
    two.b_dials_a();
    let b_identity = two.b_identity.clone();
    let knows_b = |node: &NodeProcess| knows_untrusted(node, &b_identity);
    two.a
        .until("A knows B's identity", Duration::from_secs(30), knows_b);
    two.a.stop();
    two.b.stop();
    let last = fill(&two.a, parse(&two.a_identity), parse(&two.b_identity));
    let (of_a, of_b) = (database(&two.a), database(&two.b));
    assert!(message_rows(&of_a) >= ROWS_MIN);

    two.a.start();
    reachable(&mut two.a);
    two.b.start();
    pulled_beyond(&mut two.b, 0, last);
    two.b.kill();
    let first = compare::pulled(&of_b, "messages");
    assert!(
        (1..last).contains(&first),
        "B was killed during the sync: {first} of {last}"
    );

    two.b.start();
    pulled_beyond(&mut two.b, first, last);
    two.a.kill();
    let second = pulled(&two.b, "messages");
    assert!(
        second > first && second < last,
        "A was killed during the sync: {second} of {last}"
    );

    two.a.start();
    reachable(&mut two.a);
    two.b.until("the sync is finished", SYNC_DEADLINE, |node| {
        (pulled(node, "messages") >= last).then_some(())
    });
    two.a.stop();
    two.b.stop();
    let (rows_of_a, rows_of_b) = (compare::portable_rows(&of_a), compare::portable_rows(&of_b));
    let missing = rows_of_a.difference(&rows_of_b).next();
    let added = rows_of_b.difference(&rows_of_a).next();
    assert_eq!((missing, added), (None, None));
    for database in [of_a, of_b] {
        compare::assert_settled(&database);
    }
}
