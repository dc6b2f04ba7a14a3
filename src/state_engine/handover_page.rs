//! The objects of an identity that moves to another node, page after page (docs/DECISIONS.md 10).
//!
//! They come with the objects of other owners that the new home needs to judge them. Each object
//! follows those that it needs: records, Parents that are scopes, rights lists, all others.
//! Invariant: all pages together hold each object that the identity made on this node. Tested in
//! `tests/core/moves.rs`.

use std::collections::BTreeSet;

use keys::protocol::RIGHTS_TYPE;
use keys::{Oid, SignedObject};

use super::view::View;
use crate::graph::load_object;
use crate::schema::identities;
use crate::store::{AppTable, ParentRow, ScopeId, ScopeRow, StoreError};

/// Most scopes that a page looks at.
const PAGE_SCOPES_MAX: usize = 64;
/// Most rows that a page looks at.
const PAGE_ROWS_MAX: usize = 256;
/// Bytes after which a page ends.
const PAGE_BYTES: usize = 256 * 1024;

/// A kind of objects, in the order of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Section {
    /// The record of the identity.
    #[default]
    OwnRecord,
    /// Records of the owners of scopes that it may read, or could.
    Records,
    /// The Parents of these scopes.
    Parents,
    /// The Parents of its own scopes.
    OwnParents,
    /// The rights lists of the scopes of others.
    Lists,
    /// Its own rights lists.
    OwnLists,
    /// Everything else that it owns.
    Others,
}

impl Section {
    fn next(self) -> Option<Self> {
        match self {
            Self::OwnRecord => Some(Self::Records),
            Self::Records => Some(Self::Parents),
            Self::Parents => Some(Self::OwnParents),
            Self::OwnParents => Some(Self::Lists),
            Self::Lists => Some(Self::OwnLists),
            Self::OwnLists => Some(Self::Others),
            Self::Others => None,
        }
    }
}

/// Where the next page begins.
#[derive(Debug, Clone, Default)]
pub struct HandoverCursor {
    section: Section,
    /// The last scope whose objects are all done.
    scope: i64,
    /// The last list of the scope after it.
    list: i64,
    /// Number of apps that are done.
    apps: usize,
    /// Key number, `change_seq` and local id of the last object of the app after them.
    own: (u32, u64, i64),
}

impl HandoverCursor {
    fn at(section: Section) -> Self {
        Self {
            section,
            ..Self::default()
        }
    }
}

/// Some of the objects.
#[derive(Debug, Default)]
pub struct HandoverPage {
    /// The objects as they were signed, in order.
    pub objects: Vec<SignedObject>,
    /// The begin of the next page. `None`: this one is the last.
    pub next: Option<HandoverCursor>,
    bytes: usize,
}

impl HandoverPage {
    fn push(&mut self, signed: SignedObject) {
        self.bytes += signed.bytes().len();
        self.objects.push(signed);
    }

    fn is_full(&self) -> bool {
        self.bytes >= PAGE_BYTES
    }
}

