//! Keys of earlier versions: what became of them, and the warning for a file that still has them.
//!
//! A removed key never stops a node from starting, because its number is fixed or derived now. A
//! renamed key keeps its value. Invariant: no path below is a key of `keys.rs` (tested).

use bastion::GateConfig;
use keys::protocol;

use super::settings::{ApiConfig, PENDING_DAYS, PENDING_MAX, REFUSED_DAYS, SyncConfig};
use crate::toml_file::edit::Rename;
use crate::toml_file::{Problem, TomlFile};

/// What a removed key's number is now.
#[derive(Debug, Clone, Copy)]
pub(super) enum Now {
    /// A fixed number.
    Fixed(u64),
    /// Computed from keys, as the text says.
    Derived(&'static str),
}

const GATE: GateConfig = GateConfig::DEFAULT;
const SYNC: SyncConfig = SyncConfig::DEFAULT;
const API: ApiConfig = ApiConfig::DEFAULT;

/// Renamed tables and keys: the old path, and the new last part of it.
pub(super) static RENAMED: &[(&str, &str)] = &[
    ("admission.worked_idle_days", "untrusted_idle_days"),
    ("quota.worked", "untrusted"),
];

/// Removed tables. An empty one is left behind by a file in which all keys are comments.
static REMOVED_TABLES: &[&str] = &["limits"];

/// Removed keys, with renamed tables under their new name.
#[rustfmt::skip]
pub(super) static REMOVED: &[(&str, Now)] = &[
    ("api.body_bytes_max", Now::Fixed(API.body_bytes_max as u64)),
    ("api.requests_max", Now::Fixed(API.requests_max as u64)),
    ("api.request_deadline_s", Now::Fixed(API.request_deadline_s)),
    ("admission.pending_max", Now::Fixed(PENDING_MAX as u64)),
    ("admission.pending_days", Now::Fixed(PENDING_DAYS)),
    ("admission.refused_days", Now::Fixed(REFUSED_DAYS)),
    ("bastion.effort_calm", Now::Derived("8, or effort_max if that is lower")),
    ("bastion.effort_base", Now::Derived("1024, or effort_max if that is lower")),
    ("bastion.effort_calm_percent", Now::Fixed(GATE.idle_load_percent as u64)),
    ("bastion.effort_doubling_s", Now::Fixed(GATE.effort_doubling_s)),
    ("bastion.effort_halving_s", Now::Fixed(GATE.effort_halving_s)),
    ("bastion.failures_per_minute_max", Now::Fixed(GATE.failures_per_minute_max)),
    ("bastion.admissions_per_minute_max", Now::Fixed(GATE.admissions_per_minute_max)),
    ("bastion.inner_bits", Now::Fixed(GATE.inner_bits as u64)),
    ("bastion.inner_bits_accept_max", Now::Fixed(GATE.inner_bits_accept_max as u64)),
    ("bastion.cookie_lifetime_s", Now::Fixed(GATE.cookie_lifetime_s)),
    ("bastion.serials_max", Now::Fixed(GATE.serials_max as u64)),
    ("bastion.stranger_frame_bytes_max", Now::Fixed(protocol::UNADMITTED_FRAME_BYTES_MAX as u64)),
    ("bastion.frame_bytes_max", Now::Fixed(protocol::FRAME_BYTES_MAX as u64)),
    ("bastion.known_handshakes_max", Now::Derived("open_handshakes_max / 8")),
    ("bastion.trusted_handshakes_max", Now::Derived("open_handshakes_max / 8")),
    ("bastion.verify_niceness", Now::Fixed(GATE.verify_niceness as u64)),
    ("bastion.verify_queue_max", Now::Fixed(GATE.verify_queue_max as u64)),
    ("bastion.answers_max", Now::Derived("open_handshakes_max / 2")),
    ("bastion.ticket_lifetime_s", Now::Fixed(GATE.ticket_lifetime_s)),
    ("bastion.ticket_uses_per_minute_max", Now::Fixed(GATE.ticket_uses_per_minute_max as u64)),
    ("bastion.ticket_peers_max", Now::Fixed(GATE.ticket_peers_max as u64)),
    ("bastion.hello_deadline_s", Now::Fixed(GATE.hello_deadline_s)),
    ("bastion.solution_deadline_s", Now::Fixed(GATE.solution_deadline_s)),
    ("bastion.decision_deadline_s", Now::Fixed(GATE.decision_deadline_s)),
    ("bastion.send_deadline_s", Now::Fixed(GATE.send_deadline_s)),
    ("bastion.dial_deadline_s", Now::Fixed(GATE.dial_deadline_s)),
    ("bastion.answer_deadline_s", Now::Fixed(GATE.reply_deadline_s)),
    ("bastion.solve_deadline_s", Now::Fixed(GATE.solve_deadline_s)),
    ("bastion.presentations_max", Now::Fixed(GATE.attempts_max as u64)),
    ("bastion.busy_wait_s_max", Now::Fixed(GATE.retry_delay_s_max)),
    ("bastion.identities_max", Now::Fixed(protocol::CLAIMED_IDENTITIES_MAX as u64)),
    ("bastion.apps_max", Now::Fixed(protocol::CLAIMED_APPS_MAX as u64)),
    ("bastion.sync_domains_max", Now::Fixed(protocol::CLAIMED_DOMAINS_MAX as u64)),
    ("bastion.key_events_max", Now::Fixed(protocol::KEY_EVENTS_MAX as u64)),
    ("sync.wait_s_max", Now::Fixed(protocol::PULL_WAIT_S_MAX)),
    ("sync.waiting_pulls_max", Now::Derived("2 × sessions_max")),
    ("sync.package_bytes_max", Now::Fixed(protocol::PACKAGE_BYTES_MAX as u64)),
    ("sync.package_objects_max", Now::Fixed(protocol::PACKAGE_OBJECTS_MAX as u64)),
    ("sync.sessions_worked_max", Now::Derived("sessions_max / 2")),
    ("sync.requests_in_flight_max", Now::Fixed(SYNC.requests_in_flight_max as u64)),
    ("sync.reply_deadline_s", Now::Fixed(SYNC.reply_deadline_s)),
    ("sync.ping_interval_s", Now::Fixed(SYNC.ping_interval_s)),
    ("sync.silence_s_max", Now::Fixed(SYNC.silence_s_max)),
    ("sync.backoff_s_min", Now::Fixed(SYNC.backoff_s_min)),
    ("sync.backoff_s_max", Now::Fixed(SYNC.backoff_s_max)),
    ("quota.untrusted.stored_objects_max", Now::Derived("stored_bytes_max / 1638")),
    ("quota.untrusted.total_objects_max", Now::Derived("total_bytes_max / 1638")),
    ("quota.untrusted.requests_per_minute_max", Now::Fixed(120)),
    ("quota.trusted.stored_objects_max", Now::Derived("stored_bytes_max / 1638")),
    ("quota.trusted.total_objects_max", Now::Derived("total_bytes_max / 1638")),
    ("quota.trusted.requests_per_minute_max", Now::Fixed(6000)),
    ("limits.object_bytes_max", Now::Fixed(protocol::OBJECT_BYTES_MAX as u64)),
    ("limits.object_attrs_max", Now::Fixed(protocol::OBJECT_ATTRS_MAX as u64)),
    ("limits.key_events_max", Now::Fixed(protocol::KEY_EVENTS_MAX as u64)),
    ("limits.parked_per_peer_max", Now::Fixed(1000)),
    ("limits.rejects_per_peer_max", Now::Fixed(1000)),
    ("transport.bootstrap_deadline_s", Now::Fixed(600)),
    ("transport.accepts_max", Now::Fixed(16)),
    ("transport.accept_deadline_s", Now::Fixed(30)),
    ("transport.accept_deadline_pressed_s", Now::Fixed(10)),
    ("transport.requests_waiting_max", Now::Fixed(64)),
    ("transport.request_wait_s", Now::Fixed(10)),
    ("transport.circuits_max", Now::Derived("sessions_max + all handshake slots + 128")),
    ("transport.circuit_idle_s", Now::Fixed(60)),
    ("transport.streams_per_circuit_max", Now::Fixed(8)),
    ("transport.streams_per_minute_max", Now::Fixed(30)),
    ("transport.arrivals_max", Now::Fixed(32)),
    ("transport.intro_burst", Now::Derived("100, or intro_rate_per_s if that is higher")),
    ("transport.tor_pow_queue_max", Now::Fixed(2048)),
];

impl std::fmt::Display for Now {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(number) => write!(f, "fixed at {number}"),
            Self::Derived(rule) => write!(f, "derived: {rule}"),
        }
    }
}

