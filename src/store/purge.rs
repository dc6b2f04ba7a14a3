//! Purges: the removal of what a peer sent, and of its identities, in portions (docs/DECISIONS.md
//! 10). All peers whose purge runs take each step together.
//!
//! Invariant: the position of a step is written with what the step removed, so that a crash repeats
//! nothing. Tested in `tests/core/purge.rs`.

use keys::PeerId;
use rusqlite::Row;

use super::app_tables::AppTable;
use super::columns::fixed;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use super::usage::Usage;
use crate::op_context::{AppId, Timestamp};

/// How far a purge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeState {
    /// The purge begins when those that run have ended.
    Queued,
    /// Something may be left to remove.
    Running,
    /// All is removed, and does not come back.
    Done,
    /// The verdict ended. The node is forgetting the removed oids.
    Ending,
    /// Only scopes are remembered that may come back. They are pulled from other peers then.
    Over,
}

impl PurgeState {
    /// The value of the column `state`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Ending => "ending",
            Self::Over => "over",
        }
    }
}

/// The order to remove what a peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgeOrder {
    /// Whether its objects are removed too, and not only identities of which nothing is kept.
    pub takes_objects: bool,
    /// Whether the node remembers until the ban ends, or else until the peer is trusted.
    pub is_ban: bool,
    /// Most oids that the node remembers.
    pub remembered_max: u64,
}

impl PurgeOrder {
    /// Forgets identities, and remembers nothing.
    pub const IDENTITIES: Self = Self {
        takes_objects: false,
        is_ban: false,
        remembered_max: 0,
    };
}

/// A purge as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgeRow {
    /// The peer's local number.
    pub peer_no: i64,
    /// The peer.
    pub peer: PeerId,
    /// How far it is.
    pub state: PurgeState,
    /// The order.
    pub order: PurgeOrder,
    /// The objects that were removed.
    pub removed: Usage,
    /// The number of identities that were forgotten.
    pub identities: u64,
    /// The number of oids that do not come back.
    pub remembered: u64,
}

/// The steps of a purge, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PurgeStep {
    /// Notes the identities whose home is a purged peer.
    Identities,
    /// Removes objects, and notes scopes and identities of which nothing may be kept.
    Objects,
    /// Leaves out the scopes in which something is kept.
    KeptScopes,
    /// Removes the other scopes.
    Scopes,
    /// Leaves out the identities of which an object is kept.
    KeptOwners,
    /// Forgets the other identities.
    Forgetting,
}

impl PurgeStep {
    const ALL: [Self; 6] = [
        Self::Identities,
        Self::Objects,
        Self::KeptScopes,
        Self::Scopes,
        Self::KeptOwners,
        Self::Forgetting,
    ];

    fn number(self) -> usize {
        let found = Self::ALL.iter().position(|step| *step == self);
        found.unwrap_or_default()
    }
}

/// How far the purges that run are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgeProgress {
    /// Steps that are done.
    pub steps_done: usize,
    /// All steps.
    pub steps: usize,
    /// Objects that the present step has looked at.
    pub looked_at: u64,
    /// Objects that it has to look at; 0: none.
    pub to_look_at: u64,
}

const COLUMNS: &str = "g.peer_no, p.peer_id, g.state, g.takes_objects, g.is_ban, \
                       g.remembered_max, g.objects, g.bytes, g.identities, g.remembered";

fn purge_row(row: &Row<'_>) -> rusqlite::Result<PurgeRow> {
    Ok(PurgeRow {
        peer_no: row.get(0)?,
        peer: PeerId::from_bytes(fixed(row, 1)?),
        // A CHECK constraint allows five values.
        state: match row.get::<_, String>(2)?.as_str() {
            "queued" => PurgeState::Queued,
            "running" => PurgeState::Running,
            "done" => PurgeState::Done,
            "ending" => PurgeState::Ending,
            _ => PurgeState::Over,
        },
        order: PurgeOrder {
            takes_objects: row.get(3)?,
            is_ban: row.get(4)?,
            remembered_max: row.get(5)?,
        },
        removed: Usage {
            objects: row.get(6)?,
            bytes: row.get(7)?,
        },
        identities: row.get(8)?,
        remembered: row.get(9)?,
    })
}

/// Forgets what peers stated of which the purges that run leave no identity that reads a scope.
fn forget_receipts(table: &str) -> String {
    format!(
        "DELETE FROM {table} WHERE peer_id IN (
           SELECT p.peer_id FROM purge JOIN peers AS p ON p.id = purge.peer_no
           WHERE purge.state = 'running' AND NOT EXISTS (
             SELECT 1 FROM identity AS i JOIN reader AS r ON r.identity_oid = i.oid
             WHERE i.home_peer = p.peer_id))"
    )
}

