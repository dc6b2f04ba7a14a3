//! Watching: one request that waits for what changes in any domain of a session (docs/STORY.md 4,
//! docs/PROTOCOL.md 4).
//!
//! Inputs are the stored cursors; output is what the packages of the replies apply. Identities are
//! pulled first, to their end. Then one request watches all domains, also while they have a long
//! history to catch up with.
//! Invariants: a domain that fails stops no other, and a watch that fails is followed by pulls. All
//! of it ends with the session.

use std::time::Duration;

use bastion::Feature;
use futures::future::try_join_all;
use keys::error_chain;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::context::SessionContext;
use super::handle::SessionError;
use super::message::{DomainKey, SessionMessage, Watch};
use super::pull::pull_news;
use super::receive::{ArrivedPackage, Requested};
use super::sync_error::SyncError;
use super::timers::{LIVE_PULL_PAUSE, pause_after, pull_wait_s};
use crate::schema::identities;
use crate::state_engine::PackageFault;
use crate::store::StoreError;

/// Whether a session's domains are watched rather than pulled.
pub(super) fn may_watch(session: &SessionContext) -> bool {
    let config = &session.config;
    let is_live = config.pull_interval_s > 0 && config.pull_wait_s > 0;
    is_live && session.handle.features().has(Feature::Watch) && !session.domains.is_empty()
}

/// Keeps all domains of a session up to date until it ends. Call it if [`may_watch`].
///
/// `identified` is cancelled when the identities are here, or cannot be had now.
pub(super) async fn keep_watching(session: &SessionContext, identified: &CancellationToken) {
    // Ends with the session, and not before.
    let _ = Watcher::new(session).run(identified).await;
}

/// One domain of a session.
struct WatchedDomain<'s> {
    session: &'s SessionContext,
    name: String,
    backoff: Backoff,
    /// The next request of the domain is not before this.
    ready_at: Instant,
}

/// The task that watches.
struct Watcher<'s> {
    session: &'s SessionContext,
    domains: Vec<WatchedDomain<'s>>,
    /// After a watch that failed.
    backoff: Backoff,
}

impl WatchedDomain<'_> {
    /// Pulls to the end, and then what changes until `until`. Returns earlier if the domain backs
    /// off for longer.
    async fn pull_until(&mut self, until: Instant) -> Result<(), SessionError> {
        let config = &self.session.config;
        let mut next = self.ready_at;
        loop {
            let now = Instant::now();
            if next > until.max(now) {
                return Ok(());
            }
            self.session.pause(next - now).await?;
            let wait = until.saturating_duration_since(Instant::now());
            let wait_s = seconds(wait).min(pull_wait_s(config));
            let pulled = pull_news(self.session, &self.name, wait_s).await;
            next = match self.note(pulled)? {
                Some(outcome) => {
                    self.session.note_applied(&outcome.applied);
                    if !outcome.more && Instant::now() >= until {
                        return Ok(());
                    }
                    Instant::now() + pause_after(&outcome, config)
                }
                None => self.ready_at,
            };
        }
    }

    /// Returns what succeeded. After a failure the domain backs off.
    fn note<R>(&mut self, result: Result<R, SyncError>) -> Result<Option<R>, SessionError> {
        match result {
            Ok(outcome) => {
                self.backoff.reset();
                Ok(Some(outcome))
            }
            Err(SyncError::Session(SessionError::Over)) => Err(SessionError::Over),
            Err(error) => {
                self.session.log_failure(&self.name, &error);
                self.ready_at = Instant::now() + self.backoff.next();
                Ok(None)
            }
        }
    }
}

impl<'s> Watcher<'s> {
    fn new(session: &'s SessionContext) -> Self {
        let domains = session.domains.iter().map(|name| WatchedDomain {
            session,
            name: name.clone(),
            backoff: Backoff::new(&session.config),
            ready_at: Instant::now(),
        });
        Self {
            session,
            domains: domains.collect(),
            backoff: Backoff::new(&session.config),
        }
    }

    /// Runs until the session ends.
    async fn run(&mut self, identified: &CancellationToken) -> Result<(), SessionError> {
        let mut domains = self.domains.iter_mut();
        if let Some(identities) = domains.find(|domain| domain.name == identities::DOMAIN) {
            identities.pull_until(Instant::now()).await?;
        }
        identified.cancel();
        loop {
            // Domains take turns from the start, so that a long one delays no other.
            self.watch().await?;
            // Pulls are refused for one domain each, so that the others go on.
            let until = Instant::now() + self.backoff.next();
            let pulls = self.domains.iter_mut();
            try_join_all(pulls.map(|domain| domain.pull_until(until))).await?;
        }
    }

