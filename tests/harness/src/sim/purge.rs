//! Operators that ban or remove peers in a simulation, with and without a purge.
//!
//! In the end all bans are lifted, and removed peers are trusted again. The oracle then demands
//! that nothing is lost for good. Before, no purged oid is stored while its verdict lasts. No row
//! refers to a missing one, and each account counts what is stored.

use std::collections::{BTreeMap, BTreeSet};

use keys::PeerId;
use postern::graph::load_object;
use postern::object::CoreRecord;
use postern::op_context::Timestamp;
use postern::peer::EndCode;
use postern::services::removals::{self, RemovalError};
use postern::services::verdicts::{self, Reason, VerdictError};
use postern::store::{Account, Usage, WriteMode, check_whole};
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use rusqlite::{Connection, OpenFlags};

use super::scenario::Feature;
use super::world::World;
use crate::live::LiveNode;

/// Bytes that an entry of a rights list counts.
const ENTRY_CHARGE: usize = 64;

/// Stored objects that a purge removed, while the verdict lasts. The name of an app's table
/// replaces `TABLE`.
const PURGED: &str = "SELECT hex(q.oid) FROM purged AS q
    JOIN purge AS g ON g.peer_no = q.peer_no AND g.state = 'done'
    JOIN TABLE AS p ON p.oid = q.oid
    JOIN peers AS e ON e.id = q.peer_no
    LEFT JOIN verdict AS v ON v.peer_id = e.peer_id
    WHERE q.kind < 2 AND p.rev > 0 AND (g.is_ban = 0 AND e.tier <> 'trusted'
      OR g.is_ban = 1 AND v.verdict = 'banned' AND (v.until IS NULL OR v.until > ?1))";

impl World {
    /// The operator of a node bans or removes a peer.
    pub(super) fn purge(&mut self, node: usize) {
        let peers = 0..self.nodes.len();
        let peers: Vec<usize> = peers
            .filter(|peer| *peer != node && self.knows(node, *peer))
            .collect();
        let dice = self.rng.random_range(0..10);
        let seconds = self.rng.random_range(5..400);
        let live = self.up(node).unwrap();
        let (mode, now) = (live.write_mode(), live.clock.timestamp());
        let Some(other) = peers.choose(&mut self.rng).copied() else {
            return;
        };
        if mode != WriteMode::ReadWrite {
            return;
        }
        self.purgers.insert(node);
        let onion = self.nodes[other].onion;
        let live = self.up(node).unwrap();
        let quotas = live.limits().quotas;
        let Some(peer) = peer_at(live, onion) else {
            return;
        };
        let until = Some(Timestamp(now.0 + seconds * 1000));
        let done: Result<(), RemovalError> = live.graph(move |graph| {
            match dice {
                0..2 => drop(verdicts::ban(graph, peer, Reason::default(), until)?),
                2..7 => {
                    let until = (Reason::default(), until);
                    drop(removals::ban_and_purge(graph, &quotas, peer, until)?);
                }
                _ => drop(removals::remove(graph, &quotas, peer, dice > 7)?),
            }
            Ok(())
        });
        match done {
            Ok(()) => {}
            // A removed peer has not come again.
            Err(RemovalError::Unknown | RemovalError::Recovering) => return,
            Err(error) => panic!("node {node} could not ban or remove {other}: {error:?}"),
        }
        if dice >= 7 {
            live.dialler.leave(&onion);
            self.left.insert((node, other));
        }
        let live = self.up(node);
        if let Some(live) = live {
            live.peers.registry().end(&peer, EndCode::Refused);
        }
    }

    /// Nothing that was purged is stored while its verdict lasts.
    pub(super) fn check_purged(&self) -> Result<(), String> {
        for number in 0..self.nodes.len() {
            let Some(node) = self.up(number) else {
                continue;
            };
            let connection = open(node);
            for app in node.apps() {
                let sql = PURGED.replace("TABLE", &format!("app_{app}_parent"));
                let mut statement = connection.prepare(&sql).unwrap();
                let mut found = statement.query([node.clock.timestamp().0]).unwrap();
                if let Some(row) = found.next().unwrap() {
                    let oid: String = row.get(0).unwrap();
                    return Err(format!("node {number} stores the purged {oid} of {app}"));
                }
            }
        }
        Ok(())
    }

    /// Lifts all bans, and trusts removed peers again.
    pub(super) fn end_verdicts(&mut self) {
        for number in self.purgers.clone() {
            for other in 0..self.nodes.len() {
                if other == number || !self.knows(number, other) {
                    continue;
                }
                let onion = self.nodes[other].onion;
                let peer = self.up(other).unwrap().peer_id();
                let node = self.up(number).unwrap();
                match node.graph(move |graph| verdicts::unban(graph, peer)) {
                    Ok(_) | Err(VerdictError::NotExcluded) => {}
                    Err(error) => panic!("node {number} could not lift a ban: {error:?}"),
                }
                node.graph::<_, VerdictError>(move |graph| verdicts::approve(graph, peer))
                    .unwrap();
                if self.left.contains(&(number, other)) {
                    node.dialler.keep(onion);
                }
            }
        }
    }

