//! What is known of a transaction when it happens, as a row of numbers.
//!
//! With the transaction at time `t` and windows `w` of 1, 7 and 30 days:
//!
//! | of           | what                                          | over             |
//! |--------------|-----------------------------------------------|------------------|
//! | itself       | amount; weekend; night, which ends at 7       |                  |
//! | its customer | number and mean amount, this one included     | `(t - w, t]`         |
//! | its terminal | number, and the share of frauds               | `(t - 7 - w, t - 7]` |
//!
//! A fraud is known when the customer complains, which is taken to be 7 days later; what a terminal's last 7 days were is
//! therefore left out. Where a window is empty the share is 0. These are the features of the Handbook that `generate.rs` names,
//! under its names.
//!
//! Cost: two searches a window in what the customer and the terminal had before; amounts are added in cents, exactly.

use std::{collections::HashMap, io::Write, path::Path};

use recmill::features::{ColumnKind, Encoding, FeatureColumn, Numeric, NumericTransform, Schema};

use crate::{
    failure::Result,
    transactions::{DAY, Transaction},
};

/// Days until a fraud is known.
pub(crate) const DELAY: u32 = 7;
/// Days of a window.
const WINDOWS: [u32; 3] = [1, 7, 30];
/// Days before a transaction that its row depends on.
pub(crate) const LOOKS_BACK: u32 = DELAY + WINDOWS[2];
/// The label's column.
pub(crate) const LABEL: &str = "TX_FRAUD";

/// The columns of a [`Row`].
pub(crate) const NAMES: [&str; 15] = [
    "TX_AMOUNT",
    "TX_DURING_WEEKEND",
    "TX_DURING_NIGHT",
    "CUSTOMER_ID_NB_TX_1DAY_WINDOW",
    "CUSTOMER_ID_AVG_AMOUNT_1DAY_WINDOW",
    "CUSTOMER_ID_NB_TX_7DAY_WINDOW",
    "CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW",
    "CUSTOMER_ID_NB_TX_30DAY_WINDOW",
    "CUSTOMER_ID_AVG_AMOUNT_30DAY_WINDOW",
    "TERMINAL_ID_NB_TX_1DAY_WINDOW",
    "TERMINAL_ID_RISK_1DAY_WINDOW",
    "TERMINAL_ID_NB_TX_7DAY_WINDOW",
    "TERMINAL_ID_RISK_7DAY_WINDOW",
    "TERMINAL_ID_NB_TX_30DAY_WINDOW",
    "TERMINAL_ID_RISK_30DAY_WINDOW",
];

/// What is known of one transaction.
pub(crate) type Row = [f64; NAMES.len()];

/// The transactions of a customer or a terminal so far.
#[derive(Default)]
struct History {
    seconds: Vec<i64>,
    /// Of the first, of the first two, and so on: what is added up.
    sums: Vec<u64>,
}

impl History {
    fn push(&mut self, seconds: u32, value: u32) {
        self.sums.push(self.sums.last().copied().unwrap_or(0) + u64::from(value));
        self.seconds.push(seconds.into());
    }

    /// Returns how many there are after second `from`, up to second `to`, and their sum.
    fn window(&self, from: i64, to: i64) -> [f64; 2] {
        let until = |second: i64| self.seconds.partition_point(|&before| before <= second);
        let sum = |n: usize| if n == 0 { 0 } else { self.sums[n - 1] };
        let (from, to) = (until(from), until(to));
        [(to - from) as f64, (sum(to) - sum(from)) as f64]
    }
}

