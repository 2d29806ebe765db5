//! How a worker died, as far as that is known.

mod memory;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

pub use memory::OomKills;

use crate::warden::Exit;

/// By what a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum How {
    /// It exited, with this code.
    Code(i32),
    /// A signal of this number ended it.
    Signal(i32),
    /// Nobody saw it end.
    Unknown,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(number) => write!(f, "killed by {}", signal_name(number)),
            Self::Unknown => f.write_str("ended, and nobody saw how"),
        }
    }
}

/// The name of a signal, such as `SIGKILL`; `signal 40` for one without a name.
pub fn signal_name(number: i32) -> Cow<'static, str> {
    let name = match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGVTALRM => "SIGVTALRM",
        libc::SIGPROF => "SIGPROF",
        libc::SIGIO => "SIGIO",
        libc::SIGSYS => "SIGSYS",
        _ => return format!("signal {number}").into(),
    };
    name.into()
}

/// Whether a worker died because there was no more memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutOfMemory {
    /// Its runtime said so, or the kernel counted a kill for want of memory as it died.
    Yes,
    /// It ended in a way that the kernel does not end a process in for want of memory.
    No,
    /// It was killed in the way that the kernel does it, but nothing says that it was.
    Unknown,
}

/// What is known about a death besides how the process ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The worker's runtime reported that memory ran out.
    pub memory_error: bool,
    /// The kernel's count of such kills rose; see [`OomKills`].
    pub oom_kills_rose: bool,
    /// The node itself killed the worker.
    pub killed_by_node: bool,
}

impl OutOfMemory {
    /// Weighs what is known.
    pub fn judge(how: How, evidence: Evidence) -> Self {
        match how {
            _ if evidence.memory_error => Self::Yes,
            How::Signal(libc::SIGKILL) if evidence.oom_kills_rose => Self::Yes,
            How::Signal(libc::SIGKILL) if evidence.killed_by_node => Self::No,
            How::Signal(libc::SIGKILL) | How::Unknown => Self::Unknown,
            How::Code(_) | How::Signal(_) => Self::No,
        }
    }
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        })
    }
}

/// Everything known about the death of one worker, for the log and the API.
///
/// In public answers only its [`cause`](Self::cause) is told, unless the service runs in debug mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// By what it ended.
    pub how: How,
    /// Whether memory ran out.
    pub out_of_memory: OutOfMemory,
    /// The most memory that it held at once, in bytes.
    pub peak_rss: Option<u64>,
    /// Whether the kernel wrote a core file.
    pub core_dumped: bool,
    /// The last lines that it wrote to standard error, oldest first.
    pub stderr_tail: Vec<String>,
    /// Its process number.
    pub pid: u32,
    /// How long it lived.
    pub lived: Duration,
}

impl Certificate {
    /// Writes the certificate of a process that ended as `exit` says.
    pub fn new(exit: &Exit, evidence: Evidence, pid: u32, lived: Duration, stderr_tail: Vec<String>) -> Self {
        Self {
            how: exit.how,
            out_of_memory: OutOfMemory::judge(exit.how, evidence),
            peak_rss: exit.peak_rss,
            core_dumped: exit.core_dumped,
            stderr_tail,
            pid,
            lived,
        }
    }

    /// The signal or the exit code and nothing else: "killed by SIGKILL", "exited with code 3".
    pub fn cause(&self) -> String {
        self.how.to_string()
    }
}

impl fmt::Display for Certificate {
    /// One sentence without a full stop, and without the last lines of standard error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.how)?;
        match self.out_of_memory {
            OutOfMemory::Yes => f.write_str(", out of memory")?,
            OutOfMemory::Unknown if self.how != How::Unknown => f.write_str(", perhaps out of memory")?,
            _ => {}
        }
        write!(f, ", after {}", Lived(self.lived))?;
        if let Some(bytes) = self.peak_rss {
            write!(f, ", with a peak of {}", Size(bytes))?;
        }
        if self.core_dumped {
            f.write_str(", leaving a core file")?;
        }
        Ok(())
    }
}

