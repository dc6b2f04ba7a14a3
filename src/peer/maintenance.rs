//! Maintenance that belongs to no session: forgets idle untrusted peers, and ends a recovery at its
//! deadline.
//!
//! Inputs are the clock of the core and the operator's setting; output is removed rows. A trusted
//! peer, a peer with a session and objects are never removed. Invariant: a forgotten peer that
//! returns is admitted as a new one and starts each domain at 0. Objects that are stored already
//! are not stored twice. Each run has a span with a trace id of its own.

use std::time::Duration;

use keys::{TraceId, error_chain};
use tokio::time::sleep;
use tracing::{Instrument as _, Span};

use super::service::SyncService;
use crate::engine::{CoreHandle, EngineError};
use crate::op_context::Timestamp;
use crate::store::StoreError;

/// Time between two runs of forgetting.
const FORGET_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Time from the start of the node to its first run. Peers that it keeps dialling have sessions by
/// then. Also the time to the next run after a full one.
const FORGET_SOON: Duration = Duration::from_secs(60);
/// Most peers that one run forgets, portion after portion. A day's runs forget more peers than can
/// be admitted in a day.
const FORGOTTEN_MAX: usize = 500;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Time between two checks whether a recovery has reached its deadline.
const RECOVERY_CHECK_INTERVAL: Duration = Duration::from_secs(600);
/// Time between two checks whether values of ended scopes are left to drop.
const ENDED_CHECK_INTERVAL: Duration = Duration::from_secs(60);

impl SyncService {
    /// Forgets untrusted peers that had no session for `idle_days`, and returns how many; 0 days
    /// forgets none.
    pub async fn forget_idle(&self, idle_days: u64) -> Result<usize, EngineError<StoreError>> {
        let (core, span) = self.traced_run();
        self.forget_with(&core, idle_days).instrument(span).await
    }

    /// The core with the trace id of one run, and the run's span.
    fn traced_run(&self) -> (CoreHandle, Span) {
        let trace = TraceId(rand::random());
        let span = tracing::info_span!("maintenance", %trace);
        (self.engine().traced(trace), span)
    }

    async fn forget_with(
        &self,
        core: &CoreHandle,
        idle_days: u64,
    ) -> Result<usize, EngineError<StoreError>> {
        let live: Vec<_> = self
            .registry()
            .sessions()
            .into_iter()
            .map(|session| session.peer)
            .collect();
        core.graph(move |graph| {
            let now = graph.now();
            live.iter()
                .try_for_each(|peer| graph.tx().touch_peer(peer, now))
        })
        .await?;
        let mut forgotten = 0;
        while idle_days > 0 && forgotten < FORGOTTEN_MAX {
            // A peer that connects between two portions is no longer idle.
            let portion = core.graph(move |graph| {
                let idle_ms = idle_days.saturating_mul(DAY_MS);
                let before = Timestamp(graph.now().0.saturating_sub(idle_ms));
                let most = FORGOTTEN_MAX - forgotten;
                graph.tx().forget_untrusted_peers(before, most)
            });
            match portion.await? {
                0 => break,
                portion => forgotten += portion,
            }
        }
        Ok(forgotten)
    }

    /// Runs [`SyncService::forget_idle`] at an interval until the node stops. Each run calls
    /// `idle_days`, because the operator may change the setting.
    pub fn keep_forgetting(&self, idle_days: impl Fn() -> u64 + Send + Sync + 'static) {
        let this = self.clone();
        self.in_background(async move {
            let mut pause = FORGET_SOON;
            loop {
                sleep(pause).await;
                let (core, span) = this.traced_run();
                let run = this.forget_and_log(&core, idle_days());
                pause = run.instrument(span).await;
            }
        });
    }

    /// Makes one run of forgetting; returns the time until the next one.
    async fn forget_and_log(&self, core: &CoreHandle, idle_days: u64) -> Duration {
        match self.forget_with(core, idle_days).await {
            Ok(0) => {}
            Ok(forgotten) => {
                tracing::info!(forgotten, idle_days, "forgot idle untrusted peers");
                if forgotten == FORGOTTEN_MAX {
                    return FORGET_SOON;
                }
            }
            Err(error) => {
                tracing::error!(error = %error_chain(&error), "could not forget idle peers")
            }
        }
        FORGET_INTERVAL
    }

    /// Drops the values of ended scopes in small writes; checks until the node stops.
    pub fn keep_dropping_ended(&self) {
        let this = self.clone();
        self.in_background(async move {
            loop {
                sleep(ENDED_CHECK_INTERVAL).await;
                let (core, span) = this.traced_run();
                drop_ended(&core).instrument(span).await;
            }
        });
    }

    /// Gives up objects that have waited too long, deletes old address records, and tries rights
    /// lists again that were put off; until the node stops.
    pub fn keep_expiring(&self) {
        let this = self.clone();
        self.in_background(async move {
            loop {
                sleep(FORGET_INTERVAL).await;
                let (core, span) = this.traced_run();
                let run = async {
                    expire_waiting(&core).await;
                    expire_addresses(&core).await;
                    retry_lists(&core).await;
                };
                run.instrument(span).await;
            }
        });
    }

    /// Ends a recovery that has reached its deadline; checks until the node stops.
    pub fn keep_watching_recovery(&self) {
        let this = self.clone();
        self.in_background(async move {
            loop {
                sleep(RECOVERY_CHECK_INTERVAL).await;
                let (core, span) = this.traced_run();
                end_overdue_recovery(&core).instrument(span).await;
            }
        });
    }
}

async fn drop_ended(core: &CoreHandle) {
    loop {
        let more = core.write(|core, now| core.drop_ended_step(now)).await;
        let more: Result<bool, EngineError<StoreError>> = more;
        match more {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::error!(error = %error_chain(&error), "could not drop an ended scope");
                return;
            }
        }
    }
}

/// Gives up waiting objects portion after portion; other writes run between two portions.
async fn expire_waiting(core: &CoreHandle) {
    loop {
        let expired = core.write(|core, now| core.expire_step(now)).await;
        let expired: Result<bool, EngineError<StoreError>> = expired;
        match expired {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                let causes = error_chain(&error);
                tracing::error!(error = %causes, "could not give up waiting objects");
                return;
            }
        }
    }
}

async fn expire_addresses(core: &CoreHandle) {
    let expired = core.write(|core, now| core.expire_addresses(now)).await;
    let expired: Result<(), EngineError<StoreError>> = expired;
    if let Err(error) = expired {
        tracing::error!(error = %error_chain(&error), "could not delete old address records");
    }
}

async fn retry_lists(core: &CoreHandle) {
    let retried = core.write(|core, now| core.retry_lists(now)).await;
    let retried: Result<(), EngineError<StoreError>> = retried;
    if let Err(error) = retried {
        tracing::error!(error = %error_chain(&error), "could not try rights lists again");
    }
}

async fn end_overdue_recovery(core: &CoreHandle) {
    let ended = core.write(|core, now| core.end_overdue_recovery(now)).await;
    let ended: Result<bool, EngineError<StoreError>> = ended;
    match ended {
        Ok(true) => {
            tracing::warn!("the recovery reached its deadline: it no longer waits for peers")
        }
        Ok(false) => {}
        Err(error) => tracing::error!(error = %error_chain(&error), "could not end a recovery"),
    }
}

#[cfg(test)]
mod tests;
