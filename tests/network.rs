//! The network of a new namespace (N5): in a network namespace of the test's own, never the machine's.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Init, Running, assert_one_line, sh, subject, wait_for};

/// This test's thread, and all that it starts, gets a network of its own.
fn own_network() {
    // SAFETY: passes an integer only; a thread may leave its network namespace at any time.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "unshare: {}", std::io::Error::last_os_error());
    ip("link set lo up").unwrap();
}

/// iproute2's ip, out here.
fn ip(words: &str) -> Result<String, String> {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// A bridge, or else the test is skipped: the kernel has none.
fn bridge() -> Option<()> {
    own_network();
    made("link add name br0 type bridge")?;
    ip("addr add 10.9.0.1/24 dev br0").unwrap();
    ip("link set br0 up").unwrap();
    Some(())
}

fn made(words: &str) -> Option<()> {
    ip(words).map_err(|why| eprintln!("skipped: ip {words}: {}", why.trim())).ok().map(drop)
}

/// A pair of devices out here, both up, the first to be a parent of links.
fn parent() -> Option<()> {
    own_network();
    made("link add name p0 type veth peer name p1")?;
    ip("link set p0 up").unwrap();
    ip("link set p1 up").unwrap();
    Some(())
}

fn links() -> Vec<String> {
    let text = ip("link").unwrap();
    let names = text.lines().filter(|line| !line.starts_with(' '));
    names.map(|line| line.split(": ").nth(1).unwrap().split('@').next().unwrap().to_owned()).collect()
}

/// A container with this link that answers each connection to its port 7000 with what it gets.
fn echoing(options: &[&str]) -> Running {
    let listens = "while :; do busybox nc -l -p 7000 -e busybox cat; done & while ! grep -q :1B58 /proc/net/tcp6 /proc/net/tcp; do sleep 0.01; done; \
         echo ready; wait";
    Init::new(&[&["--unshare", "net,pid,mount", "--grace", "0"], options].concat()).args(sh(listens)).start().ready()
}

/// What a container with this link hears of that one, and whether it answers pings.
fn talk(options: &[&str], address: &str) {
    let script = format!(
        "busybox ping -c 1 -W 5 {address} >&2 || exit 1
         i=0; while [ $i -lt 50 ]; do said=$(echo hello | busybox nc -w 5 {address} 7000); [ -n \"$said\" ] && break
         sleep 0.1; i=$((i + 1)); done; echo \"$said\""
    );
    let output = Init::new(&[&["--unshare", "net,pid"], options].concat()).args(sh(&script)).run();
    assert_eq!((output.code, output.stdout.as_str()), (0, "hello\n"), "{}", output.stderr);
}

#[test]
fn n5_lo_is_up() {
    for options in [&["--unshare", "net"][..], &["--unshare", "net,pid"], &["--unshare", "user,net", "--map-root"]] {
        let output = Init::new(options).not_pid1().args(["busybox", "ping", "-c", "1", "-W", "5", "127.0.0.1"]).run();
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{options:?}");
    }
}

#[test]
fn n5_two_containers_over_a_bridge() {
    let Some(()) = bridge() else { return };
    let one = ["--veth", "host=v1,bridge=br0,addr=10.9.0.2/24,addr=fd09::2/64,gw=10.9.0.1"];
    let two = ["--veth", "host=v2,bridge=br0,addr=10.9.0.3/24,addr=fd09::3/64,name=lan"];
    let running = echoing(&one);
    talk(&two, "10.9.0.2");
    talk(&two, "fd09::2");
    drop(running);
    wait_for("the links' end", || (links() == ["lo", "br0"]).then_some(()));
    let running = echoing(&two);
    talk(&one, "10.9.0.3");
    drop(running);
    wait_for("the links' end", || (links() == ["lo", "br0"]).then_some(()));
}

#[test]
fn n5_a_pair_with_addresses_on_both_sides() {
    own_network();
    if made("link add name try type veth peer name peer").is_none() {
        return;
    }
    let options = ["--veth", "host=v1,host-addr=10.7.0.1/30,addr=10.7.0.2/30,gw=10.7.0.1,mtu=1400"];
    let mut running = echoing(&options);
    assert!(ip("addr show v1").unwrap().contains("10.7.0.1/30"));
    assert!(ip("link show v1").unwrap().contains("mtu 1400"));
    let output = Command::new("busybox").args(["ping", "-c", "1", "-W", "5", "10.7.0.2"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    running.kill(15);
    running.code();
    assert!(!links().contains(&"v1".to_owned()), "gone when sexton is");
    let show = ["busybox", "ip", "route"];
    let output = Init::new(&[&["--unshare", "net"], &options[..]].concat()).args(show).run();
    assert!(output.stdout.contains("default via 10.7.0.1 dev eth0"), "{output:?}");
}

#[test]
fn n5_two_containers_over_macvlan() {
    let Some(()) = parent() else { return };
    let options = ["--macvlan", "parent=p0,addr=10.9.0.2/24"];
    if let Err(why) = available(&options) {
        eprintln!("skipped: {why}");
        return;
    }
    for mode in ["bridge", "private", "vepa"] {
        let output =
            Init::new(&["--unshare", "net", "--macvlan", &format!("parent=p0,mode={mode}")]).args(["true"]).run();
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{mode}");
    }
    // The parent has one link at a time in this mode: when sexton has ended, its link is gone.
    for _ in 0..20 {
        let only = ["--unshare", "net,pid", "--macvlan", "parent=p0,mode=passthru"];
        let output = Init::new(&only).args(["true"]).run();
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    }
    let running = echoing(&options);
    talk(&["--macvlan", "parent=p0,addr=10.9.0.3/24"], "10.9.0.2");
    drop(running);
}

#[test]
fn n5_two_containers_over_ipvlan() {
    for mode in ["l2", "l3", "l3s"] {
        for (one, other) in [("10.9.0.2", "10.9.0.3"), ("10.9.0.3", "10.9.0.2")] {
            // Another parent each time: it has one mode and each address once, and the kernel takes its time to end links.
            let Some(()) = parent() else { return };
            if let Err(why) = available(&["--ipvlan", "parent=p0"]) {
                // The virtual machine's kernel has it.
                eprintln!("skipped: {why}");
                return;
            }
            let link = |address| format!("parent=p0,mode={mode},addr={address}/24");
            let running = echoing(&["--ipvlan", &link(one)]);
            talk(&["--ipvlan", &link(other)], one);
            drop(running);
        }
    }
}

/// Whether this kernel has it.
fn available(options: &[&str]) -> Result<(), String> {
    let output = Init::new(&[&["--unshare", "net"], options].concat()).args(["true"]).run();
    if output.code == 0 { Ok(()) } else { Err(output.stderr) }
}

/// KILL either one: the kernel removes the link when the last process of the namespace is gone.
#[test]
fn n5_links_are_gone_after_kill() {
    let Some(()) = bridge() else { return };
    for round in 0..10 {
        let options = ["--unshare", "net,pid", "--veth", "host=v1,bridge=br0,addr=10.9.0.2/24"];
        let mut running = Init::new(&options).not_pid1().args(subject(["trap", "--stay"])).start().ready();
        let inside = running.command();
        // SAFETY: passes integers only; both are this test's own.
        unsafe { libc::kill(if round % 2 == 0 { running.pid } else { inside }, libc::SIGKILL) };
        assert_eq!(running.code(), 137);
        wait_for("the link's end", || (links() == ["lo", "br0"]).then_some(()));
    }
}

#[test]
fn n5_errors_are_one_line_and_leave_nothing() {
    let Some(()) = bridge() else { return };
    for (options, words) in [
        (&["--veth", "host=br0"][..], &["RTM_NEWLINK(veth, br0, eth0): EEXIST"][..]),
        (&["--veth", "host=v1,bridge=nowhere"], &["ioctl(SIOCGIFINDEX, \"nowhere\"): ENODEV"]),
        (&["--veth", "host=v1,bridge=lo"], &["RTM_NEWLINK(v1, master lo)"]),
        (&["--macvlan", "parent=nowhere"], &["ioctl(SIOCGIFINDEX, \"nowhere\"): ENODEV"]),
        (
            &["--veth", "host=v1,addr=10.9.0.2/24,gw=10.77.0.1"],
            &["RTM_NEWROUTE(default, 10.77.0.1, eth0): ENETUNREACH"],
        ),
        (&["--veth", "host=v1,addr=10.9.0.2/24,addr=10.9.0.2/24"], &["RTM_NEWADDR(eth0, 10.9.0.2/24): EEXIST"]),
        (&["--veth", "host=v1", "--veth", "host=v1,name=eth1"], &["EEXIST"]),
    ] {
        let began = Instant::now();
        let output = Init::new(&[&["--unshare", "net"], options].concat()).args(["echo", "ran"]).run();
        assert_eq!((output.code, output.stdout.as_str()), (125, ""), "{options:?}");
        assert_one_line(&output.stderr);
        assert!(words.iter().all(|word| output.stderr.contains(word)), "{options:?}: {}", output.stderr);
        wait_for("the links' end", || (links() == ["lo", "br0"]).then_some(()));
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    for options in [
        &["--veth", "host=v1"][..],
        &["--ipvlan", "parent=br0"],
        &["--unshare", "pid", "--macvlan", "parent=br0"],
        &["--unshare", "net", "--veth", "host=v1", "--veth", "host=v2"],
    ] {
        let output = Init::new(options).args(["echo", "ran"]).run();
        assert_eq!((output.code, output.stdout.as_str()), (125, ""), "{options:?}");
        assert_one_line(&output.stderr);
    }
}

#[test]
fn n5_an_ordinary_user_cannot_reach_out() {
    let words = ["--reuid", "1000", "--regid", "1000", "--clear-groups"];
    let mut init = vec!["/usr/bin/setpriv".to_owned()];
    init.extend(words.map(str::to_owned));
    let sexton = common::folder("user").join("sexton");
    std::fs::copy(common::sexton(), &sexton).unwrap();
    if !common::has("/usr/bin/setpriv") {
        eprintln!("skipped: no setpriv");
        return;
    }
    init.push(sexton.to_str().unwrap().to_owned());
    let run = |words: &[&str]| {
        let all: Vec<_> = init.iter().map(String::as_str).skip(1).chain(words.iter().copied()).collect();
        Command::new(&init[0]).args(all).output().unwrap()
    };
    let output = run(&["--unshare", "user,net", "--veth", "host=v1", "echo", "ran"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(125), &b""[..]));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_one_line(&stderr);
    assert!(stderr.contains("EPERM") && stderr.contains("CAP_NET_ADMIN"), "{stderr}");
    let output = run(&["--unshare", "user,net", "busybox", "ping", "-c", "1", "-W", "5", "127.0.0.1"]);
    assert!(output.status.success() || String::from_utf8_lossy(&output.stderr).contains("ermi"), "{output:?}");
}
