//! The signals that a node heeds.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the node to stop.
pub(crate) struct Stops {
    interrupt: Signal,
    terminate: Signal,
    /// None if it was ignored from the start, as under nohup.
    hang_up: Option<Signal>,
}

impl Stops {
    pub(crate) fn listen() -> std::io::Result<Stops> {
        Ok(Stops {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    pub(crate) async fn next(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hang_up => {}
        }
    }

    /// SIGHUP stops nothing any more: it is for somebody else to say what it means.
    pub(crate) fn take_hang_ups(&mut self) -> HangUps {
        HangUps { signal: self.hang_up.take(), had_terminal: has_terminal() }
    }
}

/// SIGHUP, which says that the terminal has gone, or asks for a reload.
pub(crate) struct HangUps {
    signal: Option<Signal>,
    had_terminal: bool,
}

/// What a SIGHUP means.
pub(crate) enum HangUp {
    /// Somebody asks for a reload.
    Reload,
    /// The terminal that this process was started from has gone.
    TerminalGone,
}

impl HangUps {
    pub(crate) async fn next(&mut self) -> HangUp {
        match &mut self.signal {
            Some(signal) => signal.recv().await,
            None => std::future::pending().await,
        };
        if self.had_terminal && !has_terminal() { HangUp::TerminalGone } else { HangUp::Reload }
    }
}

/// Whether this process belongs to a terminal, wherever its input and output go.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Whether SIGHUP was set to be ignored by whoever started this process. Known on Linux only.
pub(crate) fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}
