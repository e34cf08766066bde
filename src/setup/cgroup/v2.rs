//! Limits in version 2's files, and what its tree of groups demands (Documentation/admin-guide/cgroup-v2.rst).
#![forbid(unsafe_code)]

use std::time::Duration;

use nix::unistd::getpid;

use super::folder::{Folder, each_pid};
use super::place::disk;
use super::v1::{PERIOD, max_or};
use super::{Controller, Rate, Setting, UNLIMITED, Wanted};
use crate::setup::step::SetupError;
use crate::sys::Errno;

/// What is written for one controller, in this order.
pub fn settings(wanted: &Wanted, controller: Controller) -> Result<Vec<Setting<'_>>, SetupError> {
    let mut list = Vec::new();
    match controller {
        Controller::Memory => {
            let gone = [
                (wanted.memory_swappiness.is_some(), "--memory-swappiness", "memory.swappiness"),
                (wanted.oom_kill_disable, "--oom-kill-disable", "memory.oom_control"),
            ];
            if let Some((_, option, file)) = gone.into_iter().find(|(asked, ..)| *asked) {
                return Err(SetupError::found(
                    format!("{option}: {file}"),
                    "the memory controller of cgroup v2 has no such file; leave the option out, or boot with v1 \
                     (systemd.unified_cgroup_hierarchy=0)",
                ));
            }
            list.extend(wanted.memory.map(|memory| Setting::new("--memory", "memory.max", max_or(memory))));
            // Here swap has a limit of its own.
            let swap = wanted.memory_and_swap().map(|both| match wanted.memory {
                Some(memory) if both != UNLIMITED => both - memory,
                _ => UNLIMITED,
            });
            list.extend(swap.map(|swap| Setting {
                implied: wanted.memory_swap.is_none(),
                ..Setting::new("--memory-swap", "memory.swap.max", max_or(swap))
            }));
            let low = wanted.memory_reservation;
            list.extend(low.map(|low| Setting::new("--memory-reservation", "memory.low", low.to_string())));
        }
        Controller::Cpu => {
            let quota = |cpus| format!("{} {PERIOD}", cpus * (PERIOD / 1000));
            list.extend(wanted.cpus.map(|cpus| Setting::new("--cpus", "cpu.max", quota(cpus))));
            let weight = |shares: i64| weight_of(u32::try_from(shares).unwrap_or(1024)).to_string();
            list.extend(wanted.cpu_shares.map(|shares| Setting::new("--cpu-shares", "cpu.weight", weight(shares))));
        }
        Controller::Io => {
            // BFQ takes docker's range as it is; io.weight (iocost) has 1 to 10000 for 10 to 1000, as runc does it.
            list.extend(wanted.blkio_weight.map(|weight| Setting {
                or: Some(("io.weight", (1 + (weight - 10) * 9999 / 990).to_string())),
                ..Setting::new("--blkio-weight", "io.bfq.weight", weight.to_string())
            }));
            for device in &wanted.devices {
                let key = match device.rate {
                    Rate::ReadBytes => "rbps",
                    Rate::WriteBytes => "wbps",
                    Rate::ReadOperations => "riops",
                    Rate::WriteOperations => "wiops",
                };
                let value = format!("{} {key}={}", disk(device)?, device.limit);
                list.push(Setting::new(device.rate.option(), "io.max", value));
            }
        }
        // The files are those of version 1.
        Controller::Cpuset | Controller::Pids => return super::v1::settings(wanted, controller),
    }
    Ok(list)
}

/// Binary digits behind the point in what follows.
const FRACTION: u32 = 40;
const ONE: u128 = 1 << FRACTION;
/// log2(10).
const LOG2_OF_10: u128 = 3_652_498_566_964;

/// The base-2 logarithm, in units of 2⁻⁴⁰.
fn log2(number: u32) -> u128 {
    let whole = number.max(1).ilog2();
    // 1.0 to 2.0 with 63 binary digits; each squaring yields one digit of the logarithm.
    let mut rest = u128::from(number) << 63 >> whole;
    let mut result = u128::from(whole);
    for _ in 0..FRACTION {
        rest = (rest * rest) >> 63;
        result <<= 1;
        if rest >= 1 << 64 {
            rest >>= 1;
            result |= 1;
        }
    }
    result
}

