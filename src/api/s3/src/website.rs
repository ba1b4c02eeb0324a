//! Website configuration of buckets: the document and the calls that read and change it. Serving the site is the web front's.
//!
//! Source: s3 reference §3.17.

use garage_api_common::{
    ErrorCode, S3Error,
    http::Body,
    xml::{Element, XmlWriter, malformed, parse},
};
use garage_model::rows::{
    bucket::Website,
    rules::{REDIRECT_STATUS_S3, Redirect, Replacement, RoutingRule, check_error_document, check_index_document, check_routing},
};
use http::{Response, StatusCode};

use crate::{
    answer,
    limits::{WEBSITE_MAX_BYTES, WEBSITE_RULES_MAX},
    policy::set,
    request::{IncomingBody, Request, Services, Target},
};

/// GET of the configuration.
pub fn get(target: &Target) -> Result<Response<Body>, S3Error> {
    let missing = || S3Error::of(ErrorCode::NoSuchWebsiteConfiguration).with("BucketName", &target.bucket_name);
    Ok(answer::xml(render(target.bucket.row.website.as_ref().ok_or_else(missing)?)))
}

/// PUT of the configuration.
pub async fn put(services: &Services, target: &Target, request: &Request, body: IncomingBody) -> Result<Response<Body>, S3Error> {
    let website = read(&body.read_with_integrity(WEBSITE_MAX_BYTES).await?)?;
    set(services, target, request, StatusCode::OK, |row| row.website = Some(website.clone())).await
}

/// DELETE of the configuration.
pub async fn delete(services: &Services, target: &Target, request: &Request) -> Result<Response<Body>, S3Error> {
    set(services, target, request, StatusCode::NO_CONTENT, |row| row.website = None).await
}

/// Errors: 400 `MalformedXML` for the form, `InvalidArgument` for what is in it, `InvalidRequest` for too many rules.
fn read(document: &[u8]) -> Result<Website, S3Error> {
    let document = parse(document, &["WebsiteConfiguration"])?;
    document.only(&["RedirectAllRequestsTo", "IndexDocument", "ErrorDocument", "RoutingRules"])?;
    if let Some(all) = document.at_most_one("RedirectAllRequestsTo")? {
        if document.children.len() != 1 {
            return Err(invalid(
                "RedirectAllRequestsTo cannot be provided in conjunction with other Routing Rules.",
                "RedirectAllRequestsTo",
            ));
        }
        all.only(&["HostName", "Protocol"])?;
        let host = host(all)?.ok_or_else(malformed)?;
        // As a rule for every path, so that whoever serves the site needs to know of no other way.
        let replacement = Replacement::Prefix(String::new());
        let redirect = Redirect { protocol: protocol(all)?, host: Some(host), replacement, status: REDIRECT_STATUS_S3 };
        let routing_rules = vec![RoutingRule { key_prefix: None, only_missing: false, redirect }];
        return Ok(Website { index_document: "index.html".into(), error_document: None, routing_rules, redirect_all: true });
    }
    let index = document.at_most_one("IndexDocument")?;
    let index = index
        .ok_or_else(|| invalid("A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty", "IndexDocument"))?;
    index.only(&["Suffix"])?;
    let index_document = index.required("Suffix")?.to_owned();
    check_index_document(&index_document).map_err(|_| invalid("The IndexDocument Suffix is not well formed", "IndexDocument"))?;
    let error_document = match document.at_most_one("ErrorDocument")? {
        Some(element) => {
            element.only(&["Key"])?;
            Some(element.child("Key").ok_or_else(malformed)?.text.clone())
        }
        None => None,
    };
    if let Some(key) = &error_document {
        check_error_document(key).map_err(|_| invalid("The ErrorDocument Key is not well formed", "ErrorDocument"))?;
    }
    let rules = document.at_most_one("RoutingRules")?;
    let routing_rules = rules.map_or(Ok(Vec::new()), read_rules)?;
    check_routing(&routing_rules).map_err(|error| S3Error::invalid_request(error.0))?;
    Ok(Website { index_document, error_document, routing_rules, redirect_all: false })
}

