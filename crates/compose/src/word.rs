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

/// The known word a word was probably meant to be: the one with the fewest letters changed, if these are few.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bound = match word.chars().count() {
        0..=1 => 0,
        2..=3 => 1,
        4..=5 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .take(COMPARED_WORDS_MAX)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|&(distance, _)| distance <= bound)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Words that are compared; schemas have some dozens.
const COMPARED_WORDS_MAX: usize = 1_000;
/// Longest word that is compared; the cost is the product of the lengths.
const COMPARED_CHARS_MAX: usize = 64;

/// Letters to add, take away, change or swap with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().take(COMPARED_CHARS_MAX).collect();
    let to: Vec<char> = to.chars().take(COMPARED_CHARS_MAX).collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for (at, letter) in from.iter().enumerate() {
        let above = &rows[at];
        let mut row = vec![at + 1];
        for (to_at, other) in to.iter().enumerate() {
            let change = above[to_at] + usize::from(letter != other);
            let mut least = change.min(above[to_at + 1] + 1).min(row[to_at] + 1);
            let is_swap = at > 0 && to_at > 0 && from[at - 1] == *other && to[to_at - 1] == *letter;
            if is_swap {
                least = least.min(rows[at - 1][to_at - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found() {
        let known = ["image", "images", "deploy", "depends_on", "ports"];
        assert_eq!(nearest("imgae", known), Some("image"));
        assert_eq!(nearest("depend_on", known), Some("depends_on"));
        assert_eq!(nearest("port", known), Some("ports"));
        assert_eq!(nearest("replicas", known), None);
        assert_eq!(nearest("", known), None);
    }
}
