//! Templates: what workspaces are made from, which runtimes there are, and which provider serves which model.

mod catalog;
mod config;
pub mod derive;
mod files;
mod folder;
mod import;
mod manifest;

pub(crate) use self::{
    catalog::{ConfigSource, EXISTING},
    config::{SubWorkspace, agent_command, required_env, shared_context, sub_workspaces},
    files::is_own_file,
};
pub use self::{
    config::{ModelOption, ProviderEntry, Template},
    folder::Templates,
    import::{Import, Imported},
};
