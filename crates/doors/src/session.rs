//! A session of the API: the calls of one client, and what there is to tell it about them.
//!
//! What the node tells of a call gathers here until the client's stream takes it, all that has gathered in one message. So a
//! client that makes many calls costs few messages, and one that makes a single call waits for nobody.

mod known;
mod outbox;
mod uploads;

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use evener_core::{Code, Problem, RequestId, RequestKey, Reservation, Terms, Withdrawal};
use evener_protocol::api::{self, SessionReply, SessionRequest};
use evener_protocol::{Content, Value};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::codegen::tokio_stream::Stream as AsyncStream;

use self::known::Known;
use self::outbox::Outbox;
use self::uploads::{Upload, Uploads};
use crate::node::{Answered, CallTicket, Called, Caller, Function, Node, Parcel, Stream};

/// How many calls of a session may be without an outcome, or have one that the client has not taken.
pub(crate) const WINDOW: u32 = 4096;
/// How many bytes of input a client may have under way before it should wait.
pub(crate) const WINDOW_BYTES: u64 = 64 << 20;
/// Inputs up to this size are copied out of the message that they came in, which they would otherwise keep alive.
const COPY: usize = 16 * 1024;
/// When a call comes back that was refused for want of room.
const SOON: Duration = Duration::from_millis(20);
/// The most retries of a call.
const MOST_RETRIES: u32 = 1000;
/// Priorities go from minus this to this.
const MOST_PRIORITY: i32 = 100;

/// The most bytes of a name.
const MOST_NAME: usize = 1024;
/// The most functions of one session that come in pieces at a time.
const MOST_UPLOADS: usize = 256;
/// What a function or a call takes beside its body.
const ENTRY: u64 = 512;

/// A name as messages quote it: the beginning of a long one.
fn shown(name: &str) -> String {
    const SHOWN: usize = 100;
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &name[..end], name.len()),
        None => name.to_owned(),
    }
}

/// The number of the next session's flow.
static FLOWS: AtomicU16 = AtomicU16::new(1);

/// The calls of one client.
pub(crate) struct Session<N> {
    node: Arc<N>,
    /// Sessions take turns: its calls are one of the flows of core's queues.
    flow: u16,
    state: Mutex<State>,
    waker: AtomicWaker,
    /// Told when the client has taken something.
    room: Notify,
    /// Told when far too much waits for it.
    overflow: Notify,
}

#[derive(Default)]
struct State {
    /// The calls without an outcome. `None` while the node is being asked.
    calls: HashMap<u64, Option<RequestKey>>,
    outbox: Outbox,
    /// Who wants to know whether a call could be taken back.
    withdrawals: HashMap<u64, Vec<oneshot::Sender<bool>>>,
    /// Why the session ended before its time, until the client is told.
    fault: Option<Status>,
    closed: bool,
}

impl<N> fmt::Debug for Session<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("calls", &self.state().calls.len()).finish_non_exhaustive()
    }
}

impl<N> Session<N> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<N: Node> Session<N> {
    /// A session without calls. `whole`: values are not cut into pieces.
    pub(crate) fn new(node: Arc<N>, whole: bool) -> Arc<Session<N>> {
        let state = State { outbox: Outbox::new(whole), ..State::default() };
        Arc::new(Session {
            node,
            // Two sessions may have the same after very many others; then they share their turns.
            flow: FLOWS.fetch_add(1, Ordering::Relaxed).max(1),
            state: Mutex::new(state),
            waker: AtomicWaker::new(),
            room: Notify::new(),
            overflow: Notify::new(),
        })
    }

    /// The session is over: nobody waits for its calls any more.
    pub(crate) fn close(&self) {
        let calls = {
            let mut state = self.state();
            state.closed = true;
            state.outbox = Outbox::default();
            // Whoever asked hears that nothing was cancelled for them.
            state.withdrawals.clear();
            std::mem::take(&mut state.calls)
        };
        // Not under the lock: the node tells callers under its own.
        calls.into_values().flatten().for_each(|call| self.node.abandon(call));
        self.waker.wake();
        self.room.notify_one();
    }

