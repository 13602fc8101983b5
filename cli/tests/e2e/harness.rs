//! What end-to-end tests are made of: machines (a home folder and a program), networks, trees, and waits with an end.
//! Every object that `--json` prints is held against `docs/operating/json.md`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest that one command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine: a home folder of its own.
pub struct Machine {
    dir: tempfile::TempDir,
}

/// How a command went.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    /// Expects success.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Expects a failure with this exit code whose text holds these parts.
    #[track_caller]
    pub fn fails(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "no '{part}' in {}", self.stderr);
        }
        self
    }
}

impl Machine {
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("tallow-e2e-").tempdir().expect("temporary folder") }
    }

    /// A place on it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program with this machine's home, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallow"));
        command.arg("--home").arg(self.path("home")).args(args).current_dir(self.dir.path());
        command.env("TMPDIR", self.dir.path()).env_remove("XDG_STATE_HOME");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args).spawn().expect("starts"))
    }

    /// Runs a command that reads this.
    #[track_caller]
    pub fn feed(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().expect("starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        // A program that does not want all of it closes the pipe; its exit code tells.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let ran = finish(child);
        feeder.join().expect("ends");
        ran
    }

    /// Runs a command that succeeds and prints one object.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = self.jsons(args);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// Runs a command that succeeds and prints objects.
    #[track_caller]
    pub fn jsons(&self, args: &[&str]) -> Vec<Value> {
        let ran = self.run(&[&["--json"], args].concat()).ok();
        assert_eq!(ran.stderr, "", "with --json nothing but errors goes there");
        objects(&ran.stdout)
    }
}

/// The objects in the output of a command, each as the documents say.
pub fn objects(output: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(output).expect("UTF-8");
    text.lines().map(|line| documented(serde_json::from_str(line).expect("one object a line"))).collect()
}

/// Checks an object against the page that describes it.
fn documented(object: Value) -> Value {
    let page = include_str!("../../../docs/operating/json.md");
    let kind = object["type"].as_str().expect("has a type");
    let section = page.split("\n## ").find(|section| section.lines().next() == Some(kind));
    let section = section.unwrap_or_else(|| panic!("docs/operating/json.md lacks the type {kind}"));
    for field in object.as_object().expect("an object").keys().filter(|field| *field != "type") {
        assert!(section.contains(&format!("`{field}`")), "docs/operating/json.md lacks {field} of {kind}");
    }
    object
}

/// Waits for a process with an end.
#[track_caller]
pub fn finish(child: Child) -> Ran {
    let pid = Pid::from_child(&child);
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || drop(tell.send(child.wait_with_output())));
    let output = told.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ = kill_process(pid, Signal::KILL);
        panic!("a command took longer than {PATIENCE:?}")
    });
    let output = output.expect("its output can be read");
    Ran {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into(),
    }
}

/// The objects that a running program prints, as they come.
pub struct Told {
    lines: mpsc::Receiver<String>,
}

impl Told {
    /// By this program, whose output is a pipe.
    pub fn by(child: &mut Child) -> Self {
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The test may have heard enough.
                let _ = tell.send(line);
            }
        });
        Self { lines }
    }

    /// The next one.
    #[track_caller]
    pub fn next(&self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE).expect("the program tells something in time");
        objects(line.as_bytes()).remove(0)
    }
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < until, "never happened: {what}");
        // Looks again soon, and leaves the processor to those who make it so.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Whether a process runs that is one of ours: its command line names this folder. A number alone may be reused.
pub fn runs(pid: u64, dir: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains(&*dir.to_string_lossy())
}

/// Sends a signal.
pub fn send(pid: u64, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("not 0");
    kill_process(pid, signal).expect("is there");
}

/// A development network that goes down with its test.
pub struct Net<'a> {
    machine: &'a Machine,
    pub dir: PathBuf,
    pub up: Value,
}

