//! Made-up messages to a bank's assistant, of which it is known what they are about.
//!
//! A message is a pattern of its intent with its slots filled, something before it and something after it, and now and then two
//! letters in the wrong order. Every draw is addressed by the seed and the message's number, so that the same options give the
//! same messages. One message in eight is about nothing that the assistant can do.

use recmill::kernels::philox::{Draws, below, unit};

use crate::learn::{Message, OUT_OF_SCOPE};

/// One message in so many is out of scope.
const ELSEWHERE: u32 = 8;
/// How often two letters change places.
const SLIP: f32 = 0.15;

const INTENTS: [(&str, [&str; 6]); 10] = [
    (
        "balance",
        [
            "how much money is in my {account} account",
            "what is the balance of my {account} account",
            "do i have {amount} left in {account}",
            "show me how much i have in {account}",
            "is there enough in {account} to pay {amount}",
            "tell me my {account} balance",
        ],
    ),
    (
        "transfer",
        [
            "send {amount} to {person}",
            "transfer {amount} from {account} to {person}",
            "move {amount} out of my {account} account",
            "i want to pay {person} {amount}",
            "wire {amount} to {person} {when}",
            "make a transfer of {amount} {when}",
        ],
    ),
    (
        "lost_card",
        [
            "i lost my {card}",
            "my {card} was stolen in {place}",
            "i cannot find my {card} anywhere",
            "somebody took my {card} {when}",
            "report my {card} as missing",
            "i left my {card} in {place}",
        ],
    ),
    (
        "card_declined",
        [
            "why was my {card} declined in {place}",
            "my {card} does not work",
            "the shop would not take my {card}",
            "my {card} got refused {when}",
            "the machine in {place} rejected my {card}",
            "why can i not pay with my {card}",
        ],
    ),
    (
        "new_card",
        [
            "i want a new {card}",
            "how do i order a {card}",
            "when does my new {card} arrive",
            "send me another {card}",
            "can i apply for a {card}",
            "i need a {card} for my {account} account",
        ],
    ),
    (
        "exchange_rate",
        [
            "what is the exchange rate in {place}",
            "how much is {amount} in {place}",
            "convert {amount} for my trip to {place}",
            "which rate do you use for {place}",
            "what do i get for {amount} in {place}",
            "is the rate good {when}",
        ],
    ),
    (
        "travel_notice",
        [
            "i am going to {place} {when}",
            "let the bank know that i travel to {place}",
            "i will use my {card} in {place}",
            "note that i am abroad {when}",
            "add a travel notice for {place}",
            "will my {card} work when i travel to {place}",
        ],
    ),
    (
        "interest",
        [
            "what interest does my {account} account earn",
            "how high is the interest rate of {account}",
            "how much interest do i get on {amount}",
            "when is interest paid on {account}",
            "what would {amount} earn in {account}",
            "does my {account} account pay interest",
        ],
    ),
    (
        "pin",
        [
            "i forgot the pin of my {card}",
            "change the pin of my {card}",
            "i need a new pin for my {card}",
            "how do i set another pin",
            "my pin is blocked {when}",
            "reset my {card} pin",
        ],
    ),
    (
        "person",
        [
            "i want to talk to somebody",
            "can i speak with a person {when}",
            "connect me to an employee",
            "is there a human i can call {when}",
            "let me talk to your manager",
            "call me back {when}",
        ],
    ),
];

const NONE: [&str; 12] = [
    "how do i cook rice for {person}",
    "who won the game {when}",
    "what is the capital of {place}",
    "tell me a joke about {person}",
    "how tall is the tower in {place}",
    "play some music {when}",
    "is it going to rain in {place} {when}",
    "how do volcanoes work",
    "translate good morning for {person}",
    "which film should i watch {when}",
    "my printer makes a strange noise",
    "what time does the museum in {place} open",
];

const SLOTS: [(&str, [&str; 5]); 6] = [
    ("{account}", ["checking", "savings", "joint", "business", "holiday"]),
    ("{amount}", ["20 euros", "50 dollars", "three hundred", "1000", "a hundred pounds"]),
    ("{card}", ["debit card", "credit card", "card", "visa", "bank card"]),
    ("{person}", ["anna", "my landlord", "tom", "my sister", "the plumber"]),
    ("{place}", ["paris", "oslo", "japan", "the supermarket", "new york"]),
    ("{when}", ["today", "tomorrow", "on friday", "next week", "last night"]),
];
const BEFORE: [&str; 6] = ["", "", "hi, ", "please ", "hello, can you help: ", "so "];
const AFTER: [&str; 5] = ["", "", "?", " please", " thanks!"];

/// Returns messages `first .. first + n`.
pub(crate) fn messages(seed: u64, first: u64, n: u64) -> Vec<Message> {
    (first..first + n).map(|number| message(Draws::new(seed, number))).collect()
}

fn message(draws: Draws) -> Message {
    let mut at = 0;
    let mut word = || {
        at += 1;
        draws.word(at)
    };
    let mut one_of = |texts: &[&'static str]| texts[below(word(), texts.len() as u32) as usize];
    let chosen = below(draws.word(0), ELSEWHERE);
    let (intent, pattern) = match chosen {
        0 => (OUT_OF_SCOPE, one_of(&NONE)),
        _ => {
            let names = INTENTS.map(|(name, _)| name);
            let intent = one_of(&names);
            let patterns = INTENTS.iter().find(|(name, _)| *name == intent).map(|(_, patterns)| patterns);
            (intent, patterns.map_or("", |patterns| one_of(patterns)))
        }
    };
    let mut text = format!("{}{pattern}{}", one_of(&BEFORE), one_of(&AFTER));
    for (slot, fillings) in &SLOTS {
        text = text.replace(slot, one_of(fillings));
    }
    if unit(word()) < SLIP {
        text = slip(&text, word());
    }
    Message { text, intent: intent.to_owned() }
}

/// Changes the places of two neighbours.
fn slip(text: &str, word: u32) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    if letters.len() > 2 {
        let at = below(word, letters.len() as u32 - 1) as usize;
        letters.swap(at, at + 1);
    }
    letters.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_filled_in_and_always_the_same() {
        let all = messages(1, 0, 2000);
        assert!(all.iter().all(|message| !message.text.contains(['{', '}'])));
        let elsewhere = all.iter().filter(|message| message.intent == OUT_OF_SCOPE).count();
        assert!((180..320).contains(&elsewhere), "{elsewhere}");
        for (intent, _) in INTENTS {
            assert!(all.iter().filter(|message| message.intent == intent).count() > 100, "{intent}");
        }
        // A message depends on its number, not on those beside it.
        assert_eq!(messages(1, 700, 1)[0], all[700]);
        assert_ne!(messages(2, 700, 1)[0], all[700]);
    }

    #[test]
    fn a_slip_keeps_the_letters() {
        assert_eq!(slip("abc", 0), "bac");
        assert_eq!(slip("ab", 7), "ab");
    }
}
