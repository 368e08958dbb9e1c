//! The processor's cache.

/// Bytes that the processor fetches together.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Has the processor fetch `len` bytes at `at`, while it goes on with something else.
#[cfg(target_arch = "x86_64")]
pub fn fetch(at: *const u8, len: usize) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    for offset in (0..len).step_by(LINE) {
        // SAFETY: every x86-64 processor has the instruction; it neither reads nor writes, and
        // any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(offset).cast()) }
    }
}

/// Nothing, on this processor.
#[cfg(not(target_arch = "x86_64"))]
pub fn fetch(_at: *const u8, _len: usize) {}
