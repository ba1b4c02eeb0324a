"""Websites: allowed by the command line, uploaded over S3, read by host name through every node, also with one node killed."""

import json
import os
import subprocess
import time

from checks import ENDPOINT, ENDPOINTS, check, client, data, empty_and_remove, equal
from pages import answers, await_port, garage, http, web_endpoint

BUCKET = "acceptance-site"
HOST = f"{BUCKET}.web.garage.localhost"
DOMAIN = "www.acceptance-site.example"
LARGE = data(3 << 20)
VICTIM = len(ENDPOINTS)

s3 = client()
sites = [web_endpoint(endpoint) for endpoint in ENDPOINTS]


def get(site, path, status=200, host=HOST, method="GET", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()} | {"Host": host}
    return answers(status, method, site + path, headers=named)


def cluster(*arguments):
    subprocess.run([os.environ["DEV_CLUSTER"], *arguments], check=True, stdout=subprocess.DEVNULL)


def put(key, body, **more):
    s3.put_object(Bucket=BUCKET, Key=key, Body=body, **more)


def admin(endpoint, path, arguments=None):
    """An answer of the admin interface of a node."""
    host, port = endpoint.rsplit(":", 1)
    headers = {"Authorization": f"Bearer {os.environ['GARAGE_ADMIN_TOKEN']}", "Content-Type": "application/json"}
    body = json.dumps(arguments).encode() if arguments else None
    return http("POST" if body else "GET", f"{host}:{int(port) + 3}{path}", body, headers)


with check("upload a site"):
    s3.create_bucket(Bucket=BUCKET)
    put("index.html", b"<h1>home", ContentType="text/html", CacheControl="max-age=60")
    put("404.html", b"<h1>lost", ContentType="text/html")
    put("docs/index.html", b"<h1>docs", ContentType="text/html")
    put("large.bin", LARGE)
    put("moved", b"", WebsiteRedirectLocation="/docs/")
with check("no node serves it before it is allowed"):
    for site in sites:
        get(site, "/", 404)
with check("garage bucket website --allow"):
    garage("bucket", "website", "--allow", BUCKET, "--error-document", "404.html")
with check("every node serves it"):
    for site in sites:
        _, headers, body = get(site, "/")
        equal((body, headers["Content-Type"], headers["Cache-Control"]), (b"<h1>home", "text/html", "max-age=60"))
        equal(get(site, "/large.bin")[2], LARGE)
with check("directories, redirects, the error document"):
    for site in sites:
        equal(get(site, "/docs/")[2], b"<h1>docs")
        equal(get(site, "/docs", 302)[1]["Location"], "/docs/")
        equal(get(site, "/moved", 301)[1]["Location"], "/docs/")
        _, headers, body = get(site, "/nowhere", 404)
        equal((body, "X-Garage-Error" in headers), (b"<h1>lost", True))
with check("ranges and conditions"):
    for site in sites:
        _, headers, body = get(site, "/large.bin", 206, Range="bytes=1000000-1999999")
        equal((body, headers["Content-Range"]), (LARGE[1000000:2000000], f"bytes 1000000-1999999/{len(LARGE)}"))
        etag = get(site, "/", method="HEAD")[1]["ETag"]
        equal(get(site, "/", 304, If_None_Match=etag)[2], b"")
        get(site, "/", 412, If_Match='"other"')
with check("a domain of its own"):
    garage("bucket", "alias", BUCKET, DOMAIN)
    for site in sites:
        equal(get(site, "/", host=DOMAIN)[2], b"<h1>home")
with check("a proxy may ask which domains are served"):
    for endpoint in ENDPOINTS:
        for domain, status in [(HOST, 200), (DOMAIN, 200), ("other.example", 400), ("", 400), (f"{BUCKET}.s3.garage.localhost", 200)]:
            equal((domain, admin(endpoint, f"/check?domain={domain}")[0]), (domain, status))
with check("a single-page application"):
    bucket_id = json.loads(admin(ENDPOINT, f"/v2/GetBucketInfo?globalAlias={BUCKET}")[2])["id"]
    rule = {"Condition": {"HttpErrorCodeReturnedEquals": 404}, "Redirect": {"HttpRedirectCode": 200, "ReplaceKeyWith": "index.html"}}
    access = {"enabled": True, "indexDocument": "index.html", "errorDocument": "404.html"}
    for rules, status, body in [([rule], 200, b"<h1>home"), ([], 404, b"<h1>lost")]:
        equal(admin(ENDPOINT, f"/v2/UpdateBucket?id={bucket_id}", {"websiteAccess": access | {"routingRules": rules}})[0], 200)
        for site in sites:
            equal(get(site, "/any/where", status)[2], body)
