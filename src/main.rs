//! Flags, then configuration, then the gateway.

use std::io::{self, Write};
use std::process::ExitCode;

use portcullis::cli::{self, Command, EXIT_SOFTWARE};

fn main() -> ExitCode {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let done = match cli::parse().command {
        Command::Check(check) => check.run(&|_| Vec::new(), &mut out, &mut err),
        Command::Keygen => cli::keygen(&mut out).map(|()| ExitCode::SUCCESS),
        _ => Err(io::Error::other("this command is not part of this build")),
    };
    done.unwrap_or_else(|error| {
        let _ = writeln!(err, "portcullis: {error}");
        ExitCode::from(EXIT_SOFTWARE)
    })
}
