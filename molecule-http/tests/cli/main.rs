//! The client commands of the real binary, against a server that is set up to behave.

mod binary;
mod commands;
mod events;
mod faults;
mod lifecycle;
mod stub;
mod target;
