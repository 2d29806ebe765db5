//! jq programs, run in this process and within limits.
//!
//! A program cannot reach out of itself: no files, no environment, no terminal. One that runs away is stopped: it has so
//! many steps, so much time, and about so much memory. What is not bounded: a single regular expression or a single sort is
//! not interrupted, though the size of what they work on is; and memory is an estimate, of what a program makes in all.

mod meter;
mod natives;
mod nesting;
mod rewrite;
pub mod template;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Instant;

use jaq_core::load::parse::{Def, Term};
use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Filter, Vars};
use jaq_json::Val;

use natives::Data;

/// The longest program, in bytes.
const LONGEST: usize = 16 << 10;
/// Brackets in a program may be nested so deep.
const DEEPEST: usize = 200;
/// The stack of the thread that parses, which takes some for each level.
const PARSER_STACK: usize = 256 << 20;
/// The name that the program itself has among the definitions.
const MAIN: &str = "evener_program";

/// A program that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JqError {
    /// What is wrong.
    pub message: String,
    /// Where, in bytes from the start of the source.
    pub offset: Option<usize>,
}

/// Why a run gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// It took too many steps.
    #[error("the jq program took more steps than it may")]
    Steps,
    /// It ran until its deadline.
    #[error("the jq program ran out of time")]
    Time,
    /// It made too much, or recursed or nested too deep.
    #[error("the jq program needs more memory than it may use, or nests too deep")]
    Memory,
    /// Nobody wants the value any more.
    #[error("the jq program was cancelled")]
    Cancelled,
    /// It failed on this input.
    #[error("{0}")]
    Failed(String),
    /// The input is not the JSON that it should be.
    #[error("the value is not JSON: {0}")]
    NotJson(String),
    /// What it gave is not what was wanted: no value, several, one that is too large, or one of another type.
    #[error("{0}")]
    Output(String),
}

/// What a run may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most steps.
    pub steps: u64,
    /// When to stop.
    pub until: Option<Instant>,
    /// About the most bytes that it may make, all values together.
    pub memory: u64,
    /// The most bytes of output.
    pub output: usize,
    /// Set by another thread to stop the run.
    pub cancel: Option<Arc<AtomicBool>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 10_000_000, until: None, memory: 256 << 20, output: 16 << 20, cancel: None }
    }
}

/// What a program runs on.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// JSON.
    Json(&'a [u8]),
    /// A text, which becomes a string.
    Text(&'a str),
}

/// A compiled program; any number of threads may run it at a time.
pub struct Program {
    filter: Filter<Data>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Program")
    }
}

/// The standard library, rewritten once.
static LIBRARY: LazyLock<Vec<Def<&'static str>>> =
    LazyLock::new(|| library().filter_map(|def| rewrite::definition(def, 0).ok()).collect());

fn library() -> impl Iterator<Item = Def<&'static str>> {
    let all = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    all.filter(|def| !natives::OUTSIDE_DEFS.contains(&def.name))
}

/// The programs that are in use, by their source: a service file that takes over mostly has the same as the one before.
static COMPILED: LazyLock<Mutex<HashMap<Box<str>, Weak<Program>>>> = LazyLock::new(Mutex::default);

/// Whether a program can be compiled.
pub fn check(source: &str) -> Result<(), JqError> {
    Program::compile(source).map(|_| ())
}

impl Program {
    /// Compiles a program; takes about a millisecond, but for one that is in use somewhere.
    pub fn compile(source: &str) -> Result<Arc<Self>, JqError> {
        let known = || COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = known().get(source).and_then(Weak::upgrade) {
            return Ok(program);
        }
        let program = Self::compile_anew(source)?;
        let mut known = known();
        known.retain(|_, program| program.strong_count() > 0);
        known.insert(source.into(), Arc::downgrade(&program));
        Ok(program)
    }

