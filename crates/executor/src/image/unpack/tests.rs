//! What layers become on disk, and which archives are refused. Run as root: overlayfs attributes and devices need it.

use std::{
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;

/// An archive, entry by entry.
struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Writes the name into the header as it is: the crate's own functions refuse hostile ones.
    fn entry(mut self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(if kind == EntryType::Directory {
            0o755
        } else {
            0o644
        });
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_500_000_000);
        header.set_size(content.len() as u64);
        header.set_device_major(1).expect("device");
        header.set_device_minor(3).expect("device");
        header.set_cksum();
        self.0.append(&header, content).expect("append");
        self
    }

    fn dir(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", b"")
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, path, "", content.as_bytes())
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, b"")
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0
            .append_pax_extensions(records.iter().copied())
            .expect("extensions");
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("archive")
    }

    fn unpack(self) -> (TempDir, Result<Unpacked, Error>) {
        unpack_bytes(&self.bytes())
    }

    #[track_caller]
    fn unpack_ok(self) -> TempDir {
        let (directory, result) = self.unpack();
        result.expect("unpack");
        directory
    }
}

fn unpack_bytes(bytes: &[u8]) -> (TempDir, Result<Unpacked, Error>) {
    let directory = TempDir::new().expect("directory");
    let root = directory.path().join("fs");
    std::fs::create_dir(&root).expect("root");
    let result = unpack(&mut TarStream::new(bytes, 1000), &root);
    (directory, result)
}

fn is_whiteout(path: &Path) -> bool {
    let metadata = path.symlink_metadata().expect("whiteout");
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn is_opaque(path: &Path) -> bool {
    attribute(path, OPAQUE_ATTRIBUTE).as_deref() == Some(b"y")
}

#[test]
fn files_keep_content_owner_mode_and_time() {
    let directory = Archive::new()
        .dir("etc/")
        .file("etc/motd", "hello")
        .symlink("etc/link", "/absolute/../anywhere")
        .hard_link("etc/hard", "etc/motd")
        .entry(EntryType::Char, "null", "", b"")
        .entry(EntryType::Fifo, "pipe", "", b"")
        .file("implied/deep/file", "x")
        .unpack_ok();
    let fs = directory.path().join("fs");
    let motd = fs.join("etc/motd").metadata().expect("motd");
    assert_eq!(std::fs::read(fs.join("etc/motd")).expect("read"), b"hello");
    assert_eq!(
        (motd.uid(), motd.gid(), motd.mode() & 0o7777),
        (1000, 1001, 0o644)
    );
    assert_eq!((motd.mtime(), motd.nlink()), (1_500_000_000, 2));
    assert_eq!(
        motd.ino(),
        fs.join("etc/hard").metadata().expect("hard").ino()
    );
    assert_eq!(
        fs.join("etc").metadata().expect("etc").mtime(),
        1_500_000_000
    );
    let link = fs.join("etc/link").symlink_metadata().expect("link");
    assert_eq!((link.uid(), link.mtime()), (1000, 1_500_000_000));
    let target = std::fs::read_link(fs.join("etc/link")).expect("target");
    assert_eq!(target, Path::new("/absolute/../anywhere"));
    assert_eq!(
        fs.join("null").metadata().expect("null").rdev(),
        fs::makedev(1, 3)
    );
    assert!(
        fs.join("pipe")
            .metadata()
            .expect("pipe")
            .file_type()
            .is_fifo()
    );
    let implied = fs.join("implied/deep").metadata().expect("implied");
    assert_eq!((implied.uid(), implied.mode() & 0o7777), (0, 0o755));
}

#[test]
fn set_id_bits_and_attributes_survive_the_change_of_owner() {
    // VFS_CAP_REVISION_2 with cap_net_raw.
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let mut archive = Archive::new().pax(&[
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.user.note", b"kept"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("mtime", b"-1.25"),
    ]);
    let mut header = Header::new_ustar();
    header.set_mode(0o4755);
    header.set_uid(7);
    header.set_gid(8);
    header.set_size(1);
    archive
        .0
        .append_data(&mut header, "ping", &b"x"[..])
        .expect("append");
    let directory = archive.unpack_ok();
    let path = directory.path().join("fs/ping");
    let metadata = path.metadata().expect("ping");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o4755);
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (-2, 750_000_000));
    assert_eq!(
        attribute(&path, "security.capability").as_deref(),
        Some(&capability[..])
    );
    assert_eq!(attribute(&path, "user.note").as_deref(), Some(&b"kept"[..]));
    assert_eq!(attribute(&path, "trusted.overlay.redirect"), None);
    assert_eq!(attribute(&path, "user.overlay.opaque"), None);
}

