//! The status codes of gRPC. Routers and doors read them alike.

/// The names of the codes, from 0.
const NAMES: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// The name of a code.
pub fn name(code: u16) -> &'static str {
    NAMES.get(usize::from(code)).copied().unwrap_or("unknown")
}

/// The HTTP status that corresponds to a code (as in `google/rpc/code.proto`), so that both count alike.
pub fn http_status(code: u16) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// The code that a string stands for: a number, or a name in any case. `None` for any other text.
pub fn code_of(text: &str) -> Option<u16> {
    let named = || NAMES.iter().position(|name| name.eq_ignore_ascii_case(text));
    text.parse().ok().or_else(|| u16::try_from(named()?).ok())
}

/// The HTTP status of a finished call with this code, and the class of its failure if it failed.
///
/// A server that answers `CANCELLED` has failed: it is the only party that sends a status. Its HTTP status stays unknown, because 499
/// means that the caller ended the call.
pub fn finished(code: u16) -> (Option<i32>, Option<String>) {
    let status = http_status(code);
    let failed = (code == 1 || status >= 500).then(|| format!("grpc_{}", name(code)));
    ((code != 1).then_some(i32::from(status)), failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_numbers_or_names() {
        for (text, code) in [("0", Some(0)), ("14", Some(14)), ("UNAVAILABLE", Some(14)), ("not_found", Some(5))] {
            assert_eq!(code_of(text), code, "{text}");
        }
        for text in ["", "x", "-1", "1.0", "NOT FOUND"] {
            assert_eq!(code_of(text), None, "{text}");
        }
        assert_eq!((name(14), http_status(14), name(99), http_status(99)), ("unavailable", 503, "unknown", 500));
    }

    #[test]
    fn a_code_that_is_not_known_and_a_server_that_cancels_are_failures() {
        let failed = |status, error: &str| (status, Some(error.to_owned()));
        assert_eq!(finished(0), (Some(200), None));
        for (code, status) in
            [(3, 400), (5, 404), (6, 409), (7, 403), (8, 429), (9, 400), (10, 409), (11, 400), (16, 401)]
        {
            assert_eq!(finished(code), (Some(status), None), "{code}");
        }
        assert_eq!(finished(1), failed(None, "grpc_cancelled"));
        assert_eq!(finished(14), failed(Some(503), "grpc_unavailable"));
        assert_eq!(finished(99), failed(Some(500), "grpc_unknown"));
    }
}
