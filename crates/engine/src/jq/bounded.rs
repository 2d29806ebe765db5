//! Which programs are bounded by what is counted: their steps, and what they make.
//!
//! That is read off their text. A program is not bounded if it calls a filter of jaq that may take any time, such as a regular
//! expression, whether by itself or by a definition of jq's library. Names are compared without regard to where they are defined:
//! a program that gives a definition of its own such a name counts as one that may take any time, which costs it a little speed.

use std::collections::HashSet;
use std::sync::LazyLock;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::path::Part;

use super::{library, natives};

type Call<'s> = (&'s str, usize);

/// What may take any time: filters of jaq, and the definitions of the library that call them.
static UNBOUNDED: LazyLock<HashSet<Call<'static>>> = LazyLock::new(|| {
    let mut unbounded: HashSet<Call<'_>> = natives::unbounded().collect();
    let library: Vec<(Call<'_>, HashSet<Call<'_>>)> = library().map(|def| (signature(&def), calls_of(&def))).collect();
    // Until nothing is added: definitions call each other in any order.
    loop {
        let before = unbounded.len();
        let calls_one = |calls: &HashSet<Call<'_>>| !calls.is_disjoint(&unbounded);
        let more: Vec<Call<'_>> =
            library.iter().filter(|(_, calls)| calls_one(calls)).map(|(definition, _)| *definition).collect();
        unbounded.extend(more);
        if unbounded.len() == before {
            return unbounded;
        }
    }
});

/// Whether what is counted bounds a program, as it is written.
pub(super) fn is_bounded(program: &Term<&str>) -> bool {
    let mut calls = HashSet::new();
    gather(program, &mut calls);
    calls.is_disjoint(&UNBOUNDED)
}

fn signature<'s>(def: &Def<&'s str>) -> Call<'s> {
    (def.name, def.args.len())
}

fn calls_of<'s>(def: &Def<&'s str>) -> HashSet<Call<'s>> {
    let mut calls = HashSet::new();
    gather(&def.body, &mut calls);
    calls
}

/// All that a term calls, in definitions inside of it as well.
fn gather<'s>(term: &Term<&'s str>, calls: &mut HashSet<Call<'s>>) {
    match term {
        Term::Call(name, args) => {
            calls.insert((*name, args.len()));
            args.iter().for_each(|arg| gather(arg, calls));
        }
        Term::Str(format, parts) => {
            calls.extend(format.map(|format| (format, 0)));
            for part in parts {
                if let StrPart::Term(inner) = part {
                    gather(inner, calls);
                }
            }
        }
        Term::Arr(Some(inner)) | Term::Neg(inner) | Term::Label(_, inner) => gather(inner, calls),
        Term::Obj(entries) => {
            for (key, value) in entries {
                gather(key, calls);
                value.iter().for_each(|value| gather(value, calls));
            }
        }
        Term::BinOp(left, op, right) => {
            if let BinaryOp::Pipe(Some(pattern)) = op {
                gather_pattern(pattern, calls);
            }
            gather(left, calls);
            gather(right, calls);
        }
        Term::Fold(_, over, pattern, args) => {
            gather(over, calls);
            gather_pattern(pattern, calls);
            args.iter().for_each(|arg| gather(arg, calls));
        }
        Term::TryCatch(tried, catch) => {
            gather(tried, calls);
            catch.iter().for_each(|catch| gather(catch, calls));
        }
        Term::IfThenElse(cases, otherwise) => {
            for (test, then) in cases {
                gather(test, calls);
                gather(then, calls);
            }
            otherwise.iter().for_each(|otherwise| gather(otherwise, calls));
        }
        Term::Def(defs, inner) => {
            defs.iter().for_each(|def| gather(&def.body, calls));
            gather(inner, calls);
        }
        Term::Path(inner, path) => {
            gather(inner, calls);
            for (part, _) in &path.0 {
                match part {
                    Part::Index(index) => gather(index, calls),
                    Part::Range(from, to) => from.iter().chain(to).for_each(|bound| gather(bound, calls)),
                }
            }
        }
        Term::Id | Term::Recurse | Term::Num(_) | Term::Var(_) | Term::Break(_) | Term::Arr(None) => {}
    }
}

fn gather_pattern<'s>(pattern: &Pattern<&'s str>, calls: &mut HashSet<Call<'s>>) {
    match pattern {
        Pattern::Var(_) => {}
        Pattern::Arr(items) => items.iter().for_each(|item| gather_pattern(item, calls)),
        Pattern::Obj(entries) => {
            for (key, item) in entries {
                gather(key, calls);
                gather_pattern(item, calls);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jaq_core::load;

    use super::*;

    fn bounded(source: &str) -> bool {
        is_bounded(&load::parse(source, |parser| parser.term()).expect("a program"))
    }

    #[test]
    fn ordinary_programs_are_bounded() {
        for source in [
            ".",
            "{sum: (.numbers | map(. * .) | add)}",
            "[.query.n[] | tonumber]",
            "to_entries | from_entries | with_entries(.value += 1) | keys",
            "sort_by(.a) | group_by(.b) | unique | min_by(.c) | first",
            ".headers[\"x-key\"] // \"\" | ascii_downcase | split(\",\") | join(\"-\") | ltrimstr(\"a\")",
            "\"\\(.a)-\\(.b)\" | @base64",
            "if type == \"string\" then length else contains({a: 1}) end",
            "reduce range(5) as $i (0; . + $i) | tostring | tojson | fromjson",
            "walk(.) | del(.a) | paths | getpath([\"a\"]) | any | all | not",
            "def f($x): $x | floor; f(1), limit(3; repeat(1)), until(. > 1; . + 1)",
        ] {
            assert!(bounded(source), "{source}");
        }
    }

    #[test]
    fn whatever_calls_a_regular_expression_is_not() {
        for source in [
            "test(\"a\")",
            "gsub(\"a\"; \"b\")",
            "def f: scan(\"a\"); f",
            "[.[] | select(.a | test(\"x\"; \"i\"))]",
            "{a: (1 as {(capture(\"a\") | keys[0]): $x} | $x)}",
            "reduce splits(\"a\") as $x (0; 1)",
            "try error catch sub(\"a\"; \"b\")",
            "if match(\"a\") then 1 else 2 end",
            ".[test(\"a\")]",
            ".[1:test(\"a\")]",
            "\"\\(test(\"a\"))\"",
            "def map(f): 1; map(ascii(test(\"a\")))",
            "split(\"a\"; null)",
            "matches(\"a\"; \"g\")",
            "strptime(\"%Y\")",
            "jn(100000000; 1)",
        ] {
            assert!(!bounded(source), "{source}");
        }
    }
}
