//! Typed headers: declared once, decoded from [`ExtFields`] by borrowing, encoded straight into a frame.

use thiserror::Error;

use crate::ext_fields::ExtFields;

/// A typed header that can be read from a frame's ext fields. Fields that it doesn't know are ignored.
pub trait Header<'a>: Fields + Sized {
    /// The header's name in errors.
    const NAME: &'static str;

    /// Reads the header, borrowing its texts.
    fn decode(ext: &'a ExtFields) -> Result<Self, HeaderError>;
}

/// Something that can be written as ext fields: a typed header, or [`ExtFields`] themselves.
pub trait Fields {
    /// Puts each field that has a value.
    fn encode(&self, out: &mut impl FieldSink);
}

/// Where ext fields are written to: [`ExtFields`], or a frame that is being built.
pub trait FieldSink {
    /// Puts one field.
    fn put(&mut self, key: &str, value: &str);

    /// Puts a field whose key and value need no escaping in any serialization (digits, letters).
    fn put_plain(&mut self, key: &str, value: &str) {
        self.put(key, value);
    }
}

/// No fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoFields;

impl Fields for NoFields {
    fn encode(&self, _: &mut impl FieldSink) {}
}

/// Why ext fields are not the header that they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// A required field is absent.
    #[error("{header}: the required field `{field}` is missing")]
    Missing {
        /// The header.
        header: &'static str,
        /// The field's key on the wire and its name.
        field: &'static str,
    },
    /// A value is of the wrong type or out of range.
    #[error("{header}: the field `{field}` is `{value}`, expected {expected}")]
    Invalid {
        /// The header.
        header: &'static str,
        /// The field's key on the wire and its name.
        field: &'static str,
        /// The value as it came, shortened.
        value: String,
        /// The type expected.
        expected: &'static str,
    },
}

/// A field's type: how its text is read and written.
pub trait FieldValue<'a>: Sized {
    /// What the text must be, for errors.
    const EXPECTED: &'static str;

    /// What an absent field is: `None` if it is required.
    fn absent() -> Option<Self> {
        None
    }

    /// `None` if the text isn't one.
    fn parse(text: &'a str) -> Option<Self>;

    /// Puts the field if it has a value.
    fn put(&self, key: &str, out: &mut impl FieldSink);
}

impl<'a> FieldValue<'a> for &'a str {
    const EXPECTED: &'static str = "a text";

    fn parse(text: &'a str) -> Option<Self> {
        Some(text)
    }

    fn put(&self, key: &str, out: &mut impl FieldSink) {
        out.put(key, self);
    }
}

impl FieldValue<'_> for bool {
    const EXPECTED: &'static str = "true or false";

    fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("true") {
            Some(true)
        } else if text.eq_ignore_ascii_case("false") {
            Some(false)
        } else {
            None
        }
    }

    fn put(&self, key: &str, out: &mut impl FieldSink) {
        out.put_plain(key, if *self { "true" } else { "false" });
    }
}

macro_rules! integer_field {
    ($type:ty, $expected:literal) => {
        impl FieldValue<'_> for $type {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn put(&self, key: &str, out: &mut impl FieldSink) {
                out.put_plain(key, itoa::Buffer::new().format(*self));
            }
        }
    };
}

integer_field!(i32, "a 32-bit integer");
integer_field!(i64, "a 64-bit integer");

impl<'a, T: FieldValue<'a>> FieldValue<'a> for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn absent() -> Option<Self> {
        Some(None)
    }

    /// Some clients write an optional number that they don't have as an empty text.
    fn parse(text: &'a str) -> Option<Self> {
        match T::parse(text) {
            None if !text.is_empty() => None,
            value => Some(value),
        }
    }

    fn put(&self, key: &str, out: &mut impl FieldSink) {
        if let Some(value) = self {
            value.put(key, out);
        }
    }
}

/// Reads one field. For the `headers!` macro and for headers that choose their keys while decoding.
pub fn field<'a, T: FieldValue<'a>>(
    ext: &'a ExtFields,
    header: &'static str,
    key: &str,
    name: &'static str,
) -> Result<T, HeaderError> {
    match ext.get(key) {
        None => T::absent().ok_or(HeaderError::Missing { header, field: name }),
        Some(text) => T::parse(text).ok_or_else(|| HeaderError::Invalid {
            header,
            field: name,
            value: text.chars().take(MAX_SHOWN_CHARS).collect(),
            expected: T::EXPECTED,
        }),
    }
}

