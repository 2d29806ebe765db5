//! Reading a service file and the files that it includes into one tree.
//!
//! `include` is gone from the tree afterwards: each file is put over what it includes, so that the including file
//! wins, and of several included files the later ones.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::LARGEST_FILE;
use super::diagnostic::Diagnostic;
use super::overlay::Overlay;
use super::source::{Source, Span};
use super::walk::units::show_size;
use super::yaml::{self, Node, Plain, Scalar, Value, quote};

/// How many files may include each other in a row.
const DEPTH: usize = 8;
/// How many files may be included in all; one that is included twice counts twice.
const MOST_FILES: usize = 32;
/// How many bytes all files may have together.
const MOST_BYTES: usize = 4 * LARGEST_FILE;

/// What was read so far.
pub(super) struct Reading<'a> {
    env: &'a dyn Fn(&str) -> Option<OsString>,
    /// The texts, to which the places in the tree and in the diagnostics refer.
    pub(super) sources: Vec<Source>,
    pub(super) found: Vec<Diagnostic>,
    /// The files, absolute, each once; the service file first.
    pub(super) files: Vec<PathBuf>,
    /// The files that are being read, each included by the one before it.
    open: Vec<PathBuf>,
    included: usize,
    bytes: usize,
    /// Whether a bound was reached and reported; then nothing more is included.
    full: bool,
    /// Whether something is not there that should be included. What can be said about the rest would be an echo.
    pub(super) incomplete: bool,
}

impl<'a> Reading<'a> {
    pub(super) fn new(env: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Self {
            env,
            sources: Vec::new(),
            found: Vec::new(),
            files: Vec::new(),
            open: Vec::new(),
            included: 0,
            bytes: 0,
            full: false,
            incomplete: false,
        }
    }

    /// Reads a text, and what it includes. `path` is where it lies, absolute. `None` was reported.
    pub(super) fn file(&mut self, source: Source, path: &Path) -> Option<Node> {
        self.bytes += source.text.len();
        self.note(path);
        let name = source.name.clone();
        let mut root = self.tree(source)?;
        let Some(include) = root.remove("include") else { return Some(root) };
        self.open.push(identity(path));
        let mut below = None;
        for item in self.items(&include.value) {
            let Some(included) = self.include(item, Path::new(&*name), path) else {
                self.incomplete = true;
                continue;
            };
            below = Some(match below {
                Some(below) => included.over(below),
                None => included,
            });
        }
        self.open.pop();
        Some(match below {
            Some(below) => root.over(below),
            None => root,
        })
    }

    /// Whether it can be read or not, it is one of the files that matter.
    fn note(&mut self, path: &Path) {
        if !self.files.iter().any(|file| file == path) {
            self.files.push(path.to_path_buf());
        }
    }

    /// The tree of one text, whose places know which text that is.
    fn tree(&mut self, source: Source) -> Option<Node> {
        let index = self.add(source.clone());
        let before = self.found.len();
        let mut root = yaml::build(&source, &mut self.found);
        if let Some(root) = &mut root {
            yaml::expand(root, &source, self.env, &mut self.found);
            root.each_span(&mut |span| *span = span.of(index));
        }
        for one in &mut self.found[before..] {
            one.span = one.span.map(|span| span.of(index));
            one.secondary.iter_mut().for_each(|(span, _)| *span = span.of(index));
        }
        root
    }

    fn add(&mut self, source: Source) -> u32 {
        self.sources.push(source);
        self.sources.len() as u32 - 1
    }

    /// What an overlay puts over the file.
    pub(super) fn overlay(&mut self, overlay: &Overlay) -> Node {
        let Overlay { source, root } = overlay.clone();
        let index = self.add(source);
        let mut root = root;
        root.each_span(&mut |span| *span = span.of(index));
        root
    }

