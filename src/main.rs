//! `postern`: the program. Reads the command line and hands over to [`postern::cli`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    postern::cli::run(postern::cli::Cli::parse()).await
}
