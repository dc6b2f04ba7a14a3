//! Sealed streams at every border of a chunk, cut, bent and exchanged.

use super::*;
use crate::passphrase::Passphrase;
use crate::vault::KeyManager;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use std::io::Read;

const SEALED_CHUNK: usize = CHUNK_BYTES + TAG_BYTES;
const SALT: [u8; 16] = [5; 16];

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn word(text: &str) -> Passphrase {
    Passphrase::from_string(text.into())
}

fn sealer(seed: u64) -> BackupSealer {
    let key = KdfCost::TEST.derive(&word("right"), &SALT).unwrap();
    BackupSealer::new(KdfCost::TEST, SALT, &key, &mut rng(seed))
}

fn plain(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| (place % 251) as u8).collect()
}

fn sealed(plain: &[u8]) -> Vec<u8> {
    let mut writer = sealer(1).start(Vec::new()).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

/// What a reader gives, and its error.
fn opened(backup: &[u8]) -> (Vec<u8>, Result<(), BackupError>) {
    let mut got = Vec::new();
    let result = BackupOpener::open(backup, &word("right")).and_then(|mut reader| {
        reader
            .read_to_end(&mut got)
            .map(drop)
            .map_err(|error| error.downcast::<BackupError>().unwrap())
    });
    (got, result)
}

#[test]
fn every_size_around_a_chunk_s_border_comes_back() {
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
        // A last chunk is never empty but in an empty backup.
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
fn how_it_is_written_and_read_does_not_matter() {
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

/// Gives few bytes at a time, as a pipe may.
struct OneByOne<'a>(&'a [u8]);

impl Read for OneByOne<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = into.len().min(7);
        self.0.read(&mut into[..count])
    }
}

#[test]
fn every_truncation_is_noticed() {
    let small = sealed(&plain(40));
    for length in 0..small.len() {
        let (got, result) = opened(&small[..length]);
        let error = result.unwrap_err();
        let expected = match length {
            // Header and less than a tag.
            0..109 => matches!(error, BackupError::Truncated),
            _ => matches!(error, BackupError::Tampered),
        };
        assert!(expected && got.is_empty(), "{length}: {error}");
    }
    let large = sealed(&plain(3 * CHUNK_BYTES));
    for chunks in 0..3 {
        let border = HEADER_BYTES + chunks * SEALED_CHUNK;
        for (length, is_known) in [(border, true), (border + 5, true), (border + 500, false)] {
            let (got, result) = opened(&large[..length]);
            assert_eq!(
                matches!(result, Err(BackupError::Truncated)),
                is_known,
                "{length}"
            );
            // At a border the chunk before it shows that it was not the last, and is not given out.
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
fn every_flipped_byte_is_noticed_and_nothing_of_its_chunk_is_given() {
    let small = sealed(&plain(40));
    for place in 0..small.len() {
        let mut bent = small.clone();
        // The lowest bit, so that altered costs stay cheap to try.
        bent[place] ^= 1;
        let (got, result) = opened(&bent);
        let error = result.unwrap_err();
        let expected = match place {
            0..15 => matches!(error, BackupError::NotABackup),
            15..17 => matches!(error, BackupError::UnknownVersion(_)),
            17..29 => matches!(
                error,
                BackupError::WrongPassphrase | BackupError::Key(VaultError::CostOutOfBounds(_))
            ),
            29..61 => matches!(error, BackupError::WrongPassphrase),
            _ => matches!(error, BackupError::Tampered),
        };
        assert!(expected && got.is_empty(), "{place}: {error}");
    }
    let mut second = sealed(&plain(3 * CHUNK_BYTES));
    second[HEADER_BYTES + SEALED_CHUNK + 9] ^= 1;
    let (got, result) = opened(&second);
    assert!(matches!(result, Err(BackupError::Tampered)) && got == plain(CHUNK_BYTES));
}

#[test]
fn chunks_have_one_place_in_one_file() {
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
    // Something behind the last chunk, were it sealed too.
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
fn after_an_error_there_is_no_end() {
    let backup = sealed(&plain(2 * CHUNK_BYTES));
    let mut reader = BackupOpener::open(&backup[..backup.len() - 1], &word("right")).unwrap();
    let mut got = Vec::new();
    assert!(reader.read_to_end(&mut got).is_err());
    for _ in 0..3 {
        assert!(reader.read(&mut [0; 10]).is_err());
    }
}

/// Fails once its room is used up.
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
fn after_a_full_disk_nothing_is_written_on() {
    let mut writer = sealer(1).start(Full(HEADER_BYTES + 10)).unwrap();
    let error = writer.write_all(&plain(2 * CHUNK_BYTES)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(writer.write_all(b"x").is_err());
    assert!(writer.finish().is_err());
}

/// Takes and gives without end, and sees how much goes through it at once.
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
fn one_chunk_is_in_memory_whatever_the_size() {
    let mut writer = sealer(1).start(Pipe { left: 0, most: 0 }).unwrap();
    let part = plain(1000 * 1000);
    for _ in 0..20 {
        writer.write_all(&part).unwrap();
        assert!(writer.chunk.capacity() == SEALED_CHUNK);
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
fn each_fault_of_opening_has_its_own_error() {
    let backup = sealed(&plain(40));
    let open = |backup: &[u8], passphrase| BackupOpener::open(backup, &word(passphrase)).map(drop);
    assert!(matches!(
        open(&backup, "wrong"),
        Err(BackupError::WrongPassphrase)
    ));
    assert!(matches!(
        open(&backup, ""),
        Err(BackupError::Key(VaultError::EmptyPassphrase))
    ));
    assert!(matches!(
        open(b"SQLite format 3\0", "right"),
        Err(BackupError::NotABackup)
    ));
    assert!(matches!(open(b"", "right"), Err(BackupError::Truncated)));
    let mut newer = backup.clone();
    newer[16] = 2;
    assert!(matches!(
        open(&newer, "right"),
        Err(BackupError::UnknownVersion(2))
    ));
    let mut dear = backup;
    dear[17] = 0xff;
    assert!(matches!(
        open(&dear, "right"),
        Err(BackupError::Key(VaultError::CostOutOfBounds(_)))
    ));
}

#[test]
fn a_vault_seals_without_its_passphrase_and_opens_what_it_sealed() {
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
    // Salt and key check are the vault's, all else is new.
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
        Err(BackupError::Tampered)
    ));
    // A changed passphrase opens what comes after.
    keys.change_passphrase(&word("other"), KdfCost::TEST, &mut rng(4))
        .unwrap();
    assert!(matches!(
        keys.open_backup(&first[..]),
        Err(BackupError::OtherVault)
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
        Err(BackupError::Key(VaultError::InMemory))
    ));
}

#[test]
fn a_chunk_is_what_the_cipher_alone_makes_of_it() {
    // Made without the STREAM crate: nonce of 19 bytes of the file nonce, place 0, mark of the last chunk.
    use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
    let backup = sealed(b"database");
    let (header, body) = backup.split_at(HEADER_BYTES);
    let key = KdfCost::TEST.derive(&word("right"), &SALT).unwrap();
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
fn nothing_of_it_prints() {
    let debug = format!("{:?} {:?}", sealer(1), sealer(1).start(Vec::new()).unwrap());
    assert_eq!(debug, "--- backup sealer --- --- sealing writer ---");
}
