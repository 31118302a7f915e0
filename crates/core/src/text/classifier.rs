//! A trained text classifier, and what it says of a text.

use recmill_kernels::{Bags, Buffer, Device, Table, embedding_bag};
use serde::{Deserialize, Serialize};

use super::{Encoded, NGramRows, NGrams, TextColumns, TextConfig};
use crate::{Error, Parameter, Parameters, Result, rankers::copy_to};

/// Texts that are scored at a time: what bounds the memory of many.
const SCORED_AT_ONCE: usize = 1024;

/// The classes, how their scores become probabilities, and the columns that both came from; classes.json of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    /// Their names, in the order of the columns of the table of weights.
    pub names: Vec<String>,
    /// What scores are divided by.
    pub temperature: f32,
    /// The least probability of a text that is not out of scope.
    pub threshold: f32,
    /// The columns of the training file.
    pub columns: TextColumns,
}

/// What a classifier says of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guess {
    /// The most likely class; of equally likely ones the first.
    pub class: usize,
    /// How likely it is.
    pub probability: f32,
    /// Whether that is enough: otherwise the text is about none of the classes.
    pub in_scope: bool,
}

/// Tells what texts are about.
///
/// On the CPU an answer does not depend on the texts beside it.
///
/// ```
/// use recmill_core::text::{Classes, NGramRows, TextClassifier, TextColumns, TextConfig};
/// use recmill_kernels::{Device, Table};
///
/// let config = TextConfig { word_ngrams: 1, max_characters: 0, ..TextConfig::default() };
/// let rows = NGramRows::fit(&config, &["hello"]);
/// let weights = Table::from_f32(&[3.0, 0.0], 2, Device::Cpu, "weights")?;
/// let classes = Classes {
///     names: vec!["greeting".into(), "question".into()],
///     temperature: 1.0,
///     threshold: 0.9,
///     columns: TextColumns::default(),
/// };
/// let classifier = TextClassifier::new(config, classes, rows, weights, vec![0.0; 2])?;
///
/// let guesses = classifier.guess(&["Hello!", "what?"])?;
/// assert_eq!((guesses[0].class, guesses[0].in_scope), (0, true));
/// assert_eq!((guesses[1].probability, guesses[1].in_scope), (0.5, false));
/// # Ok::<(), recmill_core::Error>(())
/// ```
#[derive(Debug)]
pub struct TextClassifier {
    config: TextConfig,
    classes: Classes,
    rows: NGramRows,
    weights: Table,
    bias: Vec<f32>,
}

impl TextClassifier {
    /// Puts together what training made.
    ///
    /// # Shapes
    /// - `weights`: `[rows, classes]`; `bias`: `[classes]`
    ///
    /// # Errors
    /// [`Error::WrongSize`], [`Error::Inconsistent`] when the parts do not fit or a number is none to score with.
    pub fn new(
        config: TextConfig,
        classes: Classes,
        rows: NGramRows,
        weights: Table,
        bias: Vec<f32>,
    ) -> Result<Self> {
        let n = classes.names.len();
        let fits = |what, side, expected, got| match expected == got {
            true => Ok(()),
            false => Err(Error::WrongSize { what, side, expected, got }),
        };
        fits("the weights", "classes", n, weights.dim())?;
        fits("the weights", "rows", rows.n_rows(), weights.rows() as usize)?;
        fits("the biases", "classes", n, bias.len())?;
        if n == 0 {
            return Err(Error::Inconsistent { what: "number of classes", at: 0 });
        }
        if !(classes.temperature > 0.0 && classes.temperature.is_finite()) {
            return Err(Error::Inconsistent { what: "temperature", at: 0 });
        }
        if !(0.0..=1.0).contains(&classes.threshold) {
            return Err(Error::Inconsistent { what: "threshold", at: 0 });
        }
        Ok(Self { config, classes, rows, weights, bias })
    }

