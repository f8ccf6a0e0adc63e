//! Tag filters: which messages of a queue a pull wants, judged by the tags code of their consume queue units.
//!
//! As in RocketMQ the broker compares hash codes only; the client compares the tag itself and drops what merely
//! collides.

use super::failure::Refusal;
use gantry_remoting::code::response;
use gantry_store::tags::tags_code;
use smallvec::SmallVec;

/// A subscription expression of type TAG, compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TagFilter {
    /// `None`: everything
    codes: Option<SmallVec<[i64; 4]>>,
}

impl TagFilter {
    /// Compiles `*`, an empty text, or `a || b`. Any other expression type than TAG is refused by name.
    pub(super) fn parse(expression: &str, expression_type: Option<&str>) -> Result<Self, Refusal> {
        check_type(expression_type)?;
        let expression = expression.trim();
        if expression.is_empty() || expression == "*" {
            return Ok(Self::default());
        }
        let tags = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        let codes: SmallVec<[i64; 4]> = tags.map(tags_code).collect();
        if codes.is_empty() {
            return Err(Refusal::new(
                response::SUBSCRIPTION_PARSE_FAILED,
                format!("parse the consumer's subscription failed: {expression:?} names no tag"),
            ));
        }
        Ok(Self { codes: Some(codes) })
    }

    /// May a message with this tags code be one of those asked for?
    pub(super) fn accepts(&self, tags_code: i64) -> bool {
        self.codes.as_ref().is_none_or(|codes| codes.contains(&tags_code))
    }
}

/// Only TAG expressions (also written as no type at all) can be answered.
pub(super) fn check_type(expression_type: Option<&str>) -> Result<(), Refusal> {
    match expression_type {
        None | Some("" | "TAG") => Ok(()),
        Some(other) => Err(Refusal::new(
            response::SYSTEM_ERROR,
            format!("The broker does not support consumer to filter message by {other}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_and_nothing_mean_everything() {
        for text in ["*", "", "  ", " * "] {
            let filter = TagFilter::parse(text, None).unwrap();
            assert!(filter.accepts(0) && filter.accepts(-77), "{text:?}");
        }
    }

    #[test]
    fn alternatives_are_matched_by_code() {
        let filter = TagFilter::parse("a || b||", Some("TAG")).unwrap();
        assert!(filter.accepts(tags_code("a")) && filter.accepts(tags_code("b")));
        assert!(!filter.accepts(tags_code("c")) && !filter.accepts(0));
    }

    #[test]
    fn what_cannot_be_filtered_is_refused_and_not_delivered() {
        let sql = TagFilter::parse("a > 1", Some("SQL92")).unwrap_err();
        assert!(sql.code == response::SYSTEM_ERROR && sql.remark.contains("SQL92"));
        assert_eq!(TagFilter::parse(" || ", None).unwrap_err().code, response::SUBSCRIPTION_PARSE_FAILED);
    }
}
