//! Memory of the process itself.

/// Gives what the allocator holds and does not use back to the system.
///
/// glibc keeps the pages of many small allocations until they are asked for again;
/// after a walk of a million files that is most of the process.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: no pointers; the call is safe beside allocations in other threads.
        unsafe { libc::malloc_trim(0) };
    }
}
