//! Recognising what a text is about: hashed n-grams -> weights of classes -> a calibrated probability, or none of them.
//!
//! ```text
//! text      "How are you?"  ->  words  how | are | you | ?          lower case; signs are words of their own
//! n-grams   how, how are, ..   and within words   " h", "ho", ..    each to one of `buckets` by its hash
//! w_g       idf_g / |idf of the text's n-grams|                      each n-gram once, however often it is there
//! z_c       b_c + Σ_g w_g W_gc                                       one row of W an n-gram, one column a class
//! p_c       softmax(z / T)                                           T: temperature, fitted on held-out texts
//! ```
//!
//! A text whose largest `p_c` is below a threshold is out of scope: it is about none of the classes. Temperature and
//! threshold are chosen on texts that `W` was not learned from.
//!
//! Sources: Joulin, Grave, Bojanowski, Mikolov 2016, "Bag of tricks for efficient text classification" (hashed n-grams); Guo,
//! Pleiss, Sun, Weinberger 2017, "On calibration of modern neural networks" (temperature); Larson et al. 2019, "An evaluation
//! dataset for intent classification and out-of-scope prediction" (the threshold's rule).

mod calibration;
mod classifier;
mod config;
mod measured;
mod ngrams;
mod texts;

pub use calibration::{fit_temperature, fit_threshold};
pub use classifier::{Classes, Guess, TextClassifier, largest, scores, softmax};
pub use config::TextConfig;
pub use measured::{ClassMeasured, TextMeasured, TextMeasuring};
pub use ngrams::{Encoded, MAX_TEXT_BYTES, NGramRows, NGrams};
pub use texts::{TextColumns, TextReader, TextRows, find_text_columns, read_texts};
