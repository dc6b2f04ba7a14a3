//! Tests of sealed streams: sizes around each chunk boundary, truncation, changes and exchanged
//! chunks.

use super::chunks::{CHUNK_BYTES, HEADER_BYTES, StreamKind, TAG_BYTES};
use super::error::SealError;
use super::open::{BackupOpener, OpeningReader};
use super::seal::BackupSealer;
use crate::file_header::KeyParams;
use crate::ids::Digest;
use crate::kdf::{KdfCost, KdfError};
use crate::passphrase::Passphrase;
use crate::signing::{Context, signing_input};
use crate::vault::{KeyManager, VaultError};
use chacha20poly1305::XChaCha20Poly1305;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use std::io::{self, Read, Write};

const SEALED_CHUNK: usize = CHUNK_BYTES + TAG_BYTES;
const SALT: [u8; 16] = [5; 16];

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn word(text: &str) -> Passphrase {
    Passphrase::from_string(text.into())
}

fn sealer(seed: u64) -> BackupSealer {
    let (params, key) = KeyParams::derive(&word("right"), SALT, KdfCost::TEST).unwrap();
    BackupSealer::new(StreamKind::Backup, params, &key, &mut rng(seed))
}

fn plain(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| (place % 251) as u8).collect()
}

fn sealed(plain: &[u8]) -> Vec<u8> {
    let mut writer = sealer(1).start(Vec::new()).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

/// Reads a backup to its end. Returns the bytes and the result.
fn opened(backup: &[u8]) -> (Vec<u8>, Result<(), SealError>) {
    let mut got = Vec::new();
    let result = BackupOpener::open(backup, &word("right")).and_then(|mut reader| {
        reader
            .read_to_end(&mut got)
            .map(drop)
            .map_err(|error| error.downcast::<SealError>().unwrap())
    });
    (got, result)
}

#[test]
fn every_size_around_a_chunk_boundary_round_trips() {
    let sizes = [
        0,
        1,
        2,
        TAG_BYTES,
        CHUNK_BYTES - 1,
        CHUNK_BYTES,
        CHUNK_BYTES + 1,
    ];
    let larger = [
        2 * CHUNK_BYTES - 1,
        2 * CHUNK_BYTES,
        2 * CHUNK_BYTES + 1,
        5 * CHUNK_BYTES + 77,
    ];
    for size in sizes.into_iter().chain(larger) {
        let plain = plain(size);
        let backup = sealed(&plain);
        // The last chunk is empty only in an empty backup.
        let chunks = size.div_ceil(CHUNK_BYTES).max(1);
        assert_eq!(
            backup.len(),
            HEADER_BYTES + size + chunks * TAG_BYTES,
            "{size}"
        );
        let (got, result) = opened(&backup);
        assert!(result.is_ok() && got == plain, "{size}: {result:?}");
    }
}

#[test]
fn result_does_not_depend_on_read_and_write_sizes() {
    let plain = plain(3 * CHUNK_BYTES + 5);
    for step in [1000, CHUNK_BYTES - 1, CHUNK_BYTES + 1] {
        let mut writer = sealer(1).start(Vec::new()).unwrap();
        for part in plain.chunks(step) {
            writer.write_all(part).unwrap();
            writer.flush().unwrap();
        }
        let backup = writer.finish().unwrap();
        assert_eq!(backup, sealed(&plain));
        let mut reader = BackupOpener::open(OneByOne(&backup), &word("right")).unwrap();
        let mut got = Vec::new();
        let mut part = vec![0; step];
        loop {
            match reader.read(&mut part).unwrap() {
                0 => break,
                count => got.extend_from_slice(&part[..count]),
            }
        }
        assert!(got == plain);
        assert_eq!(reader.read(&mut part).unwrap(), 0);
    }
}

/// Returns at most seven bytes per read, as a pipe may.
struct OneByOne<'a>(&'a [u8]);

impl Read for OneByOne<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = into.len().min(7);
        self.0.read(&mut into[..count])
    }
}

#[test]
fn every_truncation_is_refused() {
    let small = sealed(&plain(40));
    for length in 0..small.len() {
        let (got, result) = opened(&small[..length]);
        let error = result.unwrap_err();
        let expected = match length {
            // The header and less than a tag.
            0..109 => matches!(error, SealError::Truncated),
            _ => matches!(error, SealError::Tampered),
        };
        assert!(expected && got.is_empty(), "{length}: {error}");
    }
    let large = sealed(&plain(3 * CHUNK_BYTES));
    for chunks in 0..3 {
        let border = HEADER_BYTES + chunks * SEALED_CHUNK;
        for (length, is_truncated) in [(border, true), (border + 5, true), (border + 500, false)] {
            let (got, result) = opened(&large[..length]);
            assert_eq!(
                matches!(result, Err(SealError::Truncated)),
                is_truncated,
                "{length}"
            );
            // At a boundary, the chunk before it proves that more chunks follow, and is not
            // returned.
            let given = if length == border {
                chunks.saturating_sub(1)
            } else {
                chunks
            };
            assert!(
                result.is_err() && got == plain(given * CHUNK_BYTES),
                "{length}"
            );
        }
    }
}

