//! Pulling scopes and domains again, beside what is new (docs/PROTOCOL.md 6.4).
//!
//! Inputs are the rows of `pull_again`; output is what the packages of the replies apply. One task
//! for each domain of a session looks for rows that are due. The task looks at the start of the
//! session, after each package of the peer, and every half minute.
//! Invariants: no setting turns it off, so that a node which only receives pushes gets everything.
//! History that is pulled again does not delay news.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::context::SessionContext;
use super::handle::SessionError;
use super::pull::pull_again;
use super::sync_error::SyncError;
use crate::schema::identities;

/// Longest time until a row that has become due is seen.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Pulls scopes of one domain again as soon as they are due, until the session ends.
///
/// `identified` is cancelled when the identities are here, or cannot be had now; other domains wait
/// for it. Without ordinary pulls this task cancels it.
pub(super) async fn keep_pulling_again(
    session: &SessionContext,
    domain: &str,
    identified: &CancellationToken,
) {
    let is_first = domain == identities::DOMAIN && session.config.pull_interval_s == 0;
    if !is_first {
        tokio::select! {
            biased;
            () = session.handle.closed().cancelled() => return,
            () = identified.cancelled() => {}
        }
    }
    let mut packages = session.handle.packages();
    let mut backoff = Backoff::new(&session.config);
    loop {
        packages.mark_unchanged();
        let pause = match pull_again(session, domain).await {
            Ok(Some(outcome)) => {
                backoff.reset();
                session.note_applied(&outcome.applied);
                continue;
            }
            Ok(None) => LOOK_INTERVAL,
            Err(SyncError::Session(SessionError::Over)) => return,
            Err(error) => {
                session.log_failure(domain, &error);
                backoff.next()
            }
        };
        if is_first {
            identified.cancel();
        }
        tokio::select! {
            biased;
            paused = session.pause(pause) => if paused.is_err() { return },
            Ok(()) = packages.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests;
