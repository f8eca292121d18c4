//! Placeholder; the story comes with the code.
