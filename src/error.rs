//! The error types: what a request answers, and what a mount refuses with.

use std::fmt;

/// An errno as the kernel wants it: positive, never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident),* $(,)?) => {
        #[allow(missing_docs)]
        impl Errno { $(pub const $name: Errno = Errno(crate::sys::errno::$name);)* }
        fn errno_name(code: i32) -> Option<&'static str> {
            match code { $(crate::sys::errno::$name => Some(stringify!($name)),)* _ => None }
        }
    };
}
errnos!(
    EPERM,
    ENOENT,
    EINTR,
    EIO,
    ENXIO,
    EBADF,
    EAGAIN,
    ENOMEM,
    EACCES,
    EBUSY,
    EEXIST,
    EXDEV,
    ENODEV,
    ENOTDIR,
    EISDIR,
    EINVAL,
    ENFILE,
    EMFILE,
    ENOTTY,
    ETXTBSY,
    EFBIG,
    ENOSPC,
    EROFS,
    EMLINK,
    ERANGE,
    ENAMETOOLONG,
    ENOSYS,
    ENOTEMPTY,
    ELOOP,
    ENODATA,
    EOVERFLOW,
    EOPNOTSUPP,
    ESTALE,
    EDQUOT,
    ETIMEDOUT,
);

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match errno_name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

/// A system call that failed: which one, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysError {
    /// The system call's name, as in its manual page.
    pub call: &'static str,
    /// What it answered.
    pub errno: Errno,
}

impl SysError {
    /// The error of `call` as `errno` has it now.
    pub fn last(call: &'static str) -> SysError {
        let code = std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(Errno::EIO.0);
        SysError {
            call,
            errno: Errno(code),
        }
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.errno)
    }
}

impl std::error::Error for SysError {}

impl From<SysError> for Errno {
    fn from(e: SysError) -> Errno {
        e.errno
    }
}

impl From<SysError> for std::io::Error {
    fn from(e: SysError) -> std::io::Error {
        std::io::Error::from_raw_os_error(e.errno.0)
    }
}

/// What every operation of the union answers.
pub type Result<T> = std::result::Result<T, Errno>;

/// Why a mount was refused: one line that names the thing, the cause and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountError {
    /// The path or option that is at fault.
    pub what: String,
    /// Why it cannot be used.
    pub cause: String,
    /// What the user can do about it.
    pub remedy: String,
}

impl MountError {
    /// A refusal that names `what`, its `cause` and the `remedy`.
    pub fn new(
        what: impl fmt::Display,
        cause: impl fmt::Display,
        remedy: impl fmt::Display,
    ) -> MountError {
        MountError {
            what: what.to_string(),
            cause: cause.to_string(),
            remedy: remedy.to_string(),
        }
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.cause, self.remedy)
    }
}

impl std::error::Error for MountError {}

/// Tolerates a failure that must not stop the operation, and logs it.
pub fn best_effort<T, E: fmt::Display>(what: &str, result: std::result::Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            log::debug!("{what}: {error} (tolerated)");
            None
        }
    }
}

/// What an error says, without its number.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_said_without_its_number() {
        let error = std::io::Error::from_raw_os_error(Errno::EACCES.0);
        assert_eq!(plain(&error), "permission denied");
    }
}
