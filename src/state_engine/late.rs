//! Scopes that become readable within a window, which its package names (docs/PROTOCOL.md 5.4).
//!
//! Invariant: a window reaches no number beyond what its package can name.

use keys::protocol::SCOPES_NAMED_MAX;

use super::peer_scopes::PeerScopes;
use crate::graph::{Exported, ScopeMemory};
use crate::op_context::AppId;
use crate::store::ScopeId;

/// Most scopes, of all apps, that one request looks up to name them.
const LATE_SCOPES_MAX: usize = 4 * SCOPES_NAMED_MAX;

/// Scopes that become readable after a number.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// With the numbers of the writes; ascending, and at most as many as a package can name.
    pub(super) scopes: Vec<(u64, ScopeId)>,
    /// No window reaches beyond this number, because a package cannot name what follows.
    pub(super) until: u64,
    /// The number of the first write, if a package cannot name all that it made readable.
    pub(super) too_many: Option<u64>,
}

impl Late {
    /// The scopes among those of the peer. Those of other apps are examined too, so that their
    /// number costs bounded time.
    pub(super) fn find(
        app: AppId,
        scopes: &PeerScopes,
        (memory, exported): (&ScopeMemory, Exported),
        window: (u64, u64),
    ) -> Self {
        let (after, head) = window;
        let mut late = Self {
            until: head,
            ..Self::default()
        };
        let (newest, mut first) = (memory.newest(), None);
        for (count, (since, id)) in scopes.late_in(after, head).enumerate() {
            let first = *first.get_or_insert(since);
            if count == LATE_SCOPES_MAX || late.scopes.len() == SCOPES_NAMED_MAX {
                if since == first {
                    late.too_many = Some(since);
                } else {
                    late.until = since - 1;
                }
                break;
            }
            // A scope without exported rows would cost the peer a pull that brings nothing.
            if newest.of(app, id, exported) > 0 {
                late.scopes.push((since, id));
            }
        }
        late
    }
}
