//! Strangers that worked and wait for the operator's word (docs/DECISIONS.md 6).
//!
//! What they claim is stored as they said it, within bounds that its writer sets. Never holds who was let in. Invariant:
//! at most so many rows as the caller allows, those with the most work; of equals the oldest.

use keys::{OnionAddr, PeerId, PublicKey};
use rusqlite::{Row, params};

use super::peers::{json, names};
use super::{Rows, SqlContext as _, StoreError, WriteTx, fixed};
use crate::op_context::Timestamp;

/// One knock of a stranger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRequest {
    /// Who, proved.
    pub peer_id: PeerId,
    /// Where it is reached, proved to be its own.
    pub onion: OnionAddr,
    /// Apps that it claims.
    pub apps: Vec<String>,
    /// Domains that it claims.
    pub sync_domains: Vec<String>,
    /// What its identities call themselves.
    pub names: Vec<String>,
    /// The work that it did, in expected evaluations.
    pub effort: u64,
}

/// A stranger that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRow {
    /// Its last request, with the most work that it ever did for one.
    pub request: PendingRequest,
    /// When it knocked first.
    pub first_seen: Timestamp,
    /// When it knocked last.
    pub last_seen: Timestamp,
    /// How often.
    pub attempts: u64,
}

/// How many may wait, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct PendingBounds {
    /// Rows at most.
    pub rows_max: usize,
    /// Who has not knocked since then is forgotten.
    pub since: Timestamp,
}

const COLUMNS: &str =
    "peer_id, onion, apps, sync_domains, names, effort, first_seen, last_seen, knocks";

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
    /// Who waits and has knocked since then, longest first.
    pub fn pending(&self, since: Timestamp) -> Result<Vec<PendingRow>, StoreError> {
        let context = "listing pending strangers";
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM pending WHERE last_seen >= ?1 ORDER BY first_seen, peer_id"
            ))
            .context(context)?;
        let rows = statement
            .query_map([since.0], pending_row)
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }

    /// How many wait and have knocked since then.
    pub fn pending_count(&self, since: Timestamp) -> Result<u64, StoreError> {
        let context = "counting pending strangers";
        let mut statement = self
            .connection
            .prepare_cached("SELECT COUNT(*) FROM pending WHERE last_seen >= ?1")
            .context(context)?;
        statement
            .query_row([since.0], |row| row.get(0))
            .context(context)
    }

    /// Whether a stranger waits already, or there is a place for it, or somebody who worked less than this effort.
    pub fn may_wait(
        &self,
        peer: &PeerId,
        effort: u64,
        bounds: &PendingBounds,
    ) -> Result<bool, StoreError> {
        let context = "looking for a place among the pending strangers";
        let mut statement = self
            .connection
            .prepare_cached("SELECT COUNT(*), MIN(effort) FROM pending WHERE last_seen >= ?1")
            .context(context)?;
        let (count, least): (usize, Option<u64>) = statement
            .query_row([bounds.since.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .context(context)?;
        Ok(count < bounds.rows_max
            || least.is_some_and(|least| effort > least)
            || self.is_pending(peer)?)
    }

    fn is_pending(&self, peer: &PeerId) -> Result<bool, StoreError> {
        let context = "looking for a pending stranger";
        let mut statement = self
            .connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM pending WHERE peer_id = ?1)")
            .context(context)?;
        statement
            .query_row([peer.as_bytes()], |row| row.get(0))
            .context(context)
    }
}

impl WriteTx<'_> {
    /// Notes a request, and says whether the stranger waits now: not where all places are taken by strangers that worked
    /// as much, nor where the operator has spoken since it was judged. Forgets whose time is over.
    pub fn put_pending(
        &self,
        request: &PendingRequest,
        now: Timestamp,
        bounds: &PendingBounds,
    ) -> Result<bool, StoreError> {
        let context = "noting a knock";
        if self
            .verdict(&request.peer_id)?
            .is_some_and(|row| row.holds(now))
        {
            return Ok(false);
        }
        self.connection
            .execute("DELETE FROM pending WHERE last_seen < ?1", [bounds.since.0])
            .context(context)?;
        // Looked at before anything is written: a crowd that finds no room costs no flush of the disk.
        if !self.may_wait(&request.peer_id, request.effort, bounds)? {
            return Ok(false);
        }
        self.connection
            .execute(
                &format!(
                    "INSERT INTO pending ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, 1)
                     ON CONFLICT (peer_id) DO UPDATE SET onion = excluded.onion, apps = excluded.apps,
                       sync_domains = excluded.sync_domains, names = excluded.names,
                       effort = max(effort, excluded.effort), last_seen = excluded.last_seen, knocks = knocks + 1"
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
                   SELECT peer_id FROM pending ORDER BY effort DESC, first_seen, peer_id = ?1 LIMIT -1 OFFSET ?2)",
                params![request.peer_id.as_bytes(), bounds.rows_max],
            )
            .context(context)?;
        self.is_pending(&request.peer_id)
    }

    /// A stranger waits no longer. Says whether it did.
    pub fn remove_pending(&self, peer: &PeerId) -> Result<bool, StoreError> {
        let removed = self
            .connection
            .execute("DELETE FROM pending WHERE peer_id = ?1", [peer.as_bytes()])
            .context("forgetting a pending stranger")?;
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

    fn who(store: &Store) -> Vec<u8> {
        let rows = store.rows().pending(Timestamp(0)).unwrap();
        rows.iter()
            .map(|row| row.request.peer_id.as_bytes()[0])
            .collect()
    }

    #[test]
    fn a_knock_is_kept_as_it_was_and_a_further_one_counts() {
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
    fn who_worked_more_takes_the_place_of_who_worked_least_and_of_equals_the_oldest_stays() {
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
        assert_eq!(who(&store), [1, 2, 3]);
        assert!(note(&mut store, &request(4, 11), 4, 3, 0));
        assert_eq!(who(&store), [1, 2, 4]);
        assert!(
            note(&mut store, &request(2, 10), 5, 3, 0),
            "who waits already may knock again"
        );
        assert!(note(&mut store, &request(5, 30), 5, 3, 0));
        assert!(note(&mut store, &request(0, 30), 6, 3, 0));
        assert!(!note(&mut store, &request(6, 20), 6, 3, 0));
        assert_eq!(who(&store), [1, 5, 0]);
        // A bound that was lowered holds from the next knock on.
        assert!(note(&mut store, &request(5, 1), 7, 1, 0));
        assert_eq!(who(&store), [5]);
    }

    #[test]
    fn of_whom_the_operator_has_spoken_meanwhile_does_not_wait() {
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
        assert!(who(&store).is_empty());
        assert!(
            note(&mut store, &request(3, 5), 20, 4, 0),
            "the ban is over"
        );
    }

    #[test]
    fn who_has_not_knocked_for_long_is_forgotten() {
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
            "the place is free"
        );
        assert_eq!(who(&store), [2, 3]);
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
        assert_eq!(who(&store), [3]);
    }
}
