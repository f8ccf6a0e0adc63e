//! Which client library wrote a frame (RocketMQ's `LanguageCode`).

/// The language of a peer's library: a byte in binary headers, a name in JSON ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// Code 0, and what Gantry says of itself: every client knows it, `RUST` only newer ones.
    #[default]
    Java,
    /// Code 1.
    Cpp,
    /// Code 2.
    DotNet,
    /// Code 3.
    Python,
    /// Code 4.
    Delphi,
    /// Code 5.
    Erlang,
    /// Code 6.
    Ruby,
    /// Code 7.
    Other,
    /// Code 8.
    Http,
    /// Code 9.
    Go,
    /// Code 10.
    Php,
    /// Code 11.
    Oms,
    /// Code 12.
    Rust,
    /// Code 13.
    NodeJs,
    /// A code or name that RocketMQ's list doesn't have. Written as `OTHER`.
    Unknown,
}

/// In code order: the position is RocketMQ's code.
const NAMED: [(Language, &str); 14] = [
    (Language::Java, "JAVA"),
    (Language::Cpp, "CPP"),
    (Language::DotNet, "DOTNET"),
    (Language::Python, "PYTHON"),
    (Language::Delphi, "DELPHI"),
    (Language::Erlang, "ERLANG"),
    (Language::Ruby, "RUBY"),
    (Language::Other, "OTHER"),
    (Language::Http, "HTTP"),
    (Language::Go, "GO"),
    (Language::Php, "PHP"),
    (Language::Oms, "OMS"),
    (Language::Rust, "RUST"),
    (Language::NodeJs, "NODE_JS"),
];

impl Language {
    /// From the byte of a binary header.
    pub fn from_code(code: u8) -> Self {
        NAMED.get(usize::from(code)).map_or(Self::Unknown, |(language, _)| *language)
    }

    /// From the name in a JSON header.
    pub fn from_name(name: &str) -> Self {
        NAMED.iter().find(|(_, known)| *known == name).map_or(Self::Unknown, |(language, _)| *language)
    }

    /// The byte of a binary header.
    pub fn code(self) -> u8 {
        self.position() as u8
    }

    /// The name in a JSON header.
    pub fn name(self) -> &'static str {
        NAMED[self.position()].1
    }

    fn position(self) -> usize {
        const OTHER: usize = 7;
        NAMED.iter().position(|(language, _)| *language == self).unwrap_or(OTHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_name_lead_back_to_the_language() {
        for (code, (language, name)) in NAMED.iter().enumerate() {
            assert_eq!(Language::from_code(code as u8), *language);
            assert_eq!(usize::from(language.code()), code);
            assert_eq!(Language::from_name(name), *language);
            assert_eq!(language.name(), *name);
        }
    }

    #[test]
    fn an_unknown_language_is_written_as_other() {
        assert_eq!(Language::from_code(200), Language::Unknown);
        assert_eq!(Language::from_name("COBOL"), Language::Unknown);
        assert_eq!((Language::Unknown.code(), Language::Unknown.name()), (7, "OTHER"));
    }
}
