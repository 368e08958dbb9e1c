//! A clock for short durations: the processor's own counter, where the system trusts it.
//!
//! Reading the system's clock takes 20 ns and more, twice for each request; the counter takes
//! about half. The system says by its own choice whether the counter runs evenly and alike on
//! all cores.

/// Reads the counter.
#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and it touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The counter, and how many nanoseconds 2^32 of its ticks take; `None` where the system's
/// clock has to do.
#[cfg(target_arch = "x86_64")]
pub fn fast() -> Option<(fn() -> u64, u64)> {
    const CHOICE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let chosen = std::fs::read_to_string(CHOICE).ok()?;
    if chosen.trim() != "tsc" {
        return None;
    }
    let mut scales = [scale()?, scale()?, scale()?];
    scales.sort_unstable();
    let [least, middle, most] = scales;
    // Who is interrupted while comparing the two clocks gets nonsense.
    (most - least < middle / 100).then_some((counter, middle))
}

/// Compares the counter with the system's clock for a moment.
#[cfg(target_arch = "x86_64")]
fn scale() -> Option<u64> {
    const MOMENT: std::time::Duration = std::time::Duration::from_micros(200);
    let (began, first) = (std::time::Instant::now(), counter());
    while began.elapsed() < MOMENT {
        std::hint::spin_loop();
    }
    let (took, ticks) = (began.elapsed(), counter().checked_sub(first)?);
    let scaled = (took.as_nanos() << 32).checked_div(u128::from(ticks))?;
    u64::try_from(scaled).ok().filter(|scale| *scale > 0)
}

/// The counter; on this processor the system's clock has to do.
#[cfg(not(target_arch = "x86_64"))]
pub fn fast() -> Option<(fn() -> u64, u64)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn the_counter_agrees_with_the_systems_clock() {
        let Some((read, scale)) = fast() else {
            println!("skipped: the system trusts another clock");
            return;
        };
        // One comparison in several must be undisturbed.
        let agrees = (0..20).any(|_| {
            let (began, first) = (Instant::now(), read());
            std::thread::sleep(Duration::from_millis(5));
            let (ticks, took) = (read() - first, began.elapsed());
            let told = (u128::from(ticks) * u128::from(scale)) >> 32;
            told.abs_diff(took.as_nanos()) < took.as_nanos() / 50
        });
        assert!(agrees);
    }
}
