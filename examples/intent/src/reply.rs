//! What the assistant says: a reply to what it recognises, and otherwise a person takes over.

use std::{collections::BTreeMap, io::Write, path::Path};

use recmill::text::TextClassifier;

use crate::failure::{Failure, Result};

/// What is said where a message is about nothing that the assistant can do.
const HANDED_OVER: &str = "I pass you on to a colleague, who has read what you wrote.";

/// Replies by intent. `{intent}` stands for its name.
pub(crate) struct Replies {
    by_intent: BTreeMap<String, String>,
}

/// One message and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Turn {
    pub(crate) message: String,
    /// The most likely intent.
    pub(crate) intent: String,
    pub(crate) confidence: f32,
    /// Whether a person takes over.
    pub(crate) handed_over: bool,
    pub(crate) reply: String,
}

impl Replies {
    /// Returns those that the example comes with.
    pub(crate) fn built_in() -> Self {
        let texts = [
            ("balance", "Your balances are in the overview; I have opened it for you."),
            ("transfer", "I have prepared the transfer. Please look at it and confirm it with your PIN."),
            (
                "lost_card",
                "I have blocked your card. A new one is on its way; is your address still the same?",
            ),
            (
                "report_lost_card",
                "I have blocked your card. A new one is on its way; is your address still the same?",
            ),
            ("card_declined", "A payment was refused at the limit of your card. Shall I raise it?"),
            ("new_card", "A new card takes three working days. Shall I order it?"),
            ("exchange_rate", "The rate of the day is in the calculator that I have opened."),
            ("travel_notice", "Thank you, I have noted it: your card will work there."),
            ("travel_notification", "Thank you, I have noted it: your card will work there."),
            ("interest", "The interest of each account is in the overview, beside its balance."),
            ("interest_rate", "The interest of each account is in the overview, beside its balance."),
            ("pin", "You can choose a new PIN at any of our machines, or I send you one by post."),
            ("pin_change", "You can choose a new PIN at any of our machines, or I send you one by post."),
            ("person", "Of course. A colleague will be with you in a moment."),
        ];
        let by_intent = texts.map(|(intent, reply)| (intent.to_owned(), reply.to_owned()));
        Self { by_intent: by_intent.into() }
    }

    /// Reads others from a CSV file: an intent and a reply a line, without a header. They go first.
    pub(crate) fn add_from(&mut self, path: &Path) -> Result<()> {
        let failed = |source| Failure::Csv { path: path.to_owned(), source };
        let file = fs_err::File::open(path)?;
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file);
        for (at, record) in reader.records().enumerate() {
            let record = record.map_err(failed)?;
            let [intent, reply] = [0, 1].map(|column| record.get(column).unwrap_or("").trim().to_owned());
            if intent.is_empty() || reply.is_empty() {
                let found = record.iter().collect::<Vec<_>>().join(",");
                return Err(Failure::NoReply { path: path.to_owned(), line: at + 1, found });
            }
            self.by_intent.insert(intent, reply);
        }
        Ok(())
    }

    fn to(&self, intent: &str) -> String {
        let words = intent.replace('_', " ");
        match self.by_intent.get(intent) {
            Some(reply) => reply.replace("{intent}", &words),
            None => format!("Happy to help with \"{words}\". Here is what you can do: ..."),
        }
    }

    /// Answers messages.
    pub(crate) fn answer<T: AsRef<str>>(
        &self,
        classifier: &TextClassifier,
        messages: &[T],
    ) -> Result<Vec<Turn>> {
        let guesses = classifier.guess(messages)?;
        let turns = messages.iter().zip(guesses).map(|(message, guess)| {
            let intent = &classifier.classes().names[guess.class];
            Turn {
                message: message.as_ref().to_owned(),
                intent: intent.clone(),
                confidence: guess.probability,
                handed_over: !guess.in_scope,
                reply: if guess.in_scope { self.to(intent) } else { HANDED_OVER.to_owned() },
            }
        });
        Ok(turns.collect())
    }
}

/// Writes the log of a dialogue as a table: a turn a row.
pub(crate) fn write_log(path: &Path, turns: &[Turn]) -> Result<()> {
    let failed = |source| Failure::Csv { path: path.to_owned(), source };
    let mut writer = csv::Writer::from_path(path).map_err(failed)?;
    writer.write_record(["turn", "message", "intent", "confidence", "decision", "reply"]).map_err(failed)?;
    for (at, turn) in turns.iter().enumerate() {
        let decision = if turn.handed_over { "handed over" } else { "answered" };
        let (number, confidence) = ((at + 1).to_string(), format!("{:.4}", turn.confidence));
        let row = [&number, &turn.message, &turn.intent, &confidence, decision, &turn.reply];
        writer.write_record(row).map_err(failed)?;
    }
    Ok(writer.flush()?)
}

/// Prints turns for a reader.
pub(crate) fn print(out: &mut dyn Write, turns: &[Turn]) -> Result<()> {
    for turn in turns {
        let who = if turn.handed_over { "person" } else { turn.intent.as_str() };
        writeln!(out, "> {}\n  [{who} {:.2}] {}", turn.message, turn.confidence, turn.reply)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_a_file_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replies.csv");
        fs_err::write(&path, "balance,\"Ask me about {intent}, later\"\n").unwrap();
        let mut replies = Replies::built_in();
        replies.add_from(&path).unwrap();
        assert_eq!(replies.to("balance"), "Ask me about balance, later");
        assert!(replies.to("oil_change").contains("oil change"));
        fs_err::write(&path, "balance\n").unwrap();
        let told = replies.add_from(&path).unwrap_err().to_string();
        assert!(told.contains("line 1") && told.contains("balance"), "{told}");
    }
}
