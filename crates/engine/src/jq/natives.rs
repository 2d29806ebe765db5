//! The filters that are not written in jq: those of jaq, less those that reach out of a program, and our marks.

use jaq_core::box_iter::box_once;
use jaq_core::data::JustLut;
use jaq_core::native::{Fun, bome, v};
use jaq_core::{Error, Native};
use jaq_json::{Num, Val};

use super::meter;
use super::nesting;

pub(super) type Data = JustLut<Val>;

/// Counts a step.
pub(super) const STEP: &str = "\u{1}step";
/// Counts a step and measures the value.
pub(super) const KEEP: &str = "\u{1}keep";
/// Counts what it takes to go through a value by itself.
pub(super) const READ: &str = "\u{1}read";
/// Counts what it takes to count what a value has.
pub(super) const COUNT: &str = "\u{1}count";
/// Counts what it takes to sort a value, or by it.
pub(super) const SORT: &str = "\u{1}sort";
/// Counts the product of two sizes as steps.
pub(super) const PRODUCT: &str = "\u{1}product";
/// Filters that end the process, read its environment or write to its terminal.
const OUTSIDE: &[&str] =
    &["halt", "env", "debug_empty", "stderr_empty", "input", "inputs", "strftime", "strflocaltime"];
/// Definitions that are written with those.
pub(super) const OUTSIDE_DEFS: &[&str] = &["halt", "halt_error", "debug", "stderr"];

pub(super) fn all() -> impl Iterator<Item = Fun<Data>> {
    let theirs = jaq_core::funs::<Data>().chain(jaq_std::funs::<Data>()).chain(jaq_json::funs::<Data>());
    let ours = |name: &str, args: usize| matches!((name, args), ("fromjson" | "implode", 0));
    let theirs = theirs.filter(move |(name, args, _)| !OUTSIDE.contains(name) && !ours(name, args.len()));
    theirs.chain(marks()).chain(guarded())
}

/// The filters of jaq that take time and memory in proportion to their input at most, as far as that is counted where they are called
/// (`rewrite`), each with how many arguments it has. What is not named here may take any time: regular expressions first of all.
const BOUNDED: &[(&str, usize)] = &[
    ("error_empty", 0),
    ("path", 1),
    ("path_value", 1),
    ("range", 3),
    ("keys_unsorted", 0),
    ("key_values", 0),
    ("first", 1),
    ("last", 1),
    ("limit", 2),
    ("skip", 2),
    ("floor", 0),
    ("round", 0),
    ("ceil", 0),
    ("fabs", 0),
    ("sqrt", 0),
    ("pow", 2),
    ("log", 0),
    ("log2", 0),
    ("log10", 0),
    ("exp", 0),
    ("exp2", 0),
    ("exp10", 0),
    ("trunc", 0),
    ("fmin", 2),
    ("fmax", 2),
    ("fmod", 2),
    ("utf8bytelength", 0),
    ("explode", 0),
    ("implode", 0),
    ("ascii_downcase", 0),
    ("ascii_upcase", 0),
    ("reverse", 0),
    ("sort", 0),
    ("sort_by", 1),
    ("group_by", 1),
    ("min_by_or_empty", 1),
    ("max_by_or_empty", 1),
    ("startswith", 1),
    ("endswith", 1),
    ("ltrimstr", 1),
    ("rtrimstr", 1),
    ("trim", 0),
    ("ltrim", 0),
    ("rtrim", 0),
    ("escape_sh", 0),
    ("escape_html", 0),
    ("encode_uri", 0),
    ("decode_uri", 0),
    ("encode_base64", 0),
    ("decode_base64", 0),
    ("now", 0),
    ("todateiso8601", 0),
    ("fromdateiso8601", 0),
    ("gmtime", 0),
    ("mktime", 0),
    ("fromjson", 0),
    ("tojson", 0),
    ("tobytes", 0),
    ("length", 0),
    ("contains", 1),
    ("has", 1),
    ("indices", 1),
];

/// The filters of jaq that may take any time and any memory, each with how many arguments it has.
pub(super) fn unbounded() -> impl Iterator<Item = (&'static str, usize)> {
    let all = all().map(|(name, args, _)| (name, args.len()));
    all.filter(|call| !call.0.starts_with('\u{1}') && !BOUNDED.contains(call))
}

/// A mark that measures the value, for places where there are no paths.
macro_rules! measure {
    ($with:path) => {
        Native::<Data>::new(|cv| {
            $with(&cv.1);
            box_once(Ok(cv.1))
        })
    };
}

