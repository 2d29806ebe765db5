//! What a payload is.

use bytes::Bytes;

/// The content code of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// There is no payload.
    #[default]
    Nothing,
    /// JSON.
    Json,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Bytes,
    /// This media type.
    Named(Box<str>),
}

impl Content {
    /// The code that stands for it in a frame's header.
    pub fn code(&self) -> u8 {
        match self {
            Content::Nothing => 0,
            Content::Json => 1,
            Content::Text => 2,
            Content::Bytes => 3,
            Content::Named(_) => 4,
        }
    }

    /// The content that a media type stands for: `application/json` and `…+json` are JSON, `text/…` is text, all else, and
    /// nothing at all, is bytes.
    pub fn of_media_type(media_type: Option<&str>) -> Content {
        let Some(media_type) = media_type else { return Content::Bytes };
        let essence = media_type.split(';').next().unwrap_or("").trim();
        let starts = |prefix: &str| essence.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        let ends = |suffix: &str| {
            let start = essence.len().checked_sub(suffix.len());
            start.and_then(|start| essence.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        };
        if essence.eq_ignore_ascii_case("application/json") || ends("+json") {
            Content::Json
        } else if starts("text/") {
            Content::Text
        } else {
            Content::Bytes
        }
    }
}

/// A payload and what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// What it is.
    pub content: Content,
    /// The payload itself, never looked into.
    pub bytes: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        let of = |text| Content::of_media_type(Some(text));
        assert_eq!(of("application/json"), Content::Json);
        assert_eq!(of("Application/JSON; charset=utf-8"), Content::Json);
        assert_eq!(of("application/problem+json"), Content::Json);
        assert_eq!(of("text/csv"), Content::Text);
        assert_eq!(of("image/png"), Content::Bytes);
        assert_eq!(of("é"), Content::Bytes);
        assert_eq!(Content::of_media_type(None), Content::Bytes);
    }
}
