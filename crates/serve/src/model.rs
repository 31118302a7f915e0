//! A model behind the server: questions to a [`Recommender`], and its answers as they leave.

use std::sync::Mutex;

use recmill_core::{Answer, AnswerSource, Ask, AskWorkspace, Error, Recommender, Who};

use crate::{
    answer::{Answers, Recommended, Scored, SimilarItems},
    error::Refusal,
    question::{Recommend, Similar},
};

/// What an answer says it is made of where neither the user nor the history is known.
const MOST_POPULAR: &str = "most_popular";

/// A model that answers several questions at a time.
pub(crate) struct Model {
    recommender: Recommender,
    version: String,
    /// Scratch memory, one for each question that has ever been under way together with others.
    workspaces: Mutex<Vec<AskWorkspace>>,
}

impl Model {
    pub(crate) fn new(recommender: Recommender, version: String) -> Self {
        Self { recommender, version, workspaces: Mutex::default() }
    }

    fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Refusal> {
        let spare = self.workspaces.lock().ok().and_then(|mut spare| spare.pop());
        let mut workspace = spare.unwrap_or_default();
        let answers = self.recommender.ask(std::slice::from_ref(ask), &mut workspace);
        if let Ok(mut spare) = self.workspaces.lock() {
            spare.push(workspace);
        }
        match answers {
            Ok(mut answers) => answers.pop().ok_or(Refusal::Internal),
            Err(Error::UnknownItem { id }) => Err(Refusal::UnknownItem(id)),
            Err(error) => {
                tracing::error!("scoring failed: {error}");
                Err(Refusal::Internal)
            }
        }
    }

    fn scored(&self, answer: &Answer) -> Vec<Scored> {
        let name = |&(item, score): &(recmill_core::ItemIndex, f32)| Scored {
            item_id: self.recommender.items().name(item.0).unwrap_or_default().to_owned(),
            score,
        };
        answer.items.iter().map(name).collect()
    }
}

impl Answers for Model {
    fn recommend(&self, question: Recommend) -> Result<Recommended, Refusal> {
        let user = question.user_id.as_ref().map(|id| id.0.as_str());
        let history =
            question.history.iter().flatten().map(|had| (had.item_id.0.as_str(), had.value)).collect();
        let ask = |who| Ask {
            exclude: question.exclude.iter().map(|id| id.0.as_str()).collect(),
            candidates: question.include.as_ref().map(|ids| ids.iter().map(|id| id.0.as_str()).collect()),
            ..Ask::new(who, question.k())
        };
        let mut answer = match (&question.history, user) {
            (None, Some(user)) => self.ask(&ask(Who::User(user)))?,
            _ => self.ask(&ask(Who::History(history)))?,
        };
        // A history without one known item says nothing; what the model knows of the user is better than that.
        if let (AnswerSource::MostPopular, Some(_), Some(user)) = (answer.source, &question.history, user) {
            let unknown_items = answer.unknown_items;
            answer = Answer { unknown_items, ..self.ask(&ask(Who::User(user)))? };
        }
        Ok(Recommended {
            recommendations: self.scored(&answer),
            fallback: (answer.source == AnswerSource::MostPopular).then_some(MOST_POPULAR),
            unknown_items: answer.unknown_items,
            model_version: self.version.clone(),
            user_id: question.user_id.map(|id| id.0),
        })
    }

    fn similar(&self, question: Similar) -> Result<SimilarItems, Refusal> {
        let answer = self.ask(&Ask::new(Who::Item(&question.item_id), question.k))?;
        let similar = self.scored(&answer);
        Ok(SimilarItems { item_id: question.item_id, similar, model_version: self.version.clone() })
    }
}
