//! The image store: content, layers, names, pull and load.
