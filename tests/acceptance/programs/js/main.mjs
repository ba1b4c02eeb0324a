// What programs do with the AWS SDK for JavaScript (v3): each check prints one line.
//
// node main.mjs BUCKET; the access key and the endpoint come from the AWS variables and ENDPOINT.

import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import assert from "node:assert/strict";
import * as s3 from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

const Bucket = process.argv[2];
const client = new s3.S3Client({ endpoint: process.env.ENDPOINT, region: "garage", forcePathStyle: true, maxAttempts: 1 });
// Nothing, small, just over what is stored inline, one block, several parts.
const sizes = [0, 1024, 16385, 1 << 20, 20 << 20];
const contents = new Map(sizes.map((size) => [`sizes/${size}`, randomBytes(size)]));

async function check(what, act) {
  try {
    await act();
    console.log(`ok - ${what}`);
  } catch (error) {
    console.log(`not ok - ${what}: ${error}`);
  }
}
const read = async (body) => Buffer.from(await body.transformToByteArray());
const same = (found, expected) => assert.ok(found.equals(expected), `${found.length} bytes that differ from the ${expected.length} expected`);

await check("make a bucket", () => client.send(new s3.CreateBucketCommand({ Bucket })));
await check("upload all sizes", async () => {
  for (const [Key, Body] of contents) await client.send(new s3.PutObjectCommand({ Bucket, Key, Body, Metadata: { of: Key } }));
});
await check("read them with their metadata", async () => {
  for (const [Key, expected] of contents) {
    const answer = await client.send(new s3.GetObjectCommand({ Bucket, Key, ChecksumMode: "ENABLED" }));
    same(await read(answer.Body), expected);
    assert.equal(answer.Metadata.of, Key);
  }
});
await check("upload a stream of unknown length in parts", async () => {
  const expected = contents.get(`sizes/${20 << 20}`);
  const Body = Readable.from((function* () { for (let at = 0; at < expected.length; at += 100_000) yield expected.subarray(at, at + 100_000); })());
  await new Upload({ client, partSize: 5 << 20, params: { Bucket, Key: "parts", Body } }).done();
  same(await read((await client.send(new s3.GetObjectCommand({ Bucket, Key: "parts" }))).Body), expected);
});
await check("a range, and what is not there", async () => {
  const answer = await client.send(new s3.GetObjectCommand({ Bucket, Key: "sizes/16385", Range: "bytes=100-199" }));
  same(await read(answer.Body), contents.get("sizes/16385").subarray(100, 200));
  await assert.rejects(client.send(new s3.GetObjectCommand({ Bucket, Key: "absent" })), { name: "NoSuchKey" });
});
await check("a conditional write", async () => {
  const command = new s3.PutObjectCommand({ Bucket, Key: "parts", Body: "x", IfNoneMatch: "*" });
  await assert.rejects(client.send(command), { name: "PreconditionFailed" });
});
await check("copy", async () => {
  await client.send(new s3.CopyObjectCommand({ Bucket, Key: "copy", CopySource: `${Bucket}/sizes/1024` }));
  assert.equal((await client.send(new s3.HeadObjectCommand({ Bucket, Key: "copy" }))).ContentLength, 1024);
});
await check("presigned requests", async () => {
  const put = await getSignedUrl(client, new s3.PutObjectCommand({ Bucket, Key: "presigned" }), { expiresIn: 60 });
  assert.equal((await fetch(put, { method: "PUT", body: "content" })).status, 200);
  const get = await getSignedUrl(client, new s3.GetObjectCommand({ Bucket, Key: "presigned" }), { expiresIn: 60 });
  assert.equal(await (await fetch(get)).text(), "content");
});
await check("list in pages", async () => {
  let count = 0;
  for await (const page of s3.paginateListObjectsV2({ client, pageSize: 3 }, { Bucket })) count += page.Contents?.length ?? 0;
  assert.equal(count, sizes.length + 3);
});
await check("versions", async () => {
  await client.send(new s3.PutBucketVersioningCommand({ Bucket, VersioningConfiguration: { Status: "Enabled" } }));
  const Key = "versioned";
  const first = (await client.send(new s3.PutObjectCommand({ Bucket, Key, Body: "first" }))).VersionId;
  await client.send(new s3.PutObjectCommand({ Bucket, Key, Body: "second" }));
  const marker = (await client.send(new s3.DeleteObjectCommand({ Bucket, Key }))).VersionId;
  await assert.rejects(client.send(new s3.GetObjectCommand({ Bucket, Key })), { name: "NoSuchKey" });
  const content = async (VersionId) => (await client.send(new s3.GetObjectCommand({ Bucket, Key, VersionId }))).Body.transformToString();
  assert.equal(await content(first), "first");
  await client.send(new s3.DeleteObjectCommand({ Bucket, Key, VersionId: marker }));
  assert.equal(await content(), "second");
});
await check("delete everything", async () => {
  const list = await client.send(new s3.ListObjectVersionsCommand({ Bucket }));
  const Objects = list.Versions.map(({ Key, VersionId }) => ({ Key, VersionId }));
  assert.deepEqual((await client.send(new s3.DeleteObjectsCommand({ Bucket, Delete: { Objects } }))).Errors ?? [], []);
  await client.send(new s3.DeleteBucketCommand({ Bucket }));
});
