//! Passwords of input sources in recorded SQL.

/// What stands for a password in recorded SQL.
pub const MASK: &str = "<masked>";

/// Passwords of input sources do not belong into metadata and reports.
pub(crate) fn masked(sql: &str) -> String {
    const KEY: &str = "\"httpAuthenticationPassword\"";
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(found) = rest.find(KEY) {
        let (before, value) = rest.split_at(found + KEY.len());
        out.push_str(before);
        let end = value
            .find('"')
            .and_then(|open| Some(open + 1 + value[open + 1..].find('"')?));
        // A password that does not end hides the rest.
        out.push_str(&format!(": \"{MASK}\""));
        rest = end.map_or("", |end| &value[end + 1..]);
    }
    out.push_str(rest);
    masked_arguments(&out)
}

/// The same for `password => '…'` of a table function.
fn masked_arguments(sql: &str) -> String {
    const NAME: &str = "password";
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    let lower = sql.to_ascii_lowercase();
    while let Some(found) = lower[sql.len() - rest.len()..].find(NAME) {
        let (before, after) = rest.split_at(found + NAME.len());
        out.push_str(before);
        rest = after;
        let name_end = after.len() - after.trim_start_matches('"').len();
        let value = after[name_end..].trim_start();
        let Some(value) = value.strip_prefix("=>").map(str::trim_start) else {
            continue;
        };
        let Some(text) = value.strip_prefix('\'') else {
            continue;
        };
        out.push_str(&format!("{} => '{MASK}'", &after[..name_end]));
        // Two quotes are one inside; a password that does not end hides the rest.
        let mut end = None;
        let mut from = 0;
        while let Some(quote) = text[from..].find('\'') {
            from += quote + 1;
            if text[from..].starts_with('\'') {
                from += 1;
            } else {
                end = Some(from);
                break;
            }
        }
        rest = end.map_or("", |end| &text[end..]);
    }
    out.push_str(rest);
    out
}
