//! From a model directory to somebody who answers: the ids, the histories and the model, all read in place.

use crate::{
    Ids, ItemIndex, Recommender, Result, UserHistory, UserIndex,
    directory::{
        Damage, MappedHistory, MappedIds, ModelDirectory,
        manifest::{CLASSES, CONFIG, FEATURES, read_small},
    },
    features::Features,
    models::{ModelConfig, open},
    rankers::{Ranker, RankerModel},
    text::{Classes, TextClassifier, TextConfig},
};

impl Ids for MappedIds {
    fn len(&self) -> usize {
        self.len()
    }

    fn index(&self, id: &str) -> Option<u32> {
        self.index(id)
    }

    fn name(&self, index: u32) -> Option<&str> {
        self.name(index)
    }
}

impl UserHistory for MappedHistory {
    fn n_users(&self) -> usize {
        self.n_users()
    }

    fn read(&self, user: UserIndex, out: &mut Vec<(ItemIndex, f32)>) -> Result<()> {
        self.read_in_order(user, out)?;
        out.sort_unstable_by_key(|&(item, _)| item);
        Ok(())
    }

    fn read_in_order(&self, user: UserIndex, out: &mut Vec<(ItemIndex, f32)>) -> Result<()> {
        let row = self.row(user)?;
        out.clear();
        match row.values {
            Some(values) => out.extend(row.items.iter().copied().zip(values.iter().copied())),
            None => out.extend(row.items.iter().map(|&item| (item, 1.0))),
        }
        Ok(())
    }
}

impl ModelDirectory {
    /// Returns which model it is, with its hyper-parameters.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`] when config.json says what this library does not understand.
    pub fn model_config(&self) -> Result<ModelConfig> {
        let malformed =
            |error: serde_json::Error| Damage::malformed("model", error).at(self.path().join(CONFIG));
        serde_json::from_value(self.manifest().config.model.clone()).map_err(malformed)
    }

    /// Returns whether the model scores rows of features, as opposed to finding items.
    pub fn is_ranker(&self) -> bool {
        RankerModel::NAMES.contains(&self.kind())
    }

    /// Returns whether the model tells what texts are about.
    pub fn is_text(&self) -> bool {
        self.kind() == TextConfig::NAME
    }

    /// Returns whether the model finds items, as opposed to scoring rows or texts.
    pub fn finds_items(&self) -> bool {
        !self.is_ranker() && !self.is_text()
    }

    /// Returns the model's name, such as `als`; `unknown` where config.json has none.
    pub fn kind(&self) -> &str {
        let name = self.manifest().config.model.get("model").and_then(serde_json::Value::as_str);
        name.unwrap_or("unknown")
    }

    /// Opens the model to score rows of features.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`], [`crate::Error::MissingParameter`], [`crate::Error::MissingDense`] and
    /// [`crate::Error::WrongSize`] when the parts do not make a model.
    pub fn ranker(&self) -> Result<Ranker> {
        let path = self.path().join(CONFIG);
        let malformed = |error: serde_json::Error| Damage::malformed("model", error).at(path);
        let config = serde_json::from_value(self.manifest().config.model.clone()).map_err(malformed)?;
        Ranker::open(&config, self.features()?, self.parameters()?)
    }

    /// Returns how rows become features.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`] when the file is not as written, or missing.
    pub fn features(&self) -> Result<Features> {
        self.json(FEATURES, "features")
    }

    /// Opens the model to tell what texts are about.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`], [`crate::Error::MissingParameter`], [`crate::Error::WrongSize`] and
    /// [`crate::Error::Inconsistent`] when the parts do not make a model.
    pub fn text_classifier(&self) -> Result<TextClassifier> {
        let path = self.path().join(CONFIG);
        let malformed = |error: serde_json::Error| Damage::malformed("model", error).at(path);
        let config = TextConfig::from_json(self.manifest().config.model.clone()).map_err(malformed)?;
        TextClassifier::open(&config, self.classes()?, self.parameters()?)
    }

    /// Returns what texts can be about.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`] when the file is not as written, or missing.
    pub fn classes(&self) -> Result<Classes> {
        self.json(CLASSES, "classes")
    }

