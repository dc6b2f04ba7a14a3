//! Changes of a parsed file before it is read: entries that are taken out or renamed.
//!
//! The caller decides what to report. Invariant: an entry keeps its place in the text, so that
//! later problems name its line. Tested in `src/config/removed.rs`.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{TomlFile, line_at, nearest};

impl TomlFile<'_> {
    /// Takes the entry at a dotted path out of the file; returns its line.
    pub(crate) fn remove(&mut self, path: &str) -> Option<usize> {
        let (table, name) = table_of(self.root.get_mut(), path)?;
        let start = table.get_key_value(name)?.0.span().start;
        table.remove(name);
        Some(self.line(start))
    }

    /// Gives the entry at a dotted path another name in its table. Where both names are set, takes
    /// the old one out.
    pub(crate) fn rename(&mut self, path: &str, name: &'static str) -> Rename {
        let Some((table, old)) = table_of(self.root.get_mut(), path) else {
            return Rename::Absent;
        };
        let Some((key, _)) = table.get_key_value(old) else {
            return Rename::Absent;
        };
        let span = key.span();
        let Some(value) = table.remove(old) else {
            return Rename::Absent;
        };
        let line = line_at(self.text, span.start);
        if table.contains_key(name) {
            return Rename::Both(line);
        }
        table.insert(Spanned::new(span, name.into()), value);
        Rename::Done(line)
    }

    /// Notes every key of a table as unknown. `similar`: words to suggest.
    pub(crate) fn refuse_keys(&mut self, path: &str, similar: &[&str]) {
        let Some((table, name)) = table_of(self.root.get_mut(), path) else {
            return;
        };
        let Some(DeValue::Table(table)) = table.get(name).map(Spanned::get_ref) else {
            return;
        };
        let keys: Vec<(usize, String)> = table
            .keys()
            .map(|key| (key.span().start, key.get_ref().to_string()))
            .collect();
        for (start, key) in keys {
            let suggestion = nearest(&key, similar.iter().copied()).map(str::to_owned);
            self.note(start, format!("{path}.{key}: unknown key"), suggestion);
        }
    }

    /// The number of entries of the table at a dotted path; none if there is no table.
    pub(crate) fn entries(&self, path: &str) -> Option<usize> {
        let mut table = self.root.get_ref();
        for part in path.split('.') {
            match table.get(part).map(Spanned::get_ref) {
                Some(DeValue::Table(inner)) => table = inner,
                _ => return None,
            }
        }
        Some(table.len())
    }
}

/// The result of [`TomlFile::rename`]; lines are counted from 1.
pub(crate) enum Rename {
    /// There was no such entry.
    Absent,
    /// The entry has its new name.
    Done(usize),
    /// The new name was set too, and stays as it is.
    Both(usize),
}

/// The innermost table on a dotted path, and the last name of the path.
fn table_of<'t, 'd, 'p>(
    mut table: &'t mut DeTable<'d>,
    path: &'p str,
) -> Option<(&'t mut DeTable<'d>, &'p str)> {
    let Some((tables, name)) = path.rsplit_once('.') else {
        return Some((table, path));
    };
    for part in tables.split('.') {
        match table.get_mut(part)?.get_mut() {
            DeValue::Table(inner) => table = inner,
            _ => return None,
        }
    }
    Some((table, name))
}
