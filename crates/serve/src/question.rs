//! Requests as they arrive, checked against the limits before any work.

use axum::http::Uri;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{Limits, error::Refusal};

/// How many items are answered with where a request does not say.
const DEFAULT_K: usize = 10;

/// A question for recommendations.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Recommend {
    /// The user; may be absent where there is a history.
    pub(crate) user_id: Option<Id>,
    /// What the user has had, instead of what the model has of them.
    pub(crate) history: Option<Vec<Had>>,
    /// Items that must not be in the answer.
    pub(crate) exclude: Vec<Id>,
    /// Where given, the only items that may be in the answer.
    pub(crate) include: Option<Vec<Id>>,
    /// Items to answer with.
    pub(crate) k: Option<usize>,
}

/// A question for similar items.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Similar {
    /// The item.
    pub(crate) item_id: String,
    /// Items to answer with.
    pub(crate) k: usize,
}

/// An id; a number in JSON is taken for its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Id(text)),
            serde_json::Value::Number(number) if !number.is_f64() => Ok(Id(number.to_string())),
            _ => Err(D::Error::custom("expected an id as text")),
        }
    }
}

/// An item of a history: its id, or its id and how much it counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Had {
    pub(crate) item_id: Id,
    pub(crate) value: f32,
}

impl<'de> Deserialize<'de> for Had {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct WithValue {
            item_id: Id,
            #[serde(default = "one")]
            value: f32,
        }
        fn one() -> f32 {
            1.0
        }
        let value = serde_json::Value::deserialize(deserializer)?;
        let wrong = |_| D::Error::custom("expected an item's id, or {\"item_id\": .., \"value\": ..}");
        if value.is_object() {
            let WithValue { item_id, value } = serde_json::from_value(value).map_err(wrong)?;
            return Ok(Had { item_id, value });
        }
        Ok(Had { item_id: serde_json::from_value(value).map_err(wrong)?, value: 1.0 })
    }
}

impl Recommend {
    /// Reads the query of a GET request.
    pub(crate) fn from_query(uri: &Uri, limits: &Limits) -> Result<Self, Refusal> {
        let mut query = Query::parse(uri)?;
        let user_id = query.take("user_id").ok_or_else(|| Refusal::Malformed("expected `user_id`".into()))?;
        let question = Self { user_id: Some(Id(user_id)), k: query.take_k()?, ..Self::default() };
        query.finish()?;
        question.check(limits)
    }

    /// Reads the body of a POST request.
    pub(crate) fn from_json(body: &[u8], limits: &Limits) -> Result<Self, Refusal> {
        let malformed = |what: String| Refusal::Malformed(format!("the body: {what}"));
        if json_depth(body) > limits.max_json_depth {
            return Err(malformed(format!("more than {} brackets within brackets", limits.max_json_depth)));
        }
        let question: Self = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
        if question.user_id.is_none() && question.history.is_none() {
            return Err(Refusal::InvalidValue("expected `user_id`, `history` or both".into()));
        }
        question.check(limits)
    }

    /// Returns how many items to answer with.
    pub(crate) fn k(&self) -> usize {
        self.k.unwrap_or(DEFAULT_K)
    }

    fn check(self, limits: &Limits) -> Result<Self, Refusal> {
        check_k(self.k(), limits)?;
        let history = self.history.as_deref().unwrap_or_default();
        let include = self.include.as_deref().unwrap_or_default();
        for (name, n) in
            [("history", history.len()), ("exclude", self.exclude.len()), ("include", include.len())]
        {
            if n > limits.max_list_items {
                let most = limits.max_list_items;
                return Err(Refusal::InvalidValue(format!(
                    "`{name}` has {n} items, at most `{most}` are taken"
                )));
            }
        }
        let items = history.iter().map(|had| &had.item_id).chain(&self.exclude).chain(include);
        for id in self.user_id.iter().chain(items) {
            check_id(&id.0, limits)?;
        }
        if let Some(had) = history.iter().find(|had| !had.value.is_finite()) {
            return Err(Refusal::InvalidValue(format!(
                "the value of an item must be finite, not `{}`",
                had.value
            )));
        }
        Ok(self)
    }
}

impl Similar {
    /// Reads the query of a GET request.
    pub(crate) fn from_query(uri: &Uri, limits: &Limits) -> Result<Self, Refusal> {
        let mut query = Query::parse(uri)?;
        let item_id = query.take("item_id").ok_or_else(|| Refusal::Malformed("expected `item_id`".into()))?;
        let k = query.take_k()?.unwrap_or(DEFAULT_K);
        query.finish()?;
        check_id(&item_id, limits)?;
        check_k(k, limits)?;
        Ok(Self { item_id, k })
    }
}

fn check_k(k: usize, limits: &Limits) -> Result<(), Refusal> {
    if (1..=limits.max_k).contains(&k) {
        return Ok(());
    }
    Err(Refusal::InvalidValue(format!("`k` must be between 1 and {}, not `{k}`", limits.max_k)))
}

