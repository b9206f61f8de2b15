//! What may be said on the command line? Flags, and the two commands that need no gateway: `check` and `keygen`.

use std::io::{self, Write};
#[cfg(feature = "demo")]
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Parser, Subcommand};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::config::{self, Compile, Report, Summary};
use crate::policy::quarantine::Stopped;

/// Exit code for a configuration with problems (`EX_USAGE` of sysexits.h).
pub const EXIT_CONFIG: u8 = 64;

/// Exit code for a failure of the machine (`EX_SOFTWARE` of sysexits.h).
pub const EXIT_SOFTWARE: u8 = 70;

/// The command line.
#[derive(Clone, Debug, Parser)]
#[command(name = "portcullis", version, about = "Identity-aware edge gateway for MCP", propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serves.
    Run(Run),
    /// Checks configuration files and says everything that is wrong with them.
    #[command(after_help = "Exit codes: 0 all files are in order, 64 at least one has problems.")]
    Check(Check),
    /// Shows the gateway at work on this machine: issuer, tool servers, gateway, all on loopback.
    #[cfg(feature = "demo")]
    Demo(Demo),
    /// Stops a principal, an agent or a tool at once, at every gateway, and ends its open streams; or lets it go.
    #[command(after_help = "Exit codes: 0 done, 64 it cannot be asked so, 70 not done.")]
    Quarantine(Quarantine),
    /// Swaps the running binary and configuration without a lost request.
    #[command(
        after_help = "Exit codes: 0 swapped; 64 the configuration has problems; 70 not swapped. In every case but 0 the running process goes on serving."
    )]
    Upgrade(Upgrade),
    /// Prints a session key: 32 random bytes in base64.
    Keygen,
}

/// `portcullis run`
#[derive(Args, Clone, Debug)]
pub struct Run {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// Takes the listening sockets over from the running process.
    #[arg(long)]
    pub upgrade: bool,
    /// Goes into the background.
    #[arg(long)]
    pub daemon: bool,
}

/// `portcullis check`
#[derive(Args, Clone, Debug)]
pub struct Check {
    /// The configuration file; the same as naming it without the flag.
    #[arg(long, short, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// Configuration files.
    #[arg(value_name = "FILE", required_unless_present = "config")]
    pub files: Vec<PathBuf>,
    /// Leaves secrets and other files that the configuration names unread, as for a file of another machine.
    #[arg(long)]
    pub no_secrets: bool,
}

/// `portcullis demo`
#[cfg(feature = "demo")]
#[derive(Args, Clone, Debug)]
pub struct Demo {
    /// Where the gateway listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Runs the self-check and exits: 0 only if every step held.
    #[arg(long)]
    pub once: bool,
    /// Shows something in particular.
    #[arg(long, value_enum)]
    pub scenario: Option<crate::demo::Scenario>,
}

/// `portcullis quarantine`
#[derive(Args, Clone, Debug)]
pub struct Quarantine {
    /// Where the running process is.
    #[command(flatten)]
    pub place: ControlPlace,
    /// Whom, or what.
    #[command(flatten)]
    pub stopped: StoppedName,
    /// The issuer of the principal or the agent; by default any.
    #[arg(long, value_name = "ISSUER", conflicts_with_all = ["tool", "list"])]
    pub issuer: Option<String>,
    /// The server of the tool; by default any.
    #[arg(long, value_name = "SERVER", conflicts_with_all = ["principal", "agent", "list"])]
    pub server: Option<String>,
    /// For how long, as 30m or 8h; by default until it is lifted.
    #[arg(long = "for", value_name = "DURATION", value_parser = config::duration, conflicts_with_all = ["lift", "list"])]
    pub for_duration: Option<Duration>,
    /// Why; others read it.
    #[arg(long, value_name = "TEXT", default_value = "", conflicts_with_all = ["lift", "list"])]
    pub why: String,
    /// Lets it go.
    #[arg(long, conflicts_with = "list")]
    pub lift: bool,
}

