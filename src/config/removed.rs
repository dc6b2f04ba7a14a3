//! Keys of earlier versions: what became of them, and the warning for a file that still has them.
//!
//! A removed key never stops a node from starting, because its number is fixed or derived now. A
//! renamed key keeps its value. Invariant: no path below is a key of `keys.rs` (tested).

mod list;

use self::list::REMOVED_TABLES;
pub(super) use self::list::{REMOVED, RENAMED};
use crate::toml_file::edit::Rename;
use crate::toml_file::{Problem, TomlFile};

/// The path of a renamed entry: only the last part is new.
pub(super) fn new_path(old: &str, name: &str) -> String {
    match old.rsplit_once('.') {
        Some((table, _)) => format!("{table}.{name}"),
        None => name.to_owned(),
    }
}

/// Takes removed keys and tables out of a file, and gives renamed ones their new name.
///
/// Returns a warning for each, by line, with its path in the file. A file with both the old and the
/// new name of a key is wrong, and so is an unknown key of a removed table. These problems are
/// noted in `file`.
pub(super) fn take_out(file: &mut TomlFile<'_>) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for table in REMOVED_TABLES {
        if file.entries(table) == Some(0)
            && let Some(line) = file.remove(table)
        {
            warnings.push(file.problem(line, format!("{table}: no longer a table")));
        }
    }
    for (path, now) in REMOVED {
        for path in std::iter::once((*path).to_owned()).chain(renamed(path)) {
            if let Some(line) = file.remove(&path) {
                let message = format!("{path}: no longer a key; {now}");
                warnings.push(file.problem(line, message));
            }
        }
    }
    for table in REMOVED_TABLES {
        let prefix = format!("{table}.");
        let keys: Vec<_> = REMOVED
            .iter()
            .filter_map(|(path, _)| path.strip_prefix(&prefix))
            .collect();
        file.refuse_keys(table, &keys);
        let is_table = file.entries(table).is_some();
        if let Some(line) = file.remove(table).filter(|_| !is_table) {
            let message = format!("{table}: no longer a table; this entry has no effect");
            warnings.push(file.problem(line, message));
        }
    }
    for (path, name) in RENAMED {
        rename(file, path, name, &mut warnings);
    }
    warnings.sort_by_key(|warning| warning.line);
    warnings
}

/// The path of a removed key in a table that was renamed, with the new name of the table.
fn renamed(path: &str) -> Option<String> {
    RENAMED.iter().find_map(|(old, name)| {
        let key = path.strip_prefix(old)?.strip_prefix('.')?;
        Some(format!("{}.{key}", new_path(old, name)))
    })
}

fn rename(file: &mut TomlFile<'_>, path: &str, name: &'static str, warnings: &mut Vec<Problem>) {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bastion::GateConfig;

    use super::list::Now;
    use super::*;
    use crate::config::keys::TABLES;
    use crate::config::{Config, Problems};

    fn warnings(text: &str) -> Vec<String> {
        let config = Config::parse(Path::new("p"), text).unwrap();
        config.warnings().iter().map(ToString::to_string).collect()
    }

    fn problems(text: &str) -> Problems {
        Config::parse(Path::new("p"), text).unwrap_err()
    }

    fn error(text: &str) -> String {
        problems(text).to_string()
    }

    /// One line that sets a key by its dotted path.
    fn line(path: &str) -> String {
        format!("{path} = 7\n")
    }

    #[test]
    fn every_removed_key_is_a_warning_that_names_its_number() {
        assert_eq!(REMOVED.len(), 75);
        for (path, now) in REMOVED {
            let mut warnings = warnings(&line(path));
            warnings.retain(|warning| !warning.contains("renamed to"));
            let expected = format!("p:1: {path}: no longer a key; {now}");
            assert_eq!(warnings, [expected]);
        }
    }

    #[test]
    fn removed_keys_do_not_change_the_configuration() {
        let text: String = REMOVED.iter().map(|(path, _)| line(path)).collect();
        let mut config = Config::parse(Path::new("p"), &text).unwrap();
        // The table of three of them was renamed.
        assert_eq!(config.warnings.len(), REMOVED.len() + 1);
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
        for text in [
            "limits = 5\n",
            "[[limits]]\n",
            "[[limits]]\nkey_events_max = 48\n",
        ] {
            let expected = "p:1: limits: no longer a table; this entry has no effect";
            assert_eq!(warnings(text), [expected], "{text}");
        }
        let text = "[limits]\nkey_events_max = 48\nspeed_max = 1\nkey_events_mx = 1\n";
        assert_eq!(
            error(text),
            "p:3: limits.speed_max: unknown key\n\
             p:4: limits.key_events_mx: unknown key; did you mean `key_events_max`?"
        );
    }

    #[test]
    fn wrong_file_has_its_warnings_too() {
        let text = "[limits]\nkey_events_max = 48\n[sync]\ndials_max = 0\nbackoff_s_min = 9\n";
        let problems = problems(text);
        let warnings: Vec<_> = problems.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "p:2: limits.key_events_max: no longer a key; fixed at 32",
                "p:5: sync.backoff_s_min: no longer a key; fixed at 30",
            ]
        );
        assert_eq!(
            problems.to_string(),
            "p:4: sync.dials_max: must be 1 to 1000000"
        );
    }

    #[test]
    fn removed_key_of_a_renamed_table_is_named_as_in_the_file() {
        for table in ["quota.worked", "quota.untrusted"] {
            let text = format!("[{table}]\nstored_objects_max = 9\n");
            let expected = format!(
                "p:2: {table}.stored_objects_max: no longer a key; \
                 derived: stored_bytes_max / 1638, at least 4096"
            );
            assert!(warnings(&text).contains(&expected), "{:?}", warnings(&text));
        }
    }
}
