//! The key of an onion service, and its import from and export to C tor's files.
//!
//! The key is 64 bytes, the expanded form of RFC 8032, section 5.1.5: the clamped scalar, then the
//! prefix that nonces are derived from. The seed is not kept, because C tor's files do not have it.
//! The key is never printed, and export refuses an existing folder. Invariant: the scalar is
//! clamped and the public key is the scalar's, because signing with another public key would reveal
//! the secret key. Tested below.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use rand::CryptoRng;
use sha2::{Digest as _, Sha512};
use zeroize::Zeroizing;

use crate::ids::{OnionAddr, PublicKey, Signature};
use crate::locked::Locked;
use crate::private_file::{self, FileError};
use crate::signing::{Context, signing_input};

// Names and tags of the files in C tor's `HiddenServiceDir` (tor(1) and, in C tor's source,
// `crypto_write_tagged_contents_to_file`).
const SECRET_FILE: &str = "hs_ed25519_secret_key";
const PUBLIC_FILE: &str = "hs_ed25519_public_key";
const HOSTNAME_FILE: &str = "hostname";
const SECRET_TAG: &[u8; 32] = b"== ed25519v1-secret: type0 ==\0\0\0";
const PUBLIC_TAG: &[u8; 32] = b"== ed25519v1-public: type0 ==\0\0\0";
const FILE_BYTES_MAX: usize = 128;

/// Why an onion key was not read from or written to C tor's folder.
#[derive(Debug, thiserror::Error)]
pub enum OnionKeyError {
    /// A file cannot be read or written, or is not private.
    #[error(transparent)]
    File(#[from] FileError),
    /// The secret key file starts with another tag.
    #[error("{0}: not a version 3 onion service secret key in C tor's format")]
    NotAKey(PathBuf),
    /// The tag is right, but the length is not 96 bytes.
    #[error("{path}: {bytes} bytes long; a secret key file has 96")]
    Length {
        /// Path of the secret key file.
        path: PathBuf,
        /// Length of the file, in bytes.
        bytes: usize,
    },
    /// The scalar is not clamped as RFC 8032, section 5.1.5, requires: the file is damaged, or a
    /// faulty program wrote it.
    #[error("{0}: not a valid Ed25519 key (its scalar is not clamped)")]
    NotClamped(PathBuf),
    /// The public key or hostname file belongs to another key: files of two services were mixed up.
    #[error("{0} does not belong to the secret key in the same folder")]
    OtherKey(PathBuf),
}

/// The secret key of an onion service.
///
/// In locked memory if the system allows it, and zeroised when dropped. `Debug` prints fixed text.
#[derive(Clone)]
pub struct OnionKey {
    secret: Locked<64>,
    public: Box<VerifyingKey>,
}

impl OnionKey {
    /// Generates a key.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        Self::from_seed(&seed)
    }