impl Rows<'_> {
    /// The purges, in the order of the peers. One that only forgot identities leaves no row.
    pub fn purges(&self) -> Result<Vec<PurgeRow>, StoreError> {
        let mut statement = self.prepare(
            "listing purges",
            &format!(
                "SELECT {COLUMNS} FROM purge AS g JOIN peers AS p ON p.id = g.peer_no
                 ORDER BY g.peer_no"
            ),
        )?;
        statement.all([], purge_row)
    }

    /// The purge of a peer.
    pub fn purge_of(&self, peer_no: i64) -> Result<Option<PurgeRow>, StoreError> {
        let mut statement = self.prepare(
            "reading a purge",
            &format!(
                "SELECT {COLUMNS} FROM purge AS g JOIN peers AS p ON p.id = g.peer_no
                 WHERE g.peer_no = ?1"
            ),
        )?;
        statement.first([peer_no], purge_row)
    }

    /// Whether objects of a peer are still to be removed. The peer is not admitted until then.
    pub fn is_purging(&self, peer: &PeerId) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for a purge",
            "SELECT 1 FROM peers AS p JOIN purge AS g ON g.peer_no = p.id
             WHERE p.peer_id = ?1 AND g.state IN ('queued', 'running') AND g.takes_objects = 1",
        )?;
        statement.exists([peer.as_bytes()])
    }

    /// Whether a purge has something to do now.
    pub fn is_purge_due(&self, now: Timestamp) -> Result<bool, StoreError> {
        let mut statement = self.prepare("looking for purges", "SELECT 1 FROM purge LIMIT 1")?;
        if !statement.exists([])? {
            return Ok(false);
        }
        let mut statement = self.prepare(
            "looking for purges",
            "SELECT 1 FROM purge WHERE state IN ('queued', 'running')",
        )?;
        Ok(statement.exists([])? || self.next_ended_purge(now)?.is_some())
    }

    /// The step of the purges that run. `None`: none runs.
    pub fn purge_step(&self) -> Result<Option<PurgeStep>, StoreError> {
        let mut statement = self.prepare("reading a purge", "SELECT step FROM purge_round")?;
        let step: Option<usize> = statement.first([], |row| row.get(0))?;
        let known = step.map(|step| PurgeStep::ALL.get(step).copied());
        known.map_or(Ok(None), |step| {
            step.map(Some)
                .ok_or(StoreError::Inconsistent("the step of a purge"))
        })
    }

    /// How far the purges that run are. `None`: none runs.
    pub fn purge_progress(&self) -> Result<Option<PurgeProgress>, StoreError> {
        let Some(step) = self.purge_step()? else {
            return Ok(None);
        };
        let (mut looked_at, mut to_look_at) = (0, 0);
        for app in self.apps.iter() {
            looked_at += self.purge_position(app.id)?.max(0).unsigned_abs();
            to_look_at += self.last_parent(app)?.max(0).unsigned_abs();
        }
        Ok(Some(PurgeProgress {
            steps_done: step.number(),
            steps: PurgeStep::ALL.len(),
            looked_at,
            to_look_at,
        }))
    }

    /// The purges that run.
    pub fn running_purges(&self) -> Result<Vec<PurgeRow>, StoreError> {
        let mut statement = self.prepare(
            "listing the purges that run",
            &format!(
                "SELECT {COLUMNS} FROM purge AS g JOIN peers AS p ON p.id = g.peer_no
                 WHERE g.state = 'running' ORDER BY g.peer_no"
            ),
        )?;
        statement.all([], purge_row)
    }

    /// The local id of the last Parent in an app's tables.
    pub fn last_parent(&self, app: &AppTable) -> Result<i64, StoreError> {
        let mut statement = self.prepare("reading the last object", &app.purge.last_id)?;
        statement.one([], |row| row.get(0))
    }

    /// How far a step has looked at the objects of an app, as a local id.
    pub fn purge_position(&self, app: AppId) -> Result<i64, StoreError> {
        let mut statement = self.prepare(
            "reading the position of a purge",
            "SELECT after_id FROM purge_position WHERE app_id = ?1",
        )?;
        Ok(statement.first([app.0], |row| row.get(0))?.unwrap_or(0))
    }
}

