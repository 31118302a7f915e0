//! Commands that run beside the test: started, listened to, and asked over HTTP.

use std::{
    io::{BufRead, BufReader, Lines, Read, Write},
    net::TcpStream,
    process::{Child, ChildStderr, Stdio},
};

use crate::screen::Folder;

/// Starts the command, and returns it with the lines that it tells.
pub(crate) fn start(folder: &Folder, arguments: &str) -> (Child, Lines<BufReader<ChildStderr>>) {
    let mut child = folder.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    (child, lines)
}

/// Returns the first line that holds `wanted`.
pub(crate) fn wait_for(lines: &mut Lines<BufReader<ChildStderr>>, wanted: &str) -> String {
    lines
        .map(Result::unwrap)
        .find(|line| line.contains(wanted))
        .unwrap_or_else(|| panic!("never said `{wanted}`"))
}

/// Asks a server, and returns all that it answers.
pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
