//! Pending requests: nodes that proved work and wait for the operator's approval
//! (docs/DECISIONS.md 6).
//!
//! Claims are stored as received, within the bounds that the caller checked. Only the peer id and
//! the onion address are proved. Invariant: at most [`PendingBounds::rows_max`] rows, those with
//! the most work; among equals the oldest.

use keys::{OnionAddr, PeerId, PublicKey};
use rusqlite::{Row, params};

use super::columns::{fixed, json, names};
use super::error::{SqlContext as _, StoreError};
use super::rows::{Rows, WriteTx};
use crate::op_context::Timestamp;

/// One request of an unadmitted node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRequest {
    /// The node's id, proved.
    pub peer_id: PeerId,
    /// Its onion address, proved.
    pub onion: OnionAddr,
    /// Slugs of the apps that it claims.
    pub apps: Vec<String>,
    /// Names of the domains that it claims.
    pub sync_domains: Vec<String>,
    /// Names that its identities claim.
    pub names: Vec<String>,
    /// Work that it proved, in expected evaluations of the puzzle.
    pub effort: u64,
}

/// A pending request as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRow {
    /// The last request, with the highest effort of all requests of that node.
    pub request: PendingRequest,
    /// Time of the first request.
    pub first_seen: Timestamp,
    /// Time of the last request.
    pub last_seen: Timestamp,
    /// Number of requests.
    pub attempts: u64,
}

/// How many requests may wait, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct PendingBounds {
    /// Most rows.
    pub rows_max: usize,
    /// Requests that were last repeated before this time have expired.
    pub since: Timestamp,
}

const COLUMNS: &str =
    "peer_id, onion, apps, sync_domains, names, effort, first_seen, last_seen, attempts";

fn pending_row(row: &Row<'_>) -> rusqlite::Result<PendingRow> {
    Ok(PendingRow {
        request: PendingRequest {
            peer_id: PeerId::from_bytes(fixed(row, 0)?),
            onion: OnionAddr::from_public_key(PublicKey::from_bytes(fixed(row, 1)?)),
            apps: names(row, 2)?,
            sync_domains: names(row, 3)?,
            names: names(row, 4)?,
            effort: row.get(5)?,
        },
        first_seen: Timestamp(row.get(6)?),
        last_seen: Timestamp(row.get(7)?),
        attempts: row.get(8)?,
    })
}

impl Rows<'_> {
    /// The requests that were repeated since a time, the longest waiting first.
    pub fn pending(&self, since: Timestamp) -> Result<Vec<PendingRow>, StoreError> {
        let mut statement = self.prepare(
            "listing pending requests",
            &format!(
                "SELECT {COLUMNS} FROM pending WHERE last_seen >= ?1 ORDER BY first_seen, peer_id"
            ),
        )?;
        statement.all([since.0], pending_row)
    }

    /// The number of requests that were repeated since a time.
    pub fn pending_count(&self, since: Timestamp) -> Result<u64, StoreError> {
        let mut statement = self.prepare(
            "counting pending requests",
            "SELECT COUNT(*) FROM pending WHERE last_seen >= ?1",
        )?;
        statement.one([since.0], |row| row.get(0))
    }

    /// Whether a request of that effort would be stored: the node waits already, a slot is free, or
    /// another request has a lower effort.
    pub fn may_wait(
        &self,
        peer: &PeerId,
        effort: u64,
        bounds: &PendingBounds,
    ) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for a slot for a pending request",
            "SELECT COUNT(*), MIN(effort) FROM pending WHERE last_seen >= ?1",
        )?;
        let (count, least): (usize, Option<u64>) =
            statement.one([bounds.since.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(count < bounds.rows_max
            || least.is_some_and(|least| effort > least)
            || self.is_pending(peer)?)
    }

    fn is_pending(&self, peer: &PeerId) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for a pending request",
            "SELECT EXISTS (SELECT 1 FROM pending WHERE peer_id = ?1)",
        )?;
        statement.one([peer.as_bytes()], |row| row.get(0))
    }
}

