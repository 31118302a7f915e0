//! Runs the built command in a folder of its own and shows its whole screen, with what changes from run to run replaced.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A folder to run the command in.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    /// Makes an empty one.
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Makes one with `ratings.csv` and `items.csv`, in which two groups of users have two groups of items.
    pub(crate) fn with_ratings() -> Self {
        let folder = Self::new();
        let mut text = String::from("user_id,item_id,rating,timestamp\n");
        for user in 0..20 {
            let group = if user % 2 == 0 { "a" } else { "b" };
            // Everyone leaves two items of their group out, so that there is something to recommend.
            for item in (0..8).filter(|item| item % 7 != user % 7 && item % 5 != user % 5) {
                let rating = 3 + (user + item) % 3;
                text.push_str(&format!("u{user},{group}{item},{rating},{}\n", 1_000 + 10 * user + item));
            }
        }
        folder.write("ratings.csv", &text);
        let mut items = String::from("item_id,title,genre\n");
        for (group, genre) in [("a", "comedy"), ("b", "drama")] {
            for item in 0..8 {
                items.push_str(&format!("{group}{item},The {genre} number {item},{genre}\n"));
            }
        }
        folder.write("items.csv", &items);
        folder
    }

    /// Makes one with `rows.csv`, in which some users click whatever they see, at a price that is not too high.
    pub(crate) fn with_rows() -> Self {
        let folder = Self::new();
        let mut text = String::from("user,item,price,tags,member,clicked,bought\n");
        for row in 0..400 {
            let (user, item, price) = (row * 7 % 13, row * 11 % 9, row * 37 % 101);
            let tags = ["new|red", "red", "", "blue|new"][row % 4];
            let clicked = usize::from((user % 3 == 0) != (row % 11 == 0) && price < 80);
            let bought = usize::from(item % 2 == 0 && price < 60);
            text += &format!("u{user},i{item},{price}.5,{tags},{},{clicked},{bought}\n", row % 2 == 0);
        }
        folder.write("rows.csv", text);
        folder
    }

    /// Makes one with `messages.csv`, about three things and, every fourth, about something else.
    pub(crate) fn with_messages() -> Self {
        let folder = Self::new();
        let about = [
            ("weather", ["rain", "sunshine", "forecast", "freezing"]),
            ("money", ["account", "transfer", "balance", "euros"]),
            ("music", ["song", "play", "album", "band"]),
        ];
        let fillers = ["please", "what", "is", "the", "my", "tomorrow"];
        let mut text = String::from("id,message,intent\n");
        for at in 0..400 {
            let filler = |k: usize| fillers[(at * 7 + k * 5) % fillers.len()];
            let (intent, word) = match at % 4 {
                3 => ("oos", ["zebra", "quantum", "volcano", "recipe"][at / 4 % 4]),
                _ => (about[at % 3].0, about[at % 3].1[at / 3 % 4]),
            };
            text += &format!("{at},\"{}, {word} {} {}\",{intent}\n", filler(0), filler(1), filler(at / 6));
        }
        folder.write("messages.csv", text);
        folder
    }

    /// The folder's path.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of `name` in it.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs_err::write(self.at(name), text).unwrap();
    }

    /// The command with `arguments`, which are split at blanks, about to run in the folder.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recmill"));
        command.args(arguments.split_whitespace()).current_dir(self.path()).stdin(Stdio::null());
        for variable in ["RECMILL_LOG", "RECMILL_THREADS", "RECMILL_BIND", "RECMILL_SIMD", "RUST_LOG"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs the command and returns what it wrote and how it ended.
    pub(crate) fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the command, which must succeed, and returns its standard output.
    pub(crate) fn succeeds(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "recmill {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the command and returns the whole screen.
    pub(crate) fn screen(&self, arguments: &str) -> String {
        screen(&self.run(arguments))
    }
}

/// Status, standard output and standard error as one text.
pub(crate) fn screen(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!(
        "status: {}\n----- stdout -----\n{}----- stderr -----\n{}",
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// Replaces what is not the same on every run and every machine.
pub(crate) fn filters() -> Vec<(&'static str, &'static str)> {
    vec![
        (r"\d+(\.\d+)? (s|min \d\d s)\b", "[TIME]"),
        (r"[\d,]+(\.\d+)?( M)? interactions/s", "[RATE] interactions/s"),
        (r"\d+ (users|rows|texts)/s", "[RATE] $1/s"),
        (r"\d+(\.\d+)? (B|KiB|MiB|GiB|TiB)\b", "[BYTES]"),
        // What GPUs there are, and what is missing to use them.
        (r"(?m)^device: (cpu|cuda|wgpu).*\n", ""),
        (r"cuda:0 cannot be used: .*", "cuda:0 cannot be used: [REASON]"),
        (r"recmill\.exe", "recmill"),
        (r"\[BYTES\] are free", "[BYTES] are free"),
        (r"[0-9a-f]{64}", "[SHA256]"),
        (r"\\", "/"),
    ]
}

/// Compares a whole screen with its snapshot.
macro_rules! assert_screen {
    ($screen:expr) => {
        insta::with_settings!({ filters => crate::screen::filters(), omit_expression => true }, {
            insta::assert_snapshot!($screen);
        });
    };
    ($name:expr, $screen:expr) => {
        insta::with_settings!({ filters => crate::screen::filters(), omit_expression => true }, {
            insta::assert_snapshot!($name, $screen);
        });
    };
}
pub(crate) use assert_screen;
