//! The `evener` binary: flags, output and exit codes. Everything else is in the engine.
//!
//! Exit codes: 0 good, 1 failed, 2 usage or configuration.

mod check;
mod log;
mod memory;
mod private;
mod up;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use evener_engine::config::{self, Loaded, Report};

/// Spreads work over a pool of workers and brings every result back to whoever asked.
#[derive(Debug, Parser)]
#[command(name = "evener", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Start with `evener up SERVICE.yaml`; what a service file holds is in docs/service-file.md. Without a \
                  file, `evener up` runs Python functions for any script of yours."
)]
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
    /// Check a service file and say all that is wrong with it; 0 good, 2 bad.
    Check(check::Check),
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

/// The one argument with which a node starts this binary as its warden: not a command for people.
const WARDEN: &str = "warden";

/// The arguments with which the Python package starts an engine for one script: not a command for people either.
const PRIVATE: [&str; 2] = ["up", "--private"];

/// The configuration is wrong.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    // What people are not offered, clap is not told of, so that neither help nor completion shows it.
    if std::env::args_os().skip(1).eq([WARDEN]) {
        return evener_engine::serve_warden();
    }
    memory::keep();
    if std::env::args_os().skip(1).eq(PRIVATE) {
        return private::run();
    }
    let cli = Cli::parse();
    match cli.command {
        Command::Up(up) => up.run(),
        Command::Check(check) => check.run(),
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

/// Reads a service file; what is wrong with it is written to standard error.
fn load(path: &Path) -> Result<Loaded, ExitCode> {
    match config::load(path, &|name| std::env::var(name).ok()) {
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
}