    /// Waits until so many bytes of values wait for the client that there is hardly room for anybody else's.
    pub(crate) async fn overflowed(&self) {
        self.overflow.notified().await;
    }

    /// Waits until the client has taken enough of what there is for it.
    pub(crate) async fn has_room(&self) {
        loop {
            {
                let state = self.state();
                if state.closed || !state.outbox.is_full() {
                    return;
                }
            }
            self.room.notified().await;
        }
    }

    /// The session ends, and its client is told why.
    pub(crate) fn fail(&self, status: Status) {
        self.state().fault = Some(status);
    }

    /// Takes a call back; false if it goes on, or has ended.
    pub(crate) async fn withdraw(&self, number: u64, kill: bool) -> bool {
        let (tell, told) = oneshot::channel();
        let call = {
            let mut state = self.state();
            let Some(Some(call)) = state.calls.get(&number).copied() else { return false };
            state.withdrawals.entry(number).or_default().push(tell);
            call
        };
        if self.node.withdraw(call, kill) == Withdrawal::GoesOn {
            self.goes_on(number);
        }
        told.await.unwrap_or(false)
    }

    /// What has gathered for the client; `None` if there is nothing, and then the waker is kept.
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Result<SessionReply, Status>>> {
        self.waker.register(cx.waker());
        let mut state = self.state();
        if state.closed
            && let Some(status) = state.fault.take()
        {
            return Poll::Ready(Some(Err(status)));
        }
        match state.outbox.take() {
            Some(reply) => {
                self.room.notify_one();
                Poll::Ready(Some(Ok(reply)))
            }
            None if state.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl<N: Node> Caller for Session<N> {
    fn printed(&self, number: u64, stream: Stream, bytes: &[u8], cut: bool) -> bool {
        let taken = self.state().outbox.printed(number, stream, bytes, cut, self.node.budget());
        self.waker.wake();
        taken
    }

    fn answered(&self, number: u64, called: Called) {
        let stage = match &called.answer {
            Answered::Problem(problem) | Answered::Fallback(problem) => problem.stage,
            Answered::Value(_) | Answered::Reply(_) | Answered::Ended | Answered::Raised(..) => None,
        };
        let stage = stage.map(|stage| self.node.stage_name(stage)).unwrap_or_default();
        let withdrawals = {
            let mut state = self.state();
            if state.calls.remove(&number).is_none() {
                return;
            }
            let cancelled = state.outbox.ended(number, called, stage, self.node.budget());
            if state.outbox.value_bytes() > self.node.budget().limit() / 2 {
                self.overflow.notify_one();
            }
            state.withdrawals.remove(&number).map(|waiting| (waiting, cancelled))
        };
        self.waker.wake();
        let Some((waiting, cancelled)) = withdrawals else { return };
        for tell in waiting {
            // Whoever asked may have gone.
            let _ = tell.send(cancelled);
        }
    }

    fn goes_on(&self, number: u64) {
        let waiting = {
            let mut state = self.state();
            state.outbox.goes_on(number);
            state.withdrawals.remove(&number).unwrap_or_default()
        };
        self.waker.wake();
        for tell in waiting {
            let _ = tell.send(false);
        }
    }
}

/// The client's side of a session, as it comes in.
pub(crate) struct Intake<N> {
    session: Arc<Session<N>>,
    functions: Known,
    uploads: Uploads,
}

impl<N: Node> Intake<N> {
    pub(crate) fn new(session: Arc<Session<N>>) -> Intake<N> {
        Intake { session, functions: Known::default(), uploads: Uploads::default() }
    }

    /// Acts on a message. The error ends the session: the client does not keep to the rules.
    pub(crate) fn receive(&mut self, message: SessionRequest) -> Result<(), Status> {
        for function in message.functions {
            self.function(function)?;
        }
        for call in message.calls {
            let id = self.session.node.new_id();
            self.call(id, call)?;
        }
        for part in message.parts {
            self.part(part)?;
        }
        for cancel in message.cancels {
            self.cancel(&cancel);
        }
        Ok(())
    }

    /// Takes a function in, or its first piece.
    pub(crate) fn function(&mut self, function: api::Function) -> Result<(), Status> {
        let api::Function { hash, name, python, body, more, size } = function;
        let Ok(hash) = <[u8; 32]>::try_from(&hash[..]) else {
            return Err(Status::invalid_argument("a function's hash has 32 bytes: the SHA-256 of its body"));
        };
        if name.len() > MOST_NAME || python.len() > MOST_NAME {
            let (bytes, most) = (name.len().max(python.len()), MOST_NAME);
            let detail = format!("the name of a function, or of its Python, has {bytes} bytes, and {most} is the most");
            return Err(Status::invalid_argument(detail));
        }
        if more && self.uploads.functions() >= MOST_UPLOADS {
            let detail =
                format!("{MOST_UPLOADS} functions are coming in pieces, which is the most: end one before the next");
            return Err(Status::resource_exhausted(detail));
        }
        if self.uploads.has_function(&hash) {
            return Err(Status::invalid_argument("a function was sent again before the last piece of it"));
        }
        let size = size.max(body.len() as u64);
        let budget = self.session.node.budget();
        if size > budget.limit() {
            // Its calls will be told; there is nobody else to tell.
            self.functions.refuse(hash);
            return Ok(());
        }
        let Some(held) = budget.reserve(size + ENTRY) else {
            // Its calls will say that the function is unknown, and then it may be sent again.
            return Ok(());
        };
        if more {
            self.uploads.begin_function(hash, name, python, &body, size, held);
            return Ok(());
        }
        self.define(hash, name, python, Bytes::copy_from_slice(&body), held)
    }

    fn define(
        &mut self,
        hash: [u8; 32],
        name: String,
        python: String,
        body: Bytes,
        held: Reservation,
    ) -> Result<(), Status> {
        if uploads::sha256(&body) != hash {
            return Err(Status::invalid_argument("a function's hash is not the SHA-256 of its body"));
        }
        let function = self.session.node.define(hash, name, python, body, held);
        self.functions.insert(function);
        Ok(())
    }

    /// Takes a call in, or its first piece.
    pub(crate) fn call(&mut self, id: RequestId, call: api::Call) -> Result<(), Status> {
        let number = call.number;
        {
            let mut state = self.session.state();
            if state.closed {
                return Ok(());
            }
            if number == 0 || state.calls.contains_key(&number) {
                return Err(Status::invalid_argument(format!("a call has the number {number}, which is 0 or in use")));
            }
            let waiting = state.calls.len() + state.outbox.waiting();
            state.calls.insert(number, None);
            if waiting >= WINDOW as usize {
                drop(state);
                let detail =
                    format!("{waiting} calls of this session have no outcome that was taken, as many as may be");
                self.refuse(id, number, Problem::new(Code::QueueFull, detail).retry_after(SOON));
                return Ok(());
            }
        }
        match self.admit(&call) {
            Err(problem) => self.refuse(id, number, problem),
            Ok(held) if call.more => self.uploads.begin_call(id, call, held),
            Ok(held) => self.submit(id, call, held),
        }
        Ok(())
    }

    /// Whether a call can be let in as far as it is known, and memory for what has come of its input.
    fn admit(&mut self, call: &api::Call) -> Result<Reservation, Problem> {
        let node = &*self.session.node;
        let bad = |detail: String| Err(Problem::new(Code::BadCall, detail));
        if call.retries > MOST_RETRIES {
            return bad(format!("a call may be tried again {MOST_RETRIES} times, not {}", call.retries));
        }
        if call.priority.saturating_abs() > MOST_PRIORITY {
            return bad(format!(
                "a priority lies between -{MOST_PRIORITY} and {MOST_PRIORITY}; this one is {}",
                call.priority
            ));
        }
        let size = call.size.max(call.input.len() as u64);
        if size > node.budget().limit() {
            return Err(self.never_fits("the input", size));
        }
        let function = self.function_of(call)?.hash;
        self.functions.used(&function);
        self.pool_of(call)?;
        let held = self.session.node.budget().reserve(size + ENTRY);
        held.ok_or_else(|| self.memory_full())
    }

    fn never_fits(&self, what: &str, size: u64) -> Problem {
        let most = self.session.node.budget().limit();
        let size = if size > 0 { format!("{size} bytes") } else { "more bytes".to_owned() };
        let detail = format!("{what} has {size}, and the node holds {most} bytes in all (`limits.memory`)");
        Problem::new(Code::BodyTooLarge, detail)
    }

    fn memory_full(&self) -> Problem {
        let budget = self.session.node.budget();
        let detail = format!("the node holds {} bytes of payload, and {} is the most", budget.used(), budget.limit());
        Problem::new(Code::MemoryFull, detail).retry_after(SOON)
    }

    fn function_of(&self, call: &api::Call) -> Result<&Arc<Function>, Problem> {
        let hash = <[u8; 32]>::try_from(&call.function[..]).ok();
        if hash.is_some_and(|hash| self.functions.is_refused(&hash)) {
            return Err(self.never_fits("the function", 0));
        }
        hash.and_then(|hash| self.functions.get(&hash)).ok_or_else(|| {
            let detail = "the call is of a function that this session has not sent, or that the node had no memory for";
            Problem::new(Code::UnknownFunction, detail).retry_after(SOON)
        })
    }

    fn pool_of(&self, call: &api::Call) -> Result<evener_core::StageId, Problem> {
        let node = &*self.session.node;
        let name = if call.pool.is_empty() { "default" } else { &call.pool };
        let Some(pool) = node.pool(name) else {
            let names: Vec<&str> = node.pools().iter().map(|pool| pool.name.as_str()).collect();
            let there = match &names[..] {
                [] => "this node takes no functions: its service file has no `functions`".to_owned(),
                names => format!("there is {}", names.join(", ")),
            };
            let name = shown(name);
            return Err(Problem::new(Code::UnknownPool, format!("there is no pool `{name}`; {there}")));
        };
        let function = self.function_of(call)?;
        let python = node.pools().iter().find(|pool| pool.name == name).map_or("", |pool| &pool.python);
        if !python.is_empty() && !function.python.is_empty() && python != function.python {
            let detail = format!(
                "function `{}` comes from Python {}, and pool `{name}` runs Python {python}: what travels by value needs the \
                 same minor version on both sides",
                function.name, function.python
            );
            return Err(Problem::new(Code::PythonMismatch, detail).in_stage(pool));
        }
        Ok(pool)
    }

    /// A call is whole: on to the node with it.
    fn submit(&self, id: RequestId, call: api::Call, held: Reservation) {
        let number = call.number;
        let ticket = match self.ticket(id, call, held) {
            Ok(ticket) => ticket,
            Err(problem) => return self.refuse(id, number, problem),
        };
        match self.session.node.call(ticket) {
            Ok(key) => {
                let gone = {
                    let mut state = self.session.state();
                    if let Some(place) = state.calls.get_mut(&number) {
                        *place = Some(key);
                    }
                    state.closed
                };
                if gone {
                    self.session.node.abandon(key);
                }
            }
            Err(mut problem) => {
                if problem.code == Code::QueueFull {
                    // What core says is for people, in whole seconds. A session comes back sooner, and with fewer calls at a time.
                    problem.retry_after = Some(SOON);
                }
                self.end(id, number, Answered::Problem(problem));
            }
        }
    }

    fn ticket(&self, id: RequestId, call: api::Call, held: Reservation) -> Result<CallTicket, Problem> {
        let (function, pool) = (self.function_of(&call)?.clone(), self.pool_of(&call)?);
        let bytes = if call.input.len() <= COPY { Bytes::copy_from_slice(&call.input) } else { call.input };
        let timeout = match call.timeout_ns {
            0 => Duration::MAX,
            nanos => Duration::from_nanos(nanos),
        };
        Ok(CallTicket {
            id,
            pool,
            function,
            group: call.group,
            terms: Terms {
                flow: self.session.flow,
                retries: Some(call.retries),
                timeout: Some(timeout),
                function: None,
                // Within the limits by now.
                priority: i8::try_from(call.priority).unwrap_or(0),
            },
            discard_output: call.discard_output,
            input: Parcel { value: Value { content: Content::Bytes, bytes }, held: Some(Arc::new(held)) },
            caller: self.session.clone(),
            number: call.number,
        })
    }

    fn part(&mut self, part: api::Part) -> Result<(), Status> {
        let Some(upload) = self.uploads.part(&part) else { return Ok(()) };
        match upload {
            Upload::Goes => Ok(()),
            Upload::NoRoom(Some((id, number, size))) => {
                let fits = size <= self.session.node.budget().limit();
                let problem = if fits { self.memory_full() } else { self.never_fits("the input", size) };
                self.refuse(id, number, problem);
                Ok(())
            }
            Upload::NoRoom(None) => Ok(()),
            Upload::Function { hash, name, python, body, held } => self.define(hash, name, python, body, held),
            Upload::Call { id, call, held } => {
                self.submit(id, *call, held);
                Ok(())
            }
        }
    }

    fn cancel(&mut self, cancel: &api::Cancel) {
        let api::Cancel { number, kill } = *cancel;
        let call = self.session.state().calls.get(&number).copied();
        match call {
            // It has ended; its outcome is on its way.
            None => {}
            // Its input is still coming.
            Some(None) => {
                if let Some(id) = self.uploads.drop_call(number) {
                    self.refuse(id, number, Problem::new(Code::Cancelled, "the call was cancelled before it began"));
                }
            }
            Some(Some(key)) if self.session.node.withdraw(key, kill) == Withdrawal::GoesOn => {
                self.session.goes_on(number);
            }
            Some(Some(_)) => {}
        }
    }

    /// A call is not let in, for a reason that is found here.
    fn refuse(&self, id: RequestId, number: u64, problem: Problem) {
        let answer = self.session.node.refused(id, problem, evener_core::FallbackOn::default());
        self.end(id, number, answer);
    }

    fn end(&self, id: RequestId, number: u64, answer: Answered) {
        self.session.answered(number, Called { id, answer, worker: 0, ran: Duration::ZERO, tries: 0 });
    }
}

/// What a session tells its client, as a stream. The session is over when it is dropped, or when the client's side ends.
pub(crate) struct Replies<N: Node> {
    session: Arc<Session<N>>,
    welcome: Option<api::Welcome>,
    intake: Option<AbortHandle>,
}

impl<N: Node> Replies<N> {
    pub(crate) fn new(session: Arc<Session<N>>, welcome: Option<api::Welcome>, intake: Option<AbortHandle>) -> Self {
        Replies { session, welcome, intake }
    }

    /// Nothing more is to come.
    pub(crate) fn end(&self) {
        self.session.close();
    }
}

impl<N: Node> AsyncStream for Replies<N> {
    type Item = Result<SessionReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(welcome) = self.welcome.take() {
            let reply = SessionReply { welcome: Some(welcome), ..SessionReply::default() };
            return Poll::Ready(Some(Ok(reply)));
        }
        self.session.poll_take(cx)
    }
}

impl<N: Node> Drop for Replies<N> {
    fn drop(&mut self) {
        if let Some(intake) = &self.intake {
            intake.abort();
        }
        self.session.close();
    }
}
