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
