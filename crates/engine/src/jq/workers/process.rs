//! One worker process for jq programs, as the node reaches it.

use std::io;
use std::time::Duration;

use evener_core::{Budget, Failure, JobKey, Outcome};
use evener_protocol::{FromWorker, Inbox, JobHead, Outbox, ProtocolError, Task, Value};
use evener_supervisor::receipt::Receipt;
use evener_supervisor::warden::{Exit, ProcessId, Signal, Target, Warden};
use evener_supervisor::{How, Spawn};
use rustix::process::Signal as Number;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::serve::Ask;
use super::{Run, filter};
use crate::jq::OUTPUT;

/// How long a worker may take to start.
const START: Duration = Duration::from_secs(10);
/// How long to wait for how a worker ended whose socket has ended.
const EXIT_PATIENCE: Duration = Duration::from_millis(500);
/// The most bytes of a result: of a list, each element has four bytes more.
const LARGEST: u64 = 2 * OUTPUT as u64;

/// How a run ended.
pub(super) enum Ended {
    /// With this. The worker is idle again.
    Outcome(Result<Value, Failure>),
    /// The worker had no memory left, and is gone.
    Memory,
    /// The worker is gone, or of no more use, and this is why.
    Lost(String),
}

/// A worker process. Dropping it ends it, whatever it does.
pub(super) struct Process {
    warden: Warden,
    id: ProcessId,
    socket: UnixStream,
    exit: oneshot::Receiver<Exit>,
    inbox: Inbox,
    receipt: Receipt,
    outbox: Outbox,
    /// Whether it is at a run, and would not notice that its socket ends.
    is_busy: bool,
    runs: u64,
    /// How large it was when it was ready, in bytes.
    size: u64,
}

impl Process {
    /// Starts a worker, and waits until it is ready. Results in receipt are counted in `memory`.
    pub(super) async fn start(warden: Warden, spawn: &Spawn, memory: &Budget) -> Result<Process, String> {
        // What it prints is nothing but the last words of its runtime: nobody reads them.
        let evener_supervisor::Process { id, socket, exit, .. } =
            warden.spawn(spawn).await.map_err(|error| error.to_string())?;
        let socket = UnixStream::from_std(socket).map_err(|error| error.to_string())?;
        let (inbox, receipt, outbox) = (Inbox::new(LARGEST), Receipt::new(Some(memory.clone())), Outbox::default());
        let mut process = Process { warden, id, socket, exit, inbox, receipt, outbox, is_busy: true, runs: 0, size: 0 };
        match tokio::time::timeout(START, process.next()).await {
            Ok(Ok(FromWorker::Ready(_))) => {
                process.is_busy = false;
                process.size = size_of_process(process.id.pid()).unwrap_or(0);
                Ok(process)
            }
            Ok(Ok(_)) => Err("it did not begin with READY".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it was not ready within {START:?}")),
        }
    }

    /// Whether the process is known to be gone.
    pub(super) fn has_ended(&self) -> bool {
        !self.exit.is_empty() || self.exit.is_terminated()
    }

    /// Whether it is larger than it was at first by more than so many bytes.
    pub(super) fn has_grown(&self, by: u64) -> bool {
        size_of_process(self.id.pid()).is_some_and(|size| size > self.size.saturating_add(by))
    }

    pub(super) async fn run(&mut self, run: &Run<'_>) -> Ended {
        self.is_busy = true;
        self.runs += 1;
        let job = JobKey::unpack(self.runs);
        let ask = Ask { program: run.program.source().into(), want: run.want, time: run.time };
        let extension = match serde_json::to_vec(&ask) {
            Ok(extension) => extension,
            Err(error) => return Ended::Lost(format!("cannot be asked: {error}")),
        };
        let head = JobHead {
            job,
            attempt: 1,
            tries: 1,
            left_nanos: u64::MAX,
            task: Task::Value,
            stream: false,
            batch: false,
            extension: &extension,
        };
        self.outbox.job(&head, &run.input);
        if let Err(error) = self.send().await {
            return self.lost(&error).await;
        }
        match self.next().await {
            Ok(FromWorker::Outcome { job: done, outcome, .. }) if done == job => {
                self.is_busy = false;
                Ended::Outcome(match outcome {
                    Outcome::Next(value) => Ok(value),
                    Outcome::Fail(Failure::Error { message, .. }) => Err(filter(&message)),
                    Outcome::Fail(failure) => Err(failure),
                    _ => Err(filter("its worker gave something that is no value")),
                })
            }
            Ok(_) => Ended::Lost("broke the worker protocol: it said something else than an OUTCOME".to_owned()),
            Err(error) => self.lost(&error).await,
        }
    }

    async fn send(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            let [frames, payload] = self.outbox.bytes();
            let next = if frames.is_empty() { payload } else { frames };
            let count = self.socket.write(next).await?;
            self.outbox.wrote(count);
        }
        Ok(())
    }

    async fn next(&mut self) -> io::Result<FromWorker> {
        let broken = |error: ProtocolError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        loop {
            if let Some(message) = self.inbox.next().map_err(broken)? {
                self.receipt.end();
                return Ok(message);
            }
            self.receipt.count(&mut self.inbox);
            match self.socket.read(self.inbox.room()).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.inbox.filled(count),
            }
        }
    }

    /// What became of a worker whose socket does not go on.
    async fn lost(&mut self, error: &io::Error) -> Ended {
        if error.kind() == io::ErrorKind::InvalidData {
            return Ended::Lost(format!("broke the worker protocol: {error}"));
        }
        let exit = tokio::time::timeout(EXIT_PATIENCE, &mut self.exit).await;
        match exit.map_or(How::Unknown, |exit| exit.map_or(How::Unknown, |exit| exit.how)) {
            // That is how a program ends whose allocator gets no more.
            How::Signal(signal) if signal == Number::ABORT.as_raw() => Ended::Memory,
            how @ How::Signal(_) => Ended::Lost(format!("was {how}")),
            how @ How::Code(_) => Ended::Lost(how.to_string()),
            How::Unknown => Ended::Lost("died, and nobody saw how".to_owned()),
        }
    }
}

/// How large a process is, in bytes; `None` where the system does not say.
fn size_of_process(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').next()?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_busy {
            self.warden.signal(self.id, Signal::Kill, Target::Group);
        }
    }
}
