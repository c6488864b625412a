//! What every process has its own of, also one that was forked off: that has none of the threads of the one before, and
//! must not share its connections.

use std::{
    mem, process,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Made when it is first asked for in a process.
#[derive(Debug)]
pub(crate) struct PerProcess<T>(Mutex<Option<(u32, Arc<T>)>>);

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// That of this process, if it was made.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        let known = self.lock();
        known.as_ref().filter(|(process, _)| *process == process::id()).map(|(_, value)| Arc::clone(value))
    }

    /// That of this process.
    pub(crate) fn get_or_try_init<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let mut known = self.lock();
        if let Some((process, value)) = known.as_ref()
            && *process == process::id()
        {
            return Ok(Arc::clone(value));
        }
        let value = Arc::new(make()?);
        // That of the process before would wait for threads which are not here.
        mem::forget(known.replace((process::id(), Arc::clone(&value))));
        Ok(value)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(u32, Arc<T>)>> {
        // Every assignment leaves a whole value, so a panic elsewhere spoils nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