/// Where the running process is: one of the two.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct ControlPlace {
    /// Its configuration file, which names the control socket (server.control_sock).
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The control socket.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// What is stopped or let go: one of them, or none to see all.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct StoppedName {
    /// Somebody who calls, by the subject of their tokens.
    #[arg(long, value_name = "SUBJECT")]
    pub principal: Option<String>,
    /// Software that acts for somebody, by its name.
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// A tool, by its name.
    #[arg(long, value_name = "NAME")]
    pub tool: Option<String>,
    /// Shows what is stopped.
    #[arg(long)]
    pub list: bool,
}

/// `portcullis upgrade`
#[derive(Args, Clone, Debug)]
pub struct Upgrade {
    /// The configuration file of the process to come.
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
}

/// Reads the command line of this process; help, version and usage errors (2) end it here.
#[must_use]
pub fn parse() -> Cli {
    Cli::parse()
}

impl Run {
    /// Starts the same command again in the background.
    ///
    /// A process of its own, not a fork of this one: no thread, lock or socket of ours is carried over, so there is no
    /// moment at which half of the gateway exists. Its log goes where ours goes.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn daemonize(&self) -> io::Result<ExitCode> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.arg("run").arg("--config").arg(&self.config);
        if self.upgrade {
            command.arg("--upgrade");
        }
        // A process group of its own: the keys of this terminal do not reach it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Quarantine {
    /// Whom or what it names; none: it asks for all.
    #[must_use]
    pub fn stopped(&self) -> Option<Stopped> {
        let text = |text: &String| Arc::<str>::from(text.as_str());
        let (issuer, server) = (self.issuer.as_ref().map(text), self.server.as_ref().map(text));
        let StoppedName { principal, agent, tool, .. } = &self.stopped;
        if let Some(subject) = principal {
            return Some(Stopped::Principal { subject: text(subject), issuer });
        }
        if let Some(name) = agent {
            return Some(Stopped::Agent { name: text(name), issuer });
        }
        tool.as_ref().map(|name| Stopped::Tool { name: text(name), server })
    }

    /// The control socket.
    ///
    /// # Errors
    /// A sentence, when the configuration cannot be read or names none.
    pub fn socket(&self) -> Result<PathBuf, String> {
        if let Some(socket) = &self.place.socket {
            return Ok(socket.clone());
        }
        let file = self.place.config.as_deref().unwrap_or(Path::new(""));
        let found = config::control_sock(file)?;
        found
            .ok_or_else(|| format!("{}: server.control_sock must be set: over it the process is asked", file.display()))
    }
}

impl Check {
    /// Every file that was named, either way.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.config.iter().chain(&self.files).map(PathBuf::as_path)
    }

    /// Checks every file. A line on `out` for each that is in order, the report of each other one on `err`, and at the
    /// end the number of problems: 0 or [`EXIT_CONFIG`].
    ///
    /// # Errors
    /// `out` or `err` cannot be written.
    pub fn run(&self, compile: Compile<'_>, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
        let mut problems = 0;
        for file in self.files() {
            let checked: Result<Summary, Report> = if self.no_secrets {
                config::load_shape(file, compile)
            } else {
                config::load(file, compile).map(|config| config.summary())
            };
            match checked {
                Ok(summary) => writeln!(out, "{}: ok ({summary})", file.display())?,
                Err(report) => {
                    problems += report.problems.len();
                    writeln!(err, "{report}")?;
                }
            }
        }
        if problems == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(err, "{}; nothing was changed", config::counted(problems, "problem"))?;
        Ok(ExitCode::from(EXIT_CONFIG))
    }
}

