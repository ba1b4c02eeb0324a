# What GitLab does through fog-aws, and what its Workhorse does with URLs that fog signs. Each check prints one line.
#
# ruby gitlab-fog.rb CONNECTION.yml OTHER_CONNECTION.yml BUCKET

require 'yaml'
require 'fog/aws'
require 'net/http'
require 'digest'
require 'securerandom'
require 'stringio'
require 'rexml/document'

Excon.defaults[:read_timeout] = 120
$stdout.sync = true

connection_file, other_file, BUCKET = ARGV
def connect(file, **more)
  settings = YAML.safe_load(File.read(file)).transform_keys(&:to_sym).merge(more)
  Fog::Storage.new(settings)
end
FOG = connect(connection_file)
OTHER = connect(other_file)
UNSTREAMED = connect(connection_file, enable_signature_v4_streaming: false)

def check(what)
  yield
  puts "ok - #{what}"
rescue StandardError => e
  puts "not ok - #{what}: #{e.class}: #{e.message.to_s[0, 600]}"
  puts "    #{e.backtrace.find { |line| line.include?(File.basename(__FILE__)) }}"
end

def equal(found, expected)
  show = ->(value) { value.is_a?(String) && value.bytesize > 200 ? "#{value.bytesize} bytes #{Digest::SHA256.hexdigest(value)}" : value.inspect }
  raise "found #{show.call(found)}, expected #{show.call(expected)}" unless found == expected
end

def refused(status)
  yield
rescue Excon::Error::HTTPStatus => e
  raise "refused with #{e.response.status}, expected #{status}" unless e.response.status == status
else
  raise "succeeded, expected #{status}"
end

# A plain request, as Workhorse makes it: no AWS library, only what the URL carries.
def plain(method, url, body = nil, headers = {})
  uri = URI(url)
  request = Net::HTTP.const_get(method.capitalize).new(uri, headers)
  request.body = body if body
  Net::HTTP.start(uri.host, uri.port, nil, read_timeout: 120) { |http| http.request(request) }
end

def expires
  Time.now + 600
end

SMALL = SecureRandom.random_bytes(20_000)
LARGE = SecureRandom.random_bytes(12 << 20)

check('make a bucket') { FOG.directories.create(key: BUCKET) }
DIRECTORY = FOG.directories.new(key: BUCKET)

check('upload with streaming signatures') do
  DIRECTORY.files.create(key: 'small', body: SMALL, content_type: 'text/plain', metadata: { 'x-amz-meta-job' => '42' })
  DIRECTORY.files.create(key: 'empty', body: '')
end
check('upload a file of unknown length') do
  File.binwrite('large', LARGE)
  File.open('large', 'rb') { |file| DIRECTORY.files.create(key: 'large', body: file) }
end
check('upload without streaming signatures') do
  UNSTREAMED.directories.new(key: BUCKET).files.create(key: 'unstreamed', body: SMALL)
end
check('read through another node') do
  found = OTHER.directories.new(key: BUCKET).files
  equal(found.get('small').body, SMALL)
  equal(found.get('large').body, LARGE)
  equal(found.get('unstreamed').body, SMALL)
  equal(found.get('empty').body.to_s, '')
end
check('head: size, type, metadata') do
  head = DIRECTORY.files.head('small')
  equal([head.content_length, head.content_type, head.metadata['x-amz-meta-job']], [SMALL.bytesize, 'text/plain', '42'])
  equal(DIRECTORY.files.head('absent'), nil)
end
check('stream in pieces') do
  pieces = +''.b
  DIRECTORY.files.get('large') { |piece, _, _| pieces << piece }
  equal(pieces, LARGE)
end
check('a range, and a condition that says unchanged') do
  equal(FOG.get_object(BUCKET, 'large', 'Range' => 'bytes=1000-1999').body, LARGE[1000, 1000])
  etag = FOG.head_object(BUCKET, 'small').headers['ETag']
  refused(304) { FOG.get_object(BUCKET, 'small', 'If-None-Match' => etag) }
end
check('upload in parts') do
  DIRECTORY.files.create(key: 'parts', body: StringIO.new(LARGE), multipart_chunk_size: 5 << 20)
  equal(DIRECTORY.files.get('parts').body, LARGE)
  equal(FOG.head_object(BUCKET, 'parts').headers['ETag'].delete('"').end_with?('-3'), true)
end
check('copy, also with new metadata') do
  FOG.copy_object(BUCKET, 'small', BUCKET, 'copy')
  FOG.copy_object(BUCKET, 'small', BUCKET, 'changed', 'x-amz-metadata-directive' => 'REPLACE', 'Content-Type' => 'text/html')
  equal(DIRECTORY.files.get('copy').body, SMALL)
  equal(DIRECTORY.files.head('changed').content_type, 'text/html')
end
check('copy in parts') do
  upload = FOG.initiate_multipart_upload(BUCKET, 'copied').body['UploadId']
  ranges = ["bytes=0-#{(6 << 20) - 1}", "bytes=#{6 << 20}-#{LARGE.bytesize - 1}"]
  etags = ranges.each_with_index.map do |range, index|
    FOG.upload_part_copy(BUCKET, 'copied', upload, index + 1, "x-amz-copy-source" => "/#{BUCKET}/large", 'x-amz-copy-source-range' => range).body['ETag']
  end
  equal(FOG.list_parts(BUCKET, 'copied', upload).body['Part'].size, 2)
  FOG.complete_multipart_upload(BUCKET, 'copied', upload, etags)
  equal(DIRECTORY.files.get('copied').body, LARGE)