impl View<'_> {
    /// A page of the objects of an identity that moves to another node.
    pub fn handover_page(
        &self,
        identity: &Oid,
        cursor: HandoverCursor,
    ) -> Result<HandoverPage, StoreError> {
        let mut page = HandoverPage::default();
        let section = cursor.section;
        page.next = match section {
            Section::OwnRecord => {
                self.push_record(identity, &mut page)?;
                None
            }
            Section::Records | Section::Parents | Section::Lists => {
                self.scopes_of_others(identity, cursor, &mut page)?
            }
            Section::OwnParents | Section::OwnLists | Section::Others => {
                self.own_objects(identity, cursor, &mut page)?
            }
        };
        if page.next.is_none() {
            page.next = section.next().map(HandoverCursor::at);
        }
        Ok(page)
    }

    fn push_record(&self, identity: &Oid, page: &mut HandoverPage) -> Result<(), StoreError> {
        let app = self.app(identities::APP)?;
        let row = self.rows.parent(app, identity)?;
        if let Some(row) = row.filter(|row| row.type_number == identities::IDENTITY) {
            page.push(load_object(&self.rows, app, &row)?.1);
        }
        Ok(())
    }

    /// Objects of scopes whose owners are others. Returns where to go on; `None`: the section ends.
    fn scopes_of_others(
        &self,
        identity: &Oid,
        mut cursor: HandoverCursor,
        page: &mut HandoverPage,
    ) -> Result<Option<HandoverCursor>, StoreError> {
        let after = ScopeId(cursor.scope);
        let scopes = self
            .rows
            .some_scopes_read_by(identity, after, PAGE_SCOPES_MAX)?;
        let is_last = scopes.len() < PAGE_SCOPES_MAX;
        let mut owners = BTreeSet::new();
        for scope in scopes {
            let apps = self.rows.apps();
            let app = apps.iter().find(|app| app.id == scope.app);
            let app = app.ok_or(StoreError::Inconsistent("an app without tables"))?;
            let parent = self.rows.parent_by_id(app, scope.parent_id)?;
            if let Some(parent) = parent.filter(|it| it.owner != *identity && it.rev > 0) {
                match cursor.section {
                    Section::Records if owners.insert(parent.owner) => {
                        self.push_record(&parent.owner, page)?;
                    }
                    Section::Records => {}
                    Section::Lists => {
                        if let Some(list) = self.lists_of((app, &scope), cursor.list, page)? {
                            cursor.list = list;
                            return Ok(Some(cursor));
                        }
                    }
                    _ => page.push(load_object(&self.rows, app, &parent)?.1),
                }
            }
            (cursor.scope, cursor.list) = (scope.id.0, 0);
            if page.is_full() {
                return Ok(Some(cursor));
            }
        }
        Ok((!is_last).then_some(cursor))
    }

    /// The rights lists of a scope. Returns the last list of the page; `None`: all are done.
    fn lists_of(
        &self,
        (app, scope): (&AppTable, &ScopeRow),
        after: i64,
        page: &mut HandoverPage,
    ) -> Result<Option<i64>, StoreError> {
        let lists = self.rows.list_holders(scope.id, after, PAGE_ROWS_MAX)?;
        let is_last = lists.len() < PAGE_ROWS_MAX;
        let mut done = after;
        for (list, holder) in lists {
            if page.is_full() {
                return Ok(Some(done));
            }
            let row = self.rows.parent_by_id(app, holder)?;
            if let Some(row) = row.filter(|row| row.rev > 0) {
                page.push(load_object(&self.rows, app, &row)?.1);
            }
            done = list;
        }
        Ok((!is_last).then_some(done))
    }

    /// Objects of the identity itself. Returns where to go on; `None`: the section ends.
    fn own_objects(
        &self,
        identity: &Oid,
        mut cursor: HandoverCursor,
        page: &mut HandoverPage,
    ) -> Result<Option<HandoverCursor>, StoreError> {
        let Some(app) = self.rows.apps().iter().nth(cursor.apps) else {
            return Ok(None);
        };
        let rows = self
            .rows
            .own_page(app, identity, cursor.own, PAGE_ROWS_MAX)?;
        let is_last = rows.len() < PAGE_ROWS_MAX;
        for row in rows {
            if page.is_full() {
                return Ok(Some(cursor));
            }
            cursor.own = (row.key_id, row.change_seq, row.id);
            if row.oid != *identity && self.section_of(&row)? == cursor.section {
                page.push(load_object(&self.rows, app, &row)?.1);
            }
        }
        if is_last {
            cursor.apps += 1;
            cursor.own = (0, 0, 0);
        }
        Ok(Some(cursor))
    }

    fn section_of(&self, row: &ParentRow) -> Result<Section, StoreError> {
        if row.type_number == RIGHTS_TYPE {
            return Ok(Section::OwnLists);
        }
        let scope = self.rows.scope(row.scope_id)?;
        Ok(match scope.is_some_and(|scope| scope.parent_id == row.id) {
            true => Section::OwnParents,
            false => Section::Others,
        })
    }

    fn app(&self, slug: &str) -> Result<&AppTable, StoreError> {
        let app = self.rows.apps().get(slug);
        app.ok_or(StoreError::Inconsistent("an app without tables"))
    }
}
