//! Lists of the objects of one type, in order and in pages.
//!
//! Only reads. Invariant: a page never ends within a change group. Tested in `tests/core/scopes.rs`
//! and `tests/core/feed.rs`.

use super::app_tables::AppTable;
use super::error::{SqlContext as _, StoreError};
use super::parents::{ParentRow, parent_row};
use super::rows::Rows;

/// A part of a list. A change group is never cut, so that a page may exceed its limit by the rest
/// of its last group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The rows, in order of their sequence numbers.
    pub rows: Vec<ParentRow>,
    /// `after` of the next page.
    pub after: u64,
    /// Whether further rows follow.
    pub more: bool,
}

/// Which sequence number orders a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeqOrder {
    /// `created_seq`: re-signed objects keep their places.
    Created,
    /// `change_seq`: changed and re-signed objects come again.
    Changed,
}

impl SeqOrder {
    /// The number of a row.
    pub(super) fn of(self, row: &ParentRow) -> u64 {
        match self {
            Self::Created => row.created_seq,
            Self::Changed => row.change_seq,
        }
    }
}

/// Sequence numbers above `after`, up to `until`.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeqWindow {
    pub(super) after: u64,
    pub(super) until: u64,
}

impl SeqWindow {
    fn after(after: u64) -> Self {
        let until = u64::MAX;
        Self { after, until }
    }
}

impl Rows<'_> {
    /// Parents of one type whose `change_seq` follows `after`, oldest first: see [`Page`].
    pub fn listing(
        &self,
        app: &AppTable,
        type_number: u16,
        after: u64,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let window = SeqWindow::after(after);
        self.page(&app.listing, (type_number, window, limit), |row| {
            row.change_seq
        })
    }

    /// Parents of one type, by the number that orders them and within a window, oldest first: see
    /// [`Page`].
    pub(super) fn ordered(
        &self,
        app: &AppTable,
        (type_number, order): (u16, SeqOrder),
        window: SeqWindow,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let sql = match order {
            SeqOrder::Created => &app.created,
            SeqOrder::Changed => &app.listing,
        };
        self.page(sql, (type_number, window, limit), |row| order.of(row))
    }

    fn page(
        &self,
        sql: &str,
        (type_number, window, limit): (u16, SeqWindow, usize),
        seq: impl Fn(&ParentRow) -> u64,
    ) -> Result<Page, StoreError> {
        let context = "listing Parents";
        let mut statement = self.prepare(context, sql)?;
        let mut rows = statement
            .query((type_number, window.after))
            .context(context)?;
        let (mut page, mut last) = (Page::default(), window.after);
        while let Some(row) = rows.next().context(context)? {
            let row = parent_row(row).context(context)?;
            if seq(&row) > window.until {
                break;
            }
            if page.rows.len() >= limit && seq(&row) != last {
                page.more = true;
                break;
            }
            last = seq(&row);
            page.rows.push(row);
        }
        page.after = last;
        Ok(page)
    }
}