/// How much of a wrong value an error shows.
const MAX_SHOWN_CHARS: usize = 64;

/// Declares typed headers: `"key on the wire" => name: type`. Types: `&'a str`, `i32`, `i64`, `bool`, and `Option` of these.
#[macro_export]
macro_rules! headers {
    (@decode $self:ident, $ext:ident, $($key:literal => $field:ident),*) => {
        Ok($self { $($field: $crate::header::field($ext, stringify!($self), $key, concat!($key, " (", stringify!($field), ")"))?,)* })
    };
    (@fields $($key:literal => $field:ident),*) => {
        fn encode(&self, _out: &mut impl $crate::header::FieldSink) {
            $($crate::header::FieldValue::put(&self.$field, $key, _out);)*
        }
    };
    ($(#[$meta:meta])* $vis:vis struct $name:ident<'a> { $($(#[$field_meta:meta])* $key:literal => $field:ident: $type:ty),* $(,)? } $($rest:tt)*) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        $vis struct $name<'a> {
            $($(#[$field_meta])* #[doc = concat!("Ext field `", $key, "`.")] $vis $field: $type,)*
        }

        impl<'a> $crate::header::Header<'a> for $name<'a> {
            const NAME: &'static str = stringify!($name);

            fn decode(ext: &'a $crate::ExtFields) -> Result<Self, $crate::header::HeaderError> {
                $crate::headers!(@decode $name, ext, $($key => $field),*)
            }
        }

        impl $crate::header::Fields for $name<'_> {
            $crate::headers!(@fields $($key => $field),*);
        }

        $crate::headers! { $($rest)* }
    };
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $key:literal => $field:ident: $type:ty),* $(,)? } $($rest:tt)*) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        $vis struct $name {
            $($(#[$field_meta])* #[doc = concat!("Ext field `", $key, "`.")] $vis $field: $type,)*
        }

        impl<'a> $crate::header::Header<'a> for $name {
            const NAME: &'static str = stringify!($name);

            fn decode(ext: &'a $crate::ExtFields) -> Result<Self, $crate::header::HeaderError> {
                $crate::headers!(@decode $name, ext, $($key => $field),*)
            }
        }

        impl $crate::header::Fields for $name {
            $crate::headers!(@fields $($key => $field),*);
        }

        $crate::headers! { $($rest)* }
    };
    () => {};
}

#[cfg(test)]
mod tests {
    use super::*;

    headers! {
        /// One of each.
        struct Sample<'a> {
            "t" => text: &'a str,
            "n" => number: i64,
            "on" => switch: bool,
            "m" => maybe: Option<i32>,
        }
    }

    #[test]
    fn a_header_reads_back_what_it_wrote() {
        let mut ext = ExtFields::new();
        let sample = Sample { text: "x\u{1}y", number: i64::MIN, switch: true, maybe: None };
        sample.encode(&mut ext);
        assert_eq!(Sample::decode(&ext).unwrap(), sample);
        assert_eq!(ext.get("m"), None);
    }

    #[test]
    fn errors_name_header_field_and_value() {
        let missing = ExtFields::from_iter([("t", "x"), ("n", "1")]);
        assert_eq!(
            Sample::decode(&missing).unwrap_err().to_string(),
            "Sample: the required field `on (switch)` is missing"
        );
        let wrong = ExtFields::from_iter([("t", "x"), ("n", "1e3"), ("on", "true")]);
        assert_eq!(
            Sample::decode(&wrong).unwrap_err().to_string(),
            "Sample: the field `n (number)` is `1e3`, expected a 64-bit integer"
        );
    }

    #[test]
    fn an_empty_optional_number_is_absent_and_unknown_fields_are_ignored() {
        let ext = ExtFields::from_iter([("t", ""), ("n", "1"), ("on", "FALSE"), ("m", ""), ("zzz", "?")]);
        assert_eq!(Sample::decode(&ext).unwrap(), Sample { text: "", number: 1, switch: false, maybe: None });
    }
}
