//! Profiles in docker's format: which calls there are, for whom, and what becomes of them.
#![forbid(unsafe_code)]

use super::calls;
use super::json::Value;
use super::program::{Comparison, Outcome, Relation, assemble, unknown};
use crate::setup::capability::Capabilities;
use crate::sys::seccomp::{Instruction, LONGEST};

/// A kernel's version: its first two numbers.
type Version = (u32, u32);

/// For whom a profile is compiled.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The command's bounding set.
    pub bounding: Capabilities,
    /// The kernel that runs.
    pub kernel: Version,
}

/// This machine: as seccomp(2) numbers it (`AUDIT_ARCH_*`), and as profiles call it.
const MACHINE: Option<(u32, &str)> = if cfg!(target_arch = "x86_64") {
    Some((0xC000_003E, "amd64"))
} else if cfg!(target_arch = "aarch64") {
    Some((0xC000_00B7, "arm64"))
} else if cfg!(target_arch = "riscv64") {
    Some((0xC000_00F3, "riscv64"))
} else if cfg!(target_arch = "loongarch64") {
    Some((0xC000_0102, "loong64"))
} else {
    None
};

/// The first two numbers of a version such as 6.1.0-28-amd64.
pub fn version(text: &str) -> Option<Version> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// The program for a profile, and its `SECCOMP_FILTER_FLAG_*`. Unknown names of calls are not wrong: other machines and
/// kernels have more than the list here.
pub fn compile(profile: &Value, target: Target) -> Result<(Vec<Instruction>, u32), String> {
    let (architecture, machine) = MACHINE.ok_or("no list of this machine's system calls; give the filter as BPF")?;
    let default = profile.get("defaultAction").ok_or("it has no defaultAction; write SCMP_ACT_ERRNO")?;
    let otherwise = answer(default, profile.get("defaultErrnoRet"))?;
    let mut flags = 0;
    for flag in list(profile, "flags")? {
        flags |= match flag.text().unwrap_or_default() {
            // There is but one thread.
            "SECCOMP_FILTER_FLAG_TSYNC" => 0,
            "SECCOMP_FILTER_FLAG_LOG" => 2,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 4,
            other => return Err(format!("flag {other:?}: use SECCOMP_FILTER_FLAG_LOG or _SPEC_ALLOW, or none")),
        };
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    for entry in list(profile, "syscalls")? {
        rule(entry, otherwise, target, machine, &mut outcomes).map_err(|why| {
            let name = list(entry, "names").ok().and_then(|names| names.first()).or(entry.get("name"));
            format!("{}: {why}", name.and_then(Value::text).unwrap_or("an entry of syscalls"))
        })?;
    }
    // A call that the profile's author did not know yet is not there, or programs that could do without would end.
    let above = if permits(otherwise) || outcomes.is_empty() { otherwise } else { unknown() };
    let program = assemble(architecture, &outcomes, otherwise, above);
    if program.len() > LONGEST {
        return Err(format!("it takes {} instructions, the kernel takes {LONGEST}; shorten it", program.len()));
    }
    Ok((program, flags))
}

/// One entry of `syscalls`: its calls get their outcomes, if it counts here.
fn rule(
    entry: &Value,
    otherwise: u32,
    target: Target,
    machine: &str,
    outcomes: &mut Vec<Outcome>,
) -> Result<(), String> {
    let answer = answer(entry.get("action").ok_or("no action")?, entry.get("errnoRet"))?;
    let mut comparisons = Vec::new();
    for argument in list(entry, "args")? {
        comparisons.push(comparison(argument)?);
    }
    let names = list(entry, "names")?;
    let name = entry.get("name");
    if names.is_empty() && name.is_none() {
        return Err("no names".into());
    }
    // Both are looked at in any case, for what is wrong in them.
    let (included, excluded) =
        (condition(entry, "includes", target, machine)?, condition(entry, "excludes", target, machine)?);
    if !included.is_none_or(|found| found.all) || excluded.is_some_and(|found| found.any) {
        return Ok(());
    }
    for number in names.iter().chain(name).filter_map(|name| calls::number(name.text()?)) {
        let index = usize::try_from(number).unwrap_or_default();
        if outcomes.len() <= index {
            outcomes.resize_with(index + 1, Outcome::default);
        }
        if let Some(outcome) = outcomes.get_mut(index).filter(|_| answer != otherwise) {
            apply(outcome, answer, &comparisons);
        }
    }
    Ok(())
}

/// As libseccomp merges rules of one call: a rule without comparisons is wider than all with, whatever their order;
/// comparisons of one argument twice are alternatives.
fn apply(outcome: &mut Outcome, answer: u32, comparisons: &[Comparison]) {
    if outcome.always.is_some() {
        return;
    }
    if comparisons.is_empty() {
        *outcome = Outcome { conditional: Vec::new(), always: Some(answer) };
        return;
    }
    let arguments = comparisons.iter().fold(0_u8, |seen, comparison| seen | 1 << comparison.argument);
    let is_each_once = arguments.count_ones() as usize == comparisons.len();
    for alternative in comparisons.chunks(if is_each_once { comparisons.len() } else { 1 }) {
        outcome.conditional.push((alternative.to_vec(), answer));
    }
}

/// A member that is a list; absent or null it is empty.
fn list<'a>(value: &'a Value, name: &str) -> Result<&'a [Value], String> {
    match value.get(name) {
        None | Some(Value::Other) => Ok(&[]),
        Some(Value::List(values)) => Ok(values),
        Some(_) => Err(format!("{name} is no list")),
    }
}

