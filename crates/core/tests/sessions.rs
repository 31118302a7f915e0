//! A session answers as its whole history does, bit for bit, however it came about.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod parameters;

use parameters::{N_ITEMS, models};
use recmill_core::{
    Batch, Error, ItemIndex, Query, Row, Workspace,
    models::{ModelConfig, Retriever, Session},
};

/// The models that have sessions; the first looks at four events.
fn with_sessions() -> Vec<(ModelConfig, Box<dyn Retriever>)> {
    let found: Vec<_> = models().into_iter().filter(|(_, model)| model.sessions().is_some()).collect();
    assert_eq!(found.iter().map(|(config, _)| config.name()).collect::<Vec<_>>(), ["sasrec", "gru4rec"]);
    found
}

fn event(at: usize) -> (ItemIndex, f32) {
    // Every fifth is a dislike.
    (ItemIndex((at * at * 7 % N_ITEMS) as u32), if at % 5 == 3 { -1.0 } else { 1.0 + at as f32 })
}

fn answers(
    model: &dyn Retriever,
    sessions: Option<&[&Session]>,
    rows: Vec<Row>,
) -> Vec<(Vec<ItemIndex>, Vec<f32>)> {
    let mut workspace = Workspace::default();
    let (n, batch) = (rows.len(), Batch { rows });
    match sessions {
        Some(sessions) => model.sessions().unwrap().answer(sessions, &batch, &mut workspace).unwrap(),
        None => model.score(&batch, &mut workspace).unwrap(),
    }
    (0..n).map(|row| workspace.answer(row)).map(|(items, scores)| (items.to_vec(), scores.to_vec())).collect()
}

#[test]
fn pushing_one_by_one_answers_as_the_whole_history() {
    // A server keeps it between requests, on whatever thread.
    fn is_shared<T: Send + Sync + 'static>(_: &T) {}
    for (config, model) in with_sessions() {
        let sessions = model.sessions().unwrap();
        let mut session = sessions.begin();
        is_shared(&session);
        let mut earlier = vec![session.clone()];
        for at in 0..13 {
            let (item, value) = event(at);
            sessions.push(&mut session, item, value).unwrap();
            assert_eq!(session.history(), (0..=at).map(event).collect::<Vec<_>>());
            earlier.push(session.clone());
        }
        // Each alone, and all in one batch, with and without filters.
        for k in [3, N_ITEMS] {
            let rows: Vec<Row> = earlier.iter().map(|session| session.row(k)).collect();
            let expected = answers(&*model, None, rows.clone());
            let all: Vec<&Session> = earlier.iter().collect();
            assert_eq!(answers(&*model, Some(&all), rows.clone()), expected, "{}", config.name());
            for ((session, row), expected) in all.iter().zip(rows).zip(expected) {
                assert!(!expected.0.iter().any(|item| row.exclude.contains(item)), "{}", config.name());
                let found = answers(&*model, Some(&[*session]), vec![row]);
                assert_eq!(found, [expected], "{} after {} events", config.name(), session.history().len());
            }
        }
        // A copy goes on by itself.
        let (mut one, mut other) = (earlier[2].clone(), earlier[2].clone());
        sessions.push(&mut one, ItemIndex(5), 1.0).unwrap();
        sessions.push(&mut other, ItemIndex(6), 1.0).unwrap();
        for session in [&one, &other] {
            let row = session.row(9);
            assert_eq!(
                answers(&*model, Some(&[session]), vec![row.clone()]),
                answers(&*model, None, vec![row])
            );
        }
    }
}

#[test]
fn a_refused_event_changes_nothing() {
    for (_, model) in with_sessions() {
        let sessions = model.sessions().unwrap();
        let mut session = sessions.begin();
        sessions.push(&mut session, ItemIndex(1), 1.0).unwrap();
        let past = sessions.push(&mut session, ItemIndex(N_ITEMS as u32), 1.0).unwrap_err();
        assert!(matches!(past, Error::OutOfRange { side: "items", .. }), "{past}");
        let nan = sessions.push(&mut session, ItemIndex(2), f32::NAN).unwrap_err();
        assert!(matches!(nan, Error::Inconsistent { .. }), "{nan}");
        assert_eq!(session.history(), [(ItemIndex(1), 1.0)]);
        let row = session.row(5);
        assert_eq!(answers(&*model, Some(&[&session]), vec![row.clone()]), answers(&*model, None, vec![row]));
    }
}

#[test]
fn a_session_of_another_model_is_refused() {
    let (one, other) = (with_sessions().remove(0).1, with_sessions().remove(0).1);
    let mut session = one.sessions().unwrap().begin();
    let sessions = other.sessions().unwrap();
    let error = sessions.push(&mut session, ItemIndex(1), 1.0).unwrap_err();
    assert_eq!(error.to_string(), "a session of another model");
    let batch = Batch { rows: vec![Row::new(Query::History(Vec::new()), 1)] };
    let mut workspace = Workspace::default();
    let error = sessions.answer(&[&session], &batch, &mut workspace).unwrap_err();
    assert!(matches!(error, Error::OtherModel { .. }), "{error}");
    let error = sessions.answer(&[], &batch, &mut workspace).unwrap_err();
    assert!(matches!(error, Error::WrongSize { side: "rows", .. }), "{error}");
}
