//! The log: readable on a terminal, JSON on request, and never in the way of the node.

use std::io::IsTerminal;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// So many lines wait for a terminal that is held up; further ones are dropped.
const LINES: usize = 8192;

/// Whether standard error takes colours.
pub(crate) fn colours() -> bool {
    colours_on(&std::io::stderr())
}

/// Whether that output takes colours.
pub(crate) fn colours_on(output: &impl IsTerminal) -> bool {
    output.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Begins to log to standard error, from a thread of its own: a terminal that is held up must not hold up the node. The
/// log is whole once the guard is dropped. `level` is the least that is logged unless EVENER_LOG says otherwise.
pub(crate) fn start(format: Format, level: &str) -> WorkerGuard {
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES).finish(std::io::stderr());
    let subscriber = tracing_subscriber::fmt().with_writer(writer).with_env_filter(filter(level)).with_ansi(colours());
    match format {
        Format::Text => subscriber.with_target(false).init(),
        Format::Json => subscriber.json().flatten_event(true).init(),
    }
    guard
}

/// Begins to log to what `writer` makes, as lines for people without colours.
pub(crate) fn start_into<W>(writer: W, level: &str)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let subscriber = tracing_subscriber::fmt().with_writer(writer).with_env_filter(filter(level)).with_ansi(false);
    subscriber.with_target(false).init();
}

fn filter(level: &str) -> EnvFilter {
    EnvFilter::try_from_env("EVENER_LOG").unwrap_or_else(|_| EnvFilter::new(level))
}
