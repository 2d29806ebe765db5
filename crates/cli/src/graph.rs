//! `evener graph`: what a service file describes, as a drawing in Mermaid's or Graphviz's words.
//!
//! It draws what the file says and nothing that only code knows: an answer from the middle of a pipeline is not in it, and a goto only
//! if its stage declares it.

mod dot;
mod draw;
mod drawing;
mod gotos;
mod mermaid;
mod words;

use std::io::Write;
use std::process::ExitCode;

use crate::ServiceFile;

/// Arguments of `evener graph`.
#[derive(Debug, clap::Args)]
pub(crate) struct Graph {
    #[command(flatten)]
    file: ServiceFile,
    /// Write Graphviz DOT in place of Mermaid.
    #[arg(long)]
    dot: bool,
}

impl Graph {
    pub(crate) fn run(self) -> ExitCode {
        let service = match self.file.load() {
            Ok(loaded) => loaded.service,
            Err(code) => return code,
        };
        let drawing = draw::draw(&service);
        let text = if self.dot { dot::text(&drawing) } else { mermaid::text(&drawing) };
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: the graph cannot be written: {error}");
                ExitCode::FAILURE
            }
        }
    }
}
