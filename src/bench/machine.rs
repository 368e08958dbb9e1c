//! What it was measured on.

use crate::sys::mountinfo;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A machine and its system, in words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// The distribution.
    pub system: String,
    /// The processor's name.
    pub processor: String,
    /// How many processors this process may use.
    pub processors: usize,
    /// Memory, KiB.
    pub memory_kib: u64,
    /// The load before the first measurement: that of others.
    pub load: String,
    /// What its processors do while they have nothing to do, which decides what waking a
    /// server costs; empty where the kernel does not say.
    #[serde(default)]
    pub idle: String,
}

/// The kernel's release.
pub fn kernel() -> String {
    read("/proc/sys/kernel/osrelease")
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The value of the first line of `text` that begins with `key` and a separator.
fn field(text: &str, key: &str, separator: char) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(separator)?;
        (name.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
    })
}

impl Machine {
    /// This one.
    pub fn here() -> Machine {
        let memory = field(&read("/proc/meminfo"), "MemTotal", ':').unwrap_or_default();
        let load = read("/proc/loadavg");
        Machine {
            kernel: kernel(),
            system: field(&read("/etc/os-release"), "PRETTY_NAME", '=').unwrap_or_default(),
            processor: field(&read("/proc/cpuinfo"), "model name", ':').unwrap_or_default(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kib: memory.trim_end_matches(" kB").parse().unwrap_or_default(),
            load: load
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
            idle: idle(
                &read("/sys/devices/system/cpu/cpuidle/current_governor"),
                read("/sys/module/haltpoll/parameters/guest_halt_poll_ns")
                    .parse()
                    .ok(),
            ),
        }
    }
}

/// The governor of idle processors in words; that of virtual machines may have them look out
/// for work for so many nanoseconds before they are given back to the host
/// (Documentation/virt/guest-halt-polling.rst).
fn idle(governor: &str, polling: Option<u64>) -> String {
    match (governor, polling) {
        ("haltpoll", Some(0)) => "haltpoll, which halts at once".to_owned(),
        ("haltpoll", Some(nanos)) => format!("haltpoll, which halts after {} us", nanos / 1000),
        _ => governor.to_owned(),
    }
}

/// The time now, in UTC, to the minute.
pub fn date() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    written(since.map_or(0, |time| time.as_secs()))
}

/// So many seconds after 1970 began, as a date (after Hinnant's days-to-civil).
fn written(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (of_day / 3600, of_day % 3600 / 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// The type of the filesystem at `dir`.
pub fn filesystem(dir: &Path) -> String {
    let mounts = mountinfo::read().unwrap_or_default();
    mounts
        .iter()
        .filter(|mount| dir.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.as_os_str().len())
        .map(|mount| mount.fs_type.clone())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_name() {
        let text = "MemTotal:       24 kB\nMemFree: 1 kB\n";
        assert_eq!(field(text, "MemTotal", ':').as_deref(), Some("24 kB"));
        assert_eq!(field("A=\"b c\"", "A", '=').as_deref(), Some("b c"));
        assert_eq!(field(text, "Swap", ':'), None);
    }

    #[test]
    fn what_idle_processors_do_is_told_where_it_matters() {
        assert_eq!(idle("menu", Some(200_000)), "menu");
        assert_eq!(idle("haltpoll", Some(0)), "haltpoll, which halts at once");
        assert_eq!(
            idle("haltpoll", Some(200_000)),
            "haltpoll, which halts after 200 us"
        );
    }

    #[test]
    fn seconds_become_dates() {
        assert_eq!(written(0), "1970-01-01 00:00 UTC");
        assert_eq!(written(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(written(1_795_246_500), "2026-11-21 07:35 UTC");
    }

    #[test]
    fn this_machine_has_a_kernel_and_memory() {
        let here = Machine::here();
        assert!(!here.kernel.is_empty());
        assert!(here.memory_kib > 0);
        assert_ne!(filesystem(Path::new("/")), "");
    }
}