    fn compile_anew(source: &str) -> Result<Arc<Self>, JqError> {
        if source.len() > LONGEST {
            return Err(JqError { message: format!("a jq program may have {LONGEST} bytes"), offset: None });
        }
        if nesting::brackets(source) > DEEPEST {
            return Err(JqError { message: "the jq program is nested too deep".into(), offset: None });
        }
        let source = source.to_owned();
        let compiled = std::thread::Builder::new().name("jq".into()).stack_size(PARSER_STACK);
        let failed = |_| JqError { message: "there is no thread to compile the program".into(), offset: None };
        let thread = compiled.spawn(move || compile(&source)).map_err(failed)?;
        let filter = thread.join().unwrap_or_else(|_| {
            Err(JqError { message: "the jq compiler panicked over this program".into(), offset: None })
        })?;
        Ok(Arc::new(Self { filter }))
    }

    /// Runs the program, and has `take` make something of its one value.
    fn outputs<T>(
        &self,
        input: Input<'_>,
        limits: &Limits,
        take: impl FnOnce(Val) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        meter::metered(limits, || {
            let input = read(input)?;
            let ctx = Ctx::<Data>::new(&self.filter.lut, Vars::new([]));
            let mut outputs = self.filter.id.run((ctx, input));
            let first = outputs.next().ok_or_else(|| RunError::Output("the jq program gave no value".into()))?;
            let first = first.map_err(failure)?;
            match outputs.next() {
                None => {}
                Some(Ok(_)) => return Err(RunError::Output("the jq program gave more than one value".into())),
                Some(Err(error)) => return Err(failure(error)),
            }
            drop(outputs);
            meter::keep(&first);
            take(first)
        })
    }

    /// The one value that the program gives, as JSON.
    pub fn run(&self, input: Input<'_>, limits: &Limits) -> Result<Vec<u8>, RunError> {
        self.outputs(input, limits, |value| write(&value, limits.output))
    }

    /// The elements of the one list that the program gives, each as JSON; at most `most`.
    pub fn run_list(&self, input: Input<'_>, limits: &Limits, most: usize) -> Result<Vec<Vec<u8>>, RunError> {
        self.outputs(input, limits, |value| {
            let Val::Arr(items) = &value else {
                return Err(RunError::Output(format!("the jq program gave {} and not a list", kind(&value))));
            };
            if items.len() > most {
                let message = format!("the list has {} elements, and {most} are the most", items.len());
                return Err(RunError::Output(message));
            }
            let mut left = limits.output;
            let one = |item| {
                let json = write(item, left)?;
                left -= json.len();
                Ok(json)
            };
            items.iter().map(one).collect()
        })
    }

    /// The number that the program gives.
    pub fn run_number(&self, input: Input<'_>, limits: &Limits) -> Result<f64, RunError> {
        self.outputs(input, limits, |value| match (&value, jaq_std::ValT::as_f64(&value)) {
            (Val::Num(_), Some(number)) => Ok(number),
            _ => Err(RunError::Output(format!("the jq program gave {} and not a number", kind(&value)))),
        })
    }

    /// Whether the value that the program gives is `true`; anything but `true` and `false` is an error.
    pub fn predicate(&self, input: Input<'_>, limits: &Limits) -> Result<bool, RunError> {
        self.outputs(input, limits, |value| match value {
            Val::Bool(is) => Ok(is),
            other => Err(RunError::Output(format!("the jq program gave {} and not true or false", kind(&other)))),
        })
    }
}

fn kind(value: &Val) -> &'static str {
    match value {
        Val::Null => "null",
        Val::Bool(_) => "a boolean",
        Val::Num(_) => "a number",
        Val::TStr(_) | Val::BStr(_) => "a text",
        Val::Arr(_) => "a list",
        Val::Obj(_) => "an object",
    }
}

fn failure(error: jaq_core::Exn<'_, Val>) -> RunError {
    const LONGEST_MESSAGE: usize = 1000;
    let Ok(error) = error.get_err() else {
        return RunError::Failed("the jq program broke out of itself".into());
    };
    let value = error.into_val();
    meter::keep(&value);
    let mut message = match &value {
        Val::TStr(text) => String::from_utf8_lossy(text).into_owned(),
        other => other.to_string(),
    };
    if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
        message.truncate(end);
        message.push('…');
    }
    RunError::Failed(message)
}

