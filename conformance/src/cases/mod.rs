//! Every case there is, by what it is tried on.

pub mod http;
