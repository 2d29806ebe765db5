//! A service file: any text is read or refused, with a report that can be shown.
#![no_main]

use std::path::Path;

use evener_engine::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let env = |name: &str| (name == "SET").then(|| "value".to_owned());
    match config::parse("service.yaml", text, Path::new("/nowhere"), &env) {
        Ok(loaded) => assert!(!loaded.service.name.is_empty(), "a service has a name"),
        Err(report) => assert!(!report.to_string().is_empty(), "a refusal says why"),
    }
});
