//! The worker's side: this very binary, in the mode that runs jq programs for a node.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evener_worker::{Job, Made, ValueKind};
use serde::{Deserialize, Serialize};

use super::super::{Input, Limits, MEMORY, Program, RunError};
use super::LEFT_BEHIND;

/// The one argument that puts the binary into this mode: not a command for people.
pub(crate) const ARGUMENT: &str = "jq-worker";
/// So many programs are kept compiled.
const MOST_PROGRAMS: usize = 64;
/// A worker that has used more than this gives back what it can before it waits for its next run.
const TRIMMED_FROM: u64 = 32 << 20;

/// What a program is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Want {
    /// One value, as JSON.
    Value,
    /// One list with at most so many elements.
    List { most: usize },
    /// One number.
    Number,
}

/// What the node says of a run beside the input: the extension of its job.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) program: String,
    pub(super) want: Want,
    pub(super) time: Duration,
}

/// Serves the node until it ends.
pub(crate) fn serve() -> ExitCode {
    let mut programs = HashMap::new();
    let own = room::size();
    let served = evener_worker::serve("jq", |job| {
        let made = answer(&mut programs, &job, own);
        room::trim(TRIMMED_FROM);
        made
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(programs: &mut HashMap<String, Arc<Program>>, job: &Job<'_>, own: u64) -> Made {
    let ask: Ask = match serde_json::from_slice(job.extension) {
        Ok(ask) => ask,
        Err(error) => return Made::error("ask", &format!("the node's question cannot be read: {error}")),
    };
    let until = Instant::now().checked_add(ask.time);
    let program = match compiled(programs, ask.program) {
        Ok(program) => program,
        Err(message) => return Made::error("compile", &message),
    };
    let input = match job.kind {
        ValueKind::Text => match job.text() {
            Ok(text) => Input::Text(text),
            Err(made) => return made,
        },
        ValueKind::Nothing => Input::Json(b"null"),
        ValueKind::Json | ValueKind::Bytes => Input::Json(job.value),
    };
    let limits = Limits { steps: u64::MAX, until, made: room::COUNTED, ..Limits::default() };
    let _room = room::Room::of(MEMORY, own + LEFT_BEHIND + MEMORY);
    let made = match ask.want {
        Want::Value => program.run(input, &limits).map(Made::json),
        Want::List { most } => program.run_list(input, &limits, most).map(|elements| Made::bytes(packed(&elements))),
        Want::Number => program.run_number(input, &limits).map(|number| Made::json(number.to_string())),
    };
    made.unwrap_or_else(|error| match error {
        RunError::NotJson(_) => Made::undecodable(error.to_string()),
        error => Made::error("run", &error.detail()),
    })
}

/// The elements of a list one after the other, each behind its length.
fn packed(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(elements.iter().map(|element| element.len() + size_of::<u32>()).sum());
    for element in elements {
        // The output as a whole is bounded far below that.
        packed.extend_from_slice(&u32::try_from(element.len()).unwrap_or(u32::MAX).to_le_bytes());
        packed.extend_from_slice(element);
    }
    packed
}

fn compiled(programs: &mut HashMap<String, Arc<Program>>, source: String) -> Result<Arc<Program>, String> {
    if let Some(program) = programs.get(&source) {
        return Ok(program.clone());
    }
    let program = Program::compile(&source).map_err(|error| error.to_string())?;
    if programs.len() >= MOST_PROGRAMS {
        programs.clear();
    }
    programs.insert(source, program.clone());
    Ok(program)
}

/// How much memory this process may have, as the kernel sees to it.
#[cfg(target_os = "linux")]
mod room {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// What a run makes and drops again is not counted: the kernel counts what it holds.
    pub(super) const COUNTED: u64 = u64::MAX;

    /// While it lives, the process may have no more than it had plus so many bytes, and never more than `most`. An allocation beyond
    /// that ends it.
    pub(super) struct Room(Rlimit);

    impl Room {
        pub(super) fn of(bytes: u64, most: u64) -> Room {
            let before = getrlimit(Resource::As);
            if let Some([size, _]) = statm() {
                let most = size.saturating_add(bytes).min(most);
                let current = Some(before.maximum.map_or(most, |maximum| maximum.min(most)));
                // If the kernel refuses, what is counted still bounds most of it.
                let _ = setrlimit(Resource::As, Rlimit { current, maximum: before.maximum });
            }
            Room(before)
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = setrlimit(Resource::As, self.0);
        }
    }

    /// Gives memory back to the system, if the process has more than so many bytes.
    pub(super) fn trim(from: u64) {
        if statm().is_some_and(|[_, resident]| resident > from) {
            #[cfg(target_env = "gnu")]
            #[allow(unsafe_code)]
            // SAFETY: it gives back what nothing refers to.
            unsafe {
                libc::malloc_trim(0);
            }
        }
    }

    /// The size of the process, in bytes.
    pub(super) fn size() -> u64 {
        statm().map_or(0, |[size, _]| size)
    }

    /// The size of the process, and what of it is in memory, in bytes.
    fn statm() -> Option<[u64; 2]> {
        let text = std::fs::read_to_string("/proc/self/statm").ok()?;
        let mut pages = text.split(' ').map(str::parse::<u64>);
        let page = rustix::param::page_size() as u64;
        Some([pages.next()?.ok()? * page, pages.next()?.ok()? * page])
    }
}

/// Elsewhere what is counted is all that bounds it.
#[cfg(not(target_os = "linux"))]
mod room {
    pub(super) const COUNTED: u64 = super::MEMORY;

    pub(super) struct Room;

    impl Room {
        pub(super) fn of(_: u64, _: u64) -> Room {
            Room
        }
    }

    pub(super) fn size() -> u64 {
        0
    }

    pub(super) fn trim(_: u64) {}
}
