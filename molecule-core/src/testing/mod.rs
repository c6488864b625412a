//! Parts for tests, of this library and of what builds on it: clocks that are moved by hand, chance that repeats, a
//! provisioner that does as it is told, and the suite that every provisioner passes.

mod attempts;
mod clock;
pub mod drift;
mod heard;
mod logged;
pub mod provisioner_suite;
mod scripted;
pub mod store_suite;
mod sweeps;
mod telling;
pub mod untrusted;

pub use self::{
    attempts::{until_asked, until_over},
    clock::{ManualClock, SeededEntropy},
    heard::{hear_peers, heard_fleet},
    logged::Logged,
    scripted::{Call, Operation, Release, Rule, ScriptedProvisioner},
    sweeps::{Sweep, sweep},
    telling::tell_much,
};
pub use crate::provisioner::{MockControlPlaneProvisioner, MockLocalProvisioner, MockWorkloadInspector};
