//! Subjects that use what cgroups limit: memory, CPU time, processes, disks.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use nix::fcntl::OFlag;

use super::{Trouble, say};
use crate::sys::Errno;
use crate::sys::lab::{Forked, fork, pause};
use crate::sys::process::exit;

const MIB: usize = 1 << 20;
/// What O_DIRECT wants buffers, positions and lengths to be multiples of, at the most.
const ALIGNMENT: usize = 4096;
/// A process of a fork bomb ends by itself after this, whoever forgot it.
const BOMB_LIFETIME: Duration = Duration::from_mins(1);

/// `eat-memory`.
#[derive(Args, Debug)]
pub struct Memory {
    /// How many MiB
    mib: usize,
    /// Of the page cache: written to this file, which is removed at the end
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Do not touch it: it is only reserved
    #[arg(long)]
    untouched: bool,
    /// Wait for a signal when done, having said `done`
    #[arg(long)]
    stay: bool,
}

/// Takes memory, one MiB after the other.
pub fn eat_memory(asked: &Memory) -> Result<u8, Trouble> {
    say("ready")?;
    let mut taken: Vec<Vec<u8>> = Vec::new();
    if let Some(path) = &asked.cache {
        let mut file = File::create(path)?;
        // The descriptor keeps the file, and so its pages, until the end.
        std::fs::remove_file(path)?;
        let block = vec![1; MIB];
        for _ in 0..asked.mib {
            file.write_all(&block)?;
        }
        file.sync_all()?;
        say("done")?;
        return Ok(if asked.stay { pause() } else { 0 });
    }
    for _ in 0..asked.mib {
        let mut part = Vec::with_capacity(MIB);
        if !asked.untouched {
            part.resize(MIB, 1);
        }
        taken.push(part);
    }
    say("done")?;
    Ok(if asked.stay { pause() } else { std::hint::black_box(taken).is_empty().into() })
}

/// `burn-cpu`.
#[derive(Args, Debug)]
pub struct Cpu {
    /// For so many milliseconds; absent: for ever
    #[arg(long)]
    millis: Option<u64>,
    /// In the kernel instead
    #[arg(long)]
    system: bool,
}

/// Uses a CPU as much as it may.
pub fn burn_cpu(asked: &Cpu) -> Result<u8, Trouble> {
    say("ready")?;
    let end = asked.millis.map(|millis| Instant::now() + Duration::from_millis(millis));
    let mut number = 1u64;
    while end.is_none_or(|end| Instant::now() < end) {
        if asked.system {
            let _ = std::fs::metadata("/");
        } else {
            for _ in 0..10_000 {
                number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        }
    }
    Ok(0)
}

/// `fork-bomb`.
#[derive(Args, Debug)]
pub struct Bomb {
    /// The most processes that it makes in all, up to 65536
    #[arg(long, default_value_t = 200)]
    count: usize,
    /// Go on for ever: each process makes one and ends; so many at a time
    #[arg(long)]
    churn: Option<u32>,
}

/// Makes processes that make processes. Each takes a byte from a pipe first: that is the bound.
pub fn fork_bomb(asked: &Bomb) -> Result<u8, Trouble> {
    let end = Instant::now() + BOMB_LIFETIME;
    if let Some(chains) = asked.churn {
        say("ready")?;
        for _ in 0..chains {
            if let Ok(Forked::Child) = fork() {
                while Instant::now() < end {
                    if let Ok(Forked::Parent(_)) = fork() {
                        exit(0);
                    }
                }
                exit(0);
            }
        }
        say("done")?;
        return Ok(pause());
    }
    let (mut bound, fill) = nix::unistd::pipe().map(|(read, write)| (File::from(read), File::from(write)))?;
    (&fill).write_all(&vec![1; asked.count.min(65_536)])?;
    drop(fill);
    say("ready")?;
    let first = std::process::id();
    let refused = loop {
        match bound.read(&mut [0]) {
            Ok(1) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            _ => break false,
        }
        match fork() {
            Ok(_) => {}
            Err(Errno::EAGAIN) => break true,
            Err(errno) => return Err(errno.into()),
        }
    };
    if std::process::id() == first {
        say(if refused { "refused" } else { "done" })?;
        return Ok(pause());
    }
    sleep(end.saturating_duration_since(Instant::now()));
    exit(0)
}

/// `write`.
#[derive(Args, Debug)]
pub struct Disk {
    /// The file, which is removed at the end
    path: PathBuf,
    /// How many MiB
    #[arg(long, default_value_t = 1)]
    mib: usize,
    /// How many KiB at a time, at most 1024
    #[arg(long, default_value_t = 1024)]
    block: usize,
    /// Past the page cache (O_DIRECT); else it is written out at the end
    #[arg(long)]
    direct: bool,
    /// Read it again
    #[arg(long)]
    read: bool,
}

/// Writes to a disk, and says how many milliseconds it took; then the same for reading.
pub fn write(asked: &Disk) -> Result<u8, Trouble> {
    say("ready")?;
    let result = timed_write(asked, &asked.path);
    let _ = std::fs::remove_file(&asked.path);
    result.map(|()| 0)
}

fn timed_write(asked: &Disk, path: &Path) -> Result<(), Trouble> {
    let mut room = vec![1; MIB + ALIGNMENT];
    let first = room.as_ptr().align_offset(ALIGNMENT);
    let length = (asked.block * 1024).clamp(ALIGNMENT, MIB);
    let block = room.get_mut(first..first + length).ok_or_else(|| Trouble("no aligned memory".into()))?;
    let flags = if asked.direct { OFlag::O_DIRECT.bits() } else { 0 };
    let mut file = File::options().write(true).read(true).create(true).truncate(true).custom_flags(flags).open(path)?;
    let rounds = asked.mib * MIB / length;
    let began = Instant::now();
    for _ in 0..rounds {
        file.write_all(block)?;
    }
    file.sync_all()?;
    say(&format!("written {}", began.elapsed().as_millis()))?;
    if asked.read {
        std::io::Seek::rewind(&mut file)?;
        let began = Instant::now();
        for _ in 0..rounds {
            file.read_exact(block)?;
        }
        say(&format!("read {}", began.elapsed().as_millis()))?;
    }
    Ok(())
}
