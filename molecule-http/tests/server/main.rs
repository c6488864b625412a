//! The real server, as its operators, their commands and their agents see it.

mod activity;
#[allow(dead_code, reason = "the tests of the core use all of it")]
#[path = "../../../molecule-core/tests/support/agent.rs"]
mod agent;
mod audit;
mod away;
mod beats;
mod conformance;
mod crash;
mod creating;
mod edge;
mod every_gate;
mod expanding;
mod failing;
mod files;
mod flow;
mod fuzz;
mod gates;
mod hangup;
mod input;
mod kills;
mod lives;
mod machines;
mod mcp;
mod memory;
mod openapi;
mod operations;
mod org_tokens;
mod process;
mod queue;
mod records;
mod refused;
mod replicas;
mod results;
mod sdk;
mod secrets;
mod server;
mod sessions;
mod shutdown;
mod socket;
mod startup;
mod stream;
mod stub;
mod suite;
#[path = "../../../molecule-core/tests/support/mod.rs"]
mod support;
mod team;
mod templates;
mod tokens;
mod without;
mod workspace_files;
