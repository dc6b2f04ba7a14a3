//! [`DomainTable`]: the statements of one sync domain on the indexes of changes of its app.

/// In `sync_flags`, beside the bits of its domains: the object was received. Only a session with
/// the feature `relay` sends it on. The sign bit, which no domain has.
pub const RECEIVED_FLAG: i64 = i64::MIN;

/// The statements of one domain on the indexes of its app.
///
/// A domain that shares its app with others has indexes of its own. They contain its mask as a
/// literal, because SQLite uses a partial index only for a literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainTable {
    /// The domain's bit in `sync_flags`.
    pub mask: i64,
    pub(super) in_order: String,
    pub(super) by_scope: String,
}

impl DomainTable {
    /// The statements for the app `slug`. `own_bit` is the domain's bit if it has its own indexes.
    pub(super) fn new(slug: &str, bit: u8, has_own_index: bool) -> Self {
        let mask = 1i64 << bit;
        let parent = format!("app_{slug}_parent");
        let (in_order, by_scope) = if has_own_index {
            (
                format!("{parent}_bit{bit}"),
                format!("{parent}_scope_bit{bit}"),
            )
        } else {
            (format!("{parent}_seq"), format!("{parent}_scope"))
        };
        let only = |table: &str| {
            if has_own_index {
                format!(" AND ({table}.sync_flags & {mask}) != 0")
            } else {
                String::new()
            }
        };
        Self {
            mask,
            in_order: format!(
                "SELECT p.change_seq, p.scope_id, p.sync_flags, p.id
                 FROM {parent} AS p INDEXED BY {in_order}
                 WHERE p.change_seq > ?1{only} ORDER BY p.change_seq",
                only = only("p")
            ),
            // The subquery ends a scope with many changes at its change number ?2.
            by_scope: format!(
                "SELECT p.change_seq, p.scope_id, p.sync_flags, p.id
                 FROM json_each(?1) AS j CROSS JOIN {parent} AS p INDEXED BY {by_scope}
                 WHERE p.scope_id = CAST(j.key AS INTEGER) AND p.change_seq > j.value{only}
                   AND p.change_seq <= COALESCE(
                     (SELECT c.change_seq FROM {parent} AS c INDEXED BY {by_scope}
                      WHERE c.scope_id = CAST(j.key AS INTEGER)
                        AND c.change_seq > j.value{only_c}
                      ORDER BY c.change_seq LIMIT 1 OFFSET ?2 - 1),
                     9223372036854775807)",
                only = only("p"),
                only_c = only("c")
            ),
        }
    }
}
