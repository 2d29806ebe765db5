//! A program in its other modes: the process that starts the workers, and those in which jq programs run, are the same program.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use evener_supervisor::warden::serve as serve_warden;

use crate::jq::workers::serve as jq_worker;

/// The one argument with which a node starts its program as the warden: not a command for people.
const WARDEN: &str = "warden";

/// Serves as the warden, or as a worker for jq programs, if this program was started for that, and says with what to exit. A program
/// that embeds the node calls it first thing in `main`.
pub fn serve_if_warden() -> Option<ExitCode> {
    let is = |mode: &str| std::env::args_os().skip(1).eq([mode]);
    if is(WARDEN) {
        return Some(serve_warden());
    }
    is(jq_worker::ARGUMENT).then(jq_worker::serve)
}

/// This very program, in the mode that starts workers. Its `main` begins with [`serve_if_warden`].
pub fn this_program() -> Command {
    let mut command = if cfg!(target_os = "linux") {
        // Also after the file has been replaced by another version.
        Command::new("/proc/self/exe")
    } else {
        Command::new(std::env::current_exe().unwrap_or_else(|_| "evener".into()))
    };
    command.arg0("evener").arg(WARDEN);
    command
}
