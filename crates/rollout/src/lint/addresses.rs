//! Rules on the versions' addresses: a router must be able to use each of them.

use super::Found;
use serin_spec::{Address, AddressError, RolloutSpec, Severity, VersionSpec, address::same_servers};

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    for (path, version) in [("stable", &spec.stable), ("canary", &spec.canary)] {
        if let Some(urls) = &version.url {
            servers(&format!("{path}.url"), urls, found);
        }
        if let Some(url) = &version.grpc_url {
            check(&format!("{path}.grpcUrl"), Address::parse(url).map(|one| vec![one]), found);
        }
        let odd =
            |name: &&str| name.is_empty() || name.contains(['/', ':', '?', '#']) || name.contains(char::is_whitespace);
        if let Some(name) = version.path_version.as_deref().filter(odd) {
            let message = format!("{name:?} cannot be part of a path");
            let fix = "write the servers' own name for the version, such as 2";
            found.error(format!("{path}.pathVersion"), message, fix);
        }
    }
    for (index, shadow) in spec.shadows.iter().enumerate() {
        if let Some(urls) = &shadow.url {
            servers(&format!("shadows[{index}].url"), urls, found);
        }
    }
    one_name(spec, found);
}

fn servers(path: &str, urls: &str, found: &mut Found) {
    let list = Address::parse_list(urls);
    if let Ok(list) = &list
        && let Some((index, twice)) = list.iter().enumerate().find(|(index, one)| list[..*index].contains(one))
    {
        let message = format!("{twice} is listed twice (again as number {}), and gets twice the calls", index + 1);
        found.warn(path, message, "list each server once");
    }
    check(path, list, found);
}

fn check(path: &str, list: Result<Vec<Address>, AddressError>, found: &mut Found) {
    match list {
        Err(AddressError { url, why }) => {
            let message = format!("{url:?} is not an address that a router can use ({why})");
            found.error(path, message, "write for example http://models:8080");
        }
        Ok(list) if list.iter().any(Address::has_credentials) => {
            let message = "the address has a user name or password, and routers send neither";
            found.error(path, message, "leave out everything before the @");
        }
        Ok(list) => {
            if let Some((address, why)) = list.iter().find_map(|one| Some((one, one.oddity()?))) {
                found.error(
                    path,
                    format!("{address} cannot be compared with other addresses: {why}"),
                    "write it in full",
                );
            }
        }
    }
}

/// Reports one version name with two different sets of servers. Routers keep the settings of servers by the version's name.
fn one_name(spec: &RolloutSpec, found: &mut Found) {
    let (stable, canary) = (&spec.stable, &spec.canary);
    let grpc = |version: &VersionSpec| version.grpc_url.clone().or_else(|| version.url.clone());
    let same_grpc = match (grpc(stable), grpc(canary)) {
        (Some(a), Some(b)) => stable.grpc_url.is_none() && canary.grpc_url.is_none() || same_servers(&a, &b),
        _ => stable.grpc_url == canary.grpc_url,
    };
    if stable.version == canary.version && !(same_grpc && stable.path_version == canary.path_version) {
        found.add(
            Severity::Error,
            "canary.version",
            format!("both arms are {}, but their grpcUrl or pathVersion differ", stable.version.in_words()),
            "give the canary its own name",
            &["stable", "canary"],
        );
    }
}
