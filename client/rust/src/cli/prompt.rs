//! An interactive prompt with history.

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::{CommandError, Format, run_sql};
use crate::client::Client;
use crate::task::Statement;

/// Reads statements, which end with a semicolon, until the end of input.
pub(crate) async fn run(client: &Client, settings: &Statement, format: Format) -> Result<(), CommandError> {
    let broken = |error: ReadlineError| CommandError::Usage(error.to_string());
    let mut editor = DefaultEditor::new().map_err(broken)?;
    let history =
        std::env::var_os("HOME").map(|home| std::path::PathBuf::from(home).join(".trilith_history"));
    if let Some(path) = &history {
        // The first time there is none.
        let _none_yet = editor.load_history(path);
    }
    let mut typed = String::new();
    loop {
        let prompt = if typed.is_empty() {
            "trilith> "
        } else {
            "      -> "
        };
        let line = match editor.readline(prompt) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                typed.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(broken(error)),
        };
        if typed.is_empty() && matches!(line.trim(), "exit" | "quit" | "\\q") {
            break;
        }
        typed.push_str(&line);
        typed.push('\n');
        if !line.trim_end().ends_with(';') {
            continue;
        }
        let text = std::mem::take(&mut typed);
        // A history that cannot be kept is no reason to stop.
        let _not_kept = editor.add_history_entry(text.trim());
        let statement = Statement {
            sql: text,
            ..settings.clone()
        };
        if let Err(error) = run_sql(client, statement, format, None).await {
            eprintln!("{error}");
        }
    }
    if let Some(path) = &history {
        let _not_kept = editor.save_history(path);
    }
    Ok(())
}
