//! Limits and settings of the image store.

/// What the store accepts and how it pulls. Every limit bounds what a stranger's archive can cost.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Largest single blob, in bytes: [`BLOB_BYTES_MAX`].
    pub blob_bytes_max: u64,
    /// Largest layer after decompression, in bytes of tar stream: [`LAYER_BYTES_MAX`].
    pub layer_bytes_max: u64,
    /// Most entries of one layer or archive: [`ENTRIES_MAX`].
    pub entries_max: u64,
    /// Largest archive given to `load`, in bytes after decompression: [`ARCHIVE_BYTES_MAX`].
    pub archive_bytes_max: u64,
    /// Registries (`host[:port]`) that may be spoken to without TLS or with unverifiable certificates. Loopback addresses always may.
    pub insecure_registries: Vec<String>,
    /// Layers pulled at a time: [`PULL_CONCURRENCY`].
    pub pull_concurrency: usize,
    /// Tries of one registry request: [`PULL_TRIES`].
    pub pull_tries: u32,
}

/// 32 GiB: model images are that large; a larger one is refused before it fills the disk.
pub const BLOB_BYTES_MAX: u64 = 32 << 30;
/// 64 GiB, twice a blob: real layers compress two- to threefold; a bomb costs at most this much disk before it is removed.
pub const LAYER_BYTES_MAX: u64 = 64 << 30;
/// Two million files: ten times the largest distribution image; each costs an inode.
pub const ENTRIES_MAX: u64 = 2_000_000;
/// 256 GiB: an archive holds several images.
pub const ARCHIVE_BYTES_MAX: u64 = 256 << 30;
/// As Docker's `max-concurrent-downloads`.
pub const PULL_CONCURRENCY: usize = 3;
/// As Docker's `max-download-attempts`.
pub const PULL_TRIES: u32 = 5;

/// 4 MiB: what registries themselves accept as manifest; it is held in memory.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// 8 MiB: config documents hold the history; held in memory.
pub(crate) const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// overlayfs takes 500 lower directories; Docker refuses more than 128 layers and so do its builders.
pub(crate) const LAYERS_MAX: usize = 128;
/// Images in one archive or index; more is an attack on memory.
pub(crate) const IMAGES_PER_ARCHIVE_MAX: usize = 1024;

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            blob_bytes_max: BLOB_BYTES_MAX,
            layer_bytes_max: LAYER_BYTES_MAX,
            entries_max: ENTRIES_MAX,
            archive_bytes_max: ARCHIVE_BYTES_MAX,
            insecure_registries: Vec::new(),
            pull_concurrency: PULL_CONCURRENCY,
            pull_tries: PULL_TRIES,
        }
    }
}
