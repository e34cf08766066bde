//! What version 2 alone demands: its weights, and its tree, in which a group has either processes or groups with
//! controllers (Documentation/admin-guide/cgroup-v2.rst of the kernel).
#![forbid(unsafe_code)]

use std::thread::sleep;
use std::time::Duration;

use nix::unistd::getpid;

use super::folder::{Folder, READ_ONLY};
use crate::setup::step::SetupError;
use crate::sys::Errno;

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
pub fn weight_of(shares: i64) -> i64 {
    let l = log2(u32::try_from(shares).unwrap_or(1024)).max(ONE);
    let product = ((l - ONE) * (l + 126 * ONE)) >> FRACTION;
    let wanted = (product * LOG2_OF_10) >> FRACTION;
    let (mut least, mut most) = (1u32, 10_000);
    while least < most {
        let middle = u32::midpoint(least, most);
        // The last digits of a logarithm are lost, which must not make 101 of 100.
        if 612 * (log2(middle) + 4) >= wanted { most = middle } else { least = middle + 1 }
    }
    i64::from(least)
}

/// What is appended to the name of a sexton's group, for the one that sexton itself goes to.
pub const OUTSIDE: &str = ".outside";
const CONTROL: &str = "cgroup.subtree_control";

/// What came of enabling a controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enabled {
    /// It was before.
    Already,
    /// It is now.
    Now,
    /// Processes are in this group.
    Busy,
}

/// Enables a controller for the groups below this one.
///
/// Where processes are, the kernel enables none but those that count threads too (pids, cpu, cpuset), and then the groups
/// below are "domain invalid" and nobody can join them: so that is [`Enabled::Busy`] as well. The real root alone, which
/// has no type, has both.
pub fn enable(folder: &Folder, controller: &str) -> Result<Enabled, SetupError> {
    let mut is_empty = true;
    folder.each_pid(&mut |_| is_empty = false);
    if !is_empty && folder.has("cgroup.type") {
        // Who may not write here is not helped by hearing of those processes.
        return match folder.try_write(CONTROL, "") {
            Ok(()) => Ok(Enabled::Busy),
            Err(errno) => Err(refused(folder, controller, errno)),
        };
    }
    if folder.read(CONTROL)?.split([' ', '\n']).any(|enabled| enabled == controller) {
        return Ok(Enabled::Already);
    }
    let word = format!("+{controller}");
    match folder.try_write(CONTROL, &word) {
        Ok(()) => Ok(Enabled::Now),
        Err(Errno::EBUSY) => Ok(Enabled::Busy),
        Err(errno) => Err(refused(folder, controller, errno)),
    }
}

/// Why a controller cannot be enabled for the groups below this one.
pub fn refused(folder: &Folder, controller: &str, errno: Errno) -> SetupError {
    let advice = match errno {
        Errno::EBUSY => {
            "others' processes are in this group, so groups below it can have no controllers; start sexton alone in a \
             group (systemd-run --scope -p Delegate=yes), or name one without processes with --cgroup-parent"
        }
        Errno::ENOENT => "the group above does not pass this controller on",
        Errno::EOPNOTSUPP => {
            "this group is threaded, and this controller counts processes; take another --cgroup-parent"
        }
        Errno::EINVAL => "a real-time process is in the way, or the kernel does not know the controller",
        Errno::EACCES | Errno::EPERM => {
            "not this user's; run as root, or have a group with this controller delegated (systemd-run --user --scope \
             -p Delegate=yes)"
        }
        Errno::EROFS => READ_ONLY,
        _ => "the kernel refused",
    };
    SetupError::call(folder.call("write", CONTROL, &format!("+{controller}")), errno, advice)
}

/// How often to look for processes that were made while others were moved.
const ROUNDS: usize = 100;
const PAUSE: Duration = Duration::from_millis(1);

/// Moves sexton's processes out of its own group into a new one below it. Only if they are all sexton's to move: itself
/// alone, or, for the PID 1 of a container, all that can be seen in it.
pub fn evacuate(own: &Folder, name: &str) -> Result<Option<Folder>, SetupError> {
    let pid = getpid().as_raw();
    let mut are_ours = true;
    // A process of another PID namespace reads as 0.
    own.each_pid(&mut |member| are_ours &= member == pid || (pid == 1 && member != 0));
    if !are_ours {
        return Ok(None);
    }
    let name = format!("{name}{OUTSIDE}");
    let to = own.try_make(name.as_bytes(), 0o755).map_err(|errno| own.cannot_make(&name, errno))?;
    if let Err(errno) = move_all(own, &to) {
        let _ = move_all(&to, own);
        let _ = own.remove_folder(name.as_bytes());
        return Err(SetupError::call(
            to.call("write", "cgroup.procs", "PID"),
            errno,
            "sexton's own group cannot be left",
        ));
    }
    Ok(Some(to))
}

/// Takes an evacuation back, if no other group needs the controllers that were enabled for it.
pub fn come_back(own: &Folder, from: &Folder, enabled: &[String]) {
    let mut others = 0;
    own.each_below(&mut |_, _| others += 1);
    let disabled =
        others <= 1 && enabled.iter().all(|controller| own.try_write(CONTROL, &format!("-{controller}")).is_ok());
    if disabled && move_all(from, own).is_ok() {
        let _ = own.remove_folder(from.name());
    }
}

fn move_all(from: &Folder, to: &Folder) -> Result<(), Errno> {
    for _ in 0..ROUNDS {
        let mut result = Ok(());
        let mut any = false;
        from.each_pid(&mut |pid| {
            any = true;
            match to.try_write("cgroup.procs", &pid.to_string()) {
                Ok(()) | Err(Errno::ESRCH) => {}
                // About to exec, or to end.
                Err(Errno::EAGAIN | Errno::EINVAL) => sleep(PAUSE),
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

    #[test]
    #[allow(clippy::cast_possible_truncation)]
    fn g1_shares_become_weights_as_runc_has_them() {
        assert_eq!([2, 1024, 262_144].map(weight_of), [1, 100, 10_000]);
        for shares in (2..=262_144u32).step_by(11) {
            let l = f64::from(shares).log2();
            let exact = 10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0);
            let expected = if (exact - exact.round()).abs() < 1e-6 { exact.round() } else { exact.ceil() };
            assert_eq!(weight_of(i64::from(shares)), expected as i64, "{shares}: {exact}");
        }
    }
}