#[test]
fn whiteouts_become_devices_and_opaque_directories() {
    let directory = Archive::new()
        .dir("a")
        .file("a/.wh.gone", "")
        .dir("b")
        .file("b/.wh..wh..opq", "")
        .file("b/new", "x")
        .file(".wh..wh.plnk", "aufs")
        .unpack_ok();
    let fs = directory.path().join("fs");
    assert!(is_whiteout(&fs.join("a/gone")));
    assert!(is_opaque(&fs.join("b")));
    assert!(!is_opaque(&fs.join("a")));
    assert!(fs.join("b/new").exists());
    assert!(!fs.join(".wh..wh.plnk").exists() && !fs.join("a/.wh.gone").exists());
}

#[test]
fn whiteout_and_new_content_of_one_name_hide_what_is_below() {
    let directory = Archive::new()
        .file(".wh.dir", "")
        .dir("dir")
        .dir("later")
        .file(".wh.later", "")
        .file(".wh.file", "")
        .file("file", "new")
        .file("kept", "mine")
        .file(".wh.kept", "")
        .unpack_ok();
    let fs = directory.path().join("fs");
    assert!(is_opaque(&fs.join("dir")) && is_opaque(&fs.join("later")));
    assert_eq!(std::fs::read(fs.join("file")).expect("file"), b"new");
    assert_eq!(std::fs::read(fs.join("kept")).expect("kept"), b"mine");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let directory = Archive::new()
        .file("x", "one")
        .file("x", "two")
        .dir("d")
        .file("d/inside", "x")
        .file("d", "now a file")
        .symlink("s", "x")
        .file("s", "not through the link")
        .unpack_ok();
    let fs = directory.path().join("fs");
    assert_eq!(std::fs::read(fs.join("x")).expect("x"), b"two");
    assert_eq!(std::fs::read(fs.join("d")).expect("d"), b"now a file");
    assert!(fs.join("s").symlink_metadata().expect("s").is_file());
}

