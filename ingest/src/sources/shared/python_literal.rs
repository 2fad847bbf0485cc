//! Python literals in the cells of tables: lists of texts (`['mass', " nodule"]`), lists of dictionaries of numbers.

use serde_json::{Map, Value};

/// Most levels of lists and dictionaries within each other.
const MAX_LEVELS: usize = 16;

/// Parses a literal of lists, dictionaries with texts as keys, texts, numbers, `None`, `True` and `False`; `nan` is null.
///
/// # Errors
/// A sentence that names the first character that does not fit.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.blanks();
    if parser.at < text.len() { Err(parser.unexpected()) } else { Ok(value) }
}

/// Parses a list of texts, which are trimmed; texts without a character are left out.
///
/// # Errors
/// As [`parse`], and when the literal is no list of texts.
pub fn texts(text: &str) -> Result<Vec<String>, String> {
    let no_list = || "the cell is no list of texts".to_owned();
    let Value::Array(values) = parse(text)? else { return Err(no_list()) };
    let mut texts = Vec::with_capacity(values.len());
    for value in values {
        let Value::String(text) = value else { return Err(no_list()) };
        let trimmed = text.trim();
        if !trimmed.is_empty() {
            texts.push(if trimmed.len() == text.len() { text } else { trimmed.to_owned() });
        }
    }
    Ok(texts)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn unexpected(&self) -> String {
        let place = self.text[..self.at].chars().count() + 1;
        match self.rest().chars().next() {
            Some(character) => {
                let shown = if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
                format!("unexpected `{shown}` at character {place} of the literal")
            }
            None => "the literal ends too early".to_owned(),
        }
    }

    /// Whether the next character is this one, which is taken then.
    fn takes(&mut self, character: char) -> bool {
        self.blanks();
        let is_next = self.rest().starts_with(character);
        self.at += if is_next { character.len_utf8() } else { 0 };
        is_next
    }

    fn value(&mut self, level: usize) -> Result<Value, String> {
        if level > MAX_LEVELS {
            return Err("the literal has too many levels".to_owned());
        }
        self.blanks();
        match self.rest().chars().next() {
            Some('[') => self.items('[', ']', |parser| parser.value(level + 1)).map(Value::Array),
            Some('{') => {
                let pair = |parser: &mut Self| {
                    let key = parser.quoted()?;
                    if parser.takes(':') { Ok((key, parser.value(level + 1)?)) } else { Err(parser.unexpected()) }
                };
                Ok(Value::Object(self.items('{', '}', pair)?.into_iter().collect::<Map<_, _>>()))
            }
            Some('\'' | '"') => self.quoted().map(Value::String),
            _ => self.word(),
        }
    }

    /// Items between two brackets, with commas between them and at most one after the last one.
    fn items<T>(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let mut items = Vec::new();
        let mut may_follow = self.takes(open);
        loop {
            if self.takes(close) {
                return Ok(items);
            }
            if !may_follow {
                return Err(self.unexpected());
            }
            items.push(item(self)?);
            may_follow = self.takes(',');
        }
    }

    /// A text between quotes of one kind.
    fn quoted(&mut self) -> Result<String, String> {
        self.blanks();
        let mut characters = self.rest().char_indices();
        let Some((_, quote @ ('\'' | '"'))) = characters.next() else { return Err(self.unexpected()) };
        let mut text = String::new();
        while let Some((at, character)) = characters.next() {
            if character == quote {
                self.at += at + 1;
                return Ok(text);
            }
            let plain = if character == '\\' { characters.next().map(|(_, next)| next) } else { Some(character) };
            text.push(match (character, plain) {
                ('\\', Some('n')) => '\n',
                ('\\', Some('t')) => '\t',
                (_, Some(plain)) => plain,
                (_, None) => break,
            });
        }
        Err("a text of the literal has no closing quote".to_owned())
    }

    /// A number, or one of Python's constants.
    fn word(&mut self) -> Result<Value, String> {
        let rest = self.rest();
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c))).unwrap_or(rest.len());
        let value = match &rest[..length] {
            "None" | "nan" | "NaN" => Some(Value::Null),
            "True" => Some(Value::Bool(true)),
            "False" => Some(Value::Bool(false)),
            number => number.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number),
        };
        let value = value.ok_or_else(|| self.unexpected())?;
        self.at += length;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn literals_of_tables_are_parsed() {
        assert_eq!(texts("['pneumonia', \" nodule\", '', 'a, b',]").unwrap(), ["pneumonia", "nodule", "a, b"]);
        assert_eq!(texts(r#" [ "Chilaiditi's sign" , 'it\'s' ] "#).unwrap(), ["Chilaiditi's sign", "it's"]);
        assert_eq!(texts("[]").unwrap(), [""; 0]);
        let boxes = "[{'x': 789.28836, 'y': 582, 'width': 1e3}, {}]";
        assert_eq!(parse(boxes).unwrap(), json!([{"x": 789.28836, "y": 582.0, "width": 1000.0}, {}]));
        assert_eq!(parse("[None, True, -1.5, nan, ['é']]").unwrap(), json!([null, true, -1.5, null, ["é"]]));
    }

    #[test]
    fn other_texts_are_errors() {
        for (text, error) in [
            ("", "the literal ends too early"),
            ("['a'", "the literal ends too early"),
            ("['a' 'b']", "unexpected `'` at character 6 of the literal"),
            ("['a']]", "unexpected `]` at character 6 of the literal"),
            ("['é', ?]", "unexpected `?` at character 7 of the literal"),
            ("['a", "a text of the literal has no closing quote"),
            ("['a\\", "a text of the literal has no closing quote"),
            ("{1: 2}", "unexpected `1` at character 2 of the literal"),
            ("__import__('os')", "unexpected `_` at character 1 of the literal"),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
        assert_eq!(parse(&"[".repeat(100_000)).unwrap_err(), "the literal has too many levels");
        assert_eq!(texts("[1]").unwrap_err(), "the cell is no list of texts");
        assert_eq!(texts("'a'").unwrap_err(), "the cell is no list of texts");
    }
}
