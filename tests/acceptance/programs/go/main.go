// What programs do with the AWS SDK for Go (v2) and with minio-go: each check prints one line.
//
// main SDK BUCKET, SDK is aws or minio; main put BUCKET KEY uploads what it reads, of whatever length. The access key and the endpoint come from the AWS variables and ENDPOINT.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const region = "garage"

// Nothing, small, just over what is stored inline, one block, several parts.
var sizes = []int{0, 1024, 16385, 1 << 20, 20 << 20}

func check(what string, act func() error) {
	if err := act(); err != nil {
		fmt.Printf("not ok - %s: %v\n", what, err)
		return
	}
	fmt.Printf("ok - %s\n", what)
}

func noise(size int) []byte {
	content := make([]byte, size)
	if _, err := rand.Read(content); err != nil {
		panic(err)
	}
	return content
}

func same(found, expected []byte) error {
	if sha256.Sum256(found) != sha256.Sum256(expected) {
		return fmt.Errorf("found %d bytes that differ from the %d expected", len(found), len(expected))
	}
	return nil
}

func wants(found, expected any) error {
	if fmt.Sprint(found) != fmt.Sprint(expected) {
		return fmt.Errorf("found %v, expected %v", found, expected)
	}
	return nil
}

func readAll(body io.ReadCloser) ([]byte, error) {
	defer body.Close()
	return io.ReadAll(body)
}

func fetch(method, url string, body []byte) (int, []byte, error) {
	request, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	content, err := readAll(answer.Body)
	return answer.StatusCode, content, err
}

func codeOf(err error) string {
	var failure smithy.APIError
	if errors.As(err, &failure) {
		return failure.ErrorCode()
	}
	return fmt.Sprint(err)
}

func main() {
	ctx := context.Background()
	switch os.Args[1] {
	case "aws":
		withAws(ctx, os.Args[2])
	case "minio":
		withMinio(ctx, os.Args[2])
	case "put":
		put(ctx, os.Args[2], os.Args[3])
	}
}

func awsClient(ctx context.Context) *s3.Client {
	settings, err := config.LoadDefaultConfig(ctx, config.WithRegion(region))
	if err != nil {
		panic(err)
	}
	return s3.NewFromConfig(settings, func(options *s3.Options) {
		options.BaseEndpoint = aws.String(os.Getenv("ENDPOINT"))
		options.UsePathStyle = true
	})
}