    /// Reads one of the small files.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, name: &str, what: &'static str) -> Result<T> {
        let path = self.path().join(name);
        let Some(record) = self.manifest().files.get(name) else { return Err(Damage::Missing.at(path)) };
        let bytes = read_small(&path, record.bytes)?;
        record.check(&bytes).map_err(|damage| damage.at(&path))?;
        serde_json::from_slice(&bytes).map_err(|error| Damage::malformed(what, error).at(&path))
    }

    /// Opens the model to be asked by text ids.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`], [`crate::Error::MissingParameter`] and [`crate::Error::WrongSize`] when the parts do not
    /// make a model.
    pub fn recommender(&self) -> Result<Recommender> {
        let config = self.model_config()?;
        let model = open(&config, self.parameters()?, self.users().len(), self.items().len())?;
        let (users, items) = (self.users().clone(), self.items().clone());
        Recommender::new(model, users, items, self.history().clone(), self.manifest().config.seed)
    }
}

#[cfg(test)]
mod tests {
    use recmill_kernels::Buffer;

    use super::*;
    use crate::{
        Ask, AskWorkspace, Csr, Dataset, IdMap, Who,
        directory::{Config, Saved, Verify, save},
        models::{MostPopular, MostPopularConfig, Retriever},
    };

    #[test]
    fn a_saved_model_answers_by_text_ids_without_what_was_seen() {
        let ids = |names: &[&str]| {
            let mut map = IdMap::default();
            for name in names {
                map.get_or_insert(name).unwrap();
            }
            map
        };
        // Ann had c before a, so that the order in time is not that of the items.
        let csr = Csr::new(3, vec![0, 2, 3], vec![0, 2, 2], vec![1.0, 2.0, 3.0]).unwrap();
        let data =
            Dataset::new(ids(&["Ann", "Ben"]), ids(&["a", "b", "c"]), csr, None, vec![1, 0, 0]).unwrap();
        let counts = Buffer::from_vec(vec![1.0, 0.5, 2.0], "a test").unwrap();
        let model = MostPopular::new(MostPopularConfig::default(), counts).unwrap();
        let config = Config {
            model: serde_json::to_value(ModelConfig::MostPopular(MostPopularConfig::default())).unwrap(),
            ..Config::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let saved = Saved {
            config: &config,
            parameters: &model.parameters().unwrap(),
            dataset: &data,
            item_attributes: None,
            user_attributes: None,
            epochs: &[],
            features: None,
            classes: None,
        };
        save(folder.path(), &saved, 1).unwrap();

        let recommender = ModelDirectory::open(folder.path(), Verify::Full).unwrap().recommender().unwrap();
        let mut history = Vec::new();
        recommender.history("Ann", &mut history).unwrap();
        assert_eq!(history, [(ItemIndex(0), 1.0), (ItemIndex(2), 2.0)]);
        let answers = recommender
            .ask(
                &[Ask::new(Who::User("Ann"), 3), Ask::new(Who::User("Ben"), 3)],
                &mut AskWorkspace::default(),
            )
            .unwrap();
        let names = |at: usize| -> Vec<u32> { answers[at].items.iter().map(|(item, _)| item.0).collect() };
        assert_eq!((names(0), names(1)), (vec![1], vec![0, 1]));
    }

    #[test]
    fn hyper_parameters_that_are_none_are_damage() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { model: serde_json::json!({"model": "als", "lambda": 1}), ..Config::default() };
        let saved = Saved {
            config: &config,
            parameters: &crate::Parameters::default(),
            dataset: &Dataset::new(
                IdMap::default(),
                IdMap::default(),
                Csr::new(0, vec![0], vec![], vec![]).unwrap(),
                None,
                vec![],
            )
            .unwrap(),
            item_attributes: None,
            user_attributes: None,
            epochs: &[],
            features: None,
            classes: None,
        };
        save(folder.path(), &saved, 1).unwrap();
        let directory = ModelDirectory::open(folder.path(), Verify::Quick).unwrap();
        let error = directory.model_config().unwrap_err().to_string();
        assert!(error.contains("config.json") && error.contains("lambda"), "{error}");
    }
}
