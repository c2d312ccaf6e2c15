//! A wrapper that keeps secrets out of `Debug` output and so out of logs.

use std::fmt;

/// A value whose `Debug` form shows only whether it is set.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Redacted<T>(pub T);

impl<T: Default + PartialEq> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 == T::default() {
            "<unset>"
        } else {
            "<redacted>"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_value() {
        assert_eq!(
            format!("{:?}", Redacted("hunter2".to_owned())),
            "<redacted>"
        );
        assert_eq!(format!("{:?}", Redacted(String::new())), "<unset>");
    }
}
