//! What the tests share: a warden, shell scripts as workers, and waiting for a state.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use evener_supervisor::output::{Capture, Stream};
use evener_supervisor::{Exit, Process, Spawn, Warden};

/// Long enough that only a fault takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn toy(mode: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evener-supervisor-toy"));
    command.arg(mode);
    command
}

pub(crate) fn warden() -> Warden {
    Warden::start(toy("warden")).unwrap()
}

pub(crate) fn shell(script: &str) -> Spawn {
    Spawn {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("PATH".into(), std::env::var_os("PATH").unwrap())],
        cwd: "/".into(),
        memory: None,
    }
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen in time"),
    }
}

pub(crate) async fn exit(process: &mut Process) -> Exit {
    within("an exit", &mut process.exit).await.unwrap()
}

/// Everything that a process prints, line by line, and how it ends.
pub(crate) async fn output(process: Process) -> (Vec<String>, Vec<String>, Exit) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut capture = Capture::new(process.stdout, process.stderr).unwrap();
    while !capture.is_closed() {
        within("more output", capture.readable()).await.unwrap();
        capture.drain(&mut |_, _| false, &mut |stream, line, _| match stream {
            Stream::Stdout => out.push(line.to_owned()),
            Stream::Stderr => err.push(line.to_owned()),
        });
    }
    (out, err, within("an exit", process.exit).await.unwrap())
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "{what} did not happen in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a process runs: it is there, and no mere entry that nobody has reaped.
pub(crate) fn runs(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
    !matches!(state, Some('Z' | 'X'))
}

/// How many descriptors this process has.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A folder for one test, which goes with it.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Waits for a process to write its number into a file, whole.
    pub(crate) fn number(&self, name: &str) -> u32 {
        let mut number = None;
        until(&format!("a number in {name}"), || {
            let text = std::fs::read_to_string(self.file(name)).unwrap_or_default();
            number = text.strip_suffix('\n').and_then(|text| text.trim().parse().ok());
            number.is_some()
        });
        number.unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits for the end of a pipe or socket.
pub(crate) fn read_all(fd: OwnedFd) -> String {
    let mut text = String::new();
    std::fs::File::from(fd).read_to_string(&mut text).unwrap();
    text
}
