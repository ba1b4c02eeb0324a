# What GitLab does through fog-aws, and what its Workhorse does with URLs that fog signs. Each check prints one line.
#
# GitLab cuts the work in two. Workhorse takes a file from the user and puts it below tmp/: by URLs that Rails has signed where each kind of file
# has a connection of its own, by the SDK for Go where one connection serves all. Rails then looks at it, copies it to where it belongs, and
# Workhorse deletes the first. Workhorse compares every ETag with its own MD5, and fails an upload when they differ.
#
# ruby gitlab-fog.rb CONNECTION.yml OTHER_CONNECTION.yml BUCKET GO_PROGRAM

require 'English'
require 'yaml'
require 'fog/aws'
require 'net/http'
require 'digest'
require 'securerandom'
require 'stringio'
require 'rexml/document'

Excon.defaults[:read_timeout] = 120
$stdout.sync = true

connection_file, other_file, BUCKET, GO_PROGRAM = ARGV
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
# What Rails hands to Workhorse beside the URLs: headers that it has signed, to be sent with each.
def put_headers
  { 'Content-Type' => 'application/octet-stream' }
end

def signed(method, key, query = {}, headers = {})
  FOG.signed_url({ method: method, bucket_name: BUCKET, object_name: key, query: query, headers: headers }, expires)
end

# Workhorse: a piece goes to its URL; the ETag must be its MD5.
def put_piece(url, piece)
  answer = plain('put', url, piece, put_headers)
  equal([answer.code, answer['ETag']], ['200', "\"#{Digest::MD5.hexdigest(piece)}\""])
  answer['ETag']
end

# Workhorse: its XML, in which quotes are numbers; the whole's ETag must be the MD5 of the parts' MD5s.
def complete(url, etags)
  parts = etags.each_with_index.map { |etag, index| "<Part><PartNumber>#{index + 1}</PartNumber><ETag>#{etag.gsub('"', '&#34;')}</ETag></Part>" }
  answer = plain('post', url, "<CompleteMultipartUpload>#{parts.join}</CompleteMultipartUpload>", 'Content-Type' => 'application/xml')
  root = REXML::Document.new(answer.body).root
  equal([answer.code, root.name], %w[200 CompleteMultipartUploadResult])
  whole = Digest::MD5.hexdigest(etags.map { |etag| [etag.delete('"')].pack('H*') }.join)
  equal(root.elements['ETag'].text.delete('"'), "#{whole}-#{etags.size}")
end

# Rails: looks at what came, copies it to where it belongs.
def take_over(temporary, final, content)
  file = DIRECTORY.files.head(temporary)
  equal([file.content_length, file.content_type], [content.bytesize, put_headers['Content-Type']])
  file.copy(BUCKET, final)
  equal(DIRECTORY.files.get(final).body, content)
end

# Workhorse: the first is not needed any more.
def delete_temporary(temporary, final, content)
  equal(plain('delete', FOG.delete_object_url(BUCKET, temporary, expires)).code, '204')
  equal([DIRECTORY.files.head(temporary), OTHER.directories.new(key: BUCKET).files.get(final).body], [nil, content])
end

check('direct upload: one PUT, copied to its place, the first deleted') do
  temporary = 'tmp/uploads/1'
  put_piece(FOG.put_object_url(BUCKET, temporary, expires, put_headers), SMALL)
  take_over(temporary, '@hashed/1', SMALL)
  delete_temporary(temporary, '@hashed/1', SMALL)
end
check('direct upload: other headers than the signed are refused') do
  url = FOG.put_object_url(BUCKET, 'tmp/uploads/other', expires, put_headers)
  equal(plain('put', url, SMALL, 'Content-Type' => 'text/html').code, '403')
  equal(DIRECTORY.files.head('tmp/uploads/other'), nil)
end
PIECES = [LARGE[0, 5 << 20], LARGE[5 << 20, 5 << 20], LARGE[(10 << 20)..]].freeze
check('direct upload: parts, completion, copied to its place, the first deleted') do
  temporary = 'tmp/uploads/2'
  upload = FOG.initiate_multipart_upload(BUCKET, temporary, put_headers).body['UploadId']
  # Rails signs more parts than are used.
  urls = (1..5).map { |number| signed('PUT', temporary, { 'partNumber' => number, 'uploadId' => upload }, put_headers) }
  etags = PIECES.zip(urls).map { |piece, url| put_piece(url, piece) }
  complete(signed('POST', temporary, { 'uploadId' => upload }, { 'Content-Type' => 'application/xml' }), etags)
  take_over(temporary, '@hashed/2', LARGE)
  delete_temporary(temporary, '@hashed/2', LARGE)
  equal(FOG.list_multipart_uploads(BUCKET).body['Upload'], [])
end
check('direct upload: broken off, aborted') do
  temporary = 'tmp/uploads/3'
  upload = FOG.initiate_multipart_upload(BUCKET, temporary, put_headers).body['UploadId']
  part = signed('PUT', temporary, { 'partNumber' => 1, 'uploadId' => upload }, put_headers)
  put_piece(part, PIECES[0])
  abort = signed('DELETE', temporary, { 'uploadId' => upload })
  equal(plain('delete', abort).code, '204')
  equal(plain('delete', abort).code, '404')
  equal(plain('put', part, PIECES[0], put_headers).code, '404')
  equal([FOG.list_multipart_uploads(BUCKET).body['Upload'], DIRECTORY.files.head(temporary)], [[], nil])
end
check('direct upload by the SDK for Go, as with one connection for all') do
  [SMALL, LARGE].each_with_index do |content, index|
    temporary = "tmp/uploads/go-#{index}"
    IO.popen([GO_PROGRAM, 'put', BUCKET, temporary], 'wb') { |stdin| stdin.write(content) }
    equal($CHILD_STATUS.success?, true)
    take_over(temporary, "@hashed/go-#{index}", content)
    delete_temporary(temporary, "@hashed/go-#{index}", content)
  end
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
