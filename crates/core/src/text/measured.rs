//! How well a classifier tells what texts are about, those included that are about nothing it knows.
//!
//! | metric                     | value                                                                                     |
//! |----------------------------|-------------------------------------------------------------------------------------------|
//! | accuracy                   | share of the texts in scope whose class is guessed rightly and that are not turned away     |
//! | accuracy_unrejected        | the same, were no text turned away                                                        |
//! | macro_f1                   | mean over the classes of `2 h / (guessed + there)`; a text that is turned away is not guessed |
//! | logloss                    | mean of `-ln p` of the right class, with `p` at least `2^-23`                                |
//! | expected_calibration_error | `Σ_b n_b / n \|mean p - share that is right\|` of the most likely class, in ten bins of `p`  |
//! | out_of_scope_recall        | share of the texts out of scope that are turned away                                      |
//! | out_of_scope_precision     | share of the texts turned away that are out of scope                                      |
//!
//! A text whose label is no class of the model, nor the one for texts out of scope, is in scope and guessed wrongly, or
//! wrongly turned away; it does not count for logloss.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Guess, TextClassifier};

const BINS: usize = 10;

/// Adds up guesses.
#[derive(Debug)]
pub struct TextMeasuring<'a> {
    classifier: &'a TextClassifier,
    /// Texts of each class: there, guessed, guessed rightly.
    classes: Vec<[u64; 3]>,
    in_scope: u64,
    out_of_scope: u64,
    unknown: u64,
    right: u64,
    accepted_right: u64,
    rejected: [u64; 2],
    loss: f64,
    /// Texts, their probabilities, how many are right.
    bins: [(u64, f64, u64); BINS],
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct TextMeasured {
    /// By name; what the texts do not define is not there.
    pub metrics: BTreeMap<String, f64>,
    /// Texts in scope.
    pub in_scope: u64,
    /// Texts out of scope.
    pub out_of_scope: u64,
    /// Of those in scope the ones whose label the model does not know.
    pub unknown: u64,
    /// The classes that texts in scope are of, that with the smallest share of rightly guessed texts first.
    pub classes: Vec<ClassMeasured>,
}

/// How well texts of one class are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassMeasured {
    /// The class.
    pub class: String,
    /// Its texts.
    pub texts: u64,
    /// Those of them that were guessed rightly and not turned away.
    pub right: u64,
}

impl TextMeasured {
    /// Returns the accuracy of guessing the most frequent class of these texts for all of them; nothing where none is in scope.
    pub fn accuracy_of_most_frequent(&self) -> Option<f64> {
        let most = self.classes.iter().map(|class| class.texts).max()?;
        Some(most as f64 / self.in_scope as f64)
    }
}

impl<'a> TextMeasuring<'a> {
    /// Begins with no text.
    pub fn new(classifier: &'a TextClassifier) -> Self {
        let classes = vec![[0; 3]; classifier.classes().names.len()];
        Self {
            classifier,
            classes,
            in_scope: 0,
            out_of_scope: 0,
            unknown: 0,
            right: 0,
            accepted_right: 0,
            rejected: [0; 2],
            loss: 0.0,
            bins: [(0, 0.0, 0); BINS],
        }
    }

    /// Adds texts with their labels.
    ///
    /// # Shapes
    /// - `probabilities`: `[labels, classes]`
    pub fn add<T: AsRef<str>>(&mut self, probabilities: &[f32], labels: &[T]) {
        let names = &self.classifier.classes().names;
        let none = &self.classifier.config().out_of_scope;
        for (probabilities, label) in probabilities.chunks_exact(names.len()).zip(labels) {
            let guess = self.classifier.guess_of(probabilities);
            let class = names.iter().position(|name| name == label.as_ref());
            if guess.in_scope {
                self.classes[guess.class][1] += 1;
            }
            match class {
                None if label.as_ref() == none => {
                    self.out_of_scope += 1;
                    self.rejected[1] += u64::from(!guess.in_scope);
                }
                class => self.add_in_scope(guess, probabilities, class),
            }
        }
    }

    fn add_in_scope(&mut self, guess: Guess, probabilities: &[f32], class: Option<usize>) {
        let right = class == Some(guess.class);
        self.in_scope += 1;
        self.right += u64::from(right);
        self.accepted_right += u64::from(right && guess.in_scope);
        self.rejected[0] += u64::from(!guess.in_scope);
        match class {
            Some(class) => {
                self.classes[class][0] += 1;
                self.classes[class][2] += u64::from(right && guess.in_scope);
                self.loss -= f64::from(probabilities[class].max(f32::EPSILON)).ln();
            }
            None => self.unknown += 1,
        }
        let bin = ((guess.probability * BINS as f32) as usize).min(BINS - 1);
        let (texts, sum, rightly) = &mut self.bins[bin];
        (*texts, *sum, *rightly) =
            (*texts + 1, *sum + f64::from(guess.probability), *rightly + u64::from(right));
    }