/// CPU shares, 2 to 262144, as a weight of 1 to 10000, so that 1024 is 100: `ceil(10^((l² + 125l) / 612 − 7/34))` with
/// `l = log2(shares)`, as runc and crun have it since 2025. In whole numbers: the least weight with
/// `(l − 1)(l + 126) · log2(10) ≤ 612 · log2(weight)`.
fn weight_of(shares: u32) -> u32 {
    let l = log2(shares).max(ONE);
    let product = ((l - ONE) * (l + 126 * ONE)) >> FRACTION;
    let wanted = (product * LOG2_OF_10) >> FRACTION;
    let (mut least, mut most) = (1, 10_000);
    while least < most {
        let middle = u32::midpoint(least, most);
        // The last digits of a logarithm are lost, which must not make 101 of 100.
        if 612 * (log2(middle) + 4) >= wanted { most = middle } else { least = middle + 1 }
    }
    least
}

/// Where sexton's own processes went, so that their group could have controllers for the groups below it.
#[derive(Debug)]
pub struct Evacuated {
    /// The group that they were in.
    pub from: Folder,
    /// The one that they are in.
    pub to: Folder,
    /// What was enabled since.
    pub enabled: Vec<String>,
}

impl Evacuated {
    /// Takes it back, if no other group needs it.
    pub fn undo(&self) {
        if self.from.below().len() > 1 {
            return;
        }
        for controller in &self.enabled {
            if self.from.try_write("cgroup.subtree_control", &format!("-{controller}")).is_err() {
                return;
            }
        }
        let _ = move_all(&self.to, &self.from);
        let _ = self.from.remove_folder(self.to.name());
    }
}

/// Enables a controller for the groups below this one.
///
/// Where processes are, the kernel enables none but those that count threads too (pids, cpu, cpuset), and then the groups
/// below are "domain invalid" and nobody can join them: so that is [`Enabled::Busy`] as well. The real root alone, which
/// has no type, has both.
pub fn enable(folder: &Folder, controller: &str) -> Result<Enabled, SetupError> {
    let file = "cgroup.subtree_control";
    let mut is_empty = true;
    each_pid(folder, |_| is_empty = false);
    if !is_empty && folder.has("cgroup.type") {
        return Ok(Enabled::Busy);
    }
    if folder.read(file)?.split_ascii_whitespace().any(|enabled| enabled == controller) {
        return Ok(Enabled::Already);
    }
    let word = format!("+{controller}");
    match folder.try_write(file, &word) {
        Ok(()) => Ok(Enabled::Now),
        Err(Errno::EBUSY) => Ok(Enabled::Busy),
        Err(errno) => {
            let advice = match errno {
                Errno::ENOENT => "the group above does not pass this controller on",
                Errno::EOPNOTSUPP => {
                    "this group is threaded, and this controller counts processes; take another parent"
                }
                Errno::EINVAL => "a real-time process is in the way, or the kernel does not know the controller",
                Errno::EACCES | Errno::EPERM => {
                    "not this user's; run as root, or have a group with this controller delegated (systemd-run --user \
                     --scope -p Delegate=yes)"
                }
                Errno::EROFS => super::folder::READ_ONLY,
                _ => "the kernel refused",
            };
            Err(SetupError::call(folder.call("write", file, &word), errno, advice))
        }
    }
}

/// What came of enabling.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enabled {
    /// It was before.
    Already,
    /// It is now.
    Now,
    /// Processes are in this group, and a group has either processes or groups with controllers.
    Busy,
}

/// Why [`Enabled::Busy`] is an error here.
pub fn busy(folder: &Folder, controller: &str) -> SetupError {
    SetupError::call(
        folder.call("write", "cgroup.subtree_control", &format!("+{controller}")),
        Errno::EBUSY,
        "others' processes are in this group, so groups below it can have no controllers; start sexton alone in a group \
         (systemd-run --scope -p Delegate=yes), or name one without processes with --cgroup-parent",
    )
}

/// What is appended to the name of the command's group, for the one that sexton itself goes to.
pub const OUTSIDE: &str = ".outside";
/// How often to look for processes that were made while others were moved.
const ROUNDS: usize = 100;
const PAUSE: Duration = Duration::from_millis(1);

