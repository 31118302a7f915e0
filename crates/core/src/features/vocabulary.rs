//! The categories of a field: a sorted list, in which a category's place is its index.
//!
//! Counting holds at most `max_size` categories at a time. When there is no room for another, those with the fewest rows
//! go until half the room is free (Manku and Motwani 2002, lossy counting, by room instead of by error); what comes
//! back is counted from 1 again. Which ones go depends on the order of the file and on nothing else.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{IdMap, Result};

/// The categories of a field, sorted by their bytes.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    names: IdMap,
}

impl Vocabulary {
    /// Makes one of these categories, in any order; those that are there twice count once.
    ///
    /// # Errors
    /// [`crate::Error::TooManyIds`] when there are more than u32 can number.
    pub fn new(mut names: Vec<String>) -> Result<Self> {
        names.sort_unstable();
        let mut sorted = IdMap::default();
        for name in &names {
            sorted.get_or_insert(name)?;
        }
        Ok(Self { names: sorted })
    }

    /// Returns the number of categories.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Returns the place of `name`, from 0; the field's index is one more.
    pub fn get(&self, name: &str) -> Option<u32> {
        self.names.get(name)
    }

    /// Returns the category at a place.
    pub fn name(&self, place: u32) -> Option<&str> {
        self.names.name(place)
    }

    /// Returns all categories, sorted.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter()
    }
}

impl PartialEq for Vocabulary {
    fn eq(&self, other: &Self) -> bool {
        self.names.ends() == other.names.ends() && self.names.bytes() == other.names.bytes()
    }
}

impl Serialize for Vocabulary {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::new(Vec::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Counts the categories of one field.
pub(super) struct Counter {
    names: IdMap,
    counts: Vec<u64>,
    min_count: u64,
    max_size: usize,
    left_out: u64,
}

impl Counter {
    pub(super) fn new(min_count: u32, max_size: u32) -> Self {
        let (names, counts) = (IdMap::default(), Vec::new());
        Self { names, counts, min_count: u64::from(min_count), max_size: max_size as usize, left_out: 0 }
    }

    pub(super) fn add(&mut self, name: &str) -> Result<()> {
        if let Some(index) = self.names.get(name) {
            self.counts[index as usize] += 1;
            return Ok(());
        }
        if self.counts.len() >= self.max_size {
            self.make_room(self.max_size / 2);
        }
        self.names.get_or_insert(name)?;
        self.counts.push(1);
        Ok(())
    }

    /// Keeps at most `kept` categories, those in the most rows; of equals the earlier.
    fn make_room(&mut self, kept: usize) {
        let mut order: Vec<u32> = (0..self.counts.len() as u32).collect();
        order.sort_unstable_by_key(|&index| (std::cmp::Reverse(self.counts[index as usize]), index));
        let mut keep = vec![false; self.counts.len()];
        order.iter().take(kept).for_each(|&index| keep[index as usize] = true);
        self.left_out += (self.counts.len() - kept.min(self.counts.len())) as u64;
        self.retain(&keep);
    }

    fn retain(&mut self, keep: &[bool]) {
        self.names.retain(keep);
        let mut keep = keep.iter();
        self.counts.retain(|_| keep.next().copied().unwrap_or(false));
    }

    /// Returns the categories in enough rows, and how many were left out for want of room.
    pub(super) fn finish(mut self) -> Result<(Vocabulary, u64)> {
        let keep: Vec<bool> = self.counts.iter().map(|&count| count >= self.min_count).collect();
        self.retain(&keep);
        let names = self.names.iter().map(str::to_owned).collect();
        Ok((Vocabulary::new(names)?, self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(min_count: u32, max_size: u32, names: &str) -> (Vec<String>, u64) {
        let mut counter = Counter::new(min_count, max_size);
        names.split(' ').for_each(|name| counter.add(name).unwrap());
        let (vocabulary, left_out) = counter.finish().unwrap();
        (vocabulary.iter().map(str::to_owned).collect(), left_out)
    }

    #[test]
    fn rare_categories_are_left_out_and_the_others_sorted() {
        assert_eq!(counted(2, 100, "b a c b a b"), (vec!["a".into(), "b".into()], 0));
        assert_eq!(counted(1, 100, "b a c"), (vec!["a".into(), "b".into(), "c".into()], 0));
        assert_eq!(counted(9, 100, "b a c"), (vec![], 0));
    }

    #[test]
    fn the_rarest_make_room_and_are_counted() {
        // At `e` four are there: `a` (3) and `b` (2) stay.
        assert_eq!(counted(1, 4, "a b c d a b a e"), (vec!["a".into(), "b".into(), "e".into()], 2));
        // Of equals the earlier stay; one place always remains for the newest.
        assert_eq!(counted(1, 1, "a b c"), (vec!["c".into()], 2));
    }

    #[test]
    fn json_is_a_list_of_names() {
        let vocabulary = Vocabulary::new(vec!["b".into(), "a".into(), "b".into()]).unwrap();
        let text = serde_json::to_string(&vocabulary).unwrap();
        assert_eq!(text, r#"["a","b"]"#);
        let read: Vocabulary = serde_json::from_str(&text).unwrap();
        assert_eq!((read.get("b"), read.get("c"), read.name(0)), (Some(1), None, Some("a")));
        assert_eq!(read, vocabulary);
    }
}
