//! What workers print: from bytes in two pipes to lines that are safe to show.
//!
//! Memory stays bounded whatever a worker prints: a long line is cut, and only the last lines are
//! kept. When nobody reads, the pipes fill and the worker waits.

mod capture;
mod lines;
mod printable;

pub use capture::{Capture, Drained, Stream};
pub use lines::{CUT, LONGEST_LINE, LineSplitter, TAIL_BYTES, TAIL_LINES, Tail};
pub use printable::printable;
