//! Which file each row goes to.

use hashbrown::HashMap;

use super::{Side, SplitMethod};
use crate::data::Repeats;
use crate::data::builder::DatasetBuilder;
use crate::data::distinct::mix;
use crate::data::interactions::{Interaction, InteractionReader, Interactions};
use crate::{Dataset, IdMap, Result};

/// Decides by what a first pass over the rows has shown, where the method needs one.
pub(super) struct Decider {
    method: SplitMethod,
    users: IdMap,
    items: IdMap,
    /// Rows seen in the pass at hand.
    rows: u64,
    recent: Vec<Recent>,
    /// The earliest file of each pair that has an event before the test's time.
    earliest: HashMap<(u32, u32), Side>,
    pairs: Option<DatasetBuilder>,
    drawn: Option<Drawn>,
    tested: Vec<bool>,
}

/// The last three different items of a user, the newest first.
#[derive(Clone, Copy, Default)]
struct Recent([Option<Event>; 3]);

#[derive(Clone, Copy, PartialEq)]
struct Event {
    /// Time and row: rows of one time are in the order of the file.
    moment: (i64, u64),
    item: u32,
}

/// The file of each pair.
struct Drawn {
    pairs: Dataset,
    sides: Vec<Side>,
}

impl Decider {
    pub(super) fn new(method: &SplitMethod) -> Self {
        Self {
            method: method.clone(),
            users: IdMap::default(),
            items: IdMap::default(),
            rows: 0,
            recent: Vec::new(),
            earliest: HashMap::new(),
            pairs: None,
            drawn: None,
            tested: Vec::new(),
        }
    }

    /// Returns whether the rows are to be shown before they are written.
    pub(super) fn wants_to_look(&self) -> bool {
        !matches!(self.method, SplitMethod::Random { per_user: false, .. })
    }

    /// Learns from rows of the first pass.
    pub(super) fn look(&mut self, interactions: &Interactions, reader: &InteractionReader) -> Result<()> {
        if let SplitMethod::Random { .. } = self.method {
            if self.pairs.is_none() {
                self.pairs = Some(DatasetBuilder::new(Repeats::First, None, None)?);
            }
            return self.pairs.iter_mut().try_for_each(|pairs| pairs.push(interactions));
        }
        if matches!(self.method, SplitMethod::AtTime { .. }) && interactions.times.is_none() {
            return Err(reader.no_time_column());
        }
        for row in interactions.iter() {
            let (user, item) = (self.users.get_or_insert(row.user)?, self.items.get_or_insert(row.item)?);
            let time = row.time.unwrap_or(0);
            if let SplitMethod::LeaveLastOut = self.method {
                self.recent.resize(self.users.len(), Recent::default());
                self.recent[user as usize].add(Event { moment: (time, self.rows), item });
            } else {
                let side = self.side_at(time);
                if side < Side::Test {
                    let earliest = self.earliest.entry((user, item)).or_insert(side);
                    *earliest = side.min(*earliest);
                }
            }
            self.rows += 1;
        }
        Ok(())
    }

    /// Ends the first pass.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.rows = 0;
        if let (Some(pairs), SplitMethod::Random { test, valid, seed, .. }) =
            (self.pairs.take(), &self.method)
        {
            let pairs = pairs.finish(0, 0)?.dataset;
            self.drawn = Some(Drawn::new(pairs, (*test, *valid), *seed));
        }
        Ok(())
    }

    /// Returns the file of each row; `None` for one that is left out.
    pub(super) fn sides(&mut self, interactions: &Interactions) -> Result<Vec<Option<Side>>> {
        let mut sides = Vec::with_capacity(interactions.len());
        for row in interactions.iter() {
            let user = self.users.get_or_insert(row.user)?;
            let side = self.side(&row, user)?;
            self.tested.resize(self.users.len(), false);
            self.tested[user as usize] |= side == Some(Side::Test);
            self.rows += 1;
            sides.push(side);
        }
        Ok(sides)
    }

    /// Returns the number of users that no test row was for.
    pub(super) fn users_without_test(&self) -> usize {
        self.tested.iter().filter(|&&tested| !tested).count()
    }

    fn side(&mut self, row: &Interaction<'_>, user: u32) -> Result<Option<Side>> {
        Ok(match &self.method {
            SplitMethod::Random { test, valid, seed, .. } => Some(match &self.drawn {
                Some(drawn) => drawn.side(row),
                None => {
                    let draw = draw(*seed, row.user, row.item);
                    if draw < *test {
                        Side::Test
                    } else if draw < test + valid {
                        Side::Valid
                    } else {
                        Side::Train
                    }
                }
            }),
            SplitMethod::LeaveLastOut => {
                let item = self.items.get_or_insert(row.item)?;
                let recent = self.recent.get(user as usize).copied().unwrap_or_default();
                recent.side(Event { moment: (row.time.unwrap_or(0), self.rows), item })
            }
            SplitMethod::AtTime { .. } => {
                let side = self.side_at(row.time.unwrap_or(0));
                let item = self.items.get_or_insert(row.item)?;
                let earliest = self.earliest.get(&(user, item)).copied().unwrap_or(Side::Test);
                (side == earliest).then_some(side)
            }
        })
    }

    fn side_at(&self, time: i64) -> Side {
        match self.method {
            SplitMethod::AtTime { test, .. } if time >= test => Side::Test,
            SplitMethod::AtTime { valid: Some(valid), .. } if time >= valid => Side::Valid,
            _ => Side::Train,
        }
    }
}

