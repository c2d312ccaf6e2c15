//! Finds out how a stream is compressed, from its first bytes, and bounds what comes out.

use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;

/// 128 MiB: zstd's largest window without `--ultra --long`; it is allocated from the stream's own claim.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Too much came out of a stream.
#[derive(Debug, thiserror::Error)]
#[error("uncompressed size exceeds the limit of {0} bytes")]
pub(crate) struct TooLarge(pub(crate) u64);

/// The compression is one we do not read.
#[derive(Debug, thiserror::Error)]
#[error("unsupported compression: {0}")]
pub(crate) struct Unsupported(pub(crate) &'static str);

/// Fails once more than `limit` bytes were read.
#[derive(Debug)]
pub(crate) struct Limited<R> {
    source: R,
    remaining: u64,
    limit: u64,
}

/// The plain stream, at most `limit` bytes long.
///
/// # Errors
/// IO errors; [`Unsupported`] as the inner error. Reading may give [`TooLarge`] as the inner error.
pub(crate) fn decompress<'a>(
    mut source: impl Read + Send + 'a,
    limit: u64,
) -> io::Result<Limited<Box<dyn Read + Send + 'a>>> {
    let mut magic = Vec::with_capacity(6);
    (&mut source).take(6).read_to_end(&mut magic)?;
    let rewound = Cursor::new(magic.clone()).chain(source);
    let plain: Box<dyn Read + Send + 'a> = match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(BufReader::new(MultiGzDecoder::new(rewound))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder = zstd::stream::read::Decoder::new(rewound)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(BufReader::new(decoder))
        }
        [b'B', b'Z', b'h', ..] => return Err(io::Error::other(Unsupported("bzip2"))),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(io::Error::other(Unsupported("xz"))),
        _ => Box::new(rewound),
    };
    Ok(Limited {
        source: plain,
        remaining: limit,
        limit,
    })
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.remaining = self
            .remaining
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other(TooLarge(self.limit)))?;
        Ok(count)
    }
}
