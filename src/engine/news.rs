//! [`News`]: wakes a waiting request when a commit may hold something for its peer.
//!
//! Inputs are the [`Touched`] of each commit; output is a wake-up of the peers in it, and of no
//! other. Invariant: a commit that follows [`Watchers::watch`] wakes the watcher, also before it
//! begins to wait.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use keys::PeerId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::graph::{Exported, Touched};
use crate::op_context::AppId;

/// App and peer of a watcher, and a number of its own.
type WatcherKey = (AppId, PeerId, u64);

/// Longest time by which received rows wake a request later than own ones. Its peer may get them
/// from their authors meanwhile, and rows that come together share one reply.
const RECEIVED_PAUSE: Duration = Duration::from_secs(2);

/// The wake-ups of a waiting request, and the rows that its session sends.
#[derive(Debug)]
struct WaitingRequest {
    wakeups: Arc<Wakeups>,
    exported: Exported,
}

#[derive(Debug, Default)]
struct Wakeups {
    own: Notify,
    received: Notify,
}

/// All waiting requests. The limits on requests in progress bound their number.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<WatcherTable>);

#[derive(Debug, Default)]
struct WatcherTable {
    last_number: u64,
    waiting: BTreeMap<WatcherKey, WaitingRequest>,
}

impl Watchers {
    /// Watches for those of the exported rows of these apps that `peer` may read. Without an app
    /// nothing is news.
    pub(super) fn watch(
        self: &Arc<Self>,
        peer: &PeerId,
        apps: impl IntoIterator<Item = AppId>,
        exported: Exported,
    ) -> News {
        let wakeups = Arc::new(Wakeups::default());
        let mut table = self.0.lock();
        table.last_number += 1;
        let number = table.last_number;
        let keys: BTreeSet<WatcherKey> = apps.into_iter().map(|app| (app, *peer, number)).collect();
        for key in &keys {
            let wakeups = wakeups.clone();
            table
                .waiting
                .insert(*key, WaitingRequest { wakeups, exported });
        }
        drop(table);
        News {
            watchers: self.clone(),
            keys,
            wakeups,
        }
    }

    /// Wakes the watchers whose peer a commit touched. Call it after the commit.
    pub(super) fn publish(&self, touched: &Touched) {
        if touched.is_empty() {
            return;
        }
        let table = self.0.lock();
        let waiting = &table.waiting;
        let wake = |range: RangeInclusive<WatcherKey>| {
            for (_, watcher) in waiting.range(range) {
                watcher.wakeups.own.notify_one();
            }
        };
        let (first, last) = (PeerId::from_bytes([0; 32]), PeerId::from_bytes([255; 32]));
        for app in touched.public() {
            wake((app, first, 0)..=(app, last, u64::MAX));
        }
        for (app, peer) in touched.scopes() {
            wake((app, peer, 0)..=(app, peer, u64::MAX));
        }
        for (app, peer) in touched.received() {
            for (_, watcher) in waiting.range((app, peer, 0)..=(app, peer, u64::MAX)) {
                if watcher.exported == Exported::All {
                    watcher.wakeups.received.notify_one();
                }
            }
        }
        if touched.is_everything() || touched.readers().next().is_some() {
            let readers: Vec<PeerId> = touched.readers().collect();
            for ((_, peer, _), watcher) in waiting {
                if touched.is_everything() || readers.binary_search(peer).is_ok() {
                    watcher.wakeups.own.notify_one();
                }
            }
        }
    }
}

/// The wake-up of one waiting request. A commit after its creation is never missed.
#[derive(Debug)]
pub struct News {
    watchers: Arc<Watchers>,
    /// One for each app; none if nothing can be news.
    keys: BTreeSet<WatcherKey>,
    wakeups: Arc<Wakeups>,
}

impl News {
    /// Waits until a commit may hold something for the peer; returns at once if one did since the
    /// last call or since the creation.
    pub async fn wait(&self) {
        tokio::select! {
            biased;
            () = self.wakeups.own.notified() => return,
            () = self.wakeups.received.notified() => {}
        }
        // A wait that is dropped now loses nothing, because its request ends.
        let _ = timeout(RECEIVED_PAUSE, self.wakeups.own.notified()).await;
    }
}

