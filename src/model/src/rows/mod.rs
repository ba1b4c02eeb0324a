//! The rows of every table and their stored forms. A field added later gets a serde default; a field is never reused.

pub mod access;
pub mod bucket;
pub mod certificate;
pub mod checksum;
pub mod key;
pub mod lifecycle;
pub mod object;
pub mod owner;
pub mod part;
pub mod payload;
pub mod rules;
pub mod upload;

use garage_table::TableId;

/// One row a version of an object; the null slot is all there is in an unversioned bucket.
pub const VERSION: TableId = TableId(1);
/// State of a multipart upload.
pub const UPLOAD: TableId = TableId(2);
/// Parts of multipart uploads.
pub const PART: TableId = TableId(3);
/// Versions that are not current; a merge table, kept by the hook of [`VERSION`].
pub const OLDER_VERSION: TableId = TableId(8);
// 4 is `garage_block::reference::REFERENCE_TABLE`.
/// Buckets; a control table.
pub const BUCKET: TableId = TableId(16);
/// Global names of buckets; a control table.
pub const ALIAS: TableId = TableId(17);
/// Access keys; a control table.
pub const KEY: TableId = TableId(18);
/// Tokens of the admin API; a control table.
pub const ADMIN_TOKEN: TableId = TableId(19);
/// Certificates of websites; a control table.
pub const CERTIFICATE: TableId = TableId(24);
/// Accounts with certificate authorities; a control table.
pub const ACME_ACCOUNT: TableId = TableId(25);

garage_util::id32! {
    /// A bucket.
    BucketId
}