/// Whether calls that nobody knows yet may pass. A tracer knows how to deal with them.
fn permits(answer: u32) -> bool {
    let action = answer & libc::SECCOMP_RET_ACTION_FULL;
    matches!(action, libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG | libc::SECCOMP_RET_TRACE)
}

/// The kernel's answer for an action. Without a number an error is EPERM.
fn answer(action: &Value, errno: Option<&Value>) -> Result<u32, String> {
    let errno = match errno {
        None | Some(Value::Other) => libc::EPERM.unsigned_abs(),
        Some(Value::Number(number @ 0..=4095)) => u32::try_from(*number).unwrap_or_default(),
        Some(_) => return Err("an errnoRet is a number up to 4095".into()),
    };
    Ok(match action.text().unwrap_or_default() {
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | errno,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_TRACE" => libc::SECCOMP_RET_TRACE | errno,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_NOTIFY" => return Err("SCMP_ACT_NOTIFY needs a listener, which sexton is not; use another".into()),
        other => {
            return Err(format!("action {other:?}: use SCMP_ACT_ALLOW, ERRNO, LOG, TRACE, TRAP, KILL or KILL_PROCESS"));
        }
    })
}

/// How much of a condition holds.
struct Held {
    all: bool,
    any: bool,
}

/// What of `includes` or `excludes` holds: capabilities, machines, a kernel. `None`: there is no condition.
fn condition(entry: &Value, which: &str, target: Target, machine: &str) -> Result<Option<Held>, String> {
    let Some(value) = entry.get(which) else { return Ok(None) };
    let mut held = Held { all: true, any: false };
    let mut note = |holds: bool| {
        held.all &= holds;
        held.any |= holds;
    };
    for name in list(value, "caps")? {
        // One that has no name here is one that the command has not.
        let set = Capabilities::named(name.text().unwrap_or_default()).unwrap_or_default();
        note(!set.within(target.bounding).is_empty());
    }
    let machines = list(value, "arches")?;
    if !machines.is_empty() {
        note(machines.iter().any(|name| name.text() == Some(machine)));
    }
    if let Some(kernel) = value.get("minKernel").and_then(Value::text).filter(|text| !text.is_empty()) {
        let least = version(kernel).ok_or_else(|| format!("minKernel {kernel:?}: write two numbers, such as 4.8"))?;
        note(target.kernel >= least);
    }
    Ok(Some(held))
}

