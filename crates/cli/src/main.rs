//! The `evener` binary: flags, output and exit codes. Everything else is in the engine.
//!
//! Exit codes: 0 good, 1 failed, 2 usage or configuration.

mod check;
mod graph;
mod log;
mod memory;
mod new;
mod parent;
mod private;
mod test;
mod up;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use evener_engine::config::{self, Loaded, Overlay, Report};

/// Spreads work over a pool of workers and brings every result back to whoever asked.
#[derive(Debug, Parser)]
#[command(name = "evener", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Start with `evener new DIR`, or `evener up SERVICE.yaml`; what a service file holds is in \
                  docs/service-file.md. Without a file, `evener up` runs Python functions for any script of yours.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a service until Ctrl-C, or without a file a pool of workers for Python functions.
    ///
    /// Without a file, scripts of the same user call functions here once EVENER_URL names the address of its API.
    ///
    /// Writes `listening NAME URL` for each listener, and `ready` once every stage and pool takes work, to standard
    /// output; the log goes to standard error. Ctrl-C or SIGTERM drains: what runs may finish, the rest is answered
    /// 503. A second Ctrl-C gives up what is left.
    Up(up::Up),
    /// Write a small service to begin with into a folder, and say how to run it.
    ///
    /// It has a service file with two Python stages, two jq stages and a scatter, the Python module, a README.md and a
    /// .gitignore. Files that are there already are never overwritten.
    New(new::New),
    /// Check a service file and say all that is wrong with it; 0 good, 2 bad.
    Check(check::Check),
    /// Run the tests of a service file, and say what came of each.
    ///
    /// Starts the service on a free port, sends the requests that the file has under `tests`, and compares what comes
    /// back with what they expect. Tests that change the service with `with` get nodes of their own, one after another.
    /// 0 all passed, 1 some failed, 2 the file is bad or there is nothing to run. Ctrl-C stops it all: 130.
    Test(test::Test),
    /// Draw a service: its routes and triggers, the pipelines they lead to, their stages and branches, and its function pools.
    ///
    /// The drawing is text on standard output: a Mermaid flowchart, which many Markdown viewers show in a `mermaid`
    /// block, or Graphviz DOT for `dot -Tsvg`. A bad file is reported as by `evener check`: 0 good, 2 bad.
    Graph(graph::Graph),
    /// Print the JSON Schema of the service file.
    Schema,
    /// Print a completion script for a shell.
    ///
    /// For example: evener completions bash > /etc/bash_completion.d/evener
    Completions {
        /// The shell to complete in.
        shell: clap_complete::Shell,
    },
}

/// The arguments with which the Python package starts an engine for one script: not a command for people either.
const PRIVATE: [&str; 2] = ["up", "--private"];

/// The configuration is wrong.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    // What people are not offered, clap is not told of, so that neither help nor completion shows it.
    if let Some(exit) = evener_engine::serve_if_warden() {
        return exit;
    }
    memory::keep();
    if std::env::args_os().skip(1).eq(PRIVATE) {
        return private::run();
    }
    let cli = Cli::parse();
    match cli.command {
        Command::Up(up) => up.run(),
        Command::New(new) => new.run(),
        Command::Check(check) => check.run(),
        Command::Test(test) => test.run(),
        Command::Graph(graph) => graph.run(),
        Command::Schema => {
            println!("{:#}", config::schema());
            ExitCode::SUCCESS
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "evener", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

/// Reads a service file with overlays over it; what is wrong with it is written to standard error.
fn load(path: &Path, overlays: &[Overlay]) -> Result<Loaded, ExitCode> {
    match read(path, overlays) {
        Ok(loaded) => {
            complain(&loaded.warnings);
            Ok(loaded)
        }
        Err(report) => {
            complain(&report);
            Err(ExitCode::from(BAD_CONFIGURATION))
        }
    }
}

/// Reads a service file with overlays over it.
fn read(path: &Path, overlays: &[Overlay]) -> Result<Loaded, Report> {
    config::load_with(path, overlays, &|name| std::env::var_os(name))
}

fn complain(report: &Report) {
    if !report.is_empty() {
        eprint!("{}", report.render(log::colours()));
    }
}

/// The path of a service file, as an argument.
#[derive(Debug, clap::Args)]
struct ServiceFile {
    /// The service file.
    #[arg(value_name = "SERVICE.yaml", value_hint = clap::ValueHint::FilePath)]
    service: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

impl ServiceFile {
    fn load(&self) -> Result<Loaded, ExitCode> {
        load(&self.service, &self.settings.set)
    }
}

/// What goes over a service file.
#[derive(Debug, clap::Args)]
struct Settings {
    /// Put a value over what the file says, such as `stages.sum.workers=0`: keys with dots between them, and the value
    /// as YAML. May be given more than once.
    #[arg(long, value_name = "KEY=VALUE", value_parser = Overlay::set)]
    set: Vec<Overlay>,
}