/// Moves sexton's processes out of its own group into one below it. Only if they are all sexton's to move: itself alone,
/// or, for the PID 1 of a container, all that can be seen in it.
pub fn evacuate(own: &Folder, name: &str) -> Result<Option<Evacuated>, SetupError> {
    let pid = getpid().as_raw();
    let mut are_ours = true;
    // A process of another PID namespace reads as 0.
    each_pid(own, |member| are_ours &= member == pid || (pid == 1 && member != 0));
    if !are_ours {
        return Ok(None);
    }
    let name = format!("{name}{OUTSIDE}");
    let to = own.make(&name, 0o755)?;
    if let Err(errno) = move_all(own, &to) {
        let _ = move_all(&to, own);
        let _ = own.remove_folder(name.as_ref());
        return Err(SetupError::call(
            to.call("write", "cgroup.procs", "PID"),
            errno,
            "sexton's own group cannot be left",
        ));
    }
    Ok(Some(Evacuated { from: own.again()?, to, enabled: Vec::new() }))
}

fn move_all(from: &Folder, to: &Folder) -> Result<(), Errno> {
    for _ in 0..ROUNDS {
        let mut result = Ok(());
        let mut any = false;
        each_pid(from, |pid| {
            any = true;
            match to.try_write("cgroup.procs", &pid.to_string()) {
                Ok(()) | Err(Errno::ESRCH) => {}
                // About to exec, or to end.
                Err(Errno::EAGAIN | Errno::EINVAL) => std::thread::sleep(PAUSE),
                Err(errno) => result = Err(errno),
            }
        });
        result?;
        if !any {
            return Ok(());
        }
    }
    Err(Errno::EBUSY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(wanted: &Wanted, controller: Controller) -> Vec<String> {
        let settings = settings(wanted, controller).unwrap();
        settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    }

    #[test]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn g1_shares_become_weights_as_runc_has_them() {
        assert_eq!([2, 1024, 262_144].map(weight_of), [1, 100, 10_000]);
        for shares in (2..=262_144u32).step_by(11) {
            let l = f64::from(shares).log2();
            let exact = 10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0);
            let expected = if (exact - exact.round()).abs() < 1e-6 { exact.round() } else { exact.ceil() };
            assert_eq!(weight_of(shares), expected as u32, "{shares}: {exact}");
        }
    }

    #[test]
    fn g1_swap_has_a_limit_of_its_own() {
        let mut wanted = Wanted { memory: Some(100), ..Wanted::default() };
        assert_eq!(written(&wanted, Controller::Memory), ["memory.max=100", "memory.swap.max=100"]);
        wanted.memory_swap = Some(150);
        assert_eq!(written(&wanted, Controller::Memory), ["memory.max=100", "memory.swap.max=50"]);
        wanted.memory_swap = Some(100);
        assert_eq!(written(&wanted, Controller::Memory), ["memory.max=100", "memory.swap.max=0"]);
        wanted.memory_swap = Some(UNLIMITED);
        assert_eq!(written(&wanted, Controller::Memory), ["memory.max=100", "memory.swap.max=max"]);
        wanted.memory = Some(UNLIMITED);
        wanted.memory_swap = None;
        assert_eq!(written(&wanted, Controller::Memory), ["memory.max=max", "memory.swap.max=max"]);
    }

    #[test]
    fn g3_what_version_2_does_not_have_is_an_error() {
        let swappiness = Wanted { memory_swappiness: Some(0), ..Wanted::default() };
        let disable = Wanted { oom_kill_disable: true, ..Wanted::default() };
        for (wanted, file) in [(swappiness, "memory.swappiness"), (disable, "memory.oom_control")] {
            let error = settings(&wanted, Controller::Memory).unwrap_err().to_string();
            assert!(error.contains(file) && error.contains("memory controller of cgroup v2"), "{error}");
        }
    }

    #[test]
    fn g1_weights_of_disks() {
        for (weight, other) in [(10, "1"), (1000, "10000")] {
            let wanted = Wanted { blkio_weight: Some(weight), ..Wanted::default() };
            let settings = settings(&wanted, Controller::Io).unwrap();
            assert_eq!(settings[0].value, weight.to_string());
            assert_eq!(settings[0].or, Some(("io.weight", other.to_owned())));
        }
    }
}