/// Whether a document is taken; what is taken reads back as itself.
pub fn reads_back(document: &[u8]) -> bool {
    let Ok(website) = read(document) else { return false };
    assert_eq!(read(render(&website).as_bytes()).ok().as_ref(), Some(&website), "a website configuration reads back");
    true
}

fn invalid(message: &'static str, name: &str) -> S3Error {
    S3Error::invalid_argument(message, name, "")
}

fn host(element: &Element) -> Result<Option<String>, S3Error> {
    let Some(host) = element.at_most_one("HostName")?.map(|host| host.text.trim()) else { return Ok(None) };
    let is_host = !host.is_empty() && host.len() <= 255 && host.chars().all(|c| c.is_ascii_graphic() && !"/?#@\\\"<>".contains(c));
    if is_host { Ok(Some(host.to_owned())) } else { Err(S3Error::invalid_argument("The HostName is not well formed", "HostName", host)) }
}

fn protocol(element: &Element) -> Result<Option<String>, S3Error> {
    match element.at_most_one("Protocol")?.map(|protocol| protocol.text.trim()) {
        None => Ok(None),
        Some(protocol @ ("http" | "https")) => Ok(Some(protocol.to_owned())),
        Some(other) => Err(S3Error::invalid_request(
            "Invalid protocol, protocol can be http or https. If not defined the protocol will be selected automatically.",
        )
        .with("Protocol", other)),
    }
}

fn read_rules(rules: &Element) -> Result<Vec<RoutingRule>, S3Error> {
    rules.only(&["RoutingRule"])?;
    if rules.children.is_empty() {
        return Err(malformed());
    }
    if WEBSITE_RULES_MAX < rules.children.len() {
        let message = format!(
            "{} routing rules provided, the number of routing rules in a website configuration is limited to {WEBSITE_RULES_MAX}.",
            rules.children.len()
        );
        return Err(S3Error::invalid_request(message));
    }
    rules.children.iter().map(read_rule).collect()
}

fn read_rule(rule: &Element) -> Result<RoutingRule, S3Error> {
    rule.only(&["Condition", "Redirect"])?;
    let (key_prefix, error_code) = match rule.at_most_one("Condition")? {
        None => (None, None),
        Some(condition) => {
            condition.only(&["KeyPrefixEquals", "HttpErrorCodeReturnedEquals"])?;
            let prefix = condition.at_most_one("KeyPrefixEquals")?.map(|prefix| prefix.text.clone());
            let code = condition.at_most_one("HttpErrorCodeReturnedEquals")?.map(read_error_code).transpose()?;
            if prefix.is_none() && code.is_none() {
                let message =
                    "Condition cannot be empty. To redirect all requests without a condition, the condition element shouldn't be present.";
                return Err(S3Error::invalid_request(message));
            }
            (prefix, code)
        }
    };
    let redirect = read_redirect(rule.at_most_one("Redirect")?.ok_or_else(malformed)?, key_prefix.as_deref())?;
    if let Some(code) = error_code.filter(|code| *code != 404) {
        return Err(S3Error::not_implemented(format!("HttpErrorCodeReturnedEquals {code}")));
    }
    Ok(RoutingRule { key_prefix, only_missing: error_code.is_some(), redirect })
}

fn read_error_code(element: &Element) -> Result<u16, S3Error> {
    let text = element.text.trim();
    let code = text.parse::<u16>().ok().filter(|code| (400..600).contains(code));
    code.ok_or_else(|| {
        let message = format!("The provided HTTP error code ({text}) is not valid. Valid codes are 4XX or 5XX.");
        S3Error::invalid_request(message)
    })
}

