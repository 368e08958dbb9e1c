//! The first request: what the kernel offers, and what is taken of it.

use super::adapter::{Adapter, FOREVER};
use crate::sys::fault;
use fuser::{InitFlags, KernelConfig};
use std::io;

const MAX_BACKGROUND: u16 = 64;

/// What the kernel offers.
fn offers(config: &KernelConfig) -> InitFlags {
    InitFlags::from_bits_retain(fault::offered(config.capabilities().bits()))
}

/// Asks for `wanted`; whether the kernel has it.
fn ask(config: &mut KernelConfig, wanted: InitFlags) -> bool {
    offers(config).contains(wanted) && config.add_capabilities(wanted).is_ok()
}

impl Adapter {
    /// Takes what serving needs; the rest is as good as it gets.
    ///
    /// # Errors
    /// Where no size of a request suits both.
    pub(super) fn shake_hands(&mut self, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_BIG_WRITES,
            InitFlags::FUSE_DONT_MASK,
            InitFlags::FUSE_HAS_IOCTL_DIR,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_MAX_PAGES,
            InitFlags::FUSE_CACHE_SYMLINKS,
        ];
        for flag in wanted {
            if !ask(config, flag) {
                log::info!("this kernel does not offer {flag:?}");
            }
        }
        // Engines compare two unions without an upper by walking both: they list a directory to
        // its end, then look at each name. AUTO would leave all but the first page to lookups.
        if !self.union.never_changes() && !ask(config, InitFlags::FUSE_READDIRPLUS_AUTO) {
            log::info!("this kernel does not choose between two ways of listing");
        }
        if self.acls && config.add_capabilities(InitFlags::FUSE_POSIX_ACL).is_err() {
            log::info!("this kernel does not offer ACLs");
        }
        // Data that was read is believed as long as attributes are: only where these expire
        // does the kernel see a file change that it did not change itself.
        if self.ttl != FOREVER && !ask(config, InitFlags::FUSE_AUTO_INVAL_DATA) {
            log::info!("this kernel keeps what it read of a file that changes in a layer");
        }
        let both = InitFlags::FUSE_NO_OPEN_SUPPORT | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
        self.opens_by_itself = offers(config).contains(both);
        if let Err(nearest) = config.set_max_write(self.max_write) {
            log::info!("max_write {} is not to be had: {nearest}", self.max_write);
            config.set_max_write(nearest).map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidInput, "max_write cannot be set")
            })?;
        }
        self.ask_for_passthrough(config);
        if config.set_max_background(MAX_BACKGROUND).is_err() {
            log::info!("max_background stays what it is");
        }
        Ok(())
    }

    /// Asks for what `io=passthrough` needs; without it, files are cached.
    fn ask_for_passthrough(&mut self, config: &mut KernelConfig) {
        if self.backings.is_none() {
            return;
        }
        // One level: what lies in the layers is no stacked filesystem itself, and another
        // union can still be mounted on this one.
        let depth = config.set_max_stack_depth(1).is_ok();
        let wanted = InitFlags::FUSE_PASSTHROUGH | InitFlags::FUSE_ATOMIC_O_TRUNC;
        if !depth || !ask(config, wanted) {
            log::warn!("io=passthrough: this kernel does not offer it: files are cached");
            self.backings = None;
        }
    }
}
