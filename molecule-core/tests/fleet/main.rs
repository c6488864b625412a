//! The control plane over a backend that does as it is told: what operators and agents can rely on, whatever it does.

mod calling;
mod deleting;
mod fleet;
mod idle;
mod images;
mod losing;
mod machines;
mod orphans;
mod preparing;
mod registering;
mod restarting;
mod starting;
mod stopping;
