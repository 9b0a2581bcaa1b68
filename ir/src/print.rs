//! Printing the text form.
