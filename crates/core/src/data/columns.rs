//! Which column of a file is the user, the item, the value, the time and the event.
//!
//! A column that an option names is found by that name: as written, else whatever its case, else by its number from 1.
//! Without an option the header is searched for the names people use, in the order below; letters and digits count,
//! case, spaces, `_`, `-` and `.` do not (`userId`, `User ID` and `user_id` are one). The first name of the list
//! that the header has wins; other columns that would have fitted are told in the report.

use super::sources::column_named;
use super::{ColumnUse, ReadOptions};
use crate::{Error, Result};

const USER: &[&str] = &[
    "user",
    "userid",
    "uid",
    "username",
    "customer",
    "customerid",
    "visitor",
    "visitorid",
    "member",
    "memberid",
    "account",
    "accountid",
    "client",
    "clientid",
    "reviewer",
    "reviewerid",
    "session",
    "sessionid",
];
const ITEM: &[&str] = &[
    "item",
    "itemid",
    "iid",
    "movie",
    "movieid",
    "product",
    "productid",
    "article",
    "articleid",
    "book",
    "bookid",
    "isbn",
    "track",
    "trackid",
    "song",
    "songid",
    "artist",
    "artistid",
    "video",
    "videoid",
    "business",
    "businessid",
    "asin",
    "parentasin",
    "sku",
    "stockcode",
    "content",
    "contentid",
];
const VALUE: &[&str] =
    &["value", "rating", "weight", "score", "count", "stars", "overall", "plays", "playcount", "quantity"];
const TIME: &[&str] = &[
    "timestamp",
    "time",
    "ts",
    "datetime",
    "date",
    "unixreviewtime",
    "eventtime",
    "createdat",
    "unixtime",
    "invoicedate",
];
const EVENT: &[&str] = &["event", "eventtype", "type", "action", "behavior"];

/// Where each role stands among the columns of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The user's column, counted from 0, as all of these.
    pub user: usize,
    /// The item's column.
    pub item: usize,
    /// The value's column.
    pub value: Option<usize>,
    /// The time's column.
    pub time: Option<usize>,
    /// The event's column.
    pub event: Option<usize>,
}

/// Finds the columns of `path`, whose header is `names`, and says why each.
///
/// # Errors
/// [`Error::NoSuchColumn`] when an option names a column that is not there; [`Error::NoColumnFor`] when no column can be
/// taken for the user or the item; [`Error::BadOption`] when one column would serve as user and item.
pub fn find_columns(
    path: &str,
    names: &[String],
    options: &ReadOptions,
) -> Result<(Columns, Vec<ColumnUse>)> {
    let mut finder =
        Finder { path, names, no_header: options.no_header, taken: Vec::new(), uses: Vec::new() };
    // Options first: a column that was named for one role is not guessed for another.
    let named = [
        ("user", &options.user_column),
        ("item", &options.item_column),
        ("value", &options.value_column),
        ("time", &options.time_column),
        ("event", &options.event_column),
    ];
    let mut found = [None; 5];
    for (role, (name, option)) in named.into_iter().enumerate() {
        if let Some(column) = option {
            found[role] = Some(finder.by_option(name, column)?);
        }
    }
    let known = [USER, ITEM, VALUE, TIME, EVENT];
    for (role, (name, option)) in named.into_iter().enumerate() {
        // An event column without weights means nothing, so it is not looked for.
        if option.is_none() && (name != "event" || options.event_weights.is_some()) {
            found[role] = finder.by_header(name, role, known[role]);
        }
    }
    let missing = |role| no_column_for(path, role, names.join(", "));
    let columns = Columns {
        user: found[0].ok_or_else(|| missing("user"))?,
        item: found[1].ok_or_else(|| missing("item"))?,
        value: found[2],
        time: found[3],
        event: found[4],
    };
    if options.event_weights.is_some() && columns.event.is_none() {
        return Err(missing("event"));
    }
    if columns.user == columns.item {
        let found = names[columns.user].clone();
        return Err(Error::BadOption {
            option: "item_column",
            expected: "another column than the user's",
            found,
        });
    }
    Ok((columns, finder.uses))
}

/// Says that `path`, with the columns `known`, has none for `role`.
pub(super) fn no_column_for(path: &str, role: &'static str, known: String) -> Error {
    let accepted = match role {
        "user" => USER,
        "item" => ITEM,
        "time" => TIME,
        _ => EVENT,
    };
    Error::NoColumnFor { path: path.to_owned(), role, accepted: accepted[..4].join(", "), known }
}

struct Finder<'a> {
    path: &'a str,
    names: &'a [String],
    no_header: bool,
    taken: Vec<usize>,
    uses: Vec<ColumnUse>,
}

