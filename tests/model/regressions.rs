//! Shrunk scripts that once failed; each must agree with the kernel's overlayfs for good.

use super::case::Case;
use super::run::Runner;
use super::support::backing::Kind;
use super::support::mount::Subject;

/// Runs `text` on ext4 and fails with the differences.
fn agrees(text: &str) {
    if !super::can_run() {
        return;
    }
    let Some(backing) = super::backing(Kind::Ext4, "") else {
        return;
    };
    let dir = backing.dir("regression");
    // The runner changes the root of its thread, so that it gets one.
    let outcome = std::thread::scope(|scope| {
        scope
            .spawn(|| Runner::new(dir, Subject::Plyfs, "").run(&Case::parse(text)))
            .join()
            .expect("the runner does not panic")
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// A file given as text: the one case in the file named by `PLYFS_ORACLE_CASE`, if any.
#[test]
fn a_case_from_a_file_agrees() {
    if let Some(path) = std::env::var_os("PLYFS_ORACLE_CASE") {
        agrees(&std::fs::read_to_string(path).expect("the case can be read"));
    }
}

macro_rules! regressions {
    ($($name:ident: $text:expr;)*) => {
        $(
            #[test]
            fn $name() {
                agrees($text);
            }
        )*
    };
}

regressions! {
    regression_removing_an_acl_that_is_not_there: "
format overlay
lower
  dir d 755 0:0 1000000000.5
  file f 644 0:0 1000000000.5 0 -
script
  removexattr d system.posix_acl_access
  removexattr d system.posix_acl_default
  removexattr f system.posix_acl_access
  removexattr f user.none
";
    regression_reading_leaves_atime: "
format overlay
lower
  dir b 755 0:0 1.5
script
  open 1 b/c rdwr+creat 711
  futimens 1 -1.606478172 0.0
  pwrite 1 40000 5 94
  pread 1 0 50
  open 2 b/d rdwr+creat 711
  futimens 1 -1.606478172 0.0
  copyrange 1 0 2 0 50
";
    regression_a_stranger_clears_setgid_without_group_execute: "
format overlay
lower
  file b 7747 1000:0 1000000000.573650764 85 0+85+206
  dir e 755 0:0 -86400.355694915
  link e/c b
script
  open 3 e/c rdwr 2755
  u2 ftruncate 3 8192
";
    regression_a_strangers_fallocate_clears_setgid: "
format mixed
lower
  file f 3501 0:0 1.902238061 107 0+107+67
script
  open 3 f rdwr 4711
  u1 umask=027 fallocate 3 17 4096 96
";
    regression_chown_by_the_owner_clears_setgid_of_a_foreign_group: "
format mixed
lower
  file f 6144 1000:0 1500000000.156518581 195 0+195+73
script
  u1 chown f - 0
";
    regression_roots_writes_keep_setuid: "
format overlay
lower
  file b 4755 0:0 1500000000.5 85 0+85+206
  file c 2755 0:0 1500000000.5 85 0+85+206
script
  append b 5 1
  append c 5 1
  truncate b 5
";
    regression_a_stray_whiteout_in_an_upper_directory_gives_way: "
format overlay
upper
  dir d 755 0:0 1.5
  whiteout d/a
  whiteout d/b
  whiteout d/c
lower
script
  mkdir d/a 755
  create d/a/b 644
  symlink x d/b
  link d/a/b d/c
";
    regression_truncating_keeps_a_hole: "
format overlay
lower
  file b 644 1001:1001 0.227481769 115536 65536+2548+1
script
  truncate b 4000
  open 1 b rdwr 644
  segments 1
";
    regression_a_store_through_a_mapping_keeps_capabilities: "
format overlay
lower
  dir d 755 0:0 1.5
  file d/b 644 0:0 1500000000.5 131920 81920+3642+188
  xattr d/b security.capability %01%00%00%02%00%00%00%10%00%00%00%00%00%00%00%00%00%00%00%00
  file d/c 700 1000:0 1.0 16119 0+16119+188
  xattr d/c security.capability %01%00%00%02%00%00%01%00%00%00%00%00%00%00%00%00%00%00%00%00
script
  open 0 d/b rdwr 644
  mmap 0 4096 1 237
  open 2 d/c rdwr 755
  mmap 2 1 5000 195
";
    regression_removing_an_acl_clears_a_strangers_setgid: "
format overlay
lower
  file g 2755 1000:0 0.5 0 -
script
  u1 removexattr g system.posix_acl_access
";
    regression_an_unlinked_name_of_an_indexed_file_counts_its_hidden_ones: "
format overlay
lower
  file c 700 1000:1001 -86400.964324031 121 0+121+195
lower
  dir c 2755 1000:0 1.0
  file c/b 444 0:0 0.63365480 0 -
  dir c/c 755 1000:1000 0.421317621
  link c/c/b c/b
  link f%20g c/b
script
  utimens f%20g -86400.200702180 now
  umask=000 remount
  open 3 f%20g rdwr+creat 444
  unlink f%20g
  fstat 3
";
    regression_a_stranger_cuts_what_a_member_wrote: "
format mixed
lower
  file a 2775 0:1000 -1000000000.74269018 0 -
script
  open 1 a rdwr 2775
  fsetxattr 1 system.posix_acl_access %02%00%00%00%01%00%05%00%ff%ff%ff%ff%02%00%02%00%e8%03%00%00%04%00%00%00%ff%ff%ff%ff%08%00%07%00%e9%03%00%00%10%00%02%00%ff%ff%ff%ff%20%00%01%00%ff%ff%ff%ff 0
  u1 write a 12288 1 157
  u2 truncate a 8192
";
}