end
check('a wrong etag of a part is refused') do
  upload = FOG.initiate_multipart_upload(BUCKET, 'wrong').body['UploadId']
  FOG.upload_part(BUCKET, 'wrong', upload, 1, SMALL, 'Content-MD5' => Base64.strict_encode64(Digest::MD5.digest(SMALL)))
  refused(400) { FOG.complete_multipart_upload(BUCKET, 'wrong', upload, ['"00000000000000000000000000000000"']) }
  equal(FOG.list_multipart_uploads(BUCKET).body['Upload'].map { |found| found['Key'] }, ['wrong'])
  FOG.abort_multipart_upload(BUCKET, 'wrong', upload)
  equal(FOG.list_multipart_uploads(BUCKET).body['Upload'], [])
end
check('list with prefix, delimiter, pages') do
  25.times { |number| DIRECTORY.files.create(key: format('dir/%02d', number), body: 'x') }
  equal(FOG.directories.get(BUCKET, prefix: 'dir/').files.map(&:key), (0...25).map { |number| format('dir/%02d', number) })
  equal(FOG.get_bucket(BUCKET, 'delimiter' => '/').body['CommonPrefixes'], ['dir/'])
  page = FOG.get_bucket(BUCKET, 'prefix' => 'dir/', 'max-keys' => 10)
  equal([page.body['Contents'].size, page.body['IsTruncated']], [10, true])
  names = []
  FOG.directories.get(BUCKET, prefix: 'dir/', max_keys: 10).files.each { |file| names << file.key }
  equal(names.size, 25)
end

check('presigned: PUT, HEAD, GET, DELETE') do
  body = SecureRandom.random_bytes(100_000)
  put = FOG.put_object_url(BUCKET, 'direct', expires, 'Content-Type' => 'application/octet-stream')
  equal(plain('put', put, body, 'Content-Type' => 'application/octet-stream').code, '200')
  equal(plain('head', FOG.head_object_url(BUCKET, 'direct', expires))['Content-Length'], '100000')
  url = FOG.get_object_url(BUCKET, 'direct', expires, query: { 'response-content-disposition' => 'attachment; filename="a b.txt"' })
  answer = plain('get', url)
  equal([answer.body, answer['Content-Disposition']], [body, 'attachment; filename="a b.txt"'])
  equal(plain('delete', FOG.delete_object_url(BUCKET, 'direct', expires)).code, '204')
  equal(plain('get', url).code, '404')
end
check('presigned: parts, completion') do
  upload = FOG.initiate_multipart_upload(BUCKET, 'direct-parts').body['UploadId']
  pieces = [LARGE[0, 5 << 20], LARGE[5 << 20, 5 << 20], LARGE[(10 << 20)..]]
  etags = pieces.each_with_index.map do |piece, index|
    query = { 'uploadId' => upload, 'partNumber' => index + 1 }
    url = FOG.signed_url({ method: 'PUT', bucket_name: BUCKET, object_name: 'direct-parts', query: query, headers: {} }, expires)
    answer = plain('put', url, piece)
    equal(answer.code, '200')
    answer['ETag']
  end
  url = FOG.signed_url({ method: 'POST', bucket_name: BUCKET, object_name: 'direct-parts', query: { 'uploadId' => upload }, headers: { 'Content-Type' => 'application/xml' } }, expires)
  parts = etags.each_with_index.map { |etag, index| "<Part><PartNumber>#{index + 1}</PartNumber><ETag>#{etag.gsub('"', '&quot;')}</ETag></Part>" }
  answer = plain('post', url, "<CompleteMultipartUpload>#{parts.join}</CompleteMultipartUpload>", 'Content-Type' => 'application/xml')
  equal([answer.code, REXML::Document.new(answer.body).root.name], %w[200 CompleteMultipartUploadResult])
  equal(DIRECTORY.files.get('direct-parts').body, LARGE)
end
check('presigned: abort') do
  upload = FOG.initiate_multipart_upload(BUCKET, 'aborted').body['UploadId']
  url = FOG.signed_url({ method: 'DELETE', bucket_name: BUCKET, object_name: 'aborted', query: { 'uploadId' => upload }, headers: {} }, expires)
  equal(plain('delete', url).code, '204')
  equal(plain('delete', url).code, '404')
end
check('a URL that was changed is refused') do
  url = FOG.get_object_url(BUCKET, 'small', expires)
  equal(plain('get', url.sub('small', 'large')).code, '403')
end
check('a bucket with files is not deleted') { refused(409) { FOG.delete_bucket(BUCKET) } }
check('delete one by one, and many at once') do
  DIRECTORY.files.get('copy').destroy
  equal(DIRECTORY.files.head('copy'), nil)
  names = FOG.directories.get(BUCKET).files.map(&:key)
  FOG.delete_multiple_objects(BUCKET, names)
  equal(FOG.directories.get(BUCKET).files.to_a, [])
  FOG.delete_bucket(BUCKET)
end
