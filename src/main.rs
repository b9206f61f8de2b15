//! Flags, then configuration, then the gateway.

use std::io::{self, Write};
use std::process::ExitCode;

use portcullis::cli::{self, Command, EXIT_SOFTWARE};

fn main() -> ExitCode {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let done = match cli::parse().command {
        Command::Check(check) => check.run(&|_| Vec::new(), &mut out, &mut err),
        Command::Keygen => cli::keygen(&mut out).map(|()| ExitCode::SUCCESS),
        #[cfg(feature = "demo")]
        Command::Demo(_) => Err(absent()),
        Command::Run(_) | Command::Upgrade(_) => Err(absent()),
    };
    done.unwrap_or_else(|error| {
        let _ = writeln!(err, "portcullis: {error}");
        ExitCode::from(EXIT_SOFTWARE)
    })
}

fn absent() -> io::Error {
    io::Error::other("this command is not part of this build")
}
