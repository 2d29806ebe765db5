//! Where callers, what goes out and what comes in meet: the ledger under one lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use evener_protocol::api;
use tokio::sync::Notify;

use super::ledger::{Effect, Ledger, Message, Undefined};
use crate::answer::Promise;
use crate::error::Error;
use crate::event::{Event, Problem};
use crate::mailbox::Mailbox;
use crate::work::{Definition, Work};

/// With so many calls at the node, new ones can wait a moment for company: the workers have enough to do.
const ENOUGH: u32 = 64;

/// Where the events of a call go: to a mailbox of its own, or to that of the session.
type Sink = Option<Arc<Mailbox<Event>>>;

/// A session as its handles, its outgoing and its incoming side see it.
#[derive(Debug)]
pub(super) struct Desk {
    inside: Mutex<Inside>,
    /// The events of all calls that have no mailbox of their own.
    pub(super) events: Mailbox<Event>,
    /// The session was closed on this side.
    pub(super) closed: Notify,
}

#[derive(Debug)]
struct Inside {
    ledger: Ledger<Sink, Promise<bool>>,
    /// The outgoing side, when it has nothing to do.
    outgoing: Option<Waker>,
    /// The outgoing side looks again by itself in a moment.
    lingering: bool,
    /// Enough calls for all workers of the node, several times over.
    enough: u32,
    /// Why nothing more comes.
    end: Option<Error>,
}

/// What the outgoing side has to do.
#[derive(Debug)]
pub(super) enum Next {
    /// Send this.
    Send(Message),
    /// Wait to be woken, and look again at this time if it comes first.
    Wait(Option<Instant>),
    /// Nothing more will come.
    End,
}

impl Desk {
    pub(super) fn new() -> Self {
        let ledger = Ledger::new(fastrand::u64(..));
        let inside = Inside { ledger, outgoing: None, lingering: false, enough: ENOUGH, end: None };
        Self { inside: Mutex::new(inside), events: Mailbox::new(), closed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, unless the session is over.
    fn open(&self) -> Result<MutexGuard<'_, Inside>, Error> {
        let inside = self.lock();
        match &inside.end {
            None => Ok(inside),
            Some(error) => Err(error.clone()),
        }
    }

    pub(super) fn define(&self, definition: Definition) -> Result<(), Error> {
        self.open()?.ledger.define(definition);
        Ok(())
    }

    pub(super) fn submit(
        &self,
        work: &Work<'_>,
        inputs: impl IntoIterator<Item = Bytes>,
        mailbox: Sink,
    ) -> Result<u64, Error> {
        let mut inside = self.open()?;
        let number = inside
            .ledger
            .submit(work, inputs, &mailbox)
            .map_err(|Undefined| Error::Undefined(format!("the function {:?} was not defined", work.function)))?;
        // Whoever waits for one call alone is not made to wait for others.
        let wake = mailbox.is_some() || !inside.lingering;
        let waker = if wake { inside.outgoing.take() } else { None };
        drop(inside);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(number)
    }

    pub(super) fn cancel(&self, number: u64, kill: bool, answer: Promise<bool>) {
        let mut inside = self.lock();
        inside.ledger.cancel(number, kill, answer);
        self.settle(&mut inside);
        inside.wake();
    }

    /// The node takes calls from now on.
    pub(super) fn welcome(&self, welcome: &api::Welcome) {
        let mut inside = self.lock();
        inside.ledger.welcome(welcome.window, welcome.window_bytes);
        let workers = welcome.pools.iter().map(|pool| pool.workers).fold(0, u32::saturating_add);
        inside.enough = ENOUGH.max(workers.saturating_mul(4));
        inside.wake();
    }

    /// The node has said something.
    pub(super) fn reply(&self, now: Instant, reply: api::SessionReply) {
        let mut inside = self.lock();
        if inside.end.is_some() {
            return;
        }
        inside.ledger.reply(now, reply);
        self.settle(&mut inside);
        if inside.ledger.has_more() {
            inside.wake();
        }
    }

    /// The session is over: every call without an outcome gets a problem as its outcome. Only the first end counts.
    pub(super) fn end(&self, error: Error) {
        let mut inside = self.lock();
        if inside.end.is_some() {
            return;
        }
        let problem = match &error {
            Error::Closed => Problem::new("session-closed", "the session was closed before the call had ended"),
            error => Problem { retryable: true, ..Problem::new("engine-lost", error.to_string()) },
        };
        inside.end = Some(error);
        inside.ledger.end(&problem);
        self.settle(&mut inside);
        self.events.close();
        inside.wake();
        drop(inside);
        self.closed.notify_one();
    }

    /// What the outgoing side has to do. `idle`: it has sent nothing since it asked the last time.
    pub(super) fn next(&self, now: Instant, idle: bool, waker: &Waker) -> Next {
        let mut inside = self.lock();
        if inside.end.is_some() {
            return Next::End;
        }
        if let Some(message) = inside.ledger.next(now) {
            return Next::Send(message);
        }
        inside.outgoing = Some(waker.clone());
        // Callers that submit one call after the other would otherwise have each sent alone. A reply ends the wait, and comes
        // soon, if the calls are short.
        inside.lingering = !idle && inside.ledger.in_flight() >= inside.enough;
        let linger = inside.lingering.then(|| now + super::outgoing::LINGER);
        Next::Wait(linger.into_iter().chain(inside.ledger.wake_at()).min())
    }

    /// Tells everyone what they wait for. The lock is held meanwhile, so that what concerns one call keeps its order.
    fn settle(&self, inside: &mut Inside) {
        let mut batch = Vec::new();
        for effect in inside.ledger.effects() {
            match effect {
                Effect::Event { sink: None, event } => batch.push(event),
                Effect::Event { sink: Some(mailbox), event } => {
                    let last = event.what.is_outcome();
                    mailbox.deliver([event]);
                    if last {
                        mailbox.close();
                    }
                }
                Effect::Cancelled { answer, cancelled } => answer.keep(cancelled),
            }
        }
        if !batch.is_empty() {
            self.events.deliver(batch);
        }
    }
}

impl Inside {
    fn wake(&mut self) {
        if let Some(waker) = self.outgoing.take() {
            waker.wake();
        }
    }
}
