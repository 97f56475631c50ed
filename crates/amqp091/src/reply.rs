//! Why the peer loses its channel or its connection, in the protocol's words: the one place that
//! knows reply codes and their texts.

use crate::{
    frame::FrameError,
    method::{DecodeError, DecodeErrorKind, Method, MethodIds},
};
use model::{Name, Refusal, RefusalKind, limits};

/// Ids of a close that no method caused.
pub const NO_METHOD: MethodIds = (0, 0);

macro_rules! reply_codes {
    ($( $number:literal $variant:ident $name:literal $hard:literal )*) => {
        /// A reply code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ReplyCode {
            $( #[doc = $name] $variant = $number, )*
        }

        impl ReplyCode {
            /// The name that begins the reply text.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// It ends the connection, not only the channel.
            pub const fn is_hard(self) -> bool {
                match self { $( Self::$variant => $hard, )* }
            }
        }
    };
}

reply_codes! {
    311 ContentTooLarge "CONTENT_TOO_LARGE" false
    312 NoRoute "NO_ROUTE" false
    313 NoConsumers "NO_CONSUMERS" false
    320 ConnectionForced "CONNECTION_FORCED" true
    402 InvalidPath "INVALID_PATH" true
    403 AccessRefused "ACCESS_REFUSED" false
    404 NotFound "NOT_FOUND" false
    405 ResourceLocked "RESOURCE_LOCKED" false
    406 PreconditionFailed "PRECONDITION_FAILED" false
    501 FrameError "FRAME_ERROR" true
    502 SyntaxError "SYNTAX_ERROR" true
    503 CommandInvalid "COMMAND_INVALID" true
    504 ChannelError "CHANNEL_ERROR" true
    505 UnexpectedFrame "UNEXPECTED_FRAME" true
    506 ResourceError "RESOURCE_ERROR" true
    530 NotAllowed "NOT_ALLOWED" true
    540 NotImplemented "NOT_IMPLEMENTED" true
    541 InternalError "INTERNAL_ERROR" true
}

impl ReplyCode {
    /// The code on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }

    const fn of(kind: RefusalKind) -> Self {
        match kind {
            RefusalKind::NotFound => Self::NotFound,
            RefusalKind::AccessRefused => Self::AccessRefused,
            RefusalKind::Locked => Self::ResourceLocked,
            RefusalKind::PreconditionFailed => Self::PreconditionFailed,
            RefusalKind::NotAllowed => Self::NotAllowed,
            RefusalKind::NotImplemented => Self::NotImplemented,
            RefusalKind::ResourceError => Self::ResourceError,
            RefusalKind::Forced => Self::ConnectionForced,
            RefusalKind::Internal => Self::InternalError,
        }
    }
}

/// What a close says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: ReplyCode,
    /// `NAME - explanation`, at most 255 octets.
    pub text: Name,
    /// The method that caused it, or [`NO_METHOD`].
    pub ids: MethodIds,
}

impl Reply {
    /// A reply in these words, cut where a reply text must end.
    pub fn new(code: ReplyCode, explanation: &str, ids: MethodIds) -> Self {
        let text = format!("{} - {explanation}", code.name());
        let end = text.floor_char_boundary(limits::NAME_BYTES_MAX);
        Self { code, text: Name::new(&text[..end]), ids }
    }

    /// The broker refused what the method with these ids asked for.
    pub fn refused(refusal: &Refusal, ids: MethodIds) -> Self {
        let code = ReplyCode::of(refusal.kind());
        let ids = if code == ReplyCode::ConnectionForced { NO_METHOD } else { ids };
        Self::new(code, &refusal.to_string(), ids)
    }

    /// It ends the connection, not only the channel.
    pub fn is_hard(&self) -> bool {
        self.code.is_hard()
    }

    /// `connection.close` with this reply.
    pub fn connection_close(&self) -> Method {
        let (class_id, method_id) = self.ids;
        let (reply_code, reply_text) = (self.code.number(), self.text.clone());
        Method::ConnectionClose { reply_code, reply_text, class_id, method_id }
    }

    /// `channel.close` with this reply.
    pub fn channel_close(&self) -> Method {
        let (class_id, method_id) = self.ids;
        let (reply_code, reply_text) = (self.code.number(), self.text.clone());
        Method::ChannelClose { reply_code, reply_text, class_id, method_id }
    }
}

impl From<FrameError> for Reply {
    fn from(error: FrameError) -> Self {
        let code = match error {
            FrameError::HeartbeatChannel(_) => ReplyCode::UnexpectedFrame,
            FrameError::BadEnd(_)
            | FrameError::UnknownKind(_)
            | FrameError::TooLarge { .. }
            | FrameError::HeartbeatPayload(_) => ReplyCode::FrameError,
        };
        Self::new(code, &error.to_string(), NO_METHOD)
    }
}

