//! The config file read again while the node runs: what can change then, changes; all else is named.
//!
//! Never reads a file or waits for a signal: what was read comes through a channel. Invariant: a wrong file changes
//! nothing.

use std::convert::Infallible;

use tokio::sync::mpsc;

use crate::admission::ActivePolicy;
use crate::config::{Config, ConfigError};

/// What was read each time that the operator asked for it (SIGHUP).
pub type Reloads = mpsc::Receiver<Result<Config, ConfigError>>;

/// The table that changes while the node runs.
const CHANGEABLE: &str = "admission.";

/// Takes over what is read, for as long as it is polled.
pub(super) async fn follow(
    running: &Config,
    active: &ActivePolicy,
    mut reloads: Reloads,
) -> Infallible {
    while let Some(read) = reloads.recv().await {
        match replace(running, active, read) {
            Ok(waiting) => {
                let policy = active.get().policy.as_str();
                tracing::info!(policy, "the config was read again: [admission] is in force");
                for key in waiting {
                    tracing::warn!(key, "changed in the config: takes effect at the next start");
                }
            }
            Err(ConfigError::Invalid(problems)) => {
                for problem in &problems.0 {
                    tracing::error!(%problem, "the config is wrong: the old one stays in force");
                }
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    error,
                    "the config cannot be read: the old one stays in force"
                );
            }
        }
    }
    std::future::pending().await
}

/// Puts `[admission]` in force; gives the other keys that differ from what runs.
fn replace(
    running: &Config,
    active: &ActivePolicy,
    read: Result<Config, ConfigError>,
) -> Result<Vec<String>, ConfigError> {
    let read = read?;
    let mut waiting = running.differences(&read);
    waiting.retain(|key| !key.starts_with(CHANGEABLE));
    active.replace(read.admission);
    Ok(waiting)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Policy;

    fn read(text: &str) -> Result<Config, ConfigError> {
        Ok(Config::parse(Path::new("p"), text)?)
    }

    #[test]
    fn the_table_of_admission_is_taken_over_and_other_keys_are_named() {
        let running = read("[sync]\ndials_max = 3\n").unwrap();
        let active = ActivePolicy::new(running.admission.clone());
        active.set_policy(Policy::Allowlist);
        let text = "[admission]\npolicy = \"approve\"\npending_max = 9\n[sync]\ndials_max = 4\n[api]\nrequests_max = 9\n";
        let waiting = replace(&running, &active, read(text)).unwrap();
        assert_eq!(waiting, ["api.requests_max", "sync.dials_max"]);
        let now = active.get();
        assert_eq!((now.policy, now.pending_max), (Policy::Approve, 9));
        assert!(!active.is_overridden());
    }

    #[test]
    fn a_wrong_file_leaves_what_was_in_force_and_says_where_it_is_wrong() {
        let running = read("").unwrap();
        let active = ActivePolicy::new(running.admission.clone());
        active.set_policy(Policy::Allowlist);
        let wrong = read("[admission]\npolicy = \"approve\"\npending_max = 0\n");
        let error = replace(&running, &active, wrong).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("p:3: admission.pending_max: "),
            "{error}"
        );
        assert_eq!(
            (active.get().policy, active.is_overridden()),
            (Policy::Allowlist, true)
        );
    }

    #[tokio::test]
    async fn what_comes_through_the_channel_is_in_force() {
        let running = read("").unwrap();
        let active = ActivePolicy::new(running.admission.clone());
        let (send, reloads) = mpsc::channel(1);
        let reading = async {
            send.send(read("[admission]\npolicy = \"approve\"\n"))
                .await
                .unwrap();
            // There is room for one: the next is sent when the first was taken, and one more when that was.
            send.send(read("[admission]\npolicy = 5\n")).await.unwrap();
            send.reserve().await.unwrap();
        };
        tokio::select! {
            biased;
            never = follow(&running, &active, reloads) => match never {},
            () = reading => {}
        }
        assert_eq!(active.get().policy, Policy::Approve);
    }
}