#[track_caller]
fn check_refused(archive: Archive, expect: &str) {
    let (directory, result) = archive.unpack();
    assert_eq!(result.expect_err(expect).to_string(), expect);
    let outside: Vec<_> = std::fs::read_dir(directory.path())
        .expect("directory")
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    assert_eq!(outside, ["fs"], "something was written outside");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn paths_out_of_the_layer_are_refused() {
    let unsafe_path = |path: &str, reason: &str| format!("unsafe path `{path}` in layer: {reason}");
    for (archive, path, reason) in [
        (Archive::new().file("../x", ""), "../x", "contains `..`"),
        (
            Archive::new().file("a/../../x", ""),
            "a/../../x",
            "contains `..`",
        ),
        (Archive::new().dir(".."), "..", "contains `..`"),
        (Archive::new().file("/etc/x", ""), "/etc/x", "absolute"),
        (Archive::new().file("", ""), "", "empty"),
        (
            Archive::new().symlink("l", "/").file("l/x", ""),
            "l/x",
            "a parent is a symbolic link",
        ),
        (
            Archive::new().symlink("l", "..").file("l/x", ""),
            "l/x",
            "a parent is a symbolic link",
        ),
        (
            Archive::new()
                .dir("d")
                .symlink("d/l", "../..")
                .file("d/l/deep/x", ""),
            "d/l/deep/x",
            "a parent is a symbolic link",
        ),
        (
            Archive::new().symlink("l", "gone").dir("l/x"),
            "l/x",
            "a parent is a symbolic link",
        ),
        (
            Archive::new().file("f", "").file("f/x", ""),
            "f/x",
            "a parent is not a directory",
        ),
        (
            Archive::new().hard_link("h", "../../etc/passwd"),
            "../../etc/passwd",
            "contains `..`",
        ),
        (
            Archive::new().hard_link("h", "/etc/passwd"),
            "/etc/passwd",
            "absolute",
        ),
        (
            Archive::new()
                .symlink("l", "/etc")
                .hard_link("h", "l/passwd"),
            "l/passwd",
            "a parent is a symbolic link",
        ),
        (
            Archive::new().hard_link("h", "."),
            "h",
            "hard link to a directory",
        ),
        (
            Archive::new().symlink(".", "/"),
            ".",
            "the root is not a directory",
        ),
        (
            Archive::new().file("d/.wh...", ""),
            "d/.wh...",
            "whiteout of no name",
        ),
        (
            Archive::new().file(".wh.", ""),
            ".wh.",
            "whiteout of no name",
        ),
        (
            Archive::new().symlink("l", "/tmp").file("l/.wh.x", ""),
            "l/.wh.x",
            "a parent is a symbolic link",
        ),
        (
            Archive::new()
                .symlink("l", "/tmp")
                .file("l/.wh..wh..opq", ""),
            "l/.wh..wh..opq",
            "a parent is a symbolic link",
        ),
        (
            Archive::new().pax(&[("path", b"../pax")]).file("ok", ""),
            "../pax",
            "contains `..`",
        ),
        (
            Archive::new()
                .pax(&[("linkpath", b"../pax")])
                .hard_link("ok", "x"),
            "../pax",
            "contains `..`",
        ),
        (
            Archive::new().pax(&[("path", b"a\0b")]).file("ok", ""),
            "a\0b",
            "contains a zero byte",
        ),
    ] {
        check_refused(archive, &unsafe_path(path, reason));
    }
}

/// A file behind a symbolic link stays as it is even if the archive replaces the link's name.
#[test]
fn hard_link_to_a_symbolic_link_is_not_a_way_out() {
    let victim = tempfile::NamedTempFile::new().expect("victim");
    std::fs::write(victim.path(), "untouched").expect("write");
    let target = victim.path().to_str().expect("path");
    Archive::new()
        .symlink("l", target)
        .hard_link("h", "l")
        .file("h", "overwritten")
        .unpack_ok();
    assert_eq!(std::fs::read(victim.path()).expect("read"), b"untouched");
}

#[test]
fn damaged_archives_are_refused() {
    let whole = Archive::new()
        .file("a", &"x".repeat(2000))
        .file("b", "y")
        .bytes();
    for cut in [100, 512, 600, 1500, 2511, 2600] {
        let (_directory, result) = unpack_bytes(&whole[..cut]);
        let error = result.expect_err("truncated");
        assert!(matches!(error, Error::Truncated), "cut at {cut}: {error}");
    }
    let mut flipped = whole.clone();
    flipped[0] ^= 1;
    let (_directory, result) = unpack_bytes(&flipped);
    assert!(matches!(result, Err(Error::Malformed(_))), "{result:?}");
    let (_directory, result) = unpack_bytes(&[7; 512]);
    assert!(matches!(result, Err(Error::Malformed(_))), "{result:?}");
    check_refused(
        Archive::new().pax(&[("size", b"-1")]).file("a", ""),
        "malformed layer archive: extended header",
    );
    check_refused(
        Archive::new()
            .pax(&[("GNU.sparse.major", b"1")])
            .file("a", ""),
        "unsupported layer archive: sparse file",
    );
    check_refused(
        Archive::new().entry(EntryType::GNUSparse, "a", "", b""),
        "unsupported layer archive: sparse file",
    );
    check_refused(
        Archive::new().entry(EntryType::new(b'V'), "a", "", b""),
        "unsupported layer archive: unknown type",
    );
}

#[test]
fn extension_records_do_not_fill_the_memory() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let bytes = header.as_bytes().to_vec();
    // An endless source: only the declared length can stop the reader.
    let source = bytes.as_slice().chain(io::repeat(b'a'));
    let directory = TempDir::new().expect("directory");
    let result = unpack(&mut TarStream::new(source, 10), directory.path());
    let expect = "malformed layer archive: extension record too long";
    assert_eq!(result.expect_err("bomb").to_string(), expect);
}

#[test]
fn entries_are_counted() {
    let archive = (0..1001).fold(Archive::new(), |archive, n| {
        archive.file(&n.to_string(), "")
    });
    check_refused(archive, "layer exceeds the limit of 1000 entries");
}

/// The size of an extended header wins over the plain header's, as in every other reader: a disagreement must not desynchronise.
#[test]
fn extended_size_decides() {
    let directory = Archive::new()
        .pax(&[("size", b"3")])
        .entry(EntryType::Regular, "a", "", b"abc")
        .file("b", "after")
        .unpack_ok();
    assert_eq!(
        std::fs::read(directory.path().join("fs/b")).expect("b"),
        b"after"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever a damaged archive does, it does not panic and stays inside.
    #[test]
    fn flipped_bits_do_no_harm(at in 0usize..6000, bit in 0u8..8) {
        let mut bytes = Archive::new()
            .dir("d")
            .symlink("d/l", "../..")
            .pax(&[("SCHILY.xattr.user.a", b"b")])
            .file("d/f", "content")
            .hard_link("h", "d/f")
            .bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let (directory, _) = unpack_bytes(&bytes);
        let names: Vec<_> = std::fs::read_dir(directory.path()).expect("directory").collect();
        proptest::prop_assert_eq!(names.len(), 1);
    }
}
