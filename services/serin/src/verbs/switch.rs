//! The verb `switch`: the emergency switch "all stable" of routers, straight at their admin ports. It needs neither the log nor
//! the controller.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Request, header};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    cli::{Output, Switch, Wanted},
    exit,
    http::Http,
    output,
};

/// How long a router may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one router said.
#[derive(Debug, Serialize)]
struct Said {
    router: String,
    /// Where its switch stands; absent: it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<bool>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Said {
    fn text(&self) -> String {
        let state = match self.on {
            Some(true) => "on: every call goes to stable, also after a restart, until `serin switch off`",
            Some(false) => "off: calls go as the routing tables say",
            None => "not known",
        };
        let problem = self.problem.as_ref().map_or_else(String::new, |problem| format!("; {problem}"));
        format!("{}: {state}{problem}", self.router)
    }
}

/// `serin switch`: asks every router at once. Done when each of them says so.
pub(crate) async fn switch(args: &Switch) -> anyhow::Result<ExitCode> {
    let http = Http::new(args.ca_file.as_deref(), PATIENCE).context("--ca-file")?;
    let routers = args.routers.iter().map(|router| router.trim().trim_end_matches('/'));
    let routers: Vec<&str> = routers.filter(|router| !router.is_empty()).collect();
    anyhow::ensure!(!routers.is_empty(), "--routers: write the URL of a router's admin port, several with commas");
    for router in &routers {
        let is_url = router.starts_with("http://") || router.starts_with("https://");
        anyhow::ensure!(is_url, "--routers {router}: write a URL that begins with http:// or https://");
    }
    let said = join_all(routers.iter().map(|router| ask(&http, router, args))).await;
    match args.output {
        Output::Json => output::json(&said)?,
        Output::Text => said.iter().for_each(|said| output::line(said.text())),
    }
    let wanted = args.to.map(|to| to == Wanted::On);
    let done = said.iter().all(|said| said.on.is_some() && wanted.is_none_or(|wanted| said.on == Some(wanted)));
    let kept = said.iter().all(|said| said.problem.is_none());
    Ok(exit::if_so(done && kept))
}

async fn ask(http: &Http, router: &str, args: &Switch) -> Said {
    let (method, path, body) = match args.to {
        None => (Method::GET, "/tables", Bytes::new()),
        Some(to) => (Method::POST, "/switch/all-stable", json!({"on": to == Wanted::On}).to_string().into()),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{router}{path}"))
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = &args.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let answer = match request.body(body) {
        Ok(request) => http.send(request).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let (on, problem) = match answer {
        Err(cause) => (None, Some(format!("no router answers there: {cause}"))),
        Ok(answer) => {
            let said: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
            let on = said["all_stable"].as_bool().filter(|_| answer.status().is_success());
            let problem = said["warning"].as_str().or_else(|| said["error"].as_str()).map(str::to_owned);
            let odd = || on.is_none().then(|| format!("status {}: is this a router's admin port?", answer.status()));
            (on, problem.or_else(odd))
        }
    };
    Said { router: router.to_owned(), on, problem }
}