func put(ctx context.Context, bucket, key string) {
	// Only to be read: the uploader would seek in a file, and a pipe refuses that.
	body := io.MultiReader(os.Stdin)
	input := &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String(key), Body: body, ContentType: aws.String("application/octet-stream")}
	if _, err := manager.NewUploader(awsClient(ctx)).Upload(ctx, input); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func withAws(ctx context.Context, bucket string) {
	client := awsClient(ctx)
	key := func(size int) *string { return aws.String(fmt.Sprintf("sizes/%d", size)) }
	contents := map[int][]byte{}
	name := aws.String(bucket)

	check("make a bucket", func() error {
		_, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: name})
		return err
	})
	check("upload all sizes", func() error {
		for _, size := range sizes {
			contents[size] = noise(size)
			input := &s3.PutObjectInput{Bucket: name, Key: key(size), Body: bytes.NewReader(contents[size]), Metadata: map[string]string{"size": fmt.Sprint(size)}}
			if _, err := client.PutObject(ctx, input); err != nil {
				return err
			}
		}
		return nil
	})
	check("read them with their metadata", func() error {
		for _, size := range sizes {
			answer, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: name, Key: key(size), ChecksumMode: types.ChecksumModeEnabled})
			if err != nil {
				return err
			}
			found, err := readAll(answer.Body)
			if err := errors.Join(err, same(found, contents[size]), wants(answer.Metadata["size"], size)); err != nil {
				return err
			}
		}
		return nil
	})
	check("upload in parts, of unknown length", func() error {
		uploader := manager.NewUploader(client, func(u *manager.Uploader) { u.PartSize = 5 << 20 })
		reader := io.MultiReader(bytes.NewReader(contents[20<<20]), strings.NewReader("tail"))
		_, err := uploader.Upload(ctx, &s3.PutObjectInput{Bucket: name, Key: aws.String("parts"), Body: reader, ChecksumAlgorithm: types.ChecksumAlgorithmSha256})
		if err != nil {
			return err
		}
		buffer := manager.NewWriteAtBuffer(nil)
		_, err = manager.NewDownloader(client).Download(ctx, buffer, &s3.GetObjectInput{Bucket: name, Key: aws.String("parts")})
		return errors.Join(err, same(buffer.Bytes(), append(bytes.Clone(contents[20<<20]), "tail"...)))
	})
	check("a range, and what is not there", func() error {
		answer, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: name, Key: key(1 << 20), Range: aws.String("bytes=100-199")})
		if err != nil {
			return err
		}
		found, err := readAll(answer.Body)
		_, missing := client.GetObject(ctx, &s3.GetObjectInput{Bucket: name, Key: aws.String("absent")})
		return errors.Join(err, same(found, contents[1<<20][100:200]), wants(codeOf(missing), "NoSuchKey"))
	})
	check("a conditional write", func() error {
		input := &s3.PutObjectInput{Bucket: name, Key: key(1024), Body: strings.NewReader("x"), IfNoneMatch: aws.String("*")}
		_, refused := client.PutObject(ctx, input)
		return wants(codeOf(refused), "PreconditionFailed")
	})
	check("copy", func() error {
		input := &s3.CopyObjectInput{Bucket: name, Key: aws.String("copy"), CopySource: aws.String(bucket + "/sizes/16385")}
		if _, err := client.CopyObject(ctx, input); err != nil {
			return err
		}
		head, err := client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: name, Key: aws.String("copy")})
		if err != nil {
			return err
		}
		return wants(*head.ContentLength, 16385)
	})
	check("presigned requests", func() error {
		presigner := s3.NewPresignClient(client)
		put, err := presigner.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: name, Key: aws.String("presigned")})
		if err != nil {
			return err
		}
		status, _, err := fetch("PUT", put.URL, []byte("content"))
		if err := errors.Join(err, wants(status, 200)); err != nil {
			return err
		}
		get, err := presigner.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: name, Key: aws.String("presigned")})
		if err != nil {
			return err
		}
		status, body, err := fetch("GET", get.URL, nil)
		return errors.Join(err, wants(status, 200), same(body, []byte("content")))
	})
	check("list in pages", func() error {
		pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: name, MaxKeys: aws.Int32(3)})
		count := 0
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return err
			}
			count += len(page.Contents)
		}
		return wants(count, len(sizes)+3)
	})
	check("versions", func() error {
		kept := types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}
		_, err := client.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: name, VersioningConfiguration: &kept})
		key := aws.String("versioned")
		write := func(content string) *string {
			answer, failure := client.PutObject(ctx, &s3.PutObjectInput{Bucket: name, Key: key, Body: strings.NewReader(content)})
			if failure != nil {
				err = errors.Join(err, failure)
				return nil
			}
			return answer.VersionId
		}
		first, _ := write("first"), write("second")
		marker, failure := client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: name, Key: key})
		if err := errors.Join(err, failure); err != nil {
			return err
		}
		read := func(version *string, expected string) error {
			answer, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: name, Key: key, VersionId: version})
			if err != nil {
				return err
			}
			found, err := readAll(answer.Body)
			return errors.Join(err, wants(string(found), expected))
		}
		err = errors.Join(wants(codeOf(read(nil, "")), "NoSuchKey"), read(first, "first"))
		_, failure = client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: name, Key: key, VersionId: marker.VersionId})
		return errors.Join(err, failure, read(nil, "second"))
	})
	check("delete everything", func() error {
		list, err := client.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: name})
		if err != nil {
			return err
		}
		var all []types.ObjectIdentifier
		for _, entry := range list.Versions {
			all = append(all, types.ObjectIdentifier{Key: entry.Key, VersionId: entry.VersionId})
		}
		answer, err := client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: name, Delete: &types.Delete{Objects: all}})
		if err != nil {
			return err
		}
		_, err = client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: name})
		return errors.Join(err, wants(len(answer.Errors), 0))
	})
}

