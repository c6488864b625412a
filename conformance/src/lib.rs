//! Holds an implementation of the Molecule contract against its rules, knowing it from the outside alone.
//!
//! A [`Case`] checks one rule of `docs/contract.md` and is data: a name, a sentence, where it belongs, how much it is
//! demanded, and the function that tries it. [`run`] tries a list of them on a target and gives a [`Report`], which
//! counts what passed, failed, is unsupported and was skipped apart from one another. Nothing run is a failure, and so is
//! a rule for everyone that was not tried.
//!
//! The target of the cases in [`cases::http`] is a server at a base URL: see [`http::Server`]. A backend of your own is
//! held against the traits that it implements by [`provisioner::run`], a database against what the store expects of it by
//! [`store::run`].

pub mod case;
pub mod cases;
pub mod coverage;
pub mod fuzz;
pub mod gates;
pub mod http;
pub mod junit;
mod listen;
pub mod profile;
pub mod provisioner;
pub mod report;
pub mod results;
pub mod runner;
pub mod store;

pub use case::{Area, Case, Feature, Level, Target, Verdict};
pub use profile::Profile;
pub use report::{Outcome, Report, Tried};
pub use runner::{run, run_watched, shuffle};
