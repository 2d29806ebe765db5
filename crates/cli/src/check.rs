//! `evener check`.

use std::process::ExitCode;

use evener_engine::config::show_path;

use crate::ServiceFile;

/// Arguments of `evener check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    #[command(flatten)]
    file: ServiceFile,
}

impl Check {
    pub(crate) fn run(self) -> ExitCode {
        match self.file.load() {
            Ok(loaded) => {
                let service = &loaded.service;
                let parts = [
                    (service.stages.len(), "stage"),
                    (service.pipelines.len(), "pipeline"),
                    (service.routes.len(), "route"),
                    (service.functions.len(), "function pool"),
                ];
                let parts: Vec<_> = parts.iter().filter(|(number, _)| *number > 0).map(count).collect();
                println!(
                    "{}: service `{}` is good ({})",
                    show_path(&self.file.service),
                    service.name,
                    parts.join(", ")
                );
                ExitCode::SUCCESS
            }
            Err(code) => code,
        }
    }
}

fn count((number, thing): &(usize, &str)) -> String {
    format!("{number} {thing}{}", if *number == 1 { "" } else { "s" })
}