impl Serialize for Certificate {
    /// As the API shows it: `cause`, `code` or `signal` (or neither), `out_of_memory`,
    /// `peak_rss_bytes`, `core_dumped`, `pid`, `lived_ms`, `stderr_tail`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("Certificate", 8)?;
        map.serialize_field("cause", &self.cause())?;
        match self.how {
            How::Code(code) => map.serialize_field("code", &code)?,
            How::Signal(number) => map.serialize_field("signal", &signal_name(number))?,
            How::Unknown => {}
        }
        map.serialize_field("out_of_memory", &self.out_of_memory)?;
        map.serialize_field("peak_rss_bytes", &self.peak_rss)?;
        map.serialize_field("core_dumped", &self.core_dumped)?;
        map.serialize_field("pid", &self.pid)?;
        map.serialize_field("lived_ms", &u64::try_from(self.lived.as_millis()).unwrap_or(u64::MAX))?;
        map.serialize_field("stderr_tail", &self.stderr_tail)?;
        map.end()
    }
}

/// A duration as people say it.
struct Lived(Duration);

impl fmt::Display for Lived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0 => write!(f, "{} ms", self.0.as_millis()),
            1..60 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            _ => write!(f, "{} h {} min", seconds / 3600, seconds / 60 % 60),
        }
    }
}

/// A number of bytes as people say it.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            0..0x10_0000 => write!(f, "{:.0} KiB", bytes / 1024.0),
            0x10_0000..0x4000_0000 => write!(f, "{:.1} MiB", bytes / f64::from(1 << 20)),
            _ => write!(f, "{:.2} GiB", bytes / f64::from(1 << 30)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(how: How, evidence: Evidence) -> Certificate {
        let exit = Exit { how, peak_rss: Some(300 << 20), core_dumped: false };
        Certificate::new(&exit, evidence, 42, Duration::from_millis(3210), vec!["last words".to_owned()])
    }

    #[test]
    fn sentences() {
        let none = Evidence::default();
        let rose = Evidence { oom_kills_rose: true, ..none };
        let sentence = |how, evidence| certificate(how, evidence).to_string();
        assert_eq!(sentence(How::Code(3), none), "exited with code 3, after 3.2 s, with a peak of 300.0 MiB");
        assert_eq!(
            sentence(How::Signal(9), none),
            "killed by SIGKILL, perhaps out of memory, after 3.2 s, with a peak of 300.0 MiB"
        );
        assert_eq!(
            sentence(How::Signal(9), rose),
            "killed by SIGKILL, out of memory, after 3.2 s, with a peak of 300.0 MiB"
        );
        assert_eq!(certificate(How::Signal(11), none).cause(), "killed by SIGSEGV");
        assert_eq!(certificate(How::Signal(40), none).cause(), "killed by signal 40");
        assert_eq!(certificate(How::Unknown, none).cause(), "ended, and nobody saw how");
    }

    #[test]
    fn memory_is_blamed_only_on_evidence() {
        let none = Evidence::default();
        let rose = Evidence { oom_kills_rose: true, ..none };
        let said = Evidence { memory_error: true, ..none };
        let ours = Evidence { killed_by_node: true, ..none };
        let judge = OutOfMemory::judge;
        assert_eq!(judge(How::Code(1), none), OutOfMemory::No);
        assert_eq!(judge(How::Code(1), rose), OutOfMemory::No);
        assert_eq!(judge(How::Code(1), said), OutOfMemory::Yes);
        assert_eq!(judge(How::Signal(11), rose), OutOfMemory::No);
        assert_eq!(judge(How::Signal(9), none), OutOfMemory::Unknown);
        assert_eq!(judge(How::Signal(9), rose), OutOfMemory::Yes);
        assert_eq!(judge(How::Signal(9), ours), OutOfMemory::No);
        assert_eq!(judge(How::Unknown, none), OutOfMemory::Unknown);
    }

    #[test]
    fn as_json() {
        let json = serde_json::to_value(certificate(How::Signal(9), Evidence::default())).unwrap();
        let expected = serde_json::json!({
            "cause": "killed by SIGKILL", "signal": "SIGKILL", "out_of_memory": "unknown",
            "peak_rss_bytes": 300 << 20, "core_dumped": false, "pid": 42, "lived_ms": 3210,
            "stderr_tail": ["last words"],
        });
        assert_eq!(json, expected);
    }
}
