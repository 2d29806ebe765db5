//! The node's log, kept until it is known whether anybody wants to read it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// How many bytes are kept at least, and twice that at most; of more, only the last are.
const KEPT: usize = 256 << 10;

/// A log in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    /// What has been logged since the last time.
    pub(super) fn take(&self) -> String {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&std::mem::take(&mut *log)).into_owned()
    }
}

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        if log.len() > 2 * KEPT {
            let from = log.len() - KEPT;
            let line = log[from..].iter().position(|&byte| byte == b'\n').map_or(from, |end| from + end + 1);
            log.drain(..line);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_log_the_end_is_kept() {
        let mut capture = Capture::default();
        for number in 0..200_000 {
            writeln!(capture, "line {number}").expect("it takes everything");
        }
        let log = capture.take();
        assert!(log.len() <= 2 * KEPT && log.starts_with("line ") && log.ends_with("\nline 199999\n"), "{}", log.len());
        assert_eq!(capture.take(), "");
    }
}