/// Writes a session key: 32 random bytes, base64, newline.
///
/// # Errors
/// The system has no randomness, or `out` cannot be written.
pub fn keygen(out: &mut dyn Write) -> io::Result<()> {
    let mut key = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(key.as_mut()).map_err(|_| io::Error::other("the system has no randomness"))?;
    let text = Zeroizing::new(STANDARD.encode(key.as_ref()));
    writeln!(out, "{}", text.as_str())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn reads_every_command() {
        for line in [
            "run --config a.yaml",
            "run --config a.yaml --upgrade --daemon",
            "upgrade --config a.yaml",
            "check --config a.yaml",
            "check a.yaml b.yaml --no-secrets",
            "keygen",
            "quarantine --config a.yaml --principal alice --issuer https://idp.test --for 1h --why because",
            "quarantine --socket a.sock --agent planner",
            "quarantine -c a.yaml --tool purge --server tickets --lift",
            "quarantine -c a.yaml --list",
        ] {
            let words = std::iter::once("portcullis").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_quarantine_names_one_thing_and_one_place() {
        for line in [
            "--principal alice",
            "-c a.yaml",
            "-c a.yaml --socket a.sock --list",
            "-c a.yaml --principal alice --tool purge",
            "-c a.yaml --tool purge --issuer https://idp.test",
            "-c a.yaml --principal alice --server tickets",
            "-c a.yaml --principal alice --for ever",
            "-c a.yaml --principal alice --lift --for 1h",
        ] {
            let words = ["portcullis", "quarantine"].into_iter().chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(words).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn check_needs_a_file() {
        let error = Cli::try_parse_from(["portcullis", "check"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn check_takes_files_with_and_without_the_flag() {
        let cli = Cli::try_parse_from(["portcullis", "check", "--config", "a.yaml", "b.yaml"]).unwrap();
        let Command::Check(check) = cli.command else { unreachable!("parsed as check") };
        assert_eq!(check.files().collect::<Vec<_>>(), [Path::new("a.yaml"), Path::new("b.yaml")]);
    }

    #[cfg(feature = "demo")]
    #[test]
    fn the_demo_listens_on_loopback_unless_told_otherwise() {
        let cli = Cli::try_parse_from(["portcullis", "demo", "--once"]).unwrap();
        let Command::Demo(demo) = cli.command else { unreachable!("parsed as demo") };
        assert_eq!((demo.listen, demo.once), (SocketAddr::from(([127, 0, 0, 1], 8080)), true));
    }

    #[test]
    fn check_reports_every_file_and_counts_the_problems() {
        let directory = tempfile::tempdir().unwrap();
        let (good, bad) = (directory.path().join("good.yaml"), directory.path().join("bad.yaml"));
        std::fs::write(&good, crate::config::MINIMAL).unwrap();
        std::fs::write(&bad, "listn: 1\n").unwrap();
        let check = Check { config: vec![bad.clone()], files: vec![good.clone()], no_secrets: true };
        let (mut out, mut err) = (Vec::new(), Vec::new());

        let code = check.run(&|_| Vec::new(), &mut out, &mut err).unwrap();

        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(EXIT_CONFIG)));
        assert_eq!(String::from_utf8(out).unwrap(), format!("{}: ok (1 route, 1 server, 1 issuer)\n", good.display()));
        let err = String::from_utf8(err).unwrap();
        assert!(
            err.contains(&format!("{}:1:1: unknown key \"listn\"; did you mean listen?\n", bad.display())),
            "{err}"
        );
        assert!(err.ends_with("\n7 problems; nothing was changed\n"), "{err}");
    }

    #[test]
    fn keygen_writes_a_key_that_the_configuration_accepts() {
        let directory = tempfile::tempdir().unwrap();
        let (key, file) = (directory.path().join("session.key"), directory.path().join("portcullis.yaml"));
        let mut out = Vec::new();
        keygen(&mut out).unwrap();
        assert_eq!((out.len(), out.last()), (45, Some(&b'\n')));
        std::fs::write(&key, &out).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let source = format!("{{ file: {} }}", key.display());
        let text = crate::config::MINIMAL.replace("{ credential: session.key }", &source);
        std::fs::write(&file, text).unwrap();

        let config = config::load(&file, &|_| Vec::new()).unwrap();

        assert_eq!(STANDARD.encode(config.session.keys.first().unwrap().expose()).as_bytes(), out.trim_ascii_end());
    }
}
