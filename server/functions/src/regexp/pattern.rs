//! A regular expression of Java with the engine that it needs.

use std::borrow::Cow;

use super::translation::{Translation, translate};

/// Why a regular expression cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// The pattern is none, or uses what no engine here has.
    #[error("cannot use the regular expression [{pattern}]: {why}")]
    Invalid { pattern: String, why: String },
    /// The engine that tries all ways gave up on a text.
    #[error(
        "gave up on the regular expression [{pattern}] at a text of [{length}] bytes: there are too many ways to match it"
    )]
    TooManySteps { pattern: String, length: usize },
}

/// A regular expression of Java. Most run on an automaton; those with look-around, back-references or possessive
/// quantifiers on an engine that tries all ways.
#[derive(Debug, Clone)]
pub struct JavaPattern {
    written: String,
    engine: Engine,
    /// For texts that end with a line terminator, if the pattern may match before it.
    before_terminator: Option<Engine>,
}

#[derive(Debug, Clone)]
enum Engine {
    Automaton(regex::Regex),
    Backtracking(fancy_regex::Regex),
}

/// What the groups of a match hold.
pub struct Captures<'t>(Groups<'t>);

enum Groups<'t> {
    Automaton(regex::Captures<'t>),
    Backtracking(fancy_regex::Captures<'t, str>),
}

impl<'t> Captures<'t> {
    /// The text of a group; 0 is the whole match.
    pub fn get(&self, group: usize) -> Option<&'t str> {
        match &self.0 {
            Groups::Automaton(captures) => captures.get(group).map(|found| found.as_str()),
            Groups::Backtracking(captures) => captures.get(group).map(|found| found.as_str()),
        }
    }

    /// Bytes of the whole match: from and to.
    fn span(&self) -> Option<(usize, usize)> {
        match &self.0 {
            Groups::Automaton(captures) => captures.get(0).map(|found| (found.start(), found.end())),
            Groups::Backtracking(captures) => captures.get(0).map(|found| (found.start(), found.end())),
        }
    }
}

impl JavaPattern {
    /// A pattern that is searched for anywhere.
    pub(super) fn new(pattern: &str) -> Result<JavaPattern, PatternError> {
        JavaPattern::built(pattern, |translated| translated)
    }

    /// A pattern that must match a whole text.
    pub fn whole(pattern: &str) -> Result<JavaPattern, PatternError> {
        JavaPattern::built(pattern, |translated| format!("\\A(?:{translated})\\z"))
    }

    fn built(pattern: &str, shape: impl Fn(String) -> String) -> Result<JavaPattern, PatternError> {
        let invalid = |why: String| PatternError::Invalid {
            pattern: pattern.to_owned(),
            why,
        };
        let translated: Translation = translate(pattern).map_err(invalid)?;
        let engine = |text: String, backtracks: bool| Engine::new(&shape(text), backtracks).map_err(invalid);
        let (engine, before_terminator) = if translated.backtracks {
            (engine(translated.before_terminator(), true)?, None)
        } else {
            let ended = translated
                .has_end()
                .then(|| engine(translated.before_terminator(), true));
            (engine(translated.at_end(), false)?, ended.transpose()?)
        };
        Ok(JavaPattern {
            written: pattern.to_owned(),
            engine,
            before_terminator,
        })
    }

    fn engine(&self, text: &str) -> &Engine {
        match &self.before_terminator {
            Some(engine) if text.ends_with(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) => engine,
            _ => &self.engine,
        }
    }

    fn too_many_steps(&self, text: &str) -> PatternError {
        PatternError::TooManySteps {
            pattern: self.written.clone(),
            length: text.len(),
        }
    }

    /// Groups of the pattern, and one for the whole match.
    pub fn captures_len(&self) -> usize {
        match &self.engine {
            Engine::Automaton(regex) => regex.captures_len(),
            Engine::Backtracking(regex) => regex.captures_len(),
        }
    }

    /// Number of the group of a name.
    pub(super) fn group(&self, name: &str) -> Option<usize> {
        match &self.engine {
            Engine::Automaton(regex) => regex.capture_names().position(|known| known == Some(name)),
            Engine::Backtracking(regex) => regex.capture_names().position(|known| known == Some(name)),
        }
    }

    /// Whether a part of a text matches.
    pub(crate) fn matches(&self, text: &str) -> Result<bool, PatternError> {
        match self.engine(text) {
            Engine::Automaton(regex) => Ok(regex.is_match(text)),
            Engine::Backtracking(regex) => regex.is_match(text).map_err(|_| self.too_many_steps(text)),
        }
    }

