//! Writes the seeds of every target into the corpus, or into the folder that the first argument
//! names. Run this after a change of a wire format.
//!
//! Existing files that are not seeds are kept, because they are findings. Invariant: two runs write
//! the same bytes.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let corpus = env::args_os().nth(1).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"),
        PathBuf::from,
    );
    for seed in fuzz::seeds() {
        let folder = corpus.join(seed.target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(seed.name), seed.bytes)?;
    }
    Ok(())
}
