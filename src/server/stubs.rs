//! The gRPC services of `/proto`: for each one a trait to implement, the server around it, and a
//! client.
//!
//! The code is generated and committed, like the messages it moves, which are those of
//! `basalt_proto`; the test `regenerate` of that crate keeps it equal to `/proto`.
//!
//! Not here: anything that answers a request.

/// Declares the module of one package and takes its generated stubs in.
macro_rules! services {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[allow(
            clippy::allow_attributes_without_reason,
            clippy::missing_errors_doc,
            reason = "generated; every call fails with the status that the server or the way to it gave"
        )]
        pub mod $name {
            include!(concat!("gen/", stringify!($name), ".rs"));
        }
    };
}

services! {
    /// Basalt's own `Admin` service.
    basaltpb
}
services! {
    /// The `Scheduler` service, TinyKV's placement scheduler.
    schedulerpb
}
services! {
    /// The `TinyKv` service: what clients and other stores call.
    tinykvpb
}
