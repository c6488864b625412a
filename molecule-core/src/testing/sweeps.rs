//! The loops of the control plane, one round at a time.

use crate::{control_plane::ControlPlane, error::Result, sweep::Strays};

/// What a loop does each time it comes round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Looks at every workspace that should be reporting in.
    Health,
    /// Ends the tries that took too long.
    Timeouts,
    /// Clears up what nobody claims, as if everything were seen for the first time.
    Orphans,
    /// Gives machines back that are left.
    Machines,
    /// Puts to sleep who did nothing for long.
    Idle,
}

/// Makes one round, as the loop does now and then.
///
/// # Errors
/// Where the database cannot tell.
pub async fn sweep(control_plane: &ControlPlane, which: Sweep) -> Result<()> {
    match which {
        Sweep::Health => control_plane.sweep_health().await,
        Sweep::Timeouts => control_plane.sweep_timeouts().await,
        Sweep::Orphans => control_plane.sweep_orphans(&Strays::default()).await,
        Sweep::Machines => control_plane.give_back_left().await,
        Sweep::Idle => control_plane.sweep_idle().await,
    }
}
