//! What is wrong with a container, and which line mends it. Decided from what was seen, without looking at anything.
#![forbid(unsafe_code)]

use serde::Serialize;

use super::observation::{Disposition, End, Process};
use super::report::Report;
use super::stage::base_name;
use crate::signal::Signal;

/// Something that was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// It will hurt; else it is good to know.
    pub is_wrong: bool,
    /// What.
    pub what: String,
    /// The way out.
    pub mend: Option<String>,
}

impl Finding {
    fn wrong(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { is_wrong: true, what: what.into(), mend: Some(mend.into()) }
    }
}

/// Shells that stay PID 1 and run the command as their child.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "ksh", "zsh"];

fn init_line(entrypoint: &[String]) -> String {
    let words: Vec<_> = ["/sexton", "--"].into_iter().map(str::to_owned).chain(unwrapped(entrypoint)).collect();
    format!("ENTRYPOINT {}", json(&words))
}

/// A line of a Dockerfile has JSON.
fn json(words: &[String]) -> String {
    serde_json::to_string(words).unwrap_or_default().replace("\",\"", "\", \"")
}

/// The command behind `sh -c`, where it is a plain one.
fn unwrapped(entrypoint: &[String]) -> Vec<String> {
    if let [shell, dash_c, script] = entrypoint
        && SHELLS.contains(&base_name(shell))
        && dash_c == "-c"
        && !script.contains(['|', '&', ';', '<', '>', '$', '`', '(', '\n', '*'])
        && let Some(words) = shlex::split(script)
    {
        return words.into_iter().skip_while(|word| word == "exec").collect();
    }
    entrypoint.to_vec()
}

/// Everything that was found, the worst first.
pub fn findings(report: &Report) -> Vec<Finding> {
    let mut findings = Vec::new();
    if report.stopped.ended_by_itself {
        if report.stopped.exit_code != 0 {
            let code = report.stopped.exit_code;
            findings.push(Finding::wrong(
                format!("it ended by itself, with {code}, before it could be stopped"),
                "look at what it prints",
            ));
        }
        return findings;
    }
    if !report.ready {
        findings.push(Finding {
            is_wrong: report.ready_was_asked,
            what: "it did not become ready, or quiet, in time; it was stopped as it was".into(),
            mend: None,
        });
    }
    let signal = report.signal();
    let pid1 = report.processes.iter().find(|process| process.pid == 1);
    if let Some(pid1) = pid1 {
        findings.extend(unreachable(report, pid1, signal));
    }
    findings.extend(zombies(report));
    findings.extend(cut_short(report, pid1, signal));
    findings.extend(exit_code(report));
    findings
}

/// PID 1 to which the signal is nothing.
fn unreachable(report: &Report, pid1: &Process, signal: Signal) -> Option<Finding> {
    if !report.stopped.was_killed {
        return None;
    }
    let line = init_line(&report.entrypoint);
    let is_applet = pid1.name == "busybox" && report.entrypoint.get(1).is_some_and(|word| SHELLS.contains(&&**word));
    let is_shell = is_applet || SHELLS.contains(&pid1.name.as_str());
    let has_children = report.processes.iter().any(|process| process.parent == 1 && !process.is_zombie());
    Some(match pid1.on(signal) {
        Disposition::Default if is_shell && has_children => Finding::wrong(
            format!("PID 1 is a shell ({}) that passes no signal on: {signal} reaches nobody", pid1.name),
            line,
        ),
        Disposition::Default => Finding::wrong(
            format!("{signal} does nothing: PID 1 ({}) has no handler for it, and no default applies to it", pid1.name),
            line,
        ),
        Disposition::Ignored => Finding::wrong(
            format!("PID 1 ({}) ignores {signal}", pid1.name),
            others(pid1)
                .map_or_else(|| "make the application end at it".to_owned(), |other| format!("STOPSIGNAL {other}")),
        ),
        Disposition::Caught => Finding::wrong(
            format!("PID 1 ({}) got {signal} and did not end in {:.0} s", pid1.name, report.stopped.seconds.floor()),
            "make the application end sooner, or give it more time (docker stop -t, terminationGracePeriodSeconds)",
        ),
    })
}

/// Another signal that this process has a handler for.
fn others(process: &Process) -> Option<Signal> {
    // A shell catches INT for itself.
    [Signal::QUIT, Signal::INT, Signal::HUP].into_iter().find(|signal| process.on(*signal) == Disposition::Caught)
}

/// Zombies, by who should have waited.
fn zombies(report: &Report) -> Vec<Finding> {
    let mut parents: Vec<_> =
        report.processes.iter().filter(|process| process.is_zombie()).map(|zombie| zombie.parent).collect();
    let all = parents.clone();
    parents.dedup();
    parents.sort_unstable();
    parents.dedup();
    let finding = |parent: i32| {
        let count = all.iter().filter(|other| **other == parent).count();
        let zombies = if count == 1 { "1 zombie".to_owned() } else { format!("{count} zombies") };
        let name = report.processes.iter().find(|process| process.pid == parent).map_or("?", |process| &process.name);
        if parent == 1 {
            // Which of the two they are nobody can tell any more.
            Finding::wrong(
                format!("{zombies}: PID 1 ({name}) does not wait for them"),
                format!(
                    "{} takes the orphans; its own children {name} itself must wait for",
                    init_line(&report.entrypoint)
                ),
            )
        } else {
            Finding::wrong(
                format!("{zombies} of pid {parent} ({name}), which lives and does not wait for its children"),
                format!("no init can: {name} itself must wait, or end"),
            )
        }
    };
    parents.into_iter().map(finding).collect()
}

