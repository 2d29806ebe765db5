//! Seeing children end, and ending them.

use std::io;
use std::mem::MaybeUninit;

use rustix::process::{Pid, Signal};

use super::wire::Exit;
use crate::certificate::How;

/// Whether to wait for a child to end, or only to look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Look,
    Wait,
}

/// What is known about the children of this process.
pub(super) enum Children {
    /// This one has ended and still keeps its number: it is not reaped yet.
    Ended(Pid),
    /// There are some, and they all live.
    Living,
    /// There are none.
    None,
}

/// Looks for a child that has ended, without reaping it. As long as it is not reaped, no other
/// process can get its number, so its group can still be killed safely.
#[allow(unsafe_code)]
pub(super) fn ended(patience: Patience) -> Children {
    let mut options = libc::WEXITED | libc::WNOWAIT;
    if patience == Patience::Look {
        options |= libc::WNOHANG;
    }
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: `info` is memory for one siginfo_t, which all zeros is a valid value of; the
        // fields of a child's end are what waitid fills in.
        let (result, pid) = unsafe {
            let result = libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options);
            (result, info.assume_init().si_pid())
        };
        if result == 0 {
            return Pid::from_raw(pid).map_or(Children::Living, Children::Ended);
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return Children::None;
        }
    }
}

/// Reaps a child that has ended, and says how it did.
#[allow(unsafe_code)]
pub(super) fn collect(pid: Pid) -> Exit {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `status` and `usage` are memory for what wait4 fills in, and zeros are valid in both.
    let (result, usage) = unsafe {
        let result = libc::wait4(pid.as_raw_pid(), &mut status, 0, usage.as_mut_ptr());
        (result, usage.assume_init())
    };
    if result != pid.as_raw_pid() {
        return Exit::unknown();
    }
    let how = if libc::WIFSIGNALED(status) {
        How::Signal(libc::WTERMSIG(status))
    } else {
        How::Code(libc::WEXITSTATUS(status))
    };
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Exit {
        how,
        peak_rss: u64::try_from(usage.ru_maxrss).ok().map(|size| size * unit),
        core_dumped: libc::WIFSIGNALED(status) && libc::WCOREDUMP(status),
    }
}

/// Sends a signal to a worker that is not reaped and to the group that it was given at its start, which it may have left: the
/// group that it is in then is not its own, and may be this process's. It gets the signal once.
pub(super) fn signal_with_group(worker: Pid, signal: Signal) -> rustix::io::Result<()> {
    let group = rustix::process::kill_process_group(worker, signal);
    match rustix::process::getpgid(Some(worker)) {
        Ok(its) if its == worker => group,
        _ => rustix::process::kill_process(worker, signal),
    }
}

/// Kills what is in the group of a worker. That the group is already empty is no error.
pub(super) fn kill_group(leader: Pid) {
    let _ = rustix::process::kill_process_group(leader, Signal::KILL);
}

/// Kills every child of this process, and says how many could be. On Linux that includes orphans
/// that came to this process because their own parents are gone.
pub(super) fn kill_children(known: impl Iterator<Item = Pid>) -> usize {
    let children = children().unwrap_or_else(|| known.collect());
    children.into_iter().filter(|&pid| rustix::process::kill_process(pid, Signal::KILL).is_ok()).count()
}

#[cfg(not(target_os = "linux"))]
fn children() -> Option<Vec<Pid>> {
    None
}

/// The children of this process, or None if the system does not say.
#[cfg(target_os = "linux")]
fn children() -> Option<Vec<Pid>> {
    let me = rustix::process::getpid();
    let number = |text: &str| text.parse().ok().and_then(Pid::from_raw);
    if let Ok(list) = std::fs::read_to_string(format!("/proc/self/task/{}/children", me.as_raw_pid())) {
        let children: Vec<Pid> = list.split_ascii_whitespace().filter_map(number).collect();
        if !children.is_empty() {
            return Some(children);
        }
    }
    // Not every kernel has that file, and it may miss a child while another one is ending.
    let all = std::fs::read_dir("/proc").ok()?;
    let numbers = all.filter_map(|entry| number(entry.ok()?.file_name().to_str()?));
    Some(numbers.filter(|&pid| parent(pid) == Some(me)).collect())
}

#[cfg(target_os = "linux")]
fn parent(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    // "pid (name) state parent …", where the name may hold anything, parentheses too.
    let after_name = stat.rsplitn(2, |&byte| byte == b')').next()?;
    let parent = std::str::from_utf8(after_name).ok()?.split_ascii_whitespace().nth(1)?;
    parent.parse().ok().and_then(Pid::from_raw)
}

/// Closes all descriptors from `first` on that this process was started with.
#[cfg(target_os = "linux")]
pub(super) fn close_from(first: i32) {
    if close_range(first, 0).is_ok() {
        return;
    }
    // Linux before 5.9: what the process has open is listed in a folder.
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> = open
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&number| number >= first)
        .collect();
    for number in numbers {
        close(number);
    }
}

/// Marks all descriptors from `first` on to be closed when the process becomes another program.
/// Kernels before 5.11 cannot, and need not: the warden itself opens nothing without that mark.
#[cfg(target_os = "linux")]
pub(super) fn close_on_exec_from(first: i32) {
    const CLOEXEC: libc::c_uint = 4;
    let _ = close_range(first, CLOEXEC);
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn close_range(first: i32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: a system call on numbers. (By number, because older C libraries lack the name.) The
    // warden calls it before it owns a descriptor, and a new worker when it is about to exec.
    match unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, libc::c_uint::MAX, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn close(number: i32) {
    // SAFETY: called before the warden owns a descriptor; a number that is not open is an error
    // that means nothing.
    unsafe {
        libc::close(number);
    }
}
