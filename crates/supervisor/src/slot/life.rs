//! One worker, from its first breath to its death certificate.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use evener_core::{Failure, Landed, Outcome, Stop, WorkerKey};
use evener_protocol::{FromWorker, Inbox, ProtocolError};
use tokio::sync::{oneshot, watch};

use super::line::{Line, Order};
use super::wire::Wire;
use super::{Events, Gone, Plan};
use crate::certificate::{Certificate, Evidence, How, OomKills};
use crate::output::{Capture, Stream, Tail};
use crate::receipt::Receipt;
use crate::warden::{Exit, Process, ProcessId, Signal, Target, Warden};

/// How long to wait for the exit of a process whose socket has ended, before its death is told without a cause.
const EXIT_PATIENCE: Duration = Duration::from_millis(500);
/// How long a worker that said that it exits may take for it.
const EXIT_AFTER_BYE: Duration = Duration::from_secs(3);
/// How long a worker that was asked to give jobs back may do nothing, before it is taken to wait for somebody to read what it writes.
const BLOCKED: Duration = Duration::from_secs(1);
/// Between SIGTERM and SIGKILL for a worker that is let go.
const TERM_TO_KILL: Duration = Duration::from_secs(1);

/// How a life in a slot ended.
pub(super) enum End<E> {
    /// The worker is gone.
    Lost {
        /// Whether it had done a job.
        worked: bool,
    },
    /// The worker did its share; it is still there, but gets no more jobs.
    Retired(Box<Life<E>>),
    /// The node stops, or has no more use for the slot, and the worker is gone.
    Stopped,
}

/// What happened last.
enum Step {
    /// Bytes came, and messages may be among them.
    Received,
    /// The socket ended.
    Closed,
    /// The worker printed something, or closed its outputs.
    Printed,
    Exited(Exit),
    Ordered(Order),
    /// The worker has neither brought an outcome nor given a job back for a while.
    Blocked,
    TooLate,
    NodeStops,
}

/// Why a worker ends before its time.
enum Trouble {
    /// Its socket ended while it lived, or it died.
    Gone,
    /// It said that it exits.
    Left,
    /// It did something that the protocol does not allow.
    Protocol(ProtocolError),
    /// It says that it cannot start.
    Bye(Option<String>),
    /// It did not get ready in time.
    TooLate,
    /// It brought an outcome of a job that it does not hold.
    Stale,
}

impl From<ProtocolError> for Trouble {
    fn from(error: ProtocolError) -> Trouble {
        Trouble::Protocol(error)
    }
}

pub(super) struct Life<E> {
    plan: Arc<Plan>,
    events: Arc<E>,
    warden: Warden,
    id: ProcessId,
    wire: Wire,
    inbox: Inbox,
    /// What of a result in receipt counts.
    receipt: Receipt,
    line: Arc<Line>,
    capture: Capture,
    exit: oneshot::Receiver<Exit>,
    exited: Option<Exit>,
    worker: Option<WorkerKey>,
    tail: Tail,
    /// Whether what it writes is read although it holds jobs ahead.
    blocked: bool,
    /// Whether it was asked to go.
    asked: bool,
    /// Whether it has brought an outcome.
    worked: bool,
    born: Instant,
    evidence: Evidence,
    oom_kills: OomKills,
}

impl<E: Events> Life<E> {
    pub(super) fn new(
        plan: Arc<Plan>,
        events: Arc<E>,
        warden: Warden,
        process: Process,
        oom_kills: OomKills,
    ) -> io::Result<Life<E>> {
        let Process { id, socket, stdout, stderr, exit } = process;
        Ok(Life {
            inbox: Inbox::new(plan.largest),
            receipt: Receipt::new(plan.memory.clone()),
            plan,
            events,
            warden,
            id,
            wire: Wire::new(socket)?,
            line: Arc::default(),
            capture: Capture::new(stdout, stderr)?,
            exit,
            exited: None,
            worker: None,
            tail: Tail::default(),
            blocked: false,
            asked: false,
            worked: false,
            born: Instant::now(),
            evidence: Evidence::default(),
            oom_kills,
        })
    }