fn check_id(id: &str, limits: &Limits) -> Result<(), Refusal> {
    match id.len() {
        0 => Err(Refusal::InvalidValue("an id must not be empty".into())),
        n if n > limits.max_id_bytes => {
            let most = limits.max_id_bytes;
            Err(Refusal::InvalidValue(format!("an id of {n} bytes, at most `{most}` are taken")))
        }
        _ => Ok(()),
    }
}

/// The parameters of a query string.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(uri: &Uri) -> Result<Self, Refusal> {
        let malformed = |what: String| Refusal::Malformed(format!("the query: {what}"));
        // The parser replaces bytes that are no UTF-8, and the id would be another's.
        let bytes = percent_encoding::percent_decode_str(uri.query().unwrap_or_default());
        bytes.decode_utf8().map_err(|error| malformed(error.to_string()))?;
        axum::extract::Query::try_from_uri(uri)
            .map(|axum::extract::Query(pairs)| Self(pairs))
            .map_err(|error| malformed(error.to_string()))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn take_k(&mut self) -> Result<Option<usize>, Refusal> {
        self.take("k")
            .map(|text| {
                text.parse()
                    .map_err(|_| Refusal::Malformed(format!("`k` must be a whole number, not `{text}`")))
            })
            .transpose()
    }

    /// Refuses what nobody has taken: a parameter that is misspelled must not be ignored.
    fn finish(self) -> Result<(), Refusal> {
        match self.0.first() {
            Some((name, _)) => Err(Refusal::Malformed(format!("unknown or repeated parameter `{name}`"))),
            None => Ok(()),
        }
    }
}

/// How deep brackets are nested, counted before a parser recurses into them.
fn json_depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(body: &str) -> Result<Recommend, Refusal> {
        Recommend::from_json(body.as_bytes(), &Limits::default())
    }

    #[test]
    fn a_body_is_read() {
        let question = json(
            r#"{"user_id": 7, "history": ["a", {"item_id": "b", "value": 2.5}, 3], "exclude": ["c"],
                "include": ["d"], "k": 4}"#,
        )
        .unwrap();
        let had = |id: &str, value| Had { item_id: Id(id.into()), value };
        assert_eq!(question.user_id, Some(Id("7".into())));
        assert_eq!(question.history, Some(vec![had("a", 1.0), had("b", 2.5), had("3", 1.0)]));
        assert_eq!(
            (question.exclude.len(), question.include.as_ref().map(Vec::len), question.k()),
            (1, Some(1), 4)
        );
    }

    #[test]
    fn what_cannot_be_read_is_malformed() {
        for body in [
            "",
            "{",
            "[]x",
            "{\"user\": 1}",
            "{\"user_id\": 1.5}",
            "{\"user_id\": {}}",
            "{\"history\": [[]]}",
            "{\"user_id\": \"a\", \"k\": -1}",
            "{\"user_id\": \"a\", \"k\": \"x\"}",
            "{\"history\": [{\"value\": 1}]}",
        ] {
            assert!(matches!(json(body), Err(Refusal::Malformed(_))), "{body}");
        }
        let deep = format!("{{\"history\": {}{}}}", "[".repeat(5000), "]".repeat(5000));
        assert!(matches!(json(&deep), Err(Refusal::Malformed(what)) if what.contains("brackets")));
    }

    #[test]
    fn values_out_of_range_are_invalid() {
        let long = "x".repeat(257);
        for body in [
            "{}".to_owned(),
            "{\"user_id\": \"\"}".into(),
            "{\"user_id\": \"a\", \"k\": 0}".into(),
            "{\"user_id\": \"a\", \"k\": 1001}".into(),
            format!("{{\"user_id\": \"{long}\"}}"),
            format!("{{\"user_id\": \"a\", \"exclude\": [\"{long}\"]}}"),
            "{\"history\": [{\"item_id\": \"a\", \"value\": 1e60}]}".into(),
        ] {
            assert!(matches!(json(&body), Err(Refusal::InvalidValue(_))), "{body}");
        }
    }

    #[test]
    fn a_query_is_read_and_unknown_parameters_are_refused() {
        let read = |query: &str| {
            let uri: Uri = format!("/recommend?{query}").parse().unwrap();
            Recommend::from_query(&uri, &Limits::default())
        };
        assert_eq!(read("user_id=a%20b&k=3").unwrap().user_id, Some(Id("a b".into())));
        assert_eq!(
            read("user_id=%EF%BF%BD").unwrap().user_id,
            Some(Id("\u{fffd}".into())),
            "an id like another"
        );
        assert_eq!(read("user_id=a").unwrap().k(), 10);
        for query in [
            "",
            "k=1",
            "user_id=a&n=3",
            "user_id=a&user_id=b",
            "user_id=a&k=x",
            "user_id=a&k=",
            "user_id=%FF",
        ] {
            assert!(matches!(read(query), Err(Refusal::Malformed(_))), "{query}");
        }
        assert!(matches!(read("user_id=&k=1"), Err(Refusal::InvalidValue(_))));
    }

    #[test]
    fn depth_ignores_brackets_in_text() {
        assert_eq!(json_depth(br#"{"a": "[[[\"[[", "b": [1, [2]]}"#), 3);
        assert_eq!(json_depth(b"]]]][[\"["), 2);
    }
}
