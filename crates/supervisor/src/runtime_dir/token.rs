//! The secret that clients of the API show.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::{RuntimeDir, RuntimeDirError, failed};

const NAME: &str = "token";

/// 64 hexadecimal digits. Its Debug form does not show them.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Reads the token, or makes it. A new token is written in full under another name and then linked
/// to its own, which only the first of several can do; the others read what the first one made.
pub(super) fn read_or_create(dir: &RuntimeDir) -> Result<Token, RuntimeDirError> {
    loop {
        let folder = dir.enter()?;
        if let Some(contents) = dir.read_file(&folder, NAME)? {
            return parse(&contents).ok_or_else(|| RuntimeDirError::Unfit {
                path: dir.path.join(NAME),
                trouble: "does not hold a token".to_owned(),
                remedy: format!("remove it and it is made anew: rm {}", dir.path.join(NAME).display()),
            });
        }
        let token = random().map_err(|source| RuntimeDirError::Io {
            doing: "read random bits from",
            path: "/dev/urandom".into(),
            source,
        })?;
        let temporary = dir.write_temporary(&folder, NAME, format!("{}\n", token.0).as_bytes(), 0o600)?;
        let linked = rustix::fs::linkat(&folder, &temporary, &folder, NAME, AtFlags::empty());
        let _ = rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty());
        match linked {
            Ok(()) => return Ok(token),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("create", &dir.path.join(NAME), error)),
        }
    }
}

fn parse(contents: &[u8]) -> Option<Token> {
    let text = std::str::from_utf8(contents).ok()?.trim_end();
    let is_token = text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_token.then(|| Token(text.to_owned()))
}

fn random() -> io::Result<Token> {
    let mut bits = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bits)?;
    Ok(Token(bits.iter().map(|byte| format!("{byte:02x}")).collect()))
}
