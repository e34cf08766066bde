//! Profiles in docker's format: which calls there are, for whom, and what becomes of them.
#![forbid(unsafe_code)]

use super::calls;
use super::json::{self, Value};
use super::program::{Comparison, Outcome, Relation, assemble, unknown};
use crate::setup::capability::Capabilities;
use crate::sys::seccomp::{Instruction, LONGEST};

/// A profile, checked.
#[derive(PartialEq, Eq, Debug)]
pub struct Profile {
    otherwise: u32,
    rules: Vec<Rule>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
}

#[derive(PartialEq, Eq, Debug)]
struct Rule {
    names: Vec<String>,
    answer: u32,
    comparisons: Vec<Comparison>,
    includes: Condition,
    excludes: Condition,
}

/// When a rule counts, or does not.
#[derive(Default, PartialEq, Eq, Debug)]
struct Condition {
    capabilities: Vec<Capabilities>,
    machines: Vec<String>,
    kernel: Option<Version>,
}

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

impl Profile {
    /// Reads and checks it. Unknown names of calls are not wrong: other machines and kernels have more than this list.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let root = json::parse(text).map_err(|wrong| wrong.to_string())?;
        let default = root.get("defaultAction").ok_or("it has no defaultAction; write SCMP_ACT_ERRNO")?;
        let otherwise = answer(default, root.get("defaultErrnoRet"))?;
        let mut flags = 0;
        for flag in root.get("flags").map(Value::list).unwrap_or_default() {
            flags |= match flag.text().unwrap_or_default() {
                // There is but one thread.
                "SECCOMP_FILTER_FLAG_TSYNC" => 0,
                "SECCOMP_FILTER_FLAG_LOG" => 2,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 4,
                other => return Err(format!("flag {other:?}: use SECCOMP_FILTER_FLAG_LOG or _SPEC_ALLOW, or none")),
            };
        }
        let rules = match root.get("syscalls") {
            None | Some(Value::Other) => Vec::new(),
            Some(Value::List(rules)) => rules.iter().map(rule).collect::<Result<_, _>>()?,
            Some(_) => return Err("syscalls is no list".into()),
        };
        Ok(Self { otherwise, rules, flags })
    }

    /// The program.
    pub fn compile(&self, target: Target) -> Result<Vec<Instruction>, String> {
        let (architecture, machine) =
            MACHINE.ok_or("no list of this machine's system calls; give the filter as BPF")?;
        let mut outcomes: Vec<Outcome> = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.counts(target, machine)) {
            for number in rule.names.iter().filter_map(|name| calls::number(name)) {
                let index = usize::try_from(number).unwrap_or_default();
                if outcomes.len() <= index {
                    outcomes.resize_with(index + 1, Outcome::default);
                }
                if let Some(outcome) = outcomes.get_mut(index).filter(|_| rule.answer != self.otherwise) {
                    rule.apply(outcome);
                }
            }
        }
        // A call that the profile's author did not know yet is not there, or programs that could do without would end.
        let above = if permits(self.otherwise) || outcomes.is_empty() { self.otherwise } else { unknown() };
        let program = assemble(architecture, &outcomes, self.otherwise, above);
        if program.len() > LONGEST {
            return Err(format!("it takes {} instructions, the kernel takes {LONGEST}; shorten it", program.len()));
        }
        Ok(program)
    }
}

impl Rule {
    fn counts(&self, target: Target, machine: &str) -> bool {
        let has = |set: &Capabilities| set.within(target.bounding) == *set && !set.is_empty();
        let is_machine = |name: &String| name == machine;
        let (only, not) = (&self.includes, &self.excludes);
        only.capabilities.iter().all(has)
            && (only.machines.is_empty() || only.machines.iter().any(is_machine))
            && only.kernel.is_none_or(|kernel| target.kernel >= kernel)
            && !not.capabilities.iter().any(has)
            && !not.machines.iter().any(is_machine)
            && not.kernel.is_none_or(|kernel| target.kernel < kernel)
    }

