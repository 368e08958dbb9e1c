//! Redirects: an upper directory's note of where its lower content lies, since it was
//! renamed (overlayfs.rst, "redirect_dir").
//!
//! The value is a name (beside where the directory is now) or an absolute path from
//! the root of the layers. Nothing else is followed: every component is checked to be
//! a name, and is opened in its directory, so that no redirect leads out of a layer.

use super::Layer;
use super::dirfds::RealDir;
use super::private;
use crate::error::{Errno, SysError};
use crate::merge::name::Name;
use crate::sys::path::At;
use crate::sys::xattr;
use std::ffi::CStr;
use std::sync::Arc;

const TRUSTED: &CStr = c"trusted.overlay.redirect";
const USER: &CStr = c"user.overlay.redirect";

/// Where lower content lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// Under this name in the parent's lower directories.
    Beside(Name),
    /// At this path in the layers below.
    Path(Vec<Name>),
}

impl Redirect {
    /// A redirect as it is on disk; `None` where it is not one.
    pub fn parse(value: &[u8]) -> Option<Redirect> {
        let Some(path) = value.strip_prefix(b"/") else {
            return Name::new(value).ok().map(Redirect::Beside);
        };
        path.split(|&b| b == b'/')
            .map(|part| Name::new(part).ok())
            .collect::<Option<Vec<_>>>()
            .map(Redirect::Path)
    }

    /// The redirect to `dir` from anywhere.
    pub fn to(dir: &Arc<RealDir>) -> Redirect {
        let mut path = Vec::new();
        let mut at = dir;
        while let Some((parent, name)) = at.place() {
            path.push(name.clone());
            at = parent;
        }
        path.reverse();
        Redirect::Path(path)
    }

    fn to_disk(&self) -> Vec<u8> {
        match self {
            Redirect::Beside(name) => name.to_vec(),
            Redirect::Path(path) => path.iter().flat_map(|n| [b"/", &**n].concat()).collect(),
        }
    }
}

impl Layer {
    /// The redirect of the directory at `at`; one in a namespace that this layer is not
    /// believed in, or that makes no sense, is none.
    ///
    /// # Errors
    /// getxattr's.
    pub fn redirect(&self, at: At<'_>) -> Result<Option<Redirect>, SysError> {
        let keys: &[&CStr] = match (self.is_upper, self.caps.trusted) {
            (true, true) => &[TRUSTED],
            (false, true) => &[TRUSTED, USER],
            (_, false) => &[USER],
        };
        for key in keys {
            if let Some(value) = xattr::get_optional(at, key)? {
                let parsed = Redirect::parse(&value);
                if parsed.is_none() {
                    log::warn!(
                        "{}: redirect {:?} leads nowhere: not followed",
                        self.path.display(),
                        value.escape_ascii().to_string()
                    );
                }
                return Ok(parsed);
            }
        }
        Ok(None)
    }

    /// Writes the redirect of the upper directory at `at`.
    ///
    /// # Errors
    /// setxattr's.
    pub fn set_redirect(&self, at: At<'_>, redirect: &Redirect) -> Result<(), SysError> {
        let key = if self.caps.trusted { TRUSTED } else { USER };
        debug_assert!(private::is_own(key.to_bytes()));
        if self.caps.writes_files {
            // Where marks are files, nobody who reads them knows redirects.
            return Err(SysError {
                call: "setxattr",
                errno: Errno::EOPNOTSUPP,
            });
        }
        xattr::set(at, key, &redirect.to_disk(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_a_name_or_an_absolute_path_of_names() {
        let name = |s: &str| Name::new(s.as_bytes()).unwrap();
        assert_eq!(Redirect::parse(b"a"), Some(Redirect::Beside(name("a"))));
        let path = Redirect::parse(b"/a/b c/\xff").unwrap();
        assert_eq!(path.to_disk(), b"/a/b c/\xff");
        for bad in [
            &b""[..],
            b"/",
            b"..",
            b"/a/../b",
            b"../a",
            b"a/b",
            b"/a//b",
            b"/a/",
            b"/./a",
            b"a\0b",
        ] {
            assert_eq!(Redirect::parse(bad), None, "{}", bad.escape_ascii());
        }
    }
}