fn read_redirect(redirect: &Element, key_prefix: Option<&str>) -> Result<Redirect, S3Error> {
    redirect.only(&["HostName", "HttpRedirectCode", "Protocol", "ReplaceKeyPrefixWith", "ReplaceKeyWith"])?;
    if redirect.children.is_empty() {
        return Err(S3Error::invalid_request("Redirect cannot be empty"));
    }
    let (host, protocol) = (host(redirect)?, protocol(redirect)?);
    let text = |name| Ok::<_, S3Error>(redirect.at_most_one(name)?.map(|element| element.text.clone()));
    let replacement = match (text("ReplaceKeyPrefixWith")?, text("ReplaceKeyWith")?) {
        (Some(_), Some(_)) => {
            return Err(S3Error::invalid_request("You can only define ReplaceKeyPrefix or ReplaceKey but not both."));
        }
        (Some(prefix), None) => Replacement::Prefix(prefix),
        (None, Some(key)) => Replacement::Key(key),
        // Nothing replaced: the prefix stands for itself.
        (None, None) => Replacement::Prefix(key_prefix.unwrap_or_default().to_owned()),
    };
    let status = match redirect.at_most_one("HttpRedirectCode")?.map(|code| code.text.trim()) {
        None => REDIRECT_STATUS_S3,
        // Which codes there are is checked with the rule as a whole.
        Some(text) => text.parse::<u16>().map_err(|_| {
            S3Error::invalid_request(format!("The provided HTTP redirect code ({text}) is not valid. Valid codes are 3XX except 300."))
        })?,
    };
    Ok(Redirect { protocol, host, replacement, status })
}

fn render(website: &Website) -> String {
    let mut xml = XmlWriter::s3_document("WebsiteConfiguration");
    if let (true, Some(rule)) = (website.redirect_all, website.routing_rules.first()) {
        let redirect = &rule.redirect;
        xml.open("RedirectAllRequestsTo").text("HostName", redirect.host.as_deref().unwrap_or_default());
        xml.optional("Protocol", redirect.protocol.as_deref());
        xml.close("RedirectAllRequestsTo").close("WebsiteConfiguration");
        return xml.finish();
    }
    xml.open("IndexDocument").text("Suffix", &website.index_document).close("IndexDocument");
    if let Some(key) = &website.error_document {
        xml.open("ErrorDocument").text("Key", key).close("ErrorDocument");
    }
    if !website.routing_rules.is_empty() {
        xml.open("RoutingRules");
        website.routing_rules.iter().for_each(|rule| write_rule(&mut xml, rule));
        xml.close("RoutingRules");
    }
    xml.close("WebsiteConfiguration");
    xml.finish()
}

fn write_rule(xml: &mut XmlWriter, rule: &RoutingRule) {
    xml.open("RoutingRule");
    if rule.key_prefix.is_some() || rule.only_missing {
        xml.open("Condition").optional("KeyPrefixEquals", rule.key_prefix.as_deref());
        xml.optional("HttpErrorCodeReturnedEquals", rule.only_missing.then_some("404")).close("Condition");
    }
    let redirect = &rule.redirect;
    xml.open("Redirect").optional("Protocol", redirect.protocol.as_deref()).optional("HostName", redirect.host.as_deref());
    match &redirect.replacement {
        Replacement::Root => xml.text("ReplaceKeyWith", ""),
        Replacement::Prefix(prefix) if Some(prefix.as_str()) == rule.key_prefix.as_deref().or(Some("")) => &mut *xml,
        Replacement::Prefix(prefix) => xml.text("ReplaceKeyPrefixWith", prefix),
        Replacement::Key(key) => xml.text("ReplaceKeyWith", key),
    };
    // What a rule says that names none is not shown, as S3 does.
    xml.optional("HttpRedirectCode", (redirect.status != REDIRECT_STATUS_S3).then(|| redirect.status.to_string()).as_deref());
    xml.close("Redirect").close("RoutingRule");
}

#[cfg(test)]
mod tests {
    use garage_api_common::ErrorCode;

    use super::{read, render};

    fn code(inner: &str) -> Result<(), ErrorCode> {
        read(format!("<WebsiteConfiguration>{inner}</WebsiteConfiguration>").as_bytes()).map(drop).map_err(|error| error.code)
    }
    const INDEX: &str = "<IndexDocument><Suffix>index.html</Suffix></IndexDocument>";