impl WriteTx<'_> {
    /// Stores a request, and returns whether the node is pending now. Deletes expired requests.
    ///
    /// Refuses the request if all slots hold requests of at least its effort. Refuses it too if the
    /// operator has decided on the node since admission judged it.
    pub fn put_pending(
        &self,
        request: &PendingRequest,
        now: Timestamp,
        bounds: &PendingBounds,
    ) -> Result<bool, StoreError> {
        let context = "writing a pending request";
        if self
            .verdict(&request.peer_id)?
            .is_some_and(|row| row.holds(now))
        {
            return Ok(false);
        }
        self.connection
            .execute("DELETE FROM pending WHERE last_seen < ?1", [bounds.since.0])
            .context(context)?;
        // Checked before the write, so that a refused request costs no disk flush.
        if !self.may_wait(&request.peer_id, request.effort, bounds)? {
            return Ok(false);
        }
        self.connection
            .execute(
                &format!(
                    "INSERT INTO pending ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, 1)
                     ON CONFLICT (peer_id) DO UPDATE SET
                       onion = excluded.onion, apps = excluded.apps,
                       sync_domains = excluded.sync_domains, names = excluded.names,
                       effort = max(effort, excluded.effort),
                       last_seen = excluded.last_seen, attempts = attempts + 1"
                ),
                params![
                    request.peer_id.as_bytes(),
                    request.onion.public_key().as_bytes(),
                    json(&request.apps),
                    json(&request.sync_domains),
                    json(&request.names),
                    request.effort,
                    now.0
                ],
            )
            .context(context)?;
        self.connection
            .execute(
                "DELETE FROM pending WHERE peer_id IN (
                   SELECT peer_id FROM pending
                   ORDER BY effort DESC, first_seen, peer_id = ?1 LIMIT -1 OFFSET ?2)",
                params![request.peer_id.as_bytes(), bounds.rows_max],
            )
            .context(context)?;
        self.is_pending(&request.peer_id)
    }

    /// Deletes the request of a node. Returns whether there was one.
    pub fn remove_pending(&self, peer: &PeerId) -> Result<bool, StoreError> {
        let removed = self
            .connection
            .execute("DELETE FROM pending WHERE peer_id = ?1", [peer.as_bytes()])
            .context("deleting a pending request")?;
        Ok(removed > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::Folder;
    use crate::store::{Store, Verdict, VerdictRow};

    fn request(number: u8, effort: u64) -> PendingRequest {
        PendingRequest {
            peer_id: PeerId::from_bytes([number; 32]),
            onion: OnionAddr::from_public_key(PublicKey::from_bytes([number; 32])),
            apps: vec!["rides".into()],
            sync_domains: vec!["rides.offers".into()],
            names: vec![format!("name {number} \u{1b}[2J \"")],
            effort,
        }
    }

    fn note(
        store: &mut Store,
        request: &PendingRequest,
        now: u64,
        rows_max: usize,
        since: u64,
    ) -> bool {
        let bounds = PendingBounds {
            rows_max,
            since: Timestamp(since),
        };
        store
            .transaction(|tx| tx.put_pending(request, Timestamp(now), &bounds))
            .unwrap()
    }

    fn pending(store: &Store) -> Vec<u8> {
        let rows = store.rows().pending(Timestamp(0)).unwrap();
        rows.iter()
            .map(|row| row.request.peer_id.as_bytes()[0])
            .collect()
    }

    #[test]
    fn stores_a_request_as_received_and_counts_repeats() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        assert!(note(&mut store, &request(1, 50), 10, 4, 0));
        let again = PendingRequest {
            apps: vec!["market".into(), "rides".into()],
            ..request(1, 20)
        };
        assert!(note(&mut store, &again, 30, 4, 0));
        let expected = PendingRow {
            request: PendingRequest {
                effort: 50,
                ..again
            },
            first_seen: Timestamp(10),
            last_seen: Timestamp(30),
            attempts: 2,
        };
        assert_eq!(store.rows().pending(Timestamp(0)).unwrap(), [expected]);
    }

    #[test]
    fn higher_effort_evicts_the_lowest_and_among_equals_the_oldest_stays() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        for (number, effort) in [(1, 20), (2, 10), (3, 10)] {
            assert!(note(
                &mut store,
                &request(number, effort),
                u64::from(number),
                3,
                0
            ));
        }
        assert!(
            !note(&mut store, &request(4, 10), 4, 3, 0),
            "as much as the least"
        );
        assert!(!note(&mut store, &request(4, 0), 4, 3, 0));
        assert_eq!(pending(&store), [1, 2, 3]);
        assert!(note(&mut store, &request(4, 11), 4, 3, 0));
        assert_eq!(pending(&store), [1, 2, 4]);
        assert!(
            note(&mut store, &request(2, 10), 5, 3, 0),
            "a pending node may repeat its request"
        );
        assert!(note(&mut store, &request(5, 30), 5, 3, 0));
        assert!(note(&mut store, &request(0, 30), 6, 3, 0));
        assert!(!note(&mut store, &request(6, 20), 6, 3, 0));
        assert_eq!(pending(&store), [1, 5, 0]);
        // A lowered bound takes effect with the next request.
        assert!(note(&mut store, &request(5, 1), 7, 1, 0));
        assert_eq!(pending(&store), [5]);
    }

    #[test]
    fn refuses_the_request_of_a_node_with_a_verdict() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        let verdicts = [Verdict::Approved, Verdict::Refused, Verdict::Banned];
        for (number, verdict) in (1..).zip(verdicts) {
            let row = VerdictRow {
                peer_id: PeerId::from_bytes([number; 32]),
                verdict,
                reason: String::new(),
                at: Timestamp(5),
                until: Some(Timestamp(20)),
                tickets_void_until: 0,
            };
            store.transaction(|tx| tx.put_verdict(&row)).unwrap();
            assert!(!note(&mut store, &request(number, 5), 10, 4, 0));
        }
        assert!(pending(&store).is_empty());
        assert!(
            note(&mut store, &request(3, 5), 20, 4, 0),
            "the ban has ended"
        );
    }

    #[test]
    fn expired_requests_are_neither_listed_nor_kept() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        for (number, now) in [(1, 100), (2, 200)] {
            note(&mut store, &request(number, 5), now, 2, 0);
        }
        let since = Timestamp(101);
        assert_eq!(store.rows().pending(since).unwrap().len(), 1);
        assert_eq!(store.rows().pending_count(since).unwrap(), 1);
        assert!(
            note(&mut store, &request(3, 1), 300, 2, 101),
            "the slot is free"
        );
        assert_eq!(pending(&store), [2, 3]);
        assert!(
            store
                .transaction(|tx| tx.remove_pending(&PeerId::from_bytes([2; 32])))
                .unwrap()
        );
        assert!(
            !store
                .transaction(|tx| tx.remove_pending(&PeerId::from_bytes([2; 32])))
                .unwrap()
        );
        assert_eq!(pending(&store), [3]);
    }
}
