//! Reading single fields: what every conversion needs to say which field failed, and why.

use std::str::FromStr;

use skep_model::id::InvalidId;

use crate::error::{Error, Problem};

/// Puts the name of a field on a failure.
pub(crate) trait At<T> {
    /// The result, its error blamed on `field`.
    fn at(self, field: &'static str) -> Result<T, Error>;
}

impl<T> At<T> for Result<T, Problem> {
    fn at(self, field: &'static str) -> Result<T, Error> {
        self.map_err(|problem| Error::field(field, problem))
    }
}

impl<T> At<T> for Result<T, Error> {
    fn at(self, field: &'static str) -> Result<T, Error> {
        self.map_err(|error| error.within(field))
    }
}

impl<T> At<T> for Option<T> {
    fn at(self, field: &'static str) -> Result<T, Error> {
        self.ok_or_else(|| Error::field(field, Problem::Missing))
    }
}

/// The enum value with number `number`, as the model has it.
pub(crate) fn known<P: TryFrom<i32>, M: From<P>>(number: i32) -> Result<M, Problem> {
    P::try_from(number)
        .map(M::from)
        .map_err(|_| Problem::UnknownValue(number))
}

/// Refuses a field the model has no place for, unless it is empty.
pub(crate) fn unsupported(is_empty: bool) -> Result<(), Problem> {
    if is_empty {
        Ok(())
    } else {
        Err(Problem::Unsupported)
    }
}

/// An id that must be there.
pub(crate) fn id<T: FromStr<Err = InvalidId>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(Problem::InvalidId)
}

/// An id; empty text is none.
pub(crate) fn optional_id<T: FromStr<Err = InvalidId>>(text: &str) -> Result<Option<T>, Problem> {
    if text.is_empty() {
        Ok(None)
    } else {
        id(text).map(Some)
    }
}

/// A UDP or TCP port.
pub(crate) fn port(number: u32) -> Result<u16, Problem> {
    u16::try_from(number).map_err(|_| Problem::OutOfRange(number.into()))
}

/// A message that may be absent.
pub(crate) fn option<P, M: TryFrom<P, Error = Error>>(
    value: Option<P>,
) -> Result<Option<M>, Error> {
    value.map(M::try_from).transpose()
}

/// A message whose absence means the model's default.
pub(crate) fn or_default<P, M>(value: Option<P>) -> Result<M, Error>
where
    M: TryFrom<P, Error = Error> + Default,
{
    value.map_or_else(|| Ok(M::default()), M::try_from)
}

/// Messages, in order.
pub(crate) fn list<P, M: TryFrom<P, Error = Error>>(items: Vec<P>) -> Result<Vec<M>, Error> {
    items.into_iter().map(M::try_from).collect()
}

/// The wire form of `items`, in order.
pub(crate) fn to_list<'a, M, P: From<&'a M>>(items: &'a [M]) -> Vec<P> {
    items.iter().map(P::from).collect()
}

/// The wire form of a message peers leave out when it is empty.
pub(crate) fn unless_default<'a, M: Default + PartialEq, P: From<&'a M>>(
    value: &'a M,
) -> Option<P> {
    (*value != M::default()).then(|| P::from(value))
}

/// Declares the two directions between an enum of the model and one of the wire; a macro because
/// two dozen enums need the same pair. A variant is `Model` or, where names differ, `Model = Wire`.
macro_rules! enum_pair {
    ($model:ty, $wire:ty { $($variant:ident $(= $named:ident)?),+ $(,)? }) => {
        impl From<$wire> for $model {
            fn from(value: $wire) -> Self {
                match value {
                    $($crate::convert::field::enum_pair!(@wire $wire, $variant $($named)?) => {
                        Self::$variant
                    })+
                }
            }
        }

        impl From<$model> for $wire {
            fn from(value: $model) -> Self {
                match value {
                    $(<$model>::$variant => {
                        $crate::convert::field::enum_pair!(@wire $wire, $variant $($named)?)
                    })+
                }
            }
        }
    };
    (@wire $wire:ty, $variant:ident) => { <$wire>::$variant };
    (@wire $wire:ty, $variant:ident $named:ident) => { <$wire>::$named };
}

pub(crate) use enum_pair;
