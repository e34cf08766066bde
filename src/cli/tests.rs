use super::*;
use crate::signal::Signal;

fn ask(name: &str, words: &[&str], sexton_opts: Option<&str>) -> Result<Options, String> {
    let words: Vec<OsString> = std::iter::once(&name).chain(words).map(OsString::from).collect();
    let variable = |key: &str| sexton_opts.filter(|_| key == OPTIONS_VARIABLE).map(OsString::from);
    match parse(&words, &variable) {
        Ok(Request::Run(options)) => Ok(*options),
        Ok(Request::Print(_, text)) => Err(text),
        Err(why) => Err(why.to_string()),
    }
}

#[test]
fn every_row_has_a_name_a_help_and_no_twin() {
    for table in
        [Personality::Sexton, Personality::Tini, Personality::DumbInit, Personality::Catatonit].map(Personality::table)
    {
        let table: Vec<&Row> = table.iter().copied().flatten().collect();
        for (index, row) in table.iter().enumerate() {
            assert!(row.short.is_some() || !row.long.is_empty());
            assert!(!row.help.is_empty());
            for other in &table[index + 1..] {
                assert!(row.long.is_empty() || row.long != other.long, "--{}", row.long);
                assert!(row.short.is_none() || row.short != other.short, "{:?}", row.short);
            }
        }
    }
}

#[test]
fn h7_options_end_at_the_first_word_that_is_none() {
    for (words, count) in [
        (&["-g", "ls", "-h"][..], 2),
        (&["--", "-x"], 1),
        (&["-g", "--", "--", "x"], 2),
        (&["-gv", "ls"], 1),
        (&["-", "a"], 2),
    ] {
        assert_eq!(ask("sexton", words, None).map(|o| o.command_words), Ok(count), "{words:?}");
    }
    assert_eq!(ask("/sbin/docker-init", &["--", "ls", "-h"], None).map(|o| o.command_words), Ok(2));
}

#[test]
fn s9_rewrites() {
    let options = ask("sexton", &["-r", "TERM:QUIT", "-rHUP:0", "--rewrite=RTMIN+1:10", "x"], None).unwrap();
    let quit = "QUIT".parse().unwrap();
    assert_eq!(options.rewrites.apply(Signal::TERM), Some(quit));
    assert_eq!(options.rewrites.apply(Signal::HUP), None);
    assert_eq!(options.rewrites.apply(Signal::new(35).unwrap()), Signal::new(10));
    assert_eq!(options.rewrites.apply(Signal::INT), Some(Signal::INT));
    for bad in ["TERM", "FOO:QUIT", "TERM:FOO", "KILL:TERM", ":", "TERM:", "0:TERM"] {
        assert!(ask("sexton", &["-r", bad, "x"], None).is_err(), "{bad}");
    }
}

#[test]
fn x2_exit_codes() {
    let options = ask("sexton", &["-e", "143", "-e", "1:2", "x"], None).unwrap();
    assert_eq!((options.exit_codes.apply(143), options.exit_codes.apply(1), options.exit_codes.apply(7)), (0, 2, 7));
    for bad in ["256", "-1", "", "1:", "1:256", "x", "+1"] {
        assert!(ask("sexton", &["-e", bad, "x"], None).is_err(), "{bad}");
    }
}

#[test]
fn h6_options_from_the_environment_come_first() {
    let options = ask("docker-init", &["--", "x"], Some("--grace 7s -r 'TERM:INT'")).unwrap();
    assert_eq!(options.grace.as_secs(), 7);
    assert_eq!(options.rewrites.apply(Signal::TERM), Some(Signal::INT));
    let options = ask("sexton", &["--grace=1", "x"], Some("--grace=2")).unwrap();
    assert_eq!(options.grace.as_secs(), 1);
    for bad in ["--nope", "'", "ls", "--grace x", "-- ls"] {
        let why = ask("sexton", &["x"], Some(bad)).unwrap_err();
        assert!(why.starts_with("SEXTON_OPTS: "), "{why}");
    }
}

#[test]
fn an_unknown_option_names_the_nearest_one() {
    let why = ask("sexton", &["--gracee", "1", "x"], None).unwrap_err();
    assert_eq!(why, "--gracee: unknown option; did you mean --grace?");
    assert!(ask("sexton", &["-Z", "x"], None).unwrap_err().contains("unknown option"));
}

#[test]
fn p1_version_is_in_the_form_that_docker_reads() {
    let text = ask("/usr/bin/docker-init", &["--version"], None).unwrap_err();
    let (version, commit) = text.trim().split_once(" - ").unwrap();
    assert!(version.starts_with("tini version "));
    assert!(commit.strip_prefix("git.").is_some_and(|hash| !hash.is_empty() && !hash.contains('.')));
}

#[test]
fn every_help_fits_a_terminal() {
    for personality in [Personality::Sexton, Personality::Tini, Personality::DumbInit, Personality::Catatonit] {
        for line in personality.help().lines() {
            assert!(line.chars().count() <= 90, "{line}");
        }
    }
}
