//! The checkpoint thread: copies the write-ahead log into the database beside the writer.
//!
//! Input is the length of the log after each job of the writer. Outputs are rounds of copying, and
//! the advice to the writer to restart the log. Copying a page is much faster than writing it, so
//! that each round leaves a smaller rest. Invariants: the writer waits at most [`ROUND_WAIT_MAX`]
//! for a round, and copies at most [`REST_MAX`] pages itself. A commit during a round can wait for
//! the disk to sync the pages of this round ([`ROUND_PAGES`]).

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use keys::error_chain;
use parking_lot::{Condvar, Mutex};

use crate::state_engine::StateEngine;
use crate::store::{Checkpointer, LogState, StoreError};

/// Pages that a round copies at least: 8 MiB. Pages that change often are copied once a round.
const ROUND_PAGES: u64 = 2048;
/// Pages from which the log is restarted: 64 MiB.
const LOG_PAGES: u64 = 16_384;
/// Pages that the writer itself copies at most before it restarts the log: some 5 ms.
const REST_MAX: u64 = 1024;
/// Pages from which the writer lets a running round catch up: 256 MiB. A disk that copies slower
/// than it appends gets here.
const LOG_PAGES_WAIT: u64 = 65_536;
/// Time for which one job lets a round catch up.
const ROUND_WAIT_MAX: Duration = Duration::from_millis(20);

/// The next step for the log after a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Advice {
    Nothing,
    /// The thread copies.
    Copy,
    /// The writer copies the rest and restarts the log.
    Restart,
}

/// Decides from the length of the log.
///
/// A read that uses the log can make an advice useless. The same advice is therefore given again
/// only when the log is [`REST_MAX`] pages longer.
#[derive(Debug, Default)]
struct Rule {
    /// Length of the log at the last [`Advice::Copy`].
    copied_at: u64,
    /// Length of the log at the last [`Advice::Restart`].
    restarted_at: u64,
}

impl Rule {
    fn advise(&mut self, log: LogState) -> Advice {
        let LogState { pages, .. } = log;
        for tried_at in [&mut self.copied_at, &mut self.restarted_at] {
            if pages < *tried_at {
                // The log was restarted.
                *tried_at = 0;
            }
        }
        let is_long = pages >= LOG_PAGES;
        let is_short_rest = log.rest() <= REST_MAX;
        if is_long && is_short_rest && pages >= self.restarted_at + REST_MAX {
            self.restarted_at = pages;
            Advice::Restart
        } else if (log.rest() >= ROUND_PAGES || is_long && !is_short_rest)
            && pages >= self.copied_at + REST_MAX
        {
            self.copied_at = pages;
            Advice::Copy
        } else {
            Advice::Nothing
        }
    }
}

/// The state of the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Round {
    #[default]
    Idle,
    /// Wanted or running.
    Busy,
    /// The writer has ended.
    Over,
}

/// The round that the writer and the thread share.
#[derive(Debug, Default)]
struct SharedRound {
    round: Mutex<Round>,
    changed: Condvar,
}

impl SharedRound {
    fn set(&self, round: Round) {
        *self.round.lock() = round;
        self.changed.notify_all();
    }

    /// Waits for a wanted round; returns false if the writer has ended.
    fn wait_for_work(&self) -> bool {
        let mut round = self.round.lock();
        self.changed
            .wait_while(&mut round, |round| *round == Round::Idle);
        *round == Round::Busy
    }

    /// Ends a round, unless the writer has ended meanwhile.
    fn end(&self) {
        let mut round = self.round.lock();
        if *round == Round::Busy {
            *round = Round::Idle;
        }
        self.changed.notify_all();
    }

    /// Whether a round is running. Waits up to `wait` for its end.
    fn is_busy(&self, wait: Duration) -> bool {
        let mut round = self.round.lock();
        if *round == Round::Busy && !wait.is_zero() {
            self.changed
                .wait_while_for(&mut round, |round| *round == Round::Busy, wait);
        }
        *round == Round::Busy
    }
}

