//! Two questions to a socket that only the kernel can answer.

#![allow(unsafe_code)]

use std::os::fd::RawFd;

/// Whether the client has closed its end, or the connection is broken; also while bytes from it are still unread.
pub(crate) fn has_hung_up(socket: RawFd) -> bool {
    #[cfg(target_os = "linux")]
    const HUNG_UP: libc::c_short = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
    #[cfg(not(target_os = "linux"))]
    const HUNG_UP: libc::c_short = libc::POLLHUP | libc::POLLERR;
    let mut poll = libc::pollfd { fd: socket, events: HUNG_UP, revents: 0 };
    // SAFETY: one pollfd is passed, and its length; the call does not wait and keeps nothing.
    let found = unsafe { libc::poll(&mut poll, 1, 0) };
    found > 0 && poll.revents & HUNG_UP != 0
}

/// Bytes that were written and that the client's side has not taken; 0 where nobody can say.
pub(crate) fn untaken(socket: RawFd) -> u32 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int to where it is pointed; a descriptor that knows no such request answers with an error.
    let asked = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &mut bytes) };
    if asked == 0 { u32::try_from(bytes).unwrap_or(0) } else { 0 }
}
