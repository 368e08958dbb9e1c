//! Redirects: an upper file's or directory's note of where its lower content lies, since
//! it was renamed (overlayfs.rst, "redirect_dir" and "Metadata only copy up").
//!
//! The value is a name (beside where the directory is now) or an absolute path from
//! the root of the layers. Nothing else is followed: every component is checked to be
//! a name, and is opened in its directory, so that no redirect leads out of a layer.

use super::Layer;
use crate::error::{Errno, SysError};
use crate::merge::name::Name;
use crate::sys::path::At;
use crate::sys::xattr;

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

    /// The redirect as it is on disk.
    pub fn to_disk(&self) -> Vec<u8> {
        match self {
            Redirect::Beside(name) => name.to_vec(),
            Redirect::Path(path) => path.iter().flat_map(|n| [b"/", &**n].concat()).collect(),
        }
    }
}

impl Layer {
    /// The redirect of the file or directory at `at`; one in a namespace that this layer is not
    /// believed in, or that makes no sense, is none.
    ///
    /// # Errors
    /// getxattr's.
    pub fn redirect(&self, at: At<'_>) -> Result<Option<Redirect>, SysError> {
        if !self.caps.xattrs {
            return Ok(None);
        }
        let Some(value) = xattr::get_optional(at, self.keys().redirect)? else {
            return Ok(None);
        };
        let parsed = Redirect::parse(&value);
        if parsed.is_none() {
            log::warn!(
                "{}: redirect {:?} leads nowhere: not followed",
                self.path.display(),
                value.escape_ascii().to_string()
            );
        }
        Ok(parsed)
    }

    /// Writes the redirect of the upper file or directory at `at`.
    ///
    /// # Errors
    /// setxattr's.
    pub fn set_redirect(&self, at: At<'_>, redirect: &Redirect) -> Result<(), SysError> {
        if self.caps.writes_files {
            // Where marks are files, nobody who reads them knows redirects.
            return Err(SysError {
                call: "setxattr",
                errno: Errno::EOPNOTSUPP,
            });
        }
        xattr::set(at, self.keys().redirect, &redirect.to_disk(), 0)
    }

    /// Removes the redirect of the upper file at `at`, if it has one.
    ///
    /// # Errors
    /// removexattr's.
    pub fn drop_redirect(&self, at: At<'_>) -> Result<(), SysError> {
        match xattr::remove(at, self.keys().redirect) {
            Err(e) if e.errno == Errno::ENODATA => Ok(()),
            other => other,
        }
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
