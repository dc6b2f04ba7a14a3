//! One `tor` process: its configuration, its start and its end.
//!
//! Invariant: the process does not outlive its [`Node`], which kills its child by handle when it is
//! dropped, also during a panic. After a SIGKILL of the owner, `__OwningControllerProcess` makes
//! `tor` exit by itself.

use std::{
    fmt::Write as _,
    fs,
    os::unix::{fs::DirBuilderExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, ports::Reserved};

/// The key fingerprints of a node, created before its first start.
#[derive(Debug, Clone)]
pub(crate) struct Fingerprints {
    /// 40 hex digits.
    pub(crate) rsa: String,
    /// Base64 without padding.
    pub(crate) ed25519: String,
}

/// The additional data of a directory authority.
#[derive(Debug)]
pub(crate) struct AuthorityPart {
    pub(crate) dir_port: Reserved,
    /// Fingerprint of the authority identity key, 40 hex digits.
    pub(crate) v3ident: String,
    pub(crate) fingerprints: Fingerprints,
}

/// A node that is not running yet: it has a folder and reserved ports.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) nickname: String,
    pub(crate) dir: PathBuf,
    pub(crate) or_port: Reserved,
    pub(crate) authority: Option<AuthorityPart>,
}

impl Plan {
    /// Creates the folder and reserves a port.
    pub(crate) fn new(network_dir: &Path, nickname: String) -> Result<Self, Error> {
        let dir = network_dir.join(&nickname);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(Error::io(format!("create {}", dir.display())))?;
        Ok(Self {
            nickname,
            dir,
            or_port: Reserved::any()?,
            authority: None,
        })
    }

    /// Returns the `DirAuthority` line for every node's `torrc`; `None` for a relay.
    pub(crate) fn dir_authority_line(&self) -> Option<String> {
        let authority = self.authority.as_ref()?;
        Some(format!(
            "DirAuthority {} orport={} no-v2 v3ident={} 127.0.0.1:{} {}",
            self.nickname,
            self.or_port.port(),
            authority.v3ident,
            authority.dir_port.port(),
            authority.fingerprints.rsa,
        ))
    }

    /// Returns the node's `torrc`. `network_lines` are the same for all nodes.
    fn torrc(&self, network_lines: &str) -> String {
        let mut torrc = format!(
            "# Written by `testnet`.\n\
             Nickname {nickname}\n\
             DataDirectory {dir:?}\n\
             Log notice stdout\n\
             __OwningControllerProcess {owner}\n\
             ORPort 127.0.0.1:{or_port} IPv4Only\n\
             {network_lines}",
            nickname = self.nickname,
            dir = self.dir,
            owner = std::process::id(),
            or_port = self.or_port.port(),
        );
        if let Some(authority) = &self.authority {
            // Writing to a String cannot fail.
            let _ = write!(
                torrc,
                "DirPort 127.0.0.1:{}\n{AUTHORITY_LINES}",
                authority.dir_port.port()
            );
        }
        torrc
    }

    /// Writes the `torrc`, releases the ports and starts the process.
    pub(crate) fn start(self, network_lines: &str) -> Result<Node, Error> {
        let torrc = self.dir.join("torrc");
        fs::write(&torrc, self.torrc(network_lines))
            .map_err(Error::io(format!("write {}", torrc.display())))?;
        let log = self.dir.join(LOG);
        let log = fs::File::create(&log).map_err(Error::io(format!("create {}", log.display())))?;
        let log_too = log.try_clone().map_err(Error::io("share a log"))?;
        self.or_port.release();
        let is_authority = self.authority.is_some();
        if let Some(authority) = self.authority {
            authority.dir_port.release();
        }
        let child = Command::new("tor")
            // Ignores the configuration of a Tor that is installed on this machine.
            .args(["--defaults-torrc", "/dev/null", "-f"])
            .arg(&torrc)
            .stdin(Stdio::null())
            // Not a `Log` line to a file, because `tor` reports `torrc` errors before it opens that
            // file.
            .stdout(log)
            .stderr(log_too)
            // A group of its own: Ctrl-C must not reach the nodes, because `Node` ends them.
            .process_group(0)
            .spawn()
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => Error::NotInstalled { program: "tor" },
                _ => Error::Io {
                    doing: "start tor".into(),
                    source,
                },
            })?;
        Ok(Node {
            nickname: self.nickname,
            is_authority,
            dir: self.dir,
            child,
        })
    }
}

