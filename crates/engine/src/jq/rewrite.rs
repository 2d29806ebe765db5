//! A program, rewritten so that whatever it repeats is counted.
//!
//! Definitions tick when they are called, pipes tick for each value, and what is kept or made is measured. The marks let
//! values, paths and updates through unchanged, so that the meaning of a program stays the same.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::ops::Math;
use jaq_core::path::{Part, Path};

use super::natives::{COUNT, KEEP, PRODUCT, READ, SORT, STEP};

type T<'s> = Term<&'s str>;

/// Variables of the rewriting; no program can name them.
const VALUE: &str = "$\u{1}value";
/// Filters that go through the outputs of an argument by themselves.
const CONSUMERS: &[&str] = &["first", "last", "limit", "skip"];

/// Filters that go through a text, or through the keys of an object.
const READS: &[(&str, usize)] = &[
    ("utf8bytelength", 0),
    ("ascii_downcase", 0),
    ("ascii_upcase", 0),
    ("startswith", 1),
    ("endswith", 1),
    ("ltrimstr", 1),
    ("rtrimstr", 1),
    ("trim", 0),
    ("ltrim", 0),
    ("rtrim", 0),
    ("escape_sh", 0),
    ("escape_html", 0),
    ("unescape_html", 0),
    ("encode_uri", 0),
    ("decode_uri", 0),
    ("encode_base64", 0),
    ("decode_base64", 0),
    ("fromdateiso8601", 0),
    ("keys_unsorted", 0),
    ("key_values", 0),
];

/// How deep terms may be nested.
const DEPTH: usize = 400;

/// Why a program is refused.
pub(super) enum Refused {
    TooDeep,
    /// The name of a definition that passes filters on to itself: they would nest without end.
    FilterToItself(String),
}

pub(super) fn definition(def: Def<&str>, depth: usize) -> Result<Def<&str>, Refused> {
    let taken = def.args.iter().any(|arg| !arg.starts_with('$'));
    let body = term(def.body, depth)?;
    if taken && calls(&body, def.name, def.args.len()) {
        return Err(Refused::FilterToItself(def.name.to_owned()));
    }
    Ok(Def { body: before(STEP, body), ..def })
}

/// Whether a rewritten term calls a filter anywhere.
fn calls(term: &T<'_>, name: &str, arity: usize) -> bool {
    let within = |inner: &T<'_>| calls(inner, name, arity);
    match term {
        Term::Call(called, args) => (*called == name && args.len() == arity) || args.iter().any(within),
        Term::Str(_, parts) => parts.iter().any(|part| matches!(part, StrPart::Term(inner) if within(inner))),
        Term::Arr(Some(inner)) | Term::Neg(inner) | Term::Label(_, inner) => within(inner),
        Term::Obj(entries) => entries.iter().any(|(key, value)| within(key) || value.as_ref().is_some_and(within)),
        Term::BinOp(left, op, right) => {
            let bound = matches!(op, BinaryOp::Pipe(Some(pattern)) if in_pattern(pattern, name, arity));
            bound || within(left) || within(right)
        }
        Term::Fold(_, over, pattern, args) => {
            within(over) || in_pattern(pattern, name, arity) || args.iter().any(within)
        }
        Term::TryCatch(tried, catch) => within(tried) || catch.as_deref().is_some_and(within),
        Term::IfThenElse(cases, otherwise) => {
            cases.iter().any(|(test, then)| within(test) || within(then)) || otherwise.as_deref().is_some_and(within)
        }
        Term::Def(defs, inner) => defs.iter().any(|def| within(&def.body)) || within(inner),
        Term::Path(inner, path) => {
            let part = |part: &Part<T<'_>>| match part {
                Part::Index(index) => within(index),
                Part::Range(from, to) => from.as_ref().is_some_and(within) || to.as_ref().is_some_and(within),
            };
            within(inner) || path.0.iter().any(|(inner, _)| part(inner))
        }
        _ => false,
    }
}

