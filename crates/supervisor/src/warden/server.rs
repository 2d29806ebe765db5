//! The warden's side: one thread, one loop, no runtime.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, SocketType};
use rustix::process::{Pid, Signal};

use super::child::{self, Ends};
use super::reap::{self, Children, Patience};
use super::wire::{self, DESCRIPTORS, Inbox, Malformed, Order, Reply, Request};

/// Runs the warden until its node is gone, kills all that is left, and says how to exit.
///
/// Call it first thing in `main`, before any thread exists: the process becomes the warden. The
/// control socket is its standard input, as [`Warden::start`](super::Warden::start) arranges it.
///
/// Exits with 0 when the node closed the control socket or died, 1 when the node said something
/// that is no request, and 2 when the process was not started by a node.
pub fn serve() -> ExitCode {
    let control = match take_control() {
        Ok(control) => control,
        Err(error) => {
            eprintln!("evener warden: {error}");
            return ExitCode::from(2);
        }
    };
    let children = match become_warden() {
        Ok(children) => children,
        Err(error) => {
            eprintln!("evener warden: cannot set itself up: {error}");
            return ExitCode::from(2);
        }
    };
    let mut server = Server {
        control,
        children,
        inbox: Inbox::default(),
        descriptors: VecDeque::new(),
        living: BTreeMap::new(),
        numbers: BTreeMap::new(),
    };
    let end = server.run();
    server.end_all();
    match end {
        End::NodeGone => ExitCode::SUCCESS,
        End::Malformed(error) => {
            eprintln!("evener warden: stops, because its node sent {error}");
            ExitCode::FAILURE
        }
    }
}

/// Moves the control socket from standard input to the first free number after the standard ones,
/// so that the numbers 0 to 3 are all taken and no descriptor of a later start can get one of them.
fn take_control() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    if rustix::net::sockopt::socket_type(&stdin).ok() != Some(SocketType::STREAM) {
        return Err(io::Error::other("this mode is for a node, which starts it with a socket as its standard input"));
    }
    #[cfg(target_os = "linux")]
    reap::close_from(3);
    let control = rustix::io::fcntl_dupfd_cloexec(&stdin, 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(control)
}

/// Detaches from the terminal, ignores what a terminal or a service manager sends to all
/// processes at once, adopts orphans, and asks to be told of children that end.
fn become_warden() -> io::Result<UnixStream> {
    // It fails for the leader of a process group, which is then already out of a terminal's way.
    let _ = rustix::process::setsid();
    #[cfg(target_os = "linux")]
    {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let _ = rustix::thread::set_name(c"evener-warden");
    }
    let (told, teller) = UnixStream::pair()?;
    told.set_nonblocking(true)?;
    teller.set_nonblocking(true)?;
    watch_signals(teller)?;
    Ok(told)
}

/// Where the signal handler writes when a child has ended.
static TELLER: AtomicI32 = AtomicI32::new(-1);

#[allow(unsafe_code)]
extern "C" fn child_ended(_: libc::c_int) {
    // SAFETY: write is allowed in a signal handler, on one byte of static memory. The handler keeps
    // errno as it was for the code that it interrupts.
    unsafe {
        let errno = errno_place();
        let before = *errno;
        libc::write(TELLER.load(Ordering::Relaxed), c"!".as_ptr().cast(), 1);
        *errno = before;
    }
}

#[allow(unsafe_code)]
unsafe fn errno_place() -> *mut libc::c_int {
    // SAFETY: the place of this thread's errno is valid for as long as the thread.
    unsafe {
        #[cfg(target_os = "linux")]
        return libc::__errno_location();
        #[cfg(not(target_os = "linux"))]
        return libc::__error();
    }
}

