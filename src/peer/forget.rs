//! Forgetting who came once and never again: untrusted peers that have been away for long.
//!
//! Never forgets a trusted peer, one that has a session, or what people wrote. Invariant: whoever comes back is admitted
//! anew and begins each domain at 0; what is here already is not stored twice.

use std::time::Duration;

use tokio::time::sleep;

use super::registry::Peers;
use crate::engine::EngineError;
use crate::op_context::Timestamp;
use crate::store::StoreError;

/// Time between two runs.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// Time from the start of a node to its first run, peers that it keeps in touch with being here by then; and to the next
/// one where there are more to forget.
const FIRST: Duration = Duration::from_secs(60);
/// Most peers that one run forgets, so that no write takes long; the rest follow soon. It is more in a day than
/// can be admitted.
const FORGOTTEN_MAX: usize = 500;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl Peers {
    /// Forgets untrusted peers that had no session for `idle_days`; 0 forgets nobody. The number of those forgotten.
    pub async fn forget_idle(&self, idle_days: u64) -> Result<usize, EngineError<StoreError>> {
        let here: Vec<_> = self
            .sessions()
            .into_iter()
            .map(|session| session.peer)
            .collect();
        self.engine()
            .graph(move |graph| {
                for peer in &here {
                    graph.tx().touch_peer(peer, graph.now())?;
                }
                if idle_days == 0 {
                    return Ok(0);
                }
                let before = Timestamp(
                    graph
                        .now()
                        .0
                        .saturating_sub(idle_days.saturating_mul(DAY_MS)),
                );
                graph.tx().forget_untrusted_peers(before, FORGOTTEN_MAX)
            })
            .await
    }

    /// [`Peers::forget_idle`] again and again, from a minute after the start on, until the node stops. `idle_days` is asked
    /// before each run: the operator may change it meanwhile.
    pub fn keep_forgetting(&self, idle_days: impl Fn() -> u64 + Send + Sync + 'static) {
        let this = self.clone();
        self.in_background(async move {
            let mut pause = FIRST;
            loop {
                sleep(pause).await;
                pause = EVERY;
                let idle_days = idle_days();
                match this.forget_idle(idle_days).await {
                    Ok(0) => {}
                    Ok(forgotten) => {
                        tracing::info!(
                            forgotten,
                            idle_days,
                            "forgot untrusted peers that were long away"
                        );
                        if forgotten == FORGOTTEN_MAX {
                            pause = FIRST;
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "could not forget peers that are long away")
                    }
                }
            }
        });
    }
}
