//! What a client sends to a route: any bytes. The node answers or closes, and goes on serving others.
#![no_main]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evener_fuzz::Node;
use libfuzzer_sys::fuzz_target;

const SERVICE: &str = r#"
service: fuzzed
listen: {http: "127.0.0.1:0"}
limits: {header_timeout: 1s, body_timeout: 1s, memory: 32MiB, body: 1MiB}
stages:
  json: {jq: "{value: .}"}
  request: {jq: "{path, query, params, body}"}
routes:
  - {path: /json, pipeline: json, decode: json, compression: true}
  - {path: /text, pipeline: json, decode: text}
  - {path: "/request/{id}", pipeline: request, input: request, cors: {origins: ["*"]}}
  - {path: /health, health: true}
"#;
const HONEST: &[u8] = b"POST /json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n\r\n7";

static NODE: LazyLock<Node> = LazyLock::new(|| Node::start(SERVICE));
static RUNS: AtomicU64 = AtomicU64::new(0);

fn exchange(bytes: &[u8]) -> Vec<u8> {
    let mut client = TcpStream::connect(NODE.address("http")).expect("a connection");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut answer = Vec::new();
    if client.write_all(bytes).is_ok() {
        let _ = client.shutdown(Shutdown::Write);
        match client.read_to_end(&mut answer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer and no end"),
            _ => {}
        }
    }
    answer
}

fuzz_target!(|bytes: &[u8]| {
    exchange(bytes);
    if RUNS.fetch_add(1, Ordering::Relaxed).is_multiple_of(100) {
        let mut client = TcpStream::connect(NODE.address("http")).expect("a connection");
        client.write_all(HONEST).expect("a request");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"{\"value\":7}"), "{answer:?}");
    }
});
