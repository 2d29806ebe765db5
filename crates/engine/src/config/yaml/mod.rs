//! From text to a tree that knows where everything stands.
//!
//! Here is what this reader adds to YAML 1.2 and what it refuses: one document of at most 1 MiB, no tags,
//! no merge keys, keys that are text and given once, booleans written `true` and `false` and no other
//! way, and anchors only as far as their copies stay within a budget.

mod build;
mod expand;
mod scalar;
mod syntax;
mod tree;

pub(crate) use build::build;
pub(crate) use expand::expand;
pub(crate) use scalar::{Plain, Scalar, quote};
pub(crate) use tree::{Entry, Node, Value};
