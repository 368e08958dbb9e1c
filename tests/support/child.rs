//! Processes that do not outlive a test that has failed.

use std::io;
use std::ops::{Deref, DerefMut};
use std::process::{Child, Command, Output};

/// A child that is killed when this goes.
pub struct Ending(Option<Child>);

impl Ending {
    pub fn spawn(command: &mut Command) -> io::Result<Ending> {
        Ok(Ending(Some(command.spawn()?)))
    }

    /// What it has said when it has ended by itself.
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        let child = self.0.take().expect("it goes here alone");
        child.wait_with_output()
    }
}

impl Deref for Ending {
    type Target = Child;
    fn deref(&self) -> &Child {
        self.0.as_ref().expect("it goes at the end")
    }
}

impl DerefMut for Ending {
    fn deref_mut(&mut self) -> &mut Child {
        self.0.as_mut().expect("it goes at the end")
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0
            && let Ok(None) = child.try_wait()
        {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