    /// Opens a model from its parameters.
    ///
    /// # Errors
    /// [`Error::MissingParameter`], and as [`TextClassifier::new`].
    pub fn open(config: &TextConfig, classes: Classes, mut parameters: Parameters) -> Result<Self> {
        let rows = NGramRows::take(config, &mut parameters)?;
        let weights = parameters.take_table("weights")?;
        let bias = parameters.take_f32("bias")?.to_vec()?;
        Self::new(config.clone(), classes, rows, weights, bias)
    }

    /// Returns what the model directory stores beside [`TextClassifier::classes`].
    ///
    /// # Errors
    /// [`Error::Kernel`] when there is no memory for a copy.
    pub fn parameters(&self) -> Result<Parameters> {
        let mut parameters = Parameters::default();
        self.rows.put(&mut parameters)?;
        let weights = self.weights.try_copy(Device::Cpu, "the weights of classes")?;
        parameters.insert("weights", Parameter::Table(self.config.precision.store(&weights)?));
        parameters
            .insert("bias", Parameter::F32(Buffer::from_vec(self.bias.clone(), "the biases of classes")?));
        Ok(parameters)
    }

    /// Moves the weights to `device`, where texts are scored from now on.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the device cannot be used, or has not the memory; then all stays where it was.
    pub fn score_on(&mut self, device: Device) -> Result<()> {
        if device != self.weights.device() {
            self.weights = copy_to(&self.weights, device, "the weights of classes")?;
        }
        Ok(())
    }

    /// Returns the same weights under the name of another configuration, with a temperature that was fitted elsewhere.
    ///
    /// # Errors
    /// As [`TextClassifier::new`].
    pub fn with(self, config: TextConfig, temperature: f32) -> Result<Self> {
        let classes = Classes { temperature, ..self.classes };
        Self::new(config, classes, self.rows, self.weights, self.bias)
    }

    /// Returns how it learned.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// Returns the classes.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// Returns how many different n-grams count.
    pub fn n_rows(&self) -> usize {
        self.rows.n_rows()
    }

    /// Asks for another probability than training chose.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless it is from 0 to 1.
    pub fn set_threshold(&mut self, threshold: f32) -> Result<()> {
        if !(0.0..=1.0).contains(&threshold) {
            return Err(Error::InvalidOption { name: "threshold", expected: "from 0 to 1" });
        }
        self.classes.threshold = threshold;
        Ok(())
    }

    /// Writes the probability of each class for each text to `out`, `[texts, classes]`.
    ///
    /// # Errors
    /// [`Error::Kernel`] when there is no memory, or a score is not finite.
    pub fn probabilities<T: AsRef<str>>(&self, texts: &[T], out: &mut Vec<f32>) -> Result<()> {
        out.clear();
        let (mut ngrams, mut encoded) = (NGrams::new(&self.config), Encoded::default());
        for (at, some) in texts.chunks(SCORED_AT_ONCE).enumerate() {
            encoded.clear();
            some.iter().for_each(|text| self.rows.encode(&mut ngrams, text.as_ref(), |_| true, &mut encoded));
            let bags = Bags::new(&[&self.weights], &[encoded.bags(&self.weights)])?;
            let mut scores = scores(&self.weights, &self.bias, &bags)?;
            if let Some(bad) = scores.iter().position(|score| !score.is_finite()) {
                let row = (at * SCORED_AT_ONCE + bad / self.bias.len()) as u64;
                return Err(recmill_kernels::Error::NotFinite { op: "text", what: "a score", row }.into());
            }
            scores.chunks_exact_mut(self.bias.len()).for_each(|z| softmax(z, self.classes.temperature));
            out.append(&mut scores);
        }
        Ok(())
    }

    /// Returns the most likely class of each text.
    ///
    /// # Errors
    /// As [`TextClassifier::probabilities`].
    pub fn guess<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Guess>> {
        let mut probabilities = Vec::new();
        self.probabilities(texts, &mut probabilities)?;
        Ok(probabilities.chunks_exact(self.bias.len()).map(|row| self.guess_of(row)).collect())
    }

    /// Returns what the probabilities of one text amount to.
    pub fn guess_of(&self, probabilities: &[f32]) -> Guess {
        let (class, probability) = largest(probabilities);
        Guess { class, probability, in_scope: probability >= self.classes.threshold }
    }
}

