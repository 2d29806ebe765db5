//! The service file: read, checked, and resolved into plain structs.
//!
//! A text becomes a tree that knows its places (`yaml`); its variables are expanded; what it includes goes under it
//! (`include`), and overlays go over it (`overlay`); the walk (`walk`) turns it into a [`Service`] or into a [`Report`]
//! of everything that is wrong with it. One table (`keys`) says which keys there are, for the walk and for the
//! [`schema`] alike. Nothing here starts, binds or writes anything: it reads the service file and what that includes,
//! and looks whether the files it names exist.

mod defaults;
mod diagnostic;
mod include;
mod keys;
mod overlay;
mod schema;
mod service;
mod source;
mod test;
mod walk;
mod yaml;

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use diagnostic::{Diagnostic, Report, Severity};
pub use overlay::Overlay;
pub use schema::schema;
pub use service::{
    CommandLine, Concurrency, Cors, Decode, FallbackOn, Filter, FunctionPool, Input, Kind, Limits, Listen, Listener,
    OnCancel, OnFailure, Over, Overlap, Pipeline, PythonTarget, Replacement, RetryOn, Route, RouteTarget, Scatter,
    Service, Stage, Step, Target, Tls, Trigger, When, Workers,
};
pub use source::Span;
pub use test::{Expect, Expectation, Test, TestRequest};

use include::Reading;
use source::Source;
use walk::Walk;
use yaml::Value;

use crate::jq::Program;

/// The largest service file, in bytes (1 MiB).
pub const LARGEST_FILE: usize = 1 << 20;

/// A service that can run, and what its author may still want to hear.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The service.
    pub service: Service,
    /// Warnings, without errors; mostly empty.
    pub warnings: Report,
    /// Its jq programs, which take long to compile. As long as these are held, a node that is made of the service takes them as
    /// they are.
    pub programs: Vec<Arc<Program>>,
}

impl From<Service> for Loaded {
    /// A service that comes from no file, with nothing to say about it.
    fn from(service: Service) -> Loaded {
        Loaded { service, warnings: Report::new(vec![Source::new("", "")], Vec::new()), programs: Vec::new() }
    }
}

/// Reads a service file. `env` answers for `${NAME}`; a program passes `&|name| std::env::var_os(name)`.
///
/// The error holds everything that is wrong, and the warnings as well.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Loaded, Report> {
    load_with(path, &[], env)
}

/// Like [`load`], with overlays over the file, of which the later ones win.
pub fn load_with(path: &Path, overlays: &[Overlay], env: &dyn Fn(&str) -> Option<OsString>) -> Result<Loaded, Report> {
    let name = path.display().to_string();
    match include::text_of(path) {
        Ok(text) => {
            let folder = path.parent().unwrap_or(Path::new(""));
            resolve(Source::new(&name, &text), path, folder, overlays, env)
        }
        Err(error) => Err(Report::new(vec![Source::new(&name, "")], vec![error]).with_files(vec![absolute(path)])),
    }
}

/// Reads a service from a text. `name` is the file name for messages; relative paths start in `folder`
/// (an empty one is the working directory).
pub fn parse(name: &str, text: &str, folder: &Path, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Loaded, Report> {
    let source = Source::new(name, text);
    if text.len() > LARGEST_FILE {
        return Err(Report::new(vec![source], vec![include::too_large()]));
    }
    resolve(source, Path::new(name), folder, &[], env)
}

fn resolve(
    source: Source,
    file: &Path,
    folder: &Path,
    overlays: &[Overlay],
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Loaded, Report> {
    let folder = absolute(folder);
    let mut reading = Reading::new(env);
    let mut root = reading.file(source, &folder.join(file.file_name().unwrap_or_default()));
    // Over anything but a mapping they would hide that it is none.
    if matches!(&root, Some(root) if matches!(root.value, Value::Map(_))) {
        for overlay in overlays {
            let over = reading.overlay(overlay);
            reading.found.extend(root.as_ref().and_then(|root| walk::unknown_stage(&over, root)));
            root = root.map(|root| over.over(root));
        }
    }
    let Reading { sources, found, files, incomplete, .. } = reading;
    let read = files.clone();
    let programs = RefCell::default();
    let mut walk = Walk {
        file,
        folder: &folder,
        sources: &sources,
        files,
        found,
        programs: &programs,
        overlaid: !overlays.is_empty(),
    };
    let service = root.filter(|_| !incomplete).and_then(|root| walk.service(&root));
    let found = walk.found;
    let report = Report::new(sources, found).with_files(read);
    match service {
        Some(service) => {
            let programs = programs.into_inner().into_values().collect();
            Ok(Loaded { service, warnings: report, programs })
        }
        None => Err(report),
    }
}

/// A path as it may be shown on a terminal: control characters are escaped.
pub fn show_path(path: &Path) -> String {
    source::show_name(&path.display().to_string())
}

fn absolute(folder: &Path) -> PathBuf {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    // Fails only where there is no working directory; then the path is left as it is.
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    absolute.components().collect()
}
