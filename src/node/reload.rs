//! The configuration file, read again while the node runs.
//!
//! Input: configurations that arrive through a channel. `[admission]` takes effect at once; every
//! other key that changed is named in the log, because it takes effect at the next start.
//! Invariant: an invalid file changes nothing. Tested in this file.

use std::convert::Infallible;

use keys::error_chain;
use tokio::sync::mpsc;

use crate::admission::ActivePolicy;
use crate::config::{Config, ConfigError, Problem};

/// Yields the configuration each time that the operator asked to read it again (SIGHUP).
pub type Reloads = mpsc::Receiver<Result<Config, ConfigError>>;

/// Prefix of the keys that take effect while the node runs.
const CHANGEABLE: &str = "admission.";

/// Applies each configuration that arrives, for as long as it is polled.
pub(super) async fn follow(
    running: &Config,
    active: &ActivePolicy,
    mut reloads: Reloads,
) -> Infallible {
    while let Some(read) = reloads.recv().await {
        match replace(running, active, read) {
            Ok(deferred) => {
                let policy = active.get().policy.as_str();
                tracing::info!(
                    policy,
                    "reloaded the configuration: [admission] is in force"
                );
                for key in deferred {
                    tracing::warn!(key, "a changed key takes effect at the next start");
                }
            }
            Err(ConfigError::Invalid(problems)) => {
                log_warnings(&problems.warnings);
                for problem in &problems.errors {
                    tracing::error!(
                        %problem,
                        "the configuration is invalid: the old one stays in force"
                    );
                }
            }
            Err(error) => {
                tracing::error!(
                    error = %error_chain(&error),
                    "the configuration cannot be read: the old one stays in force"
                );
            }
        }
    }
    std::future::pending().await
}

fn log_warnings(warnings: &[Problem]) {
    for warning in warnings {
        tracing::warn!(%warning, "obsolete key in the configuration");
    }
}

/// Puts `[admission]` in force; returns the other keys that differ from the running configuration.
fn replace(
    running: &Config,
    active: &ActivePolicy,
    read: Result<Config, ConfigError>,
) -> Result<Vec<String>, ConfigError> {
    let read = read?;
    log_warnings(read.warnings());
    let mut deferred = running.differences(&read);
    deferred.retain(|key| !key.starts_with(CHANGEABLE));
    active.replace(read.admission_config());
    Ok(deferred)
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
    fn replaces_the_admission_table_and_names_other_changed_keys() {
        let running = read("[sync]\ndials_max = 3\n").unwrap();
        let active = ActivePolicy::new(running.admission_config());
        active.set_policy(Policy::Allowlist);
        let text = "[admission]\npolicy = \"approve\"\nuntrusted_idle_days = 9\n\
                    [sync]\ndials_max = 4\nbackoff_s_min = 9\n[api]\nlisten = \"127.0.0.1:9\"\n";
        let deferred = replace(&running, &active, read(text)).unwrap();
        assert_eq!(deferred, ["api.listen", "sync.dials_max"]);
        let now = active.get();
        assert_eq!((now.policy, now.untrusted_idle_days), (Policy::Approve, 9));
        assert!(!active.is_overridden());
    }

    #[test]
    fn invalid_file_changes_nothing_and_is_reported_with_its_line() {
        let running = read("").unwrap();
        let active = ActivePolicy::new(running.admission_config());
        active.set_policy(Policy::Allowlist);
        let wrong = read("[admission]\npolicy = \"approve\"\nuntrusted_idle_days = -1\n");
        let error = replace(&running, &active, wrong).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("p:3: admission.untrusted_idle_days: "),
            "{error}"
        );
        assert_eq!(
            (active.get().policy, active.is_overridden()),
            (Policy::Allowlist, true)
        );
    }

    #[tokio::test]
    async fn follow_applies_each_config_from_the_channel() {
        let running = read("").unwrap();
        let active = ActivePolicy::new(running.admission_config());
        let (send, reloads) = mpsc::channel(1);
        let reading = async {
            send.send(read("[admission]\npolicy = \"approve\"\n"))
                .await
                .unwrap();
            // The channel holds one configuration: `reserve` returns once the second was received.
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
