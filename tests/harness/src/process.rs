//! Nodes as separate processes: the `postern` binary, its files and its API.
//!
//! Contacts 127.0.0.1 only. Dropping a [`NodeProcess`] ends its process, also on a panic.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use std::time::{Duration, Instant};

use keys::crash::CRASH_AT;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Ids of the running processes, for a program that exits without unwinding.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Ends every node process that this program started and has not yet waited for.
pub fn end_all() {
    for pid in RUNNING.lock().iter() {
        // The id still names that process, because the process was not waited for.
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

/// Interval at which a condition is checked again.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// A node's folder and, while it runs, its process.
pub struct NodeProcess {
    /// Name of the node's identity.
    pub name: String,
    /// The node's folder.
    pub folder: PathBuf,
    binary: PathBuf,
    passphrase: PathBuf,
    child: Option<Child>,
}

/// A reply of the API.
#[derive(Debug)]
pub struct PullReply {
    /// HTTP status.
    pub status: u16,
    /// The body as JSON, or as a JSON string if it is something else.
    pub body: Value,
}

impl NodeProcess {
    /// Runs `postern init`, and replaces the configuration.
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

    /// A node in an existing folder.
    pub fn over(binary: &Path, name: &str, folder: &Path, passphrase: &Path) -> Self {
        Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            binary: binary.to_owned(),
            passphrase: passphrase.to_owned(),
            child: None,
        }
    }

    /// A node in another folder, with the same program and passphrase.
    pub fn at(other: &Self, folder: &Path) -> Self {
        Self {
            name: format!("{} (copy)", other.name),
            folder: folder.to_owned(),
            binary: other.binary.clone(),
            passphrase: other.passphrase.clone(),
            child: None,
        }
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.join("postern.toml")
    }

    /// The file that holds the passphrase.
    pub fn passphrase(&self) -> &Path {
        &self.passphrase
    }

    /// The file that takes standard output and standard error of `postern run`.
    pub fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// Runs `postern run` and waits for its API.
    pub fn start(&mut self) {
        self.start_with(None);
    }

    /// Like [`Self::start`]. A debug build ends itself at the crash point of this name.
    pub fn start_crashing_at(&mut self, crash_point: &str) {
        self.start_with(Some(crash_point));
    }

    fn start_with(&mut self, crash_point: Option<&str>) {
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
            .envs(crash_point.map(|name| (CRASH_AT, name)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        // A killed process leaves its file behind.
        let _ = fs::remove_file(self.folder.join("api.addr"));
        note_running(child.id(), true);
        self.child = Some(child);
        self.until("the API answers", Duration::from_secs(60), |node| {
            node.try_api("GET", "/healthz", None)
                .filter(|answer| answer.status == 200)
                .map(drop)
        });
    }

    /// Runs a command of the program with the node's configuration. A line is split at spaces.
    pub fn command(&self, line: &str) -> Output {
        let mut command = Command::new(&self.binary);
        command.args(line.split(' ')).arg("--config");
        command.arg(self.config()).stdin(Stdio::null());
        command.output().unwrap()
    }

    /// Runs a command that must succeed. Returns what it prints.
    pub fn ok(&self, line: &str) -> String {
        let output = self.command(line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let name = &self.name;
        assert!(output.status.success(), "{name}: {line}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must succeed, and returns its JSON.
    pub fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{line} --json"))).unwrap()
    }

    /// Waits until what a command prints contains a text, and returns it.
    pub fn until_shown(&mut self, line: &str, text: &str, deadline: Duration) -> String {
        self.until(&format!("{line} shows {text}"), deadline, |node| {
            let shown = node.ok(line);
            shown.contains(text).then_some(shown)
        })
    }

    /// Id of the process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits until the process ended itself at a crash point.
    pub fn wait_for_crash(&mut self) {
        if let Some(mut child) = self.child.take() {
            let status = child.wait().unwrap();
            note_running(child.id(), false);
            assert!(!status.success(), "{}: {}", self.name, self.last_log());
        }
    }

    /// Ends the process with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            note_running(child.id(), false);
            child.wait().unwrap();
        }
    }

    /// Sends SIGTERM and waits for a successful exit.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        note_running(child.id(), false);
        let sent = Command::new("kill")
            .arg("-TERM")
            .arg(child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success());
        let started = Instant::now();
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
            if started.elapsed() > Duration::from_secs(30) {
                child.kill().unwrap();
                panic!(
                    "{} did not stop within 30 s: {}",
                    self.name,
                    self.last_log()
                );
            }
            std::thread::park_timeout(CHECK_INTERVAL);
        }
    }

    /// Waits until `condition` returns a value. Panics with `what` at the deadline or when the
    /// process ends.
    pub fn until<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        let started = Instant::now();
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
                started.elapsed() < deadline,
                "{}: not within {deadline:?}: {what}; {}",
                self.name,
                self.last_log()
            );
            std::thread::park_timeout(CHECK_INTERVAL);
        }
    }

    fn last_log(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Sends a request to the node's API with the operator's token.
    pub fn api(&self, method: &str, path: &str, body: Option<Value>) -> PullReply {
        self.try_api(method, path, body)
            .unwrap_or_else(|| panic!("{}: the API does not answer", self.name))
    }

    /// Sends a GET request, which must succeed. Returns the body.
    pub fn get(&self, path: &str) -> Value {
        self.expect_ok("GET", path, None)
    }

    /// Sends a POST request, which must succeed. Returns the body.
    pub fn post(&self, path: &str, body: Value) -> Value {
        self.expect_ok("POST", path, Some(body))
    }

    fn expect_ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let answer = self.api(method, path, body);
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        answer.body
    }

    /// Like [`Self::api`]. Returns `None` if the API does not answer, or if its reply is cut off in
    /// the head.
    pub fn try_api(&self, method: &str, path: &str, body: Option<Value>) -> Option<PullReply> {
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
             Content-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n"
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
        Some(PullReply {
            status,
            body: serde_json::from_str(&body).unwrap_or(json!(body)),
        })
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The process may have ended already.
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
