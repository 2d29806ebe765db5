//! The task that owns the control socket: it alone reads and writes it, so both never wait for
//! each other, and it alone knows which processes live.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::process::Child;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::client::{ProcessId, Signal, SpawnError};
use super::wire::{self, DESCRIPTORS, Exit, Inbox, Malformed, Order, Reply, Request};

/// How many spawns may be under way to the warden at once. It does one at a time anyway, and the
/// system limits how many descriptors a user may have travelling.
const UNDER_WAY: usize = 8;

/// How long a warden that is to end may take for it. It sends SIGKILL to all that it started, and reaps that.
const CLOSING: Duration = Duration::from_secs(3);

/// What a handle asks of the task.
#[derive(Debug)]
pub(super) enum Ask {
    Spawn(Box<Start>),
    Signal { start: u64, signal: Signal, group: bool },
    Close,
}

/// A process that somebody waits for.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) order: Order,
    pub(super) descriptors: [OwnedFd; DESCRIPTORS],
    pub(super) reply: oneshot::Sender<Result<Handed, SpawnError>>,
}

/// A started process on its way to whoever asked for it. If it does not arrive, it is killed.
#[derive(Debug)]
pub(super) struct Handed {
    started: Option<Started>,
    link: mpsc::WeakUnboundedSender<Ask>,
}

impl Handed {
    /// It has arrived.
    pub(super) fn take(mut self) -> Result<Started, SpawnError> {
        self.started.take().ok_or(SpawnError::WardenGone)
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let (Some(started), Some(link)) = (self.started.take(), self.link.upgrade()) {
            // Without the link there is no process any more.
            let _ = link.send(Ask::Signal { start: started.id.start, signal: Signal::Kill, group: true });
        }
    }
}

/// A process that the warden has started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) id: ProcessId,
    pub(super) exit: oneshot::Receiver<Exit>,
}

/// How it stands with the warden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It serves.
    Open,
    /// Its socket has ended.
    Closed,
    /// Its process is gone.
    Ended,
}

/// A frame on its way out. The descriptors of a spawn go with its first byte.
#[derive(Debug)]
struct Outgoing {
    frame: Vec<u8>,
    sent: usize,
    spawn: Option<(u64, [OwnedFd; DESCRIPTORS])>,
}

/// A process that has started and not ended, as far as the warden has said.
#[derive(Debug)]
struct Living {
    pid: u32,
    exit: oneshot::Sender<Exit>,
}

#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    asks: mpsc::UnboundedReceiver<Ask>,
    inbox: Inbox,
    /// Spawns that wait for their turn.
    waiting: VecDeque<Start>,
    outgoing: VecDeque<Outgoing>,
    starting: HashMap<u64, oneshot::Sender<Result<Handed, SpawnError>>>,
    /// The way to itself, which does not keep it going.
    own: mpsc::WeakUnboundedSender<Ask>,
    living: HashMap<u64, Living>,
    last: u64,
    warden: Reaper,
}

impl Link {
    pub(super) fn new(
        stream: UnixStream,
        (own, asks): (mpsc::WeakUnboundedSender<Ask>, mpsc::UnboundedReceiver<Ask>),
        child: Child,
    ) -> (Self, watch::Receiver<State>) {
        let (state, watching) = watch::channel(State::Open);
        let link = Self {
            stream,
            asks,
            inbox: Inbox::default(),
            waiting: VecDeque::new(),
            outgoing: VecDeque::new(),
            starting: HashMap::new(),
            own,
            living: HashMap::new(),
            last: 0,
            warden: Reaper { child: Some(child), state: Some(state) },
        };
        (link, watching)
    }