fn marks() -> Vec<Fun<Data>> {
    let step = Native::<Data>::new(|cv| {
        meter::step();
        box_once(Ok(cv.1))
    });
    let step = step.with_paths(|cv| {
        meter::step();
        meter::path(cv.1.1.iter().take(meter::DEPTH + 1).count());
        box_once(Ok(cv.1))
    });
    let step = step.with_update(|cv, update| {
        meter::step();
        update(cv.1)
    });
    let keep = Native::<Data>::new(|cv| {
        meter::keep(&cv.1);
        box_once(Ok(cv.1))
    });
    let keep = keep.with_paths(|cv| {
        meter::keep(&cv.1.0);
        meter::path(cv.1.1.iter().take(meter::DEPTH + 1).count());
        box_once(Ok(cv.1))
    });
    let keep = keep.with_update(|cv, update| {
        meter::keep(&cv.1);
        update(cv.1)
    });
    let read = measure!(meter::read);
    let count = measure!(meter::count);
    let sort = measure!(meter::sort);
    let product = Native::<Data>::new(|mut cv| {
        let other = cv.0.pop_var();
        meter::product(&cv.1, &other);
        box_once(Ok(cv.1))
    });
    vec![
        (STEP, v(0), step),
        (KEEP, v(0), keep),
        (READ, v(0), read),
        (COUNT, v(0), count),
        (SORT, v(0), sort),
        (PRODUCT, v(1), product),
    ]
}

macro_rules! math {
    ($name:literal, $guard:expr, $op:tt) => {
        ($name, v(2), Native::<Data>::new(|mut cv| {
            let right = cv.0.pop_var();
            let left = cv.0.pop_var();
            let guard: fn(&Val, &Val) = $guard;
            guard(&left, &right);
            bome(left $op right)
        }))
    };
}

fn guarded() -> Vec<Fun<Data>> {
    vec![
        math!("\u{1}add", joined, +),
        math!("\u{1}sub", |left, right| { meter::step(); lists(left, right) }, -),
        math!("\u{1}mul", times, *),
        math!("\u{1}div", |left, right| { meter::make(8 * meter::shallow(left)); lists(left, right) }, /),
        math!("\u{1}rem", |left, right| { meter::step(); lists(left, right) }, %),
        ("implode", v(0), Native::<Data>::new(|cv| bome(implode(&cv.1)))),
        (
            "fromjson",
            v(0),
            Native::<Data>::new(|cv| {
                let parsed = match &cv.1 {
                    Val::TStr(text) => {
                        meter::make(text.len() as u64 * 8);
                        parse(text)
                    }
                    _ => Err(Error::typ(cv.1.clone(), "string")),
                };
                bome(parsed)
            }),
        ),
    ]
}

/// Joining copies both, unless nobody else has the first: who has it is not known here.
fn joined(left: &Val, right: &Val) {
    meter::make(meter::shallow(left) + meter::shallow(right));
}

/// A text of characters by their numbers.
fn implode(value: &Val) -> Result<Val, Error<Val>> {
    let Val::Arr(items) = value else { return Err(Error::typ(value.clone(), "array")) };
    let character = |item: &Val| {
        let number = jaq_std::ValT::as_isize(item).and_then(|number| u32::try_from(number).ok());
        let refused = || Error::str(format_args!("cannot use {item} as character"));
        number.and_then(char::from_u32).ok_or_else(refused)
    };
    items.iter().map(character).collect::<Result<String, _>>().map(Val::from)
}

fn parse(text: &[u8]) -> Result<Val, Error<Val>> {
    if nesting::too_deep(text) {
        return Err(Error::str("JSON that is nested too deep"));
    }
    jaq_json::read::parse_single(text).map_err(|error| Error::str(format_args!("not JSON: {error}")))
}

fn lists(left: &Val, right: &Val) {
    let big = |value: &Val| matches!(value, Val::Num(Num::BigInt(_)));
    if matches!((left, right), (Val::Arr(_), Val::Arr(_))) || big(left) || big(right) {
        meter::product(left, right);
    }
}

/// Repeating a text makes as much as its count says; multiplying large numbers takes the product of their sizes.
fn times(left: &Val, right: &Val) {
    match (left, right) {
        (Val::TStr(text) | Val::BStr(text), Val::Num(count)) | (Val::Num(count), Val::TStr(text) | Val::BStr(text)) => {
            let count = match count {
                Num::Int(count) => u64::try_from(*count).unwrap_or(0),
                Num::Float(count) => *count as u64,
                Num::BigInt(_) => u64::MAX,
                Num::Dec(digits) => digits.parse::<f64>().map_or(u64::MAX, |count| count as u64),
            };
            meter::make(count.saturating_mul(text.len() as u64));
        }
        (Val::Num(_), Val::Num(_)) => {
            meter::make(meter::shallow(left) + meter::shallow(right));
            lists(left, right);
        }
        _ => meter::product(left, right),
    }
}
