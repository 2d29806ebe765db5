//! The log: readable on a terminal, JSON on request, and never in the way of the node.

use std::io::IsTerminal;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
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

/// What a filter without a target is about: the node itself, and what its workers print. The libraries below it warn of what any client
/// can cause, and would do so a million times.
const OURS: [&str; 2] = ["evener", "worker"];
/// How often it is looked at whether lines were dropped.
const DROPPED_LOOK: Duration = Duration::from_secs(5);

/// The log is whole once this is dropped.
pub(crate) struct Guard {
    _ordinary: WorkerGuard,
    _important: WorkerGuard,
}

/// Begins to log to standard error, from threads of its own: a terminal that is held up must not hold up the node. `level` is the least
/// that is logged unless EVENER_LOG says otherwise.
pub(crate) fn start(format: Format, level: &str) -> Guard {
    let writer = || NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES).finish(std::io::stderr());
    let ((ordinary, _ordinary), (important, _important)) = (writer(), writer());
    report_dropped([ordinary.error_counter(), important.error_counter()]);
    let writer = ByWeight { ordinary, important };
    let subscriber = tracing_subscriber::fmt().with_writer(writer).with_env_filter(filter(level)).with_ansi(colours());
    match format {
        Format::Text => subscriber.with_target(false).init(),
        Format::Json => subscriber.json().flatten_event(true).init(),
    }
    Guard { _ordinary, _important }
}

/// Begins to log to what `writer` makes, as lines for people without colours.
pub(crate) fn start_into<W>(writer: W, level: &str)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let subscriber = tracing_subscriber::fmt().with_writer(writer).with_env_filter(filter(level)).with_ansi(false);
    subscriber.with_target(false).init();
}

/// Writes warnings and errors of the node by a way of their own, so that a flood of other lines does not drop them.
struct ByWeight {
    ordinary: NonBlocking,
    important: NonBlocking,
}

impl<'a> MakeWriter<'a> for ByWeight {
    type Writer = NonBlocking;

    fn make_writer(&'a self) -> NonBlocking {
        self.ordinary.clone()
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> NonBlocking {
        let is_important = *metadata.level() <= Level::WARN && metadata.target() != "worker";
        if is_important { self.important.clone() } else { self.ordinary.clone() }
    }
}

/// Says in the log how many lines are not in it.
fn report_dropped(counters: [ErrorCounter; 2]) {
    let watch = move || {
        let mut told = 0;
        loop {
            std::thread::sleep(DROPPED_LOOK);
            let dropped = counters.iter().map(ErrorCounter::dropped_lines).sum::<usize>();
            if dropped > told {
                tracing::warn!(
                    lines = dropped - told,
                    "log lines were dropped: standard error is not read fast enough"
                );
                told = dropped;
            }
        }
    };
    // Without it the lines are missing all the same.
    let _ = std::thread::Builder::new().name("log".into()).spawn(watch);
}

fn filter(level: &str) -> EnvFilter {
    let said = std::env::var("EVENER_LOG").ok().filter(|said| !said.trim().is_empty());
    EnvFilter::try_new(directives(said.as_deref().unwrap_or(level)))
        .unwrap_or_else(|_| EnvFilter::new(directives(level)))
}

/// A filter in the library's words: a level alone is about what is ours.
fn directives(said: &str) -> String {
    let parts = said.split(',').map(str::trim).filter(|part| !part.is_empty());
    let parts = parts.flat_map(|part| match part.parse::<LevelFilter>() {
        Ok(_) => OURS.iter().map(|ours| format!("{ours}={part}")).collect(),
        Err(_) => vec![part.to_owned()],
    });
    std::iter::once("off".to_owned()).chain(parts).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_is_about_the_node_and_its_workers() {
        assert_eq!(directives("info"), "off,evener=info,worker=info");
        assert_eq!(directives("warn, worker=info"), "off,evener=warn,worker=warn,worker=info");
        assert_eq!(directives("h2=debug"), "off,h2=debug");
        assert_eq!(directives("DEBUG,"), "off,evener=DEBUG,worker=DEBUG");
    }
}