/// The writer's side of the checkpoint thread. Ends the thread when it is dropped.
#[derive(Debug)]
pub(super) struct Checkpoints {
    shared: Arc<SharedRound>,
    rule: Rule,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread.
    pub(super) fn start(connection: Checkpointer) -> Result<Self, StoreError> {
        let shared = Arc::new(SharedRound::default());
        let of_thread = shared.clone();
        let run = move || {
            while of_thread.wait_for_work() {
                if let Err(error) = connection.copy() {
                    log_failure(&error);
                }
                of_thread.end();
            }
        };
        let builder = std::thread::Builder::new().name("checkpoint".into());
        let thread = builder.spawn(run).map_err(StoreError::Thread)?;
        Ok(Self {
            shared,
            rule: Rule::default(),
            thread: Some(thread),
        })
    }

    /// Does what is due about the log between two jobs.
    pub(super) fn after_job(&mut self, core: &StateEngine) {
        if let Err(error) = self.try_after_job(core) {
            log_failure(&error);
        }
    }

    fn try_after_job(&mut self, core: &StateEngine) -> Result<(), StoreError> {
        let log = core.log_state()?;
        let wait = if log.pages >= LOG_PAGES_WAIT {
            ROUND_WAIT_MAX
        } else {
            Duration::ZERO
        };
        if self.shared.is_busy(wait) {
            return Ok(());
        }
        match self.rule.advise(log) {
            Advice::Nothing => {}
            Advice::Copy => self.shared.set(Round::Busy),
            Advice::Restart => {
                core.restart_log()?;
            }
        }
        Ok(())
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.shared.set(Round::Over);
        if let Some(thread) = self.thread.take() {
            // The panic hook has reported a panic of the thread.
            let _ = thread.join();
        }
    }
}

/// A failed checkpoint loses nothing: the log keeps what the database does not have.
fn log_failure(error: &StoreError) {
    tracing::error!(error = %error_chain(error), "could not copy the write-ahead log");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(pages: u64, copied: u64) -> LogState {
        LogState { pages, copied }
    }

    #[test]
    fn rounds_copy_a_growing_log_and_the_writer_restarts_it_after_a_short_rest() {
        let mut rule = Rule::default();
        let mut advise = |pages, copied| rule.advise(log(pages, copied));
        assert_eq!(advise(ROUND_PAGES - 1, 0), Advice::Nothing);
        assert_eq!(advise(ROUND_PAGES, 0), Advice::Copy);
        assert_eq!(advise(2 * ROUND_PAGES - 1, ROUND_PAGES), Advice::Nothing);
        assert_eq!(advise(2 * ROUND_PAGES, ROUND_PAGES), Advice::Copy);
        assert_eq!(advise(LOG_PAGES + REST_MAX + 1, LOG_PAGES), Advice::Copy);
        assert_eq!(
            advise(LOG_PAGES + REST_MAX + 9, LOG_PAGES + 1000),
            Advice::Restart
        );
        assert_eq!(advise(10, 0), Advice::Nothing);
        assert_eq!(
            advise(ROUND_PAGES, 0),
            Advice::Copy,
            "the log was restarted"
        );
    }

    #[test]
    fn read_that_uses_the_log_costs_one_try_for_each_step_of_its_growth() {
        let mut rule = Rule::default();
        let tries = |rule: &mut Rule, copied| {
            let pages = LOG_PAGES..LOG_PAGES + 10 * REST_MAX;
            let advices = pages.map(|pages| rule.advise(log(pages, copied)));
            advices.filter(|advice| *advice != Advice::Nothing).count()
        };
        assert_eq!(tries(&mut rule, 100), 10, "nothing more can be copied");
        let mut rule = Rule::default();
        let pages = LOG_PAGES..LOG_PAGES + 10 * REST_MAX;
        let restarts = pages.filter(|pages| rule.advise(log(*pages, *pages)) == Advice::Restart);
        assert_eq!(restarts.count(), 10, "everything is copied, but in use");
    }
}
