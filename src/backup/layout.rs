//! The places of a restored node's files: all of them inside its one folder.
//!
//! Input: the text of the backed-up configuration and the new folder. Output: the configuration to
//! write, and the folders that it leads to. A `data_dir` or `schema_dir` that leads out of the
//! folder (an absolute path, a `..`) is changed. Such a path may belong to the lost machine or to a
//! node that still runs. Only these two lines change. Invariant: the written configuration leads to
//! the files as they were placed. Tested in this file and in `tests/system/backup.rs`.

use std::path::{Component, Path, PathBuf};

use crate::config::{Config, FILE_NAME, Problems};

/// Folder of the operator's schema files, where the configuration's own leads out of the node's
/// folder.
const SCHEMAS: &str = "schemas";

/// A configuration, and the folders that it leads to.
#[derive(Debug)]
pub(super) struct Layout {
    /// The text of the configuration file to write.
    pub(super) text: String,
    /// The parsed text; its relative paths start at the new folder.
    pub(super) config: Config,
    /// The keys of `[node]` that were changed.
    pub(super) changed: Vec<&'static str>,
}

/// The cause for which the files cannot be placed as the configuration says.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The configuration is invalid for this version of the program.
    #[error("the configuration in the backup is invalid\n{0}")]
    Config(#[from] Problems),
    /// A key leads out of the folder, and the file does not have it on a line of its own.
    #[error(
        "node.{0} in the backup's config leads out of the folder and cannot be changed: \
         write it on a line of its own under [node], and make a backup again"
    )]
    Outside(&'static str),
}

impl Layout {
    /// Derives the layout of a node in `folder` from the text of its configuration.
    pub(super) fn of(text: &str, folder: &Path) -> Result<Self, LayoutError> {
        let path = folder.join(FILE_NAME);
        let before = Config::parse(&path, text)?;
        let (mut text, mut changed, mut wanted) = (text.to_owned(), Vec::new(), before.clone());
        if !is_inside(&before.node.data_dir) {
            text = with_line(&text, "data_dir", ".");
            wanted.node.data_dir = ".".into();
            changed.push("data_dir");
        }
        if before
            .node
            .schema_dir
            .as_ref()
            .is_some_and(|dir| !is_inside(dir))
        {
            text = with_line(&text, "schema_dir", SCHEMAS);
            wanted.node.schema_dir = Some(SCHEMAS.into());
            changed.push("schema_dir");
        }
        if changed.is_empty() {
            return Ok(Self {
                text,
                config: before,
                changed,
            });
        }
        // The change is textual, so that comments stay. Parsing the result shows whether it
        // succeeded.
        let key = changed.first().copied().unwrap_or_default();
        match Config::parse(&path, &text) {
            Ok(config) if config == wanted => Ok(Self {
                text,
                config,
                changed,
            }),
            _ => Err(LayoutError::Outside(key)),
        }
    }

    /// The data folder: keys, database and token.
    pub(super) fn data(&self) -> PathBuf {
        self.config.data_dir()
    }

    /// The folder of the operator's schema files, if the configuration has one.
    pub(super) fn schemas(&self) -> Option<PathBuf> {
        self.config.schema_dir()
    }
}

/// Whether a relative path stays inside the folder that it starts at.
fn is_inside(path: &Path) -> bool {
    let mut parts = path.components();
    parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Replaces each line of `text` that sets `key` by one that sets it to `value`.
fn with_line(text: &str, key: &str, value: &str) -> String {
    let sets = |line: &str| {
        let behind = line.trim_start().strip_prefix(key);
        behind.is_some_and(|behind| behind.trim_start().starts_with('='))
    };
    let mut changed = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if sets(line) {
            changed.push_str(&format!(
                "{key} = \"{value}\"  # changed when this was restored from a backup\n"
            ));
        } else {
            changed.push_str(line);
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Layout, LayoutError> {
        Layout::of(text, Path::new("/new"))
    }

    #[test]
    fn paths_inside_the_folder_are_unchanged() {
        for text in [
            "",
            "[node]\n",
            "[node]\ndata_dir = \"./data\"\nschema_dir = \"apps/own\"\n",
        ] {
            let layout = of(text).unwrap();
            assert_eq!((&*layout.text, layout.changed.len()), (text, 0));
        }
        let layout = of("[node]\ndata_dir = \"data\"\n").unwrap();
        assert_eq!(layout.data(), Path::new("/new/data"));
        assert_eq!(layout.schemas(), None);
    }

    #[test]
    fn only_paths_that_lead_out_of_the_folder_are_changed() {
        let text = "# mine\n[node]\nname = \"x\"\ndata_dir = \"/var/lib/postern\"\n\
                    schema_dir='../own' # apps\n[api]\nlisten = \"127.0.0.1:1\"\n";
        let layout = of(text).unwrap();
        assert_eq!(layout.changed, ["data_dir", "schema_dir"]);
        assert_eq!(layout.data(), Path::new("/new/."));
        assert_eq!(layout.schemas().unwrap(), Path::new("/new/schemas"));
        assert!(
            layout
                .text
                .starts_with("# mine\n[node]\nname = \"x\"\ndata_dir = \".\"  # changed")
        );
        assert!(layout.text.ends_with("[api]\nlisten = \"127.0.0.1:1\"\n"));
        assert!(!layout.text.contains("/var/lib") && !layout.text.contains("own"));
    }

    #[test]
    fn key_that_cannot_be_changed_is_reported() {
        for text in [
            "node = { data_dir = \"/var\" }",
            "[node]\n\"data_dir\" = \"..\"\n",
        ] {
            let error = of(text).unwrap_err();
            assert!(matches!(error, LayoutError::Outside("data_dir")), "{error}");
        }
        assert!(matches!(
            of("[node]\nnonsense = 1\n"),
            Err(LayoutError::Config(_))
        ));
    }
}
