//! Runs the real binary, apart from whatever the user of this machine has set up.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait before looking again.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

/// The binary with `home` for everything that it keeps, and nothing of this process's environment.
pub(crate) fn molecule(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_molecule"));
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("XDG_DATA_HOME", home.join("share"))
        .env("MOLECULE_DATA_DIR", home.join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs `command` to its end, or kills it when that does not come.
pub(crate) fn run(mut command: Command) -> Outcome {
    let began = Instant::now();
    let mut child = command.spawn().expect("the binary starts");
    let stdout = collect(child.stdout.take().expect("its output is piped"));
    let stderr = collect(child.stderr.take().expect("its errors are piped"));
    let code = end(&mut child);
    let read = |reader: thread::JoinHandle<String>| reader.join().expect("what it says is text");
    Outcome { code, stdout: read(stdout), stderr: read(stderr), took: began.elapsed() }
}

/// Waits for the end of `child`, or makes it end and fails.
pub(crate) fn end(child: &mut Child) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status.code();
        }
        if began.elapsed() > PATIENCE {
            // It may end just now; either way it is gone after the wait.
            let _ = child.kill();
            let _ = child.wait();
            panic!("the binary did not end");
        }
        thread::sleep(POLL);
    }
}

/// The processes whose environment mentions `text`, other than this one.
pub(crate) fn processes_that_mention(text: &str) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).expect("pids are small");
    let entries = fs::read_dir("/proc").expect("the process table can be read");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // The environment of a process that ended reads as nothing.
    let mentions = |pid: &i32| {
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|environment| String::from_utf8_lossy(&environment).contains(text))
    };
    pids.filter(|pid| *pid != own).filter(mentions).collect()
}

/// Ends the process at once, if it is still there.
pub(crate) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).expect("what it says is text");
        text
    })
}
