//! The user's private folder: sockets, the API token, the runtime of Python workers.

mod token;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

pub use token::Token;

/// A folder that only its owner can enter: `$XDG_RUNTIME_DIR/evener`, else `/tmp/evener-<uid>`.
///
/// It is made when it is missing, and looked at again with every use: in `/tmp` a cleaner may have
/// removed it, and then it comes back.
#[derive(Debug, Clone)]
pub struct RuntimeDir {
    path: PathBuf,
}

/// The runtime folder, or a file in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// It is not private (someone else could read or replace what is in it), or not what it must be.
    #[error("{} {trouble}; {remedy}", path.display())]
    Unfit {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        trouble: String,
        /// What to do about it.
        remedy: String,
    },
    /// The system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl From<RuntimeDirError> for io::Error {
    fn from(error: RuntimeDirError) -> Self {
        let kind = match &error {
            RuntimeDirError::Unfit { .. } => io::ErrorKind::PermissionDenied,
            RuntimeDirError::Io { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

impl RuntimeDir {
    /// The folder of the user who runs this process. It is made if it is missing.
    pub fn open() -> Result<Self, RuntimeDirError> {
        let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|base| base.is_absolute());
        Self::at(base.map_or_else(Self::in_tmp, |base| base.join("evener")))
    }

    /// Where it is for a user without a folder for such things.
    fn in_tmp() -> PathBuf {
        PathBuf::from(format!("/tmp/evener-{}", rustix::process::geteuid().as_raw()))
    }

    /// The same at another place, whose parent folder exists.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self, RuntimeDirError> {
        let dir = Self { path: path.into() };
        dir.enter()?;
        Ok(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file whole or not at all: whoever reads it sees what was there before, or all of
    /// `contents`. `mode` is what it may be used for by whom, such as 0o600.
    ///
    /// `name` is a plain name without folders.
    pub fn write_file(&self, name: &str, contents: &[u8], mode: u32) -> Result<PathBuf, RuntimeDirError> {
        let folder = self.enter()?;
        let path = self.path.join(name);
        let temporary = self.write_temporary(&folder, name, contents, mode)?;
        if let Err(error) = rustix::fs::renameat(&folder, &temporary, &folder, name) {
            let _ = rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty());
            return Err(failed("write", &path, error));
        }
        Ok(path)
    }

    /// The token of the API: 256 random bits as 64 hexadecimal digits, in the file `token` that
    /// only its owner can read. Made by the first who asks; two who ask at once get the same.
    pub fn token(&self) -> Result<Token, RuntimeDirError> {
        token::read_or_create(self)
    }

    /// Opens the folder, makes it if need be, and makes sure that it is private.
    fn enter(&self) -> Result<OwnedFd, RuntimeDirError> {
        match rustix::fs::mkdirat(CWD, &self.path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error @ (Errno::NOENT | Errno::ACCESS | Errno::ROFS)) => {
                let trouble = format!("cannot be created ({})", io::Error::from(error));
                let remedy = "set XDG_RUNTIME_DIR to a folder of your own, or unset it".to_owned();
                return Err(RuntimeDirError::Unfit { path: self.path.clone(), trouble, remedy });
            }
            Err(error) => return Err(failed("create the runtime folder", &self.path, error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match rustix::fs::openat(CWD, &self.path, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(self.unfit_folder("is a link or a file, and must be a folder".to_owned()));
            }
            Err(Errno::ACCESS) => return Err(self.unfit_folder("cannot be opened by this user".to_owned())),
            Err(error) => return Err(failed("open the runtime folder", &self.path, error)),
        };
        let stat = rustix::fs::fstat(&folder).map_err(|error| failed("look at", &self.path, error))?;
        match not_private(&stat) {
            Some(trouble) => Err(self.unfit_folder(trouble)),
            None => Ok(folder),
        }
    }

    fn unfit_folder(&self, trouble: String) -> RuntimeDirError {
        let shown = self.path.display();
        RuntimeDirError::Unfit {
            path: self.path.clone(),
            trouble,
            remedy: format!(
                "if it is yours, `chmod 700 {shown}` mends it, or remove it and it is made anew; \
                 or set XDG_RUNTIME_DIR to a folder of your own"
            ),
        }
    }

    /// Writes a file beside the one that it will become, and says its name.
    fn write_temporary(
        &self,
        folder: &OwnedFd,
        name: &str,
        contents: &[u8],
        mode: u32,
    ) -> Result<String, RuntimeDirError> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let path = self.path.join(name);
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(failed("write", &path, Errno::INVAL));
        }
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let temporary = format!(".{name}.{}.{number}", std::process::id());
        // A process that had the same number may have left one behind.
        let _ = rustix::fs::unlinkat(folder, &temporary, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode as rustix::fs::RawMode);
        let written = rustix::fs::openat(folder, &temporary, flags, mode).map_err(io::Error::from).and_then(|fd| {
            // The process's umask may have taken something away.
            rustix::fs::fchmod(&fd, mode)?;
            File::from(fd).write_all(contents)
        });
        match written {
            Ok(()) => Ok(temporary),
            Err(source) => {
                let _ = rustix::fs::unlinkat(folder, &temporary, AtFlags::empty());
                Err(RuntimeDirError::Io { doing: "write", path, source })
            }
        }
    }

    /// Reads a private file in the folder, or None if there is none.
    fn read_file(&self, folder: &OwnedFd, name: &str) -> Result<Option<Vec<u8>>, RuntimeDirError> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let unfit_file = |trouble: String| {
            let remedy = format!("remove it and it is made anew: rm {}", path.display());
            Err(RuntimeDirError::Unfit { path: path.clone(), trouble, remedy })
        };
        let fd = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return unfit_file("is a link, and must be a file".to_owned()),
            Err(error) => return Err(failed("read", &path, error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|error| failed("look at", &path, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return unfit_file("is not a file".to_owned());
        }
        if let Some(trouble) = not_private(&stat) {
            return unfit_file(trouble);
        }
        let mut contents = Vec::new();
        match File::from(fd).read_to_end(&mut contents) {
            Ok(_) => Ok(Some(contents)),
            Err(source) => Err(RuntimeDirError::Io { doing: "read", path, source }),
        }
    }
}

fn failed(doing: &'static str, path: &Path, error: Errno) -> RuntimeDirError {
    RuntimeDirError::Io { doing, path: path.to_owned(), source: error.into() }
}

/// What keeps a file or folder from being this user's alone.
fn not_private(stat: &rustix::fs::Stat) -> Option<String> {
    let user = rustix::process::geteuid().as_raw();
    let mode = stat.st_mode & 0o7777;
    if stat.st_uid != user {
        return Some(format!("belongs to user {} and not to user {user}", stat.st_uid));
    }
    (mode & 0o077 != 0).then(|| format!("is open to other users (its mode is {mode:o})"))
}

/// Puts the runtime of Python workers where a Python can run it, and says where that is. Cheap
/// enough to be called before each start: it only reads, unless the file is missing or differs.
///
/// The name carries a hash of the source, so nodes of different versions do not meet. Where the folder has gone and cannot be made
/// again (at the last logout of a user, `$XDG_RUNTIME_DIR` itself is removed), the runtime goes into the folder in `/tmp`.
pub fn python_runtime(dir: &RuntimeDir, source: &str) -> io::Result<PathBuf> {
    runtime_in(dir, source).or_else(|gone| {
        let elsewhere = RuntimeDir::at(RuntimeDir::in_tmp());
        elsewhere.map_err(io::Error::from).and_then(|elsewhere| runtime_in(&elsewhere, source)).map_err(|_| gone)
    })
}

fn runtime_in(dir: &RuntimeDir, source: &str) -> io::Result<PathBuf> {
    let name = format!("worker-{:016x}.py", fingerprint(source.as_bytes()));
    let folder = dir.enter()?;
    // A file that is not as it should be is replaced like one that is missing.
    match dir.read_file(&folder, &name) {
        Ok(Some(contents)) if contents == source.as_bytes() => Ok(dir.path.join(name)),
        _ => Ok(dir.write_file(&name, source.as_bytes(), 0o600)?),
    }
}

/// FNV-1a with 64 bits. It tells versions apart; what a file holds is compared in full.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
