//! Card transactions, and the file that they stand in.
//!
//! | column              | is                                                                    |
//! |---------------------|-----------------------------------------------------------------------|
//! | `TX_TIME_SECONDS`   | seconds since the start of a Sunday; rows ascend by it                |
//! | `CUSTOMER_ID`       | a number                                                              |
//! | `TERMINAL_ID`       | a number                                                              |
//! | `TX_AMOUNT`         | money                                                                 |
//! | `TX_FRAUD`          | 1 for a fraud, else 0                                                 |
//! | `TX_FRAUD_SCENARIO` | of a fraud which kind, of others 0; may be left out                   |
//!
//! Other columns are ignored, but for those of [`NAMES`]: a file that has them all has been given its windows, by someone who
//! knew of more days than the file holds, and they are taken as they are.

use std::{io::Write, path::Path};

use crate::{
    failure::{Failure, Result},
    features::{NAMES, Row},
};

/// Seconds.
pub(crate) const DAY: u32 = 86_400;

const COLUMNS: [&str; 6] =
    ["TX_TIME_SECONDS", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD", "TX_FRAUD_SCENARIO"];

/// One payment with a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transaction {
    /// Since the start of a Sunday.
    pub(crate) seconds: u32,
    pub(crate) customer: u32,
    pub(crate) terminal: u32,
    pub(crate) cents: u32,
    pub(crate) fraud: bool,
    /// Of a fraud which kind, where that is known; else 0.
    pub(crate) scenario: u8,
}

impl Transaction {
    /// Returns the day, from 0, which is a Sunday.
    pub(crate) fn day(&self) -> u32 {
        self.seconds / DAY
    }
}

/// Writes the columns above.
pub(crate) fn write(path: &Path, all: &[Transaction]) -> Result<()> {
    let mut file = std::io::BufWriter::new(fs_err::File::create(path)?);
    writeln!(file, "{}", COLUMNS.join(","))?;
    for &Transaction { seconds, customer, terminal, cents, fraud, scenario } in all {
        let (whole, cents) = (cents / 100, cents % 100);
        writeln!(file, "{seconds},{customer},{terminal},{whole}.{cents:02},{},{scenario}", u8::from(fraud))?;
    }
    Ok(file.flush()?)
}

/// What a file holds.
#[derive(Debug)]
pub(crate) struct FileContent {
    pub(crate) transactions: Vec<Transaction>,
    /// A row of features for each transaction, where the file has their columns.
    pub(crate) rows: Option<Vec<Row>>,
}