    /// Lives until the worker ends, is retired, or the node stops; the error says why it never got ready.
    pub(super) async fn live(
        mut self,
        stop: &mut watch::Receiver<bool>,
        on_ready: impl FnOnce(),
    ) -> Result<End<E>, String> {
        let mut on_ready = Some(on_ready);
        let trouble = loop {
            let step = self.step(stop).await;
            let trouble = match step {
                Step::Received => {
                    let trouble = self.receive().err();
                    self.receipt.count(&mut self.inbox);
                    trouble
                }
                Step::Closed => Some(Trouble::Gone),
                Step::Printed => {
                    self.print();
                    // A worker that writes without end must not keep the others from their turn.
                    tokio::task::yield_now().await;
                    None
                }
                Step::Exited(exit) => {
                    self.exited = Some(exit);
                    // What it said before it died still counts.
                    Some(self.receive_rest().err().unwrap_or(Trouble::Gone))
                }
                Step::Ordered(Order::Stop(signal)) => {
                    self.signal(signal);
                    None
                }
                Step::Blocked => {
                    self.blocked = true;
                    None
                }
                Step::Ordered(Order::Retire) => return Ok(End::Retired(Box::new(self))),
                Step::Ordered(Order::Leave) => {
                    self.let_go().await;
                    return Ok(End::Stopped);
                }
                Step::TooLate => Some(Trouble::TooLate),
                Step::NodeStops => {
                    self.let_go().await;
                    return Ok(End::Stopped);
                }
            };
            if self.worker.is_some()
                && let Some(on_ready) = on_ready.take()
            {
                on_ready();
            }
            if let Some(trouble) = trouble {
                break trouble;
            }
        };
        // A function that ends its worker is its caller's affair, and how often it is tried is bounded: no sign that workers do not
        // start.
        let worked = self.worked || (self.plan.calls && self.line.holds_any());
        let was_ready = self.worker.is_some();
        let why = self.end(trouble).await;
        if was_ready { Ok(End::Lost { worked }) } else { Err(why) }
    }

    /// Lets the worker go in peace: it is told, then asked, then killed.
    pub(super) async fn let_go(&mut self) {
        self.asked = true;
        self.line.outbox().bye();
        for (patience, signal) in [(self.plan.grace, Stop::Terminate), (TERM_TO_KILL, Stop::Kill)] {
            if tokio::time::timeout(patience, self.until_gone()).await.is_ok() {
                break;
            }
            self.signal(signal);
        }
        self.end(Trouble::Gone).await;
    }

    async fn until_gone(&mut self) {
        let (_keep, mut never) = watch::channel(false);
        while self.exited.is_none() {
            match self.step(&mut never).await {
                Step::Received => {
                    // Outcomes of jobs that were told to stop may still come. Nobody waits for them.
                    loop {
                        match self.inbox.next() {
                            Ok(Some(_)) => {}
                            Ok(None) => break,
                            Err(_) => return self.signal(Stop::Kill),
                        }
                    }
                }
                Step::Printed => {
                    self.print();
                    tokio::task::yield_now().await;
                }
                Step::Exited(exit) => self.exited = Some(exit),
                Step::Ordered(Order::Stop(signal)) => self.signal(signal),
                Step::Closed => self.exited = (&mut self.exit).await.ok().or(Some(Exit::unknown())),
                Step::Blocked => self.blocked = true,
                Step::Ordered(Order::Retire | Order::Leave) | Step::TooLate | Step::NodeStops => {}
            }
        }
    }

    /// Waits for the next thing to happen.
    async fn step(&mut self, stop: &mut watch::Receiver<bool>) -> Step {
        let starting = self.worker.is_none();
        let (patience, born) = (self.plan.start_timeout, self.born);
        let waits = !self.may_read() && self.line.was_recalled();
        let ahead = self.plan.calls && !self.blocked;
        let Life { wire, inbox, line, capture, exit, .. } = self;
        let readable = async {
            poll_fn(|_| if ahead && line.holds_ahead() { Poll::Pending } else { Poll::Ready(()) }).await;
            capture.readable().await
        };
        tokio::select! {
            biased;
            step = poll_fn(|cx| traffic(wire, inbox, line, cx)) => step,
            exit = exit => Step::Exited(exit.unwrap_or_else(|_| Exit::unknown())),
            _ = readable => Step::Printed,
            () = async { tokio::time::sleep(BLOCKED).await }, if waits => Step::Blocked,
            // Made when it is asked, so that a worker that is up costs no timer.
            () = async { tokio::time::sleep(patience.saturating_sub(born.elapsed())).await }, if starting => Step::TooLate,
            _ = stop.wait_for(|stop| *stop) => Step::NodeStops,
        }
    }