#[test]
fn every_flipped_byte_is_refused_and_its_chunk_is_not_returned() {
    let small = sealed(&plain(40));
    for place in 0..small.len() {
        let mut bent = small.clone();
        // The lowest bit keeps the altered costs cheap.
        bent[place] ^= 1;
        let (got, result) = opened(&bent);
        let error = result.unwrap_err();
        let expected = match place {
            0..15 => matches!(error, SealError::NotABackup),
            15..17 => matches!(error, SealError::UnknownVersion(_)),
            17..29 => matches!(
                error,
                SealError::WrongPassphrase | SealError::Kdf(KdfError::CostOutOfBounds(_))
            ),
            29..61 => matches!(error, SealError::WrongPassphrase),
            _ => matches!(error, SealError::Tampered),
        };
        assert!(expected && got.is_empty(), "{place}: {error}");
    }
    let mut second = sealed(&plain(3 * CHUNK_BYTES));
    second[HEADER_BYTES + SEALED_CHUNK + 9] ^= 1;
    let (got, result) = opened(&second);
    assert!(matches!(result, Err(SealError::Tampered)) && got == plain(CHUNK_BYTES));
}

#[test]
fn chunks_open_only_at_their_position_in_their_file() {
    let backup = sealed(&plain(3 * CHUNK_BYTES + 10));
    let (header, body) = backup.split_at(HEADER_BYTES);
    let chunks: Vec<_> = body.chunks(SEALED_CHUNK).collect();
    let refused = |header: &[u8], order: &[&[u8]]| {
        let file = [header, &order.concat()].concat();
        let (got, result) = opened(&file);
        assert!(result.is_err());
        got.len() / CHUNK_BYTES
    };
    assert_eq!(
        refused(header, &[chunks[1], chunks[0], chunks[2], chunks[3]]),
        0
    );
    assert_eq!(
        refused(header, &[chunks[0], chunks[2], chunks[1], chunks[3]]),
        1
    );
    assert_eq!(
        refused(
            header,
            &[chunks[0], chunks[0], chunks[1], chunks[2], chunks[3]]
        ),
        1
    );
    assert_eq!(refused(header, &[chunks[0], chunks[2], chunks[3]]), 1);
    // Bytes after the last chunk, even a sealed chunk.
    assert_eq!(
        refused(header, &[chunks[0], chunks[1], chunks[2], chunks[3], b"x"]),
        3
    );
    assert_eq!(
        refused(
            header,
            &[chunks[0], chunks[1], chunks[2], chunks[3], chunks[3]]
        ),
        3
    );
    let mut writer = sealer(2).start(Vec::new()).unwrap();
    writer.write_all(&plain(3 * CHUNK_BYTES + 10)).unwrap();
    let other = writer.finish().unwrap();
    assert_eq!(refused(&other[..HEADER_BYTES], &chunks), 0);
}

#[test]
fn reader_returns_errors_only_after_an_error() {
    let backup = sealed(&plain(2 * CHUNK_BYTES));
    let mut reader = BackupOpener::open(&backup[..backup.len() - 1], &word("right")).unwrap();
    let mut got = Vec::new();
    assert!(reader.read_to_end(&mut got).is_err());
    for _ in 0..3 {
        assert!(reader.read(&mut [0; 10]).is_err());
    }
}

/// Fails after this many bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn writer_writes_nothing_after_a_full_disk() {
    let mut writer = sealer(1).start(Full(HEADER_BYTES + 10)).unwrap();
    let error = writer.write_all(&plain(2 * CHUNK_BYTES)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(writer.write_all(b"x").is_err());
    assert!(writer.finish().is_err());
}