    /// Returns what all of them amount to.
    pub fn finish(self) -> TextMeasured {
        let n = self.in_scope as f64;
        let known = (self.in_scope - self.unknown) as f64;
        let f1 = |&[there, guessed, right]: &[u64; 3]| 2.0 * right as f64 / (there + guessed) as f64;
        let met: Vec<f64> = self.classes.iter().filter(|class| class[0] + class[1] > 0).map(f1).collect();
        let off = |&(texts, sum, right): &(u64, f64, u64)| match texts {
            0 => 0.0,
            _ => (sum - right as f64).abs(),
        };
        let turned_away = self.rejected[0] + self.rejected[1];
        let all = [
            ("accuracy", self.accepted_right as f64 / n),
            ("accuracy_unrejected", self.right as f64 / n),
            ("macro_f1", met.iter().sum::<f64>() / met.len() as f64),
            ("logloss", self.loss / known),
            ("expected_calibration_error", self.bins.iter().map(off).sum::<f64>() / n),
            ("out_of_scope_recall", self.rejected[1] as f64 / self.out_of_scope as f64),
            (
                "out_of_scope_precision",
                if self.out_of_scope > 0 { self.rejected[1] as f64 / turned_away as f64 } else { f64::NAN },
            ),
        ];
        let metrics = all.into_iter().filter(|(_, value)| value.is_finite());
        let names = self.classifier.classes().names.iter();
        let met = names.zip(&self.classes).filter(|(_, [texts, ..])| *texts > 0);
        let mut classes: Vec<ClassMeasured> = met
            .map(|(class, &[texts, _, right])| ClassMeasured { class: class.clone(), texts, right })
            .collect();
        let share = |class: &ClassMeasured| class.right as f64 / class.texts as f64;
        classes.sort_by(|a, b| share(a).total_cmp(&share(b)));
        TextMeasured {
            metrics: metrics.map(|(name, value)| (name.to_owned(), value)).collect(),
            in_scope: self.in_scope,
            out_of_scope: self.out_of_scope,
            unknown: self.unknown,
            classes,
        }
    }
}

#[cfg(test)]
mod tests {
    use recmill_kernels::{Device, Table};

    use super::*;
    use crate::text::{Classes, NGramRows, TextColumns, TextConfig};

    #[test]
    fn metrics_by_hand() {
        let config = TextConfig { word_ngrams: 1, max_characters: 0, ..TextConfig::default() };
        let rows = NGramRows::fit(&config, &["w"]);
        let classes = Classes {
            names: vec!["a".into(), "b".into()],
            temperature: 1.0,
            threshold: 0.6,
            columns: TextColumns::default(),
        };
        let weights = Table::zeros(1, 2, Device::Cpu, "weights").unwrap();
        let classifier = TextClassifier::new(config, classes, rows, weights, vec![0.0; 2]).unwrap();
        let mut measuring = TextMeasuring::new(&classifier);
        // Right; right but turned away; wrong; a label that nobody knows; out of scope: turned away, and not.
        let probabilities = [0.9, 0.1, 0.45, 0.55, 0.8, 0.2, 0.7, 0.3, 0.5, 0.5, 0.25, 0.75];
        measuring.add(&probabilities, &["a", "b", "b", "c", "oos", "oos"]);
        let measured = measuring.finish();
        assert_eq!((measured.in_scope, measured.out_of_scope, measured.unknown), (4, 2, 1));
        let is = |name: &str, expected: f64| {
            let found = measured.metrics[name];
            assert!((found - expected).abs() < 1e-6, "{name}: {found}");
        };
        is("accuracy", 0.25);
        is("accuracy_unrejected", 0.5);
        // a: there once, guessed three times, right once; b: there twice, guessed once, never right.
        is("macro_f1", 0.5 * (2.0 / 4.0));
        is("logloss", -(0.9f64.ln() + 0.55f64.ln() + 0.2f64.ln()) / 3.0);
        is("expected_calibration_error", (0.1 + 0.45 + 0.8 + 0.7) / 4.0);
        is("out_of_scope_recall", 0.5);
        is("out_of_scope_precision", 0.5);
        let class = |class: &str, texts, right| ClassMeasured { class: class.to_owned(), texts, right };
        assert_eq!(measured.classes, [class("b", 2, 0), class("a", 1, 1)], "the worst first");
        assert_eq!(measured.accuracy_of_most_frequent(), Some(0.5));

        let nothing = TextMeasuring::new(&classifier).finish();
        assert!(nothing.metrics.is_empty(), "{nothing:?}");
    }
}
