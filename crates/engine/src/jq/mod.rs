//! jq programs, run within limits.
//!
//! A program cannot reach out of itself: no files, no environment, no terminal. One that runs away is stopped: it has so
//! many steps, so much time, and so many bytes that it may make. What is counted bounds a program only as far as every filter that it
//! calls takes time and memory in proportion to what it works on: [`Program::is_bounded`] says whether that is so. A bounded program
//! may run in the node, with little to spend ([`Limits::at_once`]); everything else runs in worker processes of its own
//! ([`workers`]), which are bounded by the kernel and can be killed.

mod bounded;
mod meter;
mod natives;
mod nesting;
mod rewrite;
pub mod template;
pub(crate) mod workers;

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use jaq_core::load::parse::{Def, Term};
use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Filter, Vars};
use jaq_json::Val;
use tokio::sync::{Semaphore, SemaphorePermit};

use natives::Data;

/// The most bytes of memory that a run may use.
const MEMORY: u64 = 256 << 20;
/// The most bytes of output.
const OUTPUT: usize = 16 << 20;
/// How long a program may run where others wait for the same thread.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(1);
/// The largest input of such a run, in bytes.
pub(crate) const LARGEST_AT_ONCE: usize = 32 * 1024;
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

impl RunError {
    /// What clients are told of it.
    pub(crate) fn detail(&self) -> String {
        match self {
            RunError::Failed(detail) => format!("the jq program failed: {detail}"),
            error => error.to_string(),
        }
    }

    /// Whether the run was stopped for what it spent: with more, it may come to a value.
    pub(crate) fn wants_more(&self) -> bool {
        matches!(self, RunError::Steps | RunError::Time | RunError::Memory)
    }
}

/// What a run may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most steps.
    pub steps: u64,
    /// When to stop.
    pub until: Option<Instant>,
    /// The most bytes that it may make, all values together, those that it holds no more as well.
    pub made: u64,
    /// The most bytes of one value, counted as if nothing of it were shared.
    pub largest: u64,
    /// The most bytes of output.
    pub output: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 10_000_000, until: None, made: MEMORY, largest: MEMORY, output: OUTPUT }
    }
}

impl Limits {
    /// What a bounded program may spend where others wait for the same thread.
    pub fn at_once() -> Limits {
        const STEPS: u64 = 20_000;
        const MADE: u64 = 1 << 20;
        Limits { steps: STEPS, until: Some(Instant::now() + AT_ONCE), made: MADE, largest: MADE, ..Limits::default() }
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
    source: Box<str>,
    filter: Filter<Data>,
    bounded: bool,
    /// How many worker processes may run it at the same time, other than for the jobs of a stage, which has places of its own.
    turns: Semaphore,
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
    let all = all.filter(|def| !natives::OUTSIDE_DEFS.contains(&def.name));
    all.map(|def| if (def.name, def.args.len()) == ("sub", 3) { substitution().unwrap_or(def) } else { def })
}

/// `sub` and `gsub`, without keeping all that the text was before each match: the library's own takes memory that is quadratic in the
/// text. Where a match gives several texts, each gives a text as a whole, as in the library.
fn substitution() -> Option<Def<&'static str>> {
    const SOURCE: &str = r#"def sub(re; f; flags):
        def handle: if isarray then capture_of_match | f end;
        [split_matches(re; flags)[] | [handle]] as $parts
        | if all($parts[]; length == 1) then "" + ([$parts[][0]] | add) else reduce $parts[] as $p (""; . + $p[]) end;"#;
    load::parse(SOURCE, |parser| parser.defs())?.pop()
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
        let code = source.to_owned();
        let compiled = std::thread::Builder::new().name("jq".into()).stack_size(PARSER_STACK);
        let failed = |_| JqError { message: "there is no thread to compile the program".into(), offset: None };
        let thread = compiled.spawn(move || compile(&code)).map_err(failed)?;
        let (filter, bounded) = thread.join().unwrap_or_else(|_| {
            Err(JqError { message: "the jq compiler panicked over this program".into(), offset: None })
        })?;
        let turns = Semaphore::new(std::thread::available_parallelism().map_or(1, NonZero::get));
        Ok(Arc::new(Self { source: source.into(), filter, bounded, turns }))
    }

    /// Whether its steps and what it makes bound the time and the memory that it takes. What calls a regular expression is not.
    pub fn is_bounded(&self) -> bool {
        self.bounded
    }

    /// Whether it may run on that much input where others wait for the same thread.
    pub(crate) fn may_run_at_once(&self, input: usize) -> bool {
        self.bounded && input <= LARGEST_AT_ONCE
    }

    /// Waits until it may run in a worker process for something else than the job of a stage.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.turns.acquire().await.ok()
    }

    /// The program as it was written.
    pub(crate) fn source(&self) -> &str {
        &self.source
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
        Input::Json(json) => match check_json(json) {
            Err(error) => Err(RunError::NotJson(error)),
            Ok(()) => jaq_json::read::parse_single(json).map_err(|error| RunError::NotJson(error.to_string())),
        },
    }
}

/// Whether bytes are JSON, which is UTF-8. The parser alone does not look into strings that it skips.
pub(crate) fn check_json(bytes: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {error}"))?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ()).map_err(|error| error.to_string())
}

/// Whether a text is JSON that programs read.
pub(crate) fn is_json(text: &str) -> bool {
    !nesting::too_deep(text.as_bytes()) && check_json(text.as_bytes()).is_ok()
}

/// Writes JSON, up to so many bytes.
fn write(value: &Val, most: usize) -> Result<Vec<u8>, RunError> {
    let mut json = Bounded { bytes: Vec::new(), most };
    if jaq_json::write::write(&mut json, &jaq_json::write::Pp::default(), 0, value).is_err() {
        return Err(RunError::Output(format!("the jq program gave more than {most} bytes")));
    }
    // What is no JSON (NaN, bytes, keys that are no texts) would be written as something that nobody else reads.
    match check_json(&json.bytes) {
        Ok(()) => Ok(json.bytes),
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

/// Compiles a program, and says whether what is counted bounds it.
fn compile(source: &str) -> Result<(Filter<Data>, bool), JqError> {
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
    let bounded = bounded::is_bounded(&body);
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
    let filter = Compiler::<_, Data>::default().with_funs(natives::all()).compile(loaded);
    Ok((filter.map_err(|_| unexpected(()))?, bounded))
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