impl Recent {
    /// Takes an event in. An item that falls out has been overtaken by three others, and comes back if it is seen again.
    fn add(&mut self, event: Event) {
        let known = self.0.iter_mut().flatten().find(|known| known.item == event.item);
        match known {
            Some(known) if known.moment < event.moment => *known = event,
            Some(_) => return,
            None => match &mut self.0[2] {
                Some(oldest) if oldest.moment > event.moment => return,
                oldest => *oldest = Some(event),
            },
        }
        self.0.sort_by_key(|event| std::cmp::Reverse(event.map(|event| event.moment)));
    }

    fn side(&self, event: Event) -> Option<Side> {
        let [Some(last), Some(last_but_one), Some(_)] = self.0 else { return Some(Side::Train) };
        for (held_out, side) in [(last, Side::Test), (last_but_one, Side::Valid)] {
            if held_out.item == event.item {
                return (held_out == event).then_some(side);
            }
        }
        Some(Side::Train)
    }
}

impl Drawn {
    /// Draws the shares of each user's pairs.
    fn new(pairs: Dataset, (test, valid): (f64, f64), seed: u64) -> Self {
        let mut sides = vec![Side::Train; pairs.by_user().nnz()];
        let mut draws: Vec<(f64, usize)> = Vec::new();
        for (user, user_id) in pairs.users.iter().enumerate() {
            let (items, _) = pairs.by_user().row(user);
            let item_id = |item: u32| pairs.items.name(item).unwrap_or_default();
            draws.clear();
            draws.extend(
                items.iter().map(|&item| draw(seed, user_id, item_id(item))).zip(pairs.by_user().range(user)),
            );
            draws.sort_by(|a, b| a.0.total_cmp(&b.0));
            let share = |share: f64| (share * items.len() as f64).round() as usize;
            // One pair stays in training whatever the shares say.
            let n_test = share(test).min(items.len().saturating_sub(1));
            let n_valid = share(valid).min(items.len().saturating_sub(1 + n_test));
            draws[..n_test].iter().for_each(|&(_, entry)| sides[entry] = Side::Test);
            draws[n_test..n_test + n_valid].iter().for_each(|&(_, entry)| sides[entry] = Side::Valid);
        }
        Self { pairs, sides }
    }

    fn side(&self, row: &Interaction<'_>) -> Side {
        let entry = || {
            let (user, item) = (self.pairs.users.get(row.user)?, self.pairs.items.get(row.item)?);
            let entry = self.pairs.by_user().row(user as usize).0.binary_search(&item).ok()?;
            Some(self.pairs.by_user().range(user as usize).start + entry)
        };
        entry().map_or(Side::Train, |entry| self.sides[entry])
    }
}

/// Returns a number from 0 to below 1 that depends on the seed and the pair alone.
fn draw(seed: u64, user: &str, item: &str) -> f64 {
    let absorb = |state: u64, text: &str| {
        let bytes =
            text.bytes().fold(state, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        mix(bytes ^ text.len() as u64)
    };
    let hash = absorb(absorb(mix(seed), user), item);
    (hash >> 11) as f64 / (1u64 << 53) as f64
}
