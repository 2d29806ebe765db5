//! The node's end of a worker's socket.
//!
//! Each time a peer reads from a Unix socket, the kernel reports to the other end that there is room to write. A node that
//! waited for that would wake for nothing once a job, so here the socket is watched for reading alone, and for writing only
//! while a write has to wait.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

fn watch<T: AsFd + AsRawFd>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: both types that come here own their descriptor, keep it open until they are dropped, and always name the same
    // one; the AsyncFd owns them from here on and only lends them out by shared reference.
    #[allow(unsafe_code)]
    let watched = unsafe { AsyncFd::register_with_interest(socket, interest) };
    watched.map_err(io::Error::from)
}

/// A stream socket that does not block.
#[derive(Debug)]
pub(super) struct Wire {
    reading: AsyncFd<UnixStream>,
    /// While a write has to wait.
    writing: Option<AsyncFd<OwnedFd>>,
}

impl Wire {
    /// Watches a socket, which must not block.
    pub(super) fn new(socket: UnixStream) -> io::Result<Wire> {
        Ok(Wire { reading: watch(socket, Interest::READABLE)?, writing: None })
    }

    /// Reads what is there; 0 is the end.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.reading.poll_read_ready(cx))?;
            match rustix::io::read(self.reading.get_ref(), &mut *room) {
                Ok(count) => {
                    // A read that leaves room has taken all there was.
                    if count > 0 && count < room.len() {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Reads what is there, whether or not the runtime has heard of it yet; 0 is the end, or that there is nothing.
    pub(super) fn read_now(&self, room: &mut [u8]) -> usize {
        rustix::io::read(self.reading.get_ref(), room).unwrap_or(0)
    }

    /// Writes as much as there is room for.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: [&[u8]; 2]) -> Poll<io::Result<usize>> {
        loop {
            let sent = match bytes {
                [bytes, []] => rustix::net::send(self.reading.get_ref(), bytes, SendFlags::NOSIGNAL),
                both => {
                    let slices = both.map(IoSlice::new);
                    let nothing = &mut SendAncillaryBuffer::default();
                    rustix::net::sendmsg(self.reading.get_ref(), &slices, nothing, SendFlags::NOSIGNAL)
                }
            };
            match sent {
                Ok(count) => {
                    self.writing = None;
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let writing = match self.writing.take() {
                        Some(writing) => writing,
                        None => {
                            let same = self.reading.get_ref().try_clone()?;
                            watch(OwnedFd::from(same), Interest::WRITABLE)?
                        }
                    };
                    let room = writing.poll_write_ready(cx);
                    let waiting = match room {
                        Poll::Ready(Ok(mut ready)) => {
                            ready.clear_ready();
                            false
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => true,
                    };
                    self.writing = Some(writing);
                    if waiting {
                        return Poll::Pending;
                    }
                }
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}
