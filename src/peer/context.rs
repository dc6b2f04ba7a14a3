//! The context of a session's tasks: its core, limits, handle and domains.

use std::sync::Arc;
use std::time::Duration;

use keys::error_chain;
use tokio::time::sleep;

use super::elsewhere::Elsewhere;
use super::handle::{SessionError, SessionHandle};
use super::processor_budget::ProcessorBudget;
use super::quota_log::QuotaLog;
use super::sync_error::SyncError;
use crate::config::SyncConfig;
use crate::engine::CoreHandle;
use crate::state_engine::AppliedPackage;

/// State that the tasks of one session share.
pub(super) struct SessionContext {
    pub(super) core: CoreHandle,
    pub(super) config: SyncConfig,
    pub(super) handle: Arc<SessionHandle>,
    /// The intersection of both nodes' domains.
    pub(super) domains: Vec<String>,
    pub(super) quota_log: Arc<QuotaLog>,
    pub(super) budget: Arc<ProcessorBudget>,
    pub(super) elsewhere: Arc<Elsewhere>,
}

/// The parts of a session and its node that receiving a package needs.
#[derive(Clone, Copy)]
pub(super) struct Puller<'s> {
    pub(super) engine: &'s CoreHandle,
    pub(super) budget: &'s ProcessorBudget,
    pub(super) handle: &'s SessionHandle,
    pub(super) elsewhere: &'s Elsewhere,
}

impl SessionContext {
    pub(super) fn puller(&self) -> Puller<'_> {
        Puller {
            engine: &self.core,
            budget: &self.budget,
            handle: &self.handle,
            elsewhere: &self.elsewhere,
        }
    }

    /// Waits, at most until the session ends: then the error is [`SessionError::Over`].
    pub(super) async fn pause(&self, pause: Duration) -> Result<(), SessionError> {
        tokio::select! {
            biased;
            () = self.handle.closed().cancelled() => Err(SessionError::Over),
            () = sleep(pause) => Ok(()),
        }
    }

    /// Notes what a package applied, for the log of full quotas. Scopes may be due to be pulled
    /// again now.
    pub(super) fn note_applied(&self, applied: &AppliedPackage) {
        if applied.written > 0 {
            self.quota_log.accepted(self.handle.peer());
        }
        self.handle.note_package();
    }

    /// Logs why a domain could not be pulled; a full quota once until something is applied.
    pub(super) fn log_failure(&self, domain: &str, error: &SyncError) {
        match error.quota() {
            Some(fault) => {
                self.quota_log.refused(self.handle.peer(), fault);
            }
            None => tracing::warn!(domain, error = %error_chain(error), "pull failed"),
        }
    }
}