    /// As libseccomp merges rules of one call: a rule without comparisons is wider than all with, whatever their order;
    /// comparisons of one argument twice are alternatives.
    fn apply(&self, outcome: &mut Outcome) {
        if outcome.always.is_some() {
            return;
        }
        if self.comparisons.is_empty() {
            *outcome = Outcome { conditional: Vec::new(), always: Some(self.answer) };
            return;
        }
        let arguments = self.comparisons.iter().fold(0_u8, |seen, comparison| seen | 1 << comparison.argument);
        if arguments.count_ones() as usize == self.comparisons.len() {
            outcome.conditional.push((self.comparisons.clone(), self.answer));
        } else {
            outcome.conditional.extend(self.comparisons.iter().map(|one| (vec![*one], self.answer)));
        }
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

fn texts(value: Option<&Value>) -> Vec<String> {
    value.map(Value::list).unwrap_or_default().iter().filter_map(|text| text.text().map(str::to_owned)).collect()
}

fn rule(value: &Value) -> Result<Rule, String> {
    let mut names = texts(value.get("names"));
    names.extend(value.get("name").and_then(Value::text).map(str::to_owned));
    if names.is_empty() {
        return Err("an entry of syscalls has no names".into());
    }
    let first = names.first().cloned().unwrap_or_default();
    let about = |why: String| format!("{first}: {why}");
    let action = value.get("action").ok_or_else(|| about("no action".into()))?;
    let answer = answer(action, value.get("errnoRet")).map_err(about)?;
    let arguments = value.get("args").map(Value::list).unwrap_or_default();
    let comparisons = arguments.iter().map(comparison).collect::<Result<_, _>>().map_err(about)?;
    let includes = condition(value.get("includes")).map_err(about)?;
    let excludes = condition(value.get("excludes")).map_err(about)?;
    Ok(Rule { names, answer, comparisons, includes, excludes })
}

fn condition(value: Option<&Value>) -> Result<Condition, String> {
    let Some(value) = value else { return Ok(Condition::default()) };
    let kernel = match value.get("minKernel").and_then(Value::text) {
        None | Some("") => None,
        Some(text) => Some(version(text).ok_or_else(|| format!("minKernel {text:?}: write two numbers, such as 4.8"))?),
    };
    // A capability that has no name here is one that the command has not.
    let capabilities =
        texts(value.get("caps")).iter().map(|name| Capabilities::named(name).unwrap_or_default()).collect();
    Ok(Condition { capabilities, machines: texts(value.get("arches")), kernel })
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
    use super::*;

    const TARGET: Target = Target { bounding: Capabilities(1 << 21), kernel: (5, 10) };

    fn parse(text: &str) -> Result<Profile, String> {
        Profile::parse(text.as_bytes())
    }

    fn outcome_of(rule: &str) -> bool {
        let text = format!(
            "{{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[{{\"names\":[\"read\"],\"action\":\"SCMP_ACT_ALLOW\",{rule}}}]}}"
        );
        let profile = parse(&text).unwrap();
        profile.rules[0].counts(TARGET, "amd64")
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
            assert_eq!(outcome_of(rule), counts, "{rule}");
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
            (with("{\"action\":\"SCMP_ACT_ALLOW\"}"), "names"),
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
            let why = parse(&text).unwrap_err();
            assert!(why.contains(word), "{word:?} is not in {why:?}");
        }
    }

    #[test]
    fn c1_a_rule_without_comparisons_is_wider_than_those_with() {
        let comparison =
            |argument| Comparison { argument, relation: Relation::Equal, inverted: false, mask: u64::MAX, value: 0 };
        let rule = |answer, comparisons| Rule {
            names: vec![],
            answer,
            comparisons,
            includes: Condition::default(),
            excludes: Condition::default(),
        };
        let merged = |rules: &[Rule]| {
            let mut outcome = Outcome::default();
            for rule in rules {
                rule.apply(&mut outcome);
            }
            outcome
        };
        let (with, without) = (|| rule(1, vec![comparison(0), comparison(1)]), || rule(2, vec![]));
        let always = Outcome { conditional: vec![], always: Some(2) };
        assert_eq!(merged(&[with(), without()]), always);
        assert_eq!(merged(&[without(), with()]), always);
        assert_eq!(merged(&[without(), rule(3, vec![])]), always);
        assert_eq!(merged(&[with()]).conditional, [(vec![comparison(0), comparison(1)], 1)]);
        let alternatives = merged(&[rule(1, vec![comparison(0), comparison(0)])]);
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
        assert!(parse(&text).unwrap().compile(TARGET).unwrap_err().contains("4096"));
    }
}