fn read(input: Input<'_>) -> Result<Val, RunError> {
    match input {
        Input::Text(text) => Ok(Val::from(text.to_owned())),
        Input::Json(json) if nesting::too_deep(json) => Err(RunError::Failed("the value is nested too deep".into())),
        // serde_json first: jaq reads more than JSON, such as comments and NaN.
        Input::Json(json) => match serde_json::from_slice::<serde::de::IgnoredAny>(json) {
            Err(error) => Err(RunError::NotJson(error.to_string())),
            Ok(_) => jaq_json::read::parse_single(json).map_err(|error| RunError::NotJson(error.to_string())),
        },
    }
}

/// Writes JSON, up to so many bytes.
fn write(value: &Val, most: usize) -> Result<Vec<u8>, RunError> {
    let mut json = Bounded { bytes: Vec::new(), most };
    if jaq_json::write::write(&mut json, &jaq_json::write::Pp::default(), 0, value).is_err() {
        return Err(RunError::Output(format!("the jq program gave more than {most} bytes")));
    }
    // What is no JSON (NaN, bytes, keys that are no texts) would be written as something that nobody else reads.
    match serde_json::from_slice::<serde::de::IgnoredAny>(&json.bytes) {
        Ok(_) => Ok(json.bytes),
        Err(_) => Err(RunError::Output("the jq program gave a value that JSON cannot say".into())),
    }
}

struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.most {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn compile(source: &str) -> Result<Filter<Data>, JqError> {
    // Once as it is written, for what is wrong with it.
    let arena = Arena::default();
    let file = File { code: source, path: () };
    let loaded = Loader::new(library()).load(&arena, file).map_err(|errors| describe_load(source, errors))?;
    Compiler::<_, Data>::default()
        .with_funs(natives::all())
        .compile(loaded)
        .map_err(|errors| describe_compile(source, errors))?;
    // Then rewritten, as the last of the definitions.
    let message = "imports and includes have no meaning here";
    let body: Term<&str> =
        load::parse(source, |parser| parser.term()).ok_or_else(|| JqError { message: message.into(), offset: None })?;
    let main = rewrite::term(body, 0).map_err(|refused| JqError {
        message: match refused {
            rewrite::Refused::TooDeep => "the jq program is nested too deep".into(),
            rewrite::Refused::FilterToItself(name) => format!(
                "`{name}` takes a filter and calls itself; let it call a definition inside of it that takes none"
            ),
        },
        offset: None,
    })?;
    let main = Def { name: MAIN, args: Vec::new(), body: main };
    let arena = Arena::default();
    let file = File { code: MAIN, path: () };
    let unexpected = |_| JqError { message: "the jq program cannot be bounded".into(), offset: None };
    let loaded = Loader::new(LIBRARY.iter().cloned().chain([main])).load(&arena, file).map_err(|_| unexpected(()))?;
    Compiler::<_, Data>::default().with_funs(natives::all()).compile(loaded).map_err(|_| unexpected(()))
}

fn describe_load(source: &str, errors: load::Errors<&str, ()>) -> JqError {
    let at = |part: &str| Some(load::span(source, part).start);
    for (_, error) in errors {
        match error {
            load::Error::Lex(errors) => {
                if let Some((expected, rest)) = errors.into_iter().next() {
                    return JqError { message: format!("expected {}", expected.as_str()), offset: at(rest) };
                }
            }
            load::Error::Parse(errors) => {
                if let Some((expected, found)) = errors.into_iter().next() {
                    let found_text = if found.is_empty() { "the end".into() } else { format!("`{found}`") };
                    let offset = if found.is_empty() { Some(source.len()) } else { at(found) };
                    let message = format!("expected {}, found {found_text}", expected.as_str());
                    return JqError { message, offset };
                }
            }
            load::Error::Io(errors) => {
                if let Some((path, _)) = errors.into_iter().next() {
                    return JqError { message: "a jq program here cannot load modules".into(), offset: at(path) };
                }
            }
        }
    }
    JqError { message: "the jq program cannot be read".into(), offset: None }
}

fn describe_compile(source: &str, errors: jaq_core::compile::Errors<&str, ()>) -> JqError {
    let first = errors.into_iter().flat_map(|(_, errors)| errors).next();
    match first {
        Some((name, undefined)) => JqError {
            message: format!("there is no {} `{name}`", undefined.as_str()),
            offset: Some(load::span(source, name).start).filter(|offset| *offset <= source.len()),
        },
        None => JqError { message: "the jq program cannot be compiled".into(), offset: None },
    }
}
