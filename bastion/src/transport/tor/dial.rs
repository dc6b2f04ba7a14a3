//! Dials onion services, and maps arti's errors.
//!
//! Only onion services are dialled. arti's errors may contain a full address, so they pass through
//! `chain`, which removes it.

use std::{fmt, sync::Arc, time::Duration};

use arti_client::{ErrorKind, HasKind, StreamPrefs, TorClient, config::BoolOrAuto};
use keys::OnionAddr;
use keys::protocol::ONION_PORT;
use tokio::time::timeout;
use tor_rtcompat::PreferredRuntime;

use super::error::chain;
use crate::transport::{BoxFuture, DialError, Stream, Transport};

/// The shared arti client.
pub(super) type Client = Arc<TorClient<PreferredRuntime>>;

/// Dials onion services through the client of a [`TorNode`](super::TorNode). The client lives as
/// long as its transports.
#[derive(Clone)]
pub struct TorTransport {
    client: Client,
    deadline: Duration,
}

impl TorTransport {
    pub(super) fn new(client: Client, deadline: Duration) -> Self {
        Self { client, deadline }
    }

    /// Dials on isolated circuits with a freshly fetched descriptor, like a client that never
    /// dialled before.
    pub(super) async fn dial_isolated(&self, onion: &OnionAddr) -> Result<Stream, DialError> {
        let mut prefs = StreamPrefs::new();
        prefs.new_isolation_group();
        self.dial_with(onion, prefs).await
    }

    async fn dial_with(
        &self,
        onion: &OnionAddr,
        mut prefs: StreamPrefs,
    ) -> Result<Stream, DialError> {
        prefs.connect_to_onion_services(BoolOrAuto::Explicit(true));
        let host = onion.to_onion_string();
        let connecting = self
            .client
            .connect_with_prefs((host.as_str(), ONION_PORT), &prefs);
        match timeout(self.deadline, connecting).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => {
                tracing::debug!(%onion, error = chain(&error), "dial failed");
                Err(dial_error(&error))
            }
            Err(_) => Err(DialError::Timeout),
        }
    }
}

impl Transport for TorTransport {
    fn dial<'a>(&'a self, onion: &'a OnionAddr) -> BoxFuture<'a, Result<Stream, DialError>> {
        Box::pin(self.dial_with(onion, StreamPrefs::new()))
    }
}

impl fmt::Debug for TorTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TorTransport")
    }
}

/// Maps arti's error to a [`DialError`].
fn dial_error(error: &arti_client::Error) -> DialError {
    match error.kind() {
        ErrorKind::OnionServiceNotFound
        | ErrorKind::OnionServiceNotRunning
        | ErrorKind::OnionServiceConnectionFailed
        | ErrorKind::OnionServiceProtocolViolation => DialError::Unreachable,
        ErrorKind::OnionServiceMissingClientAuth
        | ErrorKind::OnionServiceWrongClientAuth
        | ErrorKind::RemoteConnectionRefused
        | ErrorKind::RemoteStreamClosed
        | ErrorKind::RemoteStreamReset
        | ErrorKind::RemoteStreamError => DialError::Refused,
        ErrorKind::RemoteNetworkTimeout | ErrorKind::TorNetworkTimeout | ErrorKind::ExitTimeout => {
            DialError::Timeout
        }
        _ => DialError::Failed(chain(error)),
    }
}