    /// Expands a 32-byte seed (RFC 8032's private key): SHA-512 of it, with the first half clamped.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let secret = Locked::filled(|secret| {
            let digest: Zeroizing<[u8; 64]> = Zeroizing::new(Sha512::digest(seed).into());
            secret.copy_from_slice(digest.as_ref());
            clamp(secret);
        });
        let public = Box::new(public_of(&secret));
        Self { secret, public }
    }

    /// Copies 64 expanded bytes. Returns `None` if their scalar is not clamped.
    pub(crate) fn from_expanded(bytes: &[u8; 64]) -> Option<Self> {
        let secret = Locked::copy_of(bytes);
        let clamped = Locked::filled(|place| {
            place.copy_from_slice(bytes);
            clamp(place);
        });
        if *clamped != *secret {
            return None;
        }
        let public = Box::new(public_of(&secret));
        Some(Self { secret, public })
    }

    /// Returns the address of the service with this key.
    pub fn onion_addr(&self) -> OnionAddr {
        OnionAddr::from_public_key(PublicKey::from_bytes(self.public.to_bytes()))
    }

    /// Signs `[context, part, …]`.
    pub fn sign(&self, context: Context, parts: &[&[u8]]) -> Signature {
        let expanded = ExpandedSecretKey::from_bytes(&self.secret);
        let signature = raw_sign::<Sha512>(&expanded, &signing_input(context, parts), &self.public);
        Signature::from_bytes(signature.to_bytes())
    }

    /// Calls `use_it` with the 64 bytes: for the sealed vault, and for arti, which needs them in
    /// memory.
    pub fn with_secret<R>(&self, use_it: impl FnOnce(&[u8; 64]) -> R) -> R {
        use_it(&self.secret)
    }

    /// Returns why the key's memory is not locked, or `None` if it is.
    pub(crate) fn lock_fault(&self) -> Option<&str> {
        self.secret.fault()
    }

    /// Reads the key in C tor's folder (`HiddenServiceDir`), or in its file
    /// `hs_ed25519_secret_key`.
    ///
    /// The file must be private (mode 0600 or stricter). The public key and hostname files, if
    /// present, must belong to the key.
    ///
    /// # Errors
    /// [`OnionKeyError`].
    pub fn from_tor_folder(path: &Path) -> Result<Self, OnionKeyError> {
        let file = if path.is_dir() {
            path.join(SECRET_FILE)
        } else {
            path.to_owned()
        };
        let bytes = private_file::read(&file, FILE_BYTES_MAX)?;
        let Some((tag, secret)) = bytes.split_first_chunk::<32>() else {
            return Err(OnionKeyError::NotAKey(file));
        };
        if tag != SECRET_TAG {
            return Err(OnionKeyError::NotAKey(file));
        }
        let Ok(secret) = secret.try_into() else {
            let bytes = bytes.len();
            return Err(OnionKeyError::Length { path: file, bytes });
        };
        let key =
            Self::from_expanded(secret).ok_or_else(|| OnionKeyError::NotClamped(file.clone()))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        key.check_public_file(&folder.join(PUBLIC_FILE), &key.public_file())?;
        key.check_public_file(&folder.join(HOSTNAME_FILE), key.hostname_file().as_bytes())?;
        Ok(key)
    }

    /// Checks that a public file, if present, has this content. Ignores white space at the end.
    fn check_public_file(&self, path: &Path, expected: &[u8]) -> Result<(), OnionKeyError> {
        let mut found = Vec::new();
        let read = File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX as u64).read_to_end(&mut found));
        match read {
            Ok(_) if found.trim_ascii_end() == expected.trim_ascii_end() => Ok(()),
            Ok(_) => Err(OnionKeyError::OtherKey(path.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(io_error(path, "read it", source)),
        }
    }

    /// Creates a folder (mode 0700) with C tor's three files (mode 0600).
    ///
    /// After an error the folder may be incomplete, and can be removed.
    ///
    /// # Errors
    /// [`FileError::AlreadyExists`] for an existing folder; every error of writing.
    pub fn write_tor_folder(&self, path: &Path) -> Result<(), OnionKeyError> {
        DirBuilder::new()
            .mode(0o700)
            .create(path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => FileError::AlreadyExists(path.into()).into(),
                _ => io_error(path, "create it", source),
            })?;
        let mut secret = Zeroizing::new(Vec::with_capacity(96));
        secret.extend_from_slice(SECRET_TAG);
        secret.extend_from_slice(&*self.secret);
        private_file::create(&path.join(SECRET_FILE), &secret)?;
        private_file::create(&path.join(PUBLIC_FILE), &self.public_file())?;
        private_file::create(&path.join(HOSTNAME_FILE), self.hostname_file().as_bytes())?;
        Ok(private_file::sync_parent(path)?)
    }

    fn public_file(&self) -> Vec<u8> {
        [&PUBLIC_TAG[..], self.public.as_bytes()].concat()
    }

    fn hostname_file(&self) -> String {
        self.onion_addr().to_onion_string() + "\n"
    }
}

impl fmt::Debug for OnionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--- onion key ---")
    }
}

fn clamp(secret: &mut [u8; 64]) {
    let (scalar, _) = secret.split_at_mut(32);
    if let [first, .., last] = scalar {
        *first &= 0b1111_1000;
        *last = *last & 0b0111_1111 | 0b0100_0000;
    }
}

