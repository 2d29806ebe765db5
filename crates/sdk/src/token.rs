//! The secret that a client shows to its node.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use http::HeaderValue;
use http::uri::Authority;
use rustix::fs::{CWD, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::Error;

/// The most that a token file may hold: far more than a token, and far less than a device gives.
const MOST: u64 = 64 * 1024;

/// A token, and whose it is.
#[derive(Debug)]
pub(crate) struct Token {
    /// As it stands in the metadata of each request.
    pub(crate) authorization: HeaderValue,
    /// The number of the user who owns its file.
    owner: u32,
}

/// The token, found as [`crate::Options::token_file`] says.
pub(crate) fn find(file: Option<&Path>) -> Result<Token, Error> {
    let named = file.map(Path::to_owned).or_else(|| variable("EVENER_TOKEN_FILE"));
    let (path, contents) = match named {
        Some(path) => {
            let contents = read(File::open(&path));
            (path, contents)
        }
        None => {
            let base = variable("XDG_RUNTIME_DIR").filter(|base| base.is_absolute());
            let folder = match base {
                Some(base) => base.join("evener"),
                None => PathBuf::from(format!("/tmp/evener-{}", rustix::process::geteuid().as_raw())),
            };
            let path = folder.join("token");
            let contents = read(open_private(&folder));
            (path, contents)
        }
    };
    let contents = contents.map_err(|error| {
        let path = path.display();
        let hint = match error.kind() {
            io::ErrorKind::NotFound => {
                "a node of this user writes it when it starts; for the node of another user or machine, set \
                 EVENER_TOKEN_FILE to a copy of its token file"
            }
            _ => "it must be a file that this user can read",
        };
        Error::Unauthorized(format!("there is no token: cannot read {path} ({error}); {hint}"))
    })?;
    let (contents, owner) = contents;
    let authorization = parse(&contents).ok_or_else(|| {
        let path = path.display();
        Error::Unauthorized(format!("{path} does not hold a token: it should be one line of printable characters"))
    })?;
    Ok(Token { authorization, owner })
}

/// Whether `$EVENER_INSECURE` names an address as trusted, among others with commas between them.
fn is_trusted(address: &str) -> bool {
    let trusted = std::env::var("EVENER_INSECURE").unwrap_or_default();
    trusted.split(',').any(|trusted| trusted.trim().eq_ignore_ascii_case(address))
}

/// Whether the token may be sent to whoever listens on a Unix socket, a process of the user with the number `listener`: in a folder
/// like `/tmp` that may be anybody. This user, root and the owner of the token's file have the token already.
pub(crate) fn check_listener(path: &Path, listener: u32, token: &Token) -> Result<(), Error> {
    let user = rustix::process::geteuid().as_raw();
    let address = format!("unix:{}", path.display());
    if [user, 0, token.owner].contains(&listener) || is_trusted(&address) {
        return Ok(());
    }
    Err(Error::Unauthorized(format!(
        "the token is not sent to {address}: user {listener} listens there, which is neither this user ({user}) nor the owner of the \
         token's file ({}). If that is the node, name its address as trusted: EVENER_INSECURE={address}",
        token.owner
    )))
}

/// Whether the token may be sent to that TCP port in the clear: only if `$EVENER_INSECURE` names it, as `HOST:PORT`. On the same
/// machine, too, anybody may listen on a port where no node is.
pub(crate) fn check_trusted(authority: &Authority) -> Result<(), Error> {
    if is_trusted(authority.as_str()) {
        return Ok(());
    }
    Err(Error::Unauthorized(format!(
        "the token is not sent to http://{authority}: whoever listens there would get it. Connect over the node's Unix socket \
         (unix:PATH) or over https, or name the address as trusted: EVENER_INSECURE={authority}"
    )))
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// What a file holds, and who owns it.
fn read(file: io::Result<File>) -> io::Result<(Vec<u8>, u32)> {
    let file = file?;
    let owner = file.metadata()?.uid();
    let mut contents = Vec::new();
    file.take(MOST).read_to_end(&mut contents)?;
    Ok((contents, owner))
}

/// Opens the token of this user's nodes, if nobody else can have put it there: in `/tmp`, a folder of that name may be
/// anybody's, and whoever owns it would learn what this client sends.
fn open_private(folder: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
    private(&rustix::fs::fstat(&folder)?, "its folder")?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(&folder, "token", flags, Mode::empty()).map_err(|error| match error {
        Errno::LOOP => io::Error::other("it is a link"),
        error => error.into(),
    })?;
    private(&rustix::fs::fstat(&file)?, "it")?;
    Ok(File::from(file))
}

fn private(stat: &Stat, what: &str) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid != user {
        return Err(io::Error::other(format!("{what} belongs to user {} and not to user {user}", stat.st_uid)));
    }
    if stat.st_mode & 0o077 != 0 {
        let mode = stat.st_mode & 0o7777;
        return Err(io::Error::other(format!("{what} is open to other users: its mode is {mode:o}")));
    }
    Ok(())
}

fn parse(contents: &[u8]) -> Option<HeaderValue> {
    let text = std::str::from_utf8(contents).ok()?.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut value = HeaderValue::try_from(format!("Bearer {text}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("evener-sdk-token-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            Self(path)
        }

        fn token(&self, contents: &[u8], mode: u32) -> PathBuf {
            let path = self.0.join("token");
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_named_file_is_read_whoever_owns_it() {
        let scratch = Scratch::new("named");
        let path = scratch.token(b"abc123\n", 0o644);
        let token = find(Some(&path)).unwrap();
        assert_eq!(token.authorization, "Bearer abc123");
        assert!(token.authorization.is_sensitive());
    }

    #[test]
    fn a_socket_of_a_stranger_is_not_trusted() {
        let scratch = Scratch::new("stranger");
        let token = find(Some(&scratch.token(b"abc123\n", 0o600))).unwrap();
        let user = rustix::process::geteuid().as_raw();
        let of_another = Token { owner: 4321, ..token };
        for listener in [user, 0, 4321] {
            assert!(check_listener(Path::new("/tmp/node.sock"), listener, &of_another).is_ok());
        }
        let refused = check_listener(Path::new("/tmp/node.sock"), 4322, &of_another).unwrap_err();
        assert_eq!(refused.kind(), "unauthorized");
        assert!(refused.to_string().contains("EVENER_INSECURE=unix:/tmp/node.sock"), "{refused}");
    }

    #[test]
    fn a_missing_or_odd_file_is_an_error_that_names_it() {
        let scratch = Scratch::new("odd");
        for contents in [&b""[..], b"\n", b"two words", b"\xff\xfe"] {
            let path = scratch.token(contents, 0o600);
            let error = find(Some(&path)).unwrap_err();
            assert_eq!(error.kind(), "unauthorized");
            assert!(error.to_string().contains("token: it should be one line"), "{error}");
        }
        let error = find(Some(&scratch.0.join("missing"))).unwrap_err();
        assert!(error.to_string().contains("missing") && error.to_string().contains("EVENER_TOKEN_FILE"), "{error}");
    }

    #[test]
    fn a_found_file_must_be_private() {
        let scratch = Scratch::new("private");
        scratch.token(b"abc", 0o600);
        assert!(open_private(&scratch.0).is_ok());
        scratch.token(b"abc", 0o640);
        assert!(open_private(&scratch.0).unwrap_err().to_string().contains("its mode is 640"));
        fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(open_private(&scratch.0).unwrap_err().to_string().contains("its folder is open to other users"));
    }

    #[test]
    fn a_found_file_must_not_be_a_link() {
        let scratch = Scratch::new("link");
        let elsewhere = scratch.0.join("elsewhere");
        fs::write(&elsewhere, "abc").unwrap();
        symlink(&elsewhere, scratch.0.join("token")).unwrap();
        assert!(open_private(&scratch.0).unwrap_err().to_string().contains("it is a link"));
    }
}