/// Processes that had no time.
fn cut_short(report: &Report, pid1: Option<&Process>, signal: Signal) -> Option<Finding> {
    let named = |end: &End| -> Vec<_> {
        let ended = report.processes.iter().filter(|process| process.pid != 1 && process.end.as_ref() == Some(end));
        ended.map(|process| format!("{} ({})", process.pid, process.name)).collect()
    };
    let together = named(&End::Together);
    if !together.is_empty() {
        let who = together.join(", ");
        return Some(Finding {
            is_wrong: false,
            what: format!("ended together with PID 1, and perhaps killed, which Linux tells from 6.15 on: {who}"),
            mend: None,
        });
    }
    let killed = named(&End::Killed);
    if killed.is_empty() || report.stopped.was_killed && pid1.is_none_or(|pid1| pid1.on(signal) != Disposition::Caught)
    {
        return None;
    }
    let mend = if report.stopped.was_killed {
        "make them end sooner, or give them more time".to_owned()
    } else {
        format!("{} (they get TERM and 5 s; --grace is more)", init_line(&report.entrypoint))
    };
    let who = if killed.len() == 1 { "a process was" } else { "processes were" };
    Some(Finding::wrong(format!("{who} killed without having ended: {}", killed.join(", ")), mend))
}

/// What an orchestrator makes of the end.
fn exit_code(report: &Report) -> Option<Finding> {
    let stopped = &report.stopped;
    match stopped.exit_code {
        0 => None,
        137 if stopped.out_of_memory => Some(Finding::wrong(
            "memory ran out: it was killed by the kernel",
            "a higher --memory, or a smaller process",
        )),
        137 if stopped.was_killed => None, // It is said why.
        code if code == 128 + report.signal().number() => Some(Finding {
            is_wrong: false,
            what: format!("exit code {code}: ended by the stop signal, which some orchestrators count as an error"),
            mend: Some(format!("sexton -e {code} makes it 0")),
        }),
        code => Some(Finding::wrong(
            format!("exit code {code}: a stop that looks like an error, and is restarted by on-failure policies"),
            "end with 0 when asked to stop",
        )),
    }
}

/// What an orchestrator makes of this code, in a few words.
pub fn meaning(code: i32) -> &'static str {
    match code {
        0 => "success: left alone by on-failure policies",
        137 => "killed: an error, restarted by on-failure policies",
        129..=192 => "ended by a signal: an error to most, restarted by on-failure policies",
        _ => "an error: restarted by on-failure policies",
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Stopped;
    use super::*;

    fn process(pid: i32, parent: i32, name: &str, state: char, term: Disposition) -> Process {
        Process::for_test(pid, parent, name, state, term)
    }

    fn report(processes: Vec<Process>, stopped: Stopped) -> Report {
        let entrypoint = ["/bin/sh", "-c", "server --port 80"].map(str::to_owned).to_vec();
        Report { processes, stopped, ready: true, entrypoint, ..Report::default() }
    }

    fn killed() -> Stopped {
        Stopped { was_killed: true, exit_code: 137, seconds: 10.0, ..Stopped::default() }
    }

    #[test]
    fn a_good_one_has_no_finding() {
        let good = report(vec![process(1, 0, "server", 'S', Disposition::Caught)], Stopped::default());
        assert_eq!(findings(&good), []);
    }

    #[test]
    fn a_shell_that_stays_gets_an_exec_form_behind_an_init() {
        let shell = process(1, 0, "sh", 'S', Disposition::Default);
        let mut server = process(7, 1, "server", 'S', Disposition::Caught);
        server.end = Some(End::Killed);
        let found = findings(&report(vec![shell, server], killed()));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].is_wrong && found[0].what.contains("passes no signal on"));
        assert_eq!(found[0].mend.as_deref(), Some(r#"ENTRYPOINT ["/sexton", "--", "server", "--port", "80"]"#));
    }

    #[test]
    fn who_ignores_a_signal_may_listen_to_another() {
        let mut daemon = process(1, 0, "daemon", 'S', Disposition::Ignored);
        daemon.dispositions.insert(Signal::QUIT.to_string(), Disposition::Caught);
        let found = findings(&report(vec![daemon], killed()));
        assert_eq!(found[0].mend.as_deref(), Some("STOPSIGNAL SIGQUIT"));
    }

    #[test]
    fn zombies_are_their_parents_business() {
        let zombies = |parent| (10..13).map(move |pid| process(pid, parent, "child", 'Z', Disposition::Default));
        let all =
            vec![process(1, 0, "app", 'S', Disposition::Caught), process(5, 1, "worker", 'S', Disposition::Caught)];
        let found = findings(&report(all.clone().into_iter().chain(zombies(1)).collect(), Stopped::default()));
        assert!(found[0].what.starts_with("3 zombies: PID 1 (app)"), "{found:?}");
        let found = findings(&report(all.into_iter().chain(zombies(5)).collect(), Stopped::default()));
        assert!(found[0].what.starts_with("3 zombies of pid 5 (worker)"), "{found:?}");
        assert!(found[0].mend.as_deref().is_some_and(|mend| mend.starts_with("no init can")));
    }

    #[test]
    fn a_code_is_an_error_a_note_or_nothing() {
        let code = |exit_code| {
            let one = vec![process(1, 0, "server", 'S', Disposition::Caught)];
            findings(&report(one, Stopped { exit_code, ..Stopped::default() })).first().map(|finding| finding.is_wrong)
        };
        assert_eq!((code(0), code(143), code(1), code(137)), (None, Some(false), Some(true), Some(true)));
    }
}