fn public_of(secret: &[u8; 64]) -> VerifyingKey {
    VerifyingKey::from(&ExpandedSecretKey::from_bytes(secret))
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> OnionKeyError {
    let path = path.into();
    OnionKeyError::File(FileError::Io {
        path,
        action,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::SecretKey;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn key(seed: u8) -> OnionKey {
        OnionKey::from_seed(&[seed; 32])
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn onion_key_signs_as_the_secret_key_of_the_same_seed() {
        // Ed25519 is deterministic, and SecretKey is tested with the vectors of RFC 8032.
        for seed in 0..20 {
            let (onion, plain) = (key(seed), SecretKey::from_seed(&[seed; 32]));
            assert_eq!(*onion.onion_addr().public_key(), plain.public());
            let (one, other) = (
                onion.sign(Context::OnionBinding, &[b"x"]),
                plain.sign(Context::OnionBinding, &[b"x"]),
            );
            assert_eq!(one, other);
            let again = onion.with_secret(OnionKey::from_expanded).unwrap();
            assert_eq!(again.onion_addr(), onion.onion_addr());
        }
    }

    #[test]
    fn from_expanded_refuses_a_scalar_that_is_not_clamped() {
        for (place, bit) in [(0, 0), (0, 1), (0, 2), (31, 6), (31, 7)] {
            let mut bytes = key(1).with_secret(|secret| *secret);
            bytes[place] ^= 1 << bit;
            assert!(OnionKey::from_expanded(&bytes).is_none(), "{place} {bit}");
        }
    }

    #[test]
    fn tor_folder_round_trips_in_the_format_of_c_tor() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("service");
        key(1).write_tor_folder(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
        let hostname = fs::read_to_string(folder.join("hostname")).unwrap();
        assert_eq!(hostname, key(1).onion_addr().to_onion_string() + "\n");
        let public = fs::read(folder.join("hs_ed25519_public_key")).unwrap();
        assert_eq!(public[..32], *b"== ed25519v1-public: type0 ==\0\0\0");
        assert_eq!(public[32..], *key(1).onion_addr().public_key().as_bytes());
        let secret = fs::read(folder.join("hs_ed25519_secret_key")).unwrap();
        assert_eq!((secret.len(), public.len()), (96, 64));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
        for entry in fs::read_dir(&folder).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
        for path in [folder.clone(), folder.join("hs_ed25519_secret_key")] {
            let read = OnionKey::from_tor_folder(&path).unwrap();
            assert!(read.with_secret(|one| key(1).with_secret(|other| one == other)));
        }
        assert!(matches!(
            key(2).write_tor_folder(&folder),
            Err(OnionKeyError::File(FileError::AlreadyExists(_)))
        ));
        // The secret key file alone is enough.
        fs::remove_file(folder.join("hostname")).unwrap();
        fs::remove_file(folder.join("hs_ed25519_public_key")).unwrap();
        OnionKey::from_tor_folder(&folder).unwrap();
    }

    /// Applies `change` to one file of a folder. Returns the error of reading the folder.
    fn changed(file: &str, change: impl FnOnce(&mut Vec<u8>)) -> OnionKeyError {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("service");
        key(1).write_tor_folder(&folder).unwrap();
        let mut bytes = fs::read(folder.join(file)).unwrap();
        change(&mut bytes);
        fs::write(folder.join(file), bytes).unwrap();
        OnionKey::from_tor_folder(&folder).unwrap_err()
    }

    #[test]
    fn from_tor_folder_reports_each_fault_by_its_own_error() {
        use OnionKeyError::{File, Length, NotAKey, NotClamped, OtherKey};
        assert!(matches!(
            changed(SECRET_FILE, |bytes| bytes[3] ^= 1),
            NotAKey(_)
        ));
        assert!(matches!(
            changed(SECRET_FILE, |bytes| bytes.truncate(31)),
            NotAKey(_)
        ));
        assert!(matches!(
            changed(SECRET_FILE, |bytes| bytes.truncate(95)),
            Length { bytes: 95, .. }
        ));
        assert!(matches!(
            changed(SECRET_FILE, |bytes| bytes.push(0)),
            Length { bytes: 97, .. }
        ));
        assert!(matches!(
            changed(SECRET_FILE, |bytes| bytes[32] ^= 1),
            NotClamped(_)
        ));
        // Another secret key than that of the public key and hostname files.
        assert!(matches!(
            changed(SECRET_FILE, |bytes| bytes[33] ^= 1),
            OtherKey(_)
        ));
        assert!(matches!(
            changed(PUBLIC_FILE, |bytes| bytes[40] ^= 1),
            OtherKey(_)
        ));
        assert!(matches!(
            changed(HOSTNAME_FILE, |bytes| bytes[4] ^= 1),
            OtherKey(_)
        ));
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            OnionKey::from_tor_folder(dir.path()),
            Err(File(FileError::NotFound(_)))
        ));
        let folder = dir.path().join("service");
        key(1).write_tor_folder(&folder).unwrap();
        fs::set_permissions(folder.join(SECRET_FILE), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            OnionKey::from_tor_folder(&folder),
            Err(File(FileError::LoosePermissions { .. }))
        ));
    }

    #[test]
    fn debug_output_redacts_the_onion_key() {
        assert_eq!(format!("{:?}", key(1)), "--- onion key ---");
    }
}