    /// Takes the messages that are in.
    fn receive(&mut self) -> Result<(), Trouble> {
        while let Some(message) = self.inbox.next()? {
            // What is whole is counted by those who get it.
            self.receipt.end();
            match (message, self.worker) {
                (FromWorker::Ready(_), Some(_)) => return Err(ProtocolError::OutOfTurn("a second READY").into()),
                (FromWorker::Ready(ready), None) => {
                    self.print();
                    let (pid, age) = (self.id.pid(), self.born.elapsed());
                    self.worker = Some(self.events.ready(&self.plan.place, pid, ready, age, self.line.clone()));
                }
                (FromWorker::Outcome { .. }, None) => {
                    return Err(ProtocolError::OutOfTurn("an OUTCOME before READY").into());
                }
                (FromWorker::Outcome { job, attempt, ran_nanos, outcome, printed }, Some(worker)) => {
                    // What was printed before the outcome belongs to its job, a line without an end as well.
                    if self.may_read() {
                        self.print();
                    } else {
                        self.print_counted(printed);
                    }
                    if !matches!(outcome, Outcome::Returned) {
                        self.end_lines();
                        if self.plan.calls {
                            // What one call wrote is no business of the caller whose call the worker dies in.
                            self.tail = Tail::default();
                        }
                    }
                    self.blocked = false;
                    self.line.landed();
                    self.evidence.memory_error |= matches!(outcome, Outcome::Fail(Failure::OutOfMemory { .. }));
                    let landed = Landed { job, attempt, ran: Duration::from_nanos(ran_nanos), outcome };
                    if !self.events.outcome(worker, landed) {
                        return Err(Trouble::Stale);
                    }
                    self.worked = true;
                }
                (FromWorker::Credit(credit), Some(worker)) => self.events.credit(worker, credit),
                (FromWorker::Credit(_), None) => {
                    return Err(ProtocolError::OutOfTurn("a CREDIT before READY").into());
                }
                (FromWorker::Chunk { job, attempt, value }, Some(worker)) => {
                    if !self.events.chunk(worker, job, attempt, value) {
                        return Err(Trouble::Stale);
                    }
                }
                (FromWorker::State { number, ask, .. }, Some(worker)) => self.events.state(worker, number, &ask),
                (FromWorker::Chunk { .. } | FromWorker::State { .. }, None) => {
                    return Err(ProtocolError::OutOfTurn("a CHUNK or a STATE before READY").into());
                }
                (FromWorker::Bye { error }, None) => return Err(Trouble::Bye(error)),
                (FromWorker::Bye { .. }, Some(_)) => return Err(Trouble::Left),
            }
        }
        Ok(())
    }

    /// Reads what the worker had written before it died, and takes the messages in it.
    fn receive_rest(&mut self) -> Result<(), Trouble> {
        loop {
            match self.wire.read_now(self.inbox.room()) {
                0 => return Ok(()),
                count => self.inbox.filled(count),
            }
            self.receive()?;
        }
    }

    /// Whether all that is in the pipes belongs to the job at hand. Where jobs wait behind it and what is written matters byte for
    /// byte, it is left there until the worker says how much of it is whose.
    fn may_read(&self) -> bool {
        !self.plan.calls || self.blocked || !self.line.holds_ahead()
    }

    /// Passes on what the worker has printed up to now, if it can be said whose it is.
    fn print(&mut self) {
        if !self.may_read() {
            return;
        }
        let Life { capture, tail, events, plan, id, worker, .. } = self;
        let mut give = |stream, line: &str, wanted: bool| {
            if stream == Stream::Stderr {
                tail.push(line);
            }
            if !wanted {
                events.output(&plan.place, id.pid(), *worker, stream, line);
            }
        };
        // Once: that is all that was there, unless somebody writes without end.
        match worker.filter(|_| plan.calls) {
            None => capture.drain(&mut |_, _| false, &mut give),
            Some(worker) => capture.drain(&mut |stream, bytes| events.printed(worker, stream, bytes), &mut give),
        };
    }

