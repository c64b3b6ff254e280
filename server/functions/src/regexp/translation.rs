//! Java's syntax of regular expressions in that of our engines.

use super::classes;

/// Before a last line terminator, or at the very end.
const BEFORE_TERMINATOR: &str = "(?:(?!(?<=\\r)\\n)(?=(?:\\r\\n|[\\n\\r\\x{85}\\x{2028}\\x{2029}])?\\z))";

/// A translated pattern: its text, cut where an end of the input stands.
pub(super) struct Translation {
    pieces: Vec<String>,
    /// It needs an engine that tries all ways.
    pub backtracks: bool,
}

impl Translation {
    /// Whether the pattern has a `$` or a `\Z`.
    pub(super) fn has_end(&self) -> bool {
        self.pieces.len() > 1
    }

    /// For texts without a line terminator at their end.
    pub(super) fn at_end(&self) -> String {
        self.pieces.join("\\z")
    }

    /// For all texts.
    pub(super) fn before_terminator(&self) -> String {
        self.pieces.join(BEFORE_TERMINATOR)
    }
}

/// Flags that hold up to the end of a group.
#[derive(Clone, Copy, Default)]
struct Flags {
    ignore_case: bool,
    /// Unicode's cases too.
    unicode_case: bool,
    /// Unicode's classes.
    unicode_classes: bool,
    multi_line: bool,
    dot_all: bool,
    unix_lines: bool,
    comments: bool,
}

struct Translator<'p> {
    rest: &'p str,
    out: String,
    pieces: Vec<String>,
    flags: Flags,
    outer: Vec<Flags>,
    groups: usize,
    backtracks: bool,
}

/// A pattern of Java as one of ours; the reason if it has something that we don't.
pub(super) fn translate(pattern: &str) -> Result<Translation, String> {
    let mut translator = Translator {
        rest: pattern,
        out: String::with_capacity(pattern.len()),
        pieces: Vec::new(),
        flags: Flags::default(),
        outer: Vec::new(),
        groups: 0,
        backtracks: false,
    };
    while let Some(c) = translator.next() {
        translator.one(c)?;
    }
    let Translator {
        out,
        mut pieces,
        backtracks,
        ..
    } = translator;
    pieces.push(out);
    Ok(Translation { pieces, backtracks })
}

