//! What goes on in a session by itself: the interval pull and the timer push of each domain (docs/STORY.md 4, 5).
//!
//! Never asks again at once after a failure. Invariant: each loop ends with its session, and what failed is asked for again
//! from where the cursor stands.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::pull::{SyncError, pull_once};
use super::push::push_once;
use super::registry::Peers;
use super::session::{Handle, SessionError};
use crate::config::SyncConfig;
use crate::schema::identities;

impl Peers {
    /// The interval pull of one domain, until the session ends (docs/STORY.md 4).
    pub(super) async fn keep_pulling(
        &self,
        handle: &Handle,
        domain: &str,
        identified: &CancellationToken,
    ) {
        let config = self.config();
        if config.pull_interval_s == 0 {
            return;
        }
        if domain != identities::DOMAIN {
            tokio::select! {
                biased;
                () = handle.over().cancelled() => return,
                () = identified.cancelled() => {}
            }
        }
        let mut backoff = Backoff::new(config);
        loop {
            // Nobody waits for news while others wait for the identities that are there.
            let wait_s = if domain == identities::DOMAIN && !identified.is_cancelled() {
                0
            } else {
                wait_s(config)
            };
            let pulled = pull_once(self.engine(), handle, domain, wait_s).await;
            if domain == identities::DOMAIN && !pulled.as_ref().is_ok_and(|outcome| outcome.more) {
                identified.cancel();
            }
            let pause = match pulled {
                Ok(outcome) => {
                    backoff.reset();
                    if outcome.applied.written > 0 {
                        self.quota_notes().taken(handle.peer());
                    }
                    let is_live = config.pull_wait_s > 0;
                    let at_once = outcome.more || (is_live && outcome.window.is_some());
                    if at_once {
                        Duration::ZERO
                    } else if is_live {
                        Duration::from_secs(1)
                    } else {
                        Duration::from_secs(config.pull_interval_s)
                    }
                }
                Err(SyncError::Session(SessionError::Over)) => return,
                Err(error) => {
                    match error.quota() {
                        Some(fault) => {
                            self.quota_notes().refused(handle.peer(), fault);
                        }
                        None => {
                            tracing::warn!(peer = %handle.peer(), domain, %error, "pull failed")
                        }
                    }
                    backoff.next()
                }
            };
            tokio::select! {
                biased;
                () = handle.over().cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// The timer push of one domain, until the session ends (docs/STORY.md 5).
    pub(super) async fn keep_pushing(&self, handle: &Handle, domain: &str) {
        let config = self.config();
        if config.push_interval_s == 0 {
            return;
        }
        let interval = Duration::from_secs(config.push_interval_s);
        let mut backoff = Backoff::new(config);
        let mut pause = interval;
        loop {
            tokio::select! {
                biased;
                () = handle.over().cancelled() => return,
                () = sleep(pause) => {}
            }
            pause = match push_once(self.engine(), handle, domain).await {
                Ok(outcome) => {
                    backoff.reset();
                    if outcome.more {
                        Duration::from_millis(100)
                    } else {
                        interval
                    }
                }
                Err(SyncError::Session(SessionError::Over)) => return,
                Err(error) => {
                    tracing::warn!(peer = %handle.peer(), domain, %error, "push failed");
                    backoff.next()
                }
            };
        }
    }
}

/// What our pulls ask a peer to wait; the config allows a minute at most.
fn wait_s(config: &SyncConfig) -> u32 {
    u32::try_from(config.pull_wait_s).unwrap_or(0)
}

/// How long to wait after a failure: doubled each time, with jitter, between two bounds.
pub(super) struct Backoff {
    next_s: u64,
    min_s: u64,
    max_s: u64,
}

impl Backoff {
    pub(super) fn new(config: &SyncConfig) -> Self {
        Self {
            next_s: config.backoff_s_min,
            min_s: config.backoff_s_min,
            max_s: config.backoff_s_max,
        }
    }

    /// After a success.
    pub(super) fn reset(&mut self) {
        self.next_s = self.min_s;
    }

    /// After a failure: between three quarters of the wait and all of it, so that peers do not come back in step.
    pub(super) fn next(&mut self) -> Duration {
        let wait = Duration::from_secs(self.next_s);
        self.next_s = (self.next_s * 2).min(self.max_s);
        wait.mul_f64(rand::random_range(0.75..=1.0))
    }
}