fn in_pattern(pattern: &Pattern<&str>, name: &str, arity: usize) -> bool {
    match pattern {
        Pattern::Var(_) => false,
        Pattern::Arr(items) => items.iter().any(|item| in_pattern(item, name, arity)),
        Pattern::Obj(entries) => {
            entries.iter().any(|(key, item)| calls(key, name, arity) || in_pattern(item, name, arity))
        }
    }
}

fn call<'s>(name: &'s str) -> T<'s> {
    Term::Call(name, Vec::new())
}

fn pipe<'s>(left: T<'s>, right: T<'s>) -> T<'s> {
    Term::BinOp(Box::new(left), BinaryOp::Pipe(None), Box::new(right))
}

fn before<'s>(mark: &'s str, term: T<'s>) -> T<'s> {
    pipe(call(mark), term)
}

fn after<'s>(mark: &'s str, term: T<'s>) -> T<'s> {
    match term {
        Term::Id | Term::Var(_) | Term::Num(_) if mark == STEP => term,
        Term::Num(_) => term,
        term => pipe(term, call(mark)),
    }
}

fn name_of(op: &Math) -> &'static str {
    match op {
        Math::Add => "\u{1}add",
        Math::Sub => "\u{1}sub",
        Math::Mul => "\u{1}mul",
        Math::Div => "\u{1}div",
        Math::Rem => "\u{1}rem",
    }
}

/// Rewrites one term.
pub(super) fn term<'s>(term: T<'s>, depth: usize) -> Result<T<'s>, Refused> {
    let depth = depth + 1;
    if depth > DEPTH {
        return Err(Refused::TooDeep);
    }
    let one = |inner: Box<T<'s>>| self::term(*inner, depth).map(Box::new);
    let all =
        |terms: Vec<T<'s>>| terms.into_iter().map(|inner| self::term(inner, depth)).collect::<Result<Vec<_>, _>>();
    Ok(match term {
        Term::Str(format, parts) => {
            let parts = parts.into_iter().map(|part| match part {
                StrPart::Term(inner) => Ok(StrPart::Term(after(KEEP, self::term(inner, depth)?))),
                part => Ok(part),
            });
            let parts: Vec<_> = parts.collect::<Result<_, _>>()?;
            let made = parts.iter().any(|part| matches!(part, StrPart::Term(_)));
            let text = Term::Str(format, parts);
            if made { after(KEEP, text) } else { text }
        }
        Term::Arr(Some(inner)) => Term::Arr(Some(Box::new(after(KEEP, *one(inner)?)))),
        Term::Obj(entries) => {
            let entries = entries.into_iter().map(|(key, value)| match value {
                Some(value) => Ok((self::term(key, depth)?, Some(after(KEEP, self::term(value, depth)?)))),
                None => Ok((key, None)),
            });
            Term::Obj(entries.collect::<Result<_, _>>()?)
        }
        Term::Neg(inner) => Term::Neg(one(inner)?),
        Term::BinOp(left, op, right) => binary(*one(left)?, op, *one(right)?, depth)?,
        Term::Label(label, inner) => Term::Label(label, one(inner)?),
        Term::Fold(kind, over, pattern, args) => {
            let args = all(args)?.into_iter().map(|arg| before(STEP, arg)).collect();
            Term::Fold(kind, one(over)?, patterns(pattern, depth)?, args)
        }
        Term::TryCatch(tried, catch) => Term::TryCatch(one(tried)?, catch.map(one).transpose()?),
        Term::IfThenElse(cases, otherwise) => {
            let cases = cases
                .into_iter()
                .map(|(test, then)| Ok((after(STEP, self::term(test, depth)?), self::term(then, depth)?)));
            Term::IfThenElse(cases.collect::<Result<_, _>>()?, otherwise.map(one).transpose()?)
        }
        Term::Def(defs, inner) => {
            let defs = defs.into_iter().map(|def| definition(def, depth)).collect::<Result<_, _>>()?;
            Term::Def(defs, one(inner)?)
        }
        Term::Call(name, args) => called(name, all(args)?),
        Term::Path(inner, path) => {
            let parts = path.0.into_iter().map(|(part, optional)| {
                let step = |inner: T<'s>| Ok(after(STEP, self::term(inner, depth)?));
                let part = match part {
                    Part::Index(index) => Part::Index(step(index)?),
                    Part::Range(from, to) => Part::Range(from.map(step).transpose()?, to.map(step).transpose()?),
                };
                Ok((part, optional))
            });
            Term::Path(one(inner)?, Path(parts.collect::<Result<_, _>>()?))
        }
        term => term,
    })
}

