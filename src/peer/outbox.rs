//! Pushes of a session that a commit causes: table `sync_outbox` (docs/STORY.md 5).
//!
//! Input is the row of a domain; output is what [`push_once`] sends. Invariants: the row is read
//! after the watcher exists, so that no commit is missed. A failed push leaves the row, also for
//! the next session. A session begins with a push, because changes that are older than the
//! configuration, the first session or the epoch have no row. A peer may get a change twice, by a
//! push and by the reply to its own request; the second one changes nothing.

use std::time::Duration;

use keys::error_chain;

use super::backoff::Backoff;
use super::context::SessionContext;
use super::handle::SessionError;
use super::push::push_once;
use super::sync_error::SyncError;
use crate::state_engine::Exported;
use crate::store::StoreError;

/// Pause between two pushes of a domain. Changes that come meanwhile share the next one.
const PUSH_PAUSE: Duration = Duration::from_millis(100);

/// Pushes a domain whenever the peer may not have all of it, until the session ends.
pub(super) async fn keep_emptying_outbox(session: &SessionContext, domain: &str) {
    // A push has only objects of this node.
    let news = session
        .core
        .watch(session.handle.peer(), domain, Exported::Own);
    let mut backoff = Backoff::new(&session.config);
    let mut is_start = true;
    loop {
        let pause = match push_owed(session, domain, is_start).await {
            Ok(true) => {
                backoff.reset();
                PUSH_PAUSE
            }
            Ok(false) => {
                is_start = false;
                backoff.reset();
                tokio::select! {
                    biased;
                    () = session.handle.closed().cancelled() => return,
                    () = news.wait() => continue,
                }
            }
            Err(SyncError::Session(SessionError::Over)) => return,
            Err(error) => {
                tracing::warn!(domain, error = %error_chain(&error), "push failed");
                backoff.next()
            }
        };
        if session.pause(pause).await.is_err() {
            return;
        }
    }
}

/// Pushes one package of a domain if the domain has a row, or at the start of a session. Returns
/// whether one was sent.
async fn push_owed(
    session: &SessionContext,
    domain: &str,
    is_start: bool,
) -> Result<bool, SyncError> {
    let (peer, name) = (*session.handle.peer(), domain.to_owned());
    let read = session.core.read(move |view| {
        let row = view.rows.outbox_seq(&peer, &name)?;
        Ok::<_, StoreError>(row.is_some())
    });
    if !read.await? && !is_start {
        return Ok(false);
    }
    let pushed = push_once(&session.core, &session.handle, domain).await?;
    Ok(pushed.window.is_some())
}

#[cfg(test)]
mod tests;
