//! `postern init`: a new node's folder.
//!
//! Everything is made in a draft (`src/data_dir/staging.rs`) that becomes the folder when it is whole, so that a crash leaves either no
//! node or a node that starts. Never touches a folder that is not empty. Invariant: keys, database and token exist before
//! the folder has its name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keys::vault::VaultError;
use keys::{ApiToken, KdfCost, KeyManager, Oid, OnionAddr, Passphrase, PeerId, crash_point};
use rand::SeedableRng as _;

use crate::clock::SystemClock;
use crate::config::{Config, FILE_NAME};
use crate::data_dir::{DataDir, OPERATOR_LABEL, StagedDir, StagingError, StagingKind, write_new};
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
    /// The folder.
    #[error(transparent)]
    Folder(#[from] StagingError),
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

/// Makes a node in `folder`, with a first identity called `name`.
pub fn init(
    folder: &Path,
    name: Option<&str>,
    passphrase: &Passphrase,
    cost: KdfCost,
) -> Result<Initialised, InitError> {
    let draft = StagedDir::create(folder, StagingKind::Init)?;
    let (peer_id, onion, identity) = fill(draft.path(), name, passphrase, cost)?;
    draft.publish()?;
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
    let keys = Arc::new(KeyManager::create(
        &data.keys(),
        passphrase,
        cost,
        &mut rng,
    )?);
    let identity = keys.add_identity(&mut rng)?;
    let schemas = Arc::new(Schemas::load(&Config::default().node.apps, None)?);
    let now = SystemClock.now();
    let token = ApiToken::generate(&mut rng);
    token.write_new(&data.token()).map_err(InitError::Token)?;
    let limits = CoreLimits::default();
    let mut core = StateEngine::open(
        &data.database(),
        schemas,
        keys.clone(),
        limits,
        Box::new(rng),
        now,
    )?;
    core.write(now, |graph| {
        services::identities::publish(graph, identity, name)?;
        graph.tx().put_token(&token.hash(), OPERATOR_LABEL, now)?;
        Ok::<_, SaveError>(())
    })?;
    drop(core);
    crash_point("init: database made");
    write_new(&draft.join(FILE_NAME), Config::default_toml().as_bytes())?;
    Ok((keys.peer_id(), keys.onion(), identity))
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        assert!(matches!(
            again,
            Err(InitError::Folder(StagingError::NotEmpty(_)))
        ));
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
