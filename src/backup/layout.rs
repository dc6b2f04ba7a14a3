//! Where the files of a restored node go: all of them into its one folder.
//!
//! Never a path that leads out of the folder. A config whose `data_dir` or `schema_dir` lead elsewhere (an absolute path, a
//! `..`) is changed in these two lines, and only in them: the folders may belong to the machine that is lost, or to the
//! node that still runs there. Invariant: the config that is written leads to the files as they were laid out.

use std::path::{Component, Path, PathBuf};

use crate::config::{Config, FILE_NAME, Problems};

/// Where own apps' schema files go if the config's folder is out of reach.
const SCHEMAS: &str = "schemas";

/// A config, and the folders it leads to.
#[derive(Debug)]
pub(super) struct Layout {
    /// The config's text as it is to be written.
    pub(super) text: String,
    /// The same, read; its paths begin at `folder`.
    pub(super) config: Config,
    /// Keys of the config that were changed.
    pub(super) changed: Vec<&'static str>,
}

/// Why files cannot be laid out as the config says.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The config is wrong for this version of the program.
    #[error("the config in the backup is wrong\n{0}")]
    Config(#[from] Problems),
    /// A key leads out of the folder, and the file does not have it on a line of its own.
    #[error(
        "node.{0} in the backup's config leads out of the folder and cannot be changed there: write it on a line of its own \
         under [node], and make a backup again"
    )]
    Outside(&'static str),
}

impl Layout {
    /// Of a config's text, for a node in `folder`.
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
        // Changed as text, so that comments stay; whether that hit the mark is read off the result.
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

    /// Folder of keys, database and token.
    pub(super) fn data(&self) -> PathBuf {
        self.config.data_dir()
    }

    /// Folder of own apps.
    pub(super) fn schemas(&self) -> Option<PathBuf> {
        self.config.schema_dir()
    }
}

fn is_inside(path: &Path) -> bool {
    let mut parts = path.components();
    parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// The text with each line that sets `key` setting it to `value`.
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
    fn paths_inside_stay_as_they_are() {
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
    fn paths_that_lead_elsewhere_are_changed_and_nothing_else_is() {
        let text = "# mine\n[node]\nname = \"x\"\ndata_dir = \"/var/lib/postern\"\nschema_dir='../own' # apps\n[api]\nlisten = \
                    \"127.0.0.1:1\"\n";
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
    fn what_cannot_be_changed_is_refused_by_name() {
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