/// Returns the largest value and the first place that has it.
pub fn largest(values: &[f32]) -> (usize, f32) {
    values
        .iter()
        .copied()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, one| if one.1 > best.1 { one } else { best })
}

/// Returns the scores of each class for each text, `[texts, classes]`.
///
/// # Errors
/// [`Error::Kernel`] when there is no memory.
pub fn scores(weights: &Table, bias: &[f32], bags: &Bags) -> Result<Vec<f32>> {
    let mut scores = embedding_bag(&[weights], bags)?.into_vec()?;
    for row in scores.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
    }
    Ok(scores)
}

/// Turns the scores of one text into probabilities.
pub fn softmax(scores: &mut [f32], temperature: f32) {
    let (_, most) = largest(scores);
    let mut sum = 0.0f64;
    for score in &mut *scores {
        *score = ((*score - most) / temperature).exp();
        sum += f64::from(*score);
    }
    scores.iter_mut().for_each(|score| *score = (f64::from(*score) / sum) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classifier(threshold: f32, temperature: f32) -> Result<TextClassifier> {
        let config = TextConfig { word_ngrams: 1, max_characters: 0, idf: false, ..TextConfig::default() };
        let rows = NGramRows::fit(&config, &["a", "b"]);
        let mut ngrams = NGrams::new(&config);
        // Row 0 is of whichever bucket comes first.
        let mut weights = [[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
        if ngrams.of("a")[0] > ngrams.of("b")[0] {
            weights.reverse();
        }
        let names = ["x", "y", "z"].map(str::to_owned).to_vec();
        let classes = Classes { names, temperature, threshold, columns: TextColumns::default() };
        let weights = Table::from_f32(weights.as_flattened(), 3, Device::Cpu, "weights")?;
        TextClassifier::new(config, classes, rows, weights, vec![0.0, 0.0, 0.5])
    }

    #[test]
    fn probabilities_by_hand() {
        let classifier = classifier(0.5, 2.0).unwrap();
        let mut found = Vec::new();
        classifier.probabilities(&["a", "a B", "never seen"], &mut found).unwrap();
        let half = 0.5f64.sqrt();
        for (found, z) in found.chunks(3).zip([[2.0, 0.0, 0.5], [2.0 * half, half, 0.5], [0.0, 0.0, 0.5]]) {
            let sum: f64 = z.iter().map(|z| (z / 2.0f64).exp()).sum();
            for (found, z) in found.iter().zip(z) {
                assert!((f64::from(*found) - (z / 2.0).exp() / sum).abs() < 1e-6, "{found}");
            }
        }
        let guesses = classifier.guess(&["a", "nothing"]).unwrap();
        assert_eq!((guesses[0].class, guesses[0].in_scope), (0, true));
        assert_eq!((guesses[1].class, guesses[1].in_scope), (2, false));
        // Alone and among others: the same bits.
        let mut alone = Vec::new();
        classifier.probabilities(&["a B"], &mut alone).unwrap();
        assert_eq!(alone, found[3..6]);
        classifier.probabilities(&[""; 0], &mut alone).unwrap();
        assert!(alone.is_empty());
    }

    #[test]
    fn a_classifier_is_what_was_stored() {
        let one = classifier(0.25, 1.5).unwrap();
        let again =
            TextClassifier::open(one.config(), one.classes().clone(), one.parameters().unwrap()).unwrap();
        let texts = ["a", "b b a", ""];
        assert_eq!(one.guess(&texts).unwrap(), again.guess(&texts).unwrap());
        let mut parts = one.parameters().unwrap();
        parts.take("bias");
        assert!(matches!(
            TextClassifier::open(one.config(), one.classes().clone(), parts),
            Err(Error::MissingParameter { name: "bias" })
        ));
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        assert!(classifier(1.5, 1.0).is_err());
        assert!(classifier(f32::NAN, 1.0).is_err());
        assert!(classifier(0.5, 0.0).is_err());
        let mut one = classifier(0.5, 1.0).unwrap();
        assert!(one.set_threshold(-0.1).is_err() && one.set_threshold(1.0).is_ok());
    }
}
