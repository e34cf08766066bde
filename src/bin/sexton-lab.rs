//! The laboratory. All of it is in [`sexton::lab`].
#![no_main]

sexton::entry!(sexton::lab::start);
