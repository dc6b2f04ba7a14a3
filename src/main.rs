//! The program `postern`: parses the command line and runs [`postern::cli`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    postern::cli::run(postern::cli::Cli::parse()).await
}
