//! The kernel's count of processes that it killed for want of memory.

use std::path::{Path, PathBuf};

/// Reads how many processes of this process's control group the kernel has killed for want of
/// memory. Best effort: it counts the whole group, so a neighbour's death that comes at the same
/// moment looks the same, and not every system has it.
#[derive(Debug)]
pub struct OomKills {
    file: Option<PathBuf>,
    seen: u64,
}

impl Default for OomKills {
    fn default() -> Self {
        Self::find()
    }
}

impl OomKills {
    /// Looks for the count of the group that this process, and so its workers, belong to.
    pub fn find() -> Self {
        let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let file = candidates(&membership, Path::new("/sys/fs/cgroup")).into_iter().find(|file| count(file).is_some());
        let seen = file.as_deref().and_then(count).unwrap_or(0);
        Self { file, seen }
    }

    /// Whether the count has risen since the last time this was asked.
    pub fn rose(&mut self) -> bool {
        let now = self.file.as_deref().and_then(count).unwrap_or(self.seen);
        let rose = now > self.seen;
        self.seen = now;
        rose
    }
}

/// Where the count may be, by a process's `/proc/self/cgroup`. In a container the group's own folder
/// may be mounted as the root, hence the last two.
fn candidates(membership: &str, root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            files.push(root.join(path).join("memory.events"));
        } else if controllers.split(',').any(|name| name == "memory") {
            files.push(root.join("memory").join(path).join("memory.oom_control"));
        }
    }
    files.push(root.join("memory.events"));
    files.push(root.join("memory/memory.oom_control"));
    files
}

fn count(file: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_control_groups_are_known() {
        let files = candidates("4:cpu,memory:/a/b\n0::/c\n", Path::new("/r"));
        let expected = ["/r/memory/a/b/memory.oom_control", "/r/c/memory.events", "/r/memory.events"];
        assert_eq!(files[..3], expected.map(PathBuf::from));
    }

    #[test]
    fn a_rise_is_seen_once() {
        let file = std::env::temp_dir().join(format!("evener-oom-{}", std::process::id()));
        let write = |kills| std::fs::write(&file, format!("low 0\noom 5\noom_kill {kills}\n")).unwrap();
        write(2);
        let mut kills = OomKills { file: Some(file.clone()), seen: 2 };
        assert!(!kills.rose());
        write(3);
        assert!(kills.rose());
        assert!(!kills.rose());
        std::fs::remove_file(&file).unwrap();
        assert!(!kills.rose());
    }
}
