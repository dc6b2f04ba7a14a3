//! Free ports on 127.0.0.1, kept from others until their user starts.
//!
//! The listener that found a port keeps it; it is let go right before the process that wants it starts. Somebody else
//! may take it in that moment: the network then starts again with other ports.

use std::net::{Ipv4Addr, TcpListener};

use crate::Error;

/// A free port, held.
#[derive(Debug)]
pub(crate) struct Reserved {
    /// Holds the port until it is dropped.
    listener: TcpListener,
    port: u16,
}

impl Reserved {
    /// Finds a free port and holds it.
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

    /// Lets go of the port: its user starts now.
    pub(crate) fn release(self) {
        drop(self.listener);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_held_until_released() {
        let reserved = Reserved::any().unwrap();
        let port = reserved.port();
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err());
        reserved.release();
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}
