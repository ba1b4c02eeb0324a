// The newest Docker registry, which drops given-up uploads also when told: by itself it waits up to an hour before it does so first.
//
// main serve|garbage-collect CONFIG as the registry's own program has them; main purge CONFIG AGE drops uploads older than that.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/s3-aws"
	"github.com/spf13/cobra"
)

func main() {
	registry.RootCmd.AddCommand(&cobra.Command{Use: "purge CONFIG AGE", Args: cobra.ExactArgs(2), RunE: purge, SilenceUsage: true})
	if err := registry.RootCmd.Execute(); err != nil {
		os.Exit(1)
	}
}

func purge(_ *cobra.Command, arguments []string) error {
	file, err := os.Open(arguments[0])
	if err != nil {
		return err
	}
	defer file.Close()
	settings, err := configuration.Parse(file)
	if err != nil {
		return err
	}
	age, err := time.ParseDuration(arguments[1])
	if err != nil {
		return err
	}
	ctx := context.Background()
	driver, err := factory.Create(ctx, settings.Storage.Type(), settings.Storage.Parameters())
	if err != nil {
		return err
	}
	deleted, failures := storage.PurgeUploads(ctx, driver, time.Now().Add(-age), true)
	fmt.Printf("%d uploads dropped\n", len(deleted))
	return errors.Join(failures...)
}