func withMinio(ctx context.Context, bucket string) {
	client, err := minio.New(strings.TrimPrefix(os.Getenv("ENDPOINT"), "http://"), &minio.Options{
		Creds:  credentials.NewStaticV4(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
		Region: region,
	})
	if err != nil {
		panic(err)
	}
	contents := map[string][]byte{}

	check("make a bucket", func() error { return client.MakeBucket(ctx, bucket, minio.MakeBucketOptions{Region: region}) })
	check("it exists, another does not", func() error {
		found, err := client.BucketExists(ctx, bucket)
		other, otherErr := client.BucketExists(ctx, bucket+"-absent")
		return errors.Join(err, otherErr, wants(found, true), wants(other, false))
	})
	check("upload all sizes, also of unknown length", func() error {
		for _, size := range sizes {
			content := noise(size)
			for _, known := range []bool{true, false} {
				name, length := fmt.Sprintf("%d-%v", size, known), int64(size)
				if !known {
					length = -1
				}
				options := minio.PutObjectOptions{PartSize: 16 << 20, UserMetadata: map[string]string{"size": fmt.Sprint(size)}}
				if _, err := client.PutObject(ctx, bucket, name, bytes.NewReader(content), length, options); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				contents[name] = content
			}
		}
		return nil
	})
	check("read them", func() error {
		for name, content := range contents {
			object, err := client.GetObject(ctx, bucket, name, minio.GetObjectOptions{})
			if err != nil {
				return err
			}
			found, err := io.ReadAll(object)
			if err := errors.Join(err, same(found, content)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
	check("read on in the middle, and only what did not change", func() error {
		name := fmt.Sprintf("%d-true", 20<<20)
		object, err := client.GetObject(ctx, bucket, name, minio.GetObjectOptions{})
		if err != nil {
			return err
		}
		defer object.Close()
		if _, err := object.Seek(7<<20, io.SeekStart); err != nil {
			return err
		}
		piece := make([]byte, 1000)
		_, err = io.ReadFull(object, piece)
		return errors.Join(err, same(piece, contents[name][7<<20:7<<20+1000]))
	})
	check("stat: size, metadata, what is not there", func() error {
		info, err := client.StatObject(ctx, bucket, "1024-true", minio.StatObjectOptions{})
		if err != nil {
			return err
		}
		_, missing := client.StatObject(ctx, bucket, "absent", minio.StatObjectOptions{})
		return errors.Join(wants(info.Size, 1024), wants(info.UserMetadata["Size"], "1024"), wants(minio.ToErrorResponse(missing).Code, "NoSuchKey"))
	})
	check("copy, and compose of parts", func() error {
		source := minio.CopySrcOptions{Bucket: bucket, Object: fmt.Sprintf("%d-true", 20<<20)}
		if _, err := client.CopyObject(ctx, minio.CopyDestOptions{Bucket: bucket, Object: "copy"}, source); err != nil {
			return err
		}
		info, err := client.ComposeObject(ctx, minio.CopyDestOptions{Bucket: bucket, Object: "composed"}, source, source)
		return errors.Join(err, wants(info.Size, 40<<20))
	})
	check("a presigned request", func() error {
		url, err := client.PresignedGetObject(ctx, bucket, "1024-true", time.Minute, nil)
		if err != nil {
			return err
		}
		status, body, err := fetch("GET", url.String(), nil)
		return errors.Join(err, wants(status, 200), same(body, contents["1024-true"]))
	})
	check("list, also with delimiter", func() error {
		count := 0
		for entry := range client.ListObjects(ctx, bucket, minio.ListObjectsOptions{Recursive: true}) {
			if entry.Err != nil {
				return entry.Err
			}
			count++
		}
		return wants(count, len(contents)+2)
	})
	check("versions", func() error {
		err := client.EnableVersioning(ctx, bucket)
		write := func(content string) string {
			info, failure := client.PutObject(ctx, bucket, "versioned", strings.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
			err = errors.Join(err, failure)
			return info.VersionID
		}
		first, second := write("first"), write("second")
		if err := errors.Join(err, client.RemoveObject(ctx, bucket, "versioned", minio.RemoveObjectOptions{})); err != nil {
			return err
		}
		_, missing := client.StatObject(ctx, bucket, "versioned", minio.StatObjectOptions{})
		err = wants(minio.ToErrorResponse(missing).Code, "NoSuchKey")
		marker := ""
		for entry := range client.ListObjects(ctx, bucket, minio.ListObjectsOptions{Prefix: "versioned", WithVersions: true}) {
			if entry.IsDeleteMarker {
				marker = entry.VersionID
			} else {
				err = errors.Join(err, entry.Err, wants(entry.VersionID == first || entry.VersionID == second, true))
			}
		}
		read := func(version, expected string) error {
			object, err := client.GetObject(ctx, bucket, "versioned", minio.GetObjectOptions{VersionID: version})
			if err != nil {
				return err
			}
			found, err := io.ReadAll(object)
			return errors.Join(err, wants(string(found), expected))
		}
		err = errors.Join(err, read(first, "first"))
		return errors.Join(err, client.RemoveObject(ctx, bucket, "versioned", minio.RemoveObjectOptions{VersionID: marker}), read("", "second"))
	})
	check("delete everything", func() error {
		entries := client.ListObjects(ctx, bucket, minio.ListObjectsOptions{Recursive: true, WithVersions: true})
		for failure := range client.RemoveObjects(ctx, bucket, entries, minio.RemoveObjectsOptions{}) {
			return failure.Err
		}
		return client.RemoveBucket(ctx, bucket)
	})
}
