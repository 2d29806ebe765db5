//! The node's end of the line to a worker: what is to be said to it, from whatever thread.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use evener_core::state::StateAnswer;
use evener_core::{JobKey, Stop};
use evener_protocol::{JobHead, Outbox, Value};

/// What the slot of a worker is asked to do, beside writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Let it go, and start another.
    Retire,
    /// Let it go, and start none.
    Leave,
    /// Send its process group a signal.
    Stop(Stop),
}

const RETIRE: u8 = 1;
const TERMINATE: u8 = 2;
const KILL: u8 = 4;
const LEAVE: u8 = 8;

/// The line to one worker. What is said here is written by the worker's slot, in that order, all that has gathered at once.
#[derive(Debug, Default)]
pub struct Line {
    outbox: Mutex<Outbox>,
    orders: AtomicU8,
    waker: AtomicWaker,
    /// Jobs that were sent and have no outcome.
    held: AtomicU32,
    /// Whether a job was called back since the last outcome.
    recalled: AtomicBool,
}

impl Line {
    /// Hands the worker a job.
    pub fn job(&self, head: &JobHead<'_>, value: &Value) {
        self.held.fetch_add(1, Ordering::Relaxed);
        self.outbox().job(head, value);
        self.waker.wake();
    }

    /// Sends the worker a function, before the first call of it. What follows wakes the slot.
    pub fn define(&self, number: u32, body: &Bytes) {
        self.outbox().define(number, body);
    }

    /// Tells the worker that a function will not be called any more.
    pub fn forget(&self, number: u32) {
        self.outbox().forget(number);
        self.waker.wake();
    }

    /// Tells the worker that nobody waits for its job.
    pub fn cancel(&self, job: JobKey, attempt: u32) {
        self.outbox().cancel(job, attempt);
        self.waker.wake();
    }

    /// Calls a job back, if the worker has not begun it.
    pub fn recall(&self, job: JobKey, attempt: u32) {
        self.recalled.store(true, Ordering::Relaxed);
        self.outbox().recall(job, attempt);
        self.waker.wake();
    }

    /// Asks how many jobs the worker takes beyond the one at hand.
    pub fn ask_credit(&self) {
        self.outbox().ask_credit();
        self.waker.wake();
    }

    /// The client took so many bytes of a job's chunks.
    pub fn credit_chunks(&self, job: JobKey, attempt: u32, bytes: u32) {
        self.outbox().credit_chunks(job, attempt, bytes);
        self.waker.wake();
    }

    /// Answers the worker's question with this number.
    pub fn state(&self, number: u32, answer: &StateAnswer) {
        self.outbox().state(number, answer);
        self.waker.wake();
    }

    /// Lets the worker go: it is idle, and another one takes its place.
    pub fn retire(&self) {
        self.order(RETIRE);
    }

    /// Lets the worker go: it is idle, and nobody takes its place.
    pub fn leave(&self) {
        self.order(LEAVE);
    }

    /// Sends the worker's process group a signal.
    pub fn stop(&self, signal: Stop) {
        self.order(match signal {
            Stop::Terminate => TERMINATE,
            Stop::Kill => KILL,
        });
    }

    fn order(&self, bit: u8) {
        self.orders.fetch_or(bit, Ordering::AcqRel);
        self.waker.wake();
    }

    pub(super) fn take_order(&self) -> Option<Order> {
        let orders = self.orders.load(Ordering::Acquire);
        let (bit, order) = match orders {
            0 => return None,
            _ if orders & KILL != 0 => (KILL, Order::Stop(Stop::Kill)),
            _ if orders & TERMINATE != 0 => (TERMINATE, Order::Stop(Stop::Terminate)),
            _ if orders & LEAVE != 0 => (LEAVE, Order::Leave),
            _ => (RETIRE, Order::Retire),
        };
        self.orders.fetch_and(!bit, Ordering::AcqRel);
        Some(order)
    }

    /// Whether the worker holds jobs behind the one that it is at.
    pub(super) fn holds_ahead(&self) -> bool {
        self.held.load(Ordering::Relaxed) > 1
    }

    /// Whether it was sent a job that has no outcome.
    pub(super) fn holds_any(&self) -> bool {
        self.held.load(Ordering::Relaxed) > 0
    }

    /// Whether it was asked to give some of them back.
    pub(super) fn was_recalled(&self) -> bool {
        self.recalled.load(Ordering::Relaxed)
    }

    /// A job has its outcome.
    pub(super) fn landed(&self) {
        self.recalled.store(false, Ordering::Relaxed);
        let one_less = |held: u32| Some(held.saturating_sub(1));
        let _ = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }

    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    pub(super) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
