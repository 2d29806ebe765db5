//! `evener new`: a small service to begin with.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The files of a new service; SERVICE in them stands for its name.
const FILES: [(&str, &str); 4] = [
    ("service.yaml", include_str!("starter/service.yaml")),
    ("words.py", include_str!("starter/words.py")),
    ("README.md", include_str!("starter/README.md")),
    (".gitignore", include_str!("starter/gitignore")),
];

/// The longest name of a service.
const LONGEST: usize = 64;

/// Arguments of `evener new`.
#[derive(Debug, clap::Args)]
pub(crate) struct New {
    /// The folder to write it into. It is made if need be, and gives the service its name.
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    folder: PathBuf,
}

impl New {
    pub(crate) fn run(self) -> ExitCode {
        match begin(&self.folder).and_then(|()| crate::up::say(&next(&self.folder)).map_err(|error| error.to_string()))
        {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("error: {why}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Writes all files, or none where one of them is there.
fn begin(folder: &Path) -> Result<(), String> {
    let place = folder.display();
    fs::create_dir_all(folder).map_err(|error| format!("cannot make the folder {place}: {error}"))?;
    // A link that leads nowhere is there as well.
    let there = |name: &&str| folder.join(name).symlink_metadata().is_ok();
    let taken: Vec<_> = FILES.iter().map(|(name, _)| *name).filter(there).collect();
    if !taken.is_empty() {
        return Err(format!("{place} has {} already, and nothing is overwritten: take another folder", listed(&taken)));
    }
    let whole = fs::canonicalize(folder).map_err(|error| format!("cannot find the folder {place}: {error}"))?;
    let name = service_name(&whole);
    for (file, text) in FILES {
        write(&folder.join(file), &text.replace("SERVICE", &name))?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    // Whatever has come there since is not overwritten either.
    let written = File::create_new(file).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => format!("{} is there already, and nothing is overwritten", file.display()),
        _ => format!("cannot write {}: {error}", file.display()),
    })
}

fn next(folder: &Path) -> String {
    let names: Vec<_> = FILES.iter().map(|(name, _)| *name).collect();
    let enter = if folder == Path::new(".") { String::new() } else { format!("    cd {}\n", typed(folder)) };
    format!(
        "Wrote {} into {}.\n\nTo run it, until Ctrl-C:\n\n{enter}    evener up service.yaml\n\nTo ask it, from another \
         terminal:\n\n    curl 'http://127.0.0.1:8000/words?text=the+horse+and+the+bar'\n\nREADME.md has more.",
        listed(&names),
        folder.display()
    )
}

/// `a, b and c`.
fn listed(names: &[&str]) -> String {
    match names {
        [before @ .., last] if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => names.concat(),
    }
}

/// The name of a service in this folder: the folder's, as far as it may be one.
fn service_name(folder: &Path) -> String {
    let folder = folder.file_name().unwrap_or_default().to_string_lossy();
    let allowed = |one: char| if one.is_ascii_alphanumeric() || one == '_' { one } else { '-' };
    let mut name: String = folder.chars().map(allowed).collect();
    name = name.trim_matches('-').to_owned();
    if !name.chars().any(|character| character.is_ascii_alphanumeric()) {
        return "words".into();
    }
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name.truncate(LONGEST);
    name
}

/// A path as one types it into a shell.
fn typed(path: &Path) -> String {
    let mut path = path.display().to_string();
    if path.starts_with('-') {
        path.insert_str(0, "./");
    }
    let plain = |character: char| character.is_alphanumeric() || "/._-+:@,".contains(character);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_names_its_service() {
        for (folder, name) in [
            ("/srv/shop", "shop"),
            ("/srv/my shop.v2", "my-shop-v2"),
            ("/srv/_private_", "_private_"),
            ("/srv/2nd", "_2nd"),
            ("/srv/.hidden", "hidden"),
            ("/srv/\u{e9}t\u{e9}", "t"),
            ("/srv/---", "words"),
            ("/", "words"),
        ] {
            assert_eq!(service_name(Path::new(folder)), name);
        }
        assert_eq!(service_name(Path::new(&"x".repeat(200))).len(), LONGEST);
        // YAML would take these for something else; the file has quotes around the name.
        assert_eq!(service_name(Path::new("true")), "true");
    }

    #[test]
    fn a_path_is_typed_so_that_a_shell_takes_it_as_it_is() {
        for (path, shown) in
            [("a/b-c", "a/b-c"), ("my shop", "'my shop'"), ("it's", r"'it'\''s'"), ("-x", "./-x"), ("$HOME", "'$HOME'")]
        {
            assert_eq!(typed(Path::new(path)), shown);
        }
    }
}
