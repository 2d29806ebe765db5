//! Bytes in, lines out.

use std::collections::VecDeque;

/// The longest piece of a line, in bytes. A longer line comes in pieces.
pub const LONGEST_LINE: usize = 16 << 10;

/// What ends every piece of a cut line but the last.
pub const CUT: &str = " [the line goes on]";

/// How many lines a [`Tail`] keeps.
pub const TAIL_LINES: usize = 20;

/// How many bytes of lines a [`Tail`] keeps.
pub const TAIL_BYTES: usize = 16 << 10;

/// Turns the bytes of one stream into lines, however they are cut on their way.
///
/// A line ends with `\n` or `\r\n`, which are not part of it. What is not UTF-8 becomes `U+FFFD`.
#[derive(Debug, Default)]
pub struct LineSplitter {
    /// A line that has not ended yet; always shorter than [`LONGEST_LINE`].
    partial: Vec<u8>,
}

impl LineSplitter {
    /// Takes the next bytes, and gives each line that they end.
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(&str)) {
        while !bytes.is_empty() {
            let room = LONGEST_LINE - self.partial.len();
            let within = &bytes[..bytes.len().min(room)];
            if let Some(end) = within.iter().position(|&byte| byte == b'\n') {
                if self.partial.is_empty() {
                    give(&bytes[..end], sink);
                } else {
                    self.partial.extend_from_slice(&bytes[..end]);
                    give(&self.partial, sink);
                    self.partial.clear();
                }
                bytes = &bytes[end + 1..];
            } else {
                self.partial.extend_from_slice(within);
                bytes = &bytes[within.len()..];
                if self.partial.len() == LONGEST_LINE {
                    self.cut(sink);
                }
            }
        }
        if self.partial.is_empty() && self.partial.capacity() > 1024 {
            self.partial = Vec::new();
        }
    }

    /// Gives the line that has not ended, if there is one: the stream has ended, or what comes next
    /// belongs to another job.
    pub fn finish(&mut self, sink: &mut impl FnMut(&str)) {
        if !self.partial.is_empty() {
            give(&self.partial, sink);
            self.partial = Vec::new();
        }
    }

    /// Gives all of the partial line but the beginning of a character that has not come in full.
    fn cut(&mut self, sink: &mut impl FnMut(&str)) {
        let whole = self.partial.len() - begun_character(&self.partial);
        let mut piece = String::from_utf8_lossy(&self.partial[..whole]).into_owned();
        piece.push_str(CUT);
        sink(&piece);
        self.partial.drain(..whole);
    }
}

fn give(line: &[u8], sink: &mut impl FnMut(&str)) {
    sink(&String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)));
}

/// How many bytes at the end are the beginning of a character that is longer.
fn begun_character(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let needs = match bytes[bytes.len() - back] {
            0x80..0xc0 => continue,
            0xc0..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0..0xf8 => 4,
            _ => 1,
        };
        return if needs > back { back } else { 0 };
    }
    0
}

/// The last lines of a stream: at most [`TAIL_LINES`] of them and [`TAIL_BYTES`] in all.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    /// Adds a line, and forgets the oldest ones for it if need be.
    pub fn push(&mut self, line: &str) {
        let within = line.len().min(TAIL_BYTES);
        let line = &line[..within - begun_character(&line.as_bytes()[..within])];
        self.bytes += line.len();
        self.lines.push_back(line.to_owned());
        while self.lines.len() > TAIL_LINES || self.bytes > TAIL_BYTES {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
    }

    /// The lines, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// The lines for a certificate, oldest first; nothing is left here.
    pub fn take(&mut self) -> Vec<String> {
        self.bytes = 0;
        std::mem::take(&mut self.lines).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pieces: &[&[u8]]) -> Vec<String> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        let mut sink = |line: &str| lines.push(line.to_owned());
        for piece in pieces {
            splitter.push(piece, &mut sink);
        }
        splitter.finish(&mut sink);
        lines
    }

    #[test]
    fn lines_however_they_end() {
        assert_eq!(split(&[b"a\nb\r\n\nlast"]), ["a", "b", "", "last"]);
        assert_eq!(split(&[b"a\r", b"\nb", b"b", b"\n"]), ["a", "bb"]);
        assert_eq!(split(&[b"caf\xc3", b"\xa9\n\xff!\n"]), ["caf\u{e9}", "\u{fffd}!"]);
        assert!(split(&[]).is_empty());
    }

    #[test]
    fn a_long_line_comes_in_marked_pieces_and_no_character_is_torn() {
        let line = "x".to_owned() + &"\u{20ac}".repeat(10_000);
        let pieces = split(&[line.as_bytes(), b"\nnext\n"]);
        assert_eq!(pieces.len(), 3);
        let (last, cut) = pieces[..2].split_last().unwrap();
        assert!(pieces.iter().all(|piece| piece.len() <= LONGEST_LINE + CUT.len()));
        let whole: String = cut.iter().map(|piece| piece.strip_suffix(CUT).unwrap()).chain([&last[..]]).collect();
        assert_eq!(whole, line);
        assert_eq!(pieces[2], "next");
    }

    #[test]
    fn the_tail_is_bounded_in_lines_and_bytes() {
        let mut tail = Tail::default();
        (0..50).for_each(|number| tail.push(&number.to_string()));
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert_eq!(tail.lines().next(), Some("30"));
        tail.push(&"\u{20ac}".repeat(TAIL_BYTES));
        assert_eq!(tail.lines().count(), 1);
        tail.push("end");
        let lines = tail.take();
        assert!(lines.iter().map(String::len).sum::<usize>() <= TAIL_BYTES);
        assert_eq!(lines.last().map(String::as_str), Some("end"));
        assert_eq!(tail.lines().count(), 0);
    }

    proptest! {
        #[test]
        fn how_bytes_are_cut_makes_no_difference(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..400),
            size in 1..50_usize,
        ) {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(split(&pieces), split(&[&bytes]));
        }
    }
}
