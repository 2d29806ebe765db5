//! Which Python runs Python workers.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// The Python that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// Its absolute path. Links are not followed: a virtual environment is known by its link.
    pub path: PathBuf,
    /// Where it was found.
    pub origin: Origin,
}

/// Where a Python was found, or looked for; in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The service file names it.
    Explicit,
    /// The virtual environment beside the service file.
    BesideService,
    /// The active virtual environment.
    VirtualEnv,
    /// The one that Evener was installed into.
    Installed,
    /// The first one on the PATH.
    Path,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Explicit => "the service file's `interpreter`",
            Self::BesideService => ".venv beside the service file",
            Self::VirtualEnv => "$VIRTUAL_ENV",
            Self::Installed => "the environment that Evener is installed in",
            Self::Path => "python3 on the PATH",
        })
    }
}

/// No Python was found. Says each place that was tried, and why it would not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotFound {
    /// Each place, and what was wrong with it.
    pub tried: Vec<(Origin, String)>,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no Python interpreter was found; tried")?;
        for (index, (origin, trouble)) in self.tried.iter().enumerate() {
            write!(f, "{} {origin} ({trouble})", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl std::error::Error for NotFound {}

/// What a search goes by. [`Search::here`] takes it from this process.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// What the service file says: a path, relative to the service file's folder, or the name of a
    /// program on the PATH. Where it is given, nothing else is tried.
    pub explicit: Option<PathBuf>,
    /// The folder of the service file.
    pub folder: PathBuf,
    /// The variable `VIRTUAL_ENV`.
    pub virtual_env: Option<PathBuf>,
    /// The running program.
    pub executable: Option<PathBuf>,
    /// The variable `PATH`.
    pub path: Option<OsString>,
}

impl Search {
    /// A search by this process's environment and program.
    pub fn here(explicit: Option<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            explicit,
            folder: folder.into(),
            virtual_env: std::env::var_os("VIRTUAL_ENV").filter(|value| !value.is_empty()).map(PathBuf::from),
            executable: std::env::current_exe().ok(),
            path: std::env::var_os("PATH"),
        }
    }

    /// Finds the Python to use.
    pub fn find(&self) -> Result<Interpreter, NotFound> {
        let places = match &self.explicit {
            Some(named) => vec![(Origin::Explicit, self.named(named))],
            None => vec![
                (Origin::BesideService, first(&[self.folder.join(".venv/bin/python")])),
                (Origin::VirtualEnv, self.active()),
                (Origin::Installed, self.installed()),
                (Origin::Path, self.on_path(Path::new("python3"))),
            ],
        };
        let mut tried = Vec::new();
        for (origin, found) in places {
            match found {
                Ok(path) => {
                    let path = std::path::absolute(&path).unwrap_or(path);
                    return Ok(Interpreter { path, origin });
                }
                Err(trouble) => tried.push((origin, trouble)),
            }
        }
        Err(NotFound { tried })
    }

    fn named(&self, named: &Path) -> Result<PathBuf, String> {
        if named.components().count() == 1 && !named.is_absolute() {
            self.on_path(named)
        } else {
            first(&[self.folder.join(named)])
        }
    }

    fn active(&self) -> Result<PathBuf, String> {
        match &self.virtual_env {
            Some(root) => first(&[root.join("bin/python")]),
            None => Err("it is not set".to_owned()),
        }
    }

    fn installed(&self) -> Result<PathBuf, String> {
        match self.executable.as_deref().and_then(Path::parent) {
            Some(folder) => first(&[folder.join("python"), folder.join("python3")]),
            None => Err("the running program's folder is not known".to_owned()),
        }
    }

    fn on_path(&self, name: &Path) -> Result<PathBuf, String> {
        let Some(path) = &self.path else { return Err("PATH is not set".to_owned()) };
        std::env::split_paths(path)
            .map(|folder| self.folder.join(folder).join(name))
            .find(|file| trouble(file).is_none())
            .ok_or_else(|| format!("there is no {} in {}", name.display(), path.display()))
    }
}

/// The first of these files that can run, or what is wrong with the first one.
fn first(files: &[PathBuf]) -> Result<PathBuf, String> {
    let mut worst = None;
    for file in files {
        match trouble(file) {
            None => return Ok(file.clone()),
            Some(trouble) => _ = worst.get_or_insert(trouble),
        }
    }
    Err(worst.unwrap_or_default())
}

/// Why a file is no program.
fn trouble(file: &Path) -> Option<String> {
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(format!("{} does not exist", file.display()))
        }
        Err(error) => Some(format!("{}: {error}", file.display())),
        Ok(found) if !found.is_file() => Some(format!("{} is not a file", file.display())),
        Ok(_) if rustix::fs::access(file, Access::EXEC_OK).is_err() => {
            Some(format!("{} is not executable", file.display()))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("evener-interpreter-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&root).unwrap();
            Self(root)
        }

        fn program(&self, path: &str, mode: u32) -> PathBuf {
            let file = self.0.join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            file
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn each_place_in_its_turn() {
        let place = Place::new("turn");
        let on_path = place.program("usr/bin/python3", 0o755);
        let mut search = Search {
            explicit: None,
            folder: place.0.join("service"),
            virtual_env: None,
            executable: Some(place.0.join("opt/bin/evener")),
            path: Some(place.0.join("usr/bin").into_os_string()),
        };
        let expect = |search: &Search, path: &Path, origin| {
            assert_eq!(search.find(), Ok(Interpreter { path: path.to_owned(), origin }));
        };
        expect(&search, &on_path, Origin::Path);
        let installed = place.program("opt/bin/python3", 0o755);
        expect(&search, &installed, Origin::Installed);
        search.virtual_env = Some(place.0.join("active"));
        let active = place.program("active/bin/python", 0o755);
        expect(&search, &active, Origin::VirtualEnv);
        let beside = place.program("service/.venv/bin/python", 0o755);
        expect(&search, &beside, Origin::BesideService);
        search.explicit = Some("python3".into());
        expect(&search, &on_path, Origin::Explicit);
        search.explicit = Some("./.venv/bin/python".into());
        expect(&search, &place.0.join("service/.venv/bin/python"), Origin::Explicit);
    }

    #[test]
    fn an_error_names_every_place() {
        let place = Place::new("error");
        place.program(".venv/bin/python", 0o644);
        let search = Search {
            folder: place.0.clone(),
            virtual_env: Some("/nowhere".into()),
            executable: Some("/nowhere/evener".into()),
            path: Some("/nowhere".into()),
            explicit: None,
        };
        let error = search.find().unwrap_err().to_string();
        for part in [
            "is not executable",
            "$VIRTUAL_ENV (/nowhere/bin/python does not exist)",
            "installed in",
            "no python3 in /nowhere",
        ] {
            assert!(error.contains(part), "{error}");
        }
        let search = Search { explicit: Some("missing/python".into()), ..search };
        let error = search.find().unwrap_err();
        assert_eq!(error.tried.len(), 1, "what is asked for by name is not replaced by another: {error}");
    }
}