impl Translator<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// Takes a text if it comes next.
    fn take(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes what comes before a text, and the text.
    fn until(&mut self, end: &str) -> Option<String> {
        let (before, rest) = self.rest.split_once(end)?;
        self.rest = rest;
        Some(before.to_owned())
    }

    /// Takes up to so many digits.
    fn digits(&mut self, radix: u32, most: usize) -> &str {
        let count = self
            .rest
            .chars()
            .take(most)
            .take_while(|c| c.is_digit(radix))
            .count();
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        digits
    }

    fn one(&mut self, c: char) -> Result<(), String> {
        match c {
            '\\' => return self.escape(false),
            '[' => return self.class(),
            '(' => return self.group(),
            ')' => {
                self.flags = self.outer.pop().unwrap_or(self.flags);
                self.out.push(')');
            }
            '$' if !self.flags.multi_line => self.end(),
            '.' if self.flags.dot_all => self.out.push_str("[\\s\\S]"),
            '.' if self.flags.unix_lines => self.out.push_str("[^\\n]"),
            '.' => self.out.push_str("[^\\n\\r\\x{85}\\x{2028}\\x{2029}]"),
            '*' | '+' | '?' => {
                self.out.push(c);
                self.quantified();
            }
            '{' => {
                self.out.push('{');
                if let Some(bounds) = self.until("}") {
                    self.out.push_str(&bounds);
                    self.out.push('}');
                    self.quantified();
                }
            }
            '#' if self.flags.comments => while self.next().is_some_and(|c| c != '\n') {},
            c if self.flags.comments && c.is_ascii_whitespace() => {}
            c if c.is_ascii() => self.out.push(c),
            c => self.literal(c, false),
        }
        Ok(())
    }

    /// What may stand behind a quantifier.
    fn quantified(&mut self) {
        if self.take("?") {
            self.out.push('?');
        } else if self.take("+") {
            self.out.push('+');
            self.backtracks = true;
        }
    }

    fn end(&mut self) {
        self.pieces.push(std::mem::take(&mut self.out));
    }

    /// A character that stands for itself. Without its flag for Unicode, Java knows the cases of ASCII only.
    fn literal(&mut self, c: char, in_class: bool) {
        if c.is_ascii() {
            self.out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
        } else if self.flags.ignore_case && !self.flags.unicode_case && !in_class {
            self.out.push_str("(?-i:");
            self.out.push(c);
            self.out.push(')');
        } else {
            self.out.push(c);
        }
    }

    fn group(&mut self) -> Result<(), String> {
        if !self.take("?") {
            self.groups += 1;
            self.outer.push(self.flags);
            self.out.push('(');
            return Ok(());
        }
        for around in ["=", "!", "<=", "<!", ">"] {
            if self.take(around) {
                self.backtracks = true;
                self.outer.push(self.flags);
                self.out.push_str("(?");
                self.out.push_str(around);
                return Ok(());
            }
        }
        if self.take("<") {
            let name = self.until(">").ok_or("a name of a group is not closed")?;
            self.groups += 1;
            self.outer.push(self.flags);
            self.out.push_str(&format!("(?<{name}>"));
            return Ok(());
        }
        self.inline_flags()
    }

    /// `i-m)` or `i-m:` behind `(?`.
    fn inline_flags(&mut self) -> Result<(), String> {
        let before = self.flags;
        let mut on = true;
        let mut kept = String::new();
        loop {
            let flags = &mut self.flags;
            let c = self.rest.chars().next();
            match c {
                Some('-') => on = false,
                Some('i') => flags.ignore_case = on,
                Some('u') => flags.unicode_case = on,
                Some('U') => (flags.unicode_classes, flags.unicode_case) = (on, on),
                Some('m') => flags.multi_line = on,
                Some('s') => flags.dot_all = on,
                Some('d') => flags.unix_lines = on,
                Some('x') => flags.comments = on,
                Some(end @ (')' | ':')) => {
                    self.next();
                    if end == ':' {
                        self.outer.push(before);
                        self.out.push_str(&format!("(?{kept}:"));
                    } else if !kept.is_empty() {
                        self.out.push_str(&format!("(?{kept})"));
                    }
                    return Ok(());
                }
                Some(other) => return Err(format!("unknown group (?{other}")),
                None => return Err("a group is not closed".to_owned()),
            }
            // The other flags are ours to heed.
            match c {
                Some(kept_flag @ ('i' | 'm')) if on => kept.push(kept_flag),
                Some(kept_flag @ ('i' | 'm')) => kept.push_str(&format!("-{kept_flag}")),
                _ => {}
            }
            self.next();
        }
    }

    fn class(&mut self) -> Result<(), String> {
        self.open_class();
        let mut depth = 1_usize;
        while depth > 0 {
            match self.next().ok_or("a class is not closed")? {
                '\\' => self.escape(true)?,
                '[' => {
                    depth += 1;
                    self.open_class();
                }
                ']' => {
                    depth -= 1;
                    self.out.push(']');
                }
                '-' if self.take("-") => self.out.push_str("-\\-"),
                '~' => self.out.push_str("\\~"),
                c if self.flags.comments && c.is_ascii_whitespace() => {}
                c => self.out.push(c),
            }
        }
        Ok(())
    }

    fn open_class(&mut self) {
        self.out.push('[');
        if self.take("^") {
            self.out.push('^');
        }
        // A bracket at once behind is itself, and so is a colon.
        for start in [']', ':'] {
            if self.take(start.encode_utf8(&mut [0; 4])) {
                self.out.push('\\');
                self.out.push(start);
                break;
            }
        }
    }

    /// Characters of a class, or all others.
    fn set(&mut self, set: &str, negated: bool, in_class: bool) {
        match (negated, in_class) {
            (false, true) => self.out.push_str(set),
            (true, _) => self.out.push_str(&format!("[^{set}]")),
            (false, false) => self.out.push_str(&format!("[{set}]")),
        }
    }

    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let c = self.next().ok_or("a backslash stands at the end")?;
        let negated = c.is_ascii_uppercase();
        match c {
            'Q' => {
                let quoted = match self.until("\\E") {
                    Some(quoted) => quoted,
                    None => std::mem::take(&mut self.rest).to_owned(),
                };
                quoted.chars().for_each(|c| self.literal(c, in_class));
            }
            'E' => {}
            'd' | 'D' | 'w' | 'W' | 's' | 'S' if self.flags.unicode_classes => {
                self.out.push('\\');
                self.out.push(c);
            }
            'd' | 'D' => self.set(classes::DIGIT, negated, in_class),
            'w' | 'W' => self.set(classes::WORD, negated, in_class),
            's' | 'S' => self.set(classes::SPACE, negated, in_class),
            'h' | 'H' => self.set(classes::HORIZONTAL_SPACE, negated, in_class),
            'v' | 'V' => self.set(classes::VERTICAL_SPACE, negated, in_class),
            'p' | 'P' => {
                let name = if self.take("{") {
                    self.until("}").ok_or("a name of a class is not closed")?
                } else {
                    self.next().map(String::from).unwrap_or_default()
                };
                self.set(&classes::named(&name), negated, in_class);
            }
            'R' if !in_class => {
                self.out.push_str("(?:\\r\\n|[");
                self.out.push_str(classes::VERTICAL_SPACE);
                self.out.push_str("])");
            }
            'Z' if !in_class => self.end(),
            'A' | 'b' | 'B' | 'z' if !in_class => {
                self.out.push('\\');
                self.out.push(c);
            }
            'G' if !in_class => {
                self.backtracks = true;
                self.out.push_str("\\G");
            }
            'k' if !in_class && self.take("<") => {
                let name = self.until(">").ok_or("a name of a group is not closed")?;
                self.backtracks = true;
                self.out.push_str(&format!("\\k<{name}>"));
            }
            '1'..='9' if !in_class => self.back_reference(c),
            't' | 'n' | 'r' | 'f' | 'a' | 'e' | 'c' | 'x' | 'u' | '0' => {
                let c = self.coded(c).ok_or_else(|| format!("illegal escape \\{c}"))?;
                self.out.push_str(&format!("\\x{{{:x}}}", u32::from(c)));
            }
            c if c.is_ascii_alphanumeric() => return Err(format!("unknown escape \\{c}")),
            c => self.literal(c, in_class),
        }
        Ok(())
    }

    /// More digits belong to the number as long as there is such a group.
    fn back_reference(&mut self, first: char) {
        let mut number = first.to_digit(10).unwrap_or(1) as usize;
        while let Some(digit) = self.rest.chars().next().and_then(|c| c.to_digit(10)) {
            let longer = number * 10 + digit as usize;
            if longer > self.groups {
                break;
            }
            number = longer;
            self.next();
        }
        self.backtracks = true;
        self.out.push_str(&format!("(?:\\{number})"));
    }

    /// The character of an escape that names one.
    fn coded(&mut self, letter: char) -> Option<char> {
        let code = |digits: &str, radix: u32| u32::from_str_radix(digits, radix).ok();
        match letter {
            't' => Some('\t'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            'f' => Some('\u{c}'),
            'a' => Some('\u{7}'),
            'e' => Some('\u{1b}'),
            'c' => char::from_u32(u32::from(self.next()?) ^ 64),
            'x' if self.take("{") => char::from_u32(code(&self.until("}")?, 16)?),
            'x' => char::from_u32(code(
                Some(self.digits(16, 2)).filter(|digits| digits.len() == 2)?,
                16,
            )?),
            'u' => {
                let unit = code(Some(self.digits(16, 4)).filter(|digits| digits.len() == 4)?, 16)?;
                let mut units = vec![u16::try_from(unit).ok()?];
                // Two of them may be the halves of one character.
                if (0xd800..0xdc00).contains(&unit) && self.take("\\u") {
                    units.push(u16::try_from(code(self.digits(16, 4), 16)?).ok()?);
                }
                char::decode_utf16(units).next()?.ok()
            }
            _ => {
                let most = if self.rest.starts_with(['0', '1', '2', '3']) {
                    3
                } else {
                    2
                };
                char::from_u32(code(self.digits(8, most), 8)?)
            }
        }
    }
}
