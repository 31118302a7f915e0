//! Whom a model answers, and from what: the text ids, the histories, and when a user is folded in.

use crate::{Csr, Dataset, IdMap, ItemIndex, Query, Result, UserIndex, models::Retriever};

/// Text ids by index, wherever they are stored.
pub trait Ids: Send + Sync {
    /// Returns the number of ids.
    fn len(&self) -> usize;

    /// Returns whether there are no ids.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the index of `id`, if there is one.
    fn index(&self, id: &str) -> Option<u32>;

    /// Returns the id at `index`.
    fn name(&self, index: u32) -> Option<&str>;
}

impl Ids for IdMap {
    fn len(&self) -> usize {
        self.len()
    }

    fn index(&self, id: &str) -> Option<u32> {
        self.get(id)
    }

    fn name(&self, index: u32) -> Option<&str> {
        self.name(index)
    }
}

/// What each user has had, wherever it is stored.
pub trait UserHistory: Send + Sync {
    /// Returns the number of users.
    fn n_users(&self) -> usize;

    /// Writes the items and values of `user` to `out`, items ascending; nothing for a user past the last.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`] when the file behind the history makes no sense there.
    fn read(&self, user: UserIndex, out: &mut Vec<(ItemIndex, f32)>) -> Result<()>;

    /// As [`UserHistory::read`], but from the oldest to the newest; items ascending where nobody knows which is which.
    ///
    /// # Errors
    /// As [`UserHistory::read`].
    fn read_in_order(&self, user: UserIndex, out: &mut Vec<(ItemIndex, f32)>) -> Result<()> {
        self.read(user, out)
    }
}

impl UserHistory for Dataset {
    fn n_users(&self) -> usize {
        Dataset::n_users(self)
    }

    fn read(&self, user: UserIndex, out: &mut Vec<(ItemIndex, f32)>) -> Result<()> {
        self.by_user().read(user, out)
    }

    fn read_in_order(&self, user: UserIndex, out: &mut Vec<(ItemIndex, f32)>) -> Result<()> {
        let (items, values) = self.by_user().row(user.at());
        out.clear();
        if user.at() < Dataset::n_users(self) {
            let entry = |&entry: &u32| (ItemIndex(items[entry as usize]), values[entry as usize]);
            out.extend(self.order(user.at()).iter().map(entry));
        }
        Ok(())
    }
}

impl UserHistory for Csr {
    fn n_users(&self) -> usize {
        self.n_rows()
    }

    fn read(&self, user: UserIndex, out: &mut Vec<(ItemIndex, f32)>) -> Result<()> {
        let (items, values) = self.row(user.at());
        out.clear();
        out.extend(items.iter().zip(values).map(|(&item, &value)| (ItemIndex(item), value)));
        Ok(())
    }
}

/// Somebody, as far as the model and the histories know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// Their index among the users that the model learnt from.
    pub user: Option<UserIndex>,
    /// Their row in the histories that replace what the model learnt from, where some do.
    pub given: Option<UserIndex>,
}

/// A model together with what its users have had.
#[derive(Clone, Copy)]
pub struct Audience<'a> {
    /// The model.
    pub retriever: &'a dyn Retriever,
    /// What the model learnt from, by its users.
    pub learnt: &'a dyn UserHistory,
    /// What is to count as history instead, with rows of its own.
    pub given: Option<&'a dyn UserHistory>,
}

impl Audience<'_> {
    /// Writes what `person` has had to `history` and returns the question to ask about them; none where neither the model
    /// nor a history knows them.
    ///
    /// The question of a model that reads the order of a history has it from the oldest to the newest; `history` ascends all the same.
    ///
    /// A user is answered from their parameters as long as their history is what the model learnt from, and folded in
    /// otherwise; so giving the training data as history changes nothing.
    ///
    /// # Errors
    /// As [`UserHistory::read`].
    pub fn question(&self, person: Person, history: &mut Vec<(ItemIndex, f32)>) -> Result<Option<Query>> {
        history.clear();
        let own_parameters = person.user.filter(|user| user.at() < self.retriever.n_users());
        let mut unchanged = true;
        match self.given {
            None => {
                if let Some(user) = person.user {
                    self.learnt.read(user, history)?;
                }
            }
            Some(given) => {
                if let Some(row) = person.given {
                    given.read(row, history)?;
                }
                if let Some(user) = own_parameters
                    && !history.is_empty()
                {
                    let mut learnt = Vec::new();
                    self.learnt.read(user, &mut learnt)?;
                    unchanged = learnt == *history;
                }
            }
        }
        Ok(match own_parameters {
            Some(user) if unchanged => Some(Query::User(user)),
            _ if history.is_empty() => None,
            _ if self.retriever.reads_order() => {
                let mut in_order = Vec::with_capacity(history.len());
                match (self.given, person.given, person.user) {
                    (Some(given), Some(row), _) => given.read_in_order(row, &mut in_order)?,
                    (None, _, Some(user)) => self.learnt.read_in_order(user, &mut in_order)?,
                    _ => {}
                }
                Some(Query::History(in_order))
            }
            _ => Some(Query::History(history.clone())),
        })
    }
}

#[cfg(test)]
mod tests {
    use recmill_kernels::{Device, Table};

    use super::*;
    use crate::models::{Als, AlsConfig};

    fn csr(rows: &[&[u32]]) -> Csr {
        let mut indptr = vec![0];
        for row in rows {
            indptr.push(indptr[indptr.len() - 1] + row.len() as u64);
        }
        let indices: Vec<u32> = rows.concat();
        let values = vec![1.0; indices.len()];
        Csr::new(3, indptr, indices, values).unwrap()
    }

    #[test]
    fn a_user_is_folded_in_when_their_history_is_not_what_the_model_learnt_from() {
        let table = |rows: usize| Table::zeros(rows as u64, 1, Device::Cpu, "a test").unwrap();
        let model = Als::new(AlsConfig { factors: 1, ..AlsConfig::default() }, table(2), table(3)).unwrap();
        let learnt = csr(&[&[0, 1], &[2]]);
        let given = csr(&[&[2], &[0, 1], &[]]);
        let before = Audience { retriever: &model, learnt: &learnt, given: None };
        let after = Audience { given: Some(&given), ..before };
        let mut history = Vec::new();
        let mut ask = |audience: &Audience<'_>, user: Option<u32>, row: Option<u32>| {
            let person = Person { user: user.map(UserIndex), given: row.map(UserIndex) };
            let query = audience.question(person, &mut history).unwrap();
            (query, history.iter().map(|&(item, _)| item.0).collect::<Vec<_>>())
        };
        let user = |index| Some(Query::User(UserIndex(index)));
        assert_eq!(ask(&before, Some(0), None), (user(0), vec![0, 1]));
        assert_eq!(ask(&before, None, None), (None, vec![]));
        assert_eq!(ask(&after, Some(0), Some(1)), (user(0), vec![0, 1]), "the same history");
        let folded_in = Some(Query::History(vec![(ItemIndex(2), 1.0)]));
        assert_eq!(ask(&after, Some(0), Some(0)), (folded_in.clone(), vec![2]), "another history");
        assert_eq!(ask(&after, None, Some(0)), (folded_in, vec![2]), "a new user");
        assert_eq!(ask(&after, Some(1), None), (user(1), vec![]), "no history at all");
        assert_eq!(ask(&after, None, Some(2)), (None, vec![]), "a new user without history");
    }
}
