//! `postern init`: a new node's folder.
//!
//! Everything is made in a folder beside the one asked for and moved there whole, so that a crash leaves either no node
//! or a node that starts. Never touches a folder that is not empty. Invariant: keys, database and token exist before
//! the folder has its name.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keys::vault::VaultError;
use keys::{ApiToken, KdfCost, KeyManager, Oid, OnionAddr, Passphrase, PeerId};
use rand::SeedableRng as _;

use super::{DataDir, SystemClock};
use crate::config::{Config, FILE_NAME};
use crate::engine::Clock as _;
use crate::graph::SaveError;
use crate::schema::{SchemaError, Schemas};
use crate::services;
use crate::state_engine::{CoreLimits, StateEngine};
use crate::store::StoreError;

/// What was made.
#[derive(Debug)]
pub struct Initialised {
    /// The folder.
    pub folder: PathBuf,
    /// The config file in it.
    pub config: PathBuf,
    /// The node's name in the protocol.
    pub peer_id: PeerId,
    /// Where it will be reached.
    pub onion: OnionAddr,
    /// Its first identity.
    pub identity: Oid,
}

/// Why no node was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Something is there already.
    #[error("{0} exists and is not empty: choose another folder, or remove it if you are sure")]
    NotEmpty(PathBuf),
    /// The path has no last part to name a folder.
    #[error("{0} is not a folder's name")]
    NoName(PathBuf),
    /// The file system.
    #[error("{path}: cannot {doing}")]
    Files {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The vault.
    #[error("cannot make the vault")]
    Vault(#[from] VaultError),
    /// The token's file.
    #[error("cannot write the API token")]
    Token(#[source] keys::FileError),
    /// The database.
    #[error("cannot make the database")]
    Store(#[from] StoreError),
    /// The built-in schemas.
    #[error("the built-in apps do not load")]
    Schemas(#[from] SchemaError),
    /// The first identity's record.
    #[error("cannot write the first identity")]
    Identity(#[from] SaveError),
}

fn files(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InitError {
    let path = path.to_owned();
    move |source| InitError::Files { doing, path, source }
}

/// Whether a node may be made there: nothing is, or an empty folder.
pub fn check_free(folder: &Path) -> Result<(), InitError> {
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) || folder.is_file() {
        return Err(InitError::NotEmpty(folder.to_owned()));
    }
    Ok(())
}

/// Makes a node in `folder`, with a first identity called `name`.
pub fn init(
    folder: &Path,
    name: Option<&str>,
    passphrase: &Passphrase,
    cost: KdfCost,
) -> Result<Initialised, InitError> {
    check_free(folder)?;
    let file_name = folder.file_name().ok_or_else(|| InitError::NoName(folder.to_owned()))?;
    let parent = folder
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(files("make the folder", parent))?;
    let mut draft_name = file_name.to_os_string();
    draft_name.push(format!(".new-{}", std::process::id()));
    let draft = parent.join(draft_name);
    DirBuilder::new()
        .mode(0o700)
        .create(&draft)
        .map_err(files("make the folder", &draft))?;
    let made = fill(&draft, name, passphrase, cost).and_then(|made| {
        // Over an empty folder of that name too: a rename replaces it.
        fs::rename(&draft, folder).map_err(files("name the folder", folder))?;
        sync_folder(parent)?;
        Ok(made)
    });
    if made.is_err() {
        // What is left is useless and may hold keys; that it cannot be removed changes nothing about the first error.
        let _ = fs::remove_dir_all(&draft);
    }
    let (peer_id, onion, identity) = made?;
    Ok(Initialised {
        folder: folder.to_owned(),
        config: folder.join(FILE_NAME),
        peer_id,
        onion,
        identity,
    })
}

fn fill(
    draft: &Path,
    name: Option<&str>,
    passphrase: &Passphrase,
    cost: KdfCost,
) -> Result<(PeerId, OnionAddr, Oid), InitError> {
    let data = DataDir::at(draft);
    let mut rng = rand::rngs::StdRng::from_rng(&mut rand::rng());
    let keys = Arc::new(KeyManager::create(&data.keys(), passphrase, cost, &mut rng)?);
    let identity = keys.add_identity(&mut rng)?;
    let schemas = Arc::new(Schemas::load(&Config::default().node.apps, None)?);
    let now = SystemClock.now();
    let token = ApiToken::generate(&mut rng);
    token.write_new(&data.token()).map_err(InitError::Token)?;
    let limits = CoreLimits::default();
    let mut core = StateEngine::open(&data.database(), schemas, keys.clone(), limits, Box::new(rng), now)?;
    core.write(now, |graph| {
        services::identities::publish(graph, identity, name)?;
        graph.tx().put_token(&token.hash(), "operator", now)?;
        Ok::<_, SaveError>(())
    })?;
    drop(core);
    let config = draft.join(FILE_NAME);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&config)
        .map_err(files("write", &config))?;
    file.write_all(Config::default_toml().as_bytes())
        .map_err(files("write", &config))?;
    file.sync_all().map_err(files("write", &config))?;
    sync_folder(draft)?;
    Ok((keys.peer_id(), keys.onion(), identity))
}

fn sync_folder(folder: &Path) -> Result<(), InitError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(files("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_a_node_whole_and_only_once() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("node");
        let passphrase = || Passphrase::from_string("correct horse".into());
        let made = init(&folder, Some("Alice"), &passphrase(), KdfCost::TEST).unwrap();
        let data = DataDir::at(&folder);
        for file in [data.keys(), data.database(), data.token(), made.config] {
            assert!(file.is_file(), "{}", file.display());
        }
        let keys = KeyManager::open(&data.keys(), &passphrase()).unwrap();
        assert_eq!(
            (keys.peer_id(), keys.onion(), keys.identities()),
            (made.peer_id, made.onion, vec![made.identity])
        );
        let again = init(&folder, None, &passphrase(), KdfCost::TEST);
        assert!(matches!(again, Err(InitError::NotEmpty(_))));
        assert_eq!(
            fs::read_dir(parent.path()).unwrap().count(),
            1,
            "nothing is left beside the folder"
        );
    }

    #[test]
    fn an_empty_folder_is_taken() {
        let parent = tempfile::tempdir().unwrap();
        let passphrase = Passphrase::from_string("correct horse".into());
        init(parent.path(), None, &passphrase, KdfCost::TEST).unwrap();
        assert!(Config::load(&parent.path().join(FILE_NAME)).is_ok());
    }
}
