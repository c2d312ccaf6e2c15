//! Cuts a stream into log lines, with Docker's 16 KiB partial lines. Pure.

/// Longest piece of a line in one log entry, as Docker's copier: clients glue pieces by the missing newline.
pub(super) const LINE_BYTES_MAX: usize = 16 << 10;

/// The unfinished line of one stream.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes bytes as they were read; calls `emit(piece, is_end_of_line)` for every finished piece.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.pending.len();
            let window = &bytes[..room.min(bytes.len())];
            if let Some(end) = window.iter().position(|&byte| byte == b'\n') {
                if self.pending.is_empty() {
                    emit(&window[..end], true);
                } else {
                    self.pending.extend_from_slice(&window[..end]);
                    emit(&self.pending, true);
                    self.pending.clear();
                }
                bytes = &bytes[end + 1..];
                continue;
            }
            self.pending.extend_from_slice(window);
            bytes = &bytes[window.len()..];
            if self.pending.len() == LINE_BYTES_MAX {
                emit(&self.pending, false);
                self.pending.clear();
            }
        }
    }

    /// The stream's end: what is left is a piece without a newline.
    pub(super) fn finish(&mut self, mut emit: impl FnMut(&[u8], bool)) {
        if !self.pending.is_empty() {
            emit(&self.pending, false);
            self.pending = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(chunks: &[&[u8]], expected: &[(usize, bool)]) {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, |piece, is_end| seen.push((piece.len(), is_end)));
        }
        lines.finish(|piece, is_end| seen.push((piece.len(), is_end)));
        assert_eq!(seen, expected);
    }

    #[test]
    fn lines_are_cut_at_newlines_across_reads() {
        check(
            &[b"ab", b"c\n\nd", b"\ne"],
            &[(3, true), (0, true), (1, true), (1, false)],
        );
    }

    #[test]
    fn a_line_of_exactly_the_limit_ends_with_an_empty_piece() {
        let line = [vec![b'x'; LINE_BYTES_MAX], b"\n".to_vec()].concat();
        check(&[&line], &[(LINE_BYTES_MAX, false), (0, true)]);
        check(&[&line[1..]], &[(LINE_BYTES_MAX - 1, true)]);
    }

    proptest! {
        #[test]
        fn glued_pieces_are_the_stream(
            chunks in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a')], 0..40), 0..20),
        ) {
            let (mut lines, mut glued) = (Lines::default(), Vec::new());
            let mut take = |piece: &[u8], is_end: bool| {
                glued.extend_from_slice(piece);
                if is_end { glued.push(b'\n'); }
            };
            for chunk in &chunks {
                lines.push(chunk, &mut take);
            }
            lines.finish(&mut take);
            prop_assert_eq!(glued, chunks.concat());
        }
    }
}