impl<'a> Net<'a> {
    /// Small: 5 seeders, 2 of which are enough.
    pub fn up(machine: &'a Machine) -> Self {
        Self::up_with(machine, &["--seeders", "5", "--profile", "2/5"])
    }

    pub fn up_with(machine: &'a Machine, more: &[&str]) -> Self {
        let dir = machine.path("net");
        let place = dir.to_str().expect("UTF-8").to_owned();
        // Before it is up, so that a failure in between takes it down too.
        let mut net = Self { machine, dir, up: Value::Null };
        net.up = machine.json(&[&["dev", "up", "--dir", &place], more].concat());
        net
    }

    /// The network string.
    pub fn string(&self) -> String {
        self.up["network"].as_str().expect("a text").to_owned()
    }

    pub fn status(&self) -> Value {
        self.machine.json(&["dev", "status", "--dir", self.dir.to_str().expect("UTF-8")])
    }

    /// Process ids: the supervisor's, then the nodes'.
    pub fn pids(&self) -> Vec<u64> {
        let status = self.status();
        let nodes = status["nodes"].as_array().expect("a list").clone();
        let all =
            std::iter::once(status["pid"].clone()).chain(nodes.into_iter().map(|node| node["pid"].clone()));
        all.map(|pid| pid.as_u64().expect("a number")).collect()
    }

    pub fn down(&self) {
        self.machine.run(&["dev", "down", "--dir", self.dir.to_str().expect("UTF-8")]).ok();
    }
}

impl Drop for Net<'_> {
    fn drop(&mut self) {
        let down = self.machine.command(&["dev", "down", "--dir"]).arg(&self.dir).status();
        if !std::thread::panicking() {
            assert!(down.is_ok_and(|status| status.success()), "the network did not go down");
        }
    }
}

/// Bytes that don't compress, the same for the same seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// A small tree with everything in it: sizes around the edges, folders, links, modes.
pub fn plant_tree(root: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(root.join("deep/er")).expect("makes");
    std::fs::create_dir(root.join("empty folder")).expect("makes");
    let files: [(&str, Vec<u8>); 6] = [
        ("nothing", Vec::new()),
        ("inline.txt", b"a short letter".to_vec()),
        ("deep/small", noise(5_000, 1)),
        ("deep/er/text", b"all work and no play makes a dull page\n".repeat(20_000)),
        ("deep/er/large.bin", noise(2_500_000, 2)),
        ("deep/\u{e9}t\u{e9}", noise(1_025, 3)),
    ];
    for (name, bytes) in files {
        std::fs::write(root.join(name), bytes).expect("writes");
    }
    std::os::unix::fs::symlink("deep/small", root.join("link")).expect("links");
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(root.join("inline.txt"), mode).expect("sets");
}

/// Everything below a root that a restore must bring back: kind, mode, bytes or target, by path.
pub fn snapshot(root: &Path) -> Vec<(PathBuf, String, Vec<u8>)> {
    use std::os::unix::fs::PermissionsExt as _;
    fn add(root: &Path, path: &Path, out: &mut Vec<(PathBuf, String, Vec<u8>)>) {
        let meta = path.symlink_metadata().expect("is there");
        let relative = path.strip_prefix(root).expect("inside").to_owned();
        let mode = meta.permissions().mode() & 0o777;
        if meta.is_symlink() {
            let target = std::fs::read_link(path).expect("reads");
            out.push((relative, "link".into(), target.into_os_string().into_encoded_bytes()));
        } else if meta.is_dir() {
            out.push((relative, format!("folder {mode:o}"), Vec::new()));
            for entry in std::fs::read_dir(path).expect("lists") {
                add(root, &entry.expect("lists").path(), out);
            }
        } else {
            out.push((relative, format!("file {mode:o}"), std::fs::read(path).expect("reads")));
        }
    }
    let mut out = Vec::new();
    add(root, root, &mut out);
    out.sort();
    out
}
