//! Lint of the versions' addresses.

use super::*;

#[test]
fn an_address_that_no_router_can_use_is_refused() {
    let none = "not an address that a router can use";
    for urls in
        ["ftp://x", "http://a:1,b:2", "a:1", "http://", "http://a:0", "http://a:99999", "unix:///x", "http://a b"]
    {
        refused("stable.url", none, |spec| spec.stable.url = Some(urls.into()));
        refused("canary.url", none, |spec| spec.canary.url = Some(urls.into()));
        refused("shadows[0].url", none, |spec| {
            spec.shadows.push(shadow("v3", "1%"));
            spec.shadows[0].url = Some(urls.into());
        });
    }
    for url in ["x:9000", "http://a,http://b", "http://a:1,http://b:2"] {
        refused("canary.grpcUrl", none, |spec| spec.canary.grpc_url = Some(url.into()));
    }
    refused("stable.url", "routers send neither", |spec| spec.stable.url = Some("http://me:secret@a:1".into()));
    let problems = |urls: &str| problems(|spec| spec.stable.url = Some(urls.into()));
    for urls in ["HTTP://a:1", "http://a:1, http://b:2", "h2c://a:1", "https://[::1]:8443/v2"] {
        assert_eq!(problems(urls), problems("http://localhost:9001"), "{urls}");
    }
    assert!(problems("http://a,http://a:80").iter().any(|line| line.contains("listed twice")));
}

#[test]
fn arms_of_the_same_name_have_the_same_server_settings() {
    let errors = |change: &dyn Fn(&mut RolloutSpec)| -> Vec<String> {
        let problems = problems(|spec| {
            spec.canary.version = spec.stable.version.clone();
            change(spec);
        });
        problems.into_iter().filter(|line| line.starts_with("error")).collect()
    };
    let differ = "their grpcUrl or pathVersion differ";
    only("error", "canary.version", differ, &errors(&|spec| spec.canary.path_version = Some("2".into())));
    only("error", "canary.version", differ, &errors(&|spec| spec.canary.grpc_url = Some("http://b:1".into())));
    assert_eq!(errors(&|_| ()), [""; 0], "a different url alone is accepted");
}
