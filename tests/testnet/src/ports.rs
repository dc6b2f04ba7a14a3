//! Free ports on 127.0.0.1, reserved until the process that needs them starts.
//!
//! A listener reserves the port and is closed immediately before that process starts. Another
//! process may take the port in between; `network` then starts again with other ports.

use std::net::{Ipv4Addr, TcpListener};

use crate::Error;

/// A reserved port.
#[derive(Debug)]
pub(crate) struct Reserved {
    /// Reserves the port until it is dropped.
    listener: TcpListener,
    port: u16,
}

impl Reserved {
    /// Finds a free port and reserves it.
    pub(crate) fn any() -> Result<Self, Error> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::io("find a free port"))?;
        let port = listener
            .local_addr()
            .map_err(Error::io("find a free port"))?
            .port();
        Ok(Self { listener, port })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Releases the port for the process that starts next.
    pub(crate) fn release(self) {
        drop(self.listener);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_port_cannot_be_bound_until_released() {
        let reserved = Reserved::any().unwrap();
        let port = reserved.port();
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err());
        reserved.release();
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}
