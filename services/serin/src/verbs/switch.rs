//! `serin switch`: the emergency switch "all stable" of routers, through their admin ports. It needs neither the log nor
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

/// Timeout of a router's answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The answer of one router.
#[derive(Debug, Serialize)]
struct RouterAnswer {
    router: String,
    /// Whether its switch is on; absent: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<bool>,
    /// The problem, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl RouterAnswer {
    fn text(&self) -> String {
        let state = match self.on {
            Some(true) => "on: every call goes to stable, also after a restart, until `serin switch off`",
            Some(false) => "off: calls follow the routing tables",
            None => "unknown",
        };
        let problem = self.problem.as_ref().map_or_else(String::new, |problem| format!("; {problem}"));
        format!("{}: {state}{problem}", self.router)
    }
}

/// `serin switch`: asks all routers in parallel. Done if each of them reports the wanted state.
pub(crate) async fn switch(args: &Switch) -> anyhow::Result<ExitCode> {
    let http = Http::new(args.ca_file.as_deref(), TIMEOUT).context("--ca-file")?;
    let routers = args.routers.iter().map(|router| router.trim().trim_end_matches('/'));
    let routers: Vec<&str> = routers.filter(|router| !router.is_empty()).collect();
    anyhow::ensure!(
        !routers.is_empty(),
        "--routers: write the URL of a router's admin port, comma-separated if there are several"
    );
    for router in &routers {
        let is_url = router.starts_with("http://") || router.starts_with("https://");
        anyhow::ensure!(is_url, "--routers {router}: write a URL that begins with http:// or https://");
    }
    let answers = join_all(routers.iter().map(|router| ask(&http, router, args))).await;
    match args.output {
        Output::Json => output::json(&answers)?,
        Output::Text => answers.iter().for_each(|answer| output::line(answer.text())),
    }
    let wanted = args.to.map(|to| to == Wanted::On);
    let done =
        answers.iter().all(|answer| answer.on.is_some() && wanted.is_none_or(|wanted| answer.on == Some(wanted)));
    let kept = answers.iter().all(|answer| answer.problem.is_none());
    Ok(exit::done_if(done && kept))
}

async fn ask(http: &Http, router: &str, args: &Switch) -> RouterAnswer {
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
            let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
            let on = body["all_stable"].as_bool().filter(|_| answer.status().is_success());
            let problem = body["warning"].as_str().or_else(|| body["error"].as_str()).map(str::to_owned);
            let odd = || on.is_none().then(|| format!("status {}: is this a router's admin port?", answer.status()));
            (on, problem.or_else(odd))
        }
    };
    RouterAnswer { router: router.to_owned(), on, problem }
}
