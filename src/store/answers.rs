//! Tables `leave` and `accept`: identities that ended their own right to read a scope, and those
//! that take part in one which another identity founded.

use std::ops::Range;

use keys::{Digest, Oid};

use super::error::{SqlContext as _, StoreError};
use super::rights::FOUNDING_KEY;
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;

/// A statement of an identity on its own part in a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberAnswer {
    /// The identity ended its right to read.
    Leave,
    /// The identity takes part.
    Accept,
}

impl MemberAnswer {
    fn table(self) -> &'static str {
        match self {
            Self::Leave => "leave",
            Self::Accept => "accept",
        }
    }
}

/// A `leave`, by the list that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leave {
    /// Local id of the list.
    pub list: i64,
    /// Version of the list.
    pub version: u64,
}

/// For each list of the scope `?1` with a version from `?3` on and below `?4`, whether the identity
/// `?2` may not read by it. The index has the key number before the version, so that each key takes
/// a search.
pub(super) const LISTS_WITHOUT: &str = "WITH RECURSIVE key (number) AS (
       SELECT key_number FROM rights_list WHERE scope_id = ?1 AND version = 0
       UNION ALL
       SELECT (SELECT MIN(l.key_number) FROM rights_list AS l
               WHERE l.scope_id = ?1 AND l.key_number > key.number)
       FROM key WHERE number IS NOT NULL)
     SELECT NOT EXISTS (SELECT 1 FROM rights_entry AS e
                        WHERE e.list_id = r.id AND e.identity_oid = ?2 AND e.rights & 1)
     FROM key CROSS JOIN rights_list AS r INDEXED BY rights_list_order
     WHERE r.scope_id = ?1 AND r.key_number = key.number AND r.version >= ?3 AND r.version < ?4";

impl Rows<'_> {
    /// The highest version of a list to which an identity gave an answer, also if it was added
    /// later. `None`: it gave none. Takes one search for each number of a key that signed lists,
    /// and returns the number of searches.
    pub fn answered(
        &self,
        answer: MemberAnswer,
        scope: ScopeId,
        identity: &Oid,
    ) -> Result<(Option<u64>, usize), StoreError> {
        let sql = format!(
            "SELECT key_number, version FROM {}
             WHERE scope_id = ?1 AND identity_oid = ?2 AND key_number < ?3
               AND key_number >= {FOUNDING_KEY}
             ORDER BY key_number DESC, version DESC LIMIT 1",
            answer.table()
        );
        let mut statement = self.prepare("reading what an identity answered", &sql)?;
        let (mut below, mut highest, mut searches) = (i64::MAX, None, 0);
        loop {
            searches += 1;
            let next = statement.first((scope.0, identity.as_bytes(), below), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
            let Some((key_number, version)) = next else {
                return Ok((highest, searches));
            };
            below = key_number;
            highest = highest.max(Some(version));
        }
    }

    /// Whether an identity reads a scope and takes part in it: it answered a later list with
    /// `accept` than with `leave`.
    pub fn has_accepted(&self, scope: ScopeId, identity: &Oid) -> Result<bool, StoreError> {
        if !self.is_reader(scope, identity)? {
            return Ok(false);
        }
        let (accepted, _) = self.answered(MemberAnswer::Accept, scope, identity)?;
        let (left, _) = self.answered(MemberAnswer::Leave, scope, identity)?;
        Ok(accepted > left)
    }

    /// At most `limit` of the `leave` of an identity in a scope, the latest by key number and
    /// version first. Those whose list counts as absent are no part of it.
    pub fn leaves(
        &self,
        scope: ScopeId,
        identity: &Oid,
        limit: usize,
    ) -> Result<Vec<Leave>, StoreError> {
        let sql = format!(
            "SELECT list_id, version FROM leave
             WHERE scope_id = ?1 AND identity_oid = ?2 AND key_number >= {FOUNDING_KEY}
             ORDER BY key_number DESC, version DESC LIMIT ?3"
        );
        let mut statement = self.prepare("reading whether an identity left a scope", &sql)?;
        statement.all((scope.0, identity.as_bytes(), limit), |row| {
            Ok(Leave {
                list: row.get(0)?,
                version: row.get(1)?,
            })
        })
    }

    /// Whether an identity left a scope under the list with that digest.
    pub fn is_left_by_any(&self, scope: ScopeId, digest: &Digest) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for identities that left under a list",
            "SELECT 1 FROM rights_list AS r CROSS JOIN leave AS l
             WHERE r.scope_id = ?1 AND r.digest = ?2 AND l.list_id = r.id",
        )?;
        statement.exists((scope.0, digest.as_bytes()))
    }

    /// Whether an identity may not read by one of the lists with these versions. Looks at the
    /// lowest version under each key first, and lowers `looks` by each list. `None`: more lists are
    /// to be looked at than `looks`.
    pub fn is_any_without(
        &self,
        scope: ScopeId,
        identity: &Oid,
        versions: Range<u64>,
        looks: &mut usize,
    ) -> Result<Option<bool>, StoreError> {
        let context = "reading since when an identity reads a scope";
        let mut statement = self.prepare(context, LISTS_WITHOUT)?;
        let (from, below) = (versions.start, versions.end);
        let mut rows = statement
            .query((scope.0, identity.as_bytes(), from, below))
            .context(context)?;
        while let Some(row) = rows.next().context(context)? {
            if *looks == 0 {
                return Ok(None);
            }
            *looks -= 1;
            if row.get(0).context(context)? {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    }
}

impl WriteTx<'_> {
    /// Notes an answer of an identity, and the list that it names. Returns whether this is new.
    pub fn put_answer(
        &self,
        answer: MemberAnswer,
        scope: ScopeId,
        identity: &Oid,
        list: i64,
    ) -> Result<bool, StoreError> {
        let sql = format!(
            "INSERT INTO {} (scope_id, identity_oid, key_number, version, list_id)
             SELECT ?1, ?2, key_number, version, id FROM rights_list WHERE id = ?3
             ON CONFLICT DO NOTHING",
            answer.table()
        );
        let mut statement = self.prepare("writing what an identity answered", &sql)?;
        statement
            .execute((scope.0, identity.as_bytes(), list))
            .map(|rows| rows > 0)
    }
    /// Raises the key number of the answers that name a list, because a later key signed the list.
    pub(super) fn raise_answers(
        &self,
        scope: ScopeId,
        digest: &Digest,
        key_number: u32,
    ) -> Result<(), StoreError> {
        for answer in [MemberAnswer::Leave, MemberAnswer::Accept] {
            let sql = format!(
                "UPDATE {} SET key_number = ?3
                 WHERE list_id = (SELECT id FROM rights_list WHERE scope_id = ?1 AND digest = ?2)",
                answer.table()
            );
            let mut statement = self.prepare("raising the key number of answers", &sql)?;
            statement.execute((scope.0, digest.as_bytes(), key_number))?;
        }
        Ok(())
    }
}
