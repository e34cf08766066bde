//! From rules to a BPF program (seccomp(2)).
//!
//! The program finds the call's number in a binary tree of ranges, about eight comparisons deep, so that a long profile
//! costs each call no more than a short one.
#![forbid(unsafe_code)]

use crate::sys::Errno;
use crate::sys::seccomp::{
    Instruction, answer, jump, jump_if_at_least, jump_if_equal, jump_if_greater, keep_bits, load, refuse,
};

/// How an argument is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// Equal to the value.
    Equal,
    /// Greater than it.
    Greater,
    /// It, or greater.
    AtLeast,
}

/// A comparison of one argument, 64 bits wide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// Which argument, 0 to 5.
    pub argument: u32,
    /// How.
    pub relation: Relation,
    /// Whether it must not hold.
    pub inverted: bool,
    /// Which bits count; all, but for [`Relation::Equal`].
    pub mask: u64,
    /// With what.
    pub value: u64,
}

/// What becomes of a call: the first answer all of whose comparisons hold.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Outcome {
    /// Answers with their comparisons.
    pub conditional: Vec<(Vec<Comparison>, u32)>,
    /// The answer without a condition.
    pub always: Option<u32>,
}

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Numbers from here on are those of x32, on a machine that has it (`__X32_SYSCALL_BIT`).
const X32: u32 = 0x4000_0000;

