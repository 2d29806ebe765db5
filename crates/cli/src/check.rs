//! `evener check`.

use std::process::ExitCode;

use crate::{ServiceFile, load};

/// Arguments of `evener check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    #[command(flatten)]
    file: ServiceFile,
}

impl Check {
    pub(crate) fn run(self) -> ExitCode {
        match load(&self.file.service) {
            Ok(loaded) => {
                let service = &loaded.service;
                let (stages, pipelines, routes) = (service.stages.len(), service.pipelines.len(), service.routes.len());
                println!(
                    "{}: service `{}` is good ({}, {}, {})",
                    self.file.service.display(),
                    service.name,
                    count(stages, "stage"),
                    count(pipelines, "pipeline"),
                    count(routes, "route"),
                );
                ExitCode::SUCCESS
            }
            Err(code) => code,
        }
    }
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}
