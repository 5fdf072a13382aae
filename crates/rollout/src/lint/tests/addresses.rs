//! Where versions are served.

use super::*;

#[test]
fn an_address_that_no_router_can_use_is_refused() {
    let none = "no address that a router can use";
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
    let told = |urls: &str| told(|spec| spec.stable.url = Some(urls.into()));
    for urls in ["HTTP://a:1", "http://a:1, http://b:2", "h2c://a:1", "https://[::1]:8443/v2"] {
        assert_eq!(told(urls), told("http://localhost:9001"), "{urls}");
    }
    assert!(told("http://a,http://a:80").iter().any(|line| line.contains("listed twice")));
}

#[test]
fn one_name_stands_for_one_kind_of_servers() {
    let errors = |change: &dyn Fn(&mut RolloutSpec)| -> Vec<String> {
        let told = told(|spec| {
            spec.canary.version = spec.stable.version.clone();
            change(spec);
        });
        told.into_iter().filter(|line| line.starts_with("error")).collect()
    };
    let another = "another grpcUrl or pathVersion";
    only("error", "canary.version", another, &errors(&|spec| spec.canary.path_version = Some("2".into())));
    only("error", "canary.version", another, &errors(&|spec| spec.canary.grpc_url = Some("http://b:1".into())));
    assert_eq!(errors(&|_| ()), [""; 0], "another address alone is what a rollout is for");
}