impl Finder<'_> {
    fn by_option(&mut self, role: &'static str, column: &str) -> Result<usize> {
        let at = column_named(self.path, self.names, column)?;
        self.take(role, at, format!("--{role}-column"));
        Ok(at)
    }

    fn by_header(&mut self, role: &'static str, position: usize, accepted: &[&str]) -> Option<usize> {
        if self.no_header {
            // The order in which nearly every file without a header has them.
            let at = (position < 4 && position < self.names.len() && !self.taken.contains(&position))
                .then_some(position)?;
            self.take(role, at, "by its place, as there is no header".to_owned());
            return Some(at);
        }
        let plain: Vec<String> = self.names.iter().map(|name| plain(name)).collect();
        let free = |at: &usize| !self.taken.contains(at);
        let mut fitting = accepted
            .iter()
            .flat_map(|name| {
                plain.iter().enumerate().filter(move |(_, column)| column == name).map(|(at, _)| at)
            })
            .filter(free);
        let at = fitting.next()?;
        let others: Vec<String> = fitting.map(|at| format!("`{}`", self.names[at])).collect();
        let why = match others.is_empty() {
            true => "by the header".to_owned(),
            false => format!("by the header, before {}", others.join(", ")),
        };
        self.take(role, at, why);
        Some(at)
    }

    fn take(&mut self, role: &'static str, at: usize, why: String) {
        self.taken.push(at);
        self.uses.push(ColumnUse { role, column: self.names[at].clone(), why });
    }
}

/// Returns whether a header names an id: of a user or an item, or by an ending such as `_id` or `ID`.
pub(crate) fn is_id_name(name: &str) -> bool {
    let (trimmed, plain) = (name.trim(), plain(name));
    let ending = ["_id", "-id", " id", ".id", "_ID", "-ID", " ID", ".ID", "Id", "ID"];
    plain == "id"
        || USER.contains(&plain.as_str())
        || ITEM.contains(&plain.as_str())
        || ending.iter().any(|ending| trimmed.len() > ending.len() && trimmed.ends_with(ending))
}

/// Returns whether a header is one of those that a time is found by.
pub(crate) fn is_time_name(name: &str) -> bool {
    TIME.contains(&plain(name).as_str())
}

/// What remains of a name that people write in many ways.
pub(crate) fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(header: &str, options: &ReadOptions) -> Result<(Columns, Vec<ColumnUse>)> {
        let names: Vec<String> = header.split(',').map(str::to_owned).collect();
        find_columns("f.csv", &names, options)
    }

    #[test]
    fn names_that_people_use_are_found() {
        let plain = ReadOptions::default();
        for (header, expected) in [
            ("user,item,rating,timestamp", [0, 1, 2, 3]),
            ("ts,Rating,movieId,userId", [3, 2, 1, 0]),
            ("Customer ID,StockCode,Quantity,InvoiceDate", [0, 1, 2, 3]),
            ("date,user_id,weight,PRODUCT-ID", [1, 3, 2, 0]),
        ] {
            let columns = find(header, &plain).unwrap().0;
            let found = [Some(columns.user), Some(columns.item), columns.value, columns.time];
            assert_eq!(found, expected.map(Some), "{header}");
        }
    }

    #[test]
    fn ambiguity_is_resolved_by_the_list_and_told() {
        let (columns, uses) = find("user_id,user,item,score,rating", &ReadOptions::default()).unwrap();
        assert_eq!((columns.user, columns.value), (1, Some(4)));
        assert_eq!(uses[0].why, "by the header, before `user_id`");
        assert_eq!(uses[2].why, "by the header, before `score`");
    }

    #[test]
    fn options_name_columns_by_name_or_number() {
        let options = ReadOptions {
            user_column: Some("WHO".into()),
            item_column: Some("3".into()),
            ..Default::default()
        };
        let columns = find("user,who,what", &options).unwrap().0;
        assert_eq!((columns.user, columns.item), (1, 2));
        let options = ReadOptions { value_column: Some("worth".into()), ..Default::default() };
        let told = find("user,item", &options).unwrap_err().to_string();
        assert_eq!(told, "f.csv: no column `worth` among `user, item`");
    }

    #[test]
    fn a_first_line_of_data_is_no_header() {
        let told = find("196,242,3,881250949", &ReadOptions::default()).unwrap_err().to_string();
        assert!(told.contains("no column for the user"), "{told}");
        let options = ReadOptions { no_header: true, ..Default::default() };
        let columns = find("1,2,3", &options).unwrap().0;
        assert_eq!((columns.user, columns.item, columns.value, columns.time), (0, 1, Some(2), None));
    }

    #[test]
    fn one_column_cannot_be_user_and_item() {
        let options = ReadOptions {
            item_column: Some("user".into()),
            user_column: Some("user".into()),
            ..Default::default()
        };
        assert!(find("user,item", &options).is_err());
    }
}
