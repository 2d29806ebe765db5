//! The node's side: a cheap handle to the warden.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tokio::sync::{mpsc, oneshot, watch};

use super::link::{Ask, Link, Start, Started, State};
use super::wire::{At, Exit, Failure, Order, Text};

/// A running warden, as its node sees it. Clones are handles to the same one.
///
/// When the last handle is dropped, the control socket closes and with it every worker ends.
#[derive(Debug, Clone)]
pub struct Warden {
    pid: u32,
    asks: mpsc::UnboundedSender<Ask>,
    state: watch::Receiver<State>,
}

/// A process to start: everything about it, in full.
#[derive(Debug, Clone, Default)]
pub struct Spawn {
    /// A path, or a name to look for on the PATH of `env`. A relative path starts at `cwd`.
    pub program: OsString,
    /// Its arguments, without the program's own name.
    pub args: Vec<OsString>,
    /// Its whole environment: it inherits nothing. See [`crate::environment`].
    pub env: Vec<(OsString, OsString)>,
    /// The folder that it starts in.
    pub cwd: PathBuf,
    /// The most address space that it may have, in bytes (`RLIMIT_AS`).
    pub memory: Option<u64>,
}

/// One start of one process. Unlike a process number, it is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    pub(super) start: u64,
    pub(super) pid: u32,
}

impl ProcessId {
    /// The process number, for people to read.
    pub fn pid(self) -> u32 {
        self.pid
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pid)
    }
}

/// A process that has started. Dropping it kills nothing, but the process sees its socket end.
#[derive(Debug)]
pub struct Process {
    /// What to name it by when it is sent a signal.
    pub id: ProcessId,
    /// The node's end of the socket that the process has at descriptor 3. Does not block.
    pub socket: UnixStream,
    /// Where its standard output arrives. Does not block.
    pub stdout: OwnedFd,
    /// Where its standard error arrives. Does not block.
    pub stderr: OwnedFd,
    /// How it ended, once it has. What it left behind in its process group is dead by then. An error
    /// means that the runtime that the warden was started in is gone, and so is the process.
    pub exit: oneshot::Receiver<Exit>,
}

/// A process without a socket, whose standard input is a pipe. Dropping it kills nothing.
#[derive(Debug)]
pub struct Piped {
    /// What to name it by when it is sent a signal.
    pub id: ProcessId,
    /// What it reads. Does not block.
    pub stdin: OwnedFd,
    /// Where its standard output arrives. Does not block.
    pub stdout: OwnedFd,
    /// Where its standard error arrives. Does not block.
    pub stderr: OwnedFd,
    /// How it ended, as in [`Process::exit`].
    pub exit: oneshot::Receiver<Exit>,
}

/// A signal that a node sends to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
}

impl Signal {
    pub(super) fn number(self) -> i32 {
        match self {
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
            Self::Kill => libc::SIGKILL,
            Self::Stop => libc::SIGSTOP,
            Self::Continue => libc::SIGCONT,
        }
    }
}

