//! `skep monitor`: the small process that owns one container.
