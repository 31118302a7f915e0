//! Made-up card transactions of which it is known which are frauds.
//!
//! Customers and terminals lie at random on a square with one terminal a unit of area; a customer pays at terminals within
//! a radius of 5, which is the density that the source has.
//!
//! | of a customer         | is                                                                          |
//! |-----------------------|-----------------------------------------------------------------------------|
//! | mean amount           | uniform, 5 to 100; the deviation is half of it                              |
//! | transactions a day    | Poisson, of a mean that is uniform, 0 to 4                                  |
//! | an amount             | normal; where that is negative, uniform up to twice the mean                |
//! | a time of day         | normal about noon with 20,000 seconds; what falls out of the day is dropped |
//!
//! | scenario | who                                              | its transactions                                    |
//! |----------|--------------------------------------------------|-----------------------------------------------------|
//! | 1        | anybody                                          | all above 220                                       |
//! | 2        | each day one terminal of 5,000, for 28 days      | all                                                 |
//! | 3        | each day three customers of 5,000, for 14 days   | a third, at random, of five times the amount        |
//!
//! Where two apply, the later one names the fraud. Every draw is addressed by the seed and by what it is for, so that the same
//! options give the same transactions.
//!
//! Source: Le Borgne, Siblini, Lebichot, Bontempi 2022, "Reproducible machine learning for credit card fraud detection -
//! practical handbook", chapter 3. The numbers in the tables are theirs.

use std::f64::consts::TAU;

use recmill::kernels::philox::{Draws, below};

use crate::transactions::{DAY, Transaction};

/// How far a customer goes, where there is a terminal for each unit of area.
const RADIUS: f64 = 5.0;
/// Scenario 1: everything above this is a fraud.
const LARGE_CENTS: u32 = 22_000;
/// Scenario 2: how many of the terminals fall a day, and for how many days.
const TERMINALS_A_DAY: f64 = 2.0 / 10_000.0;
const TERMINAL_DAYS: u32 = 28;
/// Scenario 3: how many of the customers fall a day, for how many days, and what the thief spends.
const CUSTOMERS_A_DAY: f64 = 3.0 / 5_000.0;
const CUSTOMER_DAYS: u32 = 14;
const THIEF_SPENDS: u32 = 5;

/// How much there is to make up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    pub(crate) days: u32,
    pub(crate) customers: u32,
    pub(crate) terminals: u32,
    pub(crate) seed: u64,
}

/// What a stream of random numbers is for.
#[derive(Clone, Copy)]
enum Purpose {
    Places,
    Compromised,
    Leaked,
    Customer,
}

/// One stream of random numbers, read from its beginning.
struct Draw {
    draws: Draws,
    at: u64,
}

impl Draw {
    fn new(world: &World, purpose: Purpose, index: u32) -> Self {
        Self { draws: Draws::new(world.seed, ((purpose as u64) << 32) | u64::from(index)), at: 0 }
    }

    fn word(&mut self) -> u32 {
        self.at += 1;
        self.draws.word(self.at - 1)
    }

    /// Uniform over the open interval (0, 1).
    fn unit(&mut self) -> f64 {
        (f64::from(self.word()) + 0.5) / 2f64.powi(32)
    }

    fn between(&mut self, least: f64, most: f64) -> f64 {
        least + (most - least) * self.unit()
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos()
    }

    /// Poisson, by Knuth: how many uniforms can be multiplied before the product falls below e^-mean.
    fn poisson(&mut self, mean: f64) -> u32 {
        let least = (-mean).exp();
        let (mut product, mut n) = (self.unit(), 0);
        while product > least {
            product *= self.unit();
            n += 1;
        }
        n
    }
}

/// Makes up the transactions of all days, in the order of their times.
pub(crate) fn generate(world: &World) -> Vec<Transaction> {
    let side = f64::from(world.terminals).sqrt();
    let mut places = Draw::new(world, Purpose::Places, 0);
    let mut place = || [places.between(0.0, side), places.between(0.0, side)];
    let terminals: Vec<[f64; 2]> = (0..world.terminals).map(|_| place()).collect();
    let customers: Vec<[f64; 2]> = (0..world.customers).map(|_| place()).collect();
    let mut all = Vec::new();
    for (customer, &home) in (0..).zip(&customers) {
        spend(world, customer, &near(home, &terminals), &mut all);
    }
    // A customer who pays twice in a second does so in the order in which that was made up: the sort is stable.
    all.sort_by_key(|transaction| (transaction.seconds, transaction.customer));
    commit_frauds(world, &mut all);
    all
}

/// Returns the terminals that a customer goes to; the nearest one where none is near.
fn near(home: [f64; 2], terminals: &[[f64; 2]]) -> Vec<u32> {
    let square = |place: &[f64; 2]| (place[0] - home[0]).powi(2) + (place[1] - home[1]).powi(2);
    let numbered = || (0u32..).zip(terminals);
    let within: Vec<u32> = numbered()
        .filter(|(_, place)| square(place) < RADIUS * RADIUS)
        .map(|(terminal, _)| terminal)
        .collect();
    if within.is_empty() {
        let nearest = numbered().min_by(|a, b| square(a.1).total_cmp(&square(b.1)));
        return nearest.map(|(terminal, _)| terminal).into_iter().collect();
    }
    within
}

