//! Starts the whole network and waits for a consensus that clients can use.
//!
//! Nodes are owned by value from the moment they run. An error, a panic or a dropped future
//! therefore ends the nodes that were started. Invariant: a [`Testnet`] exists only when every node
//! holds a consensus that lists every node as usable.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    Error, authority,
    consensus::usable_relays,
    node::{COMMON_LINES, Node, Plan, VOTING_INTERVAL},
};

/// Parameters of a network.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder for the nodes' folders; it must be absent or empty and is kept afterwards. `None`
    /// means a temporary folder.
    pub dir: Option<PathBuf>,
    /// Traffic limit of each relay per second, in the syntax of torrc ("1 MB"; at least 75 KB).
    /// `None` means no limit.
    pub bandwidth: Option<String>,
    /// Time limit of the start. The default is 180 s; a start usually takes 15 to 45 s.
    pub deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: None,
            bandwidth: None,
            deadline: Duration::from_secs(180),
        }
    }
}

/// A running private Tor network. Dropping it ends its processes.
#[derive(Debug)]
pub struct Testnet {
    // Declared before `_temporary`, so that the processes end before their folders are removed.
    nodes: Vec<Node>,
    client_toml: String,
    dir: PathBuf,
    _temporary: Option<TempDir>,
}

impl Testnet {
    /// Starts a network and waits until clients can use it.
    ///
    /// # Errors
    /// Returns [`Error`] when a program is missing or fails, or at the deadline.
    pub async fn start(options: Options) -> Result<Self, Error> {
        Self::start_reporting(options, |_| {}).await
    }

