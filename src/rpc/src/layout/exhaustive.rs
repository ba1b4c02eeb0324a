//! The properties of computed layouts, held against an exhaustive search where that is possible.
