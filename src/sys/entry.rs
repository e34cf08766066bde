//! Where the program begins: before the language's own runtime.
//!
//! Rust's start-up code sets SIGPIPE to ignored, opens /dev/null on closed standard descriptors and installs handlers
//! for stack overflows. All of that would leak into the command, and happens before the first signal could be blocked.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

unsafe extern "C" {
    /// `environ(7)`: the environment, as the C library found it at the start of the process.
    static mut environ: *const *const c_char;
}

/// The argument vector, as the kernel laid it out: it lives as long as the process.
#[derive(Clone, Copy)]
pub struct Arguments {
    count: usize,
    vector: *const *const c_char,
}

impl Arguments {
    /// Takes what `main` was given.
    ///
    /// # Safety
    /// `vector` must point to `count` C strings and a null pointer behind them, valid for the rest of the process.
    pub unsafe fn from_main(count: c_int, vector: *const *const c_char) -> Self {
        Self { count: usize::try_from(count).unwrap_or(0), vector }
    }

    /// The arguments as owned words, the program's own name first.
    pub fn words(self) -> Vec<OsString> {
        (0..self.count)
            .map(|index| {
                // SAFETY: index < count, and from_main's caller vouched for that many pointers.
                let word = unsafe { self.vector.add(index) };
                // SAFETY: as above, there is a pointer here.
                let word = unsafe { word.read() };
                // SAFETY: the same caller vouched for each being a C string that is never freed.
                let word = unsafe { CStr::from_ptr(word) };
                OsStr::from_bytes(word.to_bytes()).to_owned()
            })
            .collect()
    }

    /// The last `count` arguments, as pointers.
    pub fn last_pointers(self, count: usize) -> &'static [*const c_char] {
        // SAFETY: last() points at count pointers, or at all there are, which live as long as the process.
        unsafe { std::slice::from_raw_parts(self.last(count), count.min(self.count)) }
    }

    /// The last `count` arguments, with the null pointer behind them, as execve(2) takes them.
    pub fn last(self, count: usize) -> *const *const c_char {
        let skipped = self.count - count.min(self.count);
        // SAFETY: skipped <= self.count, so the result still points into the vector or at its closing null.
        unsafe { self.vector.add(skipped) }
    }
}

/// The environment's pointer array, as execve(2) takes it. Nothing in this crate changes the environment.
pub fn environment() -> *const *const c_char {
    // SAFETY: only one thread exists, and nothing calls setenv(3), so the read races with nothing.
    unsafe { environ }
}

/// Each variable of the environment, as a pointer and as its text `NAME=VALUE`.
pub fn variables() -> impl Iterator<Item = (*const c_char, &'static [u8])> {
    let mut next = environment();
    std::iter::from_fn(move || {
        // SAFETY: the array ends in a null pointer (environ(7)), behind which we do not go.
        let pointer = unsafe { next.as_ref() }.copied().filter(|pointer| !pointer.is_null())?;
        // SAFETY: the null pointer has not been reached, so the array goes on.
        next = unsafe { next.add(1) };
        // SAFETY: each entry is a C string that nothing in this crate frees or changes.
        Some((pointer, unsafe { CStr::from_ptr(pointer) }.to_bytes()))
    })
}

/// Makes `$run` (a function from [`Arguments`] to an exit code) the program's `main`, called by the C library directly.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        /// Called by the C library's start-up code.
        // SAFETY: this is the only `main` of the program, with the signature that the C library calls.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn main(
            count: ::std::ffi::c_int,
            vector: *const *const ::std::ffi::c_char,
        ) -> ::std::ffi::c_int {
            // SAFETY: the C library passes on what the kernel put on the stack (execve(2)); it is never unmapped.
            $run(unsafe { $crate::sys::entry::Arguments::from_main(count, vector) })
        }
    };
}