impl WriteTx<'_> {
    /// Orders a purge. An order without objects changes nothing of one with objects that has not
    /// ended, and what was removed before stays remembered.
    pub fn order_purge(&self, peer: &PeerId, order: &PurgeOrder) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "ordering a purge",
            "INSERT INTO purge (peer_no, state, takes_objects, is_ban, remembered_max)
             SELECT id, 'queued', ?2, ?3, ?4 FROM peers WHERE peer_id = ?1
             ON CONFLICT (peer_no) DO UPDATE SET
               takes_objects = IIF(state IN ('queued', 'running'),
                 MAX(takes_objects, excluded.takes_objects), excluded.takes_objects),
               is_ban = IIF(excluded.takes_objects, excluded.is_ban, is_ban),
               objects = IIF(state IN ('queued', 'running'), objects, 0),
               bytes = IIF(state IN ('queued', 'running'), bytes, 0),
               identities = IIF(state IN ('queued', 'running'), identities, 0),
               state = 'queued', after_oid = x'',
               remembered_max = MAX(remembered_max, remembered + excluded.remembered_max)",
        )?;
        let values = (
            peer.as_bytes(),
            order.takes_objects,
            order.is_ban,
            order.remembered_max,
        );
        statement.execute(values).map(drop)
    }

    /// Withdraws an order to forget the identities of a peer, because the peer came back.
    pub(super) fn withdraw_purge(&self, peer: &PeerId) -> Result<(), StoreError> {
        for sql in [
            "UPDATE purge SET state = 'done'
             WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1) AND state = 'queued'
               AND takes_objects = 0 AND remembered > 0",
            "DELETE FROM purge
             WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1) AND state = 'queued'
               AND takes_objects = 0",
        ] {
            let mut statement = self.prepare("withdrawing a purge", sql)?;
            statement.execute([peer.as_bytes()])?;
        }
        Ok(())
    }

    /// Lets the purges that were ordered run together. Returns `false` if there is none.
    pub fn start_purges(&self) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "starting purges",
            "UPDATE purge SET state = 'running' WHERE state = 'queued'",
        )?;
        if statement.execute([])? == 0 {
            return Ok(false);
        }
        self.put_purge_step(PurgeStep::Identities)?;
        Ok(true)
    }

    fn put_purge_step(&self, step: PurgeStep) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing the step of a purge",
            "INSERT OR REPLACE INTO purge_round (id, step) VALUES (1, ?1)",
        )?;
        statement.execute([step.number()])?;
        if matches!(step, PurgeStep::Scopes | PurgeStep::Forgetting) {
            // Both go on looking at later objects.
            return Ok(());
        }
        let mut statement = self.prepare(
            "starting a step of a purge",
            "DELETE FROM purge_position WHERE app_id > 0",
        )?;
        statement.execute([]).map(drop)
    }

    /// Begins the next step. After the last one, the purges that run are done.
    pub fn end_purge_step(&self, step: PurgeStep) -> Result<(), StoreError> {
        if let Some(next) = PurgeStep::ALL.get(step.number() + 1) {
            return self.put_purge_step(*next);
        }
        for table in ["receipt", "unapplied_object", "unapplied_scope"] {
            let sql = forget_receipts(table);
            self.prepare("forgetting receipts", &sql)?.execute([])?;
        }
        for sql in [
            "DELETE FROM purge_round WHERE id = 1",
            "DELETE FROM purge_position WHERE app_id > 0",
            "DELETE FROM purge WHERE state = 'running' AND takes_objects = 0 AND remembered = 0",
            "UPDATE purge SET state = 'done' WHERE state = 'running'",
        ] {
            self.prepare("ending purges", sql)?.execute([])?;
        }
        Ok(())
    }

    /// Notes how far a step has looked at the objects of an app.
    pub fn put_purge_position(&self, app: AppId, after: i64) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing the position of a purge",
            "INSERT OR REPLACE INTO purge_position (app_id, after_id) VALUES (?1, ?2)",
        )?;
        statement.execute((app.0, after)).map(drop)
    }

    /// Counts what was removed of a peer.
    pub fn count_purged(
        &self,
        peer_no: i64,
        removed: &Usage,
        identities: u64,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "counting what was removed",
            "UPDATE purge SET objects = objects + ?2, bytes = bytes + ?3,
               identities = identities + ?4
             WHERE peer_no = ?1",
        )?;
        statement
            .execute((peer_no, removed.objects, removed.bytes, identities))
            .map(drop)
    }
}