    #[test]
    fn a_configuration_reads_back_as_it_was_set() {
        let rules = "<RoutingRules><RoutingRule><Condition><KeyPrefixEquals>docs/</KeyPrefixEquals></Condition>\
                     <Redirect><Protocol>https</Protocol><HostName>example.org</HostName><ReplaceKeyPrefixWith>d/</ReplaceKeyPrefixWith>\
                     <HttpRedirectCode>302</HttpRedirectCode></Redirect></RoutingRule>\
                     <RoutingRule><Condition><HttpErrorCodeReturnedEquals>404</HttpErrorCodeReturnedEquals></Condition>\
                     <Redirect><HostName>other.example.org</HostName></Redirect></RoutingRule></RoutingRules>";
        for inner in [
            INDEX.to_owned(),
            format!("{INDEX}<ErrorDocument><Key>error.html</Key></ErrorDocument>{rules}"),
            "<RedirectAllRequestsTo><HostName>example.org</HostName><Protocol>https</Protocol></RedirectAllRequestsTo>".to_owned(),
        ] {
            let website = read(format!("<WebsiteConfiguration>{inner}</WebsiteConfiguration>").as_bytes()).unwrap();
            assert_eq!(read(render(&website).as_bytes()).unwrap(), website, "{inner}");
        }
    }

    #[test]
    fn what_no_site_could_be_is_refused() {
        assert_eq!(code(""), Err(ErrorCode::InvalidArgument));
        assert_eq!(code("<IndexDocument><Suffix>a/b</Suffix></IndexDocument>"), Err(ErrorCode::InvalidArgument));
        assert_eq!(code("<IndexDocument/>"), Err(ErrorCode::MalformedXML));
        assert_eq!(code(&format!("{INDEX}<Nonsense/>")), Err(ErrorCode::MalformedXML));
        let all = "<RedirectAllRequestsTo><HostName>example.org</HostName></RedirectAllRequestsTo>";
        assert_eq!(code(&format!("{all}{INDEX}")), Err(ErrorCode::InvalidArgument));
        assert_eq!(code("<RedirectAllRequestsTo/>"), Err(ErrorCode::MalformedXML));
        let rule = |inner: &str| code(&format!("{INDEX}<RoutingRules><RoutingRule>{inner}</RoutingRule></RoutingRules>"));
        assert_eq!(rule("<Redirect><HostName>example.org</HostName></Redirect>"), Ok(()));
        assert_eq!(rule(""), Err(ErrorCode::MalformedXML));
        assert_eq!(rule("<Redirect/>"), Err(ErrorCode::InvalidRequest));
        assert_eq!(rule("<Redirect><Protocol>ftp</Protocol></Redirect>"), Err(ErrorCode::InvalidRequest));
        assert_eq!(rule("<Redirect><HttpRedirectCode>300</HttpRedirectCode></Redirect>"), Err(ErrorCode::InvalidRequest));
        assert_eq!(rule("<Redirect><HttpRedirectCode>x</HttpRedirectCode></Redirect>"), Err(ErrorCode::InvalidRequest));
        let on_403 = "<Condition><HttpErrorCodeReturnedEquals>403</HttpErrorCodeReturnedEquals></Condition>";
        assert_eq!(rule(&format!("{on_403}<Redirect><HostName>a</HostName></Redirect>")), Err(ErrorCode::NotImplemented));
        assert_eq!(
            rule("<Redirect><ReplaceKeyWith>a</ReplaceKeyWith><ReplaceKeyPrefixWith>b</ReplaceKeyPrefixWith></Redirect>"),
            Err(ErrorCode::InvalidRequest)
        );
        assert_eq!(rule("<Condition/><Redirect><HostName>example.org</HostName></Redirect>"), Err(ErrorCode::InvalidRequest));
        assert_eq!(
            rule(
                "<Condition><HttpErrorCodeReturnedEquals>200</HttpErrorCodeReturnedEquals></Condition><Redirect><HostName>a</HostName></Redirect>"
            ),
            Err(ErrorCode::InvalidRequest)
        );
        let many = "<RoutingRule><Redirect><HostName>example.org</HostName></Redirect></RoutingRule>".repeat(51);
        assert_eq!(code(&format!("{INDEX}<RoutingRules>{many}</RoutingRules>")), Err(ErrorCode::InvalidRequest));
    }
}
