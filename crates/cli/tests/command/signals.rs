//! Ctrl-C and SIGTERM, sent to the command as a shell would.

use std::process::{Child, Command};

use crate::{
    running::{get, start, wait_for},
    screen::Folder,
};

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn an_interrupt_ends_training_after_the_epoch_and_saves() {
    let folder = Folder::with_ratings();
    let (mut child, mut lines) =
        start(&folder, "train als ratings.csv --out model --factors 4 --iterations 100000000");
    wait_for(&mut lines, "epoch 1/");
    send("-INT", &child);
    wait_for(&mut lines, "stopping after this epoch");
    let told = wait_for(&mut lines, "wrote ");
    assert!(told.contains("model"), "{told}");
    for line in lines {
        line.unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(folder.succeeds("recommend model --user u1").contains("rank"));
}

#[test]
fn an_interrupt_ends_the_training_of_a_ranker_at_once_and_saves() {
    let folder = Folder::with_rows();
    let (mut child, mut lines) = start(
        &folder,
        "train fm rows.csv --label clicked --out model --embedding-dim 4 --epochs 100000000 --patience 0",
    );
    wait_for(&mut lines, "epoch 1/");
    send("-INT", &child);
    wait_for(&mut lines, "stopping after this step");
    wait_for(&mut lines, "stopped as asked");
    wait_for(&mut lines, "wrote ");
    for line in lines {
        line.unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(folder.succeeds("predict model rows.csv").starts_with("line,prediction\n"));
}

#[test]
fn a_server_answers_until_it_is_told_to_stop() {
    let folder = Folder::with_ratings();
    folder.succeeds("train most-popular ratings.csv --out model --quiet");
    for signal in ["-INT", "-TERM"] {
        let (mut child, mut lines) = start(&folder, "serve model --bind 127.0.0.1:0 --drain-grace 0");
        let told = wait_for(&mut lines, "listening on http://");
        let address = told.rsplit("http://").next().unwrap();
        let answer = get(address, "/recommend?user_id=u1&k=2");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"model_version\":\"1\""), "{answer}");
        send(signal, &child);
        wait_for(&mut lines, "stopped");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
    }
}