    /// Watches the domains that do not back off, until a watch fails.
    async fn watch(&mut self) -> Result<(), SessionError> {
        loop {
            let now = Instant::now();
            let (ready, waiting): (Vec<_>, Vec<_>) = self
                .domains
                .iter()
                .partition(|domain| domain.ready_at <= now);
            let next = waiting.iter().map(|domain| domain.ready_at).min();
            let names: Vec<String> = ready.iter().map(|domain| domain.name.clone()).collect();
            let longest = pull_wait_s(&self.session.config);
            let wait_s = next.map_or(longest, |next| seconds(next - now).min(longest));
            if names.is_empty() {
                self.session
                    .pause(Duration::from_secs(wait_s.into()))
                    .await?;
                continue;
            }
            match self.watch_once(names, wait_s).await {
                Ok(()) => self.backoff.reset(),
                Err(SyncError::Session(SessionError::Over)) => return Err(SessionError::Over),
                Err(error) => {
                    tracing::warn!(error = %error_chain(&error), "watch failed");
                    return Ok(());
                }
            }
        }
    }

    /// Sends one watch and applies what it brings. An error is one of the watch, not of a domain.
    async fn watch_once(&mut self, names: Vec<String>, wait_s: u32) -> Result<(), SyncError> {
        let session = self.session;
        let (engine, handle, budget) = (&session.core, &session.handle, &*session.budget);
        let peer = *handle.peer();
        let position = engine.read(move |view| {
            let row = view.rows.peer(&peer)?;
            let epoch = row.map(|row| row.epoch);
            let cursors = names.into_iter().map(|name| {
                let next = view.next_news(&peer, &name)?;
                // A cursor of another epoch counts as 0.
                let last_seq = if next.epoch == epoch {
                    next.last_seq
                } else {
                    0
                };
                Ok::<_, StoreError>((DomainKey(name), last_seq))
            });
            Ok::<_, StoreError>((epoch, cursors.collect::<Result<_, _>>()?))
        });
        let (epoch, cursors) = position.await?;
        tokio::select! {
            biased;
            () = handle.closed().cancelled() => return Err(SessionError::Over.into()),
            () = budget.wait(&peer) => {}
        }
        let watch = Watch {
            id: 0,
            epoch,
            wait_s,
            cursors,
        };
        let (start, wait) = (Instant::now(), Duration::from_secs(wait_s.into()));
        let request = |id| {
            SessionMessage::Watch(Watch {
                id,
                ..watch.clone()
            })
        };
        match handle.request(wait, request).await? {
            SessionMessage::Package(body) => {
                let requested = Requested::AnyOf(&watch.cursors);
                let info = handle.info();
                let arrived =
                    ArrivedPackage::verify(engine, budget, info, requested, &body.body).await?;
                self.apply(arrived, &watch).await
            }
            SessionMessage::Unchanged(_) => {
                // The peer has no place for a request that waits.
                if start.elapsed() < wait {
                    session.pause(LIVE_PULL_PAUSE).await?;
                }
                Ok(())
            }
            SessionMessage::Refused(refusal) => Err(SyncError::Refused(refusal.code)),
            _ => Err(SessionError::Misbehaved("a reply of a wrong kind to a watch").into()),
        }
    }

    /// Applies the package of one domain. If that fails, the domain backs off.
    async fn apply(&mut self, arrived: ArrivedPackage<'_>, watch: &Watch) -> Result<(), SyncError> {
        let key = DomainKey(arrived.domain().to_owned());
        let mut domains = self.domains.iter_mut();
        let (Some(domain), Some(last_seq)) = (
            domains.find(|domain| domain.name == key.0),
            watch.cursors.get(&key),
        ) else {
            return Err(PackageFault::Domain.into());
        };
        // Compared with what was requested: a push may have moved the cursor meanwhile.
        let applied = if arrived.window().to_seq <= *last_seq {
            Err(PackageFault::Window.into())
        } else {
            let puller = self.session.puller();
            arrived.apply(puller.engine, Some(puller)).await
        };
        if let Some(package) = domain.note(applied)? {
            self.session.note_applied(&package.applied);
        }
        Ok(())
    }
}

/// Whole seconds, rounded up.
fn seconds(duration: Duration) -> u32 {
    let whole = duration.as_millis().div_ceil(1000);
    u32::try_from(whole).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
