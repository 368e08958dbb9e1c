//! A kernel, or a filesystem, that lacks something: a seccomp filter refuses system calls of a
//! program that is started, and of all that it starts.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What is refused.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// This system call.
    Call(i64),
    /// This system call, where argument `.1` has, under the mask `.2`, the value `.3`.
    With(i64, u32, u32, u32),
    /// This system call, where argument `.1` has any bit of the mask `.2`.
    Any(i64, u32, u32),
    /// Every system call with this number or a higher one.
    Since(i64),
}

/// What is refused, and the errno that it is refused with.
pub type Refusal = (What, i32);

/// Everything about xattrs.
const XATTRS: &[i64] = &[
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    463,
    464,
    465,
    466,
];

const CLONE3: i64 = 435;
const FICLONE: u32 = 0x4004_9409;
const GETFSUUID: u32 = 0x8011_1500;
const EXT4_GETFSUUID: u32 = 0x8008_662c;

fn no_xattrs() -> Vec<Refusal> {
    let refuse = |call: &i64| (What::Call(*call), libc::EOPNOTSUPP);
    XATTRS.iter().map(refuse).collect()
}

fn no_devices() -> Vec<Refusal> {
    let refuse = |kind| {
        (
            What::With(libc::SYS_mknodat, 2, libc::S_IFMT, kind),
            libc::EPERM,
        )
    };
    [libc::S_IFCHR, libc::S_IFBLK].map(refuse).to_vec()
}

/// As on NFS.
fn no_rename_flags() -> Vec<Refusal> {
    vec![(What::Any(libc::SYS_renameat2, 4, 7), libc::EINVAL)]
}

fn no_whiteout_flag() -> Vec<Refusal> {
    vec![(
        What::Any(libc::SYS_renameat2, 4, libc::RENAME_WHITEOUT),
        libc::EINVAL,
    )]
}

fn no_links() -> Vec<Refusal> {
    vec![(What::Call(libc::SYS_linkat), libc::EPERM)]
}

fn no_mknod() -> Vec<Refusal> {
    vec![(What::Call(libc::SYS_mknodat), libc::EPERM)]
}

/// What moves data by other ways than reading and writing it.
fn plain_data() -> Vec<Refusal> {
    vec![
        (What::Call(libc::SYS_copy_file_range), libc::EOPNOTSUPP),
        (
            What::With(libc::SYS_ioctl, 1, u32::MAX, FICLONE),
            libc::EOPNOTSUPP,
        ),
        (What::Call(libc::SYS_fallocate), libc::EOPNOTSUPP),
        (
            What::With(libc::SYS_lseek, 2, u32::MAX, libc::SEEK_DATA as u32),
            libc::EINVAL,
        ),
        (
            What::With(libc::SYS_lseek, 2, u32::MAX, libc::SEEK_HOLE as u32),
            libc::EINVAL,
        ),
        (What::Call(libc::SYS_sync_file_range), libc::ENOSYS),
        (What::Call(libc::SYS_preadv2), libc::EOPNOTSUPP),
        (What::Call(libc::SYS_fadvise64), libc::EINVAL),
    ]
}

fn no_identity() -> Vec<Refusal> {
    vec![
        (What::Call(libc::SYS_name_to_handle_at), libc::EOPNOTSUPP),
        (What::Call(libc::SYS_open_by_handle_at), libc::EOPNOTSUPP),
        (
            What::With(libc::SYS_ioctl, 1, u32::MAX, GETFSUUID),
            libc::ENOTTY,
        ),
        (
            What::With(libc::SYS_ioctl, 1, u32::MAX, EXT4_GETFSUUID),
            libc::ENOTTY,
        ),
        (What::Call(libc::SYS_flock), libc::ENOLCK),
    ]
}

fn no_statx(errno: i32) -> Vec<Refusal> {
    vec![(What::Call(libc::SYS_statx), errno)]
}

/// What Linux 4.18 has not got; `unknown` is what is answered to calls of later versions.
fn linux_4_18(unknown: i32) -> Vec<Refusal> {
    vec![
        // The C library takes nothing else for "there is no such call".
        (What::Call(CLONE3), libc::ENOSYS),
        (What::Since(AFTER_4_18), unknown),
        (
            What::With(libc::SYS_ioctl, 1, u32::MAX, GETFSUUID),
            libc::ENOTTY,
        ),
        (
            What::With(libc::SYS_ioctl, 1, u32::MAX, EXT4_GETFSUUID),
            libc::ENOTTY,
        ),
        (
            What::Any(libc::SYS_utimensat, 3, libc::AT_EMPTY_PATH as u32),
            libc::EINVAL,
        ),
        // Between filesystems.
        (What::Call(libc::SYS_copy_file_range), libc::EXDEV),
    ]
}