/// Adds what one customer pays in all days.
fn spend(world: &World, customer: u32, terminals: &[u32], all: &mut Vec<Transaction>) {
    let mut draw = Draw::new(world, Purpose::Customer, customer);
    let mean_amount = draw.between(5.0, 100.0);
    let mean_number = draw.between(0.0, 4.0);
    for day in 0..world.days {
        for _ in 0..draw.poisson(mean_number) {
            let second = f64::from(DAY) / 2.0 + 20_000.0 * draw.normal();
            let mut amount = mean_amount + mean_amount / 2.0 * draw.normal();
            if amount < 0.0 {
                amount = draw.between(0.0, 2.0 * mean_amount);
            }
            let terminal = terminals[below(draw.word(), terminals.len() as u32) as usize];
            if (0.0..f64::from(DAY)).contains(&second) {
                all.push(Transaction {
                    seconds: day * DAY + second as u32,
                    customer,
                    terminal,
                    cents: (amount * 100.0).round() as u32,
                    fraud: false,
                    scenario: 0,
                });
            }
        }
    }
}

/// Turns transactions into frauds by the three scenarios, in their order.
fn commit_frauds(world: &World, all: &mut [Transaction]) {
    let terminals =
        Fallen::draw(world, Purpose::Compromised, world.terminals, TERMINALS_A_DAY, TERMINAL_DAYS);
    let customers = Fallen::draw(world, Purpose::Leaked, world.customers, CUSTOMERS_A_DAY, CUSTOMER_DAYS);
    let mut thief = Draw::new(world, Purpose::Leaked, 1);
    for transaction in all {
        let day = transaction.day();
        if transaction.cents > LARGE_CENTS {
            transaction.scenario = 1;
        }
        if terminals.on(day, transaction.terminal) {
            transaction.scenario = 2;
        }
        if customers.on(day, transaction.customer) && below(thief.word(), 3) == 0 {
            transaction.cents *= THIEF_SPENDS;
            transaction.scenario = 3;
        }
        transaction.fraud = transaction.scenario > 0;
    }
}

/// Who is in the hands of thieves, and on which days.
struct Fallen {
    /// For each day those who fall on it.
    by_day: Vec<Vec<u32>>,
    days: u32,
}

impl Fallen {
    /// Draws `share` of `n` for each day. Parts of one add up over the days: of 2,000 terminals two fall in five days.
    fn draw(world: &World, purpose: Purpose, n: u32, share: f64, days: u32) -> Self {
        let mut draw = Draw::new(world, purpose, 0);
        let until = |day: u32| (f64::from(day) * f64::from(n) * share) as u32;
        let by_day = (0..world.days)
            .map(|day| (until(day)..until(day + 1)).map(|_| below(draw.word(), n)).collect())
            .collect();
        Self { by_day, days }
    }

    fn on(&self, day: u32, who: u32) -> bool {
        let first = (day + 1).saturating_sub(self.days);
        self.by_day[first as usize..=day as usize].iter().any(|fallen| fallen.contains(&who))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const WORLD: World = World { days: 60, customers: 300, terminals: 600, seed: 1 };

    #[test]
    fn the_same_options_give_the_same_transactions_and_another_seed_others() {
        let all = generate(&WORLD);
        assert_eq!(all, generate(&WORLD));
        assert_ne!(all, generate(&World { seed: 2, ..WORLD }));
        assert!(all.is_sorted_by_key(|transaction| transaction.seconds));
        // Two a customer and day, less the 3% that fall out of the day.
        let expected = 2.0 * 0.97 * f64::from(WORLD.customers * WORLD.days);
        assert!((all.len() as f64 / expected - 1.0).abs() < 0.15, "{} rows", all.len());
    }

    #[test]
    fn each_scenario_is_there_and_is_what_it_says() {
        let all = generate(&WORLD);
        let of = |scenario: u8| all.iter().filter(move |transaction| transaction.scenario == scenario);
        for scenario in 1..=3 {
            assert!(of(scenario).count() >= 5, "{} of scenario {scenario}", of(scenario).count());
        }
        assert!(all.iter().all(|transaction| transaction.fraud == (transaction.scenario > 0)));
        assert!(of(0).all(|transaction| transaction.cents <= LARGE_CENTS));
        assert!(of(1).all(|transaction| transaction.cents > LARGE_CENTS));

        // On a day on which a terminal is in a thief's hands nothing at it is honest.
        let mut honest: HashMap<u32, Vec<u32>> = HashMap::new();
        for transaction in of(0) {
            honest.entry(transaction.terminal).or_default().push(transaction.day());
        }
        for (terminal, days) in days_by(of(2), |transaction| transaction.terminal) {
            let honest = honest.get(&terminal).map_or(&[][..], Vec::as_slice);
            assert!(!honest.iter().any(|day| days.contains(day)), "terminal {terminal}");
        }

        // A stolen card is used for a part of what is paid with it, and far above what its owner pays.
        let stolen: HashSet<u32> = of(3).map(|transaction| transaction.customer).collect();
        let mean = |all: Vec<u32>| f64::from(all.iter().sum::<u32>()) / all.len() as f64;
        let owner = of(0).filter(|transaction| stolen.contains(&transaction.customer));
        let owner = mean(owner.map(|transaction| transaction.cents).collect());
        let thief = mean(of(3).map(|transaction| transaction.cents).collect());
        assert!((3.0..8.0).contains(&(thief / owner)), "{thief} to {owner}");
    }

    fn days_by<'a>(
        all: impl Iterator<Item = &'a Transaction>,
        key: impl Fn(&Transaction) -> u32,
    ) -> HashMap<u32, Vec<u32>> {
        let mut days: HashMap<u32, Vec<u32>> = HashMap::new();
        for transaction in all {
            days.entry(key(transaction)).or_default().push(transaction.day());
        }
        days
    }

    #[test]
    fn who_falls_stays_so_for_as_many_days() {
        let fallen = Fallen { by_day: vec![vec![], vec![7], vec![], vec![], vec![]], days: 2 };
        let on: Vec<bool> = (0..5).map(|day| fallen.on(day, 7)).collect();
        assert_eq!(on, [false, true, true, false, false]);
        assert!(!fallen.on(1, 8));
    }
}