#[allow(unsafe_code)]
fn watch_signals(teller: UnixStream) -> io::Result<()> {
    // Open for as long as the process.
    TELLER.store(teller.into_raw_fd(), Ordering::Relaxed);
    // SAFETY: all zeros is a valid sigaction; the handler has the type that the flags announce.
    let result = unsafe {
        for signal in [libc::SIGINT, libc::SIGHUP, libc::SIGTERM, libc::SIGQUIT, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_IGN);
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = child_ended as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
        libc::sigemptyset(&mut action.sa_mask);
        let mut only_child = action.sa_mask;
        libc::sigaddset(&mut only_child, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_UNBLOCK, &only_child, std::ptr::null_mut());
        libc::sigaction(libc::SIGCHLD, &action, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Why the warden stops.
enum End {
    NodeGone,
    Malformed(Malformed),
}

impl From<Malformed> for End {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

impl From<io::Error> for End {
    /// A control socket that fails is one whose other end is gone.
    fn from(_: io::Error) -> Self {
        Self::NodeGone
    }
}

struct Server {
    control: OwnedFd,
    /// Readable when a child has ended.
    children: UnixStream,
    inbox: Inbox,
    /// Descriptors that came and belong to the next spawns, in order.
    descriptors: VecDeque<OwnedFd>,
    /// The workers that are not reaped, by process: as what they were asked for. Only what is in
    /// here is ever sent a signal.
    living: BTreeMap<i32, u64>,
    numbers: BTreeMap<u64, Pid>,
}

impl Server {
    fn run(&mut self) -> End {
        loop {
            if let Err(end) = self.turn() {
                return end;
            }
        }
    }

    fn turn(&mut self) -> Result<(), End> {
        let mut ready = [PollFd::new(&self.control, PollFlags::IN), PollFd::new(&self.children, PollFlags::IN)];
        match rustix::event::poll(&mut ready, None) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(io::Error::from(error).into()),
            Ok(_) => {}
        }
        let [control, children] = ready.map(|fd| !fd.revents().is_empty());
        if children {
            let mut bytes = [0; 64];
            while matches!((&self.children).read(&mut bytes), Ok(1..)) {}
            self.reap()?;
        }
        if control { self.listen() } else { Ok(()) }
    }

    /// Reaps every child that has ended; what is left of a worker's group goes with it.
    fn reap(&mut self) -> Result<(), End> {
        while let Children::Ended(pid) = reap::ended(Patience::Look) {
            if let Some(reply) = self.bury(pid) {
                self.say(&reply, SendFlags::empty())?;
            }
        }
        Ok(())
    }

    fn bury(&mut self, pid: Pid) -> Option<Reply> {
        let worker = self.living.remove(&pid.as_raw_pid());
        if let Some(id) = worker {
            reap::kill_group(pid);
            self.numbers.remove(&id);
        }
        let exit = reap::collect(pid);
        worker.map(|id| Reply::Exited { id, exit })
    }

    fn listen(&mut self) -> Result<(), End> {
        self.receive()?;
        while let Some(request) = self.inbox.next()? {
            match request {
                Request::Spawn(order) => self.spawn(*order)?,
                Request::Signal { id, signal, group } => self.signal(id, signal, group)?,
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), End> {
        let mut bytes = vec![0; 32 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4 * DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        #[cfg(target_os = "linux")]
        let flags = RecvFlags::CMSG_CLOEXEC;
        #[cfg(not(target_os = "linux"))]
        let flags = RecvFlags::empty();
        let received = loop {
            match rustix::net::recvmsg(&self.control, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
                Ok(received) => break received,
            }
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        #[cfg(not(target_os = "linux"))]
        for descriptor in &self.descriptors {
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC).map_err(io::Error::from)?;
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Malformed::LostDescriptors.into());
        }
        if received.bytes == 0 {
            return Err(End::NodeGone);
        }
        self.inbox.push(&bytes[..received.bytes]);
        Ok(())
    }

    fn spawn(&mut self, order: Order) -> Result<(), End> {
        let id = order.id;
        let mut next = || self.descriptors.pop_front().ok_or(Malformed::NoDescriptors);
        let ends = Ends { first: next()?, stdout: next()?, stderr: next()? };
        let reply = match child::start(order, ends) {
            Ok(pid) => {
                self.living.insert(pid.as_raw_pid(), id);
                self.numbers.insert(id, pid);
                Reply::Spawned { id, pid: pid.as_raw_pid().unsigned_abs() }
            }
            Err(failure) => Reply::Failed { id, failure },
        };
        self.say(&reply, SendFlags::empty())
    }

    /// Sends a signal to a worker that is not reaped, so that its number is certainly its own.
    fn signal(&mut self, id: u64, signal: i32, group: bool) -> Result<(), End> {
        let signal = Signal::from_named_raw(signal).ok_or(Malformed::NoSuchSignal(signal))?;
        if let Some(&pid) = self.numbers.get(&id) {
            let sent = match group {
                true => reap::signal_with_group(pid, signal),
                false => rustix::process::kill_process(pid, signal),
            };
            // It may have ended a moment ago; its end is told when it comes. Or it has become another user's, whom this one
            // may not stop: that is for people to see.
            if let Err(error) = sent
                && error != rustix::io::Errno::SRCH
            {
                eprintln!("evener warden: process {} cannot be sent {signal:?}: {error}", pid.as_raw_pid());
            }
        }
        Ok(())
    }

    /// Says something to the node, waiting until there is room (the node always reads), unless
    /// `flags` say not to.
    fn say(&self, reply: &Reply, flags: SendFlags) -> Result<(), End> {
        let frame = wire::frame(reply).map_err(Malformed::from)?;
        #[cfg(target_os = "linux")]
        let flags = flags | SendFlags::NOSIGNAL;
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match rustix::net::send(self.control.as_fd(), rest, flags) {
                Ok(sent) => rest = &rest[sent..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }

    /// Kills the workers and all that came from them, and reaps it. As a node that asked for this
    /// still listens, it is told of the workers' ends.
    fn end_all(&mut self) {
        for &pid in self.numbers.values() {
            reap::kill_group(pid);
        }
        let mut listening = true;
        loop {
            loop {
                match reap::ended(Patience::Look) {
                    Children::Ended(pid) => {
                        if let Some(reply) = self.bury(pid) {
                            listening = listening && self.say(&reply, SendFlags::DONTWAIT).is_ok();
                        }
                    }
                    Children::Living => break,
                    Children::None => return,
                }
            }
            // Each process that dies hands its own children to this one, so this goes round until
            // there is nobody left, or nobody whom this user may kill.
            if reap::kill_children(self.numbers.values().copied()) == 0 {
                return;
            }
            reap::ended(Patience::Wait);
        }
    }
}
