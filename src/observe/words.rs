//! What is told apart: kinds of requests, causes of changes, caches, marks.

/// An enum whose variants have a name each, are counted, and number arrays.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant),* }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// How users read it.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
        }
    };
}

words! {
    /// The kinds of requests of the kernel.
    #[allow(missing_docs)]
    Kind {
        Lookup = "lookup",
        Forget = "forget",
        Getattr = "getattr",
        Setattr = "setattr",
        Readlink = "readlink",
        Mknod = "mknod",
        Mkdir = "mkdir",
        Unlink = "unlink",
        Rmdir = "rmdir",
        Symlink = "symlink",
        Rename = "rename",
        Link = "link",
        Open = "open",
        Create = "create",
        Read = "read",
        Write = "write",
        Flush = "flush",
        Release = "release",
        Fsync = "fsync",
        Opendir = "opendir",
        Readdir = "readdir",
        Readdirplus = "readdirplus",
        Fsyncdir = "fsyncdir",
        Statfs = "statfs",
        Setxattr = "setxattr",
        Getxattr = "getxattr",
        Listxattr = "listxattr",
        Removexattr = "removexattr",
        Ioctl = "ioctl",
        Fallocate = "fallocate",
        Lseek = "lseek",
        CopyFileRange = "copy_file_range",
    }
}

words! {
    /// What somebody did that changed the upper.
    Cause {
        /// A write.
        Write = "write",
        /// A store through a shared mapping, written back by the kernel.
        Mmap = "mmap",
        /// A change of size, opening with O_TRUNC too.
        Truncate = "truncate",
        /// A change of mode.
        Chmod = "chmod",
        /// A change of owner or group.
        Chown = "chown",
        /// A change of times.
        Utimens = "utimens",
        /// A change of attributes that names none.
        Setattr = "setattr",
        /// An xattr that is set.
        Setxattr = "setxattr",
        /// An xattr that is removed.
        Removexattr = "removexattr",
        /// Another name of a file.
        Link = "link",
        /// A move.
        Rename = "rename",
        /// A name that is taken away.
        Unlink = "unlink",
        /// A directory that is taken away.
        Rmdir = "rmdir",
        /// A new file.
        Create = "create",
        /// A new directory.
        Mkdir = "mkdir",
        /// A new symlink.
        Symlink = "symlink",
        /// Opening for writing (with `copyup=open`).
        Open = "open",
        /// fallocate(2).
        Fallocate = "fallocate",
        /// copy_file_range(2) and reflinks.
        CopyFileRange = "copy_file_range",
        /// An ioctl, for instance of chattr(1).
        Ioctl = "ioctl",
        /// Any other request.
        Other = "other",
    }
}

words! {
    /// How much of a file was copied up.
    Part {
        /// Owner, mode, times and xattrs alone; of a directory that is all there is.
        Meta = "meta",
        /// The data of a file that had been copied up without.
        Data = "data",
        /// All of it at once.
        Whole = "whole",
        /// So much that it can be written to: the blocks that are written follow, the others
        /// stay where they are.
        Partial = "partial",
    }
}

words! {
    /// The caches that are asked.
    Cache {
        /// Names that do not exist: told by a known listing, without a system call.
        Absent = "absent_names",
        /// Listings of directories, as readdir wants them.
        Listing = "listings",
        /// Descriptors of directories.
        DirFds = "directory_descriptors",
        /// Descriptors of files.
        FileFds = "file_descriptors",
    }
}

words! {
    /// What is written to the upper beside files.
    Mark {
        /// A name of a lower layer is hidden.
        Whiteout = "whiteout",
        /// A whiteout gave way to something new.
        WhiteoutGone = "whiteout_gone",
        /// What was moved there hides a file of a lower layer, of which nothing was copied.
        Covered = "covered",
        /// A directory hides what is below it.
        Opaque = "opaque",
        /// A directory or file notes where its lower content lies.
        Redirect = "redirect",
    }
}

impl Kind {
    /// What a request of this kind does, if nothing is said more exactly.
    pub fn cause(self) -> Cause {
        match self {
            Kind::Write => Cause::Write,
            Kind::Setattr => Cause::Setattr,
            Kind::Mknod | Kind::Create => Cause::Create,
            Kind::Mkdir => Cause::Mkdir,
            Kind::Unlink => Cause::Unlink,
            Kind::Rmdir => Cause::Rmdir,
            Kind::Symlink => Cause::Symlink,
            Kind::Rename => Cause::Rename,
            Kind::Link => Cause::Link,
            Kind::Open => Cause::Open,
            Kind::Setxattr => Cause::Setxattr,
            Kind::Removexattr => Cause::Removexattr,
            Kind::Ioctl => Cause::Ioctl,
            Kind::Fallocate => Cause::Fallocate,
            Kind::CopyFileRange => Cause::CopyFileRange,
            _ => Cause::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_all_is_that_of_the_numbers() {
        for (i, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, i, "{}", kind.name());
        }
        for (i, cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, i, "{}", cause.name());
        }
    }
}
