//! Texts made from the table of keys: the file that `postern init` writes, and `docs/CONFIG.md`.
//!
//! Invariant: the new file is a valid configuration with all defaults, and has at most 30 lines;
//! `docs/CONFIG.md` equals [`reference()`] (tested in `tests.rs`).

use super::keys::{Key, KeyType, TABLES, Table};
use super::removed::{REMOVED, RENAMED, new_path};

/// Longest line of the page outside its tables.
const COLUMNS: usize = 100;

/// The configuration file of a new node: the keys that an operator sets first, commented out.
pub fn new_file() -> String {
    let mut text = String::from(
        "# Configuration of a Postern node. Remove a `#` to change a default.\n\
         # docs/CONFIG.md describes all keys. `postern check` reports mistakes in this file.\n",
    );
    for table in TABLES {
        let keys = || {
            table
                .keys
                .iter()
                .filter_map(|key| Some((key, key.in_new_file?)))
        };
        if keys().next().is_none() {
            continue;
        }
        text += &match table.name {
            "peer" => {
                "\n# A peer that this node dials; one table for each.\n# [[peer]]\n".to_owned()
            }
            name => format!("\n[{name}]\n"),
        };
        for (key, comment) in keys() {
            if !comment.is_empty() {
                text += &format!("# {comment}\n");
            }
            text += &format!("# {} = {}\n", key.name, key.default.unwrap_or("\"...\""));
        }
    }
    text
}

/// The page `docs/CONFIG.md`.
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    for table in TABLES {
        write_table(&mut page, table);
    }
    page += REMOVED_INTRODUCTION;
    for (path, now) in REMOVED {
        page += &format!("{path:<40} {now}\n");
    }
    for (path, name) in RENAMED {
        page += &format!("{path:<40} renamed to {}\n", new_path(path, name));
    }
    page += "```\n";
    page
}

const INTRODUCTION: &str = "\
# Configuration

`postern init` writes the file `postern.toml`; `postern check` reports every mistake in it. An
absent key has its default. Relative paths start at the folder of the file. Names end in their unit
(`_s` seconds, `_bytes` bytes), and in `_max` where they limit something. An unknown key is an
error. `SIGHUP` makes a running node read the file again. Table `[admission]` then takes effect at
once, and the log names the other keys that wait for the next start.

All other numbers are fixed or derived from these keys, because an operator has no better
information about them. Numbers that two nodes must share are in `docs/PROTOCOL.md`.

This page is made from `src/config/keys`. After a change there, update the page with
`UPDATE_DOCS=1 cargo nextest run -p postern --no-default-features --lib config::`.
";

const REMOVED_INTRODUCTION: &str = "
## Keys of earlier versions

A file with one of these keys is still accepted. `postern check`, `postern run` and `SIGHUP` warn
about it. The value of a renamed key is used; that of a removed key is not.

```text
";

fn write_table(page: &mut String, table: &Table) {
    let brackets = match table.name {
        "peer" => "[[peer]]".to_owned(),
        name => format!("[{name}]"),
    };
    *page += &format!("\n## `{brackets}`\n\n{}\n", wrapped(table.about));
    if table.keys.is_empty() {
        return;
    }
    *page += "\n| key | type | default | range | meaning | reason for the default |\n\
              | --- | --- | --- | --- | --- | --- |\n";
    for key in table.keys {
        *page += &row(key);
    }
}

fn row(key: &Key) -> String {
    let kind = match key.kind {
        KeyType::Integer { unit: "", .. } => "number".to_owned(),
        KeyType::Integer { unit, .. } => format!("number of {unit}"),
        KeyType::Boolean => "`true` or `false`".to_owned(),
        KeyType::OneOf(_) => "one of the range".to_owned(),
        KeyType::Other { kind, .. } => kind.to_owned(),
    };
    let default = key
        .default
        .map_or("none".to_owned(), |value| format!("`{value}`"));
    let range = key.kind.range().unwrap_or_default();
    format!(
        "| `{}` | {kind} | {default} | {range} | {} | {} |\n",
        key.name, key.about, key.reason
    )
}

/// The text in lines of at most [`COLUMNS`] characters.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if length > 0 && length + 1 + width > COLUMNS {
            lines.push('\n');
            length = 0;
        } else if length > 0 {
            lines.push(' ');
            length += 1;
        }
        lines += word;
        length += width;
    }
    lines
}