impl Drop for News {
    fn drop(&mut self) {
        let mut table = self.watchers.0.lock();
        for key in &self.keys {
            table.waiting.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::time::Instant;

    use super::*;

    fn is_woken(news: &News) -> bool {
        news.wait().now_or_never().is_some()
    }

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    #[test]
    fn a_watcher_sees_a_commit_or_is_woken_by_it_in_every_order() {
        // The watcher's steps are watch, read, wait; the writer's are commit, publish. `order` says
        // at which of the five places the writer takes its two steps.
        for commit_at in 0..5usize {
            for publish_at in commit_at + 1..5 {
                let watchers = Arc::new(Watchers::default());
                let (mut is_committed, mut seen, mut news, mut woken) = (false, false, None, false);
                let mut watcher_step = 0;
                for place in 0..5 {
                    if place == commit_at {
                        is_committed = true;
                    } else if place == publish_at {
                        watchers.publish(&Touched::of_scope(AppId(1), peer(1)));
                    } else {
                        match watcher_step {
                            0 => {
                                news = Some(watchers.watch(&peer(1), Some(AppId(1)), Exported::Own))
                            }
                            1 => seen = is_committed,
                            _ => woken = is_woken(news.as_ref().unwrap()),
                        }
                        watcher_step += 1;
                    }
                }
                let woken_later = is_woken(news.as_ref().unwrap());
                assert!(
                    seen || woken || woken_later,
                    "commit at {commit_at}, publish at {publish_at}"
                );
            }
        }
    }

    #[test]
    fn wakes_the_touched_peers_of_the_touched_app_only() {
        let watchers = Arc::new(Watchers::default());
        let watch = |app, number| watchers.watch(&peer(number), Some(AppId(app)), Exported::Own);
        let all = [watch(1, 1), watch(1, 2), watch(2, 1), watch(2, 2)];
        let woken = || all.iter().map(is_woken).collect::<Vec<_>>();
        watchers.publish(&Touched::default());
        assert_eq!(woken(), [false; 4]);
        watchers.publish(&Touched::of_scope(AppId(1), peer(1)));
        assert_eq!(woken(), [true, false, false, false]);
        watchers.publish(&Touched::of_public(AppId(2)));
        assert_eq!(woken(), [false, false, true, true]);
        watchers.publish(&Touched::of_readers(peer(2)));
        assert_eq!(woken(), [false, true, false, true]);
        watchers.publish(&Touched::of_everything());
        assert_eq!(woken(), [true; 4]);
        let outside = watchers.watch(&peer(1), None, Exported::Own);
        watchers.publish(&Touched::of_everything());
        assert!(!is_woken(&outside), "no app, no news");
        let both = watchers.watch(&peer(1), [AppId(1), AppId(2)], Exported::Own);
        for app in [1, 2] {
            watchers.publish(&Touched::of_scope(AppId(app), peer(1)));
            assert!(is_woken(&both), "app {app}");
        }
        watchers.publish(&Touched::of_scope(AppId(3), peer(1)));
        assert!(!is_woken(&both));
    }

    #[tokio::test(start_paused = true)]
    async fn received_rows_wake_only_watchers_of_sessions_that_send_them() {
        let watchers = Arc::new(Watchers::default());
        let watch = |exported| watchers.watch(&peer(1), Some(AppId(1)), exported);
        let (own, all) = (watch(Exported::Own), watch(Exported::All));
        watchers.publish(&Touched::of_received(AppId(1), peer(1)));
        assert!(!is_woken(&own));
        let start = Instant::now();
        timeout(2 * RECEIVED_PAUSE, all.wait()).await.unwrap();
        assert_eq!(start.elapsed(), RECEIVED_PAUSE, "rows that come together");
        watchers.publish(&Touched::of_received(AppId(1), peer(2)));
        assert_eq!((is_woken(&own), is_woken(&all)), (false, false));
        watchers.publish(&Touched::of_received(AppId(1), peer(1)));
        watchers.publish(&Touched::of_scope(AppId(1), peer(1)));
        assert_eq!((is_woken(&own), is_woken(&all)), (true, true));
    }

    #[test]
    fn a_dropped_watcher_leaves_nothing_behind() {
        let watchers = Arc::new(Watchers::default());
        for _ in 0..100 {
            drop(watchers.watch(&peer(1), [AppId(1), AppId(2)], Exported::Own));
        }
        let kept = watchers.watch(&peer(1), Some(AppId(1)), Exported::Own);
        assert_eq!(watchers.0.lock().waiting.len(), 1);
        drop(kept);
        assert!(watchers.0.lock().waiting.is_empty());
    }
}
