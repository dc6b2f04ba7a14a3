//! Verdicts: the operator's decisions on nodes (docs/DECISIONS.md 6).
//!
//! Keyed by peer id alone, so that a verdict survives restarts and every key change of the node.
//! The gatekeeper applies them. Invariants: one verdict for each `peer_id`; `tickets_void_until`
//! never decreases.

use keys::{OnionAddr, PeerId};
use rusqlite::Row;

use super::columns::fixed;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use crate::op_context::Timestamp;

/// A decision of the operator on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Admit the node, and trust it.
    Approved,
    /// Do not admit the node until the verdict ends.
    Refused,
    /// Do not admit or dial the node until the verdict ends, whatever it proves.
    Banned,
}

impl Verdict {
    /// The value of the column `verdict`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::Banned => "banned",
        }
    }
}

/// A verdict as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictRow {
    /// The node.
    pub peer_id: PeerId,
    /// The decision.
    pub verdict: Verdict,
    /// The operator's reason, empty if none was given. The node does not receive it.
    pub reason: String,
    /// Time of the decision.
    pub at: Timestamp,
    /// Time at which it ends. `None`: never.
    pub until: Option<Timestamp>,
    /// Tickets that this node issued to the peer up to this time are void. Unix seconds; 0: none
    /// is.
    pub tickets_void_until: u64,
}

impl VerdictRow {
    /// Whether the verdict has not ended.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

const COLUMNS: &str = "peer_id, verdict, reason, at, until, tickets_void_until";

fn verdict_row(row: &Row<'_>) -> rusqlite::Result<VerdictRow> {
    Ok(VerdictRow {
        peer_id: PeerId::from_bytes(fixed(row, 0)?),
        // A CHECK constraint allows three values.
        verdict: match row.get::<_, String>(1)?.as_str() {
            "approved" => Verdict::Approved,
            "refused" => Verdict::Refused,
            _ => Verdict::Banned,
        },
        reason: row.get(2)?,
        at: Timestamp(row.get(3)?),
        until: row.get::<_, Option<u64>>(4)?.map(Timestamp),
        tickets_void_until: row.get(5)?,
    })
}

impl Rows<'_> {
    /// The last verdict on a node, even if it has ended.
    pub fn verdict(&self, peer: &PeerId) -> Result<Option<VerdictRow>, StoreError> {
        let mut statement = self.prepare(
            "reading a verdict",
            &format!("SELECT {COLUMNS} FROM verdict WHERE peer_id = ?1"),
        )?;
        statement.first([peer.as_bytes()], verdict_row)
    }

    /// Whether a node is banned now.
    pub fn is_banned(&self, peer: &PeerId, now: Timestamp) -> Result<bool, StoreError> {
        let verdict = self.verdict(peer)?;
        Ok(verdict.is_some_and(|row| row.verdict == Verdict::Banned && row.holds(now)))
    }

    /// Whether any peer that was last reached at an onion address is banned now.
    pub fn is_banned_at(&self, onion: &OnionAddr, now: Timestamp) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for a ban by onion address",
            "SELECT EXISTS (SELECT 1 FROM peers JOIN verdict USING (peer_id)
             WHERE onion = ?1 AND verdict = 'banned' AND (until IS NULL OR until > ?2))",
        )?;
        statement.one((onion.public_key().as_bytes(), now.0), |row| row.get(0))
    }

    /// The number of verdicts of a kind that have not ended.
    pub fn verdict_count(&self, verdict: Verdict, now: Timestamp) -> Result<u64, StoreError> {
        let mut statement = self.prepare(
            "counting verdicts",
            "SELECT COUNT(*) FROM verdict WHERE verdict = ?1 AND (until IS NULL OR until > ?2)",
        )?;
        statement.one((verdict.as_str(), now.0), |row| row.get(0))
    }

    /// The verdicts that have not ended, newest first.
    pub fn verdicts(&self, now: Timestamp) -> Result<Vec<VerdictRow>, StoreError> {
        let mut statement = self.prepare(
            "listing verdicts",
            &format!(
                "SELECT {COLUMNS} FROM verdict WHERE until IS NULL OR until > ?1
                 ORDER BY at DESC, peer_id"
            ),
        )?;
        statement.all([now.0], verdict_row)
    }

    /// The nodes whose id begins with these hexadecimal digits, among peers, pending requests and
    /// verdicts. Returns at most 2, which suffices to tell that a prefix is ambiguous.
    pub fn peers_by_prefix(&self, prefix: &str) -> Result<Vec<PeerId>, StoreError> {
        let mut statement = self.prepare(
            "looking for a node by a prefix of its id",
            "SELECT peer_id FROM (
               SELECT peer_id FROM peers UNION SELECT peer_id FROM pending
               UNION SELECT peer_id FROM verdict)
             WHERE substr(lower(hex(peer_id)), 1, length(?1)) = lower(?1) LIMIT 2",
        )?;
        statement.all([prefix], |row| Ok(PeerId::from_bytes(fixed(row, 0)?)))
    }
}

