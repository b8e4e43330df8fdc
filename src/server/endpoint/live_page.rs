//! The live page `/ui`: one HTML file, carried in the binary, and the headers that it is served with.
//!
//! The page may run its own inline script and style, named by their hashes, and talk to this server; nothing else. The
//! hashes are constants so that no hash function is needed at run time: a test computes them from the file and, when the
//! page was edited, says what they have to be.

/// The page, UTF-8.
pub const PAGE: &[u8] = include_bytes!("live_page.html");

/// The value of `Content-Security-Policy`, after Content Security Policy Level 3 and Trusted Types.
///
/// `default-src 'none'` forbids what is not named here, so no request can leave for another host; no page may frame it.
pub const CONTENT_SECURITY_POLICY: &str = concat!(
    "default-src 'none'; ",
    "script-src 'sha256-7L9n2TA8C4wRVszBmaqou83E7RFSm6DHcbWfD5pXNfI='; ",
    "style-src 'sha256-OIdyfuy+MVyQubwSPieTRgDa3/xS/9Y6VtSGW7/wo04='; ",
    "connect-src 'self'; ",
    "img-src data:; ",
    "base-uri 'none'; ",
    "form-action 'none'; ",
    "frame-ancestors 'none'; ",
    "require-trusted-types-for 'script'; ",
    "trusted-types 'none'",
);

/// The fields of the response that do not depend on the request.
pub const HEADERS: [(&str, &str); 5] = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    // The page and the server's metrics change together: a cached page may not outlive an upgrade.
    ("Cache-Control", "no-cache"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use sha2::{Digest, Sha256};

    /// The source expression of the page's only element of this name, hashed as a browser does: the text between the tags.
    fn source_expression(element: &str) -> String {
        let page = std::str::from_utf8(PAGE).unwrap();
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        assert_eq!(
            page.matches(&open).count(),
            1,
            "{open} must be there once, without attributes"
        );
        let text = page.split_once(&open).unwrap().1.split_once(&close).unwrap().0;
        format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
    }

    #[test]
    fn the_policy_names_the_pages_own_script_and_style() {
        for (directive, element) in [("script-src", "script"), ("style-src", "style")] {
            let wanted = format!("{directive} {};", source_expression(element));
            assert!(
                CONTENT_SECURITY_POLICY.contains(&wanted),
                "live_page.html was edited; live_page.rs must say:\n{wanted}"
            );
        }
    }

    #[test]
    fn the_page_names_no_other_host() {
        let page = std::str::from_utf8(PAGE).unwrap();
        // The SVG namespace is a name and is never fetched.
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains("://"), "live_page.html names an address");
        assert!(
            !page.contains("style=") && !page.contains("onclick="),
            "the policy would block inline attributes"
        );
    }
}
