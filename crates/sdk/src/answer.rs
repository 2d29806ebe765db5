//! One value that comes later.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::mailbox::Mailbox;

/// A value that comes later: wait for it with a thread, or await it.
#[derive(Debug)]
pub struct Answer<T> {
    mailbox: Arc<Mailbox<T>>,
}

/// The other end: it is kept with a value, or, if it is dropped, with the one that was agreed for that case.
#[derive(Debug)]
pub(crate) struct Promise<T> {
    mailbox: Arc<Mailbox<T>>,
    otherwise: Option<T>,
}

/// A promise and its answer. `otherwise` is the answer if the promise is dropped.
pub(crate) fn promise<T>(otherwise: T) -> (Promise<T>, Answer<T>) {
    let mailbox = Arc::new(Mailbox::new());
    (Promise { mailbox: Arc::clone(&mailbox), otherwise: Some(otherwise) }, Answer { mailbox })
}

impl<T> Promise<T> {
    pub(crate) fn keep(mut self, value: T) {
        self.otherwise = Some(value);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.mailbox.deliver(self.otherwise.take());
        self.mailbox.close();
    }
}

impl<T> Answer<T> {
    /// An answer that is there already.
    pub(crate) fn known(value: T) -> Self {
        promise(value).1
    }

    /// Waits for the value, at most for `timeout`; None if it has not come by then, or if it was taken before.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<T> {
        self.mailbox.wait(timeout)?.pop()
    }
}

impl<T> Future for Answer<T> {
    type Output = T;

    /// Never ready again after it was ready once.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match ready!(self.mailbox.poll_recv(context)).and_then(|mut values| values.pop()) {
            Some(value) => Poll::Ready(value),
            None => Poll::Pending,
        }
    }
}