fn called<'s>(name: &'s str, mut args: Vec<T<'s>>) -> T<'s> {
    if CONSUMERS.contains(&name) {
        args = args.into_iter().map(|arg| after(STEP, arg)).collect();
    }
    match (name, args.len()) {
        ("range", 3) => after(STEP, Term::Call(name, args)),
        ("contains" | "indices", 1) => {
            let bind = BinaryOp::Pipe(Some(Pattern::Var(VALUE)));
            let body = pipe(Term::Call(PRODUCT, vec![Term::Var(VALUE)]), Term::Call(name, vec![Term::Var(VALUE)]));
            Term::BinOp(Box::new(args.remove(0)), bind, Box::new(body))
        }
        ("fromjson" | "tojson" | "tobytes" | "explode" | "implode" | "reverse", 0) => {
            after(KEEP, before(KEEP, call(name)))
        }
        ("sort", 0) => before(SORT, call(name)),
        ("sort_by" | "group_by" | "min_by_or_empty" | "max_by_or_empty", 1) => {
            let by = args.into_iter().map(|by| after(SORT, by)).collect();
            before(KEEP, Term::Call(name, by))
        }
        ("length", 0) => before(COUNT, call(name)),
        (name, count) if READS.contains(&(name, count)) => before(READ, Term::Call(name, args)),
        _ => Term::Call(name, args),
    }
}

fn binary<'s>(left: T<'s>, op: BinaryOp<&'s str>, right: T<'s>, depth: usize) -> Result<T<'s>, Refused> {
    let joined = |left: T<'s>, op, right: T<'s>| Term::BinOp(Box::new(left), op, Box::new(right));
    Ok(match op {
        BinaryOp::Pipe(None) => pipe(left, before(STEP, right)),
        BinaryOp::Pipe(Some(pattern)) => {
            joined(left, BinaryOp::Pipe(Some(patterns(pattern, depth)?)), before(STEP, right))
        }
        BinaryOp::Math(op) => Term::Call(name_of(&op), vec![left, right]),
        BinaryOp::Cmp(op) => joined(after(KEEP, left), BinaryOp::Cmp(op), after(KEEP, right)),
        BinaryOp::UpdateMath(op) => {
            let sum = Term::Call(name_of(&op), vec![Term::Id, Term::Var(VALUE)]);
            let update = joined(left, BinaryOp::Update, sum);
            joined(after(KEEP, right), BinaryOp::Pipe(Some(Pattern::Var(VALUE))), update)
        }
        op @ (BinaryOp::Assign | BinaryOp::Update | BinaryOp::UpdateAlt) => joined(left, op, after(KEEP, right)),
        op @ (BinaryOp::And | BinaryOp::Or | BinaryOp::Alt) => joined(after(STEP, left), op, after(STEP, right)),
        BinaryOp::Comma => joined(left, op, right),
    })
}

fn patterns(pattern: Pattern<&str>, depth: usize) -> Result<Pattern<&str>, Refused> {
    if depth > DEPTH {
        return Err(Refused::TooDeep);
    }
    Ok(match pattern {
        Pattern::Var(name) => Pattern::Var(name),
        Pattern::Arr(items) => {
            Pattern::Arr(items.into_iter().map(|item| patterns(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Pattern::Obj(entries) => {
            let entry = |(key, value)| Ok((term(key, depth + 1)?, patterns(value, depth + 1)?));
            Pattern::Obj(entries.into_iter().map(entry).collect::<Result<_, _>>()?)
        }
    })
}
