//! Starting one process: what it inherits, what it does not, and why a start failed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::Access;
use rustix::process::{Pid, Resource, Rlimit};

use super::wire::{At, Failure, Order};

/// Where a worker finds its socket.
const SOCKET: RawFd = 3;

/// The descriptors of a worker: its socket or its stdin, its stdout, its stderr.
pub(super) struct Ends {
    pub(super) first: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Starts a process and says its number.
pub(super) fn start(order: Order, ends: Ends) -> Result<Pid, Failure> {
    let program = OsString::from(order.program);
    let cwd = PathBuf::from(OsString::from(order.cwd));
    let env: Vec<(OsString, OsString)> =
        order.env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let path = env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());

    let mut command = Command::new(&program);
    command
        .args(order.args.into_iter().map(OsString::from))
        .env_clear()
        .envs(env)
        .current_dir(&cwd)
        .stdout(ends.stdout)
        .stderr(ends.stderr)
        .process_group(0);
    // Kept open until the process is on its way.
    let mut socket = None;
    match order.stdin {
        true => command.stdin(ends.first),
        false => {
            socket = Some(ends.first);
            command.stdin(Stdio::null())
        }
    };
    before_exec(&mut command, socket.as_ref().map(AsRawFd::as_raw_fd), order.memory);
    match command.spawn() {
        Ok(child) => Ok(Pid::from_child(&child)),
        Err(error) => Err(explain(&program, &cwd, path.as_deref(), &error)),
    }
}

#[allow(unsafe_code)]
fn before_exec(command: &mut Command, socket: Option<RawFd>, memory: Option<u64>) {
    let warden = rustix::process::getpid();
    // SAFETY: the closure only makes system calls that are safe between fork and exec; it neither
    // allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || become_worker(socket, warden, memory));
    }
}

/// Runs in the new process, before it becomes the worker's program.
fn become_worker(socket: Option<RawFd>, warden: Pid, memory: Option<u64>) -> io::Result<()> {
    reset_signals();
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // The warden may have died before the line above: then nobody would send that signal.
    if rustix::process::getppid() != Some(warden) {
        return Err(rustix::io::Errno::SRCH.into());
    }
    if let Some(socket) = socket {
        move_to_socket(socket)?;
    }
    #[cfg(target_os = "linux")]
    super::reap::close_on_exec_from(if socket.is_some() { SOCKET + 1 } else { SOCKET });
    if let Some(bytes) = memory {
        let hard = rustix::process::getrlimit(Resource::As).maximum;
        let limit = Some(hard.map_or(bytes, |hard| hard.min(bytes)));
        rustix::process::setrlimit(Resource::As, Rlimit { current: limit, maximum: limit })?;
    }
    Ok(())
}

/// Default dispositions and an empty mask: what the warden ignores, a worker must not.
#[allow(unsafe_code)]
fn reset_signals() {
    // SAFETY: plain system calls on local memory. Signals that cannot be set (SIGKILL, SIGSTOP and
    // the two that libc keeps for itself) answer with an error, which means nothing here.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Puts the worker's socket where the worker looks for it, over the copy of the warden's own.
#[allow(unsafe_code)]
fn move_to_socket(socket: RawFd) -> io::Result<()> {
    // SAFETY: both numbers are plain descriptors of this process, and nothing in it owns number 3
    // any more: the process is about to become another program.
    if unsafe { libc::dup2(socket, SOCKET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Why a process did not start. The kernel only gives a number, which means the folder as easily
/// as the program, so this looks for itself.
fn explain(program: &OsStr, cwd: &Path, path: Option<&OsStr>, error: &io::Error) -> Failure {
    let errno = error.raw_os_error();
    if let Some(reason) = folder_trouble(cwd) {
        return Failure { at: At::Folder, reason, errno };
    }
    let name = Path::new(program);
    let shown = name.display();
    let (at, reason) = match errno.map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::TOOBIG) => {
            (At::System, "its arguments and environment together are too large".to_owned())
        }
        Some(rustix::io::Errno::AGAIN) => {
            (At::System, "no more processes are allowed for this user (ulimit -u)".to_owned())
        }
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::ACCESS) => {
            let reason = if name.components().count() > 1 || name.is_absolute() {
                program_trouble(&cwd.join(name))
            } else {
                not_on_path(name, path)
            };
            (At::Program, reason)
        }
        Some(rustix::io::Errno::NOEXEC) => (At::Program, "it is no program that this machine can run".to_owned()),
        _ => (At::System, error.to_string()),
    };
    Failure { at, reason: format!("cannot start `{shown}`: {reason}"), errno }
}

fn folder_trouble(cwd: &Path) -> Option<String> {
    let trouble = match std::fs::metadata(cwd) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => "it does not exist".to_owned(),
        Err(error) => error.to_string(),
        Ok(found) if !found.is_dir() => "it is not a folder".to_owned(),
        Ok(_) => match rustix::fs::access(cwd, Access::EXEC_OK) {
            Err(_) => "this user may not enter it".to_owned(),
            Ok(()) => return None,
        },
    };
    Some(format!("cannot start a process in the folder {}: {trouble}", cwd.display()))
}

fn program_trouble(file: &Path) -> String {
    let shown = file.display();
    match std::fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("{shown} does not exist"),
        Err(error) => format!("{shown}: {error}"),
        Ok(found) if found.is_dir() => format!("{shown} is a folder"),
        Ok(_) if rustix::fs::access(file, Access::EXEC_OK).is_err() => {
            format!("{shown} is not executable (chmod +x makes it so)")
        }
        Ok(_) => format!("{shown} is there, but the interpreter that its first line names is not"),
    }
}

fn not_on_path(name: &Path, path: Option<&OsStr>) -> String {
    let found = path
        .map(|path| std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| file.exists()))
        .unwrap_or_default();
    match (found, path) {
        (Some(file), _) => program_trouble(&file),
        (None, Some(path)) => format!("no such program on the PATH ({})", path.display()),
        (None, None) => "no such program, and its environment has no PATH".to_owned(),
    }
}
