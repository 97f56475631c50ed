//! The house behind the door: it remembers what it is asked, and answers as it was told to.

use api::{
    door::{Credentials, Denied, Door, JobSession, Pending},
    router::Endpoint,
    visit::{Api, Peer, Settings},
};
use axum::{body::Body, http::Request, response::Response};
use http_body_util::BodyExt as _;
use model::{
    Name, Refusal, Timestamp,
    job::{JobAnswer, JobAsk, JobView, State},
};
use std::{
    collections::VecDeque,
    future::{pending, ready},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

pub(crate) const NOW: Timestamp = Timestamp(1_795_165_200_000);

/// What the broker does with a question.
pub(crate) enum Scripted {
    Answer(JobAnswer),
    Refusal(Refusal),
    Silence,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) asked: Mutex<Vec<JobAsk>>,
    pub(crate) entered: Mutex<Vec<(String, String)>>,
    /// Questions whose answer nobody waited for any more.
    pub(crate) forgotten: Mutex<usize>,
    script: Mutex<VecDeque<Scripted>>,
}

/// Forgets, as a session does, when it goes unanswered.
struct Guard(Arc<Log>);

impl Drop for Guard {
    fn drop(&mut self) {
        *self.0.forgotten.lock().unwrap() += 1;
    }
}

struct Session(Arc<Log>);

impl JobSession for Session {
    fn ask(&self, ask: JobAsk) -> Pending<Result<JobAnswer, Refusal>> {
        self.0.asked.lock().unwrap().push(ask);
        match self.0.script.lock().unwrap().pop_front() {
            Some(Scripted::Answer(it)) => Box::pin(ready(Ok(it))),
            Some(Scripted::Refusal(it)) => Box::pin(ready(Err(it))),
            Some(Scripted::Silence) => {
                let guard = Guard(Arc::clone(&self.0));
                Box::pin(async move {
                    let _guard = guard;
                    pending().await
                })
            }
            None => panic!("the test expects no further question"),
        }
    }
}

struct House(Arc<Log>);

impl Door for House {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn log_in(&self, credentials: Credentials, from: IpAddr) -> Pending<Result<(), Denied>> {
        let denied = match (credentials.user.as_str(), from.is_loopback()) {
            ("guest", true) if credentials.password == b"guest" => return Box::pin(ready(Ok(()))),
            ("busy", _) => Denied::TooMany,
            _ => Denied::Wrong,
        };
        Box::pin(ready(Err(denied)))
    }

    fn enter(
        &self,
        user: &str,
        vhost: &str,
        _from: SocketAddr,
    ) -> Result<Box<dyn JobSession>, Refusal> {
        if vhost == "nowhere" {
            return Err(Refusal::NoVhost(vhost.into()));
        }
        self.0.entered.lock().unwrap().push((user.to_owned(), vhost.to_owned()));
        Ok(Box::new(Session(Arc::clone(&self.0))))
    }
}

pub(crate) struct Scene {
    pub(crate) endpoint: Endpoint,
    pub(crate) log: Arc<Log>,
}

/// A door to a broker that answers one question after the other as `script` says.
pub(crate) fn scene(script: Vec<Scripted>) -> Scene {
    scene_with(Settings::default(), script)
}

pub(crate) fn scene_with(settings: Settings, script: Vec<Scripted>) -> Scene {
    let log = Arc::new(Log { script: Mutex::new(script.into()), ..Log::default() });
    let api = Api::new(Arc::new(House(Arc::clone(&log))), settings);
    Scene { endpoint: Endpoint::new(api), log }
}

pub(crate) fn answer(it: JobAnswer) -> Scripted {
    Scripted::Answer(it)
}

pub(crate) fn view(state: State) -> Box<JobView> {
    Box::new(JobView {
        vhost: "/".into(),
        queue: "emails".into(),
        id: "order-17".into(),
        kind: Some("send".into()),
        key: Some("tenant-42".into()),
        state,
        attempt: 1,
        attempts_max: 5,
        generation: 1,
        priority: 5,
        created: NOW,
        at: None,
        started: None,
        finished: None,
        expires: None,
        waited_ms: 0,
        served_ms: None,
        total_ms: None,
        lease: None,
        progress: None,
        cancel_requested: false,
        has_result: false,
        problem: None,
        parents: Vec::<Name>::new(),
        traceparent: None,
        tag: 0xa1,
    })
}

/// A request of `guest`: the method and the path, headers, and a body.
pub(crate) fn request(line: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let login = ("authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=");
    anonymous(line, &[&[login], headers].concat(), body)
}

pub(crate) fn anonymous(line: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let peer = Peer("127.0.0.1:51234".parse().unwrap());
    request.extension(peer).body(Body::from(body.to_owned())).unwrap()
}

/// An answer with everything a test looks at.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: axum::http::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|it| it.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The type of the problem; the document is checked to be one.
    #[track_caller]
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.body);
        let json = self.json();
        assert_eq!(json["status"], self.status);
        json["type"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
    }
}

impl Scene {
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response: Response = self.endpoint.answer(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(parts.headers.contains_key("cache-control"), "every answer is guarded");
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(crate) fn asked(&self) -> Vec<JobAsk> {
        std::mem::take(&mut self.log.asked.lock().unwrap())
    }
}
