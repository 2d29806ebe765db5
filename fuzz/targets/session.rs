//! What a client with the token says in a session: any bytes in place of its messages. The node ends the session or goes on.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use evener_fuzz::Node;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use libfuzzer_sys::fuzz_target;
use tokio::net::UnixStream;

const SERVICE: &str = r#"
service: fuzzed
limits: {memory: 32MiB}
functions:
  default: {workers: 1}
"#;

static NODE: LazyLock<Node> = LazyLock::new(|| Node::start(SERVICE));

async fn exchange(path: &str, body: Bytes) -> Result<(), Box<dyn std::error::Error>> {
    let socket = UnixStream::connect(NODE.address("api")).await?;
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("http://localhost{path}"))
        .header("authorization", format!("Bearer {}", NODE.token))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body))?;
    let answered = async {
        let answer = client.send_request(request).await?;
        answer.into_body().collect().await.map(|_| ())
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), answered).await.expect("an end of the exchange");
    connection.abort();
    Ok(ended?)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&which, messages)) = bytes.split_first() else { return };
    let path = match which % 4 {
        0 | 1 => "/evener.v1.Evener/Session",
        2 => "/evener.v1.Evener/Submit",
        _ => "/evener.v1.Evener/Cancel",
    };
    // The node may cut it off: that is an answer as well.
    let _ = NODE.runtime.block_on(exchange(path, Bytes::copy_from_slice(messages)));
    let workers = NODE.runtime.block_on(exchange("/evener.v1.Evener/Workers", Bytes::from_static(&[0; 5])));
    assert!(workers.is_ok(), "the node does not answer any more: {workers:?}");
});
