//! A file as it was, to see whether it has changed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file, and when and how large it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    file: PathBuf,
    /// `None` if it was not there.
    was: Option<(SystemTime, u64)>,
}

impl Stamp {
    /// The file as it is now.
    pub fn of(file: impl AsRef<Path>) -> Stamp {
        let file = file.as_ref().to_path_buf();
        let was = look(&file);
        Stamp { file, was }
    }

    /// The file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Whether it was written since then. One that is of the future was not.
    pub(crate) fn was_written_since(&self, then: SystemTime) -> bool {
        self.was.is_some_and(|(written, _)| then < written && written <= SystemTime::now())
    }

    /// It may be another than somebody has read: from now on it counts as changed.
    pub(crate) fn doubt(&mut self) {
        self.was = None;
    }

    /// The folder that it lies in.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        self.file.parent().map(Path::to_path_buf)
    }

    /// The same file as it is now.
    #[must_use]
    pub fn again(&self) -> Stamp {
        Stamp::of(&self.file)
    }

    /// Whether it is not any more as it was.
    pub fn has_changed(&self) -> bool {
        look(&self.file) != self.was
    }
}

fn look(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = file.metadata().ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