/// Makes a row of each transaction; they are in the order of their times.
pub(crate) fn rows(transactions: &[Transaction]) -> Vec<Row> {
    let mut customers: HashMap<u32, History> = HashMap::new();
    let mut terminals: HashMap<u32, History> = HashMap::new();
    let row = |transaction: &Transaction| {
        let &Transaction { seconds, cents, fraud, .. } = transaction;
        let customer = customers.entry(transaction.customer).or_default();
        customer.push(seconds, cents);
        let terminal = terminals.entry(transaction.terminal).or_default();
        terminal.push(seconds, fraud.into());

        let mut row = [0.0; NAMES.len()];
        row[0] = f64::from(cents) / 100.0;
        row[1] = f64::from(u8::from(matches!(transaction.day() % 7, 0 | 6)));
        row[2] = f64::from(u8::from(seconds % DAY < 7 * 3600));
        let days = |days: u32| i64::from(days) * i64::from(DAY);
        let now = i64::from(seconds);
        let known = now - days(DELAY);
        for (at, width) in WINDOWS.into_iter().enumerate() {
            let [number, cents] = customer.window(now - days(width), now);
            row[3 + 2 * at] = number;
            row[4 + 2 * at] = cents / 100.0 / number;
            let [number, frauds] = terminal.window(known - days(width), known);
            row[9 + 2 * at] = number;
            row[10 + 2 * at] = if number > 0.0 { frauds / number } else { 0.0 };
        }
        row
    };
    transactions.iter().map(row).collect()
}

/// Says what each column of a file of rows is to the model.
pub(crate) fn schema() -> Schema {
    // Beside the number its bucket: an amount above 220, or a terminal with any fraud, is a step and no slope.
    let number = |transform| ColumnKind::Numeric(Numeric { transform, buckets: 32, ..Numeric::default() });
    let mut columns: Vec<FeatureColumn> = NAMES
        .iter()
        .map(|&name| {
            let kind = match name {
                "TX_DURING_WEEKEND" | "TX_DURING_NIGHT" => ColumnKind::Categorical(Encoding::default()),
                _ if name.contains("_RISK_") => number(NumericTransform::Standardize),
                _ => number(NumericTransform::Log),
            };
            FeatureColumn { name: name.to_owned(), kind }
        })
        .collect();
    columns.push(FeatureColumn { name: LABEL.to_owned(), kind: ColumnKind::Label });
    Schema { columns, ..Schema::default() }
}

