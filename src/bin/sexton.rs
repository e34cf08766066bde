//! The init. All of it is in [`sexton::init`].
#![no_main]

sexton::entry!(sexton::init::start);