/// A running node. Dropping it ends its process.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) nickname: String,
    pub(crate) is_authority: bool,
    dir: PathBuf,
    child: Child,
}

impl Node {
    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Returns an error when the process has exited.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        let ended = self
            .child
            .try_wait()
            .map_err(Error::io(format!("check {}", self.nickname)))?;
        if ended.is_none() {
            return Ok(());
        }
        let node = self.nickname.clone();
        let log = fs::read_to_string(self.dir.join(LOG)).unwrap_or_default();
        if log.contains("Address already in use") {
            return Err(Error::PortTaken { node });
        }
        let mut last: Vec<&str> = log.lines().rev().take(5).collect();
        last.reverse();
        Err(Error::Ended {
            node,
            log: last.join("\n"),
        })
    }

    /// Makes the node fetch the consensus now, because SIGHUP resets the backoff of failed
    /// downloads.
    pub(crate) fn fetch_now(&self) {
        // The child has not been reaped since `check`, so the kernel has not reused its id.
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(id) = id {
            let _ = kill_process(id, Signal::HUP);
        }
    }

    /// Returns the consensus that this node has cached; empty if there is none.
    pub(crate) fn consensus(&self) -> String {
        fs::read_to_string(self.dir.join("cached-microdesc-consensus")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A graceful stop is not necessary, because the data are discarded. Both calls fail only
        // when the process has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LOG: &str = "notice.log";

/// The part of `torrc` that all nodes share.
pub(crate) const COMMON_LINES: &str = "\
TestingTorNetwork 1
AssumeReachable 1
SocksPort 0
ExitRelay 0
Address 127.0.0.1
ContactInfo none
ShutdownWaitLength 0
PathsNeededToBuildCircuits 0.67
TestingDirAuthVoteExit *
TestingDirAuthVoteHSDir *
TestingDirAuthVoteGuard *
TestingMinExitFlagThreshold 0
V3AuthNIntervalsValid 2
ServerDNSDetectHijacking 0
";

/// Seconds between two consensuses. With `hsdir_interval` C tor and arti compute the same time
/// periods of onion services (24 x 75 s = 30 min).
pub(crate) const VOTING_INTERVAL: u64 = 75;

/// The part of `torrc` that only authorities have.
///
/// The two `cbt` parameters fix the timeout of a circuit at 5 s. By default clients wait 60 s until
/// they have measured 100 circuits. On loopback they then learn a timeout of about 30 ms, which is
/// too short on a busy machine.
const AUTHORITY_LINES: &str = "\
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
TestingV3AuthInitialVotingInterval 75
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
V3AuthVotingInterval 75
V3AuthVoteDelay 4
V3AuthDistDelay 4
ConsensusParams hsdir_interval=30 cbtinitialtimeout=5000 cbtmintimeout=5000
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relay_torrc_names_the_owner_process_and_no_authority_options() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::new(dir.path(), "relay1".into()).unwrap();
        assert_eq!(plan.dir_authority_line(), None);
        let torrc = plan.torrc("TestingTorNetwork 1\n");
        assert!(torrc.contains(&format!(
            "__OwningControllerProcess {}\n",
            std::process::id()
        )));
        assert!(!torrc.contains("AuthoritativeDirectory"));
        assert!(!torrc.contains("DirPort"));
    }

    #[test]
    fn dir_authority_line_contains_both_ports() {
        let dir = tempfile::tempdir().unwrap();
        let mut plan = Plan::new(dir.path(), "auth1".into()).unwrap();
        let dir_port = Reserved::any().unwrap();
        let ports = (plan.or_port.port(), dir_port.port());
        let fingerprints = Fingerprints {
            rsa: "AB".repeat(20),
            ed25519: "x".repeat(43),
        };
        plan.authority = Some(AuthorityPart {
            dir_port,
            v3ident: "CD".repeat(20),
            fingerprints,
        });
        let line = plan.dir_authority_line().unwrap();
        assert_eq!(
            line,
            format!(
                "DirAuthority auth1 orport={} no-v2 v3ident={} 127.0.0.1:{} {}",
                ports.0,
                "CD".repeat(20),
                ports.1,
                "AB".repeat(20)
            )
        );
        assert!(
            plan.torrc("")
                .contains(&format!("DirPort 127.0.0.1:{}\n", ports.1))
        );
    }
}
