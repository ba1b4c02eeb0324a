//! Inputs that are right or nearly so, to start from.

/// Pieces that have a meaning somewhere.
pub const BITS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\0",
    b"%",
    b"%2F",
    b"%ff",
    b"+",
    b"?",
    b"&",
    b"=",
    b"//",
    b"..",
    b"acl",
    b"uploadId=x",
    b"partNumber=1",
    b"versionId=",
    b"delete",
    b"--XX",
    b"\r\n--XX",
    b"--",
    b"\"",
    b"\\",
    b";",
    b"${filename}",
    b"<",
    b"</a>",
    b"<a>",
    b"&amp;",
    b"&x;",
    b"&#",
    b"<![CDATA[",
    b"<!DOCTYPE",
    b"<!--",
    b"\xEF\xBB\xBF",
    b"\xC3\xA4",
    b"\xFF",
    b"ffffffffffffffff",
    b"-1",
    b"18446744073709551616",
    b"chunk-signature=",
    b"AWS4-HMAC-SHA256",
    b"bytes=",
    b"GMT",
    b"=?UTF-8?B?",
];

const SIGNED: &str = "GET\nb.s3.example\n/test.txt\nhost:examplebucket.s3.amazonaws.com\nx-amz-date:20130524T000000Z\n\
    x-amz-content-sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nrange:bytes=0-9\n\
    authorization:AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
    SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
const PRESIGNED: &str = "GET\nh\n/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&\
    X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404\nhost:h";
const CHUNKED: &[&str] = &[
    "\u{0}\u{f}\u{7}5;ext=1\r\nhello\r\nA\r\n, world!!!\r\n0\r\n\r\n",
    "\u{1}\u{5}\u{3}5;chunk-signature=00\r\nhello\r\n0;chunk-signature=00\r\n\r\n",
    "\u{3}\u{5}\u{40}5\r\nhello\r\n0\r\nx-amz-checksum-crc32c:AAAAAA==\r\n\r\n",
    "\u{2}\u{5}\u{40}5;chunk-signature=0\r\nhello\r\n0;chunk-signature=0\r\nx-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:0\r\n\r\n",
];
const XML: &[&str] = &[
    "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet><Object><Key>a&#13;b</Key></Object></Delete>",
    "<?xml version=\"1.0\"?><!-- c --><s:Complete xmlns:s=\"x\"><s:Part><s:ETag>&quot;e&quot;</s:ETag></s:Part></s:Complete>",
    "<!DOCTYPE l [<!ENTITY a \"ha\">]><a>&a;</a>",
    "<a><b><c><d><e><f><g><h><i><j><k><l><m><n><o><p/></o></n></m></l></k></j></i></h></g></f></e></d></c></b></a>",
    "<a><![CDATA[<b>]]></a>",
];
/// Holds a policy for the bucket `bucket` and any key, until 2030.
const FORM: &str = "\u{9}multipart/form-data; boundary=\"XX\"\n--XX\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nup/${filename}\r\n\
    --XX\r\nContent-Disposition: form-data; name=\"policy\"\r\n\r\n\
    eyJleHBpcmF0aW9uIjoiMjAzMC0wMS0wMVQwMDowMDowMFoiLCJjb25kaXRpb25zIjpbeyJidWNrZXQiOiJidWNrZXQifSxbInN0YXJ0cy13aXRoIiwiJGtleSIsIiJdXX0=\r\n\
    --XX\r\nContent-Disposition: form-data; name=\"tagging\"\r\n\r\n<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>\r\n\
    --XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\\\"b.txt\"\r\nContent-Type: text/plain\r\n\r\ncontent\r\n--XX--\r\n";
const VALUES: &[&str] = &[
    "\u{64}bytes=0-9",
    "\u{64}bytes=-5",
    "\u{64}bytes=18446744073709551615-",
    "\u{64}Fri, 24 May 2013 00:00:00 GMT",
    "\u{64}Friday, 24-May-13 00:00:00 GMT",
    "\u{64}Fri May 24 00:00:00 2013",
    "\u{64}20130524T000000Z",
    "\u{64}2013-05-24T00:00:00.000+02:00",
    "\u{64}W/\"e\", \"f\", *",
    "\u{64}=?UTF-8?Q?gr=C3=BCn?= =?ISO-8859-1?B?/A==?=",
    "\u{64}y/Q5Jg==-3",
    "\u{64}x-amz-checksum-crc64nvme",
];
const REQUESTS: &[&str] = &[
    "PUT\nb.s3.example\n/k/e//y?partNumber=1&uploadId=x\nx-amz-copy-source:/b/k",
    "DELETE\nx\n/b/k?versionId=v&x-id=DeleteObject\n",
    "GET\n[::1]:3900\n/b?list-type=2&prefix=a%2Fb&delimiter=/\n",
    "POST\nx\n/b?delete\ncontent-md5:x",
    "PUT\nx\n/b?acl\nx-amz-acl:private",
    "HEAD\nx\n/b/k?attributes\n",
    "OPTIONS\nx\n/b/k\norigin:https://a",
];

/// The inputs of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    if target == "documents" {
        return (0u8..).zip(garage_api_s3::documents::GOOD).map(|(kind, good)| [&[kind], good.as_bytes()].concat()).collect();
    }
    let texts: Vec<&str> = match target {
        "routing" => REQUESTS.to_vec(),
        "signature" => [SIGNED, PRESIGNED].into_iter().chain(REQUESTS.iter().copied()).collect(),
        "chunked" => CHUNKED.to_vec(),
        "xml" => XML.to_vec(),
        "form" => vec![FORM],
        "header_values" => VALUES.to_vec(),
        other => panic!("no inputs for {other}"),
    };
    texts.into_iter().map(|text| text.as_bytes().to_vec()).collect()
}
