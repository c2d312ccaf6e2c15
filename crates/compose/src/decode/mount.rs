//! Entries of `volumes` and `tmpfs`.

use super::{
    Decoder,
    field::{At, Fields},
};
use crate::{
    project::{BindOptions, Mount, MountKind, Tmpfs, TmpfsOptions, VolumeOptions},
    quantity,
    word::Word,
};

/// Permission bits a directory can have.
const MODE_MAX: i64 = 0o7777;

// === impl Decoder ===

impl Decoder<'_, '_> {
    pub(super) fn mount(&mut self, at: &At<'_>) -> Option<Mount> {
        let mut fields = self.fields(at)?;
        let kind = fields.take("type");
        if kind.is_none() {
            self.problem(at, &format!("a mount needs `type`: {}", MountKind::list()));
        }
        let kind: MountKind = self.word(kind).unwrap_or_default();
        let mount = Mount {
            kind,
            source: self
                .string(fields.take("source"))
                .filter(|source| !source.is_empty()),
            target: self.string(fields.take("target")).unwrap_or_default(),
            is_read_only: self.boolean(fields.take("read_only")).unwrap_or_default(),
            consistency: self.string(fields.take("consistency")),
            bind: self.bind_options(kind, &mut fields),
            volume: self.volume_options(kind, &mut fields),
            tmpfs: self.tmpfs_options(kind, &mut fields),
            image_subpath: self.image_options(kind, &mut fields),
        };
        self.finish(fields, &[], &[]);
        if mount.target.is_empty() {
            self.problem(at, "a mount needs `target`");
        }
        let (needs, refuses) = match kind {
            MountKind::Bind | MountKind::Npipe | MountKind::Image | MountKind::Cluster => {
                (true, false)
            }
            MountKind::Tmpfs => (false, true),
            MountKind::Volume => (false, false),
        };
        if needs && mount.source.is_none() {
            self.problem(
                at,
                &format!("a mount of type `{}` needs `source`", kind.as_str()),
            );
        }
        if refuses && mount.source.is_some() {
            self.problem(
                at,
                &format!("a mount of type `{}` has no `source`", kind.as_str()),
            );
        }
        Some(mount)
    }

    /// The options of one type; those of another are a problem.
    fn options<'n>(
        &mut self,
        of: MountKind,
        kind: MountKind,
        fields: &mut Fields<'n>,
    ) -> Option<(At<'n>, Fields<'n>)> {
        let at = fields.take(of.as_str())?;
        if of != kind {
            let text = format!(
                "`{}` is of mounts of that type, not of type `{}`",
                of.as_str(),
                kind.as_str()
            );
            self.problem(&at, &text);
            return None;
        }
        let fields = self.fields(&at)?;
        Some((at, fields))
    }

    fn bind_options(&mut self, kind: MountKind, fields: &mut Fields<'_>) -> Option<BindOptions> {
        let (_, mut fields) = self.options(MountKind::Bind, kind, fields)?;
        let options = BindOptions {
            propagation: self.word(fields.take("propagation")),
            is_created: self.boolean(fields.take("create_host_path")),
            recursive: self.word(fields.take("recursive")),
            selinux: self.word(fields.take("selinux")),
        };
        self.finish(fields, &[], &[]);
        Some(options)
    }

    fn volume_options(
        &mut self,
        kind: MountKind,
        fields: &mut Fields<'_>,
    ) -> Option<VolumeOptions> {
        let (_, mut fields) = self.options(MountKind::Volume, kind, fields)?;
        let options = VolumeOptions {
            is_nocopy: self.boolean(fields.take("nocopy")).unwrap_or_default(),
            subpath: self.string(fields.take("subpath")),
            labels: self.pairs(fields.take("labels")),
        };
        self.finish(fields, &[], &[]);
        Some(options)
    }

    fn tmpfs_options(&mut self, kind: MountKind, fields: &mut Fields<'_>) -> Option<TmpfsOptions> {
        let (_, mut fields) = self.options(MountKind::Tmpfs, kind, fields)?;
        let options = TmpfsOptions {
            size_bytes: self.bytes(fields.take("size")),
            mode: self
                .integer(fields.take("mode"), 0, MODE_MAX)
                .and_then(|mode| u32::try_from(mode).ok()),
        };
        self.finish(fields, &[], &[]);
        Some(options)
    }

    fn image_options(&mut self, kind: MountKind, fields: &mut Fields<'_>) -> Option<String> {
        let (_, mut fields) = self.options(MountKind::Image, kind, fields)?;
        let subpath = self.string(fields.take("subpath"));
        self.finish(fields, &[], &[]);
        subpath
    }

    /// `PATH[:OPTION,…]`.
    pub(super) fn tmpfs(&mut self, at: &At<'_>) -> Option<Tmpfs> {
        let text = self.string(Some(at.clone()))?;
        let (target, options) = text.split_once(':').unwrap_or((&text, ""));
        let mut tmpfs = Tmpfs {
            target: target.to_owned(),
            ..Tmpfs::default()
        };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("size", size)) => {
                    tmpfs.options.size_bytes = quantity::bytes(size);
                    if tmpfs.options.size_bytes.is_none() {
                        self.wrong::<()>(at, "`PATH[:OPTION,…]` with a size like `64m`");
                    }
                }
                Some(("mode", mode)) => {
                    let mode = u32::from_str_radix(mode, 8).ok();
                    tmpfs.options.mode = mode.filter(|&mode| i64::from(mode) <= MODE_MAX);
                    if tmpfs.options.mode.is_none() {
                        self.wrong::<()>(at, "`PATH[:OPTION,…]` with a mode like `1777`");
                    }
                }
                _ => tmpfs.flags.push(option.to_owned()),
            }
        }
        Some(tmpfs)
    }
}
