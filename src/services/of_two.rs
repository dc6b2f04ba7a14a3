//! The rule that a conversation which two founded stays one of two (docs/DECISIONS.md 4).
//!
//! The rule binds what this node writes. Lists of owners elsewhere are judged without it. Tested in
//! `tests/core/larger_conversations.rs`.

use std::collections::BTreeSet;

use keys::Oid;

use super::messages::{APP, CONVERSATION, PARTICIPANTS};
use crate::graph::load_object;
use crate::object::{Object, Value};
use crate::store::{AppTable, ParentRow, Rows, StoreError};

/// The two founders of a conversation, who alone take part in it. `None`: more founded it.
pub(super) fn two_founders(conversation: &Object) -> Option<BTreeSet<Oid>> {
    let values = conversation.all(PARTICIPANTS).iter();
    let founders: BTreeSet<_> = values.filter_map(Value::as_oid).collect();
    (founders.len() == 2).then_some(founders)
}

/// [`two_founders`] of a scope of any app. `None`: it is no conversation, or more founded it.
pub(super) fn two_founders_of(
    rows: &Rows<'_>,
    app: &AppTable,
    scope: &ParentRow,
) -> Result<Option<BTreeSet<Oid>>, StoreError> {
    if app.slug != APP || scope.type_number != CONVERSATION {
        return Ok(None);
    }
    let (object, _) = load_object(rows, app, scope)?;
    Ok(two_founders(&object))
}