    /// Starts a network as [`Testnet::start`] does and reports each step to `progress` as one line.
    ///
    /// # Errors
    /// Returns [`Error`] when a program is missing or fails, or at the deadline.
    pub async fn start_reporting(
        options: Options,
        mut progress: impl FnMut(&str),
    ) -> Result<Self, Error> {
        let started = Instant::now();
        let network_lines = bandwidth_lines(options.bandwidth.as_deref())?;
        let (dir, temporary) = match options.dir {
            Some(dir) => (prepare(&dir)?, None),
            None => {
                let temporary = tempfile::Builder::new().prefix("testnet-").tempdir();
                let temporary = temporary.map_err(Error::io("create a temporary folder"))?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let mut attempt = 1;
        loop {
            let nodes_dir = dir.join(format!("nodes-{attempt}"));
            create(&nodes_dir)?;
            match start_nodes(
                &nodes_dir,
                &network_lines,
                started,
                options.deadline,
                &mut progress,
            )
            .await
            {
                Ok((nodes, client_toml)) => {
                    return Ok(Self {
                        nodes,
                        client_toml,
                        dir,
                        _temporary: temporary,
                    });
                }
                Err(Error::PortTaken { node }) if attempt < ATTEMPTS => {
                    progress(&format!(
                        "{node}: another process took a port; starting again with other ports"
                    ));
                }
                Err(error) => return Err(error),
            }
            attempt += 1;
        }
    }

    /// Returns arti's client configuration for this network: the content of a node's `[tor]` table,
    /// without `[storage]`. The only host in it is 127.0.0.1.
    pub fn client_toml(&self) -> &str {
        &self.client_toml
    }

    /// Returns the folder of the nodes' folders and logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the process ids of all nodes.
    pub fn process_ids(&self) -> Vec<u32> {
        self.nodes.iter().map(Node::process_id).collect()
    }
}

/// Plans and starts all nodes, and waits until the consensus is usable.
async fn start_nodes(
    dir: &Path,
    network_lines: &str,
    started: Instant,
    deadline: Duration,
    progress: &mut impl FnMut(&str),
) -> Result<(Vec<Node>, String), Error> {
    progress("making the authorities' keys");
    let mut plans = Vec::new();
    for n in 1..=AUTHORITIES {
        plans.push(Plan::new(dir, format!("auth{n}"))?);
    }
    for plan in &mut plans {
        authority::equip(plan).await?;
    }
    for n in 1..=RELAYS {
        plans.push(Plan::new(dir, format!("relay{n}"))?);
    }
    let mut network_lines = format!("{COMMON_LINES}{network_lines}");
    for line in plans.iter().filter_map(Plan::dir_authority_line) {
        network_lines.push_str(&line);
        network_lines.push('\n');
    }
    let client_toml = client_toml(&plans);
    network_lines.push_str(&first_consensus_line());

    progress(&format!(
        "starting {AUTHORITIES} authorities and {RELAYS} relays"
    ));
    let mut nodes = Vec::new();
    for plan in plans {
        nodes.push(plan.start(&network_lines)?);
    }
    wait_until_usable(&mut nodes, started, deadline, progress).await?;
    Ok((nodes, client_toml))
}

/// Waits until every node holds a consensus that lists every node as usable.
async fn wait_until_usable(
    nodes: &mut [Node],
    started: Instant,
    deadline: Duration,
    progress: &mut impl FnMut(&str),
) -> Result<(), Error> {
    let mut reported = String::new();
    let mut fetched = Instant::now();
    loop {
        for node in nodes.iter_mut() {
            node.check()?;
        }
        let (authorities, relays): (Vec<&Node>, Vec<&Node>) =
            nodes.iter().partition(|node| node.is_authority);
        let missing = match lacks(&authorities, nodes) {
            Some(missing) => missing,
            None => match lacks(&relays, nodes) {
                None => return Ok(()),
                Some(missing) => {
                    if fetched.elapsed() >= FETCH_INTERVAL {
                        relays.iter().for_each(|relay| relay.fetch_now());
                        fetched = Instant::now();
                    }
                    missing
                }
            },
        };
        let waited = started.elapsed();
        if waited >= deadline {
            return Err(Error::NotReady { waited, missing });
        }
        if missing != reported {
            progress(&format!("waiting: {missing}"));
            reported = missing;
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Returns the `torrc` line that sets the time of the first consensus.
///
/// The authorities must know every node when they vote, 4 s before the consensus. A relay that
/// misses the vote waits for the next consensus. Tor counts voting intervals from midnight plus
/// this offset.
fn first_consensus_line() -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "Tor's voting schedule follows the system clock"
    )]
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let offset = (now + FIRST_CONSENSUS).as_secs() % VOTING_INTERVAL;
    format!("TestingV3AuthVotingStartOffset {offset}\n")
}

/// Describes the first defect in the consensuses of `holders`; `None` when each of them lists every
/// node as usable.
fn lacks(holders: &[&Node], nodes: &[Node]) -> Option<String> {
    let wanted: BTreeSet<&str> = nodes.iter().map(|node| node.nickname.as_str()).collect();
    for node in holders {
        let consensus = node.consensus();
        if consensus.is_empty() {
            return Some(format!("{} has no consensus yet", node.nickname));
        }
        let usable = usable_relays(&consensus);
        let absent: Vec<&str> = wanted.difference(&usable).copied().collect();
        if !absent.is_empty() {
            return Some(format!(
                "the consensus of {} lacks {}",
                node.nickname,
                absent.join(", ")
            ));
        }
    }
    None
}

/// Returns arti's client configuration for this network, as TOML.
fn client_toml(plans: &[Plan]) -> String {
    let mut caches = String::new();
    let mut v3idents = Vec::new();
    for plan in plans {
        let Some(authority) = &plan.authority else {
            continue;
        };
        v3idents.push(format!("{:?}", authority.v3ident));
        // Writing to a String cannot fail.
        let _ = writeln!(
            caches,
            "  {{ rsa_identity = {:?}, ed_identity = {:?}, orports = [\"127.0.0.1:{}\"] }},",
            authority.fingerprints.rsa,
            authority.fingerprints.ed25519,
            plan.or_port.port(),
        );
    }
    format!(
        "{CLIENT_LINES}\n\
         [tor_network]\n\
         fallback_caches = [\n{caches}]\n\n\
         [tor_network.authorities]\n\
         v3idents = [{}]\n\
         uploads = []\n\
         downloads = []\n\
         votes = []\n",
        v3idents.join(", ")
    )
}

/// Creates the folder if it is absent and returns its absolute path.
///
/// # Errors
/// Returns [`Error::NotEmpty`] when the folder has entries.
fn prepare(dir: &Path) -> Result<PathBuf, Error> {
    fs::create_dir_all(dir).map_err(Error::io(format!("create {}", dir.display())))?;
    let mut entries = fs::read_dir(dir).map_err(Error::io(format!("read {}", dir.display())))?;
    if entries.next().is_some() {
        return Err(Error::NotEmpty(dir.to_owned()));
    }
    fs::canonicalize(dir).map_err(Error::io(format!("find {}", dir.display())))
}

fn create(dir: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(dir)
        .map_err(Error::io(format!("create {}", dir.display())))
}

/// Returns the `torrc` lines of a bandwidth limit.
///
/// The syntax is checked, so that the value cannot add other options to the file.
fn bandwidth_lines(bandwidth: Option<&str>) -> Result<String, Error> {
    let Some(rate) = bandwidth else {
        return Ok(String::new());
    };
    let digits = rate.trim_start_matches(|c: char| c.is_ascii_digit());
    let unit = digits.strip_prefix(' ').unwrap_or(digits);
    if digits.len() == rate.len()
        || rate.len() > 40
        || !unit.chars().all(|c| c.is_ascii_alphabetic())
    {
        return Err(Error::BadBandwidth(rate.to_owned()));
    }
    Ok(format!("BandwidthRate {rate}\nBandwidthBurst {rate}\n"))
}

const AUTHORITIES: usize = 3;
const RELAYS: usize = 6;

/// Number of attempts when another process takes a reserved port.
const ATTEMPTS: usize = 5;

/// Time from the start of the processes to the first consensus.
const FIRST_CONSENSUS: Duration = Duration::from_secs(12);

/// Time between two checks of the nodes' consensuses.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Time between two rounds of SIGHUP, which makes the relays fetch the consensus.
const FETCH_INTERVAL: Duration = Duration::from_secs(2);

/// Prefix lengths of 33 and 129 bits switch off the subnet rule of arti, because all relays share
/// one address. A missing descriptor is requested again after 5 s, because tests start their
/// services at any time.
const CLIENT_LINES: &str = "\
[path_rules]
ipv4_subnet_family_prefix = 33
ipv6_subnet_family_prefix = 129

[address_filter]
allow_local_addrs = true

[circuit_timing]
hs_dir_requery_interval = \"5 seconds\"
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_accepts_only_the_torrc_syntax() {
        assert_eq!(bandwidth_lines(None).unwrap(), "");
        assert_eq!(
            bandwidth_lines(Some("1 MB")).unwrap(),
            "BandwidthRate 1 MB\nBandwidthBurst 1 MB\n"
        );
        for good in ["100000", "1 MBytes", "80KB"] {
            assert!(bandwidth_lines(Some(good)).is_ok(), "{good}");
        }
        for bad in ["", "MB", "1 MB\nExitRelay 1", "-1 MB", "1.5 MB", "1  MB"] {
            assert!(bandwidth_lines(Some(bad)).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn start_refuses_a_non_empty_folder() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "content").unwrap();
        let options = Options {
            dir: Some(dir.path().to_owned()),
            ..Options::default()
        };
        let error = Testnet::start(options).await.unwrap_err();
        assert!(matches!(error, Error::NotEmpty(_)), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
