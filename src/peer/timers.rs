//! The periodic tasks of a session: pulls and pushes of each domain (docs/STORY.md 4, 5).
//!
//! Inputs are the intervals of [`SyncConfig`]; output is what [`pull_news`] and [`push_once`]
//! apply. Each failure is followed by a pause. Invariants: each task ends with its session; a retry
//! starts at the stored cursor.

use std::time::Duration;

use keys::error_chain;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::context::SessionContext;
use super::handle::SessionError;
use super::pull::{PullOutcome, pull_news};
use super::push::push_once;
use super::sync_error::SyncError;
use crate::config::SyncConfig;
use crate::schema::identities;

/// Pause between two waiting requests if the first brought nothing.
pub(super) const LIVE_PULL_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two pushes if more is ready.
const PUSH_PAUSE: Duration = Duration::from_millis(100);

/// Pulls one domain at the configured interval, until the session ends (docs/STORY.md 4).
///
/// `identified` is cancelled when the identities are here, or cannot be had now; other domains wait
/// for it.
pub(super) async fn keep_pulling(
    session: &SessionContext,
    domain: &str,
    identified: &CancellationToken,
) {
    let config = &session.config;
    if config.pull_interval_s == 0 {
        return;
    }
    if domain != identities::DOMAIN {
        tokio::select! {
            biased;
            () = session.handle.closed().cancelled() => return,
            () = identified.cancelled() => {}
        }
    }
    let mut backoff = Backoff::new(config);
    loop {
        // The first pulls of identities do not wait for changes, because the other domains wait for
        // them.
        let wait_s = if domain == identities::DOMAIN && !identified.is_cancelled() {
            0
        } else {
            pull_wait_s(config)
        };
        let pulled = pull_news(session, domain, wait_s).await;
        if domain == identities::DOMAIN && !pulled.as_ref().is_ok_and(|outcome| outcome.more) {
            identified.cancel();
        }
        let pause = match pulled {
            Ok(outcome) => {
                backoff.reset();
                session.note_applied(&outcome.applied);
                pause_after(&outcome, config)
            }
            Err(SyncError::Session(SessionError::Over)) => return,
            Err(error) => {
                session.log_failure(domain, &error);
                backoff.next()
            }
        };
        if session.pause(pause).await.is_err() {
            return;
        }
    }
}

/// Returns how long to wait after a pull that succeeded.
pub(super) fn pause_after(outcome: &PullOutcome, config: &SyncConfig) -> Duration {
    let is_live = config.pull_wait_s > 0;
    if outcome.more || (is_live && outcome.window.is_some()) {
        Duration::ZERO
    } else if is_live {
        LIVE_PULL_PAUSE
    } else {
        Duration::from_secs(config.pull_interval_s)
    }
}

/// Returns the seconds that this node's pulls ask a peer to wait; the configuration allows 60 at
/// most.
pub(super) fn pull_wait_s(config: &SyncConfig) -> u32 {
    u32::try_from(config.pull_wait_s).unwrap_or(0)
}

/// Pushes one domain at the configured interval, until the session ends (docs/STORY.md 5).
pub(super) async fn keep_pushing(session: &SessionContext, domain: &str) {
    let config = &session.config;
    if config.push_interval_s == 0 {
        return;
    }
    let interval = Duration::from_secs(config.push_interval_s);
    let mut backoff = Backoff::new(config);
    let mut pause = interval;
    while session.pause(pause).await.is_ok() {
        pause = match push_once(&session.core, &session.handle, domain).await {
            Ok(outcome) => {
                backoff.reset();
                if outcome.more { PUSH_PAUSE } else { interval }
            }
            Err(SyncError::Session(SessionError::Over)) => return,
            Err(error) => {
                tracing::warn!(domain, error = %error_chain(&error), "push failed");
                backoff.next()
            }
        };
    }
}

#[cfg(test)]
mod tests;
