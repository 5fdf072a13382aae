//! The web page of the API: the built files of `console/dist`, embedded in the binary.
//!
//! Invariants:
//! - the files contain no data. The page gets everything that it shows through the API, with the caller's access;
//! - the page may run only its own scripts and styles, and no other page may frame it ([`POLICY`]).

use std::{fmt::Write as _, io::Write as _, sync::LazyLock};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

/// The content security policy of the page. It needs no inline script or style.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The paths at which the page is served. It shows what its path names.
const PAGES: [&str; 10] = [
    "/",
    "/rollouts/{id}",
    "/rollouts/{id}/{view}",
    "/models/{model}",
    "/models/{model}/{view}",
    "/plan",
    "/sign-in",
    "/console",
    "/console/",
    "/console/{*path}",
];

/// A file of the page, with its compressed form.
struct Asset {
    content_type: &'static str,
    plain: &'static [u8],
    compressed: Bytes,
    /// Entity tags of the two forms.
    tags: [String; 2],
}

impl Asset {
    fn new(content_type: &'static str, plain: &'static [u8]) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Writing to memory does not fail. If it did, the file would be served without compression.
        let compressed = encoder.write_all(plain).and_then(|()| encoder.finish()).unwrap_or_default();
        let digest = Sha256::digest(plain);
        let tag = digest.iter().take(16).fold(String::new(), |mut tag, byte| {
            let _ = write!(tag, "{byte:02x}");
            tag
        });
        Self {
            content_type,
            plain,
            compressed: compressed.into(),
            tags: [format!("\"{tag}\""), format!("\"{tag}-gzip\"")],
        }
    }

    fn respond(&self, request: &HeaderMap) -> Response {
        let gzip = accepts_gzip(request) && !self.compressed.is_empty();
        let tag = &self.tags[usize::from(gzip)];
        let known = request.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let is_known = known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag || one.trim() == "*"));
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else if gzip {
            Body::from(self.compressed.clone()).into_response()
        } else {
            Body::from(self.plain).into_response()
        };
        let headers = response.headers_mut();
        if let Ok(tag) = HeaderValue::from_str(tag) {
            headers.insert(header::ETAG, tag);
        }
        for (name, value) in [
            (header::CACHE_CONTROL, "no-cache"),
            (header::VARY, "accept-encoding"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if !is_known {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
            if gzip {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        response
    }
}

/// Whether a client accepts gzip. A weight of zero excludes it.
fn accepts_gzip(request: &HeaderMap) -> bool {
    let accepted = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|list| list.split(',')).any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f64>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_none_or(|weight| weight > 0.0)
    })
}

macro_rules! asset {
    ($type:literal, $file:literal) => {
        LazyLock::new(|| Asset::new($type, include_bytes!(concat!("../../../console/dist/", $file))))
    };
}

static PAGE: LazyLock<Asset> = asset!("text/html; charset=utf-8", "index.html");

/// The files that the page refers to, by their path.
static FILES: [(&str, LazyLock<Asset>); 3] = [
    ("/console/app.js", asset!("text/javascript; charset=utf-8", "app.js")),
    ("/console/app.css", asset!("text/css; charset=utf-8", "app.css")),
    ("/console/icon.svg", asset!("image/svg+xml", "icon.svg")),
];

/// The routes of the page and its files. They need no token.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let pages = PAGES.iter().fold(Router::new(), |routes, path| {
        routes.route(path, get(|headers: HeaderMap| async move { PAGE.respond(&headers) }))
    });
    FILES.iter().fold(pages, |routes, (path, file)| {
        routes.route(path, get(move |headers: HeaderMap| async move { file.respond(&headers) }))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    async fn body(response: Response) -> Bytes {
        axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap()
    }

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[tokio::test]
    async fn each_form_of_a_file_has_its_tag() {
        let plain = PAGE.respond(&HeaderMap::new());
        let tag = plain.headers()[header::ETAG].clone();
        assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));
        let plain = body(plain).await;
        let compressed = PAGE.respond(&headers(header::ACCEPT_ENCODING, "br, gzip;q=0.8"));
        assert_eq!(compressed.headers()[header::CONTENT_ENCODING], "gzip");
        assert_ne!(compressed.headers()[header::ETAG], tag);
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&body(compressed).await[..]).read_to_end(&mut text).unwrap();
        assert_eq!(text, plain);

        let known = PAGE.respond(&HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)]));
        assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
        assert!(known.headers().contains_key(header::CONTENT_SECURITY_POLICY) && body(known).await.is_empty());
    }

    #[test]
    fn gzip_is_sent_only_to_clients_that_accept_it() {
        for (accepted, expected) in
            [("gzip", true), ("GZIP, br", true), ("deflate,gzip;q=0.5", true), ("gzip;q=0", false), ("br", false)]
        {
            assert_eq!(accepts_gzip(&headers(header::ACCEPT_ENCODING, accepted)), expected, "{accepted}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    /// The policy would block them in the browser.
    #[test]
    fn the_page_has_no_inline_script_or_style() {
        let page = String::from_utf8_lossy(PAGE.plain).to_ascii_lowercase();
        assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" onload="), "{page}");
        let scripts = page.matches("<script").count();
        assert_eq!(page.matches("src=\"/console/app.js\"></script>").count(), scripts, "{page}");
    }
}
