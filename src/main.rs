//! Flags, then configuration, then the gateway.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use portcullis::cli::{self, Command, EXIT_CONFIG, EXIT_SOFTWARE};
use portcullis::config::{self, Config};
use portcullis::control::quarantine::socket::Question;
use portcullis::control::quarantine::{Wish, client};
use portcullis::{app, control, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Pingora gives each connection buffers of 64 KiB, of which most streams touch a page or two. In huge pages all of it
    // would be resident: three times the memory, and no request faster. Where the kernel knows no such setting it has no
    // huge pages either.
    let _may_be_unknown = nix::sys::prctl::set_thp_disable(true);
    let command = cli::parse().command;
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "portcullis: {error:#}");
            ExitCode::from(EXIT_SOFTWARE)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check(check) => {
            Ok(check.run(&config::rule_issues, &mut io::stdout().lock(), &mut io::stderr().lock())?)
        }
        Command::Keygen => {
            cli::keygen(&mut io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "demo")]
        Command::Demo(demo) => demonstrate(&demo),
        Command::Run(run) => serve(&run),
        Command::Quarantine(quarantine) => stop(&quarantine),
        Command::Upgrade(upgrade) => {
            let Some(config) = load(&upgrade.config)? else { return Ok(ExitCode::from(EXIT_CONFIG)) };
            control::upgrade::swap(&upgrade.config, &config, &mut io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn serve(run: &cli::Run) -> anyhow::Result<ExitCode> {
    let Some(config) = load(&run.config)? else { return Ok(ExitCode::from(EXIT_CONFIG)) };
    if run.daemon {
        return Ok(run.daemonize()?);
    }
    telemetry::log::init(telemetry::log::FILTER_DEFAULT)?;
    app::run(&run.config, config, run.upgrade)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks the running process to stop somebody or something, or to let it go.
fn stop(quarantine: &cli::Quarantine) -> anyhow::Result<ExitCode> {
    let socket = match quarantine.socket() {
        Ok(socket) => socket,
        Err(problem) => {
            writeln!(io::stderr().lock(), "portcullis: {problem}")?;
            return Ok(ExitCode::from(EXIT_CONFIG));
        }
    };
    let question = match quarantine.stopped() {
        None => Question::List,
        Some(stopped) if quarantine.lift => Question::Lift(stopped),
        Some(stopped) => {
            let for_seconds = quarantine.for_duration.map(|duration| duration.as_secs().max(1));
            Question::Stop(Wish { stopped, for_seconds, why: quarantine.why.clone() })
        }
    };
    let reply = client::ask(&socket, &question)?;
    client::tell(&reply, quarantine.lift, &mut io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

/// The configuration; `None` after its problems were reported.
fn load(path: &Path) -> io::Result<Option<Config>> {
    match config::load(path, &config::rule_issues) {
        Ok(config) => Ok(Some(config)),
        Err(report) => {
            writeln!(io::stderr().lock(), "{report}")?;
            Ok(None)
        }
    }
}

/// The demonstration runs the real gateway, in this process, on the configuration it has written.
#[cfg(feature = "demo")]
fn demonstrate(demo: &cli::Demo) -> anyhow::Result<ExitCode> {
    use portcullis::demo::{self, Until};

    telemetry::log::init(telemetry::log::FILTER_DEMO)?;
    let prepared = demo::prepare(demo.listen, demo.scenario)?;
    let path = prepared.config_path().to_owned();
    let config = config::load(&path, &config::rule_issues).map_err(|report| anyhow::anyhow!("{report}"))?;
    let until = if demo.once { Until::SelfCheck } else { Until::Signal };
    let _thread = demo::spawn(prepared, until, |outcome| std::process::exit(i32::from(!outcome.all_held())))?;
    app::run(&path, config, false)?;
    Ok(ExitCode::SUCCESS)
}
