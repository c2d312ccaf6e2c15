//! Enums that are words in a compose file, and the nearest known word for one that is not.

/// A set of words a value may be one of.
pub trait Word: Copy + Sized + 'static {
    /// All, in the order of the documentation.
    const ALL: &'static [Self];

    /// The word as it stands in files.
    fn as_str(self) -> &'static str;

    /// The value of a word.
    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|word| word.as_str() == text)
    }

    /// All words, for texts: `a, b or c`.
    fn list() -> String {
        let words: Vec<String> = Self::ALL
            .iter()
            .map(|word| format!("`{}`", word.as_str()))
            .collect();
        match words.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => String::new(),
        }
    }
}

/// An enum with a word for each variant. A macro, because a function cannot define variants and their words in one place.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $crate::word::Word for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}
pub(crate) use words;
