//! What a container of one's own costs: the whole life of one that does nothing, by sexton and by others.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use super::inits::{find, sextons};
use super::report::{aligned, machine, ratio};
use super::statistics::{median, percentile};
use super::{command, trace};
use crate::lab::Trouble;
use crate::lab::progress::Progress;

/// Lives of each in a round.
const LIVES: u32 = 20;

/// What makes a container.
struct Runner {
    name: String,
    words: Vec<OsString>,
}

/// The result.
#[derive(Serialize, Debug)]
pub struct Report {
    kernel: String,
    processor: String,
    cpus: usize,
    kept_on_cpu: Option<usize>,
    lives: u32,
    base: String,
    runners: Vec<Cost>,
    /// Who cannot do it here, and why.
    unable: Vec<String>,
}

/// One runner.
#[derive(Serialize, Debug)]
struct Cost {
    name: String,
    command: Vec<String>,
    /// Milliseconds from its exec to its end.
    median_ms: f64,
    /// Nine of ten stay below.
    p90_ms: f64,
    /// The median, by that of the base.
    ratio: f64,
    /// System calls of all its processes, the command's included.
    system_calls: u64,
}

/// Measures all runners that are here, in turns.
pub fn all(runs: u32, cpu: Option<usize>, progress: &Progress) -> Result<Report, Trouble> {
    let bundle = Bundle::make()?;
    let (mut runners, mut unable) = (Vec::new(), Vec::new());
    for runner in candidates(&bundle) {
        match runner.live() {
            Ok(_) => runners.push(runner),
            Err(trouble) => unable.push(trouble.to_string()),
        }
    }
    let mut calls = Vec::new();
    for runner in &runners {
        progress.tell(&format!("counting system calls: {}", runner.name));
        let words = runner.words.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        calls.push(trace::calls_of_all(&words)?);
    }
    let mut times = vec![Vec::new(); runners.len()];
    let lives = runs * LIVES;
    for life in 0..lives {
        progress.step(life as usize, lives as usize, "lives");
        for (runner, times) in runners.iter().zip(&mut times) {
            times.push(runner.live()?);
        }
    }
    progress.clear();
    let base = times.first().map_or(0.0, |times| median(times));
    let costs = runners.iter().zip(&times).zip(&calls).map(|((runner, times), calls)| Cost {
        name: runner.name.clone(),
        command: runner.words.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        median_ms: median(times),
        p90_ms: percentile(times, 90).unwrap_or(0.0),
        ratio: ratio(median(times), base).unwrap_or(0.0),
        system_calls: *calls,
    });
    let (kernel, processor, cpus) = machine();
    let base = runners.first().map(|runner| runner.name.clone()).unwrap_or_default();
    Ok(Report { kernel, processor, cpus, kept_on_cpu: cpu, lives, base, runners: costs.collect(), unable })
}

impl Runner {
    /// One container from exec to end, in milliseconds.
    fn live(&self) -> Result<f64, Trouble> {
        let (program, options) = self.words.split_first().ok_or_else(|| Trouble("no command".into()))?;
        let mut command = Command::new(program);
        command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let began = Instant::now();
        let output = command.output()?;
        let time = began.elapsed();
        if output.status.success() {
            return Ok(time.as_secs_f64() * 1000.0);
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Err(Trouble(format!("{}: {}: {}", self.name, output.status, why.lines().next().unwrap_or("said nothing"))))
    }
}

/// All with the same namespaces as far as they can, a /proc of their own, and the same command. An OCI runtime makes a
/// cgroup too, asked or not: so there is a sexton that does.
fn candidates(bundle: &Bundle) -> Vec<Runner> {
    let nothing = [bundle.lab.as_os_str(), command::NOTHING.as_ref()];
    let mut runners = Vec::new();
    let mut add = |name: &str, program: &Path, options: &str, command: &[_]| {
        let words = [program.as_os_str().to_owned()].into_iter();
        let words = words.chain(options.split_whitespace().map(OsString::from));
        let words = words.chain(command.iter().map(|word: &&std::ffi::OsStr| (*word).to_owned())).collect();
        runners.push(Runner { name: name.to_owned(), words });
    };
    for (name, program) in sextons() {
        add(&name, &program, "--unshare all", &nothing);
        add(&format!("{name}, cgroup"), &program, "--unshare all --pids-limit 100", &nothing);
    }
    let others = [
        (
            "unshare",
            "--user --map-root-user --mount --mount-proc --pid --fork --net --uts --ipc --cgroup --time",
            &nothing[..],
        ),
        ("bwrap", "--unshare-all --bind / / --proc /proc --dev-bind /dev /dev", &nothing),
    ];
    for (name, options, command) in others {
        if let Some(program) = find(name) {
            add(name, &program, options, command);
        }
    }
    let (folder, id) = (bundle.folder.display(), std::process::id());
    // crun refuses hybrid cgroups; without any it runs everywhere.
    for (name, cgroups) in [("crun", "--cgroup-manager disabled"), ("runc", "")] {
        if let Some(program) = find(name) {
            let state = bundle.folder.join(name);
            let options = format!("{cgroups} --root {} run --bundle {folder} sexton-bench-{id}", state.display());
            add(name, &program, &options, &[]);
        }
    }
    // The floor, last: ratios are to the first.
    add("nothing between", &bundle.lab, "", &nothing[1..]);
    runners
}

/// An OCI bundle with this program as its root's only one.
struct Bundle {
    folder: PathBuf,
    lab: PathBuf,
}

impl Bundle {
    fn make() -> Result<Self, Trouble> {
        let folder = std::env::temp_dir().join(format!("sexton-bench-{}", std::process::id()));
        let bundle = Self { lab: std::env::current_exe()?, folder };
        for mount_point in ["proc", "dev", "sys"] {
            fs::create_dir_all(bundle.folder.join("rootfs").join(mount_point))?;
        }
        fs::copy(&bundle.lab, bundle.folder.join("rootfs/nothing"))?;
        fs::write(bundle.folder.join("config.json"), serde_json::to_vec(&Self::config())?)?;
        Ok(bundle)
    }

    /// As small as the runtimes bear.
    fn config() -> Value {
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        let kinds = ["pid", "mount", "network", "uts", "ipc", "cgroup", "user"];
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": ["/nothing", command::NOTHING],
                "env": ["PATH=/"],
                "cwd": "/",
            },
            "root": { "path": "rootfs" },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": {
                "namespaces": kinds.map(|kind| json!({ "type": kind })),
                "uidMappings": map,
                "gidMappings": map,
            },
        })
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let place = self.kept_on_cpu.map_or_else(|| "not pinned".to_owned(), |cpu| format!("all on CPU {cpu}"));
        let mut text = format!(
            "Linux {}, {} × {}, {place}; {} lives each; (ratio to {})\n\n\
             A container of one's own that does nothing, from exec to end\n",
            self.kernel, self.cpus, self.processor, self.lives, self.base
        );
        let heads = ["median ms", "p90 ms", "system calls"].map(str::to_owned).to_vec();
        let rows = self.runners.iter().map(|cost| {
            vec![
                format!("{:.2} ({:.2})", cost.median_ms, cost.ratio),
                format!("{:.2}", cost.p90_ms),
                cost.system_calls.to_string(),
            ]
        });
        text += &aligned(heads, self.runners.iter().map(|cost| cost.name.clone()), rows);
        for why in &self.unable {
            text += &format!("  not here: {why}\n");
        }
        text
    }
}
