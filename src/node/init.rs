//! `postern init`: makes a new node's folder.
//!
//! The files are written in a staged folder (`src/data_dir/staging.rs`), which becomes the final
//! one when it is complete. A crash leaves either no node or a node that starts. Invariant: keys,
//! database and token exist before the folder has its final name. Tested in this file and in
//! `tests/system/crash.rs`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keys::vault::VaultError;
use keys::{ApiToken, KdfCost, KeyManager, Oid, OnionAddr, Passphrase, PeerId, crash_point};
use rand::SeedableRng as _;

use crate::clock::SystemClock;
use crate::config::{Config, FILE_NAME, new_file};
use crate::data_dir::{DataDir, OPERATOR_LABEL, StagedDir, StagingError, StagingKind, write_new};
use crate::engine::Clock as _;
use crate::schema::{SchemaError, Schemas};
use crate::services::contacts::check_petname;
use crate::services::identities::{self, IdentityError};
use crate::state_engine::{CoreLimits, StateEngine};
use crate::store::StoreError;

/// A new node.
#[derive(Debug)]
pub struct Initialised {
    /// The folder.
    pub folder: PathBuf,
    /// The configuration file in it.
    pub config: PathBuf,
    /// The node's identity in the protocol.
    pub peer_id: PeerId,
    /// The address of its onion service.
    pub onion: OnionAddr,
    /// Its first identity.
    pub identity: Oid,
}

/// The cause for which no node was made. No file remains.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The folder is not free, or a file in it cannot be written.
    #[error(transparent)]
    Folder(#[from] StagingError),
    /// The vault cannot be made.
    #[error("cannot make the vault")]
    Vault(#[from] VaultError),
    /// The file of the API token cannot be written.
    #[error("cannot write the API token")]
    Token(#[source] keys::FileError),
    /// The database cannot be made.
    #[error("cannot make the database")]
    Store(#[from] StoreError),
    /// The built-in schemas do not load.
    #[error("the built-in apps do not load")]
    Schemas(#[from] SchemaError),
    /// The record of the first identity cannot be written, or its name is no name.
    #[error("cannot make the first identity")]
    Identity(#[from] IdentityError),
}

/// Makes a node in `folder`, with one identity, whose name is `name`.
///
/// # Errors
/// See [`InitError`].
pub fn init(
    folder: &Path,
    name: Option<&str>,
    passphrase: &Passphrase,
    cost: KdfCost,
) -> Result<Initialised, InitError> {
    // Before the keys are made, which takes seconds.
    if let Some(name) = name {
        check_petname(name).map_err(IdentityError::from)?;
    }
    let staged = StagedDir::create(folder, StagingKind::Init)?;
    let (peer_id, onion, identity) = fill(staged.path(), name, passphrase, cost)?;
    staged.publish()?;
    Ok(Initialised {
        folder: folder.to_owned(),
        config: folder.join(FILE_NAME),
        peer_id,
        onion,
        identity,
    })
}

fn fill(
    staged: &Path,
    name: Option<&str>,
    passphrase: &Passphrase,
    cost: KdfCost,
) -> Result<(PeerId, OnionAddr, Oid), InitError> {
    let data = DataDir::at(staged);
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
        identities::publish(graph, identity, name)?;
        graph.tx().put_token(&token.hash(), OPERATOR_LABEL, now)?;
        Ok::<_, IdentityError>(())
    })?;
    drop(core);
    crash_point("init: database made");
    write_new(&staged.join(FILE_NAME), new_file().as_bytes())?;
    Ok((keys.peer_id(), keys.onion(), identity))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn makes_a_complete_node_and_refuses_to_make_it_again() {
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
            "no staged folder remains"
        );
    }

    #[test]
    fn makes_no_node_with_a_wrong_name() {
        let parent = tempfile::tempdir().unwrap();
        let passphrase = Passphrase::from_string("correct horse".into());
        let folder = parent.path().join("node");
        let refused = init(&folder, Some("Al\u{202e}ice"), &passphrase, KdfCost::TEST);
        assert!(matches!(refused, Err(InitError::Identity(_))));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn makes_a_node_in_an_empty_folder() {
        let parent = tempfile::tempdir().unwrap();
        let passphrase = Passphrase::from_string("correct horse".into());
        init(parent.path(), None, &passphrase, KdfCost::TEST).unwrap();
        assert!(Config::load(&parent.path().join(FILE_NAME)).is_ok());
    }
}
