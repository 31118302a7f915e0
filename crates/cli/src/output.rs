//! The two ways out: data to standard output, everything else to standard error.
//!
//! Standard output holds results alone, so that with one seed it is the same byte for byte; times, rates, progress and
//! notes go to standard error and may be thrown away.

use std::{
    fmt,
    io::{self, BufWriter, IsTerminal, Stdout, Write},
};

use serde::Serialize;

use crate::{failure::Result, progress};

/// Standard output, buffered.
pub(crate) struct Out(BufWriter<Stdout>);

impl Out {
    /// Buffers standard output.
    pub(crate) fn new() -> Self {
        Self(BufWriter::with_capacity(1 << 16, io::stdout()))
    }

    /// Writes `value` as one JSON object with a line end.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer_pretty(&mut self.0, value).map_err(io::Error::from)?;
        self.0.write_all(b"\n")?;
        Ok(())
    }

    /// Writes what is buffered, and says whether that worked; a drop would swallow the error.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.0.flush()?;
        Ok(())
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether standard output is a terminal, where binary data would do harm.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes a line to standard error, above any progress bar.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    // Nobody is left to be told when standard error is closed.
    progress::above_bars(|| drop(writeln!(io::stderr(), "{line}")));
}

/// Writes a line to standard error unless `--quiet` is given: `note!("read {n} rows")`.
macro_rules! note {
    ($($arg:tt)*) => {
        if !$crate::progress::is_silent() {
            $crate::output::say(format_args!($($arg)*))
        }
    };
}
pub(crate) use note;

/// Writes a line to standard error, `--quiet` or not, for what may spoil the result: `warning!("the file is empty")`.
macro_rules! warning {
    ($($arg:tt)*) => { $crate::output::say(format_args!("warning: {}", format_args!($($arg)*))) };
}
pub(crate) use warning;

/// Sends the library's log lines where [`say`] writes.
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        progress::above_bars(|| drop(io::stderr().write_all(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A number with its thousands set apart: `1,000,209`.
pub(crate) fn count(n: impl TryInto<u64>) -> String {
    let digits = n.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `n things`, or `1 thing`.
pub(crate) fn counted(n: impl TryInto<u64>, thing: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    let ending = if n == 1 { "" } else { "s" };
    format!("{} {thing}{ending}", count(n))
}

/// Bytes in the unit that fits: `3.4 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (n.max(1).ilog2() / 10) as usize;
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{:.1} {}", n as f64 / 1024f64.powi(unit as i32), units[unit])
    }
}

/// Seconds with as many digits as matter: `0.42 s`, `12.3 s`, `4 min 07 s`.
pub(crate) fn seconds(s: f64) -> String {
    match s {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 100.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
        s => format!("{} h {:02} min", s as u64 / 3600, s as u64 / 60 % 60),
    }
}

/// Lines up cells in columns, two spaces apart; columns of numbers to the right. The last column is never padded.
pub(crate) fn columns(out: &mut impl Write, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |text: &str| text.chars().count();
    let numeric = |column: usize| {
        rows.iter().all(|row| row.get(column).is_some_and(|cell| cell == "-" || cell.parse::<f64>().is_ok()))
    };
    let columns: Vec<(usize, bool)> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell));
            (cells.chain([width(head[column])]).max().unwrap_or(0), !rows.is_empty() && numeric(column))
        })
        .collect();
    let mut line = String::new();
    let mut write_row = |cells: &mut dyn Iterator<Item = &str>| {
        line.clear();
        for (column, (cell, &(wide, right))) in cells.zip(&columns).enumerate() {
            let padding = " ".repeat(wide.saturating_sub(width(cell)));
            line.push_str(if column > 0 { "  " } else { "" });
            if right {
                line.push_str(&padding);
            }
            line.push_str(cell);
            if !right {
                line.push_str(&padding);
            }
        }
        writeln!(out, "{}", line.trim_end())
    };
    write_row(&mut head.iter().copied())?;
    for row in rows {
        write_row(&mut row.iter().map(String::as_str))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0u64), "0");
        assert_eq!(count(999u64), "999");
        assert_eq!(count(1_000_209u64), "1,000,209");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!((counted(1u8, "user"), counted(2u8, "user")), ("1 user".into(), "2 users".into()));
        assert_eq!(
            (seconds(0.5), seconds(161.0), seconds(7260.0)),
            ("0.50 s".into(), "2 min 41 s".into(), "2 h 01 min".into())
        );
    }

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        let mut text = Vec::new();
        let rows =
            vec![vec!["1".into(), "a".into(), "x".into()], vec!["10".into(), "bbb".into(), "y y".into()]];
        columns(&mut text, &["rank", "item", "title"], &rows).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "rank  item  title\n   1  a     x\n  10  bbb   y y\n");
    }
}
