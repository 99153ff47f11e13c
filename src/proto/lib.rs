//! The messages that Basalt and its clients exchange, one module per protobuf package.
//!
//! The `.proto` files in `/proto` are the source; the code under `gen/` is generated from them and
//! committed, so that a build needs no protobuf compiler. The packages of TinyKV have exactly
//! TinyKV's names, numbers and types: a client generated from either can talk to both. Only
//! `eraftpb`, `raft_cmdpb` and the stored states of `raft_serverpb` have more, under numbers of their own, which
//! TinyKV skips (FORMAT.md, sections 8 and 9). After a change in `/proto` the test `regenerate` of this crate fails and names the command that brings
//! the generated code up to date.
//!
//! Every `bytes` field is a [`prost::bytes::Bytes`]: decoding from a `Bytes` shares its memory.
//!
//! Not here: the gRPC services. Their stubs need an async runtime and live in the server crate;
//! that is why the package `tinykvpb`, which is one service and no message, has no module.

/// Declares the module of one package and takes its generated code in.
macro_rules! package {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[allow(
            missing_docs,
            reason = "generated; a field whose name says everything carries no comment in /proto"
        )]
        pub mod $name {
            include!(concat!("gen/", stringify!($name), ".rs"));
        }
    };
}

package! {
    /// Basalt's own administration: status, flush, compaction.
    basaltpb
}
package! {
    /// SQL push-down.
    coprocessor
}
package! {
    /// The Raft core: log entries, messages, and the state that must persist.
    eraftpb
}
package! {
    /// Routing failures of a region.
    errorpb
}
package! {
    /// Requests and responses of clients: raw access and transactions.
    kvrpcpb
}
package! {
    /// Metadata that the other packages share: cluster, store, region, peer.
    metapb
}
package! {
    /// Commands proposed to a region and their results.
    raft_cmdpb
}
package! {
    /// What stores send to each other, and what a peer keeps on disk.
    raft_serverpb
}
package! {
    /// The placement scheduler.
    schedulerpb
}

/// All files of `/proto` as an encoded `google.protobuf.FileDescriptorSet`, without comments and
/// with every file after its imports. gRPC reflection serves it.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptors.bin");