    /// Passes on so many bytes of each stream: what the job at hand has left there.
    fn print_counted(&mut self, counts: [u64; 2]) {
        let Some(worker) = self.worker.filter(|_| counts != [0, 0]) else { return };
        let Life { capture, tail, events, .. } = self;
        capture.take(counts, &mut |stream, bytes| events.printed(worker, stream, bytes), &mut |stream, line, _| {
            if stream == Stream::Stderr {
                tail.push(line);
            }
        });
    }

    /// Passes on lines that have begun and not ended.
    fn end_lines(&mut self) {
        let Life { capture, tail, events, plan, id, worker, .. } = self;
        let wanted = plan.calls && worker.is_some();
        capture.finish(&mut |stream, line| {
            if stream == Stream::Stderr {
                tail.push(line);
            }
            // The bytes of calls were passed on as they came.
            if !wanted {
                events.output(&plan.place, id.pid(), *worker, stream, line);
            }
        });
    }

    fn signal(&mut self, signal: Stop) {
        let signal = match signal {
            Stop::Terminate => Signal::Terminate,
            Stop::Kill => Signal::Kill,
        };
        self.evidence.killed_by_node = true;
        self.warden.signal(self.id, signal, Target::Group);
    }

    /// Makes sure that the worker is dead, and tells its death. Returns the short of why.
    async fn end(&mut self, trouble: Trouble) -> String {
        if self.exited.is_none() && matches!(trouble, Trouble::Left | Trouble::Bye(_)) {
            self.exited = tokio::time::timeout(EXIT_AFTER_BYE, &mut self.exit).await.ok().and_then(Result::ok);
        }
        if self.exited.is_none() {
            self.evidence.killed_by_node |= !matches!(trouble, Trouble::Gone);
            // It may be dying already; then this changes nothing about how.
            self.warden.signal(self.id, Signal::Kill, Target::Group);
            let exit = tokio::time::timeout(EXIT_PATIENCE, &mut self.exit).await;
            self.exited = Some(exit.ok().and_then(Result::ok).unwrap_or_else(Exit::unknown));
        }
        // Nothing more will be said of whose it is: it goes to the job at hand.
        self.blocked = true;
        self.print();
        self.end_lines();
        self.evidence.oom_kills_rose = self.oom_kills.rose();
        let exit = self.exited.clone().unwrap_or_else(Exit::unknown);
        let certificate = Certificate::new(&exit, self.evidence, self.id.pid(), self.born.elapsed(), self.tail.take());
        let why = match trouble {
            Trouble::Gone | Trouble::Left => match certificate.how {
                How::Signal(_) => format!("was {}", certificate.cause()),
                How::Code(_) => certificate.cause(),
                How::Unknown => "died, and nobody saw how".to_owned(),
            },
            Trouble::Protocol(error) => format!("broke the worker protocol: {error}"),
            Trouble::Stale => "broke the worker protocol: an outcome of a job that it does not hold".to_owned(),
            Trouble::Bye(Some(error)) => error,
            Trouble::Bye(None) => "left before it was ready".to_owned(),
            Trouble::TooLate => format!("was not ready within {:?}", self.plan.start_timeout),
        };
        if let Some(worker) = self.worker {
            let gone = Gone { cause: why.clone(), asked: self.asked, certificate: &certificate };
            self.events.lost(&self.plan.place, worker, gone);
        }
        why
    }
}

/// Writes what is to be said, and reads what is there. Pending while there is neither an order nor anything to read.
fn traffic(wire: &mut Wire, inbox: &mut Inbox, line: &Line, cx: &mut Context<'_>) -> Poll<Step> {
    line.register(cx.waker());
    if let Some(order) = line.take_order() {
        return Poll::Ready(Step::Ordered(order));
    }
    let mut outbox = line.outbox();
    while !outbox.is_empty() {
        match wire.poll_write(cx, outbox.bytes()) {
            Poll::Ready(Ok(count)) => outbox.wrote(count),
            // The reading side will see the end, after all that was said before it.
            Poll::Ready(Err(_)) | Poll::Pending => break,
        }
    }
    drop(outbox);
    match wire.poll_read(cx, inbox.room()) {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Ok(count @ 1..)) => {
            inbox.filled(count);
            Poll::Ready(Step::Received)
        }
        Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Step::Closed),
    }
}
