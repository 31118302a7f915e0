//! Sequences whose rows lie behind each other, without padding.

use std::ops::Range;

use crate::{Error, Result};

/// Where each sequence's rows end, ascending; the first begins at row 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequences<'a>(pub(crate) &'a [u32]);

impl<'a> Sequences<'a> {
    /// The rows of all together.
    pub(crate) fn rows(self) -> usize {
        self.0.last().map_or(0, |&end| end as usize)
    }

    /// Refuses ends that descend.
    pub(crate) fn check(self, op: &'static str) -> Result<()> {
        match self.0.windows(2).find(|ends| ends[0] > ends[1]) {
            Some(ends) => {
                let (expected, got) = (ends[0] as usize, ends[1] as usize);
                Err(Error::Shape { op, what: "ends of sequences", expected, got })
            }
            None => Ok(()),
        }
    }

    /// The rows of sequence `at`.
    pub(crate) fn at(self, at: usize) -> Range<usize> {
        let begin = if at == 0 { 0 } else { self.0[at - 1] as usize };
        begin..self.0[at] as usize
    }

    /// The number of rows of each sequence.
    pub(crate) fn lengths(self) -> impl Iterator<Item = usize> + 'a {
        (0..self.0.len()).map(move |at| self.at(at).len())
    }

    /// Cuts `values` of `width` a row into the sequences' own.
    pub(crate) fn cut(self, mut values: &mut [f32], width: usize) -> Vec<&mut [f32]> {
        let piece = |at: usize| {
            let (own, rest) = std::mem::take(&mut values).split_at_mut(self.at(at).len() * width);
            values = rest;
            own
        };
        (0..self.0.len()).map(piece).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_one_sequences_own() {
        let (of, mut values) = (Sequences(&[2, 2, 5]), [0.0; 10]);
        assert_eq!((of.rows(), of.at(0), of.at(1), of.at(2)), (5, 0..2, 2..2, 2..5));
        assert_eq!(of.cut(&mut values, 2).iter().map(|own| own.len()).collect::<Vec<_>>(), [4, 0, 6]);
        assert!(of.check("a test").is_ok());
        assert!(Sequences(&[2, 1]).check("a test").is_err());
        assert_eq!(Sequences(&[]).rows(), 0);
    }
}
