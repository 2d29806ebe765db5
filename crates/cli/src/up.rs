//! `evener up`.

mod fresh;
mod serve;
mod signals;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use evener_engine::Running;
use evener_engine::config::{FunctionPool, Listener, Loaded, Report, Service, Workers};

pub(crate) use self::signals::{Stops, ignores_hang_up};
use crate::log::Format;
use crate::{BAD_CONFIGURATION, Settings, complain, read};

/// Arguments of `evener up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// The service file to run. Without one, it is a pool of workers for Python functions.
    #[arg(value_name = "SERVICE.yaml", value_hint = clap::ValueHint::FilePath)]
    service: Option<PathBuf>,
    /// How many workers the function pool `default` has: a number, or `auto` for one per core. Without it, what the
    /// file says, or else `auto`.
    #[arg(long, value_name = "N|auto", value_parser = workers)]
    workers: Option<Workers>,
    /// Where the service's own routes listen, in place of the file's `listen.http`.
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Where Evener's API listens, in place of the file's `listen.api`. Without either, on a Unix socket alone.
    #[arg(long, value_name = "HOST:PORT")]
    api: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// Let the service file take over again whenever it has changed, or one that it includes, and replace the workers of
    /// stages whose code has changed. SIGHUP does the same once.
    #[arg(long)]
    watch: bool,
    /// End at once when the process that started this one ends, however that comes about: for tests and scripts.
    #[arg(long)]
    end_with_parent: bool,
    /// How the log is written. EVENER_LOG sets what is in it: `debug`, or a filter such as `warn,worker=info`.
    #[arg(long, value_enum, default_value_t)]
    log: Format,
}

/// Why there is nothing to run.
enum Refused {
    /// What is wrong with the service file.
    File(Report),
    /// What is wrong with the arguments.
    Asked(String),
}

/// Reads `--workers`. A pool without workers would take calls and never run one, so 0 is left to service files.
pub(crate) fn workers(text: &str) -> Result<Workers, String> {
    match text.parse()? {
        Workers::Count(0) => Err("without workers no call ever runs: give 1 or more, or `auto`".into()),
        workers => Ok(workers),
    }
}

impl Up {
    pub(crate) fn run(self) -> ExitCode {
        let service = match self.read() {
            Ok(loaded) => {
                complain(&loaded.warnings);
                loaded.service
            }
            Err(Refused::File(report)) => {
                complain(&report);
                return ExitCode::from(BAD_CONFIGURATION);
            }
            Err(Refused::Asked(why)) => {
                eprintln!("error: {why}");
                return ExitCode::from(BAD_CONFIGURATION);
            }
        };
        let guard = crate::log::start(self.log, "info");
        let result = on_runtime(serve::serve(service, self));
        drop(guard);
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    /// Reads what is to run, as it is now.
    fn read(&self) -> Result<Loaded, Refused> {
        let mut loaded = match &self.service {
            Some(file) => read(file, &self.settings.set).map_err(Refused::File)?,
            None if !self.settings.set.is_empty() => {
                return Err(Refused::Asked("--set: it changes a service file, and there is none".into()));
            }
            None if self.watch => {
                return Err(Refused::Asked("--watch: it looks after a service file, and there is none".into()));
            }
            None => {
                let folder = std::env::current_dir()
                    .map_err(|error| Refused::Asked(format!("the working directory is not known: {error}")))?;
                let service = Service::functions_only("functions", Workers::Auto, folder);
                Loaded::from(service)
            }
        };
        let service = &mut loaded.service;
        self.override_listeners(service).and_then(|()| self.size_pool(service)).map_err(Refused::Asked)?;
        Ok(loaded)
    }

    fn override_listeners(&self, service: &mut Service) -> Result<(), String> {
        let listen = &mut service.listen;
        if let Some(address) = &self.http {
            if self.service.is_none() {
                let why = "--http: without a service file there are no routes to be served there; clients that call \
                           functions come to `--api`";
                return Err(why.into());
            }
            listen.http = Some(moved(listen.http.take(), address).map_err(|why| format!("--http: {why}"))?);
        }
        if let Some(address) = &self.api {
            let api = moved(listen.api.take(), address).map_err(|why| format!("--api: {why}"))?;
            if !api.is_loopback() && api.tls.is_none() && !api.insecure {
                let remedy = match self.service {
                    Some(_) => {
                        "the file's `listen.api` has no `tls`: give it a certificate, or say `insecure: true` there"
                    }
                    None => "it is not encrypted: take 127.0.0.1, or write a service file whose `listen.api` has `tls`",
                };
                return Err(format!("--api: others can reach {address}, and {remedy}"));
            }
            listen.api = Some(api);
        }
        Ok(())
    }

    fn size_pool(&self, service: &mut Service) -> Result<(), String> {
        let Some(workers) = self.workers else { return Ok(()) };
        let name = FunctionPool::DEFAULT;
        match service.functions.iter_mut().find(|pool| pool.name == name) {
            Some(pool) => pool.workers = workers,
            None => {
                return Err(format!(
                    "--workers: it sizes the function pool `{name}`, and {} has none: add \
                     `functions: {{{name}: {{}}}}` to it; how many workers a stage has is said by its key `workers`",
                    service.file.display()
                ));
            }
        }
        Ok(())
    }
}

/// The listener of the file at another address.
fn moved(listener: Option<Listener>, address: &str) -> Result<Listener, String> {
    let there = Listener::new(address)?;
    Ok(match listener {
        Some(listener) => Listener { address: there.address, ..listener },
        None => there,
    })
}

/// How long threads beside the node's own may take to end once the node has. One may wait for a file system that does not answer, or
/// be in a function that never returns.
const LAST_THREADS: Duration = Duration::from_millis(500);

/// Runs the node, which wants a single thread.
pub(crate) fn on_runtime<T>(node: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("the runtime does not start")?;
    let result = runtime.block_on(node);
    runtime.shutdown_timeout(LAST_THREADS);
    result
}

pub(crate) fn announce(running: &Running) -> anyhow::Result<()> {
    for address in running.addresses() {
        say(&format!("listening {} {}", address.name, address.url))?;
    }
    for (stage, interpreter) in running.interpreters() {
        let python = interpreter.path.display();
        tracing::info!(stage, %python, found = %interpreter.origin, "workers warming up");
    }
    Ok(())
}

/// Writes a line to standard output, at once: others wait for it.
pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("standard output is closed")
}
