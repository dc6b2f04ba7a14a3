//! Streams that are valid tar but not a valid backup.

use super::*;

fn part(name: &str, bytes: u64) -> Part {
    Part {
        name: name.into(),
        bytes,
    }
}

fn manifest() -> Manifest {
    let files = vec![
        part(CONFIG, 3),
        part(KEYS, 4),
        part("schemas/own.toml", 5),
        part(DATABASE, 600),
    ];
    Manifest::new(1_700_000_000_000, "ab".into(), files)
}

fn bytes_of(part: &Part) -> Vec<u8> {
    vec![b'x'; part.bytes as usize]
}

fn written(manifest: &Manifest) -> Vec<u8> {
    let mut writing = ArchiveWriter::begin(Vec::new(), manifest).unwrap();
    for part in &manifest.files {
        writing
            .add(&part.name, part.bytes, 0, &mut bytes_of(part).as_slice())
            .unwrap();
    }
    writing.finish().unwrap()
}

fn files_of(stream: &[u8]) -> Result<Vec<(String, usize)>, ArchiveError> {
    let mut seen = Vec::new();
    read(stream, |_, part, reader| {
        let mut bytes = Vec::new();
        reader
            .read_to_end(&mut bytes)
            .map_err(|error| ArchiveError::Stream("read the backup", error))?;
        seen.push((part.name.clone(), bytes.len()));
        Ok::<_, ArchiveError>(())
    })?;
    Ok(seen)
}

/// A tar of these entries, unchecked.
fn tar_of(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, bytes) in entries {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_entry_type(*kind);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn refused(stream: &[u8], why: &str) {
    let error = files_of(stream).unwrap_err().to_string();
    assert!(error.contains(why), "{error}, not {why}");
}

#[test]
fn reads_the_files_that_were_written() {
    let seen = files_of(&written(&manifest())).unwrap();
    let expected = [
        (CONFIG, 3),
        (KEYS, 4),
        ("schemas/own.toml", 5),
        (DATABASE, 600),
    ];
    assert_eq!(seen, expected.map(|(name, bytes)| (name.to_owned(), bytes)));
}

#[test]
fn truncated_or_extended_stream_is_refused() {
    let whole = written(&manifest());
    for length in (0..whole.len()).step_by(64).chain([whole.len() - 1]) {
        assert!(
            files_of(&whole[..length]).is_err(),
            "{length} of {}",
            whole.len()
        );
    }
    refused(
        &[&*whole, &b"\0"[..]].concat(),
        "its end is missing, or data follows it",
    );
}

#[test]
fn unsafe_names_other_entry_kinds_and_wrong_order_are_refused() {
    for name in [
        "../x",
        "/etc/passwd",
        "schemas/../x.toml",
        "schemas/a/b.toml",
        "schemas/.x.toml",
        "other",
        "schemas/x",
    ] {
        let mut bad = manifest();
        bad.files.push(part(name, 1));
        assert!(bad.check().is_err(), "{name}");
        let json = serde_json::to_vec(&bad).unwrap();
        refused(
            &tar_of(&[(MANIFEST, EntryType::Regular, &json)]),
            "unknown name",
        );
    }
    let mut twice = manifest();
    twice.files.push(part(KEYS, 4));
    let json = serde_json::to_vec(&twice).unwrap();
    refused(&tar_of(&[(MANIFEST, EntryType::Regular, &json)]), "twice");
    let mut none = manifest();
    none.files.remove(1);
    let json = serde_json::to_vec(&none).unwrap();
    refused(
        &tar_of(&[(MANIFEST, EntryType::Regular, &json)]),
        "a needed file is missing",
    );

    let json = serde_json::to_vec(&manifest()).unwrap();
    let first = (MANIFEST, EntryType::Regular, &*json);
    refused(
        &tar_of(&[(CONFIG, EntryType::Regular, b"xxx")]),
        "where manifest.json belongs",
    );
    refused(&tar_of(&[first]), "postern.toml is missing");
    refused(
        &tar_of(&[first, (KEYS, EntryType::Regular, b"xxxx")]),
        "where postern.toml belongs",
    );
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Directory,
        EntryType::Fifo,
        EntryType::GNULongName,
        EntryType::XHeader,
        EntryType::GNUSparse,
    ] {
        refused(
            &tar_of(&[first, (CONFIG, kind, b"xxx")]),
            "where postern.toml belongs",
        );
    }
    refused(
        &tar_of(&[first, (CONFIG, EntryType::Regular, b"xx")]),
        "shorter than the manifest says",
    );
    refused(
        &tar_of(&[first, (CONFIG, EntryType::Regular, b"xxxx")]),
        "longer than the manifest says",
    );
}

#[test]
fn entry_that_the_manifest_does_not_name_is_refused() {
    let manifest = manifest();
    let json = serde_json::to_vec(&manifest).unwrap();
    let contents: Vec<_> = manifest.files.iter().map(bytes_of).collect();
    let mut entries = vec![(MANIFEST, EntryType::Regular, &*json)];
    for (part, bytes) in manifest.files.iter().zip(&contents) {
        entries.push((&part.name, EntryType::Regular, bytes));
    }
    assert!(files_of(&tar_of(&entries)).is_ok());
    entries.push((CONFIG, EntryType::Regular, b"xxx"));
    refused(&tar_of(&entries), "more entries than the manifest names");
}

#[test]
fn later_format_is_reported_as_such() {
    let later = br#"{ "format": 2, "what": "is this" }"#;
    refused(
        &tar_of(&[(MANIFEST, EntryType::Regular, later)]),
        "format 2",
    );
    refused(
        &tar_of(&[(MANIFEST, EntryType::Regular, b"{}")]),
        "manifest",
    );
}