    fn items<'n>(&mut self, node: &'n Node) -> &'n [Node] {
        if let Value::Seq(items) = &node.value {
            return items;
        }
        self.incomplete = true;
        if !node.is_broken() {
            let message = format!("expected a list of files, found {}", node.describe());
            let wrong = Diagnostic::error("wrong-type", node.span, message);
            self.found.push(match node.scalar().map(Scalar::resolve) {
                Some(Plain::Str(text)) if !text.is_empty() => {
                    wrong.hint(format!("write {}", quote(&format!("[{text}]"))))
                }
                _ => wrong.hint("write `[more.yaml]`"),
            });
        }
        &[]
    }

    /// Reads one included file. `name` and `path` are those of the including one. `None` was reported.
    fn include(&mut self, item: &Node, name: &Path, path: &Path) -> Option<Node> {
        let text = match item.scalar().map(Scalar::resolve) {
            Some(Plain::Str(text)) if !text.is_empty() => text,
            _ => {
                if !item.is_broken() {
                    let message = format!("expected a file such as `more.yaml`, found {}", item.describe());
                    self.found.push(Diagnostic::error("wrong-type", item.span, message));
                }
                return None;
            }
        };
        let beside = |file: &Path| file.parent().unwrap_or(Path::new("")).join(text);
        let (name, path) = (beside(name), beside(path));
        let text = self.may_include(item.span, &path).and_then(|()| text_of(&path));
        let text = text.and_then(|text| match self.bytes + text.len() > MOST_BYTES {
            true => Err(self.too_many(format!("all files together are larger than {}", show_size(MOST_BYTES as u64)))),
            false => Ok(text),
        });
        let text = match text {
            Ok(text) => text,
            Err(wrong) => {
                if !wrong.message.is_empty() {
                    self.found.push(Diagnostic { span: Some(item.span), ..wrong });
                }
                return None;
            }
        };
        let before = self.found.len();
        let root = self.file(Source::new(&name.display().to_string(), &text), &path);
        // What is wrong with the file as a whole is shown where it is included.
        for one in self.found[before..].iter_mut().filter(|one| one.span.is_none()) {
            one.span = Some(item.span);
            one.hint = None;
        }
        let root = root?;
        if !matches!(root.value, Value::Map(_)) {
            let message = format!("an included file is a mapping like a service file, and this is {}", root.describe());
            self.found.push(Diagnostic::error("wrong-type", root.span, message));
            return None;
        }
        Some(root)
    }

    /// Whether another file may be included here. An error without a message was reported before.
    fn may_include(&mut self, span: Span, path: &Path) -> Result<(), Diagnostic> {
        if self.full {
            return Err(Diagnostic::error("too-many-files", span, ""));
        }
        self.included += 1;
        if self.included > MOST_FILES {
            return Err(self.too_many(format!("more than {MOST_FILES} files are included")));
        }
        self.note(path);
        let identity = identity(path);
        if self.open.contains(&identity) {
            let message = match self.open.last() == Some(&identity) {
                true => "this file includes itself",
                false => "this file is being included by the one that it includes",
            };
            return Err(Diagnostic::error("include-cycle", span, message).hint("remove one of the includes"));
        }
        if self.open.len() > DEPTH {
            let message = format!("files include each other more than {DEPTH} deep");
            return Err(Diagnostic::error("too-deep", span, message));
        }
        if !path.is_file() {
            let message = format!("there is no file {}", quote(&path.display().to_string()));
            let missing = Diagnostic::error("missing-file", span, message);
            return Err(missing.hint("relative paths start in the folder of the file that includes"));
        }
        Ok(())
    }

    fn too_many(&mut self, message: String) -> Diagnostic {
        self.full = true;
        Diagnostic::file("too-many-files", message)
    }
}

/// The one name of a file that has several; a file that is not there keeps its own.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// The text of a file, or what is wrong with it as a whole.
pub(super) fn text_of(path: &Path) -> Result<String, Diagnostic> {
    let bytes = read(path).map_err(|error| Diagnostic::file("unreadable", format!("cannot read the file: {error}")))?;
    if bytes.len() > LARGEST_FILE {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let line = bytes[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
        let message = format!("the file is not UTF-8: byte 0x{:02x} on line {line}", bytes[good]);
        Diagnostic::file("not-utf8", message).hint("save it as UTF-8")
    })
}

/// One byte more than allowed shows that a file is too large.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn too_large() -> Diagnostic {
    Diagnostic::file("too-large", format!("the file is larger than {}", show_size(LARGEST_FILE as u64)))
}
