//! The help of every command, as a stranger sees it.

use crate::screen::{Folder, assert_screen};

#[test]
fn help() {
    let folder = Folder::new();
    for command in [
        "",
        "train",
        "train als",
        "train bpr",
        "train lmf",
        "train warp",
        "train mf",
        "train neumf",
        "train item-knn",
        "train ease",
        "train most-popular",
        "train svd",
        "train sasrec",
        "train gru4rec",
        "train two-tower",
        "export",
        "train deepfm",
        "train mmoe",
        "train text",
        "split",
        "schema",
        "evaluate",
        "recommend",
        "similar",
        "predict",
        "inspect",
        "report",
        "serve",
        "demo",
        "devices",
        "doctor",
        "bench",
    ] {
        let name = format!("help {command}").trim().replace(' ', "-");
        assert_screen!(name, folder.screen(&format!("{command} --help")));
    }
}
