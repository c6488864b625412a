//! Templates: what workspaces are made from, and which provider serves which model.

pub mod derive;
