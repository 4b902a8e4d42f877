//! A small browser: keeps its cookies, sends forms with the token that pages give it.

use std::net::SocketAddr;

use axum::http::{HeaderMap, Method, Request, header};
use guard_control::http::outward::Outward;

pub struct Browser {
    pub address: SocketAddr,
    pub scheme: &'static str,
    pub cookies: Vec<(String, String)>,
    outward: Outward,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn location(&self) -> &str {
        self.headers.get(header::LOCATION).map_or("", |value| value.to_str().unwrap())
    }
}

impl Browser {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, scheme: "http", cookies: Vec::new(), outward: Outward::new(None).unwrap() }
    }

    pub async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request =
            Request::builder().method(method).uri(format!("{}://{}{path}", self.scheme, self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !self.cookies.is_empty() {
            let cookies: Vec<_> =
                self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header(header::COOKIE, cookies.join("; "));
        }
        let answer = self.outward.send(request.body(body.as_bytes().to_vec()).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        for value in parts.headers.get_all(header::SET_COOKIE) {
            let pair = value.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            if !value.is_empty() {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    /// A form, with the token of the account's page.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let page = self.get("/account").await.body;
        let token = page.split("name=\"form\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        let token = token.unwrap_or_default().to_owned();
        self.post_raw(path, &[&[("form", token.as_str())][..], fields].concat(), &[]).await
    }

    pub async fn post_raw(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let kind = ("content-type", "application/x-www-form-urlencoded");
        self.send(Method::POST, path, &[&[kind][..], headers].concat(), &form.finish()).await
    }

    pub async fn sign_in(&mut self, name: &str, password: &str) -> Answer {
        self.post_raw("/sign-in", &[("name", name), ("password", password), ("to", "/")], &[]).await
    }
}
