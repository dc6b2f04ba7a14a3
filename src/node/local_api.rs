//! The local API of a running node: its listener, its server task, and the file that names its
//! address.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::error::{RunError, files};
use crate::api::{self, ApiState};
use crate::data_dir::DataDir;

/// The API's server task.
pub(super) struct LocalApi {
    /// The address that it listens on, with the port that the system chose.
    pub(super) address: SocketAddr,
    serving: JoinHandle<()>,
    address_file: PathBuf,
}

impl LocalApi {
    /// Listens on `listen`, writes the address file, and serves until the token in `state` is
    /// cancelled.
    pub(super) async fn start(
        listen: SocketAddr,
        data: &DataDir,
        state: ApiState,
    ) -> Result<Self, RunError> {
        let cannot = |error| RunError::Api(listen, error);
        let listener = TcpListener::bind(listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let address_file = data.api_address();
        write_atomically(&address_file, &format!("{address}\n"))
            .map_err(files("write", &address_file))?;
        let serving = tokio::spawn(async move {
            if let Err(error) = api::serve(listener, state).await {
                tracing::error!(error = %keys::error_chain(&error), "the local API ended");
            }
        });
        Ok(Self {
            address,
            serving,
            address_file,
        })
    }

    /// Waits until the server has ended, and removes the address file.
    pub(super) async fn close(self) {
        // A panic of the task was reported by the panic hook.
        let _ = self.serving.await;
        // A stale address would send clients to a port that another process may hold. A missing
        // file is fine.
        let _ = fs::remove_file(self.address_file);
    }
}

/// Writes a small file so that a reader sees all of it or none.
fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&unfinished, path)
}
