//! Where events wait for whoever takes them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Letters in the order in which they came, taken in batches by one reader: a thread that waits, or a task that awaits.
#[derive(Debug)]
pub struct Mailbox<T> {
    inside: Mutex<Inside<T>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct Inside<T> {
    letters: Vec<T>,
    /// Nothing more will come.
    over: bool,
    /// How many threads wait. Nobody is notified if there is none: that would be a system call for each batch.
    waiting: usize,
    waker: Option<Waker>,
}

impl<T> Mailbox<T> {
    pub(crate) fn new() -> Self {
        let inside = Inside { letters: Vec::new(), over: false, waiting: 0, waker: None };
        Self { inside: Mutex::new(inside), arrived: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inside<T>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn deliver(&self, letters: impl IntoIterator<Item = T>) {
        self.change(|inside| inside.letters.extend(letters));
    }

    pub(crate) fn close(&self) {
        self.change(|inside| inside.over = true);
    }

    fn change(&self, change: impl FnOnce(&mut Inside<T>)) {
        let mut inside = self.lock();
        change(&mut inside);
        let waker = inside.waker.take();
        let waiting = inside.waiting > 0;
        drop(inside);
        if waiting {
            self.arrived.notify_all();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether there is nothing to take, and something may still come.
    pub(crate) fn is_empty(&self) -> bool {
        let inside = self.lock();
        inside.letters.is_empty() && !inside.over
    }

    /// Takes what is there. Waits if there is nothing, at most for `timeout`, and then returns an empty list. None: nothing is
    /// left, and nothing will come.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Vec<T>> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut inside = self.lock();
        loop {
            if !inside.letters.is_empty() {
                return Some(std::mem::take(&mut inside.letters));
            }
            if inside.over {
                return None;
            }
            let left = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Some(Vec::new()),
                Some(left) => left,
                // Waking once in a while costs nothing and saves a second way to wait.
                None => Duration::from_secs(3600),
            };
            inside.waiting += 1;
            inside = self.arrived.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0;
            inside.waiting -= 1;
        }
    }

    /// Takes what is there, as soon as there is something. None: nothing is left, and nothing will come.
    pub async fn recv(&self) -> Option<Vec<T>> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// The same for futures that are written by hand.
    pub fn poll_recv(&self, context: &mut Context<'_>) -> Poll<Option<Vec<T>>> {
        let mut inside = self.lock();
        if !inside.letters.is_empty() {
            return Poll::Ready(Some(std::mem::take(&mut inside.letters)));
        }
        if inside.over {
            return Poll::Ready(None);
        }
        inside.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
