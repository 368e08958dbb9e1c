//! Memory of the process itself.

/// What the allocator may keep at the end of each of its heaps, bytes.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 128 << 10;
/// Allocations of this many bytes get a mapping of their own, which goes when they go.
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 1 << 20;

/// Tells the allocator to keep little of what is freed, for as long as the process lives.
///
/// Left alone, glibc raises both limits to what was freed last, and after a walk of a
/// large tree keeps megabytes at the end of each thread's heap that [`give_back`] does
/// not reach.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (limit, bytes) in [
        (libc::M_TRIM_THRESHOLD, KEPT),
        (libc::M_MMAP_THRESHOLD, OWN_MAPPING),
    ] {
        // SAFETY: no pointers; a limit that glibc does not know is refused.
        unsafe { libc::mallopt(limit, bytes) };
    }
}

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
