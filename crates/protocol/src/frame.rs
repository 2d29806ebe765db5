//! The fixed header of a frame.

use thiserror::Error;

/// Bytes of a header.
pub const HEADER: usize = 40;
/// The most bytes of payload, and the most bytes of extension, in one frame.
pub const PART: usize = 256 * 1024;
/// The flag that the payload goes on in PART frames.
pub const MORE: u8 = 1;
/// The flag of a JOB that what it yields goes to its client as it comes.
pub const STREAM: u8 = 2;
/// The flag of a JOB that the next one belongs to the same batch.
pub const BATCH: u8 = 4;
/// How many bytes of a job's chunks a worker may send that nobody has taken.
pub const WINDOW: u32 = 256 * 1024;

/// What a frame is. Number 3 is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A worker can take jobs.
    Ready = 1,
    /// A job for a worker.
    Job = 2,
    /// The next piece of a payload.
    Part = 4,
    /// A piece of a streamed answer.
    Chunk = 5,
    /// How many jobs, or bytes of a job's chunks, may be sent.
    Credit = 6,
    /// What became of a job.
    Outcome = 7,
    /// Nobody waits for a job any more.
    Cancel = 8,
    /// This is the end.
    Bye = 9,
    /// A job is wanted back, if it has not begun.
    Recall = 10,
    /// A function that calls will name, or one that none will name any more.
    Function = 11,
    /// A question about what jobs keep for each other, and the answer.
    State = 12,
}

/// A peer does not keep to the protocol. The connection cannot go on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProtocolError {
    /// A frame kind that is unknown, or reserved, or not for this direction.
    #[error("frame kind {0} is not one that a worker sends")]
    Kind(u8),
    /// A length over the limits, or an extension longer than its frame.
    #[error(
        "a frame says that {length} bytes follow, {extension} of them extension; at most {PART} of each are allowed"
    )]
    Length {
        /// Bytes that follow the header.
        length: u32,
        /// Bytes of extension among them.
        extension: u32,
    },
    /// An unknown flag, content code, verb, reason, or a reserved field that is not zero.
    #[error("the field `{field}` of a frame holds {value}, which means nothing")]
    Field {
        /// Its name in the specification.
        field: &'static str,
        /// What it held.
        value: u64,
    },
    /// A chunk over the limit. The worker waits for credit that nobody will give, so there is no going on.
    #[error("a chunk has {size} bytes, and {largest} is the most")]
    Chunk {
        /// Bytes that came of it.
        size: u64,
        /// How many are kept.
        largest: u64,
    },
    /// The extension is not the JSON object it should be.
    #[error("the extension of a frame is not what the specification says: {0}")]
    Extension(String),
    /// A frame that makes no sense at this point.
    #[error("a frame came out of turn: {0}")]
    OutOfTurn(&'static str),
    /// A worker of another version.
    #[error("the worker speaks version {0} of the protocol, the node speaks version {version}", version = crate::VERSION)]
    Version(u64),
}

/// The header of a frame, all fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes that follow: extension and payload.
    pub length: u32,
    /// The kind's number.
    pub kind: u8,
    /// [`MORE`], and of a JOB also [`STREAM`] and [`BATCH`].
    pub flags: u8,
    /// The content code.
    pub content: u8,
    /// The verb.
    pub verb: u8,
    /// The job.
    pub job: u64,
    /// The fence.
    pub attempt: u32,
    /// Bytes of extension.
    pub extension: u32,
    /// Tries, status or reason.
    pub number: u32,
    /// Which function a call is of.
    pub function: u32,
    /// Time left or time taken.
    pub nanos: u64,
}

impl Header {
    /// A header of that kind with all other fields zero.
    pub fn new(kind: Kind) -> Header {
        Header {
            length: 0,
            kind: kind as u8,
            flags: 0,
            content: 0,
            verb: 0,
            job: 0,
            attempt: 0,
            extension: 0,
            number: 0,
            function: 0,
            nanos: 0,
        }
    }

    /// The header as bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&[self.kind, self.flags, self.content, self.verb]);
        bytes[8..16].copy_from_slice(&self.job.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.attempt.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.extension.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.number.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.function.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.nanos.to_le_bytes());
        bytes
    }

    /// The header of a frame from a worker, in the first [`HEADER`] bytes, checked as far as a header can be checked alone; `None`
    /// if there are fewer. Workers name no functions.
    pub fn decode(bytes: &[u8]) -> Result<Option<Header>, ProtocolError> {
        match Header::parse(bytes)? {
            Some(Header { function: function @ 1.., .. }) => {
                Err(ProtocolError::Field { field: "function", value: function.into() })
            }
            Some(Header { flags, .. }) if flags & !MORE != 0 => {
                Err(ProtocolError::Field { field: "flags", value: flags.into() })
            }
            header => Ok(header),
        }
    }

    /// The same for a frame from either side.
    pub fn parse(bytes: &[u8]) -> Result<Option<Header>, ProtocolError> {
        let Some(bytes) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let header = Header {
            length: u32_at(0),
            kind: bytes[4],
            flags: bytes[5],
            content: bytes[6],
            verb: bytes[7],
            job: u64_at(8),
            attempt: u32_at(16),
            extension: u32_at(20),
            number: u32_at(24),
            function: u32_at(28),
            nanos: u64_at(32),
        };
        let Header { length, extension, .. } = header;
        if extension > length || extension as usize > PART || (length - extension) as usize > PART {
            return Err(ProtocolError::Length { length, extension });
        }
        if header.flags & !(MORE | STREAM | BATCH) != 0 {
            return Err(ProtocolError::Field { field: "flags", value: header.flags.into() });
        }
        Ok(Some(header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        let header = Header {
            length: 0x0102_0304,
            kind: 2,
            flags: MORE,
            content: 1,
            verb: 1,
            job: 0x1122_3344_5566_7788,
            attempt: 9,
            extension: 0x0102_0000,
            number: 3,
            function: 0,
            nanos: u64::MAX - 1,
        };
        let small = Header { length: 300, extension: 200, ..header };
        assert_eq!(Header::decode(&small.encode()), Ok(Some(small)));
        assert_eq!(small.encode()[8], 0x88, "little-endian");
        assert_eq!(Header::decode(&small.encode()[..39]), Ok(None));
        assert!(matches!(Header::decode(&header.encode()), Err(ProtocolError::Length { .. })));
    }
}