/// Writes rows with their label, in this order.
pub(crate) fn write<'a>(path: &Path, rows: impl Iterator<Item = (&'a Row, bool)>) -> Result<()> {
    let mut file = std::io::BufWriter::new(fs_err::File::create(path)?);
    writeln!(file, "{},{LABEL}", NAMES.join(","))?;
    for (row, fraud) in rows {
        for value in row {
            write!(file, "{value},")?;
        }
        writeln!(file, "{}", u8::from(fraud))?;
    }
    Ok(file.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generate::{World, generate},
        transactions,
    };

    /// Every earlier transaction looked at.
    fn naive(all: &[Transaction], at: usize) -> Row {
        let one = all[at];
        let ago = |other: &Transaction| f64::from(one.seconds - other.seconds) / f64::from(DAY);
        let before = &all[..=at];
        let mut row = vec![f64::from(one.cents) / 100.0];
        // 1 April 2018, the first day of the source's data, was a Sunday.
        let weekday = ["Su", "Mo", "Tu", "We", "Th", "Fr", "Sa"][(one.seconds / DAY % 7) as usize];
        row.push(if weekday.starts_with('S') { 1.0 } else { 0.0 });
        row.push(if one.seconds % DAY / 3600 <= 6 { 1.0 } else { 0.0 });
        for days in [1.0, 7.0, 30.0] {
            let own = before.iter().filter(|other| other.customer == one.customer && ago(other) < days);
            let amounts: Vec<f64> = own.map(|other| f64::from(other.cents) / 100.0).collect();
            row.push(amounts.len() as f64);
            row.push(amounts.iter().sum::<f64>() / amounts.len() as f64);
        }
        for days in [1.0, 7.0, 30.0] {
            let known = before
                .iter()
                .filter(|other| other.terminal == one.terminal && (7.0..7.0 + days).contains(&ago(other)));
            let frauds: Vec<bool> = known.map(|other| other.fraud).collect();
            row.push(frauds.len() as f64);
            let share = frauds.iter().filter(|&&fraud| fraud).count() as f64 / frauds.len().max(1) as f64;
            row.push(share);
        }
        row.try_into().unwrap()
    }

    fn assert_close(got: &Row, expected: &Row, within: f64, what: &str) {
        for (name, (got, expected)) in NAMES.iter().zip(got.iter().zip(expected)) {
            assert!((got - expected).abs() <= within, "{what}, {name}: {got} is not {expected}");
        }
    }

    #[test]
    fn windows_agree_with_every_earlier_transaction_looked_at() {
        let all = generate(&World { days: 50, customers: 40, terminals: 30, seed: 3 });
        let rows = rows(&all);
        let mut risky = 0;
        for at in (0..all.len()).step_by(3) {
            assert_close(&rows[at], &naive(&all, at), 1e-9, &format!("row {at}"));
            risky += usize::from(rows[at][14] > 0.0);
        }
        assert!(risky > 10, "{risky} rows of {} come from a terminal with a known fraud", all.len());
    }

    #[test]
    fn a_window_begins_after_its_first_second_and_ends_with_its_last() {
        let one = Transaction { seconds: 0, customer: 1, terminal: 1, cents: 100, fraud: true, scenario: 2 };
        let at = |seconds: u32| Transaction { seconds, cents: 300, fraud: false, scenario: 0, ..one };
        let rows = rows(&[one, at(DAY - 1), at(DAY), at(7 * DAY - 1), at(7 * DAY)]);
        let column = |name: &str| NAMES.iter().position(|known| *known == name).unwrap();
        let of = |name: &str| rows.iter().map(|row| row[column(name)]).collect::<Vec<_>>();
        assert_eq!(of("CUSTOMER_ID_NB_TX_1DAY_WINDOW"), [1.0, 2.0, 2.0, 1.0, 2.0]);
        assert_eq!(of("CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW"), [1.0, 2.0, 7.0 / 3.0, 2.5, 3.0]);
        // The fraud is known to the second 7 days later.
        assert_eq!(of("TERMINAL_ID_NB_TX_1DAY_WINDOW"), [0.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(of("TERMINAL_ID_RISK_1DAY_WINDOW"), [0.0, 0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn windows_are_those_of_the_handbook_where_its_file_reaches_back_far_enough() {
        let Some(data) = std::env::var_os("RECMILL_DATA") else {
            println!("skipped: RECMILL_DATA does not name the folder of public data");
            return;
        };
        let content = transactions::read(&Path::new(&data).join("fraud-sim/transactions.csv")).unwrap();
        let expected = content.rows.unwrap();
        let rows = rows(&content.transactions);
        let first = content.transactions[0].day();
        // Four customers pay twice in one second; the file's windows saw these rows in another order than it has them.
        let second = |transaction: &Transaction| (transaction.customer, transaction.seconds);
        let mut payments: HashMap<(u32, u32), u32> = HashMap::new();
        for transaction in &content.transactions {
            *payments.entry(second(transaction)).or_default() += 1;
        }
        // Columns whose windows begin on the file's first day or later, from as many days on.
        for (days, columns) in [(0, 0..3), (1, 3..5), (7, 5..7), (8, 9..11), (14, 11..13)] {
            let mut compared = 0;
            for (at, transaction) in content.transactions.iter().enumerate() {
                if transaction.day() - first < days || payments[&second(transaction)] > 1 {
                    continue;
                }
                for column in columns.clone() {
                    let (got, expected) = (rows[at][column], expected[at][column]);
                    // The file has six digits of each number.
                    assert!(
                        (got - expected).abs() <= 5.1e-6 * expected + 1e-9,
                        "row {at}, {}: {got} is not {expected}",
                        NAMES[column]
                    );
                    compared += 1;
                }
            }
            assert!(compared > 50_000);
        }
    }
}
