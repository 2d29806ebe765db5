//! A program as its own warden: the process that starts the workers is the same program in another mode.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use evener_supervisor::warden::serve as serve_warden;

/// The one argument with which a node starts its program as the warden: not a command for people.
const WARDEN: &str = "warden";

/// Serves as the warden if this program was started for that, and says with what to exit. A program that embeds the node calls
/// it first thing in `main`.
pub fn serve_if_warden() -> Option<ExitCode> {
    std::env::args_os().skip(1).eq([WARDEN]).then(serve_warden)
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
