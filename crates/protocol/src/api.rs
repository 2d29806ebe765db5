//! The messages of the API, `evener.v1`, and the stubs of its client and server; made from `proto/evener/v1/evener.proto`, where
//! each is described.

#[allow(missing_docs, clippy::all)]
mod generated {
    tonic::include_proto!("evener.v1");
}

pub use generated::evener_client::EvenerClient;
pub use generated::evener_server::{self, Evener, EvenerServer};
pub use generated::*;

/// The description of the API that reflection gives to its clients: an encoded `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/evener.v1.bin"));

/// The most bytes of payload in one piece: a larger body, input or value goes on in parts.
pub const PIECE: usize = 1 << 20;
/// The most bytes of one message, which holds some pieces and what goes with them.
pub const MESSAGE: usize = 4 << 20;
