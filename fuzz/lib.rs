//! A node to be fuzzed, in the fuzzer's own process, so that the fuzzer sees which code its inputs reach.

use std::process::Command;
use std::time::Duration;

use evener_engine::{Running, config};
use tokio::runtime::Runtime;

/// A node that runs, and the runtime that it runs in.
pub struct Node {
    /// Where it runs.
    pub runtime: Runtime,
    /// The node.
    pub running: Running,
    /// What its API wants to see.
    pub token: String,
}

impl Node {
    /// Starts a node on a service file's text. Its workers come from the program that `EVENER_BIN` names.
    pub fn start(service: &str) -> Node {
        let folder = std::env::temp_dir().join(format!("evener-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the node");
        // SAFETY: no other thread is there yet that reads the environment. The fuzzer's `main` is not Rust's, which would ignore
        // SIGPIPE.
        unsafe {
            std::env::set_var("XDG_RUNTIME_DIR", &folder);
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        }
        let loaded = config::parse("service.yaml", service, &folder, &|_| None).expect("a good service file");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let running = runtime.block_on(async {
            let running = evener_engine::start(loaded.service, warden).await.expect("a node");
            tokio::time::timeout(Duration::from_secs(30), running.node().ready()).await.expect("a node that gets ready");
            running
        });
        let token = std::fs::read_to_string(folder.join("evener/token")).expect("a token").trim().to_owned();
        Node { runtime, running, token }
    }

    /// The address of one of its doors, without its scheme.
    pub fn address(&self, name: &str) -> &str {
        let door = self.running.addresses().iter().find(|door| door.name == name).expect("that door");
        door.url.trim_start_matches("http://").trim_start_matches("unix:")
    }
}

fn warden() -> Command {
    let mut command = Command::new(std::env::var_os("EVENER_BIN").expect("EVENER_BIN names the evener program"));
    command.arg("warden");
    command
}
