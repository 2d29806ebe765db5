//! The service file: read, checked, and resolved into plain structs.
//!
//! A text becomes a tree that knows its places (`yaml`); its variables are expanded; the walk (`walk`)
//! turns it into a [`Service`] or into a [`Report`] of everything that is wrong with it. One table
//! (`keys`) says which keys there are, for the walk and for the [`schema`] alike. Nothing here starts,
//! binds or writes anything: it reads the service file, and looks whether the files it names exist.

mod defaults;
mod diagnostic;
mod keys;
mod schema;
mod service;
mod source;
mod walk;
mod yaml;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use diagnostic::{Diagnostic, Report, Severity};
pub use schema::schema;
pub use service::{
    Decode, FallbackOn, Filter, FunctionPool, Input, Kind, Limits, Listen, Listener, OnCancel, OnFailure, Over,
    Pipeline, PythonTarget, RetryOn, Route, Scatter, Service, Stage, Step, Target, Tls, Workers,
};
pub use source::Span;

use source::Source;
use walk::Walk;

/// The largest service file, in bytes (1 MiB).
pub const LARGEST_FILE: usize = 1 << 20;

/// A service that can run, and what its author may still want to hear.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The service.
    pub service: Service,
    /// Warnings, without errors; mostly empty.
    pub warnings: Report,
}

/// Reads a service file. `env` answers for `${NAME}`; a program passes `&|name| std::env::var(name).ok()`.
///
/// The error holds everything that is wrong, and the warnings as well.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Report> {
    let name = path.display().to_string();
    let whole = |diagnostic| Err(Report::new(Source::new(&name, ""), vec![diagnostic]));
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            return whole(Diagnostic::file("unreadable", format!("cannot read the file: {error}")));
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => {
            let folder = path.parent().unwrap_or(Path::new(""));
            parse(&name, &text, folder, env)
        }
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let bytes = error.as_bytes();
            let line = bytes[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
            let message = format!("the file is not UTF-8: byte 0x{:02x} on line {line}", bytes[good]);
            whole(Diagnostic::file("not-utf8", message).hint("save it as UTF-8"))
        }
    }
}

/// One byte more than allowed shows that a file is too large.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a service from a text. `name` is the file name for messages; relative paths start in `folder`
/// (an empty one is the working directory).
pub fn parse(name: &str, text: &str, folder: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Report> {
    let source = Source::new(name, text);
    if text.len() > LARGEST_FILE {
        let message = format!("the file is larger than {}", walk::units::show_size(LARGEST_FILE as u64));
        return Err(Report::new(source, vec![Diagnostic::file("too-large", message)]));
    }
    let folder = absolute(folder);
    let mut walk = Walk { file: Path::new(name), folder: &folder, found: Vec::new() };
    let service = yaml::build(&source, &mut walk.found).and_then(|mut root| {
        yaml::expand(&mut root, &source, env, &mut walk.found);
        walk.service(&root)
    });
    let report = Report::new(source, walk.found);
    match service {
        Some(service) => Ok(Loaded { service, warnings: report }),
        None => Err(report),
    }
}

fn absolute(folder: &Path) -> PathBuf {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    // Fails only where there is no working directory; then the path is left as it is.
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    absolute.components().collect()
}