/// Reads a file of transactions.
///
/// # Errors
/// A file that cannot be read, that lacks a column, with a cell that is not what it should be, or out of order.
pub(crate) fn read(path: &Path) -> Result<FileContent> {
    let mut reader = csv::Reader::from_reader(std::io::BufReader::new(fs_err::File::open(path)?));
    let in_file = |source| Failure::Csv { path: path.to_owned(), source };
    let header = reader.headers().map_err(in_file)?.clone();
    let place = |name: &str| header.iter().position(|column| column == name);
    let needed = |name: &'static str| {
        place(name).ok_or_else(|| Failure::NoColumn { path: path.to_owned(), column: name })
    };
    let [seconds, customer, terminal, amount, fraud] = [
        needed(COLUMNS[0])?,
        needed(COLUMNS[1])?,
        needed(COLUMNS[2])?,
        needed(COLUMNS[3])?,
        needed(COLUMNS[4])?,
    ];
    let scenario = place(COLUMNS[5]);
    let windows: Option<Vec<usize>> = NAMES.iter().map(|name| place(name)).collect();

    let mut transactions: Vec<Transaction> = Vec::new();
    let mut rows = windows.is_some().then(Vec::new);
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(in_file)? {
        let line = record.position().map_or(0, csv::Position::line);
        let bad = |column: usize, expected| Failure::BadCell {
            path: path.to_owned(),
            line,
            column: header[column].to_owned(),
            expected,
            found: record[column].to_owned(),
        };
        let whole = |column: usize| record[column].parse().map_err(|_| bad(column, "a whole number"));
        let number = |column: usize| match record[column].parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(bad(column, "a number")),
        };
        let cents = number(amount)? * 100.0;
        if !(0.0..=f64::from(u32::MAX)).contains(&cents) {
            return Err(bad(amount, "an amount of at least 0, below 40 million"));
        }
        let transaction = Transaction {
            seconds: whole(seconds)?,
            customer: whole(customer)?,
            terminal: whole(terminal)?,
            cents: cents.round() as u32,
            fraud: match &record[fraud] {
                "0" => false,
                "1" => true,
                _ => return Err(bad(fraud, "0 or 1")),
            },
            scenario: match scenario {
                Some(column) => record[column].parse().map_err(|_| bad(column, "a number below 256"))?,
                None => 0,
            },
        };
        if transactions.last().is_some_and(|before| before.seconds > transaction.seconds) {
            return Err(bad(seconds, "a time not before that of the row above"));
        }
        transactions.push(transaction);
        if let (Some(rows), Some(windows)) = (&mut rows, &windows) {
            let mut row = [0.0; NAMES.len()];
            for (value, &column) in row.iter_mut().zip(windows) {
                *value = number(column)?;
            }
            rows.push(row);
        }
    }
    if transactions.is_empty() {
        return Err(Failure::Empty { path: path.to_owned() });
    }
    Ok(FileContent { transactions, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        fs_err::write(&path, text).unwrap();
        read(&path).unwrap_err().to_string().replace(&path.display().to_string(), "t.csv")
    }

    #[test]
    fn what_is_written_is_read_back() {
        let one = Transaction { seconds: 5, customer: 1, terminal: 2, cents: 1234, fraud: true, scenario: 3 };
        let all = [one, Transaction { seconds: DAY + 5, cents: 7, fraud: false, scenario: 0, ..one }];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("transactions.csv");
        write(&path, &all).unwrap();
        let content = read(&path).unwrap();
        assert_eq!(content.transactions, all);
        assert_eq!(content.rows, None);
        assert_eq!([all[0].day(), all[1].day()], [0, 1]);
    }

    #[test]
    fn windows_that_a_file_has_are_taken() {
        let text = format!(
            "TX_TIME_SECONDS,CUSTOMER_ID,TERMINAL_ID,TX_FRAUD,{}\n9,1,2,1,12.5{}\n",
            NAMES.join(","),
            ",3".repeat(NAMES.len() - 1)
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        fs_err::write(&path, text).unwrap();
        let content = read(&path).unwrap();
        assert_eq!(content.transactions[0].cents, 1250);
        let mut expected = [3.0; NAMES.len()];
        expected[0] = 12.5;
        assert_eq!(content.rows.unwrap(), [expected]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_column() {
        let header = "TX_TIME_SECONDS,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT,TX_FRAUD\n";
        assert_eq!(told("a,b\n1,2\n"), "t.csv: there is no column `TX_TIME_SECONDS`");
        assert_eq!(told(header), "t.csv: there is no transaction");
        for (row, expected) in [
            ("5,one,2,3.5,0", "line 2, column CUSTOMER_ID: expected a whole number, found `one`"),
            ("5,1,2,NaN,0", "line 2, column TX_AMOUNT: expected a number, found `NaN`"),
            (
                "5,1,2,-1,0",
                "line 2, column TX_AMOUNT: expected an amount of at least 0, below 40 million, found `-1`",
            ),
            ("5,1,2,3,yes", "line 2, column TX_FRAUD: expected 0 or 1, found `yes`"),
        ] {
            assert_eq!(told(&format!("{header}{row}\n")), format!("t.csv, {expected}"));
        }
        assert_eq!(
            told(&format!("{header}5,1,2,3,0\n4,1,2,3,0\n")),
            "t.csv, line 3, column TX_TIME_SECONDS: expected a time not before that of the row above, found `4`"
        );
    }
}