/// The filter that is called `name`; `PLYFS_TEST_FILTER` names one for a whole suite.
pub fn named(name: &str) -> Option<Vec<Refusal>> {
    Some(match name {
        "" => Vec::new(),
        "no-xattrs" => no_xattrs(),
        "no-devices" => no_devices(),
        "no-xattrs-no-devices" => [no_xattrs(), no_devices()].concat(),
        "no-rename-flags" => no_rename_flags(),
        "no-whiteout-flag" => no_whiteout_flag(),
        "no-rename-flags-no-xattrs" => [no_rename_flags(), no_xattrs()].concat(),
        "no-links" => no_links(),
        "no-mknod" => no_mknod(),
        "plain-data" => plain_data(),
        "no-identity" => no_identity(),
        "poorest" => [
            no_xattrs(),
            no_mknod(),
            no_rename_flags(),
            no_links(),
            plain_data(),
            no_identity(),
        ]
        .concat(),
        "no-statx" => no_statx(libc::ENOSYS),
        "no-statx-eperm" => no_statx(libc::EPERM),
        "linux-6.1" => vec![(What::Since(AFTER_6_1), libc::ENOSYS)],
        "linux-4.18" => linux_4_18(libc::ENOSYS),
        "linux-4.18-eperm" => linux_4_18(libc::EPERM),
        "linux-4.18-no-statx" => [linux_4_18(libc::ENOSYS), no_statx(libc::ENOSYS)].concat(),
        "linux-4.18-userns" => [linux_4_18(libc::ENOSYS), no_devices()].concat(),
        _ => return None,
    })
}

/// The filter of [`named`] under which the whole suite runs.
pub fn of_the_suite() -> Vec<Refusal> {
    let name = std::env::var("PLYFS_TEST_FILTER").unwrap_or_default();
    named(&name).unwrap_or_else(|| panic!("PLYFS_TEST_FILTER: unknown: {name}"))
}

/// The first number that came after Linux 4.18, on every architecture.
pub const AFTER_4_18: i64 = 424;
/// The same for Linux 6.1.
const AFTER_6_1: i64 = 451;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Where `struct seccomp_data` has what.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;

fn step(code: u32, k: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: yes,
        jf: no,
        k,
    }
}

/// The program that answers each of `refusals` with its errno and lets all else pass.
fn program(refusals: &[Refusal]) -> Vec<libc::sock_filter> {
    let number = |call: i64| u32::try_from(call).expect("a system call's number");
    // The low half; all architectures here are little-endian.
    let argument = |index: u32| step(LOAD, ARGUMENTS + 8 * index, 0, 0);
    let mut steps = vec![
        step(LOAD, ARCH, 0, 0),
        step(IF_EQUAL, ARCHITECTURE, 1, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    for (what, errno) in refusals {
        let refuse = step(RETURN, libc::SECCOMP_RET_ERRNO | *errno as u32, 0, 0);
        steps.push(step(LOAD, NUMBER, 0, 0));
        match *what {
            What::Call(call) => steps.push(step(IF_EQUAL, number(call), 0, 1)),
            What::Since(call) => steps.push(step(IF_AT_LEAST, number(call), 0, 1)),
            What::With(call, index, mask, value) => steps.extend([
                step(IF_EQUAL, number(call), 0, 4),
                argument(index),
                step(AND, mask, 0, 0),
                step(IF_EQUAL, value, 0, 1),
            ]),
            What::Any(call, index, mask) => steps.extend([
                step(IF_EQUAL, number(call), 0, 4),
                argument(index),
                step(AND, mask, 0, 0),
                step(IF_EQUAL, 0, 1, 0),
            ]),
        }
        steps.push(refuse);
    }
    steps.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    steps
}

fn install(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `program` and what it points to live across the call.
    let status = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Starts `command` under a filter with `refusals`; this takes root.
pub fn refuse(command: &mut Command, refusals: &[Refusal]) {
    if refusals.is_empty() {
        return;
    }
    let mut program = program(refusals);
    // SAFETY: between fork and exec it makes one system call, on memory that is there already.
    unsafe { command.pre_exec(move || install(&mut program)) };
}
