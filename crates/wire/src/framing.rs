//! Protobuf's framing of fields, for codecs that must not build whole message trees.
//!
//! A snapshot of a million tasks is read and written object by object, and a task's shared parts
//! are taken as bytes. Uses prost's varints; groups, which proto3 does not have, are refused.

use crate::error::Error;

/// Protobuf's type of a length-delimited field.
const LENGTH_DELIMITED: usize = 2;

/// Largest field number protobuf allows.
const FIELD_NUMBER_MAX: usize = (1 << 29) - 1;

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    /// Its number.
    pub(crate) number: usize,
    /// What it holds.
    pub(crate) value: Value<'a>,
    /// The whole field, key included.
    pub(crate) raw: &'a [u8],
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A number.
    Varint(u64),
    /// A message, a text or bytes.
    Bytes(&'a [u8]),
    /// Four or eight bytes; nothing here uses them.
    Fixed,
}

/// The fields of a message, in the order they were written.
#[derive(Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

// === impl Fields ===

impl<'a> Fields<'a> {
    /// The fields of `message`.
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn take_field(&mut self) -> Result<Field<'a>, Error> {
        let start = self.0;
        let key = self.take_varint()?;
        let number = key >> 3;
        if number == 0 || number > FIELD_NUMBER_MAX {
            return Err(Error::InvalidKey(key));
        }
        let value = match key & 7 {
            0 => Value::Varint(u64::try_from(self.take_varint()?).map_err(|_| Error::Truncated)?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            LENGTH_DELIMITED => {
                let length = self.take_varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Error::InvalidKey(key)),
        };
        let raw = &start[..start.len() - self.0.len()];
        Ok(Field { number, value, raw })
    }

    fn take_varint(&mut self) -> Result<usize, Error> {
        Ok(prost::decode_length_delimiter(&mut self.0)?)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Error>;

    /// Ends after the first error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.take_field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Appends the number `value` as field `number`.
pub(crate) fn put_varint(buffer: &mut Vec<u8>, number: usize, value: u64) {
    put(buffer, number << 3);
    let value = usize::try_from(value).expect("usize has 64 bits on every platform Skep runs on");
    put(buffer, value);
}

/// Appends `bytes`, a message or a text, as field `number`.
pub(crate) fn put_bytes(buffer: &mut Vec<u8>, number: usize, bytes: &[u8]) {
    put_bytes_header(buffer, number, bytes.len());
    buffer.extend_from_slice(bytes);
}

/// Appends the start of field `number`, whose `length` bytes the caller appends next.
pub(crate) fn put_bytes_header(buffer: &mut Vec<u8>, number: usize, length: usize) {
    put(buffer, number << 3 | LENGTH_DELIMITED);
    put(buffer, length);
}

fn put(buffer: &mut Vec<u8>, value: usize) {
    prost::encode_length_delimiter(value, buffer).expect("a vector grows as needed");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_read_back() {
        let mut buffer = Vec::new();
        put_varint(&mut buffer, 1, u64::MAX);
        put_bytes(&mut buffer, 64, b"text");
        let fields: Vec<_> = Fields::of(&buffer).map(Result::unwrap).collect();
        assert_eq!(fields.len(), 2);
        assert_eq!(
            (fields[0].number, fields[0].value),
            (1, Value::Varint(u64::MAX))
        );
        assert_eq!(
            (fields[1].number, fields[1].value),
            (64, Value::Bytes(b"text"))
        );
        assert_eq!(fields[1].raw, &buffer[fields[0].raw.len()..]);
    }

    #[test]
    fn broken_framing_is_an_error_once() {
        for bytes in [
            &[0x0a, 0x05, b'x'][..], // Five bytes are promised, one is there.
            &[0x00, 0x00],           // Field number zero.
            &[0x0b],                 // A group.
            &[0x80],                 // A key without an end.
            &[0x09, 1, 2, 3],        // Eight bytes are promised.
        ] {
            let mut fields = Fields::of(bytes);
            assert!(fields.next().expect("one result").is_err(), "{bytes:?}");
            assert!(fields.next().is_none(), "{bytes:?}");
        }
    }
}
