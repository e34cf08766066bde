//! JSON (RFC 8259), as far as a seccomp profile has any: whole numbers and texts, in lists and objects.
#![forbid(unsafe_code)]

use std::fmt;

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A string.
    Text(String),
    /// A number that is whole and not negative.
    Number(u64),
    /// An array.
    List(Vec<Value>),
    /// An object, in the file's order.
    Object(Vec<(String, Value)>),
    /// Any other number, true, false, or null.
    Other,
}

impl Value {
    /// An object's member of this name, the last one if there are more.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let Self::Object(members) = self else { return None };
        members.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// A text.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

/// What is wrong, and where.
#[derive(PartialEq, Eq, Debug)]
pub struct Wrong {
    line: usize,
    what: &'static str,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// How deep values may lie in each other. A profile needs six; without a limit a hostile one takes the stack.
const DEEPEST: u8 = 32;

/// Reads one value and nothing behind it.
pub fn parse(text: &[u8]) -> Result<Value, Wrong> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(DEEPEST).and_then(|value| match reader.next_token() {
        None => Ok(value),
        Some(_) => Err("more than one value"),
    });
    value.map_err(|what| {
        let before = text.get(..reader.at).unwrap_or(text);
        Wrong { line: before.split(|byte| *byte == b'\n').count(), what }
    })
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// The next byte behind blanks, not yet taken.
    fn next_token(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
        self.peek()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.next_token() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self, depth: u8) -> Result<Value, &'static str> {
        let depth = depth.checked_sub(1).ok_or("too many values in each other")?;
        match self.next_token().ok_or("it ends too early")? {
            b'"' => self.string().map(Value::Text),
            b'{' => {
                let mut members = Vec::new();
                self.members(b'}', |reader| {
                    if reader.next_token() != Some(b'"') {
                        return Err("a name in quotes is missing");
                    }
                    let name = reader.string()?;
                    if !reader.take(b':') {
                        return Err("a colon is missing");
                    }
                    members.push((name, reader.value(depth)?));
                    Ok(())
                })?;
                Ok(Value::Object(members))
            }
            b'[' => {
                let mut values = Vec::new();
                self.members(b']', |reader| {
                    values.push(reader.value(depth)?);
                    Ok(())
                })?;
                Ok(Value::List(values))
            }
            _ => self.word(),
        }
    }

    /// What stands between brackets, with commas between.
    fn members(
        &mut self,
        end: u8,
        mut member: impl FnMut(&mut Self) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        self.at += 1;
        if self.take(end) {
            return Ok(());
        }
        loop {
            member(self)?;
            if self.take(end) {
                return Ok(());
            }
            if !self.take(b',') {
                return Err("a comma or a closing bracket is missing");
            }
        }
    }

    /// A number, true, false, or null.
    fn word(&mut self) -> Result<Value, &'static str> {
        let rest = self.text.get(self.at..).unwrap_or(&[]);
        let in_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        let word = rest.iter().position(|byte| !in_word(byte)).and_then(|end| rest.get(..end)).unwrap_or(rest);
        let value = match word {
            b"true" | b"false" | b"null" => Value::Other,
            [b'0'..=b'9', more @ ..] if more.iter().all(u8::is_ascii_digit) => {
                let number = std::str::from_utf8(word).ok().and_then(|digits| digits.parse().ok());
                Value::Number(number.ok_or("a number of more than 64 bits")?)
            }
            [b'-' | b'0'..=b'9', ..] => Value::Other,
            _ => return Err("neither a value nor a bracket"),
        };
        self.at += word.len();
        Ok(value)
    }

    fn string(&mut self) -> Result<String, &'static str> {
        let mut bytes = Vec::new();
        self.at += 1;
        loop {
            let byte = self.peek().ok_or("a quote is not closed")?;
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(bytes).map_err(|_| "not UTF-8"),
                b'\\' => {
                    let mut room = [0; 4];
                    bytes.extend_from_slice(self.escaped()?.encode_utf8(&mut room).as_bytes());
                }
                0..=0x1f => return Err("a line end or control character in quotes"),
                _ => bytes.push(byte),
            }
        }
    }

    /// What a backslash stands for.
    fn escaped(&mut self) -> Result<char, &'static str> {
        let byte = self.peek().ok_or("a quote is not closed")?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => byte.into(),
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut code = self.hexadecimal()?;
                // Two halves make a character above U+FFFF; half a one alone is none.
                if let (0xd800..=0xdbff, Some(b"\\u")) = (code, self.text.get(self.at..self.at + 2)) {
                    self.at += 2;
                    code = 0x10000 + ((code - 0xd800) << 10) + (self.hexadecimal()? & 0x3ff);
                }
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return Err("an unknown letter behind a backslash"),
        })
    }

    fn hexadecimal(&mut self) -> Result<u32, &'static str> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            code = code << 4 | digit.ok_or("four hexadecimal digits are missing behind \\u")?;
            self.at += 1;
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn c1_values_are_read() {
        for (json, value) in [
            ("7", Value::Number(7)),
            (" 18446744073709551615\n", Value::Number(u64::MAX)),
            ("-1", Value::Other),
            ("1.5e3", Value::Other),
            ("null", Value::Other),
            ("\"a\\n\\u0041\\ud83d\\ude00\\\"\\/é\"", text("a\nA😀\"/é")),
            ("\"\\ud83d\"", text("\u{fffd}")),
            ("[]", Value::List(vec![])),
            ("[1, \"x\" ]", Value::List(vec![Value::Number(1), text("x")])),
            ("{}", Value::Object(vec![])),
        ] {
            assert_eq!(parse(json.as_bytes()), Ok(value), "{json}");
        }
        let object = parse(b"{\"a\":1,\"b\":[{}],\"a\":2}").unwrap();
        assert_eq!(object.get("a"), Some(&Value::Number(2)));
        assert_eq!(object.get("b"), Some(&Value::List(vec![Value::Object(vec![])])));
        assert_eq!(object.get("c"), None);
    }

    #[test]
    fn c1_what_is_no_json_is_refused_with_its_line() {
        for json in [
            "",
            " ",
            "{",
            "}",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "nul",
            "1 2",
            "tru e",
            "18446744073709551616",
            "\"\n\"",
            "'a'",
            ",",
            "[",
            "{\"a\":1",
        ] {
            assert!(parse(json.as_bytes()).is_err(), "{json}");
        }
        assert!(parse(b"\"\xff\"").is_err());
        assert_eq!(parse(b"{\n\n x").unwrap_err().to_string(), "line 3: a name in quotes is missing");
        assert!(parse(&b"[".repeat(1_000_000)).unwrap_err().to_string().contains("too many"));
        assert!(parse(&b"{\"a\":".repeat(1_000_000)).is_err());
    }

    proptest! {
        #[test]
        fn c1_whatever_the_bytes_it_does_not_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn c1_nor_on_what_looks_like_json(json in "[\\[\\]{}\",:\\\\u0-9a-f \n-]{0,60}") {
            let _ = parse(json.as_bytes());
        }
    }
}
