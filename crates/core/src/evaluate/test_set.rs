//! What is to be found for each test user, in the model's indices.

use recmill_kernels::tie_hash;

use crate::{Dataset, Ids, ItemIndex, Person, UserIndex, tie_key};

/// How text ids become the model's indices.
#[derive(Clone, Copy)]
pub struct Resolve<'a> {
    /// The users that the model learnt from.
    pub users: &'a dyn Ids,
    /// The items of the catalogue.
    pub items: &'a dyn Ids,
    /// The users of the histories that replace what the model learnt from, where some do.
    pub given_users: Option<&'a dyn Ids>,
}

impl Resolve<'_> {
    /// Returns who `id` is.
    pub fn person(&self, id: &str) -> Person {
        Person {
            user: self.users.index(id).map(UserIndex),
            given: self.given_users.and_then(|users| users.index(id)).map(UserIndex),
        }
    }

    /// Returns which item `id` is.
    pub fn item(&self, id: &str) -> Option<ItemIndex> {
        self.items.index(id).map(ItemIndex)
    }
}

/// An item of a test or candidate row; those the model knows come before all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TestItem {
    /// An item of the catalogue.
    Known(ItemIndex),
    /// Any other, by a number of its own.
    Unknown(u32),
}

/// One test user.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Relevant {
    pub(super) person: Person,
    pub(super) tie_key: u64,
    /// What is to be found, ascending.
    items: Vec<TestItem>,
    /// What is ranked, ascending, where not the whole catalogue is.
    candidates: Option<Vec<TestItem>>,
}

/// What is to be found for each test user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TestSet {
    pub(super) users: Vec<Relevant>,
    pub(super) users_without_candidates: usize,
    pub(super) unknown_item_rows: usize,
}

impl TestSet {
    /// Looks every id of `test` and `candidates` up.
    pub fn new(test: &Dataset, resolve: &Resolve<'_>, candidates: Option<&Dataset>, seed: u64) -> Self {
        let mut set = Self::default();
        let unknown_from = |data: &Dataset| -> Vec<TestItem> {
            // An unknown item is the same in both data sets, so it is numbered in the first and looked up from the second.
            let unknown = |at, id: &str| match test.items.get(id) {
                Some(index) => index,
                None => (test.items.len() + at) as u32,
            };
            let item = |(at, id)| match resolve.item(id) {
                Some(item) => TestItem::Known(item),
                None => TestItem::Unknown(unknown(at, id)),
            };
            data.items.iter().enumerate().map(item).collect()
        };
        let test_items = unknown_from(test);
        let candidate_items = candidates.map(unknown_from).unwrap_or_default();
        for (user, id) in test.users.iter().enumerate() {
            let (columns, values) = test.by_user().row(user);
            let mut items: Vec<TestItem> = columns
                .iter()
                .zip(values)
                .filter(|&(_, &value)| value > 0.0)
                .map(|(&item, _)| test_items[item as usize])
                .collect();
            if items.is_empty() {
                continue;
            }
            items.sort_unstable();
            set.unknown_item_rows += items.iter().filter(|item| matches!(item, TestItem::Unknown(_))).count();
            let listed = candidates.map(|data| {
                let row = data.users.get(id).map_or(&[][..], |row| data.by_user().row(row as usize).0);
                let mut items: Vec<TestItem> =
                    row.iter().map(|&item| candidate_items[item as usize]).collect();
                items.sort_unstable();
                items
            });
            if listed.as_ref().is_some_and(Vec::is_empty) {
                set.users_without_candidates += 1;
                continue;
            }
            set.users.push(Relevant {
                person: resolve.person(id),
                tie_key: tie_key(seed, id),
                items,
                candidates: listed,
            });
        }
        set
    }
}

impl Relevant {
    pub(super) fn n_relevant(&self) -> usize {
        self.items.len()
    }

    /// What is to be found.
    pub(super) fn relevant(&self) -> &[TestItem] {
        &self.items
    }

    /// How many of the relevant items are among `items`.
    pub(super) fn among(&self, items: &[ItemIndex]) -> usize {
        items.iter().filter(|&&item| self.items.binary_search(&TestItem::Known(item)).is_ok()).count()
    }

    /// The candidates that the model can score, ascending.
    pub(super) fn known_candidates(&self) -> Option<Vec<ItemIndex>> {
        self.candidates.as_ref().map(|items| items.iter().map_while(known).collect())
    }

    /// Writes the ranks of the relevant items from 1, ascending, up to `max_k`: first `answer`, then the candidates that
    /// the model does not know.
    pub(super) fn ranks(&self, answer: &[ItemIndex], max_k: usize, ranks: &mut Vec<usize>) {
        let mut place = |rank: usize, item: TestItem| {
            if self.items.binary_search(&item).is_ok() {
                ranks.push(rank);
            }
        };
        for (at, &item) in answer.iter().enumerate() {
            place(at + 1, TestItem::Known(item));
        }
        let Some(candidates) = &self.candidates else { return };
        let unknown = candidates.partition_point(|item| known(item).is_some());
        if answer.len() < max_k && unknown < candidates.len() {
            let mut unknown: Vec<u32> = candidates[unknown..].iter().filter_map(number).collect();
            unknown.sort_unstable_by_key(|&number| (tie_hash(self.tie_key, number), number));
            for (at, number) in unknown.into_iter().enumerate().take(max_k - answer.len()) {
                place(answer.len() + at + 1, TestItem::Unknown(number));
            }
        }
    }
}

fn known(item: &TestItem) -> Option<ItemIndex> {
    match item {
        TestItem::Known(item) => Some(*item),
        TestItem::Unknown(_) => None,
    }
}

fn number(item: &TestItem) -> Option<u32> {
    match item {
        TestItem::Known(_) => None,
        TestItem::Unknown(number) => Some(*number),
    }
}
