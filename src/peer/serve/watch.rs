//! Replies to `watch`: one request that waits for what changes in several domains.
//!
//! Inputs are the peer's cursors; output is the package of one domain, or `unchanged` after the
//! wait. Invariants: a session has one watch in progress. A domain that got a package comes last in
//! the next look, so that none starves. A commit after the first look wakes the wait.

use std::time::Duration;

use keys::error_chain;
use keys::protocol::PULL_WAIT_S_MAX;
use tokio::time::{Instant, timeout_at};

use super::{ReplyTurns, RequestServer, ServerReply, internal, refused};
use crate::peer::handle::SessionInfo;
use crate::peer::message::{IdOnly, PackageBody, RequestRefusal, SessionMessage, Watch};
use crate::state_engine::{PullReply, PullRequest, exported_in};
use crate::store::StoreError;

impl RequestServer {
    /// Waits until a domain has something for the peer, or the time is over.
    pub(super) async fn watch<'b>(
        &self,
        session: &SessionInfo,
        watch: Watch,
        turns: &'b ReplyTurns,
    ) -> Result<ServerReply<'b>, RequestRefusal> {
        let (id, wait_s) = (watch.id, u64::from(watch.wait_s).min(PULL_WAIT_S_MAX));
        let Ok(mut last_domain) = turns.watch.try_lock() else {
            return Err(refused(id, "busy"));
        };
        let waiting = self.limits.waiting.try_acquire();
        let wait_s = if waiting.is_ok() { wait_s } else { 0 };
        let until = Instant::now() + Duration::from_secs(wait_s);
        let mut requests = requests_in_turn(session, watch, last_domain.as_deref());
        let domains = requests.iter().map(|request| request.domain.as_str());
        let exported = exported_in(&session.features);
        let news = self.core.watch_all(&session.peer, domains, exported);
        self.record_cursors(id, session, requests.clone()).await?;
        let mut has_waited = false;
        let (request, package, permit) = loop {
            let asked = requests.clone();
            let permit = turns.build.acquire().await;
            let permit = permit.map_err(|_| refused(id, "internal"))?;
            let look = self
                .core
                .read(move |view| Ok::<_, StoreError>(view.look_at_all(asked)));
            let look = look.await.map_err(|error| internal(id, &error))?;
            for (domain, error) in look.failed {
                tracing::error!(domain, error = %error_chain(&error), "could not build a package");
                requests.retain(|request| request.domain != domain);
            }
            if let Some((request, package)) = look.package {
                break (request, package, permit);
            }
            drop(permit);
            if timeout_at(until, news.wait()).await.is_err() {
                return Ok(SessionMessage::Unchanged(IdOnly { id }).into());
            }
            has_waited = true;
        };
        *last_domain = Some(request.domain.clone());
        let is_news = self.record_sent(id, request, &package).await?;
        let message = match package {
            PullReply::Package { bytes, .. } => {
                SessionMessage::Package(PackageBody { id, body: bytes })
            }
            PullReply::UpToDate { .. } => SessionMessage::Unchanged(IdOnly { id }),
        };
        Ok(ServerReply {
            message,
            build_permit: Some(permit),
            is_news: has_waited && is_news,
        })
    }

    /// Records the cursors that moved; writes nothing if none did.
    async fn record_cursors(
        &self,
        id: u64,
        session: &SessionInfo,
        requests: Vec<PullRequest>,
    ) -> Result<(), RequestRefusal> {
        let (peer, epoch) = (session.peer, self.core.context().epoch);
        // All cursors count in one epoch.
        if requests.iter().any(|request| request.epoch != Some(epoch)) {
            return Ok(());
        }
        let moved = self
            .core
            .read(move |view| view.moved_cursors(&peer, requests))
            .await
            .map_err(|error| internal(id, &error))?;
        if moved.is_empty() {
            return Ok(());
        }
        let recorded = self
            .core
            .write(move |core, now| core.record_acks(now, &moved));
        recorded.await.map_err(|error| internal(id, &error))
    }
}

/// The request of each domain, in bytewise order of the names, beginning behind `last_domain`.
fn requests_in_turn(
    session: &SessionInfo,
    watch: Watch,
    last_domain: Option<&str>,
) -> Vec<PullRequest> {
    let epoch = watch.epoch;
    let mut requests: Vec<PullRequest> = watch
        .cursors
        .into_iter()
        .map(|(domain, last_seq)| PullRequest {
            peer: session.peer,
            domain: domain.0,
            last_seq,
            epoch,
            again: None,
            features: session.features.clone(),
            whole_after: Some(session.start_seq),
        })
        .collect();
    requests.sort_by(|one, other| {
        let turn = |domain: &str| last_domain.is_some_and(|last| domain <= last);
        let key = |request: &PullRequest| (turn(&request.domain), request.domain.clone());
        key(one).cmp(&key(other))
    });
    requests
}