impl WriteTx<'_> {
    /// Stores the verdict on a node, and replaces an earlier one. Void tickets stay void. Notes
    /// when a ban ends.
    pub fn put_verdict(&self, row: &VerdictRow) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing a verdict",
            &format!(
                "INSERT INTO verdict ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (peer_id) DO UPDATE SET
                   verdict = excluded.verdict, reason = excluded.reason, at = excluded.at,
                   until = excluded.until,
                   tickets_void_until = max(tickets_void_until, excluded.tickets_void_until)"
            ),
        )?;
        statement.execute((
            row.peer_id.as_bytes(),
            row.verdict.as_str(),
            &row.reason,
            row.at.0,
            row.until.map(|until| until.0),
            row.tickets_void_until,
        ))?;
        match row.verdict {
            Verdict::Banned => self.note_end_of_ban(&row.peer_id, row.until),
            Verdict::Approved | Verdict::Refused => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::PeerRow;
    use crate::store::testing::Folder;
    use bastion::Tier;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn row(number: u8, verdict: Verdict, until: Option<u64>) -> VerdictRow {
        VerdictRow {
            peer_id: PeerId::from_bytes([number; 32]),
            verdict,
            reason: format!("reason {number}"),
            at: Timestamp(u64::from(number)),
            until: until.map(Timestamp),
            tickets_void_until: 0,
        }
    }

    #[test]
    fn replaces_the_verdict_and_lists_only_verdicts_that_have_not_ended() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        let rows = [
            row(1, Verdict::Approved, None),
            row(2, Verdict::Refused, Some(NOW.0)),
            row(3, Verdict::Banned, Some(NOW.0 + 1)),
            row(4, Verdict::Refused, None),
        ];
        store
            .transaction(|tx| rows.iter().try_for_each(|row| tx.put_verdict(row)))
            .unwrap();
        let again = row(4, Verdict::Banned, None);
        store.transaction(|tx| tx.put_verdict(&again)).unwrap();
        let read = store.rows();
        assert_eq!(read.verdict(&again.peer_id).unwrap().unwrap(), again);
        assert_eq!(
            read.verdicts(NOW).unwrap(),
            [again.clone(), rows[2].clone(), rows[0].clone()]
        );
        let banned = |number| {
            read.is_banned(&PeerId::from_bytes([number; 32]), NOW)
                .unwrap()
        };
        assert_eq!(
            [1, 2, 3, 4, 5].map(banned),
            [false, false, true, true, false]
        );
        assert_eq!(read.verdicts(Timestamp(NOW.0 + 1)).unwrap().len(), 2);
    }

    #[test]
    fn address_is_banned_if_any_peer_reached_there_is_banned() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        let onion = |number| OnionAddr::from_public_key(keys::PublicKey::from_bytes([number; 32]));
        let peer = |number, at, last_contact| PeerRow {
            peer_id: PeerId::from_bytes([number; 32]),
            server_oid: keys::Oid::from_bytes([number; 16]),
            peer_apps: Vec::new(),
            peer_sync_domains: Vec::new(),
            domains: Vec::new(),
            onion: onion(at),
            epoch: keys::Epoch::from_bytes([1; 16]),
            tier: Tier::Trusted,
            last_contact: Timestamp(last_contact),
            relays: false,
        };
        store
            .transaction(|tx| {
                tx.put_verdict(&row(1, Verdict::Banned, Some(NOW.0 + 1)))?;
                [peer(1, 7, 5), peer(2, 7, 9), peer(3, 8, 9)]
                    .iter()
                    .try_for_each(|peer| tx.put_peer(peer))
            })
            .unwrap();
        let at = |number, now| store.rows().is_banned_at(&onion(number), now).unwrap();
        assert!(at(7, NOW) && !at(8, NOW) && !at(7, Timestamp(NOW.0 + 1)));
    }

    #[test]
    fn void_tickets_stay_void() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        let mut verdict = row(1, Verdict::Banned, None);
        for (voids, expected) in [(70, 70), (0, 70), (90, 90)] {
            verdict.tickets_void_until = voids;
            store.transaction(|tx| tx.put_verdict(&verdict)).unwrap();
            let stored = store.rows().verdict(&verdict.peer_id).unwrap().unwrap();
            assert_eq!(stored.tickets_void_until, expected);
        }
    }

    #[test]
    fn finds_a_peer_by_a_prefix_of_its_id() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        let mut near = [0xab; 32];
        near[4] = 0xac;
        let (one, other) = (PeerId::from_bytes([0xab; 32]), PeerId::from_bytes(near));
        for peer_id in [one, other] {
            let verdict = VerdictRow {
                peer_id,
                ..row(1, Verdict::Approved, None)
            };
            store.transaction(|tx| tx.put_verdict(&verdict)).unwrap();
        }
        let named = |prefix: &str| store.rows().peers_by_prefix(prefix).unwrap();
        assert_eq!(named("abababab").len(), 2);
        assert_eq!(named("ABABABABAC"), [other]);
        assert_eq!(named("ababababa").len(), 2);
        assert_eq!(named(&one.to_hex()), [one]);
        assert_eq!(named("abababac"), []);
        assert_eq!(named("%"), []);
    }
}