    /// Runs until the socket ends: because the warden died, or because it ended after the last
    /// handle was dropped or somebody asked to close.
    pub(super) async fn run(mut self) {
        let mut closing = false;
        let mut asked = false;
        let mut patience = pin!(tokio::time::sleep(Duration::MAX));
        loop {
            self.send_waiting();
            tokio::select! {
                () = &mut patience, if closing => {
                    tracing::error!("the warden did not end its processes within {CLOSING:?}, and is killed");
                    self.warden.kill();
                    // Those of its workers that it did not come to die with it.
                    asked = false;
                    break;
                }
                ask = self.asks.recv(), if !closing => match ask {
                    Some(Ask::Spawn(start)) => self.waiting.push_back(*start),
                    Some(Ask::Signal { start, signal, group }) => self.signal(start, signal, group),
                    Some(Ask::Close) | None => {
                        (closing, asked) = (true, true);
                        patience.as_mut().reset(Instant::now() + CLOSING);
                        self.close();
                    }
                },
                _ = self.stream.writable(), if !self.outgoing.is_empty() => {
                    // Mostly because the warden is gone. Then reading ends, too, after its last words.
                    if let Err(error) = self.write() {
                        tracing::debug!("the warden cannot be written to: {error}");
                        closing = true;
                        patience.as_mut().reset(Instant::now() + CLOSING);
                        self.close();
                    }
                }
                _ = self.stream.readable() => match self.read() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::error!("the warden cannot be understood and is given up: {error}");
                        break;
                    }
                },
            }
        }
        self.end(asked);
    }

    /// Asks the warden to end all, but goes on listening to how they end.
    fn close(&mut self) {
        self.asks.close();
        while self.asks.try_recv().is_ok() {}
        self.waiting.clear();
        self.outgoing.clear();
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write);
    }

    fn end(self, asked: bool) {
        for (_, Living { pid, exit }) in self.living {
            if !asked {
                kill_orphans(pid);
            }
            let _ = exit.send(Exit::unknown());
        }
        for (_, reply) in self.starting {
            let _ = reply.send(Err(SpawnError::WardenGone));
        }
        // Spawns that wait fail as they are dropped.
        drop(self.waiting);
        drop(self.stream);
        drop(self.warden);
    }

    fn send_waiting(&mut self) {
        while self.starting.len() < UNDER_WAY {
            let Some(Start { mut order, descriptors, reply }) = self.waiting.pop_front() else { return };
            if reply.is_closed() {
                continue;
            }
            self.last += 1;
            order.id = self.last;
            self.starting.insert(self.last, reply);
            self.push(&Request::Spawn(Box::new(order)), Some((self.last, descriptors)));
        }
    }

    fn signal(&mut self, id: u64, signal: Signal, group: bool) {
        if self.living.contains_key(&id) {
            self.push(&Request::Signal { id, signal: signal.number(), group }, None);
        }
    }

    fn push(&mut self, request: &Request, spawn: Option<(u64, [OwnedFd; DESCRIPTORS])>) {
        match wire::frame(request) {
            Ok(frame) => self.outgoing.push_back(Outgoing { frame, sent: 0, spawn }),
            Err(error) => tracing::error!("a request to the warden cannot be written: {error}"),
        }
    }

    /// Writes what the socket takes now.
    fn write(&mut self) -> io::Result<()> {
        while let Some(next) = self.outgoing.front_mut() {
            let sent = match self.stream.try_io(Interest::WRITABLE, || next.send(&self.stream)) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => match next.spawn.take() {
                    // So many descriptors of this user are travelling, everywhere, that these may
                    // not. Nothing of the frame was sent.
                    Some((id, _)) if error.raw_os_error() == Some(libc::ETOOMANYREFS) => {
                        self.outgoing.pop_front();
                        self.fail(id, SpawnError::Descriptors(error));
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            next.sent += sent;
            next.spawn = None;
            if next.sent == next.frame.len() {
                self.outgoing.pop_front();
            }
        }
        Ok(())
    }

    /// Reads what is there, and says whether there may be more to come.
    fn read(&mut self) -> Result<bool, Malformed> {
        let mut bytes = [0; 16 << 10];
        loop {
            match self.stream.try_read(&mut bytes) {
                Ok(0) => return Ok(false),
                Ok(read) => self.inbox.push(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Ok(false),
            }
            while let Some(reply) = self.inbox.next()? {
                self.hear(reply);
            }
        }
    }

    fn hear(&mut self, reply: Reply) {
        match reply {
            Reply::Spawned { id, pid } => {
                let (ended, exit) = oneshot::channel();
                self.living.insert(id, Living { pid, exit: ended });
                let started = Started { id: ProcessId { start: id, pid }, exit };
                let handed = Handed { started: Some(started), link: self.own.clone() };
                // If nobody asks for it any more, it is dropped, here or on its way.
                let _ = self.starting.remove(&id).map(|reply| reply.send(Ok(handed)));
            }
            Reply::Failed { id, failure } => self.fail(id, failure.into()),
            Reply::Exited { id, exit } => {
                if let Some(living) = self.living.remove(&id) {
                    let _ = living.exit.send(exit);
                }
            }
        }
    }

    fn fail(&mut self, id: u64, error: SpawnError) {
        if let Some(reply) = self.starting.remove(&id) {
            let _ = reply.send(Err(error));
        }
    }
}

impl Outgoing {
    fn send(&self, stream: &UnixStream) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = self.spawn.as_ref().map(|(_, all)| all.each_ref().map(|one| one.as_fd()));
        if let Some(descriptors) = &descriptors {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        #[cfg(target_os = "linux")]
        let flags = SendFlags::NOSIGNAL;
        #[cfg(not(target_os = "linux"))]
        let flags = SendFlags::empty();
        let rest = IoSlice::new(&self.frame[self.sent..]);
        Ok(rustix::net::sendmsg(stream, &[rest], &mut ancillary, flags)?)
    }
}

/// Kills what is left of the group of a worker whose warden was killed, and which is therefore dying
/// or dead itself. The number still means that group: while anybody is in it nobody else can get the
/// number, and if nobody is, all other numbers are handed out before this one comes again.
fn kill_orphans(pid: u32) {
    if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// Waits for the warden's process once its link is dropped, however that comes about. The wait has
/// a thread of its own, so that no runtime has to stay for it.
#[derive(Debug)]
struct Reaper {
    child: Option<Child>,
    state: Option<watch::Sender<State>>,
}

impl Reaper {
    /// Kills the warden, also one that is stopped.
    fn kill(&mut self) {
        if let Some(Err(error)) = self.child.as_mut().map(Child::kill) {
            tracing::error!("the warden cannot be killed: {error}");
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        let (Some(mut child), Some(state)) = (self.child.take(), self.state.take()) else { return };
        state.send_replace(State::Closed);
        let wait = move || {
            match child.wait() {
                Ok(status) if status.success() => {}
                Ok(status) => tracing::error!("the warden ended with {status}"),
                Err(error) => tracing::error!("nobody saw how the warden ended: {error}"),
            }
            state.send_replace(State::Ended);
        };
        if let Err(error) = std::thread::Builder::new().name("evener-warden".to_owned()).spawn(wait) {
            tracing::error!("nobody waits for the warden's end: {error}");
        }
    }
}