impl From<DecodeError> for Reply {
    fn from(error: DecodeError) -> Self {
        let (code, ids) = match error.kind {
            DecodeErrorKind::UnknownMethod => (ReplyCode::NotImplemented, error.ids),
            DecodeErrorKind::Truncated | DecodeErrorKind::TooLong(_) => {
                (ReplyCode::FrameError, error.ids)
            }
            DecodeErrorKind::NotUtf8 => (ReplyCode::FrameError, NO_METHOD),
            DecodeErrorKind::Table(_) => (ReplyCode::SyntaxError, error.ids),
        };
        Self::new(code, &error.to_string(), ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Permission, ResourceKind, value::TableError};

    #[test]
    fn every_kind_of_refusal_has_its_code() {
        for (kind, number, hard) in [
            (RefusalKind::NotFound, 404, false),
            (RefusalKind::AccessRefused, 403, false),
            (RefusalKind::Locked, 405, false),
            (RefusalKind::PreconditionFailed, 406, false),
            (RefusalKind::NotAllowed, 530, true),
            (RefusalKind::NotImplemented, 540, true),
            (RefusalKind::ResourceError, 506, true),
            (RefusalKind::Forced, 320, true),
            (RefusalKind::Internal, 541, true),
        ] {
            let code = ReplyCode::of(kind);
            assert_eq!((code.number(), code.is_hard()), (number, hard), "{kind:?}");
        }
    }

    #[test]
    fn a_refusal_keeps_its_words_and_names_the_method() {
        let (name, vhost) = (Name::new("nope"), Name::new("/"));
        let missing = Refusal::NotFound { kind: ResourceKind::Queue, name, vhost };
        let close = Reply::refused(&missing, (50, 10)).channel_close();
        let expected = Method::ChannelClose {
            reply_code: 404,
            reply_text: Name::new("NOT_FOUND - no queue 'nope' in vhost '/'"),
            class_id: 50,
            method_id: 10,
        };
        assert_eq!(close, expected);
        let forced = Refusal::Forced("Closed via management plugin".to_owned());
        let expected = Method::ConnectionClose {
            reply_code: 320,
            reply_text: Name::new("CONNECTION_FORCED - Closed via management plugin"),
            class_id: 0,
            method_id: 0,
        };
        assert_eq!(Reply::refused(&forced, (50, 10)).connection_close(), expected);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = |name: &str| {
            let refusal = Refusal::Access {
                permission: Permission::Write,
                kind: ResourceKind::Exchange,
                name: name.into(),
                vhost: Name::new("/"),
                user: Name::new("u"),
            };
            Reply::refused(&refusal, (60, 40)).text
        };
        let even = long(&"é".repeat(120));
        let odd = long(&format!("x{}", "é".repeat(120)));
        assert!(even.starts_with("ACCESS_REFUSED - write access to exchange 'é"));
        let mut lengths = [even.len(), odd.len()];
        lengths.sort_unstable();
        assert_eq!(lengths, [254, 255]);
    }

    #[test]
    fn broken_octets_have_their_codes() {
        let of = |reply: Reply| (reply.code.number(), reply.ids, reply.is_hard());
        let frame = |error: FrameError| of(error.into());
        assert_eq!(frame(FrameError::BadEnd(0)), (501, (0, 0), true));
        assert_eq!(frame(FrameError::UnknownKind(9)), (501, (0, 0), true));
        assert_eq!(frame(FrameError::TooLarge { size: 9, max: 8 }), (501, (0, 0), true));
        assert_eq!(frame(FrameError::HeartbeatChannel(1)), (505, (0, 0), true));
        let method = |kind| of(DecodeError { ids: (50, 10), kind }.into());
        assert_eq!(method(DecodeErrorKind::UnknownMethod), (540, (50, 10), true));
        assert_eq!(method(DecodeErrorKind::Truncated), (501, (50, 10), true));
        assert_eq!(method(DecodeErrorKind::TooLong(1)), (501, (50, 10), true));
        assert_eq!(method(DecodeErrorKind::NotUtf8), (501, (0, 0), true));
        let table = DecodeErrorKind::Table(TableError::UnknownType(b'z'));
        assert_eq!(method(table), (502, (50, 10), true));
        let text = Reply::from(DecodeError { ids: (50, 10), kind: DecodeErrorKind::NotUtf8 }).text;
        assert_eq!(text.as_str(), "FRAME_ERROR - Malformed UTF-8 in shortstr");
    }
}
