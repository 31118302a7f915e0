//! What the example prints, and the file of its decisions.

use std::{io::Write, path::Path};

use recmill::{metrics::BinaryMetrics, train::gradient::Descent};

use crate::{
    decide::{Scored, decide, is_stopped, share, threshold},
    failure::Result,
    split::{Days, Parts},
    transactions::Transaction,
};

/// The false-positive rates that are shown beside the wanted one.
const RATES: [f64; 5] = [0.001, 0.005, 0.01, 0.02, 0.05];

/// Writes a share in percent, with as many places as it takes and at most two.
pub(crate) fn percent(share: f64) -> String {
    let text = format!("{:.2}", 100.0 * share);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Tells what each part of the days holds.
pub(crate) fn data(out: &mut dyn Write, all: &[Transaction], days: &Days, parts: &Parts) -> Result<()> {
    let frauds = |rows: &[usize]| rows.iter().filter(|&&at| all[at].fraud).count() as u64;
    let everything: Vec<usize> = (0..all.len()).collect();
    let first = all.first().map_or(0, Transaction::day);
    let last = all.last().map_or(0, Transaction::day);
    writeln!(out, "{:<11} {:>9} {:>8} {:>7} {:>7}", "", "days", "rows", "frauds", "share")?;
    for (name, rows, days) in [
        ("all", &everything, first..last + 1),
        ("training", &parts.train, days.train.clone()),
        ("validation", &parts.validation, days.validation.clone()),
        ("test", &parts.test, days.test.clone()),
    ] {
        let (days, frauds, n) = (format!("{}-{}", days.start, days.end - 1), frauds(rows), rows.len());
        writeln!(out, "{name:<11} {days:>9} {n:>8} {frauds:>7} {:>6.2}%", 100.0 * share(frauds, n as u64))?;
    }
    Ok(())
}

/// Tells how training went.
pub(crate) fn training(out: &mut dyn Write, descent: &Descent) -> Result<()> {
    writeln!(out, "\ndcn-v2: {} epochs, kept epoch {}", descent.epochs.len(), descent.kept_epoch)?;
    Ok(())
}

/// Tells how good the scores are.
pub(crate) fn quality(out: &mut dyn Write, validation: &BinaryMetrics, test: &BinaryMetrics) -> Result<()> {
    writeln!(out, "{:<20} {:>10} {:>8}", "", "validation", "test")?;
    let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    for (name, of) in [
        ("auc", [validation.auc, test.auc]),
        ("average precision", [validation.average_precision, test.average_precision]),
        ("predicted/observed", [validation.calibration, test.calibration]),
    ] {
        let [validation, test] = of.map(value);
        writeln!(out, "{name:<20} {validation:>10} {test:>8}")?;
    }
    Ok(())
}

/// Tells what is caught on the test days at thresholds that the validation days set, with `wanted` among them.
pub(crate) fn rates(out: &mut dyn Write, validation: &[Scored], test: &[Scored], wanted: f64) -> Result<()> {
    let mut rates = RATES.to_vec();
    if !rates.contains(&wanted) {
        rates.push(wanted);
        rates.sort_by(f64::total_cmp);
    }
    writeln!(out, "\nfalse-positive rate               of the test days' frauds")?;
    writeln!(out, "   wanted   on test  threshold    caught    money  precision")?;
    for rate in rates {
        let threshold = threshold(validation, rate);
        let decisions = decide(test, threshold);
        writeln!(
            out,
            "{} {:>7} {:>8.2}% {threshold:>10.4} {:>8.1}% {:>7.1}% {:>9.1}%",
            if rate == wanted { '>' } else { ' ' },
            percent(rate),
            100.0 * decisions.false_positive_rate(),
            100.0 * decisions.recall(),
            100.0 * share(decisions.caught_cents, decisions.fraud_cents),
            100.0 * decisions.precision(),
        )?;
    }
    Ok(())
}

/// Tells what the chosen threshold does on the test days.
pub(crate) fn decisions(out: &mut dyn Write, test: &[Scored], threshold: f32) -> Result<()> {
    let all = decide(test, threshold);
    let money = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);
    writeln!(out, "\nat threshold {threshold:.4}:")?;
    writeln!(out, "  caught        {} of {} frauds", all.caught, all.frauds)?;
    writeln!(out, "  money         {} of {}", money(all.caught_cents), money(all.fraud_cents))?;
    writeln!(out, "  false alarms  {} of {} honest transactions", all.false_alarms, all.honest)?;
    for (scenario, what) in [(1, "large amounts"), (2, "terminals"), (3, "stolen cards")] {
        let of = decide(test.iter().filter(|row| row.transaction.scenario == scenario), threshold);
        if of.frauds > 0 {
            writeln!(out, "  {what:<13} {} of {} caught", of.caught, of.frauds)?;
        }
    }
    Ok(())
}

/// Writes each transaction of the test days with its score and whether it is stopped.
pub(crate) fn write_decisions(path: &Path, test: &[Scored], threshold: f32) -> Result<()> {
    let mut file = std::io::BufWriter::new(fs_err::File::create(path)?);
    writeln!(file, "TX_TIME_SECONDS,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT,TX_FRAUD,score,stopped")?;
    for Scored { score, transaction } in test {
        let &Transaction { seconds, customer, terminal, cents, fraud, .. } = transaction;
        let amount = format_args!("{}.{:02}", cents / 100, cents % 100);
        let [fraud, stopped] = [fraud, is_stopped(*score, threshold)].map(u8::from);
        writeln!(file, "{seconds},{customer},{terminal},{amount},{fraud},{score},{stopped}")?;
    }
    Ok(file.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_no_needless_places() {
        let all = [0.01, 0.005, 0.1, 0.0012, 1.0].map(percent);
        assert_eq!(all, ["1%", "0.5%", "10%", "0.12%", "100%"]);
    }
}
