//! A search for secrets in files: as raw bytes, and in every text form in which a program might
//! print or store them.
use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, BASE64URL_NOPAD, Encoding, HEXLOWER, HEXUPPER};

/// One form of one secret.
#[derive(Debug, Clone)]
pub struct Needle {
    /// The secret and the form.
    pub name: String,
    /// The bytes to search for.
    pub bytes: Vec<u8>,
}

/// Every form of a secret of bytes.
pub fn forms(name: &str, secret: &[u8]) -> Vec<Needle> {
    let mut forms = vec![(format!("{name}, raw"), secret.to_vec())];
    for (encoding, form) in [(HEXLOWER, "hex"), (HEXUPPER, "HEX")] {
        forms.push((
            format!("{name}, {form}"),
            encoding.encode(secret).into_bytes(),
        ));
    }
    for shift in 0..5 {
        let upper = shifted(&BASE32_NOPAD, 5, secret, shift);
        forms.push((
            format!("{name}, base32 lower, {shift} on"),
            upper.to_ascii_lowercase(),
        ));
        forms.push((format!("{name}, base32, {shift} on"), upper));
    }
    for shift in 0..3 {
        forms.push((
            format!("{name}, base64, {shift} on"),
            shifted(&BASE64_NOPAD, 6, secret, shift),
        ));
        forms.push((
            format!("{name}, base64url, {shift} on"),
            shifted(&BASE64URL_NOPAD, 6, secret, shift),
        ));
    }
    let named = forms
        .into_iter()
        .map(|(name, bytes)| Needle { name, bytes });
    named.collect()
}

/// Every form of a secret that is text.
pub fn text_forms(name: &str, secret: &str) -> Vec<Needle> {
    forms(name, secret.as_bytes())
}

/// The digits that encode the secret alone where `shift` bytes precede it and any bytes follow.
fn shifted(encoding: &Encoding, bits: usize, secret: &[u8], shift: usize) -> Vec<u8> {
    let padded = [&vec![0; shift], secret].concat();
    let text = encoding.encode(&padded).into_bytes();
    let (first, last) = ((shift * 8).div_ceil(bits), padded.len() * 8 / bits);
    text[first..last].to_vec()
}

/// Every file below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

/// The needles that a file or its path contains, each with the path.
pub fn found_in(path: &Path, needles: &[Needle]) -> Vec<String> {
    // The running node may have removed the file.
    let Ok(mut bytes) = fs::read(path) else {
        return Vec::new();
    };
    bytes.push(0);
    bytes.extend_from_slice(path.as_os_str().as_encoded_bytes());
    let holds = |needle: &&Needle| {
        bytes
            .windows(needle.bytes.len())
            .any(|part| part == needle.bytes)
    };
    let found = needles.iter().filter(holds);
    found
        .map(|needle| format!("{}: {}", path.display(), needle.name))
        .collect()
}