/// Who gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The worker's own process alone.
    Process,
    /// Its whole process group: also what it has started, unless that left the group.
    Group,
}

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program is not there or cannot run. Trying again changes nothing by itself.
    #[error("{reason}")]
    Program {
        /// A sentence that names the program.
        reason: String,
    },
    /// The folder to start in is not there or cannot be entered.
    #[error("{reason}")]
    Folder {
        /// A sentence that names the folder.
        reason: String,
    },
    /// The system refused: too many processes, too little memory, too large an environment.
    #[error("{reason}")]
    System {
        /// A sentence that says what the system said.
        reason: String,
        /// The number of the error, where there is one.
        errno: Option<i32>,
    },
    /// The program, an argument, a variable or the folder holds a zero byte.
    #[error("cannot start a process: {0} holds a zero byte")]
    ZeroByte(&'static str),
    /// The node could not open the socket and the pipes of the process.
    #[error("cannot start a process: no socket or pipe for it: {0}")]
    Descriptors(#[source] io::Error),
    /// The warden is gone, and all processes with it. A new one has to be started first.
    #[error("cannot start a process: the warden is gone")]
    WardenGone,
}

impl From<Failure> for SpawnError {
    fn from(Failure { at, reason, errno }: Failure) -> Self {
        match at {
            At::Program => Self::Program { reason },
            At::Folder => Self::Folder { reason },
            At::System => Self::System { reason, errno },
        }
    }
}

impl Warden {
    /// Starts a warden. `command` is the program, with the arguments that make it call
    /// [`serve`](super::serve); its standard input and output are set here.
    ///
    /// Must be called within a Tokio runtime with I/O, which then runs the task that talks to the
    /// warden.
    pub fn start(mut command: Command) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(ours)?;
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        let child = command.spawn()?;
        // The command still holds the warden's end of the socket.
        drop(command);
        let pid = child.id();
        let (asks, receiver) = mpsc::unbounded_channel();
        let (link, state) = Link::new(stream, (asks.downgrade(), receiver), child);
        tokio::spawn(link.run());
        Ok(Self { pid, asks, state })
    }

    /// The warden's own process number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Starts a process. If the future is dropped before it is done, the process is killed.
    pub async fn spawn(&self, spawn: &Spawn) -> Result<Process, SpawnError> {
        let (socket, theirs) = sockets().map_err(SpawnError::Descriptors)?;
        let (started, stdout, stderr) = self.begin(order(spawn, false)?, theirs.into()).await?;
        Ok(Process { id: started.id, socket, stdout, stderr, exit: started.exit })
    }

    /// Starts a process that has a pipe as its standard input, and no socket. If the future is dropped before it is done, the
    /// process is killed.
    pub async fn spawn_piped(&self, spawn: &Spawn) -> Result<Piped, SpawnError> {
        let (theirs, stdin) = io::pipe().map_err(SpawnError::Descriptors)?;
        rustix::io::ioctl_fionbio(&stdin, true).map_err(|error| SpawnError::Descriptors(error.into()))?;
        let (started, stdout, stderr) = self.begin(order(spawn, true)?, theirs.into()).await?;
        Ok(Piped { id: started.id, stdin: stdin.into(), stdout, stderr, exit: started.exit })
    }

    /// Asks for a process, whose `first` descriptor is given. Returns where its standard output and error arrive.
    async fn begin(&self, order: Order, first: OwnedFd) -> Result<(Started, OwnedFd, OwnedFd), SpawnError> {
        let (stdout, stdout_end) = output().map_err(SpawnError::Descriptors)?;
        let (stderr, stderr_end) = output().map_err(SpawnError::Descriptors)?;
        let (reply, started) = oneshot::channel();
        let start = Start { order, descriptors: [first, stdout_end, stderr_end], reply };
        self.asks.send(Ask::Spawn(Box::new(start))).map_err(|_| SpawnError::WardenGone)?;
        let started = started.await.map_err(|_| SpawnError::WardenGone)??.take()?;
        Ok((started, stdout, stderr))
    }

    /// Sends a signal to a process, or to its group. Does nothing if the process is known to have
    /// ended, or the warden is gone (and so the process, too).
    pub fn signal(&self, id: ProcessId, signal: Signal, target: Target) {
        let _ = self.asks.send(Ask::Signal { start: id.start, signal, group: target == Target::Group });
    }

    /// Whether this warden is of no more use.
    pub fn is_closed(&self) -> bool {
        *self.state.borrow() != State::Open
    }

    /// Waits until this warden is of no more use, because it died or was shut down. By then the
    /// exits of all its processes are resolved, as unknown where nobody saw them.
    pub async fn closed(&self) {
        let mut state = self.state.clone();
        let _ = state.wait_for(|state| *state != State::Open).await;
    }

    /// Ends every process and the warden, and waits until all of them are gone. Their exits are
    /// resolved by then.
    pub async fn shutdown(&self) {
        let _ = self.asks.send(Ask::Close);
        let mut state = self.state.clone();
        let _ = state.wait_for(|state| *state == State::Ended).await;
    }
}

fn order(spawn: &Spawn, stdin: bool) -> Result<Order, SpawnError> {
    let whole = |text: &std::ffi::OsStr, what| {
        if text.as_bytes().contains(&0) { Err(SpawnError::ZeroByte(what)) } else { Ok(Text::from(text)) }
    };
    let args = spawn.args.iter().map(|arg| whole(arg, "an argument"));
    let env = spawn
        .env
        .iter()
        .map(|(name, value)| Ok((whole(name, "a variable's name")?, whole(value, "a variable of the environment")?)));
    Ok(Order {
        id: 0,
        program: whole(&spawn.program, "the program")?,
        args: args.collect::<Result<_, _>>()?,
        env: env.collect::<Result<_, SpawnError>>()?,
        cwd: whole(spawn.cwd.as_os_str(), "the folder")?,
        memory: spawn.memory,
        stdin,
    })
}

/// How many bytes may be under way on a worker's socket, each way.
const SOCKET_BUFFER: usize = 1 << 20;

/// Both ends of a worker's socket: the node's, which does not block, and the worker's.
fn sockets() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    // A large payload then takes few turns. The system gives what it allows, and less works as well.
    for end in [&ours, &theirs] {
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(end, SOCKET_BUFFER);
    }
    Ok((ours, theirs))
}

/// Both ends of a pipe for what a process prints. Only the reading end does not block: a program may not expect that of its
/// own output.
fn output() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = io::pipe()?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours.into(), theirs.into()))
}
