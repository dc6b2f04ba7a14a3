//! Nodes as separate processes, as a person runs them: the `postern` binary, its files and its API, nothing inside.
//!
//! Contacts 127.0.0.1 only. Every process is ended by its handle when its [`NodeProcess`] is dropped, also on a panic.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

/// Ids of the processes that run, for a program that must go without unwinding.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Ends every node process that this program started and has not waited for yet, by its id.
pub fn end_all() {
    for pid in RUNNING.lock().iter() {
        // One that has just ended is not waited for yet, so its id is still its own.
        let _ = Command::new("kill")
            .arg("-KILL")
            .arg(pid.to_string())
            .status();
    }
}

fn note_running(pid: u32, runs: bool) {
    let mut running = RUNNING.lock();
    if runs {
        running.insert(pid);
    } else {
        running.remove(&pid);
    }
}

/// How often a condition is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A node's folder and, while it runs, its process.
pub struct NodeProcess {
    pub name: String,
    pub folder: PathBuf,
    binary: PathBuf,
    passphrase: PathBuf,
    child: Option<Child>,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl NodeProcess {
    /// `postern init`, then the given config in the place of the default one.
    pub fn init(binary: &Path, parent: &Path, name: &str, config: &str) -> Self {
        let folder = parent.join(name.to_lowercase());
        let passphrase = parent.join(format!("{}.passphrase", name.to_lowercase()));
        fs::write(&passphrase, "a passphrase for a demonstration\n").unwrap();
        set_mode(&passphrase, 0o600);
        let output = Command::new(binary)
            .args(["init", "--name", name, "--passphrase-file"])
            .arg(&passphrase)
            .arg(&folder)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "init failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        fs::write(folder.join("postern.toml"), config).unwrap();
        Self {
            name: name.to_owned(),
            folder,
            binary: binary.to_owned(),
            passphrase,
            child: None,
        }
    }

    /// A folder with a node in it that somebody else made.
    pub fn over(binary: &Path, name: &str, folder: &Path, passphrase: &Path) -> Self {
        Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            binary: binary.to_owned(),
            passphrase: passphrase.to_owned(),
            child: None,
        }
    }

    /// Another folder with a node in it, of the same program and passphrase.
    pub fn at(other: &Self, folder: &Path) -> Self {
        Self {
            name: format!("{} again", other.name),
            folder: folder.to_owned(),
            binary: other.binary.clone(),
            passphrase: other.passphrase.clone(),
            child: None,
        }
    }

    pub fn config(&self) -> PathBuf {
        self.folder.join("postern.toml")
    }

    pub fn passphrase(&self) -> &Path {
        &self.passphrase
    }

    pub fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// `postern run`, and waits for its API.
    pub fn start(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let child = Command::new(&self.binary)
            .args(["run", "--config"])
            .arg(self.config())
            .arg("--passphrase-file")
            .arg(&self.passphrase)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        // One left from a process that was killed would lead nowhere.
        let _ = fs::remove_file(self.folder.join("api.addr"));
        note_running(child.id(), true);
        self.child = Some(child);
        self.until("its API answers", Duration::from_secs(60), |node| {
            node.try_api("GET", "/healthz", None)
                .filter(|answer| answer.status == 200)
                .map(drop)
        });
    }

    /// The process's id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// SIGKILL: no chance to tidy up.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            note_running(child.id(), false);
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and waits for a clean end.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        note_running(child.id(), false);
        let told = Command::new("kill")
            .arg("-TERM")
            .arg(child.id().to_string())
            .status()
            .unwrap();
        assert!(told.success());
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(
                    status.success(),
                    "{} ended with {status}: {}",
                    self.name,
                    self.last_log()
                );
                return;
            }
            if begun.elapsed() > Duration::from_secs(30) {
                child.kill().unwrap();
                panic!(
                    "{} did not stop within 30 s: {}",
                    self.name,
                    self.last_log()
                );
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// Looks until `condition` gives something, and says what was waited for if it never does.
    pub fn until<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = condition(self) {
                return found;
            }
            let ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().unwrap());
            if let Some(status) = ended {
                panic!(
                    "{} ended with {status} while waiting until {what}: {}",
                    self.name,
                    self.last_log()
                );
            }
            assert!(
                begun.elapsed() < deadline,
                "{}: not within {deadline:?}: {what}; {}",
                self.name,
                self.last_log()
            );
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    fn last_log(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// A request to the node's API with the operator's token.
    pub fn api(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.try_api(method, path, body)
            .unwrap_or_else(|| panic!("{}: its API does not answer", self.name))
    }

    /// A request that must succeed.
    pub fn get(&self, path: &str) -> Value {
        self.expect_ok("GET", path, None)
    }

    /// A request that must succeed.
    pub fn post(&self, path: &str, body: Value) -> Value {
        self.expect_ok("POST", path, Some(body))
    }

    fn expect_ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let answer = self.api(method, path, body);
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        answer.body
    }

    fn try_api(&self, method: &str, path: &str, body: Option<Value>) -> Option<Answer> {
        let address: SocketAddr = fs::read_to_string(self.folder.join("api.addr"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let token = fs::read_to_string(self.folder.join("api.token")).ok()?;
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let mut stream = TcpStream::connect(address).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(180)))
            .ok()?;
        let (token, length) = (token.trim(), body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let body = if head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked")
        {
            unchunk(body)
        } else {
            body.to_owned()
        };
        Some(Answer {
            status,
            body: serde_json::from_str(&body).unwrap_or(json!(body)),
        })
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; either way nothing is left behind.
            let _ = child.kill();
            note_running(child.id(), false);
            let _ = child.wait();
        }
    }
}

fn unchunk(mut text: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = text.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        if length == 0 {
            break;
        }
        whole.push_str(&rest[..length]);
        text = rest[length..].trim_start_matches("\r\n");
    }
    whole
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
