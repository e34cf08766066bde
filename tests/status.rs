//! Clauses X: exit status.

mod common;

use common::{Init, assert_one_line, sh, subject};

#[test]
fn x1_every_exit_code_survives() {
    for code in 0..=255 {
        let output = Init::new(&[]).args(subject(["exit", &code.to_string()])).run();
        assert_eq!((output.code, output.stderr.as_str()), (code, ""));
    }
}

#[test]
fn x1_a_signal_n_becomes_128_plus_n() {
    // The default action of these is to end the process.
    for signal in (1..=64).filter(|n| ![17, 18, 19, 20, 21, 22, 23, 28].contains(n)) {
        let output = Init::new(&[]).args(subject(["exit", "--signal", &signal.to_string()])).run();
        assert_eq!(output.code, 128 + signal, "signal {signal}");
    }
}

#[test]
fn x2_codes_are_mapped() {
    for (option, code, mapped) in [("143", 143, 0), ("1:7", 1, 7), ("1:7", 2, 2), ("0:9", 0, 9)] {
        let output = Init::new(&["-e", option]).args(subject(["exit", &code.to_string()])).run();
        assert_eq!(output.code, mapped, "-e {option} and {code}");
    }
}

#[test]
fn x3_not_found_is_127_and_not_executable_126() {
    let output = Init::new(&["/nowhere/at/all"]).run();
    assert_eq!(output.code, 127);
    assert_one_line(&output.stderr);
    let output = Init::new(&["/etc"]).run();
    assert_eq!(output.code, 126);
    assert_one_line(&output.stderr);
}

#[test]
fn x4_nothing_is_printed_on_stdout() {
    let output = Init::new(&["-vv", "-w"]).args(sh("(true &); sleep 0.05; exit 3")).run();
    assert_eq!((output.code, output.stdout.as_str()), (3, ""));
}
