//! The real server on a real engine, named by `DOCKER_HOST`: what the parts do together.

#[path = "../cli/binary.rs"]
#[allow(dead_code, reason = "shared with the tests of the client commands")]
mod binary;
mod calls;
mod conformance;
mod engine;
mod exposure;
mod faults;
mod kills;
mod lifecycle;
#[path = "../../../molecule-core/tests/docker/proxy.rs"]
#[allow(dead_code, reason = "shared with the tests of the library")]
mod proxy;
#[path = "../server/results.rs"]
mod results;
mod server;
#[path = "../../../molecule-core/tests/support/mod.rs"]
mod support;
