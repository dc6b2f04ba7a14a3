//! The address book: the petname and the private note of each contact (docs/DECISIONS.md 5).
//!
//! Local rows, which are not objects: no package and no handshake reads this table. Invariants: one
//! petname for each identity; no two rows have one folded name.

use keys::Oid;
use rusqlite::Row;

use super::columns::fixed;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use crate::schema::identities;
use crate::text::Petname;

/// An identity in the address book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContactRow {
    /// The identity, which need not be known to this node.
    pub identity: Oid,
    /// The petname.
    pub name: String,
    /// The form of the name that is unique.
    pub folded: String,
    /// The operator's note; empty: none.
    pub note: String,
}

const COLUMNS: &str = "identity_oid, name, folded, note";

fn contact_row(row: &Row<'_>) -> rusqlite::Result<ContactRow> {
    Ok(ContactRow {
        identity: Oid::from_bytes(fixed(row, 0)?),
        name: row.get(1)?,
        folded: row.get(2)?,
        note: row.get(3)?,
    })
}

impl Rows<'_> {
    /// The row of an identity.
    pub fn contact(&self, identity: &Oid) -> Result<Option<ContactRow>, StoreError> {
        let mut statement = self.prepare(
            "reading the address book",
            &format!("SELECT {COLUMNS} FROM contact WHERE identity_oid = ?1"),
        )?;
        statement.first([identity.as_bytes()], contact_row)
    }

    /// The row with a folded name.
    pub fn contact_named(&self, folded: &str) -> Result<Option<ContactRow>, StoreError> {
        let mut statement = self.prepare(
            "looking up a petname",
            &format!("SELECT {COLUMNS} FROM contact WHERE folded = ?1"),
        )?;
        statement.first([folded], contact_row)
    }

    /// At most `limit` rows whose folded name follows `after`, sorted by it.
    pub fn contacts(&self, after: &str, limit: usize) -> Result<Vec<ContactRow>, StoreError> {
        let mut statement = self.prepare(
            "listing the address book",
            &format!("SELECT {COLUMNS} FROM contact WHERE folded > ?1 ORDER BY folded LIMIT ?2"),
        )?;
        statement.all((after, limit), contact_row)
    }

    /// The number of rows.
    pub fn contact_count(&self) -> Result<usize, StoreError> {
        let mut statement =
            self.prepare("counting the address book", "SELECT COUNT(*) FROM contact")?;
        statement.one([], |row| row.get(0))
    }

    /// At most `limit` identities from `first` to `last`, sorted: known ones, and those in the
    /// address book. Servers are none.
    pub fn identities_between(
        &self,
        first: &Oid,
        last: &Oid,
        limit: usize,
    ) -> Result<Vec<Oid>, StoreError> {
        let mut statement = self.prepare(
            "looking for an identity by a prefix of its oid",
            "SELECT i.oid FROM identity AS i JOIN app_identities_parent AS p ON p.id = i.parent_id
               WHERE i.oid BETWEEN ?1 AND ?2 AND p.type = ?3
             UNION SELECT identity_oid FROM contact WHERE identity_oid BETWEEN ?1 AND ?2
             ORDER BY 1 LIMIT ?4",
        )?;
        let range = (
            first.as_bytes(),
            last.as_bytes(),
            identities::IDENTITY,
            limit,
        );
        statement.all(range, |row| Ok(Oid::from_bytes(fixed(row, 0)?)))
    }
}

impl WriteTx<'_> {
    /// Writes the row of an identity, and replaces an earlier one. Fails if another identity has
    /// the name.
    pub fn put_contact(
        &self,
        identity: &Oid,
        name: &Petname,
        note: &str,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing the address book",
            &format!(
                "INSERT INTO contact ({COLUMNS}) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (identity_oid) DO UPDATE SET
                   name = excluded.name, folded = excluded.folded, note = excluded.note"
            ),
        )?;
        statement.execute((identity.as_bytes(), name.as_str(), name.folded(), note))?;
        Ok(())
    }

    /// Changes the note on an identity in the address book.
    pub fn set_contact_note(&self, identity: &Oid, note: &str) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing a note",
            "UPDATE contact SET note = ?2 WHERE identity_oid = ?1",
        )?;
        statement.execute((identity.as_bytes(), note))?;
        Ok(())
    }

    /// Removes an identity from the address book.
    pub fn remove_contact(&self, identity: &Oid) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "removing a contact",
            "DELETE FROM contact WHERE identity_oid = ?1",
        )?;
        statement.execute([identity.as_bytes()])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::Folder;

    fn named(name: &str) -> Petname {
        Petname::new(name).unwrap()
    }

    #[test]
    fn no_two_identities_have_one_folded_name() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        let [one, other] = [1, 2].map(|byte| Oid::from_bytes([byte; 16]));
        store
            .transaction(|tx| tx.put_contact(&one, &named("Bob"), "a note"))
            .unwrap();
        let taken = store.transaction(|tx| tx.put_contact(&other, &named("ＢＯＢ"), ""));
        assert!(taken.is_err());
        store
            .transaction(|tx| {
                tx.put_contact(&one, &named("Robert"), "")?;
                tx.set_contact_note(&one, "another note")?;
                tx.put_contact(&other, &named("bob"), "")
            })
            .unwrap();
        let rows = store.rows();
        assert_eq!(rows.contact(&one).unwrap().unwrap().note, "another note");
        assert_eq!(rows.contact_named("bob").unwrap().unwrap().identity, other);
        let names = |after: &str, limit| {
            let found = rows.contacts(after, limit).unwrap().into_iter();
            found.map(|row| row.name).collect::<Vec<_>>()
        };
        assert_eq!(names("", 9), ["bob", "Robert"]);
        assert_eq!(
            (names("", 1), names("bob", 9)),
            (vec!["bob".into()], vec!["Robert".into()])
        );
        assert_eq!(rows.contact_count().unwrap(), 2);
        store.transaction(|tx| tx.remove_contact(&other)).unwrap();
        assert_eq!(store.rows().contact(&other).unwrap(), None);
    }

    #[test]
    fn row_is_bounded() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        let identity = Oid::from_bytes([1; 16]);
        let mut put =
            |note: &str| store.transaction(|tx| tx.put_contact(&identity, &named("B"), note));
        put(&"x".repeat(2000)).unwrap();
        assert!(put(&"x".repeat(2001)).is_err());
        // The character with the longest folded form.
        let longest = "\u{fdfa}".repeat(21);
        store
            .transaction(|tx| tx.put_contact(&identity, &named(&longest), ""))
            .unwrap();
    }
}