/// The path of a renamed entry: only the last part is new.
pub(super) fn new_path(old: &str, name: &str) -> String {
    match old.rsplit_once('.') {
        Some((table, _)) => format!("{table}.{name}"),
        None => name.to_owned(),
    }
}

/// Takes removed keys out of a file, and gives renamed ones their new name.
///
/// Returns a warning for each, by line. A file with both the old and the new name of a key is
/// wrong; that problem is noted in `file`.
pub(super) fn take_out(file: &mut TomlFile<'_>) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for (path, name) in RENAMED {
        let new = new_path(path, name);
        match file.rename(path, name) {
            Rename::Absent => {}
            Rename::Done(line) => {
                let message = format!("{path}: renamed to `{new}`; the value is used");
                warnings.push(file.problem(line, message));
            }
            Rename::Both(line) => {
                let message = format!("{path}: renamed to `{new}`, which is set too: remove one");
                file.note_line(line, message);
            }
        }
    }
    let empty = |table: &&&str| file.is_empty_table(table);
    let empty_tables: Vec<_> = REMOVED_TABLES.iter().filter(empty).collect();
    for table in empty_tables {
        if let Some(line) = file.remove(table) {
            let message = format!("{table}: no longer a table");
            warnings.push(file.problem(line, message));
        }
    }
    for (path, now) in REMOVED {
        if let Some(line) = file.remove(path) {
            let message = format!("{path}: no longer a key; {now}");
            warnings.push(file.problem(line, message));
        }
    }
    for table in REMOVED_TABLES {
        if file.is_empty_table(table) {
            file.remove(table);
        }
    }
    warnings.sort_by_key(|warning| warning.line);
    warnings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::keys::TABLES;
    use crate::config::{AdmissionConfig, Config};

    fn warnings(text: &str) -> Vec<String> {
        let config = Config::parse(Path::new("p"), text).unwrap();
        config.warnings().iter().map(ToString::to_string).collect()
    }

    fn error(text: &str) -> String {
        Config::parse(Path::new("p"), text).unwrap_err().to_string()
    }

    /// One line that sets a key by its dotted path.
    fn line(path: &str) -> String {
        format!("{path} = 7\n")
    }

    #[test]
    fn every_removed_key_is_a_warning_that_names_its_number() {
        assert_eq!(REMOVED.len(), 75);
        for (path, now) in REMOVED {
            let expected = format!("p:1: {path}: no longer a key; {now}");
            assert_eq!(warnings(&line(path)), [expected]);
        }
    }

    #[test]
    fn removed_keys_do_not_change_the_configuration() {
        let text: String = REMOVED.iter().map(|(path, _)| line(path)).collect();
        let mut config = Config::parse(Path::new("p"), &text).unwrap();
        assert_eq!(config.warnings.len(), REMOVED.len());
        config.warnings.clear();
        assert_eq!(config, Config::parse(Path::new("p"), "").unwrap());
    }

    #[test]
    fn no_removed_key_is_a_key() {
        for table in TABLES {
            for key in table.keys {
                let path = format!("{}.{}", table.name, key.name);
                assert!(
                    !REMOVED.iter().any(|(removed, _)| *removed == path),
                    "{path}"
                );
            }
        }
    }

    #[test]
    fn derived_efforts_equal_the_defaults() {
        let gate = GateConfig::DEFAULT;
        let (idle, base) = (Now::Fixed(gate.effort_idle), Now::Fixed(gate.effort_base));
        assert_eq!(
            (idle.to_string(), base.to_string()),
            ("fixed at 8".into(), "fixed at 1024".into())
        );
        assert_eq!(AdmissionConfig::DEFAULT.pending_max, PENDING_MAX);
    }

    #[test]
    fn renamed_key_keeps_its_value() {
        let text =
            "[admission]\nworked_idle_days = 3\n\n[quota.worked]\nstored_bytes_max = 983041\n";
        let config = Config::parse(Path::new("p"), text).unwrap();
        assert_eq!(config.admission.untrusted_idle_days, 3);
        assert_eq!(config.quota.untrusted.stored_bytes_max, 983_041);
        assert_eq!(
            warnings(text),
            [
                "p:2: admission.worked_idle_days: \
                 renamed to `admission.untrusted_idle_days`; the value is used",
                "p:4: quota.worked: renamed to `quota.untrusted`; the value is used",
            ]
        );
    }

    #[test]
    fn renamed_key_beside_its_new_name_is_an_error() {
        assert_eq!(
            error("[admission]\nuntrusted_idle_days = 4\nworked_idle_days = 3\n"),
            "p:3: admission.worked_idle_days: renamed to `admission.untrusted_idle_days`, \
             which is set too: remove one"
        );
    }

    #[test]
    fn value_of_a_renamed_key_is_checked_under_its_new_name() {
        assert_eq!(
            error("[admission]\nworked_idle_days = 3651\n"),
            "p:2: admission.untrusted_idle_days: must be 0 to 3650"
        );
        assert_eq!(
            error("[quota.worked]\nstored_bytes_max = 1\n"),
            "p:2: quota.untrusted.stored_bytes_max: must be at least 983040"
        );
    }

    #[test]
    fn removed_table_is_a_warning_and_its_unknown_keys_are_errors() {
        assert_eq!(warnings("[limits]\n"), ["p:1: limits: no longer a table"]);
        assert_eq!(
            warnings("[limits]\nkey_events_max = 48\n"),
            ["p:2: limits.key_events_max: no longer a key; fixed at 32"]
        );
        let text = error("[limits]\nkey_events_max = 48\nspeed_max = 1\n");
        assert!(text.starts_with("p:1: limits: unknown key"), "{text}");
    }
}