/// The program for one architecture; the calls of any other end the process. `outcomes` are by number. Calls above them
/// are `above`, those below without an outcome `otherwise`.
pub fn assemble(architecture: u32, outcomes: &[Outcome], otherwise: u32, above: u32) -> Vec<Instruction> {
    let mut program = vec![
        load(ARCHITECTURE),
        jump_if_equal(architecture, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    if cfg!(target_arch = "x86_64") {
        // -1 is what a tracer leaves of a call that it suppresses.
        program.extend([
            jump_if_at_least(X32, 0, 2),
            jump_if_equal(u32::MAX, 1, 0),
            answer(libc::SECCOMP_RET_KILL_PROCESS),
        ]);
    }
    let mut ranges: Vec<(u32, Vec<Instruction>)> = Vec::new();
    let leaves = outcomes.iter().map(|outcome| leaf(outcome, otherwise)).chain([vec![answer(above)]]);
    for (number, code) in (0..).zip(leaves) {
        if ranges.last().is_none_or(|(_, last)| *last != code) {
            ranges.push((number, code));
        }
    }
    program.extend(tree(&ranges));
    program
}

/// The refusal of a call that does not exist, as a kernel that has it not would give.
pub fn unknown() -> u32 {
    refuse(Errno::ENOSYS).k
}

fn tree(ranges: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    let (lower, upper) = match ranges {
        [] => return Vec::new(),
        [(_, code)] => return code.clone(),
        _ => ranges.split_at(ranges.len() / 2),
    };
    let first = upper.first().map_or(0, |(number, _)| *number);
    let (lower, upper) = (tree(lower), tree(upper));
    let mut code = match u8::try_from(lower.len()) {
        Ok(skip) => vec![jump_if_at_least(first, skip, 0)],
        // A conditional jump goes no further than 255 instructions.
        Err(_) => vec![jump_if_at_least(first, 0, 1), jump(u32::try_from(lower.len()).unwrap_or(u32::MAX))],
    };
    code.extend(lower);
    code.extend(upper);
    code
}

fn leaf(outcome: &Outcome, otherwise: u32) -> Vec<Instruction> {
    let mut code = Vec::new();
    for (comparisons, value) in &outcome.conditional {
        // From the last to the first, so that it is known how far it is to the next alternative.
        let mut alternative = vec![answer(*value)];
        for comparison in comparisons.iter().rev() {
            let mut longer = compare(*comparison, alternative.len());
            longer.append(&mut alternative);
            alternative = longer;
        }
        code.append(&mut alternative);
    }
    code.push(answer(outcome.always.unwrap_or(otherwise)));
    code
}

/// Goes on behind itself if the comparison holds, else skips `rest` instructions more.
fn compare(comparison: Comparison, rest: usize) -> Vec<Instruction> {
    let Comparison { argument, relation, inverted, mask, value } = comparison;
    let is_masked = mask != u64::MAX;
    let length = if is_masked { 6 } else { 4 } + usize::from(relation != Relation::Equal);
    let low = ARGUMENTS + 8 * argument + if cfg!(target_endian = "big") { 4 } else { 0 };
    let (high_value, low_value) = halves(value & mask);
    let (high_mask, low_mask) = halves(mask);
    let mut code = Vec::with_capacity(length);
    // How far it is from the next instruction to where it goes on.
    let to = |code: &Vec<Instruction>, holds: bool| {
        let distance = length - code.len() - 1 + if holds == inverted { rest } else { 0 };
        u8::try_from(distance).unwrap_or(u8::MAX)
    };
    let half = |code: &mut Vec<Instruction>, offset, mask| {
        code.push(load(offset));
        if is_masked {
            code.push(keep_bits(mask));
        }
    };
    half(&mut code, low ^ 4, high_mask);
    if relation != Relation::Equal {
        let holds = to(&code, true);
        code.push(jump_if_greater(high_value, holds, 0));
    }
    let fails = to(&code, false);
    code.push(jump_if_equal(high_value, 0, fails));
    half(&mut code, low, low_mask);
    let (holds, fails) = (to(&code, true), to(&code, false));
    code.push(match relation {
        Relation::Equal => jump_if_equal(low_value, holds, fails),
        Relation::Greater => jump_if_greater(low_value, holds, fails),
        Relation::AtLeast => jump_if_at_least(low_value, holds, fails),
    });
    code
}

#[allow(clippy::cast_possible_truncation)] // The halves of 64 bits.
fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ARCH: u32 = 0xC000_003E;
    const DEFAULT: u32 = 1;
    const ABOVE: u32 = 2;
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

    /// What the kernel makes of a program: the instructions that are used here (Documentation/networking/filter.rst).
    fn execute(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [number, architecture].map(u32::to_ne_bytes).concat();
        data.extend([0; 8]);
        data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
        let (mut at, mut a) = (0, 0_u32);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { jt } else { jf });
            match code {
                0x20 => a = u32::from_ne_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
                0x15 => at += jump(a == k),
                0x25 => at += jump(a > k),
                0x35 => at += jump(a >= k),
                0x05 => at += k as usize,
                0x54 => a &= k,
                0x06 => return k,
                other => panic!("code {other:#x}"),
            }
        }
    }

    fn always(value: u32) -> Outcome {
        Outcome { always: Some(value), ..Outcome::default() }
    }

    #[test]
    fn c1_each_number_finds_its_outcome() {
        // Long enough that some jumps are longer than 255.
        let outcomes: Vec<_> =
            (0..467).map(|n| if n % 3 == 0 { Outcome::default() } else { always(100 + n) }).collect();
        let program = assemble(ARCH, &outcomes, DEFAULT, ABOVE);
        for number in 0..467 {
            let expected = if number % 3 == 0 { DEFAULT } else { 100 + number };
            assert_eq!(execute(&program, ARCH, number, [0; 6]), expected, "{number}");
        }
        for number in [467, 1000, X32 - 1, u32::MAX] {
            assert_eq!(execute(&program, ARCH, number, [0; 6]), ABOVE);
        }
        assert_eq!(execute(&program, 0x4000_0003, 1, [0; 6]), KILL, "the calls of i386");
        if cfg!(target_arch = "x86_64") {
            assert_eq!(execute(&program, ARCH, X32 | 1, [0; 6]), KILL, "the calls of x32");
        }
    }

    #[test]
    fn c1_calls_with_one_outcome_are_one_range() {
        assert_eq!(assemble(ARCH, &vec![always(7); 400], DEFAULT, 7).len(), assemble(ARCH, &[], DEFAULT, 7).len());
    }

    #[test]
    fn c1_the_first_alternative_that_holds_answers() {
        let equal = |argument, value| Comparison {
            argument,
            relation: Relation::Equal,
            inverted: false,
            mask: u64::MAX,
            value,
        };
        let outcome =
            Outcome { conditional: vec![(vec![equal(0, 5), equal(5, 6)], 10), (vec![equal(0, 5)], 11)], always: None };
        let program = assemble(ARCH, &[outcome], DEFAULT, ABOVE);
        let run = |first, last| execute(&program, ARCH, 0, [first, 0, 0, 0, 0, last]);
        assert_eq!([run(5, 6), run(5, 7), run(4, 6)], [10, 11, DEFAULT]);
    }

    /// Numbers that lie near each other, and where halves meet.
    fn near() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0..3_u64, (1 << 32) - 2..(1_u64 << 32) + 3, u64::MAX - 2..=u64::MAX]
    }

    proptest! {
        #[test]
        fn c1_arguments_are_compared_as_64_bits(
            a in near(), b in near(), mask in near(), inverted: bool, kind in 0..4, argument in 0..6_u32, more in 0..3_usize,
        ) {
            let (relation, mask, expected) = match kind {
                0 => (Relation::Equal, u64::MAX, a == b),
                1 => (Relation::Greater, u64::MAX, a > b),
                2 => (Relation::AtLeast, u64::MAX, a >= b),
                _ => (Relation::Equal, mask, a & mask == b & mask),
            };
            let asked = Comparison { argument, relation, inverted, mask, value: b };
            // More of the same change the distances and not the result.
            let outcome = Outcome { conditional: vec![(vec![asked; more + 1], 10)], always: Some(11) };
            let program = assemble(ARCH, &[Outcome::default(), outcome], DEFAULT, ABOVE);
            let mut arguments = [0; 6];
            arguments[argument as usize] = a;
            let expected = if expected == inverted { 11 } else { 10 };
            prop_assert_eq!(execute(&program, ARCH, 1, arguments), expected);
        }
    }
}