with check("redirect rules set over S3"):
    rules = [
        {"Condition": {"KeyPrefixEquals": "old/"}, "Redirect": {"ReplaceKeyPrefixWith": "docs/", "HttpRedirectCode": "307"}},
        {"Condition": {"KeyPrefixEquals": "gone"}, "Redirect": {"HostName": "other.example", "Protocol": "https", "ReplaceKeyWith": "x"}},
        {"Condition": {"HttpErrorCodeReturnedEquals": "404", "KeyPrefixEquals": "docs/"}, "Redirect": {"ReplaceKeyWith": "docs/index.html"}},
    ]
    settings = {"IndexDocument": {"Suffix": "index.html"}, "ErrorDocument": {"Key": "404.html"}}
    s3.put_bucket_website(Bucket=BUCKET, WebsiteConfiguration=settings | {"RoutingRules": rules})
    for site in sites:
        equal(get(site, "/old/a/b", 307)[1]["Location"], "/docs/a/b")
        equal(get(site, "/gone/for/good", 301)[1]["Location"], "https://other.example/x")
        equal(get(site, "/docs/none", 301)[1]["Location"], "/docs/index.html")
        equal(get(site, "/docs/index.html")[2], b"<h1>docs")
        equal(get(site, "/nowhere", 404)[2], b"<h1>lost")
with check("a bucket that only leads elsewhere"):
    s3.put_bucket_website(Bucket=BUCKET, WebsiteConfiguration={"RedirectAllRequestsTo": {"HostName": "other.example", "Protocol": "https"}})
    for site in sites:
        equal(get(site, "/docs/a", 301)[1]["Location"], "https://other.example/docs/a")
    s3.put_bucket_website(Bucket=BUCKET, WebsiteConfiguration=settings)
with check("another index document; the error document stays"):
    s3.put_bucket_website(Bucket=BUCKET, WebsiteConfiguration=settings)
    put("docs/start.htm", b"<h1>start")
    garage("bucket", "website", "--allow", BUCKET, "--index-document", "start.htm")
    for site in sites:
        equal(get(site, "/docs/")[2], b"<h1>start")
        equal(get(site, "/", 404)[2], b"<h1>lost")
    garage("bucket", "website", "--allow", BUCKET, "--index-document", "index.html")
with check("CORS"):
    rule = {"AllowedOrigins": ["https://app.example"], "AllowedMethods": ["GET"], "AllowedHeaders": ["*"]}
    s3.put_bucket_cors(Bucket=BUCKET, CORSConfiguration={"CORSRules": [rule]})
    for site in sites:
        equal(get(site, "/", Origin="https://app.example")[1]["Access-Control-Allow-Origin"], "https://app.example")
        equal(get(site, "/", Origin="https://other.example")[1]["Access-Control-Allow-Origin"], None)
        headers = {"Origin": "https://app.example", "Access_Control_Request_Method": "GET"}
        equal(get(site, "/any", method="OPTIONS", **headers)[1]["Access-Control-Allow-Methods"], "GET")
with check("metrics count requests"):
    text = admin(ENDPOINT, "/metrics")[2].decode()
    equal('web_request_counter{method="GET"}' in text and "web_request_duration_bucket" in text, True)
with check("a new version is at once everywhere"):
    put("index.html", b"<h1>new", ContentType="text/html")
    for site in sites:
        equal(get(site, "/")[2], b"<h1>new")

with check("kill a node"):
    cluster("kill", str(VICTIM))
with check("the others go on serving, none much slower"):
    started = time.monotonic()
    for _ in range(10):
        for site in sites[:-1]:
            equal(get(site, "/")[2], b"<h1>new")
            equal(get(site, "/large.bin")[2], LARGE)
            equal(get(site, "/nowhere", 404)[2], b"<h1>lost")
    print(f"# {time.monotonic() - started:.1f} s for 60 requests with a node down", flush=True)
with check("start it again; it serves"):
    cluster("start", str(VICTIM))
    await_port(int(sites[-1].rsplit(":", 1)[1]))
    deadline = time.monotonic() + 60
    # 503 until it has found the others; never 404, and never the page as it was.
    while (status := http("GET", sites[-1] + "/", headers={"Host": HOST})[0]) == 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    equal(status, 200)
    equal(get(sites[-1], "/")[2], b"<h1>new")
with check("garage bucket website --deny counts on every node when it returns"):
    garage("bucket", "website", "--deny", BUCKET)
    for site in sites:
        get(site, "/", 404)
        get(site, "/", 404, host=DOMAIN)
with check("clean up"):
    garage("bucket", "unalias", DOMAIN)
    empty_and_remove(s3, BUCKET)