/// Counts the bytes written to it, and the most in one write.
struct Pipe {
    left: usize,
    most: usize,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left += bytes.len();
        self.most = self.most.max(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn writer_and_reader_keep_one_chunk_in_memory() {
    let mut writer = sealer(1).start(Pipe { left: 0, most: 0 }).unwrap();
    let part = plain(1000 * 1000);
    for _ in 0..20 {
        writer.write_all(&part).unwrap();
        assert!(writer.buffered() == SEALED_CHUNK);
    }
    let pipe = writer.finish().unwrap();
    assert!(pipe.left > 20_000_000 && pipe.most == SEALED_CHUNK);
    let backup = sealed(&plain(20 * CHUNK_BYTES));
    let mut reader = BackupOpener::open(&backup[..], &word("right")).unwrap();
    let mut some = [0; 9000];
    while reader.read(&mut some).unwrap() > 0 {
        assert!(reader.buffered() <= SEALED_CHUNK);
    }
}

#[test]
fn open_reports_each_fault_by_its_own_error() {
    let backup = sealed(&plain(40));
    let open = |backup: &[u8], passphrase| BackupOpener::open(backup, &word(passphrase)).map(drop);
    assert!(matches!(
        open(&backup, "wrong"),
        Err(SealError::WrongPassphrase)
    ));
    assert!(matches!(
        open(&backup, ""),
        Err(SealError::Kdf(KdfError::EmptyPassphrase))
    ));
    assert!(matches!(
        open(b"SQLite format 3\0", "right"),
        Err(SealError::NotABackup)
    ));
    assert!(matches!(open(b"", "right"), Err(SealError::Truncated)));
    let mut newer = backup.clone();
    newer[16] = 2;
    assert!(matches!(
        open(&newer, "right"),
        Err(SealError::UnknownVersion(2))
    ));
    let mut costly = backup;
    costly[17] = 0xff;
    assert!(matches!(
        open(&costly, "right"),
        Err(SealError::Kdf(KdfError::CostOutOfBounds(_)))
    ));
}

#[test]
fn key_manager_seals_without_its_passphrase_and_opens_its_backups() {
    let dir = tempfile::tempdir().unwrap();
    let keys = KeyManager::create(
        &dir.path().join("vault"),
        &word("right"),
        KdfCost::TEST,
        &mut rng(1),
    )
    .unwrap();
    let backup = |keys: &KeyManager, seed| {
        let mut writer = keys
            .backup_sealer(&mut rng(seed))
            .unwrap()
            .start(Vec::new())
            .unwrap();
        writer.write_all(b"database").unwrap();
        writer.finish().unwrap()
    };
    let (first, second) = (backup(&keys, 2), backup(&keys, 3));
    // Salt and key check are the vault's. Everything else differs.
    assert_eq!(first[..61], second[..61]);
    assert!(
        !first[93..]
            .windows(8)
            .any(|part| second[93..].windows(8).any(|other| part == other))
    );
    let read = |mut reader: OpeningReader<&[u8]>| io::read_to_string(&mut reader).unwrap();
    assert_eq!(read(keys.open_backup(&first[..]).unwrap()), "database");
    assert_eq!(
        read(BackupOpener::open(&first[..], &word("right")).unwrap()),
        "database"
    );
    let mut bent = first.clone();
    bent[50] ^= 1;
    assert!(matches!(
        keys.open_backup(&bent[..]),
        Err(SealError::Tampered)
    ));
    // A changed passphrase opens later backups only.
    keys.change_passphrase(&word("other"), KdfCost::TEST, &mut rng(4))
        .unwrap();
    assert!(matches!(
        keys.open_backup(&first[..]),
        Err(SealError::OtherVault)
    ));
    assert_eq!(
        read(BackupOpener::open(&first[..], &word("right")).unwrap()),
        "database"
    );
    let third = backup(&keys, 5);
    assert_eq!(
        read(BackupOpener::open(&third[..], &word("other")).unwrap()),
        "database"
    );
    let in_memory = KeyManager::generate(&mut rng(1));
    assert!(matches!(
        in_memory.backup_sealer(&mut rng(1)),
        Err(VaultError::InMemory)
    ));
    assert!(matches!(
        in_memory.open_backup(&first[..]),
        Err(SealError::InMemory)
    ));
}

#[test]
fn chunk_decrypts_with_the_plain_cipher() {
    // Without the STREAM crate. Nonce: 19 bytes of the file nonce, counter 0, last-chunk mark 1.
    use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
    let backup = sealed(b"database");
    let (header, body) = backup.split_at(HEADER_BYTES);
    let (_, key) = KeyParams::derive(&word("right"), SALT, KdfCost::TEST).unwrap();
    let file_nonce = &header[61..93];
    let file_key = Digest::of(&signing_input(Context::BackupKey, &[&*key, file_nonce]));
    let mut nonce = [0; 24];
    nonce[..19].copy_from_slice(&file_nonce[..19]);
    nonce[23] = 1;
    let cipher = XChaCha20Poly1305::new(file_key.as_bytes().into());
    let payload = Payload {
        msg: body,
        aad: header,
    };
    assert_eq!(cipher.decrypt(&nonce.into(), payload).unwrap(), b"database");
}

#[test]
fn debug_output_redacts_sealer_and_writer() {
    let debug = format!("{:?} {:?}", sealer(1), sealer(1).start(Vec::new()).unwrap());
    assert_eq!(debug, "--- backup sealer --- --- sealing writer ---");
}