    /// The first match in a text.
    pub fn captures<'t>(&self, text: &'t str) -> Result<Option<Captures<'t>>, PatternError> {
        self.captures_at(text, 0)
    }

    /// The text of the first match.
    pub(super) fn find<'t>(&self, text: &'t str) -> Result<Option<&'t str>, PatternError> {
        match self.engine(text) {
            Engine::Automaton(regex) => Ok(regex.find(text).map(|found| found.as_str())),
            Engine::Backtracking(regex) => match regex.find(text) {
                Ok(found) => Ok(found.map(|found| found.as_str())),
                Err(_) => Err(self.too_many_steps(text)),
            },
        }
    }

    fn captures_at<'t>(&self, text: &'t str, at: usize) -> Result<Option<Captures<'t>>, PatternError> {
        match self.engine(text) {
            Engine::Automaton(regex) => Ok(regex
                .captures_at(text, at)
                .map(|captures| Captures(Groups::Automaton(captures)))),
            Engine::Backtracking(regex) => match regex.captures_from_pos(text, at) {
                Ok(captures) => Ok(captures.map(|captures| Captures(Groups::Backtracking(captures)))),
                Err(_) => Err(self.too_many_steps(text)),
            },
        }
    }

    fn span_at(&self, text: &str, at: usize) -> Result<Option<(usize, usize)>, PatternError> {
        match self.engine(text) {
            Engine::Automaton(regex) => Ok(regex.find_at(text, at).map(|found| (found.start(), found.end()))),
            Engine::Backtracking(regex) => match regex.find_from_pos(text, at) {
                Ok(found) => Ok(found.map(|found| (found.start(), found.end()))),
                Err(_) => Err(self.too_many_steps(text)),
            },
        }
    }

    /// A text whose matches are written anew.
    pub(super) fn replace_all<'t, E: From<PatternError>>(
        &self,
        text: &'t str,
        mut write: impl FnMut(&Captures<'t>, &mut String) -> Result<(), E>,
    ) -> Result<Cow<'t, str>, E> {
        let mut out = String::new();
        let (mut copied, mut search, mut any) = (0, Some(0), false);
        while let Some(at) = search {
            let Some(captures) = self.captures_at(text, at)? else {
                break;
            };
            let Some(span) = captures.span() else { break };
            out.push_str(&text[copied..span.0]);
            write(&captures, &mut out)?;
            copied = span.1;
            any = true;
            search = after(text, span);
        }
        if !any {
            return Ok(Cow::Borrowed(text));
        }
        out.push_str(&text[copied..]);
        Ok(Cow::Owned(out))
    }

    /// Parts between the matches: no empty ones at the end, and none before a match of nothing at the start.
    pub(crate) fn split(&self, text: &str) -> Result<Vec<String>, PatternError> {
        let mut parts = Vec::new();
        let (mut copied, mut search) = (0, Some(0));
        while let Some(at) = search {
            let Some(span) = self.span_at(text, at)? else {
                break;
            };
            search = after(text, span);
            if span.1 == 0 {
                continue;
            }
            parts.push(text[copied..span.0].to_owned());
            copied = span.1;
        }
        if parts.is_empty() {
            return Ok(vec![text.to_owned()]);
        }
        parts.push(text[copied..].to_owned());
        while parts.last().is_some_and(String::is_empty) {
            parts.pop();
        }
        Ok(parts)
    }
}

/// Where Java looks for the next match: at the end of the last, a character on if that was empty.
fn after(text: &str, (start, end): (usize, usize)) -> Option<usize> {
    if start < end {
        return Some(end);
    }
    text[end..].chars().next().map(|c| end + c.len_utf8())
}

impl Engine {
    fn new(pattern: &str, backtracks: bool) -> Result<Engine, String> {
        if backtracks {
            return match fancy_regex::Regex::new(pattern) {
                Ok(regex) => Ok(Engine::Backtracking(regex)),
                Err(error) => Err(reason(&error.to_string())),
            };
        }
        match regex::Regex::new(pattern) {
            Ok(regex) => Ok(Engine::Automaton(regex)),
            Err(error) => Err(reason(&error.to_string())),
        }
    }
}

/// The last line of a message, which does not show the translated pattern.
fn reason(message: &str) -> String {
    let why = message.lines().last().unwrap_or_default();
    why.trim_start_matches("error: ").to_owned()
}