    /// No row refers to a missing one, and each account holds what is stored.
    pub(super) fn check_whole(&self, number: usize) -> Result<(), String> {
        let node = self.up(number).unwrap();
        check_whole(&node.database()).map_err(|error| format!("node {number}: {error}"))?;
        let forks = [
            Feature::Hostile,
            Feature::Restores,
            Feature::Rollbacks,
            Feature::Moves,
        ];
        // The bytes of a list that lost a fork are not known any more.
        if forks.into_iter().any(|feature| self.has(feature)) {
            return Ok(());
        }
        let counted = accounts(node);
        let stored = recounted(node);
        if counted != stored {
            return Err(format!(
                "node {number} counts {counted:?} and stores {stored:?}"
            ));
        }
        Ok(())
    }
}

type Accounts = BTreeMap<(PeerId, Option<Vec<u8>>), (i64, i64)>;

fn open(node: &LiveNode) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    Connection::open_with_flags(node.database(), flags).unwrap()
}

/// The peer that a node reached or admitted with an onion address.
fn peer_at(node: &LiveNode, onion: keys::OnionAddr) -> Option<PeerId> {
    let peers = node.read(|view| view.rows.peers());
    peers
        .into_iter()
        .find(|it| it.onion == onion)
        .map(|it| it.peer_id)
}

/// The accounts as they are stored, without empty ones.
fn accounts(node: &LiveNode) -> Accounts {
    let connection = open(node);
    let mut statement = connection
        .prepare(
            "SELECT peer_id, NULL, stored_objects, stored_bytes FROM peers
             UNION ALL SELECT p.peer_id, u.account, u.objects, u.bytes
             FROM relayed_usage AS u JOIN peers AS p ON p.id = u.peer_no",
        )
        .unwrap();
    let rows = statement.query_map([], |row| {
        let peer = PeerId::from_bytes(row.get(0)?);
        Ok(((peer, row.get(1)?), (row.get(2)?, row.get(3)?)))
    });
    let rows = rows.unwrap().map(Result::unwrap);
    rows.filter(|(_, usage)| *usage != (0, 0)).collect()
}

/// The accounts, counted again.
fn recounted(node: &LiveNode) -> Accounts {
    let mut sums = Accounts::new();
    let mut add = |peer: PeerId, account: Option<Vec<u8>>, usage: Usage| {
        let sum = sums.entry((peer, account)).or_default();
        sum.0 += usage.objects;
        sum.1 += usage.bytes;
    };
    let entries = ended_entries(node);
    for (oid, stored) in node.stored_objects() {
        let Some(sender) = stored.origin else {
            continue;
        };
        let app = stored.app.clone();
        let (account, bytes) = node.read(move |view| {
            let app = view.rows.apps().get(&app).unwrap();
            let row = view.rows.parent(app, &oid)?.unwrap();
            let (object, signed) = load_object(&view.rows, app, &row)?;
            let entries = match CoreRecord::read(&object) {
                Some(Ok(record)) => record.entries(),
                _ => 0,
            };
            let bytes = match row.rev {
                0 => 0,
                _ => signed.bytes().len() + ENTRY_CHARGE * entries,
            };
            Ok((row.account, bytes))
        });
        let dropped = entries.get(oid.as_bytes().as_slice()).copied().unwrap_or(0);
        let bytes = bytes + ENTRY_CHARGE * if stored.rev == 0 { dropped } else { 0 };
        let account = match account {
            Account::Own => None,
            Account::Author(author) => Some(author.as_bytes().to_vec()),
            Account::Shared => Some(Vec::new()),
            Account::Unmetered => continue,
        };
        add(sender, account, Usage::one(bytes));
    }
    let connection = open(node);
    let others = "SELECT p.peer_id, w.account, length(w.bytes) FROM waiting AS w
         JOIN peers AS p ON p.id = w.peer_no WHERE w.is_reclaimed = 0
         UNION ALL SELECT peer_id, NULL, 0 FROM sync_rejects WHERE peer_id <> x''
         UNION ALL SELECT p.peer_id, NULL, 0 FROM forgotten_key AS k
         JOIN peers AS p ON p.id = k.peer_no";
    let mut statement = connection.prepare(others).unwrap();
    let rows = statement.query_map([], |row| {
        let peer = PeerId::from_bytes(row.get(0)?);
        Ok((peer, row.get(1)?, row.get::<_, usize>(2)?))
    });
    for row in rows.unwrap() {
        let (peer, account, bytes) = row.unwrap();
        add(peer, account, Usage::one(bytes));
    }
    sums
}

/// The entries of rights lists whose objects have no values any more, by the oids of the objects.
fn ended_entries(node: &LiveNode) -> BTreeMap<Vec<u8>, usize> {
    let connection = open(node);
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for app in node.apps() {
        let sql = format!(
            "SELECT p.oid, l.id, COUNT(*) FROM app_{app}_parent AS p
             JOIN scope AS s ON s.id = p.scope_id
             JOIN app AS a ON a.id = s.app_id AND a.slug = '{app}'
             JOIN rights_list AS l ON l.scope_id = s.id AND l.parent_id = p.id
             JOIN rights_entry AS e ON e.list_id = l.id
             WHERE p.rev = 0 GROUP BY p.oid, l.id"
        );
        let mut statement = connection.prepare(&sql).unwrap();
        let rows = statement.query_map([], |row| {
            Ok((
                row.get::<_, Vec<u8>>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, usize>(2)?,
            ))
        });
        for row in rows.unwrap() {
            let (oid, list, entries) = row.unwrap();
            if seen.insert(list) {
                *found.entry(oid).or_default() += entries;
            }
        }
    }
    found
}