fn comparison(value: &Value) -> Result<Comparison, String> {
    let number = |name| match value.get(name) {
        None => Ok(0),
        Some(Value::Number(number)) => Ok(*number),
        Some(_) => Err(format!("{name} of an argument is no whole number")),
    };
    let argument = match number("index")? {
        index @ 0..=5 => u32::try_from(index).unwrap_or_default(),
        index => return Err(format!("index {index}: a call has arguments 0 to 5")),
    };
    let (first, second) = (number("value")?, number("valueTwo")?);
    let operator = value.get("op").and_then(Value::text).unwrap_or_default();
    let (relation, inverted, mask, value) = match operator {
        "SCMP_CMP_EQ" => (Relation::Equal, false, u64::MAX, first),
        "SCMP_CMP_NE" => (Relation::Equal, true, u64::MAX, first),
        "SCMP_CMP_GT" => (Relation::Greater, false, u64::MAX, first),
        "SCMP_CMP_LE" => (Relation::Greater, true, u64::MAX, first),
        "SCMP_CMP_GE" => (Relation::AtLeast, false, u64::MAX, first),
        "SCMP_CMP_LT" => (Relation::AtLeast, true, u64::MAX, first),
        "SCMP_CMP_MASKED_EQ" => (Relation::Equal, false, first, second),
        other => return Err(format!("op {other:?}: use SCMP_CMP_EQ, NE, LT, LE, GT, GE or MASKED_EQ")),
    };
    Ok(Comparison { argument, relation, inverted, mask, value })
}

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;

    const TARGET: Target = Target { bounding: Capabilities(1 << 21), kernel: (5, 10) };

    fn compile(text: &str) -> Result<(Vec<Instruction>, u32), String> {
        super::compile(&json::parse(text.as_bytes()).unwrap(), TARGET)
    }

    /// Whether a rule with this condition counts: then it makes no difference.
    fn counts_here(condition: &str) -> bool {
        let text = |condition: &str| {
            format!(
                "{{\"defaultAction\":\"SCMP_ACT_KILL\",\"syscalls\":[{{\"names\":[\"write\"],\"action\":\"SCMP_ACT_LOG\"}},\
                 {{\"names\":[\"write\",\"read\"],\"action\":\"SCMP_ACT_ALLOW\"{condition}}}]}}"
            )
        };
        compile(&text("")).unwrap() == compile(&text(condition)).unwrap()
    }

    #[test]
    fn c1_rules_count_by_capabilities_machine_and_kernel() {
        for (rule, counts) in [
            ("\"includes\":{}", true),
            ("\"includes\":{\"caps\":[\"CAP_SYS_ADMIN\"]}", true),
            ("\"includes\":{\"caps\":[\"CAP_SYS_ADMIN\",\"CAP_NET_RAW\"]}", false),
            ("\"includes\":{\"caps\":[\"CAP_OF_TOMORROW\"]}", false),
            ("\"excludes\":{\"caps\":[\"CAP_NET_RAW\"]}", true),
            ("\"excludes\":{\"caps\":[\"CAP_NET_RAW\",\"CAP_SYS_ADMIN\"]}", false),
            ("\"excludes\":{\"caps\":[\"CAP_OF_TOMORROW\"]}", true),
            ("\"includes\":{\"arches\":[\"arm64\",\"amd64\"]}", true),
            ("\"includes\":{\"arches\":[\"arm64\"]}", false),
            ("\"excludes\":{\"arches\":[\"amd64\"]}", false),
            ("\"includes\":{\"minKernel\":\"4.8\"}", true),
            ("\"includes\":{\"minKernel\":\"5.10\"}", true),
            ("\"includes\":{\"minKernel\":\"5.11\"}", false),
            ("\"excludes\":{\"minKernel\":\"4.8\"}", false),
            ("\"excludes\":{\"minKernel\":\"6.0\"}", true),
        ] {
            assert_eq!(counts_here(&format!(",{rule}")), counts, "{rule}");
        }
    }

    #[test]
    fn c1_what_is_wrong_in_a_profile_is_named() {
        let with = |rule: &str| format!("{{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[{rule}]}}");
        for (text, word) in [
            ("{}".into(), "defaultAction"),
            ("[]".into(), "defaultAction"),
            ("{\"defaultAction\":\"ALLOW\"}".into(), "\"ALLOW\""),
            ("{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"defaultErrnoRet\":4096}".into(), "4095"),
            ("{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":{}}".into(), "no list"),
            ("{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"flags\":[\"X\"]}".into(), "\"X\""),
            (with("{\"action\":\"SCMP_ACT_ALLOW\"}"), "syscalls: no names"),
            (with("{\"names\":[\"read\"]}"), "read: no action"),
            (with("{\"names\":[\"read\"],\"action\":\"SCMP_ACT_NOTIFY\"}"), "listener"),
            (
                with(
                    "{\"names\":[\"read\"],\"action\":\"SCMP_ACT_ALLOW\",\"args\":[{\"index\":6,\"op\":\"SCMP_CMP_EQ\"}]}",
                ),
                "index 6",
            ),
            (with("{\"names\":[\"read\"],\"action\":\"SCMP_ACT_ALLOW\",\"args\":[{\"index\":0}]}"), "op \"\""),
            (
                with("{\"names\":[\"read\"],\"action\":\"SCMP_ACT_ALLOW\",\"includes\":{\"minKernel\":\"new\"}}"),
                "minKernel",
            ),
        ] {
            let why = compile(&text).unwrap_err();
            assert!(why.contains(word), "{word:?} is not in {why:?}");
        }
    }

    #[test]
    fn c1_a_rule_without_comparisons_is_wider_than_those_with() {
        let comparison =
            |argument| Comparison { argument, relation: Relation::Equal, inverted: false, mask: u64::MAX, value: 0 };
        let merged = |rules: &[(u32, &[Comparison])]| {
            let mut outcome = Outcome::default();
            for (answer, comparisons) in rules {
                apply(&mut outcome, *answer, comparisons);
            }
            outcome
        };
        let two = [comparison(0), comparison(1)];
        let (with, without) = ((1, &two[..]), (2, &[][..]));
        let always = Outcome { conditional: vec![], always: Some(2) };
        assert_eq!(merged(&[with, without]), always);
        assert_eq!(merged(&[without, with]), always);
        assert_eq!(merged(&[without, (3, &[])]), always);
        assert_eq!(merged(&[with]).conditional, [(two.to_vec(), 1)]);
        let alternatives = merged(&[(1, &[comparison(0), comparison(0)])]);
        assert_eq!(alternatives.conditional, [(vec![comparison(0)], 1), (vec![comparison(0)], 1)]);
    }

    #[test]
    fn c1_versions() {
        assert_eq!(version("6.1.0-28-amd64"), Some((6, 1)));
        assert_eq!(version("4.8"), Some((4, 8)));
        assert_eq!(version("5.10-rc1"), Some((5, 10)));
        for bad in ["", "6", "x.y", "99999999999.1"] {
            assert_eq!(version(bad), None, "{bad}");
        }
    }

    #[test]
    fn c1_a_program_of_too_many_instructions_is_refused() {
        let one = "{\"names\":[\"read\"],\"action\":\"SCMP_ACT_ALLOW\",\"args\":[{\"index\":0,\"value\":7,\"op\":\"SCMP_CMP_EQ\"}]}";
        let text = format!("{{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[{}]}}", vec![one; 1000].join(","));
        assert!(compile(&text).unwrap_err().contains("4096"));
    }
}
